//! Stores counters, with the SQL in `statements.rs`.
//!
//! A call of `take` reads its counters, decides, and writes them on condition that they are still
//! as it has read them. If one of them is not, the call starts again. So a call that is refused
//! costs one read, and locks nothing.

use std::collections::HashMap;

use tokio::time::Instant;
use tower_keep_core::{
    AuthUser, CounterKey, CounterPlan, CounterState, CounterStore, CounterUse, CounterWrite,
    StoreError, StoreErrorKind, TakenUse, Taking, Timestamp, async_trait,
};

use crate::cause::Cause;
use crate::dialect::Dialect;
use crate::error::{Error, IntoStoreResult};
use crate::lease::Lease;
use crate::row::{Columns, counter_values};
use crate::statements::{Statements, select_counters};
use crate::store::{SqlStore, Write};
use crate::value::Value;

impl<D: Dialect, U: AuthUser> SqlStore<D, U> {
    async fn take_counters(&self, uses: &[CounterUse], now: Timestamp) -> Result<Taking, Error> {
        let deadline = self.deadline();
        while Instant::now() < deadline {
            let stored = self.read_counters(uses, deadline).await?;
            let CounterPlan { mut writes, taking, .. } =
                CounterPlan::new(uses, now, |key| stored.get(key).copied());
            // All nodes write counters in the same order. So two calls that write the same counters
            // wait for each other instead of deadlocking.
            writes.sort_unstable_by_key(|write| write.key);
            let write = match writes.len() {
                0 => return Ok(taking),
                1 => Write::Statement,
                _ => Write::Transaction,
            };
            let written = self.write(deadline, write, |lease| {
                Box::pin(self.write_counters(lease, writes.clone()))
            });
            match written.await {
                Ok(true) => return Ok(taking),
                // Another call has changed or inserted one of the counters since they were read.
                Ok(false) => {}
                Err(error) if is_conflict(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(
            StoreErrorKind::Unavailable,
            "too many calls count the same thing at once: try again later",
        ))
    }

    async fn read_counters(
        &self,
        uses: &[CounterUse],
        deadline: Instant,
    ) -> Result<HashMap<CounterKey, CounterState>, Error> {
        if uses.is_empty() {
            return Ok(HashMap::new());
        }
        let select = select_counters::<D>(uses.len(), &self.shared.names);
        let keys: Vec<Value<'_>> = uses.iter().map(|wanted| (&wanted.key).into()).collect();
        let rows = self.rows(deadline, &select, || select.arguments(&keys)).await?;
        let read = |row| Columns::<D::Database>::of(row).counter().map_err(Error::of::<D>);
        rows.iter().map(read).collect()
    }

    /// Writes counters that are still as they were read. Returns `false`, and writes nothing, if
    /// one of them is not.
    async fn write_counters(
        &self,
        mut lease: Lease<D>,
        writes: Vec<CounterWrite>,
    ) -> Result<bool, Error> {
        let Statements { insert_counter, update_counter, .. } = self.statements();
        for CounterWrite { key, before, after, .. } in &writes {
            let mut values = counter_values(key, after).to_vec();
            let statement = match before {
                None => insert_counter,
                Some(before) => {
                    values.extend(&counter_values(key, before)[1..]);
                    update_counter
                }
            };
            if lease.run(statement, statement.arguments(&values)).await? == 0 {
                // Dropping the lease rolls back the transaction.
                return Ok(false);
            }
        }
        lease.finish().await?;
        Ok(true)
    }
}

/// Checks whether another call has inserted the same counter, or the database has stopped this
/// call in favour of another one. Nothing was written.
fn is_conflict(error: &Error) -> bool {
    matches!(error.cause, Cause::Kind(StoreErrorKind::Conflict) | Cause::Contended)
}

#[async_trait]
impl<D: Dialect, U: AuthUser> CounterStore for SqlStore<D, U> {
    async fn take(&self, uses: &[CounterUse], now: Timestamp) -> Result<Taking, StoreError> {
        self.take_counters(uses, now).await.into_store_result::<D>()
    }

    async fn give_back(&self, taken: &[TakenUse]) -> Result<(), StoreError> {
        let updates = taken.iter().map(|taken| {
            let epoch = Value::Int(i64::try_from(taken.epoch).ok());
            let times = [taken.at.into(), taken.last_before.into()];
            (*taken.key.as_bytes(), [&times[..], &[(&taken.key).into(), epoch]].concat())
        });
        self.update_in_chunks(&self.statements().give_back, updates.collect()).await
    }

    async fn reset_counters(&self, keys: &[CounterKey]) -> Result<(), StoreError> {
        let updates = keys.iter().map(|key| (*key.as_bytes(), vec![key.into()]));
        self.update_in_chunks(&self.statements().reset_counter, updates.collect()).await
    }

    async fn purge_counters(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.delete_rows(&self.statements().purge_counters, &[before.into(), limit.into()]).await
    }
}
