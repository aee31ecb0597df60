//! [`MemorySessions`]: the maps that hold the records and the users' sessions, and their locks.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tower_keep_core::{SessionKey, SessionRecord, Timestamp, UserId};

use crate::counters::MemoryCounters;
use crate::epoch::SharedEpoch;
use crate::record_shard::{RecordShard, StoredRecord};
use crate::session_set::SessionSet;

/// The number of maps over which the records are spread, by the first byte of their keys. So no map
/// grows so large that resizing it causes a noticeable delay.
pub(crate) const SHARDS: usize = 256;

/// A store of session records and counters in memory, for
/// [`SplitStore`](tower_keep_core::SplitStore) and [`MemoryStore`](crate::MemoryStore).
///
/// A clone shares the records and the counters. A call about a session locks one of 256 maps for
/// the duration of a map operation. A call that affects several sessions of a user also locks one
/// of 256 maps of users, always before the maps of records. No lock is held across an await, and
/// each call completes when it is first polled.
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
    counters: MemoryCounters,
}

/// The sessions that ended when a user's epoch was raised. An epoch is a number; raising it ends
/// all sessions that the user had.
pub(crate) struct EndedTogether {
    pub(crate) keep_until: Timestamp,
    pub(crate) sessions: SessionSet,
}

pub(crate) type UserShard = HashMap<UserId, UserSessions>;

/// What is stored for one user, besides the records.
#[derive(Default)]
pub(crate) struct UserSessions {
    pub(crate) epoch: Arc<SharedEpoch>,
    /// The sessions of this epoch that have not ended, by creation time. A session that was
    /// replaced by a login of another user may still be in the set.
    pub(crate) not_ended: SessionSet,
    /// The sessions that ended because of a replay and are not marked as notified yet.
    pub(crate) to_notify: BTreeSet<SessionKey>,
    /// The number of the user's records.
    pub(crate) record_count: usize,
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
            counters: MemoryCounters::new(),
        }))
    }

    pub(crate) fn counters(&self) -> &MemoryCounters {
        &self.0.counters
    }

    /// Returns the record with this key as it is now, if there is one.
    pub(crate) fn find(&self, key: &SessionKey) -> Option<Arc<SessionRecord>> {
        self.read_shard(key).get(key).map(StoredRecord::current)
    }

    // A record is always replaced as a whole, so the data is consistent even if a lock is poisoned.
    fn read_shard(&self, key: &SessionKey) -> RwLockReadGuard<'_, RecordShard> {
        let shard = &self.0.record_shards[shard_of(key)];
        shard.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write_shard(&self, key: &SessionKey) -> RwLockWriteGuard<'_, RecordShard> {
        self.write_shard_at(shard_of(key))
    }

    fn write_shard_at(&self, index: usize) -> RwLockWriteGuard<'_, RecordShard> {
        self.0.record_shards[index].write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lock_user(&self, user: &UserId) -> MutexGuard<'_, UserShard> {
        self.lock_user_shard(self.user_shard_of(user))
    }

    /// Returns the index of the shard that holds this user.
    pub(crate) fn user_shard_of(&self, user: &UserId) -> usize {
        self.0.hasher.hash_one(user) as usize % SHARDS
    }

    fn lock_user_shard(&self, index: usize) -> MutexGuard<'_, UserShard> {
        self.0.user_shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the shards of all users who own these sessions. All calls lock shards in the same
    /// order.
    pub(crate) fn lock_users_of(
        &self,
        keys: &[SessionKey],
    ) -> Vec<(usize, MutexGuard<'_, UserShard>)> {
        let found = keys.iter().filter_map(|key| self.find(key));
        let mut indexes: Vec<_> = found.map(|record| self.user_shard_of(&record.user)).collect();
        indexes.sort_unstable();
        indexes.dedup();
        indexes.into_iter().map(|index| (index, self.lock_user_shard(index))).collect()
    }

    pub(crate) fn lock_replacing(&self) -> MutexGuard<'_, ()> {
        self.0.replacing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lock_ended_together(&self) -> MutexGuard<'_, VecDeque<EndedTogether>> {
        self.0.ended_together.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the shard at which the purge continues.
    pub(crate) fn write_shard_to_purge(&self) -> RwLockWriteGuard<'_, RecordShard> {
        self.write_shard_at(self.0.next_to_purge.load(Ordering::Relaxed) % SHARDS)
    }

    /// Makes the purge continue at the next shard.
    pub(crate) fn advance_purge(&self) {
        self.0.next_to_purge.fetch_add(1, Ordering::Relaxed);
    }
}

/// Returns the index of the shard that holds the record with this key.
fn shard_of(key: &SessionKey) -> usize {
    usize::from(key.as_bytes()[0])
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
