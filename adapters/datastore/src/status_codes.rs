//! What the status of a failed call means: its cause, on which retries depend.

use std::error::Error as StdError;

use gcloud_sdk::error::{Error as SdkError, ErrorKind as SdkErrorKind};
use gcloud_sdk::tonic::{Code, ConnectError, Status};
use tower_keep_core::StoreErrorKind;

use crate::error::{Cause, Error};

/// An error contains at most this many bytes of Google's message.
const MAX_MESSAGE_BYTES: usize = 400;

impl Error {
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
