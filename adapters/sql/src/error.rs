//! The errors of calls to the store.

use std::fmt;

use sqlx::error::ErrorKind;
use tower_keep_core::{StoreError, StoreErrorKind};

use crate::cause::Cause;
use crate::dialect::Dialect;

/// A database error, and its meaning.
#[derive(Debug)]
pub(crate) struct Error {
    pub(crate) cause: Cause,
    /// Whether the statement writes and may have taken effect.
    may_have_written: bool,
    source: Source,
}

/// The text that operators see. sqlx's own errors contain names of columns and hosts, but no
/// passwords. A database's errors can contain rows, so only their [`Dialect::safe_message`] is
/// kept.
#[derive(Debug)]
enum Source {
    Sqlx(sqlx::Error),
    Message(String),
}

impl Error {
    pub(crate) fn of<D: Dialect>(error: sqlx::Error) -> Self {
        let cause = cause::<D>(&error);
        let source = match error {
            sqlx::Error::Database(error) => Source::Message(D::safe_message(&*error)),
            error => Source::Sqlx(error),
        };
        Self { cause, may_have_written: false, source }
    }

    pub(crate) fn new(kind: StoreErrorKind, message: impl Into<String>) -> Self {
        let source = Source::Message(message.into());
        Self { cause: Cause::Kind(kind), may_have_written: false, source }
    }

    /// Creates the error for a text that the database can't store.
    pub(crate) fn unstorable(value_name: &str) -> Self {
        let message = format!(
            "the database can't store this {value_name}: it is too long, or contains a NUL character"
        );
        Self::new(StoreErrorKind::Unsupported, message)
    }

    /// Marks this as the error of a statement that writes. If the connection was lost, the
    /// statement may have taken effect.
    pub(crate) fn during_write(self) -> Self {
        Self { may_have_written: self.cause == Cause::Lost, ..self }
    }

    /// Puts an explanation in front of the error's text, such as how to fix the error.
    pub(crate) fn explained(self, explanation: impl fmt::Display) -> Self {
        let source = match &self.source {
            Source::Sqlx(error) => Source::Message(format!("{explanation}: {error}")),
            Source::Message(message) => Source::Message(format!("{explanation}: {message}")),
        };
        Self { source, ..self }
    }

    /// Checks whether the transaction conflicted with another one.
    pub(crate) fn is_contended(&self) -> bool {
        self.cause == Cause::Contended
    }

    /// Checks whether the connection can't be used any more.
    pub(crate) fn is_end_of_connection(&self) -> bool {
        matches!(self.cause, Cause::Lost | Cause::NotRun | Cause::Stale)
    }

    /// Checks whether the connection prepared the statement before a migration changed the columns
    /// of a table.
    pub(crate) fn is_stale(&self) -> bool {
        self.cause == Cause::Stale
    }

    /// Checks whether the connection can't be used any more, and the statement has not taken
    /// effect.
    pub(crate) fn is_lost_without_effect(&self) -> bool {
        self.is_end_of_connection() && !self.may_have_written
    }

    pub(crate) fn into_store_error<D: Dialect>(self) -> StoreError {
        let kind = match self.cause {
            // It is not known whether anything was written.
            Cause::Lost if self.may_have_written => StoreErrorKind::Timeout,
            Cause::Lost | Cause::NotRun | Cause::Stale | Cause::Contended => {
                StoreErrorKind::Unavailable
            }
            Cause::Kind(kind) => kind,
        };
        let error = StoreError::new(kind, D::NAME);
        match self.source {
            Source::Sqlx(source) => error.with_source(source),
            Source::Message(message) => error.with_message(message),
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

/// Converts a result of this crate into that of a store's method.
pub(crate) trait IntoStoreResult<T> {
    fn into_store_result<D: Dialect>(self) -> Result<T, StoreError>;
}

impl<T> IntoStoreResult<T> for Result<T, Error> {
    fn into_store_result<D: Dialect>(self) -> Result<T, StoreError> {
        self.map_err(Error::into_store_error::<D>)
    }
}
