//! The session records of a [`MemoryStore`], alone or together with their users.

use std::sync::Arc;

use tower_keep_core::{
    AuthUser, Creation, End, LoginStore, NewLogin, Rotated, Rotation, SeenMark, SessionKey,
    SessionRecord, SessionStore, StoreResult, StoredLogin, Timestamp, Touch, UserId, async_trait,
};

use crate::store::MemoryStore;

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<U: AuthUser + Clone> SessionStore for MemoryStore<U> {
    async fn create(&self, login: &NewLogin<'_>) -> StoreResult<Creation> {
        self.sessions.create(login).await
    }

    async fn load(&self, key: &SessionKey) -> StoreResult<Option<Arc<SessionRecord>>> {
        self.sessions.load(key).await
    }

    async fn rotate(&self, rotation: &Rotation) -> StoreResult<Option<Rotated>> {
        self.sessions.rotate(rotation).await
    }

    async fn mark_seen(&self, marks: &[SeenMark]) -> StoreResult<()> {
        self.sessions.mark_seen(marks).await
    }

    async fn touch(&self, touches: &[Touch]) -> StoreResult<()> {
        self.sessions.touch(touches).await
    }

    async fn revoke(&self, keys: &[SessionKey], end: &End) -> StoreResult<usize> {
        self.sessions.revoke(keys, end).await
    }

    async fn revoke_all(
        &self,
        user: &UserId,
        except: Option<&SessionKey>,
        end: &End,
    ) -> StoreResult<()> {
        self.sessions.revoke_all(user, except, end).await
    }

    async fn list(
        &self,
        user: &UserId,
        now: Timestamp,
        limit: usize,
    ) -> StoreResult<Vec<Arc<SessionRecord>>> {
        self.sessions.list(user, now, limit).await
    }

    async fn purge(&self, before: Timestamp, limit: usize) -> StoreResult<usize> {
        self.sessions.purge(before, limit).await
    }
}

#[async_trait]
impl<U: AuthUser + Clone> LoginStore for MemoryStore<U> {
    async fn load_login(
        &self,
        key: &SessionKey,
        _user_hint: Option<&UserId>,
    ) -> StoreResult<Option<StoredLogin<U>>> {
        let Some(record) = self.sessions.find(key) else { return Ok(None) };
        let user = self.read().by_id.get(&record.user).cloned();
        Ok(Some(StoredLogin::new(record, user)))
    }
}
