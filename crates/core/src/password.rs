//! Writing password hashes without losing other writes.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{AuthUser, Modified, StoreError, StoreErrorKind, UserDirectory, UserId, UserStore};

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
/// table, [`own_passwords`] creates a password store from a closure that runs one statement.
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
    ) -> Result<PasswordChange<Self::User>, StoreError>;

    /// Stores another hash of the same password. Returns whether it was written.
    ///
    /// `seen_hash` is the hash against which the password was verified. The call writes only if
    /// `seen_hash` is still the stored hash, and if the security stamp stays the same. Call this
    /// method before the user is logged in.
    ///
    /// # Errors
    ///
    /// Returns an error only if the store fails.
    async fn rehash(&self, id: &UserId, seen_hash: &str, hash: &str) -> Result<bool, StoreError>;
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

/// Returns the result if there is nothing to write, because the stored user already has the hash,
/// or has another security stamp.
fn result_without_write<U: PasswordUser>(
    stored: &Arc<U>,
    seen_security_stamp: &[u8],
    hash: &str,
) -> Option<PasswordChange<U>> {
    if stored.password_hash() == hash {
        return Some(PasswordChange::Changed(Arc::clone(stored)));
    }
    (*stored.security_stamp() != *seen_security_stamp)
        .then(|| PasswordChange::Stale(Arc::clone(stored)))
}

/// Returns the user with the new hash of the same password, or `None` if the hash must not be
/// written.
fn rehashed<U: PasswordUser>(stored: &U, seen_hash: &str, hash: &str) -> Option<U> {
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
    ) -> Result<PasswordChange<S::User>, StoreError> {
        let mut change = |stored: &S::User| {
            let must_write =
                stored.password_hash() != hash && *stored.security_stamp() == *seen_security_stamp;
            must_write.then(|| stored.with_password_hash(hash.to_owned()))
        };
        Ok(match self.modify(id, &mut change).await? {
            Modified::Changed(user) => PasswordChange::Changed(user),
            Modified::Unchanged(user) => result_without_write(&user, seen_security_stamp, hash)
                .unwrap_or(PasswordChange::Stale(user)),
            Modified::Missing => PasswordChange::Missing,
        })
    }

    async fn rehash(&self, id: &UserId, seen_hash: &str, hash: &str) -> Result<bool, StoreError> {
        let mut change = |stored: &S::User| rehashed(stored, seen_hash, hash);
        Ok(matches!(self.modify(id, &mut change).await?, Modified::Changed(_)))
    }
}

/// A write to the password column of an application's own table; see [`own_passwords`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PasswordWrite {
    /// The id of the user.
    pub id: UserId,
    /// The statement may write only if this hash is still stored.
    pub expected: String,
    /// The hash to store.
    pub new: String,
    /// Whether the hash is of a new password. If the security stamp is a separate column, the
    /// column gets a new value for a new password, and keeps its value otherwise.
    pub is_new_password: bool,
}

/// A write is tried this many times if other writes come first.
const MAX_TRIES: usize = 10;

/// Creates a [`PasswordStore`] from a store whose users are in the application's own table, and a
/// closure that writes a hash to that table.
///
/// The closure runs one statement, which writes the new hash if the stored hash is the expected
/// one. The closure returns whether the statement has written. Bind the id as a value of its
/// column's type.
///
/// If the security stamp is a separate column, as in this example, the statement must also change
/// the stamp if the password is new, as
/// [`with_password_hash`](PasswordUser::with_password_hash) does. Otherwise the earlier logins stay
/// valid.
///
/// ```
/// # #[derive(Clone)] struct Pool;
/// # impl Pool {
/// #     async fn run(&self, _: &str, _: (i64, &str, &str, i64)) -> Result<u64, StoreError> { Ok(1) }
/// # }
/// use tower_keep_core::{PasswordStore, PasswordUser, PasswordWrite, StoreError, UserStore, own_passwords};
///
/// fn passwords<S>(users: S, pool: Pool) -> impl PasswordStore<User = S::User>
/// where
///     S: UserStore<User: PasswordUser>,
/// {
///     own_passwords(users, move |write: PasswordWrite| {
///         let pool = pool.clone();
///         async move {
///             let Some(id) = write.id.parse::<i64>() else { return Ok(false) };
///             let sql = "UPDATE member SET password_hash = $3, stamp = stamp + $4 \
///                 WHERE id = $1 AND password_hash = $2";
///             let raise = i64::from(write.is_new_password);
///             Ok(pool.run(sql, (id, &write.expected, &write.new, raise)).await? == 1)
///         }
///     })
/// }
/// ```
///
/// The returned store is only for writing passwords. Pass a clone of the users' store to this
/// function, and the users' store itself to the layer and the login form. A struct can hold the
/// returned store as `Arc<dyn PasswordStore<User = Member>>`. If that field is `passwords`, pass
/// `&*passwords` where a password store is expected.
pub fn own_passwords<S, W, Fut>(users: S, write: W) -> OwnPasswords<S, W>
where
    S: UserStore<User: PasswordUser>,
    W: Fn(PasswordWrite) -> Fut + Send + Sync,
    Fut: Future<Output = Result<bool, StoreError>> + Send,
{
    OwnPasswords { users, write }
}

/// Users in the application's own table, with a closure that writes their passwords; created by
/// [`own_passwords`].
#[derive(Clone)]
pub struct OwnPasswords<S, W> {
    users: S,
    write: W,
}

impl<S, W> std::fmt::Debug for OwnPasswords<S, W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OwnPasswords(…)")
    }
}

#[async_trait]
impl<S: UserStore, W: Send + Sync> UserStore for OwnPasswords<S, W> {
    type User = S::User;

    async fn by_id(&self, id: &UserId) -> Result<Option<Arc<S::User>>, StoreError> {
        self.users.by_id(id).await
    }
}

impl<S, W, Fut> OwnPasswords<S, W>
where
    S: UserStore<User: PasswordUser>,
    W: Fn(PasswordWrite) -> Fut + Send + Sync,
    Fut: Future<Output = Result<bool, StoreError>> + Send,
{
    /// Reads the user and writes the hash. Returns `Ok` with the user as read before the write.
    ///
    /// If `skip` returns a result for the user who was read, this method writes nothing and returns
    /// `Err` with that result. If another write comes first, this method reads the user again and
    /// starts over.
    async fn write<T>(
        &self,
        id: &UserId,
        hash: &str,
        is_new_password: bool,
        skip: impl Fn(Option<&Arc<S::User>>) -> Option<T> + Send,
    ) -> Result<Result<Option<Arc<S::User>>, T>, StoreError> {
        for _ in 0..MAX_TRIES {
            let stored = self.users.by_id(id).await?;
            if let Some(result) = skip(stored.as_ref()) {
                return Ok(Err(result));
            }
            let expected = stored.as_ref().map(|user| user.password_hash().to_owned());
            let (id, new) = (id.clone(), hash.to_owned());
            let expected = expected.unwrap_or_default();
            if (self.write)(PasswordWrite { id, expected, new, is_new_password }).await? {
                return Ok(Ok(stored));
            }
        }
        Err(StoreError::new(StoreErrorKind::Unavailable, "own passwords").with_message(
            "the password was not written: try again later, because other writes to this user came \
             first, or check the statement, because it writes nothing",
        ))
    }
}

#[async_trait]
impl<S, W, Fut> PasswordStore for OwnPasswords<S, W>
where
    S: UserStore<User: PasswordUser>,
    W: Fn(PasswordWrite) -> Fut + Send + Sync,
    Fut: Future<Output = Result<bool, StoreError>> + Send,
{
    async fn set_password(
        &self,
        id: &UserId,
        seen_security_stamp: &[u8],
        hash: &str,
    ) -> Result<PasswordChange<S::User>, StoreError> {
        let written = self.write(id, hash, true, |stored| match stored {
            None => Some(PasswordChange::Missing),
            Some(stored) => result_without_write(stored, seen_security_stamp, hash),
        });
        let before = match written.await? {
            Err(result) => return Ok(result),
            Ok(before) => before,
        };
        // The hash is written, even if this read fails or a replica returns the earlier user.
        let stored = self.users.by_id(id).await.ok().flatten();
        let stored = stored.filter(|user| user.password_hash() == hash);
        let as_written = || before.map(|user| Arc::new(user.with_password_hash(hash.to_owned())));
        Ok(stored.or_else(as_written).map_or(PasswordChange::Missing, PasswordChange::Changed))
    }

    async fn rehash(&self, id: &UserId, seen_hash: &str, hash: &str) -> Result<bool, StoreError> {
        let written = self.write(id, hash, false, |stored| {
            let must_write =
                stored.is_some_and(|stored| rehashed(&**stored, seen_hash, hash).is_some());
            (!must_write).then_some(())
        });
        Ok(written.await?.is_ok())
    }
}
