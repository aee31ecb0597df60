//! A store of users made from a closure.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::StoreResult;
use crate::user::AuthUser;
use crate::user_id::UserId;
use crate::user_store::UserStore;

/// Creates a [`UserStore`] from a closure that finds a user by id.
///
/// ```
/// use std::sync::Arc;
/// use tower_keep_core::{Account, StoreError, StoreErrorKind, UserId, user_loader};
///
/// # #[derive(Clone)] struct Pool;
/// # impl Pool { async fn find(&self, _: i64) -> Result<Option<Account>, std::io::Error> { Ok(None) } }
/// # let pool = Pool;
/// let store = user_loader(move |id: UserId| {
///     let pool = pool.clone();
///     async move {
///         // Text that is not a number can't be an id in this table.
///         let Some(id) = id.parse::<i64>() else { return Ok(None) };
///         let found = pool.find(id).await;
///         let found = found.map_err(|error| {
///             StoreError::new(StoreErrorKind::Unavailable, "users").with_source(error)
///         })?;
///         Ok(found.map(Arc::new))
///     }
/// });
/// # fn is_store<S: tower_keep_core::UserStore>(_: S) {}
/// # is_store(store);
/// ```
pub fn user_loader<F, Fut, U>(load: F) -> UserLoader<F>
where
    F: Fn(UserId) -> Fut + Send + Sync,
    Fut: Future<Output = StoreResult<Option<Arc<U>>>> + Send,
    U: AuthUser,
{
    UserLoader(load)
}

/// A store of users made from a closure; created by [`user_loader`].
///
/// This is a separate type, because an implementation of [`UserStore`] for every closure would
/// conflict with the implementations for `Box` and `Arc`.
#[derive(Clone)]
pub struct UserLoader<F>(F);

impl<F> fmt::Debug for UserLoader<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserLoader(…)")
    }
}

#[async_trait]
impl<F, Fut, U> UserStore for UserLoader<F>
where
    F: Fn(UserId) -> Fut + Send + Sync,
    Fut: Future<Output = StoreResult<Option<Arc<U>>>> + Send,
    U: AuthUser,
{
    type User = U;

    async fn by_id(&self, id: &UserId) -> StoreResult<Option<Arc<U>>> {
        (self.0)(id.clone()).await
    }
}
