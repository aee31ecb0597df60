//! What a store of users must do.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{AuthUser, StoreError, UserId};

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

    /// Replaces the stored user who has this user's id; `Ok(false)` if there is none.
    ///
    /// A changed login name frees the earlier one. Dropping the future leaves the user as it was or
    /// as it should be, never a mixture.
    ///
    /// # Errors
    ///
    /// [`Conflict`](crate::StoreErrorKind::Conflict) if the login name is another user's, and
    /// nothing was written; otherwise faults.
    async fn update(&self, user: &Self::User) -> Result<bool, StoreError>;

    /// Removes the user with this id, and frees the login name; `Ok(false)` if there was none, so
    /// that it can be repeated safely.
    ///
    /// # Errors
    ///
    /// Faults alone.
    async fn delete(&self, id: &UserId) -> Result<bool, StoreError>;
}

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

            async fn update(&self, user: &S::User) -> Result<bool, StoreError> {
                (**self).update(user).await
            }

            async fn delete(&self, id: &UserId) -> Result<bool, StoreError> {
                (**self).delete(id).await
            }
        }
    )*};
}

forward!(Arc Box);
