//! The errors of Datastore, and the store errors that they become.

use std::error::Error as StdError;
use std::fmt;

use gcloud_sdk::error::{Error as SdkError, ErrorKind as SdkErrorKind};
use gcloud_sdk::tonic::{Code, ConnectError, Status};
use tower_keep_core::{StoreError, StoreErrorKind};

/// The name of this store in errors.
pub(crate) const NAME: &str = "datastore";

/// An error contains at most this many bytes of Google's message.
const MAX_MESSAGE_BYTES: usize = 400;

/// Why a call failed. Retries depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The service aborted the transaction in favour of another one. Nothing was written, and a new
    /// transaction may succeed.
    Aborted,
    /// The transaction no longer exists. Nothing was written, and a new transaction may succeed.
    TransactionGone,
    /// The entity to insert exists already. Nothing was written.
    AlreadyExists,
    /// The call did not reach the service, or the service is unavailable. Nothing was written.
    Unavailable,
    /// It is not known whether the call took effect.
    OutcomeUnknown,
    /// Any other cause, with the kind of the store error. Nothing was written.
    Kind(StoreErrorKind),
}

/// A failed call: the cause, and the message of the store error.
#[derive(Clone, Debug)]
pub(crate) struct Error {
    pub(crate) cause: Cause,
    message: String,
}

impl Error {
    pub(crate) fn new(kind: StoreErrorKind, message: impl Into<String>) -> Self {
        Self { cause: Cause::Kind(kind), message: message.into() }
    }

    /// The error for stored data that can't be read.
    pub(crate) fn corrupt(message: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Corrupt, message)
    }

    /// The error for a setting, a value or a database that the store can't use.
    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Unsupported, message)
    }

    /// The error for an id or a login name that another user has, or a session's key that exists.
    pub(crate) fn taken(what: &str) -> Self {
        Self::new(StoreErrorKind::Conflict, format!("the {what} is taken"))
    }

    /// The error if other calls wrote the same data during every try.
    pub(crate) fn contended() -> Self {
        let message = "other calls kept changing the same data; try again later";
        Self { cause: Cause::Aborted, message: message.to_owned() }
    }

    /// The error if too many calls wait to write the same data.
    pub(crate) fn queue_full() -> Self {
        let message = "too many calls are waiting to write the same data; try again later";
        Self { cause: Cause::Unavailable, message: message.to_owned() }
    }

    /// The error for a reply that lacks what the request asked for.
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
            // The service forgets a transaction if it restarts, or if the transaction takes too
            // long.
            Code::InvalidArgument if is_transaction_gone(status) => Cause::TransactionGone,
            Code::PermissionDenied
            | Code::Unauthenticated
            | Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::NotFound
            | Code::OutOfRange
            | Code::Unimplemented => Cause::Kind(StoreErrorKind::Unsupported),
            // Any other code may mean that no credentials were obtained, or that the connection is
            // broken.
            _ => match is_credentials_failure_transient(status) {
                Some(true) => Cause::Unavailable,
                Some(false) => Cause::Kind(StoreErrorKind::Unsupported),
                None => Cause::OutcomeUnknown,
            },
        };
        Self { cause, message: message_of(status) }
    }

    /// Returns the error for the status of a call that changes no entity. It does not matter
    /// whether such a call took effect, so an unknown outcome counts as unavailable. Only a missing
    /// response stays a time-out.
    pub(crate) fn from_read_status(status: &Status) -> Self {
        let error = Self::from_status(status);
        let is_unknown =
            error.cause == Cause::OutcomeUnknown && status.code() != Code::DeadlineExceeded;
        Self { cause: if is_unknown { Cause::Unavailable } else { error.cause }, ..error }
    }

    /// The error for credentials that can't be obtained.
    pub(crate) fn from_credentials(error: &SdkError) -> Self {
        let help = "no credentials: set GOOGLE_APPLICATION_CREDENTIALS to the file of a service \
                    account's key, or run `gcloud auth application-default login`; for an \
                    emulator, set DATASTORE_EMULATOR_HOST";
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
        f.write_str(&self.message)
    }
}

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), NAME).with_message(error.message)
    }
}

/// Returns the source of a status, the source of that error, and so on.
fn sources(status: &Status) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    let mut next = status.source();
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

/// Checks whether the call failed because no connection could be opened.
fn is_unconnected(status: &Status) -> bool {
    sources(status).any(|error| error.is::<ConnectError>())
}

/// If the call failed because it got no credentials, returns whether a later call may get them.
/// Returns `None` if the call failed for another reason.
fn is_credentials_failure_transient(status: &Status) -> Option<bool> {
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

/// Returns the message of the error for a status. Google's messages about conflicts are left out,
/// because they quote keys.
fn message_of(status: &Status) -> String {
    let code = status.code();
    let message = match code {
        Code::Aborted | Code::AlreadyExists => "",
        _ => status.message(),
    };
    let end =
        (0..=MAX_MESSAGE_BYTES.min(message.len())).rev().find(|end| message.is_char_boundary(*end));
    let message = &message[..end.unwrap_or(0)];
    let help = match code {
        Code::PermissionDenied => "; grant the service account roles/datastore.user",
        Code::NotFound => "; check that the database exists, and that it is in Datastore mode",
        _ => "",
    };
    format!("{code:?}: {message}{help}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_code_becomes_a_kind_of_store_error() {
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
            let status = Status::new(code, "message");
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
    fn a_message_quotes_no_keys_and_has_a_limited_length() {
        let status = Status::already_exists("entity already exists: path=/KeepSession/secret");
        assert!(!format!("{:?}", Error::from_status(&status)).contains("secret"));
        let status = Status::permission_denied("é".repeat(10_000));
        let message = Error::from_status(&status).message;
        assert!(message.len() < 500 && message.contains("roles/datastore.user"), "{message}");
    }
}
