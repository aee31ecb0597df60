//! Password writes to an application's own table, by a closure that runs one statement.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::{StoreError, StoreErrorKind, StoreResult};
use crate::password::{
    PasswordChange, PasswordStore, PasswordUser, must_set_password, rehashed, result_without_write,
};
use crate::user_id::UserId;
use crate::user_store::UserStore;

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
/// #     async fn run(&self, _: &str, _: (i64, &str, &str, i64)) -> StoreResult<u64> { Ok(1) }
/// # }
/// use tower_keep_core::{PasswordStore, PasswordUser, PasswordWrite, StoreResult, UserStore, own_passwords};
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
    Fut: Future<Output = StoreResult<bool>> + Send,
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

impl<S, W> fmt::Debug for OwnPasswords<S, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnPasswords(…)")
    }
}

#[async_trait]
impl<S: UserStore, W: Send + Sync> UserStore for OwnPasswords<S, W> {
    type User = S::User;

    async fn by_id(&self, id: &UserId) -> StoreResult<Option<Arc<S::User>>> {
        self.users.by_id(id).await
    }
}

impl<S, W, Fut> OwnPasswords<S, W>
where
    S: UserStore<User: PasswordUser>,
    W: Fn(PasswordWrite) -> Fut + Send + Sync,
    Fut: Future<Output = StoreResult<bool>> + Send,
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
    ) -> StoreResult<Result<Option<Arc<S::User>>, T>> {
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
    Fut: Future<Output = StoreResult<bool>> + Send,
{
    async fn set_password(
        &self,
        id: &UserId,
        seen_security_stamp: &[u8],
        hash: &str,
    ) -> StoreResult<PasswordChange<S::User>> {
        let written = self.write(id, hash, true, |stored| match stored {
            None => Some(PasswordChange::Missing),
            Some(stored) => (!must_set_password(&**stored, seen_security_stamp, hash))
                .then(|| result_without_write(Arc::clone(stored), hash)),
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

    async fn rehash(&self, id: &UserId, seen_hash: &str, hash: &str) -> StoreResult<bool> {
        let written = self.write(id, hash, false, |stored| {
            let must_write =
                stored.is_some_and(|stored| rehashed(&**stored, seen_hash, hash).is_some());
            (!must_write).then_some(())
        });
        Ok(written.await?.is_ok())
    }
}
