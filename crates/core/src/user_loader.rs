//! A closure as a store.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{AuthUser, StoreError, UserId, UserStore};

/// Makes a [`UserStore`] of a closure that finds a user by id.
///
/// ```
/// use std::sync::Arc;
/// use tower_keep_core::{Account, StoreError, UserId, user_loader};
///
/// let store = user_loader(|id: UserId| async move {
///     Ok::<_, StoreError>((id.as_str() == "1").then(|| Arc::new(Account::new(1, "ada", "…"))))
/// });
/// # fn is_store<S: tower_keep_core::UserStore>(_: S) {}
/// # is_store(store);
/// ```
pub fn user_loader<F, Fut, U>(load: F) -> UserLoader<F>
where
    F: Fn(UserId) -> Fut + Send + Sync,
    Fut: Future<Output = Result<Option<Arc<U>>, StoreError>> + Send,
    U: AuthUser,
{
    UserLoader(load)
}

/// A closure as a store; made by [`user_loader`].
///
/// A type of its own, because implementing [`UserStore`] for every closure would collide with
/// forwarding for `Box` and `Arc`.
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
    Fut: Future<Output = Result<Option<Arc<U>>, StoreError>> + Send,
    U: AuthUser,
{
    type User = U;

    async fn by_id(&self, id: &UserId) -> Result<Option<Arc<U>>, StoreError> {
        (self.0)(id.clone()).await
    }
}
