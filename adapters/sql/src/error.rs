//! What a database error means for a call to the store.

use std::fmt;

use sqlx::error::ErrorKind;
use tower_keep_core::{StoreError, StoreErrorKind};

use crate::Dialect;

/// What a database error means for the statement and its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The transaction conflicted with another one and was rolled back. It can be run again.
    Contended,
    /// The connection can't be used any more. It is not known whether the statement was run.
    Lost,
    /// The connection can't be used any more. The statement was not run.
    Refused,
    /// The connection holds a prepared statement from before a change of its tables. The statement
    /// was not run.
    Stale,
    /// None of these. The store returns an error of this kind.
    Kind(StoreErrorKind),
}

/// A database error, and what it means.
#[derive(Debug)]
pub(crate) struct Error {
    pub(crate) cause: Cause,
    /// Whether the statement may have taken effect.
    may_be_done: bool,
    source: Source,
}

/// The text that operators see. sqlx's own errors contain names of columns and hosts, but no
/// passwords. A database's errors can contain rows, so only what [`Dialect::said`] returns of them
/// is kept.
#[derive(Debug)]
enum Source {
    Sqlx(sqlx::Error),
    Words(String),
}

impl Error {
    pub(crate) fn of<D: Dialect>(error: sqlx::Error) -> Self {
        let cause = cause::<D>(&error);
        let source = match error {
            sqlx::Error::Database(error) => Source::Words(D::said(&*error)),
            error => Source::Sqlx(error),
        };
        Self { cause, may_be_done: false, source }
    }

    pub(crate) fn new(kind: StoreErrorKind, words: impl Into<String>) -> Self {
        let source = Source::Words(words.into());
        Self { cause: Cause::Kind(kind), may_be_done: false, source }
    }

    /// Marks this as the error of a statement that writes. If the reply was lost, the statement may
    /// have taken effect.
    pub(crate) fn unsure(self) -> Self {
        Self { may_be_done: self.cause == Cause::Lost, ..self }
    }

    /// Puts a text in front of the error's own, such as how to fix it.
    pub(crate) fn explained(self, words: impl fmt::Display) -> Self {
        let source = match &self.source {
            Source::Sqlx(error) => Source::Words(format!("{words}: {error}")),
            Source::Words(said) => Source::Words(format!("{words}: {said}")),
        };
        Self { source, ..self }
    }

    /// Checks whether the transaction conflicted with another one.
    pub(crate) fn is_contended(&self) -> bool {
        self.cause == Cause::Contended
    }

    /// Checks whether the connection can't be used any more.
    pub(crate) fn is_end_of_connection(&self) -> bool {
        matches!(self.cause, Cause::Lost | Cause::Refused | Cause::Stale)
    }

    /// Checks whether the connection holds a prepared statement from before a change of its tables.
    pub(crate) fn is_stale(&self) -> bool {
        self.cause == Cause::Stale
    }

    /// Checks whether the connection was lost before the statement can have taken effect.
    pub(crate) fn is_lost_before(&self) -> bool {
        self.is_end_of_connection() && !self.may_be_done
    }

    pub(crate) fn into_store_error<D: Dialect>(self) -> StoreError {
        let kind = match self.cause {
            // It is not known whether the write took place.
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

fn cause<D: Dialect>(error: &sqlx::Error) -> Cause {
    match error {
        sqlx::Error::Database(error) => D::cause(&**error).unwrap_or_else(|| match error.kind() {
            ErrorKind::UniqueViolation => Cause::Kind(StoreErrorKind::Conflict),
            _ => Cause::Kind(StoreErrorKind::Unavailable),
        }),
        sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::Decode(_)
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnIndexOutOfBounds { .. }
        | sqlx::Error::TypeNotFound { .. } => Cause::Kind(StoreErrorKind::Corrupt),
        sqlx::Error::Configuration(_)
        | sqlx::Error::InvalidArgument(_)
        | sqlx::Error::Encode(_) => Cause::Kind(StoreErrorKind::Unsupported),
        // A call that waits for a connection has not sent anything yet.
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => {
            Cause::Kind(StoreErrorKind::Unavailable)
        }
        _ => Cause::Lost,
    }
}
