//! Users in one store, session records in another.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;

use crate::{
    ChangeUser, LoginStore, Modified, SessionKey, SessionStore, StoreError, StoredLogin,
    UserDirectory, UserId, UserLookup, UserStore,
};

/// Two stores as one: users in the first, session records in the second.
///
/// For an authenticated request, both stores are called concurrently.
///
/// ```
/// use tower_keep_core::{SplitStore, SessionStore, UserStore};
///
/// fn join<A: UserStore, B: SessionStore>(users: A, records: B) -> SplitStore<A, B> {
///     SplitStore(users, records)
/// }
/// ```
#[derive(Clone, Debug)]
pub struct SplitStore<A, B>(
    /// The users.
    pub A,
    /// The session records.
    pub B,
);

#[async_trait]
impl<A: UserStore, B: SessionStore> LoginStore for SplitStore<A, B> {
    async fn load_login(
        &self,
        key: &SessionKey,
        user_hint: Option<&UserId>,
    ) -> Result<Option<StoredLogin<A::User>>, StoreError> {
        let Some(user_hint) = user_hint else {
            let Some(record) = self.1.load(key).await? else { return Ok(None) };
            let user = self.0.by_id(&record.user).await?;
            return Ok(Some(StoredLogin { record, user }));
        };
        let (record, user) = join(self.1.load(key), self.0.by_id(user_hint)).await;
        let Some(record) = record? else { return Ok(None) };
        let user =
            if record.user == *user_hint { user? } else { self.0.by_id(&record.user).await? };
        Ok(Some(StoredLogin { record, user }))
    }
}

/// Awaits two futures concurrently.
async fn join<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut a_output, mut b_output) = (None, None);
    std::future::poll_fn(move |cx| {
        if a_output.is_none() {
            a_output = output(a.as_mut().poll(cx));
        }
        if b_output.is_none() {
            b_output = output(b.as_mut().poll(cx));
        }
        match (a_output.take(), b_output.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            incomplete => {
                (a_output, b_output) = incomplete;
                Poll::Pending
            }
        }
    })
    .await
}

fn output<T>(poll: Poll<T>) -> Option<T> {
    match poll {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

#[async_trait]
impl<A: UserStore, B: SessionStore> UserStore for SplitStore<A, B> {
    type User = A::User;

    async fn by_id(&self, id: &UserId) -> Result<Option<Arc<A::User>>, StoreError> {
        self.0.by_id(id).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<A: UserLookup, B: SessionStore> UserLookup for SplitStore<A, B> {
    async fn by_login_name(&self, login_name: &str) -> Result<Option<Arc<A::User>>, StoreError> {
        self.0.by_login_name(login_name).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<A: UserDirectory, B: SessionStore> UserDirectory for SplitStore<A, B> {
    async fn by_ids(&self, ids: &[UserId]) -> Result<Vec<Option<Arc<A::User>>>, StoreError> {
        self.0.by_ids(ids).await
    }

    async fn insert(&self, user: &A::User) -> Result<(), StoreError> {
        self.0.insert(user).await
    }

    async fn modify(
        &self,
        id: &UserId,
        change: &mut ChangeUser<'_, A::User>,
    ) -> Result<Modified<A::User>, StoreError> {
        self.0.modify(id, change).await
    }

    async fn delete(&self, id: &UserId) -> Result<bool, StoreError> {
        self.0.delete(id).await
    }
}
