//! The calls about counters, each wrong for the clauses that it breaks.

use tokio::task::yield_now;
use tower_keep_core::{
    CLOCK_SKEW, Clock, CounterKey, CounterRule, CounterStore, CounterUse, StoreResult, SystemClock,
    TakenUse, Taking, Timestamp, async_trait,
};

use crate::store::BrokenStore;

impl BrokenStore {
    /// Takes each use by itself, so that a refusal comes after others were counted.
    async fn take_one_by_one(&self, uses: &[CounterUse], now: Timestamp) -> StoreResult<Taking> {
        let mut all = Vec::new();
        for wanted in uses {
            match self.inner.take(&[*wanted], now).await? {
                Taking::Taken(taken) => all.extend(taken),
                refused => return Ok(refused),
            }
            yield_now().await;
        }
        Ok(Taking::Taken(all))
    }
}

#[async_trait]
impl CounterStore for BrokenStore {
    async fn take(&self, uses: &[CounterUse], now: Timestamp) -> StoreResult<Taking> {
        let mut uses = uses.to_vec();
        let mut now = now;
        match self.clause {
            "a_counter_allows_exactly_what_its_rule_allows" => now = now.minus(1),
            "a_refused_call_counts_nothing"
            | "concurrent_calls_with_several_counters_never_exceed_a_rule" => {
                return self.take_one_by_one(&uses, now).await;
            }
            "one_call_can_take_several_uses_of_one_counter" => {
                uses.dedup_by_key(|wanted| wanted.key);
            }
            // Reads and writes without a condition: another call comes in between.
            "concurrent_calls_take_exactly_what_the_rule_allows"
            | "something_that_may_be_used_once_is_used_once" => {
                let keys: Vec<_> = uses.iter().map(|wanted| wanted.key).collect();
                let taking = self.inner.take(&uses, now).await?;
                if let Taking::Taken(taken) = &taking {
                    yield_now().await;
                    self.inner.reset_counters(&keys).await?;
                    yield_now().await;
                    let _ = self.inner.take(&uses, now).await?;
                    return Ok(Taking::Taken(taken.clone()));
                }
                return Ok(taking);
            }
            "a_clock_that_is_behind_allows_nothing_early"
                if now < Timestamp::from(SystemClock.now()).minus(60) =>
            {
                let keys: Vec<_> = uses.iter().map(|wanted| wanted.key).collect();
                self.inner.reset_counters(&keys).await?;
            }
            "an_expired_counter_starts_over" => {
                for wanted in &mut uses {
                    wanted.rule = CounterRule::once(now.plus(3_600));
                }
            }
            // Does its work in two steps, and the first step can't be told from a use.
            "dropping_the_future_of_take_counts_each_use_at_most_once" => {
                self.inner.take(&uses, now).await?;
                yield_now().await;
                self.inner.take(&uses, now).await?;
                yield_now().await;
                let keys: Vec<_> = uses.iter().map(|wanted| wanted.key).collect();
                self.inner.reset_counters(&keys).await?;
            }
            _ => {}
        }
        self.inner.take(&uses, now).await
    }

    async fn give_back(&self, taken: &[TakenUse]) -> StoreResult<()> {
        match self.clause {
            "a_use_that_is_given_back_can_be_taken_again" => return Ok(()),
            "a_use_is_given_back_only_to_the_count_it_was_taken_from" => {
                let keys: Vec<_> = taken.iter().map(|taken| taken.key).collect();
                return self.inner.reset_counters(&keys).await;
            }
            "unknown_counters_are_not_an_error" => {
                for taken in taken {
                    let rule = CounterRule::window(1, 60);
                    let wanted = CounterUse::new(taken.key, rule);
                    self.inner.take(&[wanted], taken.at.minus(60)).await?;
                }
            }
            "dropping_the_future_of_give_back_or_reset_leaves_all_or_nothing" => {
                let keys: Vec<_> = taken.iter().map(|taken| taken.key).collect();
                self.inner.reset_counters(&keys).await?;
            }
            _ => {}
        }
        self.inner.give_back(taken).await
    }

    async fn reset_counters(&self, keys: &[CounterKey]) -> StoreResult<()> {
        if self.clause == "a_reset_counter_has_counted_nothing" {
            return Ok(());
        }
        self.inner.reset_counters(keys).await
    }

    async fn purge_counters(&self, before: Timestamp, limit: usize) -> StoreResult<usize> {
        match self.clause {
            "a_purge_removes_expired_counters_in_batches" => {
                self.inner.purge_counters(before.plus(2 * 3_600), limit).await
            }
            "something_that_may_be_used_once_is_used_once" => {
                self.inner.purge_counters(before.plus(CLOCK_SKEW), limit).await
            }
            _ => self.inner.purge_counters(before, limit).await,
        }
    }
}
