//! Counters. Each is an entity of the kind `KeepCounter_User`, which contains two settings: the
//! prefix (`Keep`) and the kind of users (`User`). The name in its key is the counter's key in hex.
//!
//! | property | value |
//! | --- | --- |
//! | `count` | how many uses were taken |
//! | `last` | when the last use was taken |
//! | `epoch` | rises when the counter starts over |
//! | `expires` | from this time on, the counter has no effect |
//! | `deletable_at` | from this time on, the entity may be deleted: `expires` plus [`CLOCK_SKEW`](tower_keep_core::CLOCK_SKEW). Indexed only for `purge_counters` |
//!
//! A call of `take` first reads its counters without a transaction. So if one of them refuses, the
//! call costs one round trip, and locks nothing.

use gcloud_sdk::google::datastore::v1::{Entity, Key};
use tower_keep_core::{
    AuthUser, CounterKey, CounterPlan, CounterState, CounterStore, CounterUse, StoreResult,
    TakenUse, Taking, Timestamp, async_trait,
};

use crate::client::Found;
use crate::error::Error;
use crate::keys::distinct;
use crate::properties::{
    PropertyReader, PropertyWriter, as_epoch, as_time, as_u32, epoch_value, number_value,
    time_value,
};
use crate::record::DeleteExpired;
use crate::store::DatastoreStore;
use crate::transaction::{Change, transact, unchanged, upsert};

#[async_trait]
impl<U: AuthUser> CounterStore for DatastoreStore<U> {
    async fn take(&self, uses: &[CounterUse], now: Timestamp) -> StoreResult<Taking> {
        Ok(self.take_uses(uses, now).await?)
    }

    async fn give_back(&self, taken: &[TakenUse]) -> StoreResult<()> {
        let keys: Vec<_> = taken.iter().map(|taken| taken.key).collect();
        let change = |key: &CounterKey, state: CounterState| {
            let given_back = taken.iter().filter(|taken| taken.key == *key);
            given_back.fold(state, |state, taken| state.give_back(taken).unwrap_or(state))
        };
        Ok(self.change_counters(&keys, change).await?)
    }

    async fn reset_counters(&self, keys: &[CounterKey]) -> StoreResult<()> {
        Ok(self.change_counters(keys, |_, state| state.reset()).await?)
    }

    async fn purge_counters(&self, before: Timestamp, limit: usize) -> StoreResult<usize> {
        if self.shared.delete_expired == DeleteExpired::ByPolicy || limit == 0 {
            return Ok(0);
        }
        Ok(self.purge_expired(&self.keys().counter_kind(), before, limit).await?)
    }
}

impl<U: AuthUser> DatastoreStore<U> {
    async fn take_uses(&self, uses: &[CounterUse], now: Timestamp) -> Result<Taking, Error> {
        let Some(first) = uses.first() else { return Ok(Taking::Taken(Vec::new())) };
        let deadline = self.deadline();
        let names = distinct(uses.iter().map(|wanted| self.keys().counter(&wanted.key)));
        let read = self.client().lookup(names.clone(), None, deadline).await?;
        let plan = self.plan(uses, now, &read)?;
        if let Taking::Refused(_) = plan.taking {
            return Ok(plan.taking);
        }
        // The callers of this process that want the same counter wait here, not at the service.
        let turn = self.shared.write_queues.wait_for_turn(first.key, deadline).await?;
        if turn.has_waited {
            let read = self.client().lookup(names.clone(), None, deadline).await?;
            let plan = self.plan(uses, now, &read)?;
            if let Taking::Refused(_) = plan.taking {
                return Ok(plan.taking);
            }
        }
        transact!(self.client(), deadline, transaction => {
            let plan = self.plan(uses, now, &transaction.lookup(names.clone()).await?)?;
            let written = plan.writes.iter();
            let mutations = written.map(|write| upsert(self.counter_entity(&write.key, &write.after)));
            Ok(Change { mutations: mutations.collect(), output: plan.taking })
        })
        .await
    }

    fn plan(
        &self,
        uses: &[CounterUse],
        now: Timestamp,
        found: &Found,
    ) -> Result<CounterPlan, Error> {
        let mut stored = Vec::new();
        for wanted in uses {
            if let Some(entity) = found.get(&self.keys().counter(&wanted.key)) {
                stored.push((wanted.key, read(entity.clone())?));
            }
        }
        Ok(CounterPlan::new(uses, now, |key| {
            stored.iter().find(|(known, _)| known == key).map(|(_, state)| *state)
        }))
    }

    /// Replaces the counters that are stored by the states that `change` returns, in one
    /// transaction.
    async fn change_counters(
        &self,
        keys: &[CounterKey],
        change: impl Fn(&CounterKey, CounterState) -> CounterState + Sync,
    ) -> Result<(), Error> {
        let mut keys = keys.to_vec();
        keys.sort_unstable();
        keys.dedup();
        let Some(first) = keys.first() else { return Ok(()) };
        let deadline = self.deadline();
        let _turn = self.shared.write_queues.wait_for_turn(first, deadline).await?;
        let names: Vec<Key> = keys.iter().map(|key| self.keys().counter(key)).collect();
        transact!(self.client(), deadline, transaction => {
            let found = transaction.lookup(names.clone()).await?;
            let mut mutations = Vec::new();
            for (key, name) in keys.iter().zip(&names) {
                let Some(entity) = found.get(name) else { continue };
                let before = read(entity.clone())?;
                let after = change(key, before);
                if after != before {
                    mutations.push(upsert(self.counter_entity(key, &after)));
                }
            }
            if mutations.is_empty() { unchanged(()) } else { Ok(Change { mutations, output: () }) }
        })
        .await
    }

    fn counter_entity(&self, key: &CounterKey, state: &CounterState) -> Entity {
        let CounterState { count, last, epoch, expires, .. } = *state;
        let mut properties = PropertyWriter::default();
        properties.add("count", number_value(count));
        properties.add("last", time_value(last));
        properties.add("epoch", epoch_value(epoch));
        properties.add("expires", time_value(expires));
        self.shared.delete_expired.add_deletable_at(&mut properties, expires);
        properties.into_entity(self.keys().counter(key))
    }
}

fn read(entity: Entity) -> Result<CounterState, Error> {
    let mut properties = PropertyReader(entity.properties);
    Ok(CounterState::new(
        properties.required("count", as_u32)?,
        properties.required("last", as_time)?,
        properties.required("epoch", as_epoch)?,
        properties.required("expires", as_time)?,
    ))
}
