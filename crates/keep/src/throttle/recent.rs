//! The refusals of this second, so that a flood does not reach the store.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tower_keep_core::{CounterKey, RefusedUse, Timestamp};

/// At most this many refusals are remembered. The rest asks the store.
const MAX_REMEMBERED: usize = 10_000;

/// The counters that have refused a use in this second, and until when they refuse.
#[derive(Default)]
pub(super) struct RecentRefusals(Mutex<Recent>);

#[derive(Default)]
struct Recent {
    /// The second in which the counters have refused.
    second: u32,
    refused: HashMap<CounterKey, Timestamp>,
}

impl RecentRefusals {
    fn lock(&self) -> MutexGuard<'_, Recent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns those of the counters that have refused in this second, and still refuse.
    pub(super) fn find(
        &self,
        keys: impl Iterator<Item = CounterKey>,
        now: Timestamp,
    ) -> Vec<RefusedUse> {
        let recent = self.lock();
        if recent.second != now.as_secs() || recent.refused.is_empty() {
            return Vec::new();
        }
        let found = keys.filter_map(|key| Some(RefusedUse::new(key, *recent.refused.get(&key)?)));
        found.filter(|refused| now < refused.retry_at).collect()
    }

    pub(super) fn remember(&self, refused: &[RefusedUse], now: Timestamp) {
        let mut recent = self.lock();
        if recent.second != now.as_secs() {
            recent.second = now.as_secs();
            recent.refused.clear();
        }
        for RefusedUse { key, retry_at, .. } in refused {
            if recent.refused.len() < MAX_REMEMBERED {
                recent.refused.insert(*key, *retry_at);
            }
        }
    }

    pub(super) fn forget(&self, keys: impl Iterator<Item = CounterKey>) {
        let mut recent = self.lock();
        for key in keys {
            recent.refused.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_remembered_for_a_second() {
        let (recent, now) = (RecentRefusals::default(), Timestamp::from_secs(100));
        let key = |number| CounterKey::new([number; 32]);
        let refused = [RefusedUse::new(key(1), now.plus(30)), RefusedUse::new(key(2), now.plus(9))];
        recent.remember(&refused, now);
        let find = |now| recent.find([1, 3, 2].map(key).into_iter(), now);
        assert_eq!(find(now), refused);
        assert_eq!(find(now.plus(1)), []);
        recent.forget([key(1)].into_iter());
        assert_eq!(find(now), refused[1..]);
        recent.remember(&refused[..1], now.plus(1));
        assert_eq!((find(now), find(now.plus(1))), (vec![], refused[..1].to_vec()));
    }
}
