//! The counters of a [`MemorySessions`] and of a [`MemoryStore`].

use tower_keep_core::{
    AuthUser, CounterKey, CounterStore, CounterUse, StoreResult, TakenUse, Taking, Timestamp,
    async_trait,
};

use crate::shards::MemorySessions;
use crate::store::MemoryStore;

/// Passes the calls on to the counters inside.
macro_rules! forward {
    ($([$($user:ident)?] $store:ty;)*) => {$(
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl$(<$user: AuthUser + Clone>)? CounterStore for $store {
            async fn take(&self, uses: &[CounterUse], now: Timestamp) -> StoreResult<Taking> {
                self.counters().take(uses, now).await
            }

            async fn give_back(&self, taken: &[TakenUse]) -> StoreResult<()> {
                self.counters().give_back(taken).await
            }

            async fn reset_counters(&self, keys: &[CounterKey]) -> StoreResult<()> {
                self.counters().reset_counters(keys).await
            }

            async fn purge_counters(&self, before: Timestamp, limit: usize) -> StoreResult<usize> {
                self.counters().purge_counters(before, limit).await
            }
        }
    )*};
}

forward! {
    [] MemorySessions;
    [U] MemoryStore<U>;
}
