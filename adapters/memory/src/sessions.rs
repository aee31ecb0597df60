//! Stores session records in memory.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tower_keep_core::{
    Creation, End, EndReason, Epoch, MOST_AT_ONCE, NewLogin, Room, Rotated, Rotation, SeenMark,
    SessionKey, SessionRecord, SessionStore, StoreError, StoreErrorKind, Timestamp, Touch, UserId,
    async_trait,
};

use crate::open::Open;

/// The number of maps over which records are spread, by the first byte of their keys. So no map
/// grows so large that resizing it causes a noticeable delay.
const SHARDS: usize = 256;
/// The maximum number of records that a purge handles before it releases the lock for other calls.
const PURGED_AT_ONCE: usize = 32;

/// A store of session records in memory, for [`SplitStore`](tower_keep_core::SplitStore) and
/// [`MemoryStore`](crate::MemoryStore).
///
/// A clone is another handle on the same records. A call locks one of 256 maps for the duration of
/// a map operation. A call that affects several sessions of a user also locks one of 256 indexes,
/// always before the maps. No lock is held across an await, and each call completes when it is
/// first polled.
#[derive(Clone)]
pub struct MemorySessions(Arc<Shared>);

struct Shared {
    shards: Box<[RwLock<Shard>]>,
    users: Box<[Mutex<Users>]>,
    hasher: RandomState,
    /// Logins that replace other sessions take turns by this lock, because they follow each other's
    /// successors. It is locked before all other locks.
    replacing: Mutex<()>,
    /// The shard at which the next purge continues.
    purged: AtomicUsize,
    /// Sessions that ended together. They are removed when they need not be kept any longer.
    past: Mutex<VecDeque<Past>>,
}

/// The sessions that ended when a user's epoch was raised.
struct Past {
    keep_until: Timestamp,
    sessions: Open,
}

type Users = HashMap<UserId, OfUser>;

/// What is stored for one user.
#[derive(Default)]
struct OfUser {
    epoch: Arc<OwnEpoch>,
    /// The sessions of this epoch that have not ended, by creation time. One that a login of
    /// another user replaced may still be listed.
    open: Open,
    /// The sessions that ended because of a replay of which the user has not been notified yet.
    to_notify: BTreeSet<SessionKey>,
    /// The number of the user's records.
    records: usize,
}

/// A user's epoch. Each of the user's records also points to it.
#[derive(Default)]
struct OwnEpoch {
    number: AtomicU64,
    epoch: RwLock<Epoch>,
}

impl OwnEpoch {
    /// Returns the epoch after this one.
    fn next(&self, end: &End) -> Epoch {
        self.epoch.read().unwrap_or_else(PoisonError::into_inner).raised(end)
    }

    fn set(&self, next: Epoch) {
        let mut epoch = self.epoch.write().unwrap_or_else(PoisonError::into_inner);
        self.number.store(next.number, Ordering::Release);
        *epoch = next;
    }

    fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }
}

/// A record, and the epoch in which it was created.
#[derive(Clone)]
struct Stored {
    record: Arc<SessionRecord>,
    created_in: u64,
    epoch: Arc<OwnEpoch>,
}

impl Stored {
    /// Checks whether the record has ended with its epoch.
    fn is_past(&self) -> bool {
        self.created_in < self.epoch.number()
    }

    /// Returns the record as it is now.
    fn now(&self) -> Arc<SessionRecord> {
        if !self.is_past() {
            return Arc::clone(&self.record);
        }
        let epoch = self.epoch.epoch.read().unwrap_or_else(PoisonError::into_inner);
        Arc::new(epoch.applied(self.created_in, SessionRecord::clone(&self.record)))
    }
}

#[derive(Default)]
struct Shard {
    records: HashMap<SessionKey, Stored, BuildHasherDefault<KeyHasher>>,
    /// Every record, under a time that is not later than its expiry.
    expiries: BTreeSet<(Timestamp, SessionKey)>,
}

/// A hasher for session keys, which are hashes already.
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

impl Shard {
    fn insert(&mut self, record: &SessionRecord, epoch: &Arc<OwnEpoch>) -> bool {
        match self.records.entry(record.key) {
            Entry::Occupied(_) => false,
            Entry::Vacant(place) => {
                let created_in = epoch.number();
                let record = Arc::new(record.clone());
                self.expiries.insert((record.expires, record.key));
                place.insert(Stored { record, created_in, epoch: Arc::clone(epoch) });
                true
            }
        }
    }

    /// Ends a session that has not ended. Returns its earlier record if it was live until now.
    fn end(
        &mut self,
        key: &SessionKey,
        end: &End,
        successor: Option<SessionKey>,
    ) -> Option<Arc<SessionRecord>> {
        let before = self.records.get(key)?.now();
        self.change(key, |record| end.after(record, successor))?.1.then_some(())?;
        before.is_live(end.at).then_some(before)
    }

    /// Changes a session, if it exists and there is something to change. Returns its current
    /// record, and whether this call changed it.
    fn change(
        &mut self,
        key: &SessionKey,
        after: impl FnOnce(&SessionRecord) -> Option<SessionRecord>,
    ) -> Option<(Arc<SessionRecord>, bool)> {
        let stored = self.records.get_mut(key)?;
        let now = stored.now();
        let Some(after) = after(&now) else { return Some((now, false)) };
        if after.expires < stored.record.expires {
            // The entry for the old expiry stays, but is out of date now.
            self.expiries.insert((after.expires, *key));
        }
        stored.record = Arc::new(after);
        Some((Arc::clone(&stored.record), true))
    }

    /// Looks at up to `most` records that may have expired, and removes those that have. Returns
    /// how many it looked at, and the removed records. The caller drops them after it has released
    /// the lock.
    fn purge(&mut self, before: Timestamp, most: usize) -> (usize, Vec<Stored>) {
        let (mut looked_at, mut removed) = (0, Vec::new());
        while looked_at < most && self.expiries.first().is_some_and(|(expiry, _)| *expiry <= before)
        {
            let Some((_, key)) = self.expiries.pop_first() else { break };
            looked_at += 1;
            let Some(stored) = self.records.get(&key) else { continue };
            let expires = stored.record.expires;
            if expires <= before {
                removed.extend(self.records.remove(&key));
            } else {
                // The session was used in the meantime.
                self.expiries.insert((expires, key));
            }
        }
        (looked_at, removed)
    }

    /// Removes a session that ended with its epoch.
    fn remove_past(&mut self, key: &SessionKey) -> Option<Stored> {
        let is_past = |stored: &Stored| stored.is_past() && stored.record.ended.is_none();
        let stored = self.records.get(key).filter(|stored| is_past(stored))?;
        self.expiries.remove(&(stored.record.expires, *key));
        self.records.remove(key)
    }
}

impl MemorySessions {
    /// Creates an empty store.
    pub fn new() -> Self {
        Self(Arc::new(Shared {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            users: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            replacing: Mutex::default(),
            purged: AtomicUsize::new(0),
            past: Mutex::default(),
        }))
    }

    // Records are replaced as a whole, so the data is consistent even if a lock is poisoned.
    fn shard(&self, key: &SessionKey) -> RwLockWriteGuard<'_, Shard> {
        let shard = &self.0.shards[usize::from(key.as_bytes()[0])];
        shard.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, key: &SessionKey) -> RwLockReadGuard<'_, Shard> {
        let shard = &self.0.shards[usize::from(key.as_bytes()[0])];
        shard.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn find(&self, key: &SessionKey) -> Option<Arc<SessionRecord>> {
        self.read(key).records.get(key).map(Stored::now)
    }

    fn user(&self, user: &UserId) -> MutexGuard<'_, Users> {
        self.users(self.index_of(user))
    }

    fn index_of(&self, user: &UserId) -> usize {
        self.0.hasher.hash_one(user) as usize % SHARDS
    }

    fn users(&self, index: usize) -> MutexGuard<'_, Users> {
        self.0.users[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the indexes of all users who own these sessions. All calls lock them in the same
    /// order.
    fn users_of(&self, keys: &[SessionKey]) -> Vec<(usize, MutexGuard<'_, Users>)> {
        let found = keys.iter().filter_map(|key| self.find(key));
        let mut indexes: Vec<_> = found.map(|record| self.index_of(&record.user)).collect();
        indexes.sort_unstable();
        indexes.dedup();
        indexes.into_iter().map(|index| (index, self.users(index))).collect()
    }

    /// Returns the key of the last of this session's successors, or its own key if it has none.
    fn standing_for(&self, key: &SessionKey) -> SessionKey {
        let mut key = *key;
        // A successor is newer than the session that it replaced, so the chain has an end.
        while let Some(successor) =
            self.find(&key).and_then(|record| record.ended.as_ref()?.successor)
        {
            key = successor;
        }
        key
    }

    /// Ends a session, and removes it from its user's list.
    fn end_listed(
        &self,
        of_user: &mut OfUser,
        key: &SessionKey,
        end: &End,
        successor: Option<SessionKey>,
    ) -> Option<Arc<SessionRecord>> {
        let created = self.find(key)?.created;
        of_user.open.remove(&(created, *key));
        self.shard(key).end(key, end, successor)
    }

    /// Marks the replays of which the user has not been notified, at most [`MOST_AT_ONCE`] of them,
    /// as notified. Returns their earlier records.
    fn tell(&self, of_user: &mut OfUser) -> Vec<Arc<SessionRecord>> {
        let mut notified = Vec::new();
        while notified.len() < MOST_AT_ONCE {
            let Some(key) = of_user.to_notify.pop_first() else { break };
            let mut shard = self.shard(&key);
            let Some(stored) = shard.records.get_mut(&key) else { continue };
            let Some(after) = stored.record.notified() else { continue };
            notified.push(std::mem::replace(&mut stored.record, Arc::new(after)));
        }
        notified
    }

    /// Ends all of a user's sessions except those in `stay`, by raising the user's epoch.
    fn raise(&self, of_user: &mut OfUser, stay: &[SessionKey], end: &End) {
        let next = of_user.epoch.next(end);
        let mut past = std::mem::take(&mut of_user.open);
        for key in stay {
            let mut shard = self.shard(key);
            let Some(stored) = shard.records.get_mut(key) else { continue };
            if past.remove(&(stored.record.created, *key)) {
                // This comes before the new epoch is set, so that no other call sees these sessions
                // ended.
                stored.created_in = next.number;
                of_user.open.insert((stored.record.created, *key));
            }
        }
        of_user.epoch.set(next);
        let past = Past { keep_until: end.keep_until, sessions: past };
        self.past().push_back(past);
    }

    fn past(&self) -> MutexGuard<'_, VecDeque<Past>> {
        self.0.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes sessions that ended together, and returns their number. Sessions that have to be
    /// kept longer move behind the others.
    fn purge_past(&self, before: Timestamp, most: usize) -> usize {
        let (mut purged, mut looked_at) = (0, 0);
        while purged < most {
            let mut keys = Vec::new();
            {
                let mut past = self.past();
                let Some(first) = past.front_mut() else { break };
                if first.keep_until > before {
                    looked_at += 1;
                    if looked_at > past.len() {
                        break;
                    }
                    past.rotate_left(1);
                    continue;
                }
                while keys.len() < PURGED_AT_ONCE.min(most - purged) {
                    let Some(key) = first.sessions.pop_oldest() else { break };
                    keys.push(key);
                }
                if first.sessions.is_empty() {
                    past.pop_front();
                }
            }
            for key in keys {
                let removed = self.shard(&key).remove_past(&key);
                if let Some(stored) = removed {
                    purged += 1;
                    self.forget(&stored.record);
                }
            }
        }
        purged
    }

    /// Removes a purged record from its user's lists.
    fn forget(&self, record: &SessionRecord) {
        let mut users = self.user(&record.user);
        if let Entry::Occupied(mut of_user) = users.entry(record.user.clone()) {
            let lists = of_user.get_mut();
            lists.to_notify.remove(&record.key);
            lists.open.remove(&(record.created, record.key));
            lists.records = lists.records.saturating_sub(1);
            if lists.records == 0 {
                of_user.remove();
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
        let NewLogin { record, ended_until: keep_until, .. } = *login;
        let now = record.created;
        let _replacing = match login.replacing {
            [] => None,
            _ => Some(self.0.replacing.lock().unwrap_or_else(PoisonError::into_inner)),
        };
        // Other logins of this user wait until this one has finished.
        let mut users = self.user(&record.user);
        let of_user = users.entry(record.user.clone()).or_default();
        if !self.shard(&record.key).insert(record, &of_user.epoch) {
            if of_user.records == 0 {
                users.remove(&record.user);
            }
            return Err(StoreError::new(StoreErrorKind::Conflict, "memory"));
        }
        let replaced: Vec<_> = login.replacing.iter().map(|key| self.standing_for(key)).collect();
        let room = login.limit.map_or(Room::After(Vec::new()), |limit| {
            let counts =
                |other: &Arc<SessionRecord>| other.is_live(now) && !replaced.contains(&other.key);
            let newest = of_user.open.newest_first().filter_map(|key| self.find(key));
            limit.room(newest.filter(counts).take(limit.reads()).collect())
        });
        let end = End { at: now, reason: EndReason::Limit, keep_until };
        let ended = match room {
            Room::None => {
                let mut shard = self.shard(&record.key);
                shard.records.remove(&record.key);
                shard.expiries.remove(&(record.expires, record.key));
                drop(shard);
                if of_user.records == 0 {
                    users.remove(&record.user);
                }
                return Ok(Creation::Full);
            }
            Room::After(ends) => ends
                .iter()
                .filter_map(|old| self.end_listed(of_user, &old.key, &end, None))
                .collect(),
            Room::AfterAllBut { stay, ended } => {
                let stay: Vec<_> =
                    stay.iter().map(|other| other.key).chain(replaced.iter().copied()).collect();
                self.raise(of_user, &stay, &end);
                if let Some(stored) = self.shard(&record.key).records.get_mut(&record.key) {
                    stored.created_in = of_user.epoch.number();
                }
                ended
            }
        };
        of_user.records += 1;
        of_user.open.insert((now, record.key));
        let end = End { at: now, reason: EndReason::Replaced, keep_until };
        for key in replaced {
            self.end_listed(of_user, &key, &end, Some(record.key));
        }
        for key in login.replacing {
            self.shard(key).change(key, |old| old.followed_by(record.key, keep_until));
        }
        let replays = self.tell(of_user);
        Ok(Creation::Created { ended, replays })
    }

    async fn load(&self, key: &SessionKey) -> Result<Option<Arc<SessionRecord>>, StoreError> {
        Ok(self.find(key))
    }

    async fn rotate(&self, rotation: &Rotation) -> Result<Option<Rotated>, StoreError> {
        let changed =
            self.shard(&rotation.key).change(&rotation.key, |record| rotation.after(record));
        Ok(changed.map(|(record, is_ours)| match is_ours {
            true => Rotated::Won(record),
            false => Rotated::Lost(record),
        }))
    }

    async fn seen(&self, marks: &[SeenMark]) -> Result<(), StoreError> {
        for mark in marks {
            self.shard(&mark.key).change(&mark.key, |record| mark.after(record));
        }
        Ok(())
    }

    async fn touch(&self, touches: &[Touch]) -> Result<(), StoreError> {
        for touch in touches {
            self.shard(&touch.key).change(&touch.key, |record| touch.after(record));
        }
        Ok(())
    }

    async fn revoke(&self, keys: &[SessionKey], end: &End) -> Result<usize, StoreError> {
        // A concurrent `list` sees either all of these sessions ended or none.
        let mut users = self.users_of(keys);
        let mut ended = 0;
        for key in keys {
            let Some(record) = self.find(key).filter(|record| record.ended.is_none()) else {
                continue;
            };
            let index = self.index_of(&record.user);
            let of_user = users
                .iter_mut()
                .find(|(locked, _)| *locked == index)
                .and_then(|(_, users)| users.get_mut(&record.user));
            let Some(of_user) = of_user else { continue };
            ended += usize::from(self.end_listed(of_user, key, end, None).is_some());
            if end.reason == EndReason::Replay {
                of_user.to_notify.insert(*key);
            }
        }
        Ok(ended)
    }

    async fn revoke_all(
        &self,
        user: &UserId,
        but: Option<&SessionKey>,
        end: &End,
    ) -> Result<(), StoreError> {
        // A concurrent login comes either before or after this call.
        if let Some(of_user) = self.user(user).get_mut(user) {
            self.raise(of_user, but.map_or(&[], std::slice::from_ref), end);
        }
        Ok(())
    }

    async fn list(
        &self,
        user: &UserId,
        now: Timestamp,
        most: usize,
    ) -> Result<Vec<Arc<SessionRecord>>, StoreError> {
        let mut live: Vec<_> = {
            let users = self.user(user);
            let open = users.get(user).into_iter().flat_map(|of_user| of_user.open.newest_first());
            let found = open.filter_map(|key| self.find(key));
            found.filter(|record| record.is_live(now)).collect()
        };
        live.sort_by_key(|record| std::cmp::Reverse((record.last_seen, record.created)));
        live.truncate(most);
        Ok(live)
    }

    async fn purge(&self, before: Timestamp, most: usize) -> Result<usize, StoreError> {
        let mut purged = 0;
        let mut shards = 0;
        while shards < SHARDS && purged < most {
            let index = self.0.purged.load(Ordering::Relaxed) % SHARDS;
            // The lock is released between two rounds.
            let (looked_at, removed) = {
                let shard = self.0.shards[index].write();
                let most = PURGED_AT_ONCE.min(most - purged);
                shard.unwrap_or_else(PoisonError::into_inner).purge(before, most)
            };
            if looked_at == 0 {
                self.0.purged.fetch_add(1, Ordering::Relaxed);
                shards += 1;
            }
            purged += removed.len();
            removed.iter().for_each(|stored| self.forget(&stored.record));
        }
        Ok(purged + self.purge_past(before, most - purged))
    }
}
