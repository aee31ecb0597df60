//! The traits that a store of users implements.

use std::ops::ControlFlow;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{AuthUser, StoreError, StoreErrorKind, UserId};

/// Loads users by id. The layer does so for each request of a user who is logged in.
///
/// The layer itself needs only this trait. The trait is dyn-compatible: a store is held as
/// `Arc<dyn UserStore<User = U>>`.
#[async_trait]
pub trait UserStore: Send + Sync {
    /// The application's user type.
    type User: AuthUser;

    /// Returns the user with this id, or `Ok(None)` if there is none.
    ///
    /// The call also returns `Ok(None)` for an id that can't be an id of this store: letters where
    /// ids are numbers, or a NUL where the database does not accept one.
    ///
    /// The call returns the user as stored now. A cache in front of the store delays the effect of
    /// a deactivation or a new password, and its documentation says by how much.
    ///
    /// Dropping the future leaves the store unchanged.
    ///
    /// # Errors
    ///
    /// Returns an error only if the store fails: it can't be reached, does not respond in time, or
    /// holds data that can't be read. An unknown or impossible id is not an error.
    async fn by_id(&self, id: &UserId) -> Result<Option<Arc<Self::User>>, StoreError>;
}

/// Finds users by login name, for sign-in forms.
///
/// The layer does not need this trait.
#[async_trait]
pub trait UserLookup: UserStore {
    /// Returns the user with this login name, or `Ok(None)` if there is none.
    ///
    /// The store decides which login names are equal. A [`UserDirectory`] compares them byte for
    /// byte.
    ///
    /// # Errors
    ///
    /// Returns an error only if the store fails. An unknown or impossible login name is not an
    /// error: it returns `Ok(None)`.
    async fn by_login_name(&self, login_name: &str) -> Result<Option<Arc<Self::User>>, StoreError>;
}

/// Inserts, changes and deletes users, for sign-up forms and tools.
///
/// The layer does not need this trait. A store keeps ids and login names unique, even with
/// concurrent writers.
#[async_trait]
pub trait UserDirectory: UserLookup {
    /// Returns the users with these ids: one entry for each id, in the same order.
    ///
    /// An entry is `None` where [`by_id`](UserStore::by_id) would return `Ok(None)`. The same id
    /// may occur more than once.
    ///
    /// The provided method calls `by_id` for each id, one after the other. A store that can find
    /// several users in one round trip implements this method itself.
    ///
    /// # Errors
    ///
    /// Returns an error only if the store fails. An unknown or impossible id is not an error.
    async fn by_ids(&self, ids: &[UserId]) -> Result<Vec<Option<Arc<Self::User>>>, StoreError> {
        let mut users = Vec::with_capacity(ids.len());
        for id in ids {
            users.push(self.by_id(id).await?);
        }
        Ok(users)
    }

    /// Inserts a user.
    ///
    /// Of concurrent inserts with the same id or the same login name, exactly one succeeds. If the
    /// future is dropped, the store has inserted either the whole user or nothing.
    ///
    /// # Errors
    ///
    /// Returns [`Conflict`](crate::StoreErrorKind::Conflict) if the id or the login name is taken.
    /// In this case nothing was written. Any other error means that the store failed.
    async fn insert(&self, user: &Self::User) -> Result<(), StoreError>;

    /// Changes the stored user with this id.
    ///
    /// The call reads the user, passes the user as stored now to `change`, and writes the user that
    /// `change` returns. If another call writes the user in the meantime, that write is not lost.
    ///
    /// `change` returns the whole user as they should be stored, or `None` to leave the user
    /// unchanged. The store may call `change` any number of times, each time with the user as
    /// stored at that time, so its result must depend only on its argument. No lock, transaction or
    /// connection is held while `change` runs. If the login name changes, the earlier login name
    /// becomes free. If the future is dropped, the user is stored either as before or as changed,
    /// never as a mixture.
    ///
    /// ```
    /// use tower_keep_core::{Account, Modified, StoreError, UserDirectory, UserId};
    ///
    /// async fn deactivate<S>(store: &S, id: &UserId) -> Result<bool, StoreError>
    /// where
    ///     S: UserDirectory<User = Account>,
    /// {
    ///     let mut deactivate = |account: &Account| Some(account.clone().with_active(false));
    ///     Ok(matches!(store.modify(id, &mut deactivate).await?, Modified::Changed(_)))
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// - Returns [`Conflict`](crate::StoreErrorKind::Conflict) if the new login name is another
    ///   user's. In this case nothing was written.
    /// - Returns [`Unsupported`](crate::StoreErrorKind::Unsupported) if `change` returned a user
    ///   with another id. In this case nothing was written.
    /// - Any other error means that the store failed.
    async fn modify(
        &self,
        id: &UserId,
        change: &mut ChangeUser<'_, Self::User>,
    ) -> Result<Modified<Self::User>, StoreError>;

    /// Deletes the user with this id, and frees the login name. Returns whether there was such a
    /// user. The user's session records stay.
    ///
    /// # Errors
    ///
    /// Returns an error only if the store fails. An unknown id is not an error: it returns
    /// `Ok(false)`, so the call can be repeated safely.
    async fn delete(&self, id: &UserId) -> Result<bool, StoreError>;
}

/// A function that changes a user: it returns the whole user as they should be stored, or `None` to
/// leave the user unchanged. See [`UserDirectory::modify`].
pub type ChangeUser<'a, U> = dyn FnMut(&U) -> Option<U> + Send + 'a;

/// The result of [`UserDirectory::modify`].
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
    /// Calls the function that was passed to [`modify`](UserDirectory::modify), and decides what
    /// the store does next.
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
    ) -> Result<ControlFlow<Self, Arc<U>>, StoreError> {
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

/// Extension methods for every [`UserDirectory`].
#[async_trait]
pub trait UserDirectoryExt: UserDirectory {
    /// Inserts this user unless the id or the login name is taken. Returns whether the user was
    /// inserted.
    ///
    /// Use it for users who have to exist at every start, such as the first administrator:
    ///
    /// ```
    /// use tower_keep_core::{Account, StoreError, UserDirectory, UserDirectoryExt};
    ///
    /// async fn seed<S>(store: &S, password_hash: &str) -> Result<(), StoreError>
    /// where
    ///     S: UserDirectory<User = Account>,
    /// {
    ///     store.insert_if_absent(&Account::new(1, "admin", password_hash)).await?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error only if the store fails. A taken id or login name is not an error: it
    /// returns `Ok(false)`.
    async fn insert_if_absent(&self, user: &Self::User) -> Result<bool, StoreError> {
        match self.insert(user).await {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == StoreErrorKind::Conflict => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl<S: UserDirectory + ?Sized> UserDirectoryExt for S {}

macro_rules! forward {
    ($($pointer:ident)*) => {$(
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<S: UserStore + ?Sized> UserStore for $pointer<S> {
            type User = S::User;

            async fn by_id(&self, id: &UserId) -> Result<Option<Arc<S::User>>, StoreError> {
                (**self).by_id(id).await
            }
        }

        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<S: UserLookup + ?Sized> UserLookup for $pointer<S> {
            async fn by_login_name(&self, login_name: &str) -> Result<Option<Arc<S::User>>, StoreError> {
                (**self).by_login_name(login_name).await
            }
        }

        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<S: UserDirectory + ?Sized> UserDirectory for $pointer<S> {
            async fn by_ids(
                &self,
                ids: &[UserId],
            ) -> Result<Vec<Option<Arc<S::User>>>, StoreError> {
                (**self).by_ids(ids).await
            }

            async fn insert(&self, user: &S::User) -> Result<(), StoreError> {
                (**self).insert(user).await
            }

            async fn modify(
                &self,
                id: &UserId,
                change: &mut ChangeUser<'_, S::User>,
            ) -> Result<Modified<S::User>, StoreError> {
                (**self).modify(id, change).await
            }

            async fn delete(&self, id: &UserId) -> Result<bool, StoreError> {
                (**self).delete(id).await
            }
        }
    )*};
}

forward!(Arc Box);
