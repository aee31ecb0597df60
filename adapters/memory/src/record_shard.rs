//! One of the maps that hold the records, and how a call changes a record in it.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use tower_keep_core::{End, SessionKey, SessionRecord, Timestamp};

use crate::epoch::SharedEpoch;

/// A record, the number of the epoch in which it was created or to which it was moved, and its
/// user's current epoch.
pub(crate) struct StoredRecord {
    pub(crate) record: Arc<SessionRecord>,
    pub(crate) created_in: u64,
    epoch: Arc<SharedEpoch>,
}

impl StoredRecord {
    /// Checks whether the record has ended with its epoch.
    fn is_past(&self) -> bool {
        self.created_in < self.epoch.number()
    }

    /// Returns the record as it is now, which includes an end with its epoch.
    pub(crate) fn current(&self) -> Arc<SessionRecord> {
        if !self.is_past() {
            return Arc::clone(&self.record);
        }
        Arc::new(self.epoch.apply_to(SessionRecord::clone(&self.record), self.created_in))
    }
}

#[derive(Default)]
pub(crate) struct RecordShard {
    records: HashMap<SessionKey, StoredRecord, BuildHasherDefault<KeyHasher>>,
    /// Has an entry for every record, with a time that is not later than the record's expiry.
    expiries: BTreeSet<(Timestamp, SessionKey)>,
}

/// A hasher for session keys. It only copies bytes, because the keys are hashes already.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        // Uses the last bytes, because the first one chooses the shard. All keys have the same
        // length.
        if let Some(chunk) = bytes.last_chunk::<8>() {
            self.0 ^= u64::from_ne_bytes(*chunk);
        }
    }

    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

impl RecordShard {
    pub(crate) fn get(&self, key: &SessionKey) -> Option<&StoredRecord> {
        self.records.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: &SessionKey) -> Option<&mut StoredRecord> {
        self.records.get_mut(key)
    }

    /// Inserts a record. Returns `false` if the key is taken.
    pub(crate) fn insert(&mut self, record: &SessionRecord, epoch: &Arc<SharedEpoch>) -> bool {
        match self.records.entry(record.key) {
            Entry::Occupied(_) => false,
            Entry::Vacant(entry) => {
                let created_in = epoch.number();
                let record = Arc::new(record.clone());
                self.expiries.insert((record.expires, record.key));
                entry.insert(StoredRecord { record, created_in, epoch: Arc::clone(epoch) });
                true
            }
        }
    }

    /// Ends a session that has not ended. If the session was live, returns its record from before.
    pub(crate) fn end(
        &mut self,
        key: &SessionKey,
        end: &End,
        successor: Option<SessionKey>,
    ) -> Option<Arc<SessionRecord>> {
        let before = self.records.get(key)?.current();
        let (_, is_changed) = self.change(key, |record| end.apply_to(record, successor))?;
        (is_changed && before.is_live(end.at)).then_some(before)
    }

    /// Replaces a record with the result of `apply`, unless `apply` returns `None`. Returns the
    /// current record, and whether this call changed it. Returns `None` if there is no such record.
    pub(crate) fn change(
        &mut self,
        key: &SessionKey,
        apply: impl FnOnce(&SessionRecord) -> Option<SessionRecord>,
    ) -> Option<(Arc<SessionRecord>, bool)> {
        let stored = self.records.get_mut(key)?;
        let before = stored.current();
        let Some(after) = apply(&before) else { return Some((before, false)) };
        if after.expires < stored.record.expires {
            // The entry for the later expiry stays. It does no harm after the record is removed.
            self.expiries.insert((after.expires, *key));
        }
        stored.record = Arc::new(after);
        Some((Arc::clone(&stored.record), true))
    }

    pub(crate) fn remove(&mut self, key: &SessionKey) -> Option<StoredRecord> {
        let removed = self.records.remove(key)?;
        self.expiries.remove(&(removed.record.expires, *key));
        Some(removed)
    }

    /// Removes a session that ended with its epoch. Leaves a session that ended individually.
    pub(crate) fn remove_ended_with_epoch(&mut self, key: &SessionKey) -> Option<StoredRecord> {
        let stored = self.records.get(key)?;
        let ended_with_epoch = stored.is_past() && stored.record.ended.is_none();
        if ended_with_epoch { self.remove(key) } else { None }
    }

    /// Looks at up to `limit` records that may have expired, and removes the expired ones. Returns
    /// the number of records that it looked at, and the removed records. The caller drops these
    /// after it has released the lock.
    pub(crate) fn purge(&mut self, before: Timestamp, limit: usize) -> (usize, Vec<StoredRecord>) {
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
