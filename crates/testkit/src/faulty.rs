//! A store whose calls fail, wait or hang on demand, and are recorded.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tower_keep_core::{
    ChangeUser, CounterKey, CounterStore, CounterUse, Creation, End, LoginStore, Modified,
    NewLogin, Rotated, Rotation, SeenMark, SessionKey, SessionRecord, SessionStore, StoreError,
    StoreErrorKind, StoreResult, StoredLogin, TakenUse, Taking, Timestamp, Touch, UserDirectory,
    UserId, UserLookup, UserStore, async_trait,
};

/// A method of a store, whose calls can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each variant is a method of a store trait, with the same name")]
#[non_exhaustive]
pub enum Call {
    ById,
    ByLoginName,
    ByIds,
    Insert,
    Modify,
    Delete,
    LoadLogin,
    Create,
    Load,
    Rotate,
    MarkSeen,
    Touch,
    Revoke,
    RevokeAll,
    List,
    Purge,
    Take,
    GiveBack,
    ResetCounters,
    PurgeCounters,
}

impl Call {
    /// All calls.
    pub const ALL: [Self; 20] = [
        Self::ById,
        Self::ByLoginName,
        Self::ByIds,
        Self::Insert,
        Self::Modify,
        Self::Delete,
        Self::LoadLogin,
        Self::Create,
        Self::Load,
        Self::Rotate,
        Self::MarkSeen,
        Self::Touch,
        Self::Revoke,
        Self::RevokeAll,
        Self::List,
        Self::Purge,
        Self::Take,
        Self::GiveBack,
        Self::ResetCounters,
        Self::PurgeCounters,
    ];
}

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trouble {
    /// The call fails without having done anything.
    Fails(StoreErrorKind),
    /// The call does its work and then fails, as if the store's reply had been lost.
    FailsAfterwards(StoreErrorKind),
    /// The call waits this long and then does its work. It waits with `tokio::time::sleep`, so a
    /// test can skip the wait with `tokio::time::pause`.
    Delays(Duration),
    /// The call never returns.
    Hangs,
    /// A [rotation](Call::Rotate) always loses, as if another call had been faster. Other calls do
    /// their work.
    Loses,
}

/// Wraps any store, and makes its calls fail, wait or hang on demand. Clones share the troubles and
/// the recorded calls.
///
/// ```
/// use tower_keep_core::{Account, StoreErrorKind, UserStore};
/// use tower_keep_memory::MemoryStore;
/// use tower_keep_testkit::{Call, FaultyStore, Trouble};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let store = FaultyStore::new(MemoryStore::<Account>::new());
/// store.set(Call::ById, Trouble::Fails(StoreErrorKind::Unavailable));
/// assert!(store.by_id(&"1".into()).await.is_err());
/// store.heal();
/// assert!(store.by_id(&"1".into()).await.is_ok());
/// assert_eq!(store.take_calls(), [Call::ById, Call::ById]);
/// # }
/// ```
pub struct FaultyStore<S> {
    inner: S,
    state: Arc<Mutex<State>>,
}

/// The state that clones share.
#[derive(Default)]
struct State {
    troubles: HashMap<Call, Trouble>,
    calls: Vec<Call>,
}

impl<S> FaultyStore<S> {
    /// Wraps this store. At first, nothing goes wrong with any call.
    pub fn new(inner: S) -> Self {
        Self { inner, state: Arc::default() }
    }

    /// Returns the wrapped store. Calls to it have no troubles and are not recorded.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Sets what goes wrong with this call from now on.
    pub fn set(&self, call: Call, trouble: Trouble) {
        self.lock_state().troubles.insert(call, trouble);
    }

    /// Sets what goes wrong with every call from now on.
    pub fn set_all(&self, trouble: Trouble) {
        Call::ALL.into_iter().for_each(|call| self.set(call, trouble));
    }

    /// Removes the trouble of this call.
    pub fn heal_call(&self, call: Call) {
        self.lock_state().troubles.remove(&call);
    }

    /// Removes all troubles.
    pub fn heal(&self) {
        self.lock_state().troubles.clear();
    }

    /// Returns the calls since the last `take_calls`, in order, including failed calls.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.lock_state().calls)
    }

    fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the call, and then runs `operation` with the trouble that is set for this call, if
    /// any.
    async fn run<T>(
        &self,
        call: Call,
        operation: impl Future<Output = StoreResult<T>>,
    ) -> StoreResult<T> {
        let trouble = {
            let mut state = self.lock_state();
            state.calls.push(call);
            state.troubles.get(&call).copied()
        };
        let error = |kind| StoreError::new(kind, "faulty");
        match trouble {
            None | Some(Trouble::Loses) => operation.await,
            Some(Trouble::Fails(kind)) => Err(error(kind)),
            Some(Trouble::FailsAfterwards(kind)) => {
                operation.await?;
                Err(error(kind))
            }
            Some(Trouble::Delays(duration)) => {
                tokio::time::sleep(duration).await;
                operation.await
            }
            Some(Trouble::Hangs) => std::future::pending().await,
        }
    }
}

impl<S: Clone> Clone for FaultyStore<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), state: Arc::clone(&self.state) }
    }
}

impl<S> fmt::Debug for FaultyStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyStore").finish_non_exhaustive()
    }
}

#[async_trait]
impl<S: UserStore> UserStore for FaultyStore<S> {
    type User = S::User;

    async fn by_id(&self, id: &UserId) -> StoreResult<Option<Arc<S::User>>> {
        self.run(Call::ById, self.inner.by_id(id)).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: UserLookup> UserLookup for FaultyStore<S> {
    async fn by_login_name(&self, login_name: &str) -> StoreResult<Option<Arc<S::User>>> {
        self.run(Call::ByLoginName, self.inner.by_login_name(login_name)).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: UserDirectory> UserDirectory for FaultyStore<S> {
    async fn by_ids(&self, ids: &[UserId]) -> StoreResult<Vec<Option<Arc<S::User>>>> {
        self.run(Call::ByIds, self.inner.by_ids(ids)).await
    }

    async fn insert(&self, user: &S::User) -> StoreResult<()> {
        self.run(Call::Insert, self.inner.insert(user)).await
    }

    async fn modify(
        &self,
        id: &UserId,
        change: &mut ChangeUser<'_, S::User>,
    ) -> StoreResult<Modified<S::User>> {
        self.run(Call::Modify, self.inner.modify(id, change)).await
    }

    async fn delete(&self, id: &UserId) -> StoreResult<bool> {
        self.run(Call::Delete, self.inner.delete(id)).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: SessionStore> SessionStore for FaultyStore<S> {
    async fn create(&self, login: &NewLogin<'_>) -> StoreResult<Creation> {
        self.run(Call::Create, self.inner.create(login)).await
    }

    async fn load(&self, key: &SessionKey) -> StoreResult<Option<Arc<SessionRecord>>> {
        self.run(Call::Load, self.inner.load(key)).await
    }

    async fn rotate(&self, rotation: &Rotation) -> StoreResult<Option<Rotated>> {
        let loses = self.lock_state().troubles.get(&Call::Rotate) == Some(&Trouble::Loses);
        let operation = async {
            match loses {
                true => Ok(self.inner.load(&rotation.key).await?.map(Rotated::Lost)),
                false => self.inner.rotate(rotation).await,
            }
        };
        self.run(Call::Rotate, operation).await
    }

    async fn mark_seen(&self, marks: &[SeenMark]) -> StoreResult<()> {
        self.run(Call::MarkSeen, self.inner.mark_seen(marks)).await
    }

    async fn touch(&self, touches: &[Touch]) -> StoreResult<()> {
        self.run(Call::Touch, self.inner.touch(touches)).await
    }

    async fn revoke(&self, keys: &[SessionKey], end: &End) -> StoreResult<usize> {
        self.run(Call::Revoke, self.inner.revoke(keys, end)).await
    }

    async fn revoke_all(
        &self,
        user: &UserId,
        except: Option<&SessionKey>,
        end: &End,
    ) -> StoreResult<()> {
        self.run(Call::RevokeAll, self.inner.revoke_all(user, except, end)).await
    }

    async fn list(
        &self,
        user: &UserId,
        now: Timestamp,
        limit: usize,
    ) -> StoreResult<Vec<Arc<SessionRecord>>> {
        self.run(Call::List, self.inner.list(user, now, limit)).await
    }

    async fn purge(&self, before: Timestamp, limit: usize) -> StoreResult<usize> {
        self.run(Call::Purge, self.inner.purge(before, limit)).await
    }
}

#[async_trait]
impl<S: LoginStore> LoginStore for FaultyStore<S> {
    async fn load_login(
        &self,
        key: &SessionKey,
        user_hint: Option<&UserId>,
    ) -> StoreResult<Option<StoredLogin<S::User>>> {
        self.run(Call::LoadLogin, self.inner.load_login(key, user_hint)).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: CounterStore> CounterStore for FaultyStore<S> {
    async fn take(&self, uses: &[CounterUse], now: Timestamp) -> StoreResult<Taking> {
        self.run(Call::Take, self.inner.take(uses, now)).await
    }

    async fn give_back(&self, taken: &[TakenUse]) -> StoreResult<()> {
        self.run(Call::GiveBack, self.inner.give_back(taken)).await
    }

    async fn reset_counters(&self, keys: &[CounterKey]) -> StoreResult<()> {
        self.run(Call::ResetCounters, self.inner.reset_counters(keys)).await
    }

    async fn purge_counters(&self, before: Timestamp, limit: usize) -> StoreResult<usize> {
        self.run(Call::PurgeCounters, self.inner.purge_counters(before, limit)).await
    }
}
