//! Users in one store, session records and counters in another.

use std::pin::pin;
use std::task::Poll;

use async_trait::async_trait;

use crate::error::StoreResult;
use crate::login_store::{LoginStore, StoredLogin};
use crate::session::SessionKey;
use crate::session_store::SessionStore;
use crate::user_id::UserId;
use crate::user_store::UserStore;

/// Two stores as one: users in the first, session records and counters in the second.
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
    /// The session records and the counters.
    pub B,
);

#[async_trait]
impl<A: UserStore, B: SessionStore> LoginStore for SplitStore<A, B> {
    async fn load_login(
        &self,
        key: &SessionKey,
        user_hint: Option<&UserId>,
    ) -> StoreResult<Option<StoredLogin<A::User>>> {
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
