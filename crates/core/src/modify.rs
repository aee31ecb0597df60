//! How a stored user is changed: the function that changes the user, and what becomes of its
//! result.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::error::{StoreError, StoreErrorKind, StoreResult};
use crate::user::AuthUser;

/// A function that changes a user: it returns the whole user as they should be stored, or `None` to
/// leave the user unchanged. See [`UserDirectory::modify`](crate::UserDirectory::modify).
pub type ChangeUser<'a, U> = dyn FnMut(&U) -> Option<U> + Send + 'a;

/// The result of [`UserDirectory::modify`](crate::UserDirectory::modify).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Modified<U> {
    /// The function returned this user, and the store has written it.
    Changed(Arc<U>),
    /// The function returned `None`, and nothing was written. This is the stored user.
    Unchanged(Arc<U>),
    /// There is no user with this id.
    Missing,
}

impl<U: AuthUser> Modified<U> {
    /// Calls the function that was passed to [`modify`](crate::UserDirectory::modify), and decides
    /// what the store does next.
    ///
    /// This is a helper for stores. `Continue` holds the user to store in place of `stored`.
    /// `Break` holds the value that `modify` should return. `store` is the store's name in errors.
    ///
    /// ```
    /// use std::ops::ControlFlow;
    /// use std::sync::{Arc, Mutex, PoisonError};
    ///
    /// use tower_keep_core::{Account, ChangeUser, Modified, StoreResult};
    ///
    /// /// A store of one user.
    /// fn modify(
    ///     store: &Mutex<Arc<Account>>,
    ///     change: &mut ChangeUser<'_, Account>,
    /// ) -> StoreResult<Modified<Account>> {
    ///     loop {
    ///         // No lock is held while the function runs.
    ///         let stored = store.lock().unwrap_or_else(PoisonError::into_inner).clone();
    ///         let changed = match Modified::next(&stored, change, "my store")? {
    ///             ControlFlow::Continue(changed) => changed,
    ///             ControlFlow::Break(result) => return Ok(result),
    ///         };
    ///         let mut current = store.lock().unwrap_or_else(PoisonError::into_inner);
    ///         // If the user was changed in between, the function gets the newer user.
    ///         if Arc::ptr_eq(&current, &stored) {
    ///             // A store of several users first compares the login name with those of the
    ///             // other users, under the same lock.
    ///             *current = changed.clone();
    ///             return Ok(Modified::Changed(changed));
    ///         }
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`Unsupported`](StoreErrorKind::Unsupported) if `change` returned a user with
    /// another id.
    pub fn next(
        stored: &Arc<U>,
        change: &mut ChangeUser<'_, U>,
        store: &'static str,
    ) -> StoreResult<ControlFlow<Self, Arc<U>>> {
        match change(stored) {
            None => Ok(ControlFlow::Break(Self::Unchanged(Arc::clone(stored)))),
            Some(after) if after.id() == stored.id() => Ok(ControlFlow::Continue(Arc::new(after))),
            Some(_) => Err(StoreError::new(StoreErrorKind::Unsupported, store).with_message(
                "the change would give the user another id, and ids never change: insert a \
                 new user instead",
            )),
        }
    }
}
