//! The traits of a store of users: what a store of users must do.

use std::sync::Arc;

use async_trait::async_trait;

use crate::error::{StoreErrorKind, StoreResult};
use crate::modify::{ChangeUser, Modified};
use crate::user::AuthUser;
use crate::user_id::UserId;

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
    async fn by_id(&self, id: &UserId) -> StoreResult<Option<Arc<Self::User>>>;
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
    async fn by_login_name(&self, login_name: &str) -> StoreResult<Option<Arc<Self::User>>>;
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
    async fn by_ids(&self, ids: &[UserId]) -> StoreResult<Vec<Option<Arc<Self::User>>>> {
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
    async fn insert(&self, user: &Self::User) -> StoreResult<()>;

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
    /// use tower_keep_core::{Account, Modified, StoreResult, UserDirectory, UserId};
    ///
    /// async fn deactivate<S>(store: &S, id: &UserId) -> StoreResult<bool>
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
    ) -> StoreResult<Modified<Self::User>>;

    /// Deletes the user with this id, and frees the login name. Returns whether there was such a
    /// user. The user's session records stay.
    ///
    /// # Errors
    ///
    /// Returns an error only if the store fails. An unknown id is not an error: it returns
    /// `Ok(false)`, so the call can be repeated safely.
    async fn delete(&self, id: &UserId) -> StoreResult<bool>;
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
    /// use tower_keep_core::{Account, StoreResult, UserDirectory, UserDirectoryExt};
    ///
    /// async fn seed<S>(store: &S, password_hash: &str) -> StoreResult<()>
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
    async fn insert_if_absent(&self, user: &Self::User) -> StoreResult<bool> {
        match self.insert(user).await {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == StoreErrorKind::Conflict => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl<S: UserDirectory + ?Sized> UserDirectoryExt for S {}
