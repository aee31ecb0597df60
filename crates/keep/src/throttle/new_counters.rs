//! How many counters may begin in this second.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tower_keep_core::Timestamp;

/// Limits the counters that this process begins in each second, so that made-up names can't fill
/// the store.
pub(super) struct NewCounters {
    max: u32,
    begun: Mutex<Begun>,
}

#[derive(Default)]
struct Begun {
    second: u32,
    count: u32,
}

impl NewCounters {
    pub(super) fn at_most(max: u32) -> Self {
        Self { max, begun: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Begun> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves `count` new counters in this second. Returns `None` if that would be too many.
    pub(super) fn reserve(&self, count: usize, now: Timestamp) -> Option<Reserved<'_>> {
        let count = u32::try_from(count).ok()?;
        let mut begun = self.lock();
        if begun.second != now.as_secs() {
            *begun = Begun { second: now.as_secs(), count: 0 };
        }
        if begun.count.saturating_add(count) > self.max {
            return None;
        }
        begun.count += count;
        Some(Reserved { new_counters: self, second: now.as_secs(), unused: count })
    }
}

/// New counters that were reserved. On drop, those that did not begin become free again.
pub(super) struct Reserved<'a> {
    new_counters: &'a NewCounters,
    second: u32,
    unused: u32,
}

impl Reserved<'_> {
    /// Says how many of the counters have begun.
    pub(super) fn used(mut self, count: usize) {
        self.unused = self.unused.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let mut begun = self.new_counters.lock();
        if begun.second == self.second {
            begun.count = begun.count.saturating_sub(self.unused);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_counters_begin_in_one_second() {
        let (counters, now) = (NewCounters::at_most(5), Timestamp::from_secs(7));
        let first = counters.reserve(3, now).unwrap();
        assert!(counters.reserve(3, now).is_none(), "three are reserved");
        first.used(1);
        let second = counters.reserve(4, now).unwrap();
        assert!(counters.reserve(1, now).is_none());
        drop(second);
        counters.reserve(4, now).unwrap().used(4);
        assert!(counters.reserve(1, now).is_none());
        assert!(counters.reserve(5, now.plus(1)).is_some(), "in the next second");
        assert!(counters.reserve(6, now.plus(2)).is_none());
    }
}
