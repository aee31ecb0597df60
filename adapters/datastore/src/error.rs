//! The errors of Datastore, and the store errors that they become.

use std::fmt;

use gcloud_sdk::error::Error as SdkError;
use tower_keep_core::{StoreError, StoreErrorKind};

/// The name of this store in errors.
pub(crate) const NAME: &str = "datastore";

/// Why a call failed. Retries depend on it. `status_codes.rs` says which status has which cause.
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
    pub(crate) message: String,
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
