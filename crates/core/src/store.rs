//! What a store of users must do.

use std::ops::ControlFlow;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{AuthUser, StoreError, StoreErrorKind, UserId};

/// Finds the users who are logged in.
///
/// This is all that the layer itself needs. The trait is object-safe and held as
/// `Arc<dyn UserStore<User = U>>`.
#[async_trait]
pub trait UserStore: Send + Sync {
    /// The application's user type.
    type User: AuthUser;

    /// The user with this id.
    ///
    /// `Ok(None)` if there is none, and also if the id can't be one of this store's (letters where
    /// ids are numbers, a NUL where the database takes none). The user is as stored now: a cache in
    /// front of it delays how soon a deactivation or a new password takes effect, and says by how
    /// much.
    ///
    /// Dropping the future leaves the store as it was.
    ///
    /// # Errors
    ///
    /// Faults alone: the store can't be reached, does not answer in time, or holds what it can't
    /// read.
    async fn by_id(&self, id: &UserId) -> Result<Option<Arc<Self::User>>, StoreError>;
}

/// Finds users by login name: for sign-in.
///
/// The layer does not need it.
#[async_trait]
pub trait UserFinder: UserStore {
    /// The user with this login name.
    ///
    /// Which names are the same is the store's to say. A [`UserDirectory`] compares them byte for byte.
    ///
    /// # Errors
    ///
    /// Faults alone; an unknown or impossible name is `Ok(None)`.
    async fn by_login(&self, login: &str) -> Result<Option<Arc<Self::User>>, StoreError>;
}

/// Keeps users, too: for sign-up and tools.
///
/// The layer does not need it. A store keeps two things unique, the id and the login name, also
/// under concurrent writers.
#[async_trait]
pub trait UserDirectory: UserFinder {
    /// The users with these ids: as many answers as there were ids, in the same order, `None`
    /// where [`by_id`](UserStore::by_id) would say so. An id may stand more than once.
    ///
    /// # Errors
    ///
    /// Faults alone.
    async fn by_ids(&self, ids: &[UserId]) -> Result<Vec<Option<Arc<Self::User>>>, StoreError>;

    /// Adds a user.
    ///
    /// Of concurrent inserts with one id or one login name exactly one succeeds. Dropping the
    /// future leaves the whole user or nothing.
    ///
    /// # Errors
    ///
    /// [`Conflict`](crate::StoreErrorKind::Conflict) if the id or the login name is taken, and
    /// nothing was written; otherwise faults.
    async fn insert(&self, user: &Self::User) -> Result<(), StoreError>;

    /// Changes the stored user with this id: reads, calls `change` with what is stored now, and writes
    /// what it returns, all as one call. No other write is lost in between.
    ///
    /// `change` returns the whole user as they should be stored, or `None` to leave them as they
    /// are. It may be called any number of times, each time with a newer user, so it must depend on
    /// its argument alone. No lock, transaction or connection is held while it runs. A changed login
    /// name frees the earlier one. Dropping the future leaves the user as they were or as they
    /// should be, never a mixture.
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
    /// - [`Conflict`](crate::StoreErrorKind::Conflict) if the new login name is another user's. Nothing
    ///   was written.
    /// - [`Unsupported`](crate::StoreErrorKind::Unsupported) if `change` returned another id. Nothing was
    ///   written.
    /// - Otherwise only faults of the store.
    async fn modify(
        &self,
        id: &UserId,
        change: &mut ChangeUser<'_, Self::User>,
    ) -> Result<Modified<Self::User>, StoreError>;

    /// Removes the user with this id, and frees the login name; `Ok(false)` if there was none, so
    /// that it can be repeated safely.
    ///
    /// # Errors
    ///
    /// Faults alone.
    async fn delete(&self, id: &UserId) -> Result<bool, StoreError>;
}

/// A change of a user: returns the whole user as they should be stored, or `None` to leave them as
/// they are. See [`UserDirectory::modify`].
pub type ChangeUser<'a, U> = dyn FnMut(&U) -> Option<U> + Send + 'a;

/// What became of a user; see [`UserDirectory::modify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Modified<U> {
    /// The change returned this user, who is stored now.
    Changed(Arc<U>),
    /// The change returned `None`; this user is stored.
    Unchanged(Arc<U>),
    /// There is no user with this id.
    Missing,
}

impl<U: AuthUser> Modified<U> {
    /// For stores: calls the closure of [`modify`](UserDirectory::modify), and says what to do next.
    ///
    /// `Continue` holds the user to store in place of `stored`, and `Break` what to return instead.
    /// `store` is the store's name in errors.
    ///
    /// # Errors
    ///
    /// Returns [`Unsupported`](StoreErrorKind::Unsupported) if `change` returned a user with another id.
    pub fn next(
        stored: &Arc<U>,
        change: &mut ChangeUser<'_, U>,
        store: &'static str,
    ) -> Result<ControlFlow<Self, Arc<U>>, StoreError> {
        match change(stored) {
            None => Ok(ControlFlow::Break(Self::Unchanged(Arc::clone(stored)))),
            Some(after) if after.id() == stored.id() => Ok(ControlFlow::Continue(Arc::new(after))),
            Some(_) => Err(StoreError::new(StoreErrorKind::Unsupported, store)
                .with_message("a user's id never changes: insert another user instead")),
        }
    }
}

/// Conveniences over any [`UserDirectory`].
#[async_trait]
pub trait UserDirectoryExt: UserDirectory {
    /// Inserts this user unless the id or the login name is taken; returns whether it was inserted.
    ///
    /// For users who have to be there at every start, such as the first administrator:
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
    /// Only faults of the store. A taken id or login name is not an error: it returns `Ok(false)`.
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
        impl<S: UserFinder + ?Sized> UserFinder for $pointer<S> {
            async fn by_login(&self, login: &str) -> Result<Option<Arc<S::User>>, StoreError> {
                (**self).by_login(login).await
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
