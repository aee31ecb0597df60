//! The contract of [`CounterStore`].

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use tower_keep_core::{
    CLOCK_SKEW, CounterKey, CounterRule, CounterStore, CounterUse, RefusedUse, TakenUse, Taking,
    Timestamp,
};

use super::clauses::clauses;
use super::drops::{DROP_STEPS, poll_then_drop};
use super::tasks::{COMPETING_TASKS, allowed_tasks, run_concurrently};
use super::values::{now, unique_text};

clauses! {
    CounterStore;
    a_counter_allows_exactly_what_its_rule_allows
    a_refused_call_counts_nothing
    one_call_can_take_several_uses_of_one_counter
    concurrent_calls_take_exactly_what_the_rule_allows
    concurrent_calls_with_several_counters_never_exceed_a_rule
    something_that_may_be_used_once_is_used_once
    a_clock_that_is_behind_allows_nothing_early
    a_use_that_is_given_back_can_be_taken_again
    a_use_is_given_back_only_to_the_count_it_was_taken_from
    a_reset_counter_has_counted_nothing
    unknown_counters_are_not_an_error
    an_expired_counter_starts_over
    a_purge_removes_expired_counters_in_batches
    dropping_the_future_of_take_counts_each_use_at_most_once
    dropping_the_future_of_give_back_or_reset_leaves_all_or_nothing
}

/// One hour, in seconds.
const HOUR: u32 = 3_600;

/// Creates a key that no other clause uses.
fn new_key() -> CounterKey {
    let mut bytes = [0; 32];
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&RandomState::new().hash_one(unique_text("counter")).to_ne_bytes());
    }
    CounterKey::new(bytes)
}

/// Creates a use of a new counter under this rule.
fn new_use(rule: CounterRule) -> CounterUse {
    CounterUse::new(new_key(), rule)
}

async fn take<S: CounterStore>(store: &S, uses: &[CounterUse], now: Timestamp) -> Taking {
    store.take(uses, now).await.expect("the call fails only if the store fails")
}

/// Takes a use, which must be allowed.
async fn take_allowed<S: CounterStore>(store: &S, wanted: &CounterUse, now: Timestamp) -> TakenUse {
    match take(store, &[*wanted], now).await {
        Taking::Taken(taken) => {
            assert_eq!(taken.len(), 1, "one use was wanted");
            assert_eq!(taken[0].key, wanted.key);
            taken[0]
        }
        Taking::Refused(refused) => panic!("{wanted:?} was refused: {refused:?}"),
    }
}

/// Takes a use, which must be refused. Returns the time from which it is allowed.
async fn take_refused<S: CounterStore>(
    store: &S,
    wanted: &CounterUse,
    now: Timestamp,
) -> Timestamp {
    match take(store, &[*wanted], now).await {
        Taking::Taken(taken) => panic!("{wanted:?} was allowed: {taken:?}"),
        Taking::Refused(refused) => {
            assert_eq!(refused.len(), 1, "one use was wanted");
            assert_eq!(refused[0].key, wanted.key);
            refused[0].retry_at
        }
    }
}

async fn give_back<S: CounterStore>(store: &S, taken: &[TakenUse]) {
    store.give_back(taken).await.expect("the call fails only if the store fails");
}

async fn reset<S: CounterStore>(store: &S, keys: &[CounterKey]) {
    store.reset_counters(keys).await.expect("the call fails only if the store fails");
}

async fn purge<S: CounterStore>(store: &S, before: Timestamp, limit: usize) -> usize {
    store.purge_counters(before, limit).await.expect("the call fails only if the store fails")
}

/// Returns how many uses of a counter can be taken at this time, and takes them.
async fn take_all<S: CounterStore>(store: &S, wanted: &CounterUse, now: Timestamp) -> usize {
    let mut count = 0;
    while let Taking::Taken(_) = take(store, &[*wanted], now).await {
        count += 1;
        assert!(count < 1_000, "the rule allows fewer uses");
    }
    count
}

/// A counter allows exactly the uses that its rule allows, and a refusal says when the next use is
/// allowed.
pub async fn a_counter_allows_exactly_what_its_rule_allows<S: CounterStore>(store: Arc<S>) {
    let now = now();
    let window = new_use(CounterRule::window(3, 60));
    for count in 1..=3 {
        let taken = take_allowed(&*store, &window, now.plus(count)).await;
        assert_eq!((taken.count, taken.is_new), (count, count == 1));
    }
    assert_eq!(take_refused(&*store, &window, now.plus(60)).await, now.plus(61));
    assert_eq!(take_allowed(&*store, &window, now.plus(61)).await.count, 1);

    let growing = new_use(CounterRule::growing(2, 30, 100, 5, HOUR));
    for (at, refused_until) in [(0, 0), (0, 30), (30, 90), (90, 190), (190, 190 + HOUR)] {
        take_allowed(&*store, &growing, now.plus(at)).await;
        if refused_until > at {
            let until = now.plus(refused_until);
            assert_eq!(take_refused(&*store, &growing, now.plus(at)).await, until);
            assert_eq!(take_refused(&*store, &growing, until.minus(1)).await, until);
        }
    }

    let until = now.plus(600);
    let once = new_use(CounterRule::once(until));
    take_allowed(&*store, &once, now).await;
    assert_eq!(take_refused(&*store, &once, until).await, until.plus(CLOCK_SKEW));
    // Something that expired long ago is no fault of the store.
    take_allowed(&*store, &new_use(CounterRule::once(now.minus(3_600))), now).await;

    let nothing = new_use(CounterRule::window(0, 60));
    take_refused(&*store, &nothing, now).await;
}

/// If one counter of a call refuses, no counter of the call counts a use. The call returns the
/// counters that refuse, and the times from which they allow a use.
pub async fn a_refused_call_counts_nothing<S: CounterStore>(store: Arc<S>) {
    let now = now();
    let [free, full, fuller] =
        [(2, 60), (1, 60), (1, 90)].map(|(most, per)| new_use(CounterRule::window(most, per)));
    take_allowed(&*store, &full, now).await;
    take_allowed(&*store, &fuller, now).await;
    for uses in [[free, full, fuller], [fuller, full, free]] {
        let Taking::Refused(mut refused) = take(&*store, &uses, now).await else {
            panic!("two of the rules allow no use")
        };
        refused.sort_by_key(|refused| refused.retry_at);
        let expected = [(full.key, now.plus(60)), (fuller.key, now.plus(90))];
        assert_eq!(refused, expected.map(|(key, retry_at)| RefusedUse::new(key, retry_at)));
    }
    assert_eq!(take_all(&*store, &free, now).await, 2);
}

/// If a counter occurs several times in one call, each of its uses counts.
pub async fn one_call_can_take_several_uses_of_one_counter<S: CounterStore>(store: Arc<S>) {
    let now = now();
    let wanted = new_use(CounterRule::window(3, 60));
    let Taking::Taken(taken) = take(&*store, &[wanted; 2], now).await else {
        panic!("the rule allows three uses")
    };
    assert_eq!(taken.iter().map(|taken| taken.count).collect::<Vec<_>>(), [1, 2]);
    assert!(matches!(take(&*store, &[wanted; 2], now).await, Taking::Refused(_)));
    assert_eq!(take_all(&*store, &wanted, now).await, 1);
    assert_eq!(take(&*store, &[], now).await, Taking::Taken(Vec::new()));
}

/// Calls that run at the same time take exactly as many uses as the rule allows.
pub async fn concurrent_calls_take_exactly_what_the_rule_allows<S>(store: Arc<S>)
where
    S: CounterStore + 'static,
{
    let now = now();
    let most = allowed_tasks(COMPETING_TASKS) / 2;
    let most_u32 = u32::try_from(most).expect("a small number");
    for rule in
        [CounterRule::window(most_u32, 60), CounterRule::growing(most_u32, 30, 60, 1_000, HOUR)]
    {
        let wanted = new_use(rule);
        let results = run_concurrently(COMPETING_TASKS, |_| {
            let store = Arc::clone(&store);
            async move { take(&*store, &[wanted], now).await }
        });
        let mut counts = Vec::new();
        for result in results.await {
            if let Taking::Taken(taken) = result {
                counts.push(taken[0].count);
            }
        }
        counts.sort_unstable();
        assert_eq!(counts, (1..=most_u32).collect::<Vec<_>>(), "{rule:?}");
        take_refused(&*store, &wanted, now).await;
    }
}

/// However calls with several counters overlap, no counter counts more than its rule allows, and
/// what was counted is what was returned.
pub async fn concurrent_calls_with_several_counters_never_exceed_a_rule<S>(store: Arc<S>)
where
    S: CounterStore + 'static,
{
    let now = now();
    let narrow = [(); 2].map(|()| new_use(CounterRule::window(3, 60)));
    let wide = new_use(CounterRule::window(1_000, 60));
    let results = run_concurrently(20, |index| {
        let store = Arc::clone(&store);
        // Half of the calls name the counters in the opposite order.
        let mut uses = vec![narrow[index % 2], wide];
        if index % 4 < 2 {
            uses.reverse();
        }
        async move { matches!(take(&*store, &uses, now).await, Taking::Taken(_)) }
    });
    let taken = results.await.into_iter().filter(|is_taken| *is_taken).count();
    assert_eq!(taken, allowed_tasks(20).min(6));
    let next = take_allowed(&*store, &wide, now).await;
    assert_eq!(usize::try_from(next.count), Ok(taken + 1), "a refused call counts nothing");
}

/// Of concurrent calls, exactly one uses what may be used once.
pub async fn something_that_may_be_used_once_is_used_once<S>(store: Arc<S>)
where
    S: CounterStore + 'static,
{
    let now = now();
    let wanted = new_use(CounterRule::once(now.plus(60)));
    let results = run_concurrently(COMPETING_TASKS, |_| {
        let store = Arc::clone(&store);
        async move { matches!(take(&*store, &[wanted], now).await, Taking::Taken(_)) }
    });
    assert_eq!(results.await.into_iter().filter(|is_taken| *is_taken).count(), 1);
    // The counter is kept at least until the expiry of what it counts, on every node's clock.
    purge(&*store, now.plus(60), 1_000).await;
    take_refused(&*store, &wanted, now.plus(60 + CLOCK_SKEW - 1)).await;
}

/// If the clock of a node is behind, its calls are decided at the time of the counter's last use.
pub async fn a_clock_that_is_behind_allows_nothing_early<S: CounterStore>(store: Arc<S>) {
    let now = now();
    let wanted = new_use(CounterRule::growing(1, 30, 60, 100, HOUR));
    take_allowed(&*store, &wanted, now).await;
    take_allowed(&*store, &wanted, now.plus(30)).await;
    assert_eq!(take_refused(&*store, &wanted, now.minus(CLOCK_SKEW)).await, now.plus(90));
    take_allowed(&*store, &wanted, now.plus(90)).await;

    let window = new_use(CounterRule::window(2, 60));
    take_allowed(&*store, &window, now).await;
    let second = take_allowed(&*store, &window, now.minus(CLOCK_SKEW)).await;
    assert_eq!(second.at, now);
    assert_eq!(take_refused(&*store, &window, now.plus(59)).await, now.plus(60));
}

/// A use that is given back can be taken again, and the wait begins with the use before it.
pub async fn a_use_that_is_given_back_can_be_taken_again<S: CounterStore>(store: Arc<S>) {
    let now = now();
    let [window, once] = [CounterRule::window(1, 60), CounterRule::once(now.plus(60))].map(new_use);
    for wanted in [window, once] {
        let taken = take_allowed(&*store, &wanted, now).await;
        take_refused(&*store, &wanted, now).await;
        give_back(&*store, &[taken]).await;
        take_allowed(&*store, &wanted, now).await;
        take_refused(&*store, &wanted, now).await;
    }
    let growing = new_use(CounterRule::growing(1, 30, 600, 100, HOUR));
    take_allowed(&*store, &growing, now).await;
    let second = take_allowed(&*store, &growing, now.plus(40)).await;
    assert_eq!(second.last_before, now);
    give_back(&*store, &[second]).await;
    assert_eq!(take_refused(&*store, &growing, now.plus(29)).await, now.plus(30));

    // One call can give back uses of several counters, and several uses of one counter.
    let [a, b] = [(); 2].map(|()| new_use(CounterRule::window(2, 60)));
    let Taking::Taken(taken) = take(&*store, &[a, b, a], now).await else {
        panic!("the rules allow these uses")
    };
    give_back(&*store, &taken).await;
    assert_eq!((take_all(&*store, &a, now).await, take_all(&*store, &b, now).await), (2, 2));
}

/// A use is not given back to a counter that has started over, or was reset, since the use was
/// taken.
pub async fn a_use_is_given_back_only_to_the_count_it_was_taken_from<S: CounterStore>(
    store: Arc<S>,
) {
    let now = now();
    let wanted = new_use(CounterRule::window(1, 60));
    let first = take_allowed(&*store, &wanted, now).await;
    take_allowed(&*store, &wanted, now.plus(60)).await;
    give_back(&*store, &[first]).await;
    take_refused(&*store, &wanted, now.plus(61)).await;

    let wanted = new_use(CounterRule::window(1, 60));
    let first = take_allowed(&*store, &wanted, now).await;
    reset(&*store, &[wanted.key]).await;
    take_allowed(&*store, &wanted, now).await;
    give_back(&*store, &[first]).await;
    take_refused(&*store, &wanted, now).await;
}

/// A counter that was reset has counted no use.
pub async fn a_reset_counter_has_counted_nothing<S: CounterStore>(store: Arc<S>) {
    let now = now();
    let rule = CounterRule::growing(2, 30, 600, 100, HOUR);
    let [one, other] = [(); 2].map(|()| new_use(rule));
    for wanted in [one, other] {
        assert_eq!(take_all(&*store, &wanted, now).await, 2);
    }
    reset(&*store, &[one.key, new_key()]).await;
    assert_eq!(take_all(&*store, &one, now).await, 2);
    take_refused(&*store, &other, now).await;
    reset(&*store, &[one.key, one.key, other.key]).await;
    assert_eq!((take_all(&*store, &one, now).await, take_all(&*store, &other, now).await), (2, 2));
}

/// Giving back a use of an unknown counter, or resetting one, is not an error, and stores nothing.
pub async fn unknown_counters_are_not_an_error<S: CounterStore>(store: Arc<S>) {
    let now = now();
    let wanted = new_use(CounterRule::window(1, 60));
    let mut taken = take_allowed(&*store, &wanted, now).await;
    taken.key = new_key();
    give_back(&*store, &[taken]).await;
    give_back(&*store, &[]).await;
    reset(&*store, &[taken.key]).await;
    reset(&*store, &[]).await;
    let wanted = CounterUse::new(taken.key, wanted.rule);
    assert!(take_allowed(&*store, &wanted, now).await.is_new);
}

/// A counter whose expiry has passed starts over, whether it was purged or not.
pub async fn an_expired_counter_starts_over<S: CounterStore>(store: Arc<S>) {
    let now = now();
    for rule in [CounterRule::window(1, 60), CounterRule::growing(1, 30, 30, 1, 60)] {
        let wanted = new_use(rule);
        for period in 0..3 {
            let at = now.plus(60 * period);
            assert_eq!(take_allowed(&*store, &wanted, at).await.count, 1);
            take_refused(&*store, &wanted, at.plus(59)).await;
        }
    }
}

/// A purge removes expired counters, and at most `limit` of them in one call. Other counters stay.
pub async fn a_purge_removes_expired_counters_in_batches<S: CounterStore>(store: Arc<S>) {
    let (now, before) = (now(), now().minus(HOUR));
    while purge(&*store, before, 1_000).await > 0 {}
    let expired: Vec<_> = (0..5).map(|_| new_use(CounterRule::window(1, 60))).collect();
    for wanted in &expired {
        take_allowed(&*store, wanted, before.minus(60)).await;
    }
    let current = new_use(CounterRule::window(1, 2 * HOUR));
    take_allowed(&*store, &current, before).await;
    loop {
        let purged = purge(&*store, before, 2).await;
        assert!(purged <= 2, "the call removed {purged} counters, more than the limit of 2");
        if purged == 0 {
            break;
        }
    }
    for wanted in &expired {
        take_allowed(&*store, wanted, now).await;
    }
    take_refused(&*store, &current, now).await;
}

/// If the future of `take` is dropped, each counter has counted the use or not, and the store goes
/// on as before.
pub async fn dropping_the_future_of_take_counts_each_use_at_most_once<S: CounterStore>(
    store: Arc<S>,
) {
    let now = now();
    for step in 0..DROP_STEPS {
        let uses = [(); 2].map(|()| new_use(CounterRule::window(3, 60)));
        poll_then_drop(step, store.take(&uses, now)).await;
        for wanted in &uses {
            let rest = take_all(&*store, wanted, now).await;
            assert!(rest == 2 || rest == 3, "{rest} of 3 uses were left");
        }
    }
}

/// If the future of `give_back` or `reset_counters` is dropped, each counter has changed or not,
/// and the store goes on as before.
pub async fn dropping_the_future_of_give_back_or_reset_leaves_all_or_nothing<S: CounterStore>(
    store: Arc<S>,
) {
    let now = now();
    for step in 0..DROP_STEPS {
        // The two calls have counters of their own, because the first may take effect late.
        let [given_back, is_reset] = [(); 2].map(|()| new_use(CounterRule::window(3, 60)));
        let Taking::Taken(taken) = take(&*store, &[given_back; 3], now).await else {
            panic!("the rule allows three uses")
        };
        poll_then_drop(step, store.give_back(&taken[2..])).await;
        let rest = take_all(&*store, &given_back, now).await;
        assert!(rest <= 1, "{rest} uses were given back");
        assert_eq!(take_all(&*store, &is_reset, now).await, 3);
        poll_then_drop(step, store.reset_counters(&[is_reset.key])).await;
        let rest = take_all(&*store, &is_reset, now).await;
        assert!(rest == 0 || rest == 3, "{rest} of 3 uses were reset");
    }
}
