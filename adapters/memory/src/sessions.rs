//! Stores session records in memory.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tower_keep_core::{
    Creation, End, EndReason, Epoch, MAX_PER_CALL, NewLogin, Room, Rotated, Rotation, SeenMark,
    SessionKey, SessionRecord, SessionStore, StoreError, StoreErrorKind, Timestamp, Touch, UserId,
    async_trait, most_recently_used,
};

use crate::session_set::SessionSet;

/// The number of maps over which the records are spread, by the first byte of their keys. So no map
/// grows so large that resizing it causes a noticeable delay.
const SHARDS: usize = 256;
/// The maximum number of records that a purge looks at before it releases the lock for other calls.
const PURGE_BATCH: usize = 32;

/// A store of session records in memory, for [`SplitStore`](tower_keep_core::SplitStore) and
/// [`MemoryStore`](crate::MemoryStore).
///
/// A clone shares the records. A call locks one of 256 maps for the duration of a map operation. A
/// call that affects several sessions of a user also locks one of 256 maps of users, always before
/// the maps of records. No lock is held across an await, and each call completes when it is first
/// polled.
#[derive(Clone)]
pub struct MemorySessions(Arc<Shared>);

struct Shared {
    record_shards: Box<[RwLock<RecordShard>]>,
    user_shards: Box<[Mutex<UserShard>]>,
    hasher: RandomState,
    /// Held by a login that replaces sessions, because such a login follows the successors that
    /// other logins write. The login locks this mutex before all other locks.
    replacing: Mutex<()>,
    /// The shard at which the next purge continues.
    next_to_purge: AtomicUsize,
    /// The sessions that ended with an epoch and are not purged yet.
    ended_together: Mutex<VecDeque<EndedTogether>>,
}

/// The sessions that ended when a user's epoch was raised. An epoch is a number; raising it ends
/// all sessions that the user had.
struct EndedTogether {
    keep_until: Timestamp,
    sessions: SessionSet,
}

type UserShard = HashMap<UserId, UserSessions>;

/// What is stored for one user, besides the records.
#[derive(Default)]
struct UserSessions {
    epoch: Arc<SharedEpoch>,
    /// The sessions of this epoch that have not ended, by creation time. A session that was
    /// replaced by a login of another user may still be in the set.
    not_ended: SessionSet,
    /// The sessions that ended because of a replay and are not marked as notified yet.
    to_notify: BTreeSet<SessionKey>,
    /// The number of the user's records.
    record_count: usize,
}

/// A user's epoch. Each of the user's records also points to it.
#[derive(Default)]
struct SharedEpoch {
    number: AtomicU64,
    current: RwLock<Epoch>,
}

impl SharedEpoch {
    /// Returns the next epoch, without setting it.
    fn next(&self, end: &End) -> Epoch {
        self.current.read().unwrap_or_else(PoisonError::into_inner).raised(end)
    }

    fn set(&self, next: Epoch) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        self.number.store(next.number, Ordering::Release);
        *current = next;
    }

    fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }
}

/// A record, the number of the epoch in which it was created or to which it was moved, and its
/// user's current epoch.
#[derive(Clone)]
struct StoredRecord {
    record: Arc<SessionRecord>,
    created_in: u64,
    epoch: Arc<SharedEpoch>,
}

impl StoredRecord {
    /// Checks whether the record has ended with its epoch.
    fn is_past(&self) -> bool {
        self.created_in < self.epoch.number()
    }

    /// Returns the record as it is now, which includes an end with its epoch.
    fn current(&self) -> Arc<SessionRecord> {
        if !self.is_past() {
            return Arc::clone(&self.record);
        }
        let epoch = self.epoch.current.read().unwrap_or_else(PoisonError::into_inner);
        Arc::new(epoch.apply_to(SessionRecord::clone(&self.record), self.created_in))
    }
}

#[derive(Default)]
struct RecordShard {
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
    /// Inserts a record. Returns `false` if the key is taken.
    fn insert(&mut self, record: &SessionRecord, epoch: &Arc<SharedEpoch>) -> bool {
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
    fn end(
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
    fn change(
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

    /// Removes a session that ended with its epoch. Leaves a session that ended individually.
    fn remove_ended_with_epoch(&mut self, key: &SessionKey) -> Option<StoredRecord> {
        let ended_with_epoch =
            |stored: &StoredRecord| stored.is_past() && stored.record.ended.is_none();
        let stored = self.records.get(key).filter(|stored| ended_with_epoch(stored))?;
        self.expiries.remove(&(stored.record.expires, *key));
        self.records.remove(key)
    }
}

impl MemorySessions {
    /// Creates an empty store.
    pub fn new() -> Self {
        Self(Arc::new(Shared {
            record_shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            user_shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            replacing: Mutex::default(),
            next_to_purge: AtomicUsize::new(0),
            ended_together: Mutex::default(),
        }))
    }

    // A record is always replaced as a whole, so the data is consistent even if a lock is poisoned.
    fn write_shard(&self, key: &SessionKey) -> RwLockWriteGuard<'_, RecordShard> {
        let shard = &self.0.record_shards[usize::from(key.as_bytes()[0])];
        shard.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_shard(&self, key: &SessionKey) -> RwLockReadGuard<'_, RecordShard> {
        let shard = &self.0.record_shards[usize::from(key.as_bytes()[0])];
        shard.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the record with this key as it is now, if there is one.
    pub(crate) fn find(&self, key: &SessionKey) -> Option<Arc<SessionRecord>> {
        self.read_shard(key).records.get(key).map(StoredRecord::current)
    }

    fn lock_user(&self, user: &UserId) -> MutexGuard<'_, UserShard> {
        self.lock_user_shard(self.user_shard_of(user))
    }

    /// Returns the index of the shard that holds this user.
    fn user_shard_of(&self, user: &UserId) -> usize {
        self.0.hasher.hash_one(user) as usize % SHARDS
    }

    fn lock_user_shard(&self, index: usize) -> MutexGuard<'_, UserShard> {
        self.0.user_shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the shards of all users who own these sessions. All calls lock shards in the same
    /// order.
    fn lock_users_of(&self, keys: &[SessionKey]) -> Vec<(usize, MutexGuard<'_, UserShard>)> {
        let found = keys.iter().filter_map(|key| self.find(key));
        let mut indexes: Vec<_> = found.map(|record| self.user_shard_of(&record.user)).collect();
        indexes.sort_unstable();
        indexes.dedup();
        indexes.into_iter().map(|index| (index, self.lock_user_shard(index))).collect()
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

    /// Ends a session, and removes it from `user_sessions.not_ended`. If the session was live,
    /// returns its record from before.
    fn end_session(
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

    /// Marks the sessions in `to_notify`, at most [`MAX_PER_CALL`] of them, as notified. Returns
    /// their records from before. These sessions ended because of a replay (a late use of an old
    /// remember cookie).
    fn take_replays(&self, user_sessions: &mut UserSessions) -> Vec<Arc<SessionRecord>> {
        let mut notified = Vec::new();
        while notified.len() < MAX_PER_CALL {
            let Some(key) = user_sessions.to_notify.pop_first() else { break };
            let mut shard = self.write_shard(&key);
            let Some(stored) = shard.records.get_mut(&key) else { continue };
            let Some(after) = stored.record.with_notified_end() else { continue };
            notified.push(std::mem::replace(&mut stored.record, Arc::new(after)));
        }
        notified
    }

    /// Ends all of a user's sessions except those in `stay`, by raising the user's epoch.
    fn raise_epoch(&self, user_sessions: &mut UserSessions, stay: &[SessionKey], end: &End) {
        let next = user_sessions.epoch.next(end);
        let mut ending = std::mem::take(&mut user_sessions.not_ended);
        for key in stay {
            let mut shard = self.write_shard(key);
            let Some(stored) = shard.records.get_mut(key) else { continue };
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

    fn lock_ended_together(&self) -> MutexGuard<'_, VecDeque<EndedTogether>> {
        self.0.ended_together.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes sessions that ended with their epochs, and returns their number. An entry of
    /// `ended_together` that has to be kept longer moves to the end of the queue.
    fn purge_earlier_epochs(&self, before: Timestamp, limit: usize) -> usize {
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

    /// Removes a purged record from its user's [`UserSessions`].
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

impl Default for MemorySessions {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemorySessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemorySessions").finish_non_exhaustive()
    }
}

#[async_trait]
impl SessionStore for MemorySessions {
    async fn create(&self, login: &NewLogin<'_>) -> Result<Creation, StoreError> {
        let NewLogin { record, keep_ended_until: keep_until, .. } = *login;
        let now = record.created;
        let _replacing_guard = match login.replacing {
            [] => None,
            _ => Some(self.0.replacing.lock().unwrap_or_else(PoisonError::into_inner)),
        };
        // Other logins of this user wait until this one has finished.
        let mut users = self.lock_user(&record.user);
        let user_sessions = users.entry(record.user.clone()).or_default();
        if !self.write_shard(&record.key).insert(record, &user_sessions.epoch) {
            if user_sessions.record_count == 0 {
                users.remove(&record.user);
            }
            return Err(StoreError::new(StoreErrorKind::Conflict, "memory"));
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
                let mut shard = self.write_shard(&record.key);
                shard.records.remove(&record.key);
                shard.expiries.remove(&(record.expires, record.key));
                drop(shard);
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
                if let Some(stored) = self.write_shard(&record.key).records.get_mut(&record.key) {
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
        let replays = self.take_replays(user_sessions);
        Ok(Creation::created(ended, replays))
    }

    async fn load(&self, key: &SessionKey) -> Result<Option<Arc<SessionRecord>>, StoreError> {
        Ok(self.find(key))
    }

    async fn rotate(&self, rotation: &Rotation) -> Result<Option<Rotated>, StoreError> {
        let changed = self
            .write_shard(&rotation.key)
            .change(&rotation.key, |record| rotation.apply_to(record));
        Ok(changed.map(|(record, is_changed)| match is_changed {
            true => Rotated::Won(record),
            false => Rotated::Lost(record),
        }))
    }

    async fn mark_seen(&self, marks: &[SeenMark]) -> Result<(), StoreError> {
        for mark in marks {
            self.write_shard(&mark.key).change(&mark.key, |record| mark.apply_to(record));
        }
        Ok(())
    }

    async fn touch(&self, touches: &[Touch]) -> Result<(), StoreError> {
        for touch in touches {
            self.write_shard(&touch.key).change(&touch.key, |record| touch.apply_to(record));
        }
        Ok(())
    }

    async fn revoke(&self, keys: &[SessionKey], end: &End) -> Result<usize, StoreError> {
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
    ) -> Result<(), StoreError> {
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
    ) -> Result<Vec<Arc<SessionRecord>>, StoreError> {
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

    async fn purge(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let mut purged = 0;
        let mut finished_shards = 0;
        while finished_shards < SHARDS && purged < limit {
            let index = self.0.next_to_purge.load(Ordering::Relaxed) % SHARDS;
            // The lock is released after each batch.
            let (looked_at, removed) = {
                let shard = self.0.record_shards[index].write();
                let limit = PURGE_BATCH.min(limit - purged);
                shard.unwrap_or_else(PoisonError::into_inner).purge(before, limit)
            };
            if looked_at == 0 {
                self.0.next_to_purge.fetch_add(1, Ordering::Relaxed);
                finished_shards += 1;
            }
            purged += removed.len();
            removed.iter().for_each(|stored| self.remove_from_user(&stored.record));
        }
        Ok(purged + self.purge_earlier_epochs(before, limit - purged))
    }
}
