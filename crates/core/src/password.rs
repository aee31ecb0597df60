//! Writing password hashes without losing other writes.

use std::sync::Arc;

use async_trait::async_trait;

use crate::error::StoreResult;
use crate::modify::Modified;
use crate::user::AuthUser;
use crate::user_id::UserId;
use crate::user_store::{UserDirectory, UserStore};

/// A user who logs in with a password.
///
/// ```
/// use std::borrow::Cow;
/// use tower_keep_core::{AuthUser, PasswordUser, UserId};
///
/// #[derive(Clone)]
/// struct Member {
///     id: i64,
///     password_hash: String,
///     stamp: i64, // raised with each new password
/// }
///
/// impl AuthUser for Member {
///     fn id(&self) -> UserId {
///         self.id.into()
///     }
///     fn security_stamp(&self) -> Cow<'_, [u8]> {
///         self.stamp.to_be_bytes().to_vec().into()
///     }
/// }
///
/// impl PasswordUser for Member {
///     fn password_hash(&self) -> &str {
///         &self.password_hash
///     }
///     fn with_password_hash(&self, hash: String) -> Self {
///         Self { stamp: self.stamp + 1, ..self.with_rehash(hash) }
///     }
///     fn with_rehash(&self, hash: String) -> Self {
///         Self { password_hash: hash, ..self.clone() }
///     }
/// }
/// ```
pub trait PasswordUser: AuthUser {
    /// Returns the password hash in its text form, such as PHC string format.
    fn password_hash(&self) -> &str;

    /// Returns this user with the hash of a new password, and with a new
    /// [security stamp](AuthUser::security_stamp), which ends every earlier login.
    #[must_use]
    fn with_password_hash(&self, hash: String) -> Self
    where
        Self: Sized;

    /// Returns this user with another hash of the *same* password, made with other parameters. The
    /// [security stamp](AuthUser::security_stamp) stays the same, so no login ends.
    ///
    /// If the security stamp is made from the hash, the stamp can't stay the same. In that case
    /// [`rehash`](PasswordStore::rehash) writes nothing.
    #[must_use]
    fn with_rehash(&self, hash: String) -> Self
    where
        Self: Sized;
}

/// Writes password hashes without losing other writes to the user.
///
/// Every [`UserDirectory`] of [`PasswordUser`]s implements this trait. For an application's own
/// table, [`own_passwords`](crate::own_passwords) creates a password store from a closure that runs
/// one statement.
#[async_trait]
pub trait PasswordStore: UserStore<User: PasswordUser> {
    /// Stores the hash of a new password, and a new security stamp.
    ///
    /// The call writes only if the stored user still has the security stamp `seen_security_stamp`.
    /// Pass the stamp of the user as the request found them logged in, never the stamp of a user
    /// who was loaded again for this call. So the call never undoes a deactivation, an
    /// administrator's reset or another new password that was stored in the meantime. All other
    /// fields of the stored user stay as they are.
    ///
    /// # Errors
    ///
    /// Returns an error only if the store fails. A security stamp that has changed is not an error:
    /// the call returns [`PasswordChange::Stale`].
    async fn set_password(
        &self,
        id: &UserId,
        seen_security_stamp: &[u8],
        hash: &str,
    ) -> StoreResult<PasswordChange<Self::User>>;

    /// Stores another hash of the same password. Returns whether it was written.
    ///
    /// `seen_hash` is the hash against which the password was verified. The call writes only if
    /// `seen_hash` is still the stored hash, and if the security stamp stays the same. Call this
    /// method before the user is logged in.
    ///
    /// # Errors
    ///
    /// Returns an error only if the store fails.
    async fn rehash(&self, id: &UserId, seen_hash: &str, hash: &str) -> StoreResult<bool>;
}

/// The result of [`PasswordStore::set_password`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordChange<U> {
    /// The hash is stored, either by this call or by an earlier one with exactly this hash.
    Changed(Arc<U>),
    /// Nothing was written, because the stored user's security stamp differs from the security
    /// stamp that the caller passed. This is the stored user.
    Stale(Arc<U>),
    /// Nothing was written: there is no user with this id.
    Missing,
}

/// Checks whether the hash of a new password must be written. This is not so if the hash is stored
/// already, or if the user has another security stamp.
pub(crate) fn must_set_password<U: PasswordUser>(
    stored: &U,
    seen_security_stamp: &[u8],
    hash: &str,
) -> bool {
    stored.password_hash() != hash && *stored.security_stamp() == *seen_security_stamp
}

/// Returns the result of a call that wrote no new password, because [`must_set_password`] returned
/// `false` for this user.
pub(crate) fn result_without_write<U: PasswordUser>(
    stored: Arc<U>,
    hash: &str,
) -> PasswordChange<U> {
    if stored.password_hash() == hash {
        PasswordChange::Changed(stored)
    } else {
        PasswordChange::Stale(stored)
    }
}

/// Returns the user with the new hash of the same password, or `None` if the hash must not be
/// written.
pub(crate) fn rehashed<U: PasswordUser>(stored: &U, seen_hash: &str, hash: &str) -> Option<U> {
    if stored.password_hash() != seen_hash || hash == seen_hash {
        return None;
    }
    let after = stored.with_rehash(hash.to_owned());
    (after.security_stamp() == stored.security_stamp()).then_some(after)
}

#[async_trait]
impl<S: UserDirectory<User: PasswordUser> + ?Sized> PasswordStore for S {
    async fn set_password(
        &self,
        id: &UserId,
        seen_security_stamp: &[u8],
        hash: &str,
    ) -> StoreResult<PasswordChange<S::User>> {
        let mut change = |stored: &S::User| {
            must_set_password(stored, seen_security_stamp, hash)
                .then(|| stored.with_password_hash(hash.to_owned()))
        };
        Ok(match self.modify(id, &mut change).await? {
            Modified::Changed(user) => PasswordChange::Changed(user),
            Modified::Unchanged(user) => result_without_write(user, hash),
            Modified::Missing => PasswordChange::Missing,
        })
    }

    async fn rehash(&self, id: &UserId, seen_hash: &str, hash: &str) -> StoreResult<bool> {
        let mut change = |stored: &S::User| rehashed(stored, seen_hash, hash);
        Ok(matches!(self.modify(id, &mut change).await?, Modified::Changed(_)))
    }
}
