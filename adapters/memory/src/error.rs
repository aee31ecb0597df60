//! The errors of this store.

use tower_keep_core::{StoreError, StoreErrorKind};

/// The name of this store in errors.
pub(crate) const NAME: &str = "memory";

/// Creates the error for an id, a login name or a session's key that is taken.
pub(crate) fn conflict() -> StoreError {
    StoreError::new(StoreErrorKind::Conflict, NAME)
}
