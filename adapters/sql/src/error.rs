//! What a database's error means to a login.

use std::fmt;

use sqlx::Error;
use sqlx::error::ErrorKind;
use tower_keep_core::{StoreError, StoreErrorKind};

use crate::Dialect;

/// What an error of a database asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Another transaction was in the way, and this one was undone: it can be run again.
    Contended,
    /// The connection is of no more use, and what became of the statement is not known.
    Lost,
    /// The connection is of no more use, and the statement was not run.
    Refused,
    /// The connection has the statement prepared for tables that have changed since, and did not run it.
    Stale,
    /// Neither; what the store says.
    Kind(StoreErrorKind),
}

/// A database's error, and what it means.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) cause: Cause,
    /// Whether the statement may have taken effect.
    may_be_done: bool,
    source: Source,
}

/// What is shown to operators. sqlx's own errors name columns and hosts, and no passwords; those of a
/// database can hold rows, so of them there are only the words that [`Dialect::said`] lets through.
#[derive(Debug)]
enum Source {
    Sqlx(Error),
    Words(String),
}

impl Fault {
    pub(crate) fn of<D: Dialect>(error: Error) -> Self {
        let cause = cause::<D>(&error);
        let source = match error {
            Error::Database(error) => Source::Words(D::said(&*error)),
            error => Source::Sqlx(error),
        };
        Self { cause, may_be_done: false, source }
    }

    pub(crate) fn new(kind: StoreErrorKind, words: impl Into<String>) -> Self {
        let source = Source::Words(words.into());
        Self { cause: Cause::Kind(kind), may_be_done: false, source }
    }

    /// The same, of a statement that writes: if the answer was lost, it may have taken effect.
    pub(crate) fn unsure(self) -> Self {
        Self { may_be_done: self.cause == Cause::Lost, ..self }
    }

    /// The same, said in words that name the mend.
    pub(crate) fn explained(self, words: impl fmt::Display) -> Self {
        let source = match &self.source {
            Source::Sqlx(error) => Source::Words(format!("{words}: {error}")),
            Source::Words(said) => Source::Words(format!("{words}: {said}")),
        };
        Self { source, ..self }
    }

    /// Another transaction was in the way.
    pub(crate) fn is_contended(&self) -> bool {
        self.cause == Cause::Contended
    }

    /// Whether the connection is of no more use.
    pub(crate) fn is_end_of_connection(&self) -> bool {
        matches!(self.cause, Cause::Lost | Cause::Refused | Cause::Stale)
    }

    /// The connection knows the tables as they were before a change.
    pub(crate) fn is_stale(&self) -> bool {
        self.cause == Cause::Stale
    }

    /// The connection was lost before anything was done.
    pub(crate) fn is_lost_before(&self) -> bool {
        self.is_end_of_connection() && !self.may_be_done
    }

    pub(crate) fn into_store_error<D: Dialect>(self) -> StoreError {
        let kind = match self.cause {
            // Whether a write took place is not known.
            Cause::Lost if self.may_be_done => StoreErrorKind::Timeout,
            Cause::Lost | Cause::Refused | Cause::Stale | Cause::Contended => {
                StoreErrorKind::Unavailable
            }
            Cause::Kind(kind) => kind,
        };
        let error = StoreError::new(kind, D::NAME);
        match self.source {
            Source::Sqlx(source) => error.with_source(source),
            Source::Words(words) => error.with_message(words),
        }
    }
}

fn cause<D: Dialect>(error: &Error) -> Cause {
    match error {
        Error::Database(error) => D::cause(&**error).unwrap_or_else(|| match error.kind() {
            ErrorKind::UniqueViolation => Cause::Kind(StoreErrorKind::Conflict),
            _ => Cause::Kind(StoreErrorKind::Unavailable),
        }),
        Error::ColumnDecode { .. }
        | Error::Decode(_)
        | Error::ColumnNotFound(_)
        | Error::ColumnIndexOutOfBounds { .. }
        | Error::TypeNotFound { .. } => Cause::Kind(StoreErrorKind::Corrupt),
        Error::Configuration(_) | Error::InvalidArgument(_) | Error::Encode(_) => {
            Cause::Kind(StoreErrorKind::Unsupported)
        }
        // Whoever waits for a connection has asked nothing yet.
        Error::PoolTimedOut | Error::PoolClosed => Cause::Kind(StoreErrorKind::Unavailable),
        _ => Cause::Lost,
    }
}
