//! A store as several servers use it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tower_keep_core::{
    ChangeUser, Creation, End, LoginStore, Modified, NewLogin, Rotated, Rotation, SeenMark,
    SessionKey, SessionRecord, SessionStore, StoreError, StoredLogin, Timestamp, Touch,
    UserDirectory, UserId, UserLookup, UserStore, async_trait,
};

/// Several handles on the same data, as several servers have them. Each call goes to the next
/// handle.
///
/// This is for a store that does more than its database to coordinate the calls of one process.
/// With this type, the clauses about concurrency test what the database does.
#[derive(Debug)]
pub struct Several<S> {
    stores: Vec<S>,
    next: AtomicUsize,
}

impl<S> Several<S> {
    /// Creates a store from these handles.
    ///
    /// # Panics
    ///
    /// Panics if there are no handles.
    pub fn new(stores: Vec<S>) -> Self {
        assert!(!stores.is_empty(), "`Several::new` needs at least one store");
        Self { stores, next: AtomicUsize::new(0) }
    }

    fn next(&self) -> &S {
        &self.stores[self.next.fetch_add(1, Ordering::Relaxed) % self.stores.len()]
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: UserStore> UserStore for Several<S> {
    type User = S::User;

    async fn by_id(&self, id: &UserId) -> Result<Option<Arc<S::User>>, StoreError> {
        self.next().by_id(id).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: UserLookup> UserLookup for Several<S> {
    async fn by_login_name(&self, login_name: &str) -> Result<Option<Arc<S::User>>, StoreError> {
        self.next().by_login_name(login_name).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: UserDirectory> UserDirectory for Several<S> {
    async fn by_ids(&self, ids: &[UserId]) -> Result<Vec<Option<Arc<S::User>>>, StoreError> {
        self.next().by_ids(ids).await
    }

    async fn insert(&self, user: &S::User) -> Result<(), StoreError> {
        self.next().insert(user).await
    }

    async fn modify(
        &self,
        id: &UserId,
        change: &mut ChangeUser<'_, S::User>,
    ) -> Result<Modified<S::User>, StoreError> {
        self.next().modify(id, change).await
    }

    async fn delete(&self, id: &UserId) -> Result<bool, StoreError> {
        self.next().delete(id).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: SessionStore> SessionStore for Several<S> {
    async fn create(&self, login: &NewLogin<'_>) -> Result<Creation, StoreError> {
        self.next().create(login).await
    }

    async fn load(&self, key: &SessionKey) -> Result<Option<Arc<SessionRecord>>, StoreError> {
        self.next().load(key).await
    }

    async fn rotate(&self, rotation: &Rotation) -> Result<Option<Rotated>, StoreError> {
        self.next().rotate(rotation).await
    }

    async fn mark_seen(&self, marks: &[SeenMark]) -> Result<(), StoreError> {
        self.next().mark_seen(marks).await
    }

    async fn touch(&self, touches: &[Touch]) -> Result<(), StoreError> {
        self.next().touch(touches).await
    }

    async fn revoke(&self, keys: &[SessionKey], end: &End) -> Result<usize, StoreError> {
        self.next().revoke(keys, end).await
    }

    async fn revoke_all(
        &self,
        user: &UserId,
        except: Option<&SessionKey>,
        end: &End,
    ) -> Result<(), StoreError> {
        self.next().revoke_all(user, except, end).await
    }

    async fn list(
        &self,
        user: &UserId,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Arc<SessionRecord>>, StoreError> {
        self.next().list(user, now, limit).await
    }

    async fn purge(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.next().purge(before, limit).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: LoginStore> LoginStore for Several<S> {
    async fn load_login(
        &self,
        key: &SessionKey,
        user_hint: Option<&UserId>,
    ) -> Result<Option<StoredLogin<S::User>>, StoreError> {
        self.next().load_login(key, user_hint).await
    }
}
