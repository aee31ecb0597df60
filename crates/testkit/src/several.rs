//! Several handles on the same data, like those of several servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tower_keep_core::{
    ChangeUser, CounterKey, CounterStore, CounterUse, Creation, End, LoginStore, Modified,
    NewLogin, Rotated, Rotation, SeenMark, SessionKey, SessionRecord, SessionStore, StoreResult,
    StoredLogin, TakenUse, Taking, Timestamp, Touch, UserDirectory, UserId, UserLookup, UserStore,
    async_trait,
};

/// Several handles on the same data, like those of several servers. Each call goes to the next
/// handle.
///
/// Use it for a store that coordinates the calls of one process with a lock or a queue in this
/// process. The calls of different servers are coordinated only by the database. With several
/// handles, the clauses about concurrency test both cases.
#[derive(Debug)]
pub struct Several<S> {
    handles: Vec<S>,
    calls: AtomicUsize,
}

impl<S> Several<S> {
    /// Creates a store from these handles.
    ///
    /// # Panics
    ///
    /// Panics if there are no handles.
    pub fn new(handles: Vec<S>) -> Self {
        assert!(!handles.is_empty(), "`Several::new` needs at least one handle");
        Self { handles, calls: AtomicUsize::new(0) }
    }

    fn next_handle(&self) -> &S {
        &self.handles[self.calls.fetch_add(1, Ordering::Relaxed) % self.handles.len()]
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: UserStore> UserStore for Several<S> {
    type User = S::User;

    async fn by_id(&self, id: &UserId) -> StoreResult<Option<Arc<S::User>>> {
        self.next_handle().by_id(id).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: UserLookup> UserLookup for Several<S> {
    async fn by_login_name(&self, login_name: &str) -> StoreResult<Option<Arc<S::User>>> {
        self.next_handle().by_login_name(login_name).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: UserDirectory> UserDirectory for Several<S> {
    async fn by_ids(&self, ids: &[UserId]) -> StoreResult<Vec<Option<Arc<S::User>>>> {
        self.next_handle().by_ids(ids).await
    }

    async fn insert(&self, user: &S::User) -> StoreResult<()> {
        self.next_handle().insert(user).await
    }

    async fn modify(
        &self,
        id: &UserId,
        change: &mut ChangeUser<'_, S::User>,
    ) -> StoreResult<Modified<S::User>> {
        self.next_handle().modify(id, change).await
    }

    async fn delete(&self, id: &UserId) -> StoreResult<bool> {
        self.next_handle().delete(id).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: SessionStore> SessionStore for Several<S> {
    async fn create(&self, login: &NewLogin<'_>) -> StoreResult<Creation> {
        self.next_handle().create(login).await
    }

    async fn load(&self, key: &SessionKey) -> StoreResult<Option<Arc<SessionRecord>>> {
        self.next_handle().load(key).await
    }

    async fn rotate(&self, rotation: &Rotation) -> StoreResult<Option<Rotated>> {
        self.next_handle().rotate(rotation).await
    }

    async fn mark_seen(&self, marks: &[SeenMark]) -> StoreResult<()> {
        self.next_handle().mark_seen(marks).await
    }

    async fn touch(&self, touches: &[Touch]) -> StoreResult<()> {
        self.next_handle().touch(touches).await
    }

    async fn revoke(&self, keys: &[SessionKey], end: &End) -> StoreResult<usize> {
        self.next_handle().revoke(keys, end).await
    }

    async fn revoke_all(
        &self,
        user: &UserId,
        except: Option<&SessionKey>,
        end: &End,
    ) -> StoreResult<()> {
        self.next_handle().revoke_all(user, except, end).await
    }

    async fn list(
        &self,
        user: &UserId,
        now: Timestamp,
        limit: usize,
    ) -> StoreResult<Vec<Arc<SessionRecord>>> {
        self.next_handle().list(user, now, limit).await
    }

    async fn purge(&self, before: Timestamp, limit: usize) -> StoreResult<usize> {
        self.next_handle().purge(before, limit).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: LoginStore> LoginStore for Several<S> {
    async fn load_login(
        &self,
        key: &SessionKey,
        user_hint: Option<&UserId>,
    ) -> StoreResult<Option<StoredLogin<S::User>>> {
        self.next_handle().load_login(key, user_hint).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: CounterStore> CounterStore for Several<S> {
    async fn take(&self, uses: &[CounterUse], now: Timestamp) -> StoreResult<Taking> {
        self.next_handle().take(uses, now).await
    }

    async fn give_back(&self, taken: &[TakenUse]) -> StoreResult<()> {
        self.next_handle().give_back(taken).await
    }

    async fn reset_counters(&self, keys: &[CounterKey]) -> StoreResult<()> {
        self.next_handle().reset_counters(keys).await
    }

    async fn purge_counters(&self, before: Timestamp, limit: usize) -> StoreResult<usize> {
        self.next_handle().purge_counters(before, limit).await
    }
}
