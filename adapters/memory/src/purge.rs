//! Removes the records of expired sessions, and of sessions that ended together, in batches.

use std::collections::hash_map::Entry;

use tower_keep_core::{SessionKey, SessionRecord, Timestamp};

use crate::record_shard::{RecordShard, StoredRecord};
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

impl RecordShard {
    /// Removes a session that ended with its epoch. Leaves a session that ended individually.
    fn remove_ended_with_epoch(&mut self, key: &SessionKey) -> Option<StoredRecord> {
        let stored = self.records.get(key)?;
        let ended_with_epoch = stored.is_past() && stored.record.ended.is_none();
        if ended_with_epoch { self.remove(key) } else { None }
    }

    /// Looks at up to `limit` records that may have expired, and removes the expired ones. Returns
    /// the number of records that it looked at, and the removed records. The caller drops these
    /// after it has released the lock.
    fn purge(&mut self, before: Timestamp, limit: usize) -> (usize, Vec<StoredRecord>) {
        let (mut looked_at, mut removed) = (0, Vec::new());
        while looked_at < limit
            && self.expiries.first().is_some_and(|(expires, _)| *expires <= before)
        {
            let Some((_, key)) = self.expiries.pop_first() else { break };
            looked_at += 1;
            let Some(stored) = self.records.get(&key) else { continue };
            let expires = stored.record.expires;
            if expires <= before {
                removed.extend(self.records.remove(&key));
            } else {
                // The session was extended after this entry was made.
                self.expiries.insert((expires, key));
            }
        }
        (looked_at, removed)
    }
}
