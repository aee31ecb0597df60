//! [`MemoryCounters`]: counters of uses, such as tries to log in.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tower_keep_core::{
    CounterKey, CounterPlan, CounterState, CounterStore, CounterUse, StoreResult, TakenUse, Taking,
    Timestamp, async_trait,
};

/// A purge removes at most this many counters before it releases the lock for other calls.
const PURGE_BATCH: usize = 32;

/// A store of counters in memory.
///
/// A clone shares the counters. They are gone when the process ends, so a restart forgets how often
/// something was tried. A call locks the counters for a few map operations.
#[derive(Clone, Default)]
pub struct MemoryCounters(Arc<Mutex<Counters>>);

#[derive(Default)]
struct Counters {
    states: HashMap<CounterKey, CounterState>,
    /// Has an entry for every counter, with its expiry.
    expiries: BTreeSet<(Timestamp, CounterKey)>,
}

impl Counters {
    fn set(&mut self, key: CounterKey, state: CounterState) {
        if let Some(before) = self.states.insert(key, state) {
            self.expiries.remove(&(before.expires, key));
        }
        self.expiries.insert((state.expires, key));
    }

    /// Replaces a counter with the result of `change`, unless `change` returns `None`.
    fn change(
        &mut self,
        key: &CounterKey,
        change: impl FnOnce(&CounterState) -> Option<CounterState>,
    ) {
        if let Some(after) = self.states.get(key).and_then(change) {
            self.set(*key, after);
        }
    }
}

impl MemoryCounters {
    /// Creates an empty store.
    pub fn new() -> Self {
        Self::default()
    }

    // No code that runs under the lock panics between the changes of the two collections.
    fn lock(&self) -> MutexGuard<'_, Counters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl CounterStore for MemoryCounters {
    async fn take(&self, uses: &[CounterUse], now: Timestamp) -> StoreResult<Taking> {
        let mut counters = self.lock();
        let plan = CounterPlan::new(uses, now, |key| counters.states.get(key).copied());
        plan.writes.iter().for_each(|write| counters.set(write.key, write.after));
        Ok(plan.taking)
    }

    async fn give_back(&self, taken: &[TakenUse]) -> StoreResult<()> {
        let mut counters = self.lock();
        taken.iter().for_each(|taken| counters.change(&taken.key, |state| state.give_back(taken)));
        Ok(())
    }

    async fn reset_counters(&self, keys: &[CounterKey]) -> StoreResult<()> {
        let mut counters = self.lock();
        keys.iter().for_each(|key| counters.change(key, |state| Some(state.reset())));
        Ok(())
    }

    async fn purge_counters(&self, before: Timestamp, limit: usize) -> StoreResult<usize> {
        let mut purged = 0;
        while purged < limit {
            let mut counters = self.lock();
            for _ in 0..PURGE_BATCH.min(limit - purged) {
                match counters.expiries.first().copied() {
                    Some((expires, key)) if expires <= before => {
                        counters.expiries.remove(&(expires, key));
                        counters.states.remove(&key);
                        purged += 1;
                    }
                    _ => return Ok(purged),
                }
            }
        }
        Ok(purged)
    }
}

impl fmt::Debug for MemoryCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryCounters").finish_non_exhaustive()
    }
}
