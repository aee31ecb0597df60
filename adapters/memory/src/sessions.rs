//! Session records in memory.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tower_keep_core::{
    Creation, End, EndReason, NewLogin, Rotated, Rotation, Seen, SessionKey, SessionRecord,
    SessionStore, StoreError, StoreErrorKind, Timestamp, Touch, UserId, async_trait,
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
}

type Users = HashMap<UserId, OfUser>;

/// What there is of a user.
#[derive(Default)]
struct OfUser {
    keys: Vec<SessionKey>,
    /// Those that ended for a replay and were not told yet.
    untold: Vec<SessionKey>,
}

#[derive(Default)]
struct Shard {
    records: HashMap<SessionKey, Arc<SessionRecord>, BuildHasherDefault<KeyHasher>>,
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
    fn insert(&mut self, record: &SessionRecord) -> bool {
        match self.records.entry(record.key) {
            Entry::Occupied(_) => false,
            Entry::Vacant(place) => {
                place.insert(Arc::new(record.clone()));
                self.expiries.insert((record.expires, record.key));
                true
            }
        }
    }

    /// Ends a session that has not ended; answers its record if it lived until now.
    fn end(
        &mut self,
        key: &SessionKey,
        end: &End,
        successor: Option<SessionKey>,
    ) -> Option<Arc<SessionRecord>> {
        let record = self.records.get_mut(key)?;
        let (was_live, is_earlier) = (record.is_live(end.at), end.keep_until < record.expires);
        *record = Arc::new(end.after(record, successor)?);
        let record = Arc::clone(record);
        if is_earlier {
            // It is found at its old place too, which is then out of date.
            self.expiries.insert((end.keep_until, *key));
        }
        was_live.then_some(record)
    }

    /// Changes a session, if there is one and there is something to change. Answers its record as it is
    /// then, and whether this changed it.
    fn change(
        &mut self,
        key: &SessionKey,
        after: impl FnOnce(&SessionRecord) -> Option<SessionRecord>,
    ) -> Option<(Arc<SessionRecord>, bool)> {
        let record = self.records.get_mut(key)?;
        let after = after(record);
        let is_changed = after.is_some();
        if let Some(after) = after {
            *record = Arc::new(after);
        }
        Some((Arc::clone(record), is_changed))
    }

    /// Looks at so many at most that may have expired; answers how many those were, and what it has
    /// removed, to be dropped when the lock is free.
    fn purge(&mut self, before: Timestamp, most: usize) -> (usize, Vec<Arc<SessionRecord>>) {
        let (mut looked_at, mut removed) = (0, Vec::new());
        while looked_at < most && self.expiries.first().is_some_and(|(expiry, _)| *expiry <= before)
        {
            let Some((_, key)) = self.expiries.pop_first() else { break };
            looked_at += 1;
            let Some(record) = self.records.get(&key) else { continue };
            if record.expires <= before {
                removed.extend(self.records.remove(&key));
            } else {
                // It was used since.
                self.expiries.insert((record.expires, key));
            }
        }
        (looked_at, removed)
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
        self.read(key).records.get(key).cloned()
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

    /// Notes that the user knows of these replays, and answers them.
    fn tell(&self, untold: Vec<SessionKey>) -> Vec<Arc<SessionRecord>> {
        let mut told = Vec::new();
        for key in untold {
            let mut shard = self.shard(&key);
            let Some(stored) = shard.records.get_mut(&key) else { continue };
            let Some(after) = stored.told() else { continue };
            told.push(std::mem::replace(stored, Arc::new(after)));
        }
        told
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
        let _replacing = match login.replacing {
            [] => None,
            _ => Some(self.0.replacing.lock().unwrap_or_else(PoisonError::into_inner)),
        };
        // Other logins of this user wait until this one is done.
        let mut users = self.user(&record.user);
        if !self.shard(&record.key).insert(record) {
            return Err(StoreError::new(StoreErrorKind::Conflict, "memory"));
        }
        let of_user = users
            .entry(record.user.clone())
            .or_insert_with(|| OfUser { keys: Vec::with_capacity(1), untold: Vec::new() });
        let replaced: Vec<_> = login.replacing.iter().map(|key| self.standing_for(key)).collect();
        let mut ended = Vec::new();
        if let Some(limit) = login.limit {
            let counts = |other: &Arc<SessionRecord>| {
                other.is_live(record.created) && !replaced.contains(&other.key)
            };
            let live = of_user.keys.iter().filter_map(|key| self.find(key)).filter(counts);
            let Some(oldest) = limit.surplus(live.collect()) else {
                self.shard(&record.key).records.remove(&record.key);
                return Ok(Creation::Full);
            };
            let end = End { at: record.created, reason: EndReason::Limit, keep_until };
            let ends =
                |old: &Arc<SessionRecord>| self.shard(&old.key).end(&old.key, &end, None).is_some();
            ended = oldest.into_iter().filter(ends).collect();
        }
        of_user.keys.push(record.key);
        let end = End { at: record.created, reason: EndReason::Replaced, keep_until };
        for key in replaced {
            self.shard(&key).end(&key, &end, Some(record.key));
        }
        let replays = self.tell(std::mem::take(&mut of_user.untold));
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
            let Some(record) = self.shard(key).end(key, end, None) else { continue };
            ended += 1;
            if end.reason == EndReason::Replay {
                let index = self.index_of(&record.user);
                let of_user = users
                    .iter_mut()
                    .find(|(locked, _)| *locked == index)
                    .and_then(|(_, users)| users.get_mut(&record.user));
                if let Some(of_user) = of_user {
                    of_user.untold.push(*key);
                }
            }
        }
        Ok(ended)
    }

    async fn revoke_all(
        &self,
        user: &UserId,
        but: Option<&SessionKey>,
        end: &End,
    ) -> Result<usize, StoreError> {
        // A login at the same time comes before this or after it.
        let users = self.user(user);
        let keys = users.get(user).map(|of_user| of_user.keys.as_slice()).unwrap_or_default();
        let ends =
            |key: &&SessionKey| Some(*key) != but && self.shard(key).end(key, end, None).is_some();
        Ok(keys.iter().filter(ends).count())
    }

    async fn list(
        &self,
        user: &UserId,
        now: Timestamp,
        most: usize,
    ) -> Result<Vec<Arc<SessionRecord>>, StoreError> {
        let mut live: Vec<_> = {
            let users = self.user(user);
            let keys = users.get(user).map(|of_user| of_user.keys.as_slice()).unwrap_or_default();
            let found = keys.iter().filter_map(|key| self.find(key));
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
            for record in removed {
                let mut users = self.user(&record.user);
                if let Entry::Occupied(mut of_user) = users.entry(record.user.clone()) {
                    of_user.get_mut().untold.retain(|other| *other != record.key);
                    of_user.get_mut().keys.retain(|other| *other != record.key);
                    if of_user.get().keys.is_empty() {
                        of_user.remove();
                    }
                }
            }
        }
        Ok(purged)
    }
}
