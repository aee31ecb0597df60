//! Ends a session, or all sessions of a user.

use std::sync::Arc;

use tower_keep_core::{End, SessionKey, SessionRecord};

use crate::shards::{EndedTogether, MemorySessions, UserSessions};

impl MemorySessions {
    /// Ends a session, and removes it from `user_sessions.not_ended`. If the session was live,
    /// returns its record from before.
    pub(crate) fn end_session(
        &self,
        user_sessions: &mut UserSessions,
        key: &SessionKey,
        end: &End,
        successor: Option<SessionKey>,
    ) -> Option<Arc<SessionRecord>> {
        let created = self.find(key)?.created;
        user_sessions.not_ended.remove(&(created, *key));
        self.write_shard(key).end(key, end, successor)
    }

    /// Ends all of a user's sessions except those in `stay`, by raising the user's epoch.
    pub(crate) fn raise_epoch(
        &self,
        user_sessions: &mut UserSessions,
        stay: &[SessionKey],
        end: &End,
    ) {
        let next = user_sessions.epoch.next(end);
        let mut ending = std::mem::take(&mut user_sessions.not_ended);
        for key in stay {
            let mut shard = self.write_shard(key);
            let Some(stored) = shard.get_mut(key) else { continue };
            if ending.remove(&(stored.record.created, *key)) {
                // Moves the session to the new epoch before the user's epoch is set, so no other
                // call sees the session as ended.
                stored.created_in = next.number;
                user_sessions.not_ended.insert((stored.record.created, *key));
            }
        }
        user_sessions.epoch.set(next);
        let ended = EndedTogether { keep_until: end.keep_until, sessions: ending };
        self.lock_ended_together().push_back(ended);
    }
}
