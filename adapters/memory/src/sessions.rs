//! The calls of a [`SessionStore`].

use std::sync::Arc;

use tower_keep_core::{
    Creation, End, EndReason, NewLogin, Rotated, Rotation, SeenMark, SessionKey, SessionRecord,
    SessionStore, StoreResult, Timestamp, Touch, UserId, async_trait, most_recently_used,
};

use crate::shards::MemorySessions;

#[async_trait]
impl SessionStore for MemorySessions {
    async fn create(&self, login: &NewLogin<'_>) -> StoreResult<Creation> {
        self.create_session(login)
    }

    async fn load(&self, key: &SessionKey) -> StoreResult<Option<Arc<SessionRecord>>> {
        Ok(self.find(key))
    }

    async fn rotate(&self, rotation: &Rotation) -> StoreResult<Option<Rotated>> {
        let changed = self
            .write_shard(&rotation.key)
            .change(&rotation.key, |record| rotation.apply_to(record));
        Ok(changed.map(|(record, is_changed)| match is_changed {
            true => Rotated::Won(record),
            false => Rotated::Lost(record),
        }))
    }

    async fn mark_seen(&self, marks: &[SeenMark]) -> StoreResult<()> {
        for mark in marks {
            self.write_shard(&mark.key).change(&mark.key, |record| mark.apply_to(record));
        }
        Ok(())
    }

    async fn touch(&self, touches: &[Touch]) -> StoreResult<()> {
        for touch in touches {
            self.write_shard(&touch.key).change(&touch.key, |record| touch.apply_to(record));
        }
        Ok(())
    }

    async fn revoke(&self, keys: &[SessionKey], end: &End) -> StoreResult<usize> {
        // A concurrent `list` sees either all of these sessions ended or none.
        let mut users = self.lock_users_of(keys);
        let mut live_count = 0;
        for key in keys {
            let Some(record) = self.find(key).filter(|record| record.ended.is_none()) else {
                continue;
            };
            let index = self.user_shard_of(&record.user);
            let user_sessions = users
                .iter_mut()
                .find(|(locked, _)| *locked == index)
                .and_then(|(_, users)| users.get_mut(&record.user));
            let Some(user_sessions) = user_sessions else { continue };
            live_count += usize::from(self.end_session(user_sessions, key, end, None).is_some());
            if end.reason == EndReason::Replay {
                user_sessions.to_notify.insert(*key);
            }
        }
        Ok(live_count)
    }

    async fn revoke_all(
        &self,
        user: &UserId,
        except: Option<&SessionKey>,
        end: &End,
    ) -> StoreResult<()> {
        // A concurrent login comes either before or after this call.
        if let Some(user_sessions) = self.lock_user(user).get_mut(user) {
            self.raise_epoch(user_sessions, except.map_or(&[], std::slice::from_ref), end);
        }
        Ok(())
    }

    async fn list(
        &self,
        user: &UserId,
        now: Timestamp,
        limit: usize,
    ) -> StoreResult<Vec<Arc<SessionRecord>>> {
        let records = {
            let users = self.lock_user(user);
            let keys = users
                .get(user)
                .into_iter()
                .flat_map(|user_sessions| user_sessions.not_ended.newest_first());
            keys.filter_map(|key| self.find(key)).collect()
        };
        Ok(most_recently_used(records, now, limit))
    }

    async fn purge(&self, before: Timestamp, limit: usize) -> StoreResult<usize> {
        let purged = self.purge_expired(before, limit);
        Ok(purged + self.purge_earlier_epochs(before, limit - purged))
    }
}
