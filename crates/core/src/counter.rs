//! Counters of uses, and the rules that limit them: what a store counts, and when it refuses.
//!
//! A limit on guessing is a counter: each attempt takes one use of it. So is a token that works
//! once. A counter has a *rule*, which the caller passes with each use. The rules are pure
//! functions over the stored [`CounterState`].

use std::fmt;

use crate::session_store::CLOCK_SKEW;
use crate::timestamp::Timestamp;

/// The key under which a counter is stored: a digest of what is counted.
///
/// The layer makes the keys, so that a copy of the store shows no name, no address and no token.
/// The bytes are evenly distributed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CounterKey([u8; 32]);

impl CounterKey {
    /// Creates a key from a digest, or from the stored bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes to store.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Does not show the bytes.
impl fmt::Debug for CounterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CounterKey(…)")
    }
}

/// How many uses of a counter are allowed, and when. Times are in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CounterRule {
    /// One use, ever: of a token, for example. The counter is kept until [`CLOCK_SKEW`] after
    /// `until`, so that a server whose clock is behind refuses the token, too.
    #[non_exhaustive]
    Once {
        /// When that which may be used once expires.
        until: Timestamp,
    },
    /// A number of uses in each period. A period begins with its first use, and is at least one
    /// second long. So in the worst case, two periods' worth of uses happen within a short time.
    #[non_exhaustive]
    Window {
        /// How many uses are allowed in a period.
        most: u32,
        /// The length of a period.
        per: u32,
    },
    /// Some uses at once, and then one after each wait, where each wait is twice as long as the
    /// one before.
    #[non_exhaustive]
    Growing {
        /// How many uses are allowed without a wait.
        free: u32,
        /// The first wait, at least one second.
        first_wait: u32,
        /// The longest wait.
        longest_wait: u32,
        /// How many uses are allowed in a row. After these, no use is allowed until the counter is
        /// forgotten or reset.
        most: u32,
        /// The counter starts over if no use was taken for this time. A time shorter than
        /// `longest_wait` has the effect of `longest_wait`.
        forget_after: u32,
    },
}

impl CounterRule {
    /// Allows one use, of something that expires at `until`.
    pub const fn once(until: Timestamp) -> Self {
        Self::Once { until }
    }

    /// Allows `most` uses in `per` seconds.
    pub const fn window(most: u32, per: u32) -> Self {
        Self::Window { most, per }
    }

    /// Allows `free` uses at once, and then one after each wait. The first wait is `first_wait`
    /// seconds, and each further wait is twice as long, but at most `longest_wait` seconds. After
    /// `most` uses in a row, no use is allowed. The counter starts over if no use was taken for
    /// `forget_after` seconds.
    pub const fn growing(
        free: u32,
        first_wait: u32,
        longest_wait: u32,
        most: u32,
        forget_after: u32,
    ) -> Self {
        Self::Growing { free, first_wait, longest_wait, most, forget_after }
    }

    /// Returns when the next use is allowed, if the counter has this state.
    fn next_use(&self, state: &CounterState) -> Timestamp {
        match *self {
            Self::Once { .. } if state.count == 0 => state.last,
            Self::Once { .. } => state.expires,
            Self::Window { most, .. } if state.count < most => state.last,
            Self::Window { .. } => state.expires,
            Self::Growing { most, .. } if state.count >= most => state.expires,
            Self::Growing { free, first_wait, longest_wait, .. } => {
                let Some(earlier_waits) = state.count.checked_sub(free) else { return state.last };
                let doubled = 1_u32.checked_shl(earlier_waits).unwrap_or(u32::MAX);
                let wait = first_wait.max(1).saturating_mul(doubled);
                state.last.plus(wait.min(longest_wait.max(1)))
            }
        }
    }

    /// Returns when a counter with a use at `now` can be forgotten. `begun` is the expiry of the
    /// counter before this use; `None` if this use begins it.
    fn expires(&self, begun: Option<Timestamp>, now: Timestamp) -> Timestamp {
        match *self {
            Self::Once { until } => until.plus(CLOCK_SKEW),
            Self::Window { per, .. } => begun.unwrap_or(now.plus(per.max(1))),
            Self::Growing { forget_after, longest_wait, .. } => {
                now.plus(forget_after.max(longest_wait).max(1))
            }
        }
    }
}

/// One use of one counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CounterUse {
    /// The counter.
    pub key: CounterKey,
    /// When this counter refuses.
    pub rule: CounterRule,
}

impl CounterUse {
    /// Creates a use of this counter under this rule.
    pub const fn new(key: CounterKey, rule: CounterRule) -> Self {
        Self { key, rule }
    }
}

/// What a store keeps of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CounterState {
    /// How many uses were taken.
    pub count: u32,
    /// When the last use was taken. The current time counts as at least this time, so a node whose
    /// clock is behind allows nothing early.
    pub last: Timestamp,
    /// Rises whenever the counter starts over. So a use that was taken before is never given back
    /// to a later count. It is less than 2⁶³.
    pub epoch: u64,
    /// When the counter has no effect any more, so that a purge may remove it.
    pub expires: Timestamp,
}

impl CounterState {
    /// Creates a state from its stored fields.
    pub const fn new(count: u32, last: Timestamp, epoch: u64, expires: Timestamp) -> Self {
        Self { count, last, epoch, expires }
    }

    /// Takes one use of a counter with this state; `None` if the counter is not stored. Returns the
    /// new state, and what is needed to give the use back.
    ///
    /// # Errors
    ///
    /// Returns the time from which a use is allowed, if the rule allows none now.
    pub fn take(
        stored: Option<&Self>,
        wanted: &CounterUse,
        now: Timestamp,
    ) -> Result<(Self, TakenUse), Timestamp> {
        let CounterUse { key, rule } = wanted;
        let now = stored.map_or(now, |state| now.max(state.last));
        let current = stored.filter(|state| now < state.expires);
        let (count, epoch, begun) = match (current, stored) {
            (Some(state), _) => {
                let next = rule.next_use(state);
                if now < next || rule.allows_nothing() {
                    return Err(next.max(now.plus(1)));
                }
                (state.count, state.epoch, Some(state.expires))
            }
            (None, _) if rule.allows_nothing() => return Err(Timestamp::MAX),
            (None, stored) => (0, Self::next_epoch(stored, now), None),
        };
        let after = Self {
            count: count.saturating_add(1),
            last: now,
            epoch,
            expires: rule.expires(begun, now),
        };
        let taken = TakenUse {
            key: *key,
            epoch,
            at: now,
            last_before: current.map_or(now, |state| state.last),
            count: after.count,
            is_new: stored.is_none(),
        };
        Ok((after, taken))
    }

    /// The epoch is at least the time in seconds. So it is later than all epochs of a counter that
    /// was purged.
    fn next_epoch(stored: Option<&Self>, now: Timestamp) -> u64 {
        let next = stored.map_or(0, |state| state.epoch.saturating_add(1));
        next.max(now.as_secs().into()).min(i64::MAX.unsigned_abs())
    }

    /// Gives a use back, so that it counts as never taken. Returns the new state, or `None` if the
    /// counter has started over since, so that nothing changes.
    pub fn give_back(&self, taken: &TakenUse) -> Option<Self> {
        if self.epoch != taken.epoch || self.count == 0 {
            return None;
        }
        // If it is the last use, the wait begins with the use before it.
        let last = if self.last == taken.at { taken.last_before } else { self.last };
        Some(Self { count: self.count - 1, last, ..*self })
    }

    /// Returns the state after a reset: no use was taken.
    #[must_use]
    pub fn reset(&self) -> Self {
        Self { count: 0, epoch: Self::next_epoch(Some(self), Timestamp::from_secs(0)), ..*self }
    }
}

impl CounterRule {
    fn allows_nothing(&self) -> bool {
        matches!(self, Self::Window { most: 0, .. } | Self::Growing { most: 0, .. })
    }
}

/// A use that was taken, with what is needed to [give it back](crate::CounterStore::give_back).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TakenUse {
    /// The counter.
    pub key: CounterKey,
    /// The epoch of the counter in which the use was taken.
    pub epoch: u64,
    /// When the use was taken.
    pub at: Timestamp,
    /// When the use before it was taken; the same as `at` if there was none.
    pub last_before: Timestamp,
    /// How many uses of the counter are taken, with this one.
    pub count: u32,
    /// Whether the counter was not stored before.
    pub is_new: bool,
}

/// The result of [`CounterStore::take`](crate::CounterStore::take).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taking {
    /// One use of each counter was taken: these, in the order of the call.
    Taken(Vec<TakenUse>),
    /// At least one of the counters allows no use now, and nothing was counted. These are the
    /// counters that refuse.
    Refused(Vec<RefusedUse>),
}

/// A use that a counter refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefusedUse {
    /// The counter.
    pub key: CounterKey,
    /// When the counter may allow a use again. For [`Once`](CounterRule::Once), this is when the
    /// counter is forgotten. [`Timestamp::MAX`] stands for "never".
    pub retry_at: Timestamp,
}

impl RefusedUse {
    /// Creates a refusal of this counter.
    pub const fn new(key: CounterKey, retry_at: Timestamp) -> Self {
        Self { key, retry_at }
    }
}

/// How a call of [`CounterStore::take`](crate::CounterStore::take) changes the stored counters.
///
/// A store reads the counters, makes this plan, and writes each counter of it on condition that the
/// counter is still as it was read. If it is not, the store starts again.
///
/// ```
/// use std::collections::HashMap;
/// use tower_keep_core::{
///     CounterKey, CounterPlan, CounterState, CounterUse, Taking, Timestamp,
/// };
///
/// /// The `take` of a store whose counters are in a map behind a lock.
/// fn take(
///     counters: &mut HashMap<CounterKey, CounterState>,
///     uses: &[CounterUse],
///     now: Timestamp,
/// ) -> Taking {
///     let plan = CounterPlan::new(uses, now, |key| counters.get(key).copied());
///     for write in &plan.writes {
///         counters.insert(write.key, write.after);
///     }
///     plan.taking
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CounterPlan {
    /// The counters to write, in the order of the uses. Empty if the uses are refused.
    pub writes: Vec<CounterWrite>,
    /// What the call returns once all of them are written.
    pub taking: Taking,
}

/// A counter to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CounterWrite {
    /// The counter.
    pub key: CounterKey,
    /// The state that was read; `None` if the counter is not stored.
    pub before: Option<CounterState>,
    /// The state to write.
    pub after: CounterState,
}

impl CounterPlan {
    /// Plans the uses. `stored` returns the state of a counter as it was read, or `None` if the
    /// counter is not stored.
    pub fn new(
        uses: &[CounterUse],
        now: Timestamp,
        stored: impl Fn(&CounterKey) -> Option<CounterState>,
    ) -> Self {
        let (mut writes, mut taken): (Vec<CounterWrite>, _) = (Vec::new(), Vec::new());
        let mut refused = Vec::new();
        for wanted in uses {
            let known = writes.iter().position(|write| write.key == wanted.key);
            let before = known.map_or_else(|| stored(&wanted.key), |i| Some(writes[i].after));
            match (CounterState::take(before.as_ref(), wanted, now), known) {
                (Err(retry_at), _) => refused.push(RefusedUse { key: wanted.key, retry_at }),
                (Ok((after, taken_use)), Some(index)) => {
                    writes[index].after = after;
                    taken.push(taken_use);
                }
                (Ok((after, taken_use)), None) => {
                    writes.push(CounterWrite { key: wanted.key, before, after });
                    taken.push(taken_use);
                }
            }
        }
        if !refused.is_empty() {
            return Self { writes: Vec::new(), taking: Taking::Refused(refused) };
        }
        Self { writes, taking: Taking::Taken(taken) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000_000);
    const KEY: CounterKey = CounterKey::new([1; 32]);

    /// A rule, the times of uses in seconds after `NOW`, and the expected waits.
    type Case = (CounterRule, &'static [u32], &'static [Option<u32>]);

    /// Takes uses at these times, in seconds after `NOW`. Returns for each how long the rule makes
    /// the caller wait, or `None` if the use was taken.
    fn waits(rule: CounterRule, times: &[u32]) -> Vec<Option<u32>> {
        let mut state: Option<CounterState> = None;
        let take = |at: &u32| {
            let now = NOW.plus(*at);
            match CounterState::take(state.as_ref(), &CounterUse::new(KEY, rule), now) {
                Ok((after, _)) => {
                    state = Some(after);
                    None
                }
                Err(retry_at) => Some(retry_at.since(now)),
            }
        };
        times.iter().map(take).collect()
    }

    #[test]
    fn a_rule_allows_exactly_its_uses() {
        let growing = CounterRule::growing(2, 30, 100, 6, 500);
        let cases: [Case; 8] = [
            (
                CounterRule::once(NOW.plus(60)),
                &[0, 1, 59, 359],
                &[None, Some(359), Some(301), Some(1)],
            ),
            (
                CounterRule::window(2, 10),
                &[0, 9, 9, 10, 11, 12],
                &[None, None, Some(1), None, None, Some(8)],
            ),
            (CounterRule::window(0, 10), &[0], &[Some(u32::MAX - 1_000_000)]),
            (CounterRule::window(1, 0), &[0, 0, 1], &[None, Some(1), None]),
            // Two free uses, then waits of 30, 60 and twice 100 seconds.
            (
                growing,
                &[0, 0, 0, 29, 30, 89, 90, 189, 190, 289, 290, 290],
                &[
                    None,
                    None,
                    Some(30),
                    Some(1),
                    None,
                    Some(1),
                    None,
                    Some(1),
                    None,
                    Some(1),
                    None,
                    // Six uses in a row: the counter is forgotten 500 seconds after the last.
                    Some(500),
                ],
            ),
            // A refused use extends nothing, and the counter starts over in time.
            (
                growing,
                &[0, 0, 10, 499, 999, 999, 999],
                &[None, None, Some(20), None, None, None, Some(30)],
            ),
            // A clock that is behind counts as the time of the last use.
            (growing, &[100, 100, 0, 129, 130], &[None, None, Some(130), Some(1), None]),
            (CounterRule::growing(0, 5, 5, 9, 1), &[0, 0, 5], &[None, Some(5), None]),
        ];
        for (index, (rule, times, expected)) in cases.into_iter().enumerate() {
            assert_eq!(waits(rule, times), expected, "case {index}: {rule:?}");
        }
    }

    #[test]
    fn numbers_and_times_saturate() {
        let late = Timestamp::from_secs(u32::MAX - 1);
        let full = CounterState::new(u32::MAX, late, i64::MAX.unsigned_abs(), Timestamp::MAX);
        for rule in [
            CounterRule::once(Timestamp::MAX),
            CounterRule::window(u32::MAX, u32::MAX),
            CounterRule::growing(u32::MAX, u32::MAX, u32::MAX, u32::MAX, u32::MAX),
            CounterRule::growing(0, u32::MAX, u32::MAX, u32::MAX, u32::MAX),
        ] {
            for now in [Timestamp::from_secs(0), late, Timestamp::MAX] {
                for stored in [None, Some(&full)] {
                    let _ = CounterState::take(stored, &CounterUse::new(KEY, rule), now);
                }
            }
        }
        assert_eq!(full.reset().epoch, full.epoch);
    }

    #[test]
    fn a_use_is_given_back_only_to_the_count_that_it_was_taken_from() {
        let wanted = CounterUse::new(KEY, CounterRule::growing(1, 30, 60, 9, 100));
        let take = |stored: Option<&CounterState>, at: u32| {
            CounterState::take(stored, &wanted, NOW.plus(at)).expect("a use is allowed")
        };
        let (first, taken_first) = take(None, 0);
        let (second, taken_second) = take(Some(&first), 30);
        // As if the second use had not been taken: the wait begins with the first.
        assert_eq!(
            second.give_back(&taken_second).map(|state| (state.count, state.last)),
            Some((1, NOW))
        );
        // The last use stays the last use.
        let one = second.give_back(&taken_first).expect("the first use is given back");
        assert_eq!((one.count, one.last), (1, NOW.plus(30)));
        let none = one.give_back(&taken_second).expect("the second use is given back");
        assert_eq!(none.give_back(&taken_second), None, "no use is left");
        assert_eq!(second.reset().give_back(&taken_second), None, "the counter was reset");
        let (later, _) = take(Some(&second), 130);
        assert_eq!(
            (later.count, later.give_back(&taken_second)),
            (1, None),
            "the counter started over"
        );
        let (purged, _) = take(None, 130);
        assert_eq!(purged.give_back(&taken_second), None, "the counter was purged");
    }

    #[test]
    fn several_uses_are_taken_together_or_not_at_all() {
        let other = CounterKey::new([0; 32]);
        let rule = CounterRule::window(2, 10);
        let (once, twice) = (CounterUse::new(other, rule), CounterUse::new(KEY, rule));
        let plan = CounterPlan::new(&[twice, once, twice], NOW, |_| None);
        let keys: Vec<_> = plan.writes.iter().map(|write| (write.key, write.after.count)).collect();
        assert_eq!(keys, [(KEY, 2), (other, 1)]);
        let Taking::Taken(taken) = plan.taking else { panic!("both counters allow the uses") };
        let counts: Vec<_> = taken.iter().map(|taken| (taken.key, taken.count)).collect();
        assert_eq!(counts, [(KEY, 1), (other, 1), (KEY, 2)]);
        let full = CounterState::new(2, NOW, 1, NOW.plus(7));
        let refused = CounterPlan::new(&[twice, once], NOW, |key| (*key == KEY).then_some(full));
        assert_eq!(refused.taking, Taking::Refused(vec![RefusedUse::new(KEY, NOW.plus(7))]));
        assert!(refused.writes.is_empty());
    }
}
