//! Removes the records of expired sessions, and of sessions that ended together, in batches. Which
//! records of a map are removed is decided in `record_shard.rs`.

use std::collections::hash_map::Entry;

use tower_keep_core::{SessionRecord, Timestamp};

use crate::shards::{MemorySessions, SHARDS};

/// The maximum number of records that a purge looks at before it releases the lock for other calls.
const PURGE_BATCH: usize = 32;

impl MemorySessions {
    /// Removes at most `limit` expired records, and returns their number.
    pub(crate) fn purge_expired(&self, before: Timestamp, limit: usize) -> usize {
        let mut purged = 0;
        let mut finished_shards = 0;
        while finished_shards < SHARDS && purged < limit {
            // The lock is released after each batch.
            let batch = PURGE_BATCH.min(limit - purged);
            let (looked_at, removed) = self.write_shard_to_purge().purge(before, batch);
            if looked_at == 0 {
                self.advance_purge();
                finished_shards += 1;
            }
            purged += removed.len();
            removed.iter().for_each(|stored| self.remove_from_user(&stored.record));
        }
        purged
    }

    /// Removes sessions that ended with their epochs, and returns their number. An entry of
    /// `ended_together` that has to be kept longer moves to the end of the queue.
    pub(crate) fn purge_earlier_epochs(&self, before: Timestamp, limit: usize) -> usize {
        let (mut purged, mut skipped) = (0, 0);
        while purged < limit {
            let mut keys = Vec::new();
            {
                let mut ended_together = self.lock_ended_together();
                let Some(first) = ended_together.front_mut() else { break };
                if first.keep_until > before {
                    skipped += 1;
                    if skipped > ended_together.len() {
                        break;
                    }
                    ended_together.rotate_left(1);
                    continue;
                }
                while keys.len() < PURGE_BATCH.min(limit - purged) {
                    let Some(key) = first.sessions.pop_oldest() else { break };
                    keys.push(key);
                }
                if first.sessions.is_empty() {
                    ended_together.pop_front();
                }
            }
            for key in keys {
                let removed = self.write_shard(&key).remove_ended_with_epoch(&key);
                if let Some(stored) = removed {
                    purged += 1;
                    self.remove_from_user(&stored.record);
                }
            }
        }
        purged
    }

    /// Removes a purged record from its user's
    /// [`UserSessions`](crate::shards::UserSessions).
    fn remove_from_user(&self, record: &SessionRecord) {
        let mut users = self.lock_user(&record.user);
        if let Entry::Occupied(mut entry) = users.entry(record.user.clone()) {
            let user_sessions = entry.get_mut();
            user_sessions.to_notify.remove(&record.key);
            user_sessions.not_ended.remove(&(record.created, record.key));
            user_sessions.record_count = user_sessions.record_count.saturating_sub(1);
            if user_sessions.record_count == 0 {
                entry.remove();
            }
        }
    }
}
