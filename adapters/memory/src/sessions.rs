//! Session records in memory.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tower_keep_core::{
    Creation, End, EndReason, Epoch, MOST_AT_ONCE, NewLogin, Room, Rotated, Rotation, Seen,
    SessionKey, SessionRecord, SessionStore, StoreError, StoreErrorKind, Timestamp, Touch, UserId,
    async_trait,
};

/// Records stand in this many maps by their key's first byte, so that no map grows so large that
/// making room in it is felt.
const SHARDS: usize = 256;
/// A purge holds a lock for so many records, and then lets others have it.
const PURGED_AT_ONCE: usize = 32;

/// Session records in memory, for [`Apart`](tower_keep_core::Apart) and
/// [`MemoryStore`](crate::MemoryStore).
///
/// A clone is another handle on the same records. A call locks one of 256 maps for the time of a map
/// operation; what concerns several sessions of a user also locks one of 256 indexes, always before
/// the maps. No lock is held while anything is awaited, and each call is done when first polled.
#[derive(Clone)]
pub struct MemorySessions(Arc<Shared>);

struct Shared {
    shards: Box<[RwLock<Shard>]>,
    users: Box<[Mutex<Users>]>,
    hasher: RandomState,
    /// Logins over logins take turns, before all other locks: they follow each other's successors.
    replacing: Mutex<()>,
    /// Where the next purge goes on.
    purged: AtomicUsize,
    /// Sessions that ended together, to be removed when they need not be kept any longer.
    past: Mutex<VecDeque<Past>>,
}

/// The sessions that ended when a user's epoch was raised.
struct Past {
    keep_until: Timestamp,
    keys: BTreeSet<(Timestamp, SessionKey)>,
}

type Users = HashMap<UserId, OfUser>;

/// What there is of a user.
#[derive(Default)]
struct OfUser {
    epoch: Arc<OwnEpoch>,
    /// The sessions of this epoch that have not ended, by when they were created. Some of another
    /// user's login may have ended.
    open: BTreeSet<(Timestamp, SessionKey)>,
    /// Those that ended for a replay and were not told yet.
    untold: BTreeSet<SessionKey>,
    /// How many records there are.
    records: usize,
}

/// A user's epoch, which each of their records also points to.
#[derive(Default)]
struct OwnEpoch {
    number: AtomicU64,
    epoch: RwLock<Epoch>,
}

impl OwnEpoch {
    /// The epoch after this one.
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
    /// Whether it has ended with its epoch.
    fn is_past(&self) -> bool {
        self.created_in < self.epoch.number()
    }

    /// The record as it is now.
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
    /// Every record, at a time that is not later than its expiry.
    expiries: BTreeSet<(Timestamp, SessionKey)>,
}

/// Keys are hashes already.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        // The first byte chooses the shard; the length is the same for all.
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

    /// Ends a session that has not ended; returns its record if it was live until now.
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

    /// Changes a session, if there is one and there is something to change. Returns its record as it is
    /// then, and whether this changed it.
    fn change(
        &mut self,
        key: &SessionKey,
        after: impl FnOnce(&SessionRecord) -> Option<SessionRecord>,
    ) -> Option<(Arc<SessionRecord>, bool)> {
        let stored = self.records.get_mut(key)?;
        let now = stored.now();
        let Some(after) = after(&now) else { return Some((now, false)) };
        if after.expires < stored.record.expires {
            // It is found at its old place too, which is then out of date.
            self.expiries.insert((after.expires, *key));
        }
        stored.record = Arc::new(after);
        Some((Arc::clone(&stored.record), true))
    }

    /// Looks at so many at most that may have expired; returns how many those were, and what it has
    /// removed, to be dropped when the lock is free.
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
                // It was used since.
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
    /// No sessions.
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

    // States are replaced whole, so a poisoned lock holds nothing broken.
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

    /// Locks the indexes of all whose sessions these are, in an order that all calls keep to.
    fn users_of(&self, keys: &[SessionKey]) -> Vec<(usize, MutexGuard<'_, Users>)> {
        let found = keys.iter().filter_map(|key| self.find(key));
        let mut indexes: Vec<_> = found.map(|record| self.index_of(&record.user)).collect();
        indexes.sort_unstable();
        indexes.dedup();
        indexes.into_iter().map(|index| (index, self.users(index))).collect()
    }

    /// The session that stands for this one now: itself, or the last of its successors.
    fn standing_for(&self, key: &SessionKey) -> SessionKey {
        let mut key = *key;
        // Successors are newer, so the chain has an end.
        while let Some(successor) =
            self.find(&key).and_then(|record| record.ended.as_ref()?.successor)
        {
            key = successor;
        }
        key
    }

    /// Ends a session, and takes it off its user's list.
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

    /// Notes that the user knows of these replays, and returns them.
    fn tell(&self, of_user: &mut OfUser) -> Vec<Arc<SessionRecord>> {
        let mut told = Vec::new();
        while told.len() < MOST_AT_ONCE {
            let Some(key) = of_user.untold.pop_first() else { break };
            let mut shard = self.shard(&key);
            let Some(stored) = shard.records.get_mut(&key) else { continue };
            let Some(after) = stored.record.told() else { continue };
            told.push(std::mem::replace(&mut stored.record, Arc::new(after)));
        }
        told
    }

    /// Ends all sessions of a user but these, by the next epoch.
    fn raise(&self, of_user: &mut OfUser, stay: &[SessionKey], end: &End) {
        let next = of_user.epoch.next(end);
        let mut past = std::mem::take(&mut of_user.open);
        for key in stay {
            let mut shard = self.shard(key);
            let Some(stored) = shard.records.get_mut(key) else { continue };
            if past.remove(&(stored.record.created, *key)) {
                // Before the epoch is theirs, so that nobody sees these end.
                stored.created_in = next.number;
                of_user.open.insert((stored.record.created, *key));
            }
        }
        of_user.epoch.set(next);
        let past = Past { keep_until: end.keep_until, keys: past };
        self.past().push_back(past);
    }

    fn past(&self) -> MutexGuard<'_, VecDeque<Past>> {
        self.0.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes sessions that ended together; returns how many. What has to be kept longer waits behind
    /// the others.
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
                    let Some((_, key)) = first.keys.pop_first() else { break };
                    keys.push(key);
                }
                if first.keys.is_empty() {
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

    /// Takes a removed record off its user's lists.
    fn forget(&self, record: &SessionRecord) {
        let mut users = self.user(&record.user);
        if let Entry::Occupied(mut of_user) = users.entry(record.user.clone()) {
            let lists = of_user.get_mut();
            lists.untold.remove(&record.key);
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
        // Other logins of this user wait until this one is done.
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
            let newest = of_user.open.iter().rev().filter_map(|(_, key)| self.find(key));
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

    async fn seen(&self, marks: &[Seen]) -> Result<(), StoreError> {
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
        // Lists see all of them ended, or none.
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
                of_user.untold.insert(*key);
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
        // A login at the same time comes before this or after it.
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
            let open = users.get(user).into_iter().flat_map(|of_user| &of_user.open);
            let found = open.filter_map(|(_, key)| self.find(key));
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
            // The lock is free between two rounds.
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
