//! What an error of Datastore means for a login.

use std::error::Error as StdError;
use std::fmt;

use gcloud_sdk::error::{Error as SdkError, ErrorKind as SdkErrorKind};
use gcloud_sdk::tonic::{Code, ConnectError, Status};
use tower_keep_core::{StoreError, StoreErrorKind};

/// The name of this store in errors.
pub(crate) const NAME: &str = "datastore";

/// How much of Google's message an error contains at most, in bytes.
const MAX_MESSAGE: usize = 400;

/// What happened to a call, and so what can be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Another transaction was faster; nothing was done, and a new transaction may succeed.
    Aborted,
    /// The transaction no longer exists. Nothing was done, and a new one may succeed.
    TransactionGone,
    /// The entity that was to be inserted exists already. Nothing was done.
    AlreadyExists,
    /// The call did not reach the service, or the service is unavailable. Nothing was done.
    Unavailable,
    /// It is not known whether the call was carried out.
    OutcomeUnknown,
    /// Another error, of this kind. Nothing was done.
    Kind(StoreErrorKind),
}

/// An error, and what it means.
#[derive(Clone, Debug)]
pub(crate) struct Error {
    pub(crate) cause: Cause,
    words: String,
}

impl Error {
    pub(crate) fn new(kind: StoreErrorKind, words: impl Into<String>) -> Self {
        Self { cause: Cause::Kind(kind), words: words.into() }
    }

    /// Stored data can't be read.
    pub(crate) fn corrupt(words: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Corrupt, words)
    }

    pub(crate) fn unsupported(words: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Unsupported, words)
    }

    /// Another user has the id or the name.
    pub(crate) fn taken(what: &str) -> Self {
        Self::new(StoreErrorKind::Conflict, format!("the {what} is taken"))
    }

    /// Other calls wrote the same data during every try.
    pub(crate) fn contended() -> Self {
        let words = "other calls kept changing the same data until the time-out; try again later";
        Self { cause: Cause::Aborted, words: words.to_owned() }
    }

    /// More calls wait to write the same data than are allowed.
    pub(crate) fn queue_full() -> Self {
        let words = "too many calls are waiting to write the same data; try again later";
        Self { cause: Cause::Unavailable, words: words.to_owned() }
    }

    /// The reply does not fit the request.
    pub(crate) fn unexpected_reply() -> Self {
        Self::new(
            StoreErrorKind::Unavailable,
            "unexpected reply from the service; if this persists, check the endpoint",
        )
    }

    /// Returns the error for the status of a call that writes.
    pub(crate) fn from_status(status: &Status) -> Self {
        let cause = match status.code() {
            Code::Aborted => Cause::Aborted,
            Code::AlreadyExists => Cause::AlreadyExists,
            Code::ResourceExhausted => Cause::Unavailable,
            Code::Unavailable if is_unconnected(status) => Cause::Unavailable,
            Code::Unavailable | Code::DeadlineExceeded => Cause::OutcomeUnknown,
            // This happens after a restart, or when the transaction took too long. A new one can
            // begin.
            Code::InvalidArgument if is_transaction_gone(status) => Cause::TransactionGone,
            Code::PermissionDenied
            | Code::Unauthenticated
            | Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::NotFound
            | Code::OutOfRange
            | Code::Unimplemented => Cause::Kind(StoreErrorKind::Unsupported),
            // A broken connection is also reported by these codes.
            _ => match are_credentials_transient(status) {
                Some(true) => Cause::Unavailable,
                Some(false) => Cause::Kind(StoreErrorKind::Unsupported),
                None => Cause::OutcomeUnknown,
            },
        };
        Self { cause, words: message(status) }
    }

    /// Returns the error for the status of a call that only reads. It does not matter whether that
    /// call was carried out. A missing response stays a time-out.
    pub(crate) fn from_read_status(status: &Status) -> Self {
        let error = Self::from_status(status);
        let is_unknown =
            error.cause == Cause::OutcomeUnknown && status.code() != Code::DeadlineExceeded;
        Self { cause: if is_unknown { Cause::Unavailable } else { error.cause }, ..error }
    }

    /// The credentials can't be obtained.
    pub(crate) fn from_credentials(error: &SdkError) -> Self {
        let help = "credentials: set GOOGLE_APPLICATION_CREDENTIALS to a service account's file, or run \
                    `gcloud auth application-default login`; for an emulator, set DATASTORE_EMULATOR_HOST";
        Self::unsupported(format!("{help} ({error})"))
    }

    pub(crate) fn kind(&self) -> StoreErrorKind {
        match self.cause {
            Cause::Aborted | Cause::TransactionGone | Cause::Unavailable => {
                StoreErrorKind::Unavailable
            }
            Cause::OutcomeUnknown => StoreErrorKind::Timeout,
            Cause::AlreadyExists => StoreErrorKind::Conflict,
            Cause::Kind(kind) => kind,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), NAME).with_message(error.words)
    }
}

/// Returns the sources of a status.
fn sources(status: &Status) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    let mut next = status.source();
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

/// Checks whether there was no connection for the call.
fn is_unconnected(status: &Status) -> bool {
    sources(status).any(|error| error.is::<ConnectError>())
}

/// Checks whether there were no credentials for the call. If so, returns whether there may be some
/// later.
fn are_credentials_transient(status: &Status) -> Option<bool> {
    sources(status).find_map(|error| {
        let boxed = || error.downcast_ref::<Box<SdkError>>().map(Box::as_ref);
        match error.downcast_ref::<SdkError>().or_else(boxed)?.kind() {
            SdkErrorKind::Credentials(error) => Some(error.is_transient()),
            _ => None,
        }
    })
}

fn is_transaction_gone(status: &Status) -> bool {
    let message = status.message();
    message.contains("transaction has expired") || message.contains("Invalid transaction")
}

/// Returns the text of an error. The messages of conflicts are left out, as they quote keys.
fn message(status: &Status) -> String {
    let code = status.code();
    let message = match code {
        Code::Aborted | Code::AlreadyExists => "",
        _ => status.message(),
    };
    let end = (0..=MAX_MESSAGE.min(message.len())).rev().find(|end| message.is_char_boundary(*end));
    let message = &message[..end.unwrap_or(0)];
    let help = match code {
        Code::PermissionDenied => "; grant the service account roles/datastore.user",
        Code::NotFound => "; does the database exist, and in Datastore mode?",
        _ => "",
    };
    format!("{code:?}: {message}{help}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_its_kind() {
        use StoreErrorKind::{Conflict, Timeout, Unavailable, Unsupported};
        for (code, writing, reading) in [
            (Code::Aborted, Unavailable, Unavailable),
            (Code::ResourceExhausted, Unavailable, Unavailable),
            (Code::Unavailable, Timeout, Unavailable),
            (Code::Internal, Timeout, Unavailable),
            (Code::Unknown, Timeout, Unavailable),
            (Code::Cancelled, Timeout, Unavailable),
            (Code::DeadlineExceeded, Timeout, Timeout),
            (Code::AlreadyExists, Conflict, Conflict),
            (Code::PermissionDenied, Unsupported, Unsupported),
            (Code::Unauthenticated, Unsupported, Unsupported),
            (Code::InvalidArgument, Unsupported, Unsupported),
            (Code::FailedPrecondition, Unsupported, Unsupported),
            (Code::NotFound, Unsupported, Unsupported),
        ] {
            let status = Status::new(code, "words");
            assert_eq!(Error::from_status(&status).kind(), writing, "{code:?}");
            assert_eq!(Error::from_read_status(&status).kind(), reading, "{code:?}");
        }
        for gone in [
            "The referenced transaction has expired or is no longer valid.",
            "Invalid transaction.",
        ] {
            let status = Status::invalid_argument(gone);
            assert_eq!(Error::from_status(&status).cause, Cause::TransactionGone);
        }
    }

    #[test]
    fn keys_are_not_quoted_and_nothing_is_endless() {
        let status = Status::already_exists("entity already exists: path=/KeepSession/secret");
        assert!(!format!("{:?}", Error::from_status(&status)).contains("secret"));
        let status = Status::permission_denied("é".repeat(10_000));
        let words = Error::from_status(&status).words;
        assert!(words.len() < 500 && words.contains("roles/datastore.user"), "{words}");
    }
}
