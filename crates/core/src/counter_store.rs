//! The trait of a store of counters.

use async_trait::async_trait;

use crate::counter::{CounterKey, CounterUse, TakenUse, Taking};
use crate::error::StoreResult;
use crate::timestamp::Timestamp;

/// Counts uses, so that guessing can be limited and a token can be used once.
///
/// All nodes of a site share the counters. The caller passes the current time, because a store has
/// no clock. A counter is known by a [`CounterKey`], which is a digest.
///
/// A method returns an error only if the store fails. After a
/// [`Timeout`](crate::StoreErrorKind::Timeout) it is not known whether the call took effect.
///
/// The testkit has a test for each of these rules.
#[async_trait]
pub trait CounterStore: Send + Sync {
    /// Takes one use of each of these counters, or refuses all of them.
    ///
    /// If each counter's [rule](crate::CounterRule) allows a use at `now`, the call counts one use
    /// of each and returns [`Taken`](Taking::Taken). Otherwise it returns
    /// [`Refused`](Taking::Refused), and counts nothing. [`CounterPlan`](crate::CounterPlan) makes
    /// this decision.
    ///
    /// - However many calls run at the same time, no counter ever counts more uses than its rule
    ///   allows.
    /// - A refusal writes nothing, except to undo a part of this call.
    /// - Each counter changes atomically. The call as a whole need not: if another call takes the
    ///   last use of one counter, this call may take uses of the counters before it, and give them
    ///   back. So put the counter first that is the most likely to refuse.
    /// - If the future is dropped, each of the counters may have counted the use or not.
    ///
    /// A counter that is not stored has counted no use. A counter that has
    /// [expired](crate::CounterState::expires) starts over.
    ///
    /// # Errors
    ///
    /// Returns an error only if the store fails. In this case each of the counters may have counted
    /// the use or not.
    async fn take(&self, uses: &[CounterUse], now: Timestamp) -> StoreResult<Taking>;

    /// Gives uses back, as if they had not been taken.
    ///
    /// A use is given back only if its counter has not started over and was not reset since; see
    /// [`CounterState::give_back`](crate::CounterState::give_back). Otherwise this changes nothing.
    /// Each counter changes atomically; the call as a whole need not. Give each use back at most
    /// once.
    ///
    /// # Errors
    ///
    /// Returns an error only if the store fails. In this case any of the uses may have been given
    /// back.
    async fn give_back(&self, taken: &[TakenUse]) -> StoreResult<()>;

    /// Resets these counters: they have counted no use. Unknown keys are ignored.
    ///
    /// Each counter changes atomically; the call as a whole need not. Repeating the call does no
    /// harm.
    ///
    /// # Errors
    ///
    /// Returns an error only if the store fails. In this case any of the counters may have been
    /// reset.
    async fn reset_counters(&self, keys: &[CounterKey]) -> StoreResult<()>;

    /// Removes at most `limit` counters whose `expires` is not later than `before`. Returns how
    /// many it removed.
    ///
    /// The call returns 0 only if there are no more such counters, except those that another call
    /// is removing. A store that drops expired counters by itself, no earlier than
    /// [`CLOCK_SKEW`](crate::CLOCK_SKEW) after they expired, may always return 0.
    ///
    /// # Errors
    ///
    /// Returns an error only if the store fails. In this case any of the counters may have been
    /// removed.
    async fn purge_counters(&self, before: Timestamp, limit: usize) -> StoreResult<usize>;
}
