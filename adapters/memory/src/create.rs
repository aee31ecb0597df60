//! Creates a session, and ends the sessions that the login replaces and those that make room for
//! it.

use std::sync::Arc;

use tower_keep_core::{
    Creation, End, EndReason, MAX_PER_CALL, NewLogin, Room, SessionKey, SessionRecord, StoreResult,
};

use crate::error::conflict;
use crate::shards::{MemorySessions, UserSessions};

impl MemorySessions {
    pub(crate) fn create_session(&self, login: &NewLogin<'_>) -> StoreResult<Creation> {
        let NewLogin { record, keep_ended_until: keep_until, .. } = *login;
        let now = record.created;
        let _replacing_guard = match login.replacing {
            [] => None,
            _ => Some(self.lock_replacing()),
        };
        // Other logins of this user wait until this one has finished.
        let mut users = self.lock_user(&record.user);
        let user_sessions = users.entry(record.user.clone()).or_default();
        if !self.write_shard(&record.key).insert(record, &user_sessions.epoch) {
            if user_sessions.record_count == 0 {
                users.remove(&record.user);
            }
            return Err(conflict());
        }
        let replaced: Vec<_> = login.replacing.iter().map(|key| self.last_successor(key)).collect();
        let room = login.limit.map_or(Room::EndEach(Vec::new()), |limit| {
            let counts_toward_limit =
                |other: &Arc<SessionRecord>| other.is_live(now) && !replaced.contains(&other.key);
            let newest = user_sessions.not_ended.newest_first().filter_map(|key| self.find(key));
            let newest = newest.filter(counts_toward_limit).take(limit.records_to_read());
            limit.room(newest.collect())
        });
        let end = End::new(now, EndReason::Limit, keep_until);
        let ended = match room {
            Room::None => {
                self.write_shard(&record.key).remove(&record.key);
                if user_sessions.record_count == 0 {
                    users.remove(&record.user);
                }
                return Ok(Creation::Full);
            }
            Room::EndEach(ending) => ending
                .iter()
                .filter_map(|old| self.end_session(user_sessions, &old.key, &end, None))
                .collect(),
            Room::EndAllExcept { stay, ended } => {
                let stay: Vec<_> =
                    stay.iter().map(|other| other.key).chain(replaced.iter().copied()).collect();
                self.raise_epoch(user_sessions, &stay, &end);
                if let Some(stored) = self.write_shard(&record.key).get_mut(&record.key) {
                    stored.created_in = user_sessions.epoch.number();
                }
                ended
            }
        };
        user_sessions.record_count += 1;
        user_sessions.not_ended.insert((now, record.key));
        let end = End::new(now, EndReason::Replaced, keep_until);
        for key in replaced {
            self.end_session(user_sessions, &key, &end, Some(record.key));
        }
        for key in login.replacing {
            self.write_shard(key).change(key, |old| old.with_successor(record.key, keep_until));
        }
        let replays =
            if login.notifies_user { self.take_replays(user_sessions) } else { Vec::new() };
        Ok(Creation::created(ended, replays))
    }

    /// Returns the key of the last of this session's successors, or its own key if it has none.
    fn last_successor(&self, key: &SessionKey) -> SessionKey {
        let mut key = *key;
        // A successor is newer than the session that it replaced, so the chain has an end.
        while let Some(successor) =
            self.find(&key).and_then(|record| record.ended.as_ref()?.successor)
        {
            key = successor;
        }
        key
    }

    /// Marks the sessions in `to_notify`, at most [`MAX_PER_CALL`] of them, as notified. Returns
    /// their records from before. These sessions ended because of a replay (a late use of an old
    /// remember cookie).
    fn take_replays(&self, user_sessions: &mut UserSessions) -> Vec<Arc<SessionRecord>> {
        let mut notified = Vec::new();
        while notified.len() < MAX_PER_CALL {
            let Some(key) = user_sessions.to_notify.pop_first() else { break };
            let mut shard = self.write_shard(&key);
            let Some(stored) = shard.get_mut(&key) else { continue };
            let Some(after) = stored.record.with_notified_end() else { continue };
            notified.push(std::mem::replace(&mut stored.record, Arc::new(after)));
        }
        notified
    }
}
