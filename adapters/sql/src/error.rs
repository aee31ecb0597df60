//! What a database's error means to a login.

use sqlx::Error;
use sqlx::error::ErrorKind;
use tower_keep_core::{StoreError, StoreErrorKind};

/// The store's error that a database's is. `store` names the adapter; `known` says what a code of its
/// database means, where the adapter knows better than sqlx.
///
/// The source is kept for logs: sqlx names statements, tables and hosts in it, and no passwords and no
/// values.
pub fn store_error(
    store: &'static str,
    error: Error,
    known: impl FnOnce(&str) -> Option<StoreErrorKind>,
) -> StoreError {
    let code = error.as_database_error().and_then(|error| error.code());
    let kind = code.and_then(|code| known(&code)).unwrap_or_else(|| kind_of(&error));
    StoreError::new(kind, store).with_source(error)
}

/// What is stored can't be read as what it should be.
pub fn corrupt(store: &'static str, what: &'static str) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, store).with_source(what)
}

fn kind_of(error: &Error) -> StoreErrorKind {
    match error {
        Error::Database(error) if error.kind() == ErrorKind::UniqueViolation => {
            StoreErrorKind::Conflict
        }
        Error::ColumnDecode { .. }
        | Error::Decode(_)
        | Error::ColumnNotFound(_)
        | Error::ColumnIndexOutOfBounds { .. }
        | Error::TypeNotFound { .. } => StoreErrorKind::Corrupt,
        Error::Configuration(_) | Error::InvalidArgument(_) | Error::Encode(_) => {
            StoreErrorKind::Unsupported
        }
        // Whoever waits for a connection has asked nothing yet.
        _ => StoreErrorKind::Unavailable,
    }
}
