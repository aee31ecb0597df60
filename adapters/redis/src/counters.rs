//! Counters. Each has a key of its own, and keys of different counters are in different slots.
//!
//! A call of `take` first reads all its counters. So if one of them refuses, the call costs one
//! round trip and writes nothing. Otherwise it takes the uses one after the other, each on
//! condition that the counter is still as it was read. If a later counter refuses in the meantime,
//! the call gives back what it has taken.

use std::collections::HashMap;

use futures_util::future::try_join_all;
use tokio::time::Instant;
use tower_keep_core::{
    AuthUser, CounterKey, CounterPlan, CounterState, CounterStore, CounterUse, RefusedUse,
    StoreResult, TakenUse, Taking, Timestamp, async_trait,
};

use crate::access::Access;
use crate::error::Error;
use crate::life::{Life, life_millis};
use crate::script::Commit;
use crate::store::RedisStore;

#[async_trait]
impl<U: AuthUser> CounterStore for RedisStore<U> {
    async fn take(&self, uses: &[CounterUse], now: Timestamp) -> StoreResult<Taking> {
        Ok(self.take_uses(uses, now).await?)
    }

    async fn give_back(&self, taken: &[TakenUse]) -> StoreResult<()> {
        Ok(self.give_back_uses(taken, self.deadline()).await?)
    }

    async fn reset_counters(&self, keys: &[CounterKey]) -> StoreResult<()> {
        let deadline = self.deadline();
        for key in keys {
            self.change_counter(key, deadline, |state| Some(state.reset())).await?;
        }
        Ok(())
    }

    /// Redis removes counters by itself when they have expired.
    async fn purge_counters(&self, _before: Timestamp, _limit: usize) -> StoreResult<usize> {
        Ok(0)
    }
}

impl<U: AuthUser> RedisStore<U> {
    async fn take_uses(&self, uses: &[CounterUse], now: Timestamp) -> Result<Taking, Error> {
        let deadline = self.deadline();
        let read = async |key: CounterKey| {
            let stored = self.read_counter(&key, deadline).await?;
            Ok::<_, Error>(stored.map(|state| (key, state)))
        };
        let stored = try_join_all(uses.iter().map(|wanted| read(wanted.key))).await?;
        let stored: HashMap<_, _> = stored.into_iter().flatten().collect();
        let plan = CounterPlan::new(uses, now, |key| stored.get(key).copied());
        if let Taking::Refused(_) = plan.taking {
            return Ok(plan.taking);
        }
        let mut taken = Vec::with_capacity(uses.len());
        for wanted in uses {
            let stored = stored.get(&wanted.key).copied();
            let result = self.take_use(wanted, stored, now, deadline).await;
            if result.is_err() {
                // A server of this counter has failed, perhaps not those of the others.
                let _ = self.give_back_uses(&taken, self.deadline()).await;
            }
            match result? {
                Ok(taken_use) => taken.push(taken_use),
                Err(retry_at) => {
                    self.give_back_uses(&taken, deadline).await?;
                    let refused = RefusedUse::new(wanted.key, retry_at);
                    return Ok(Taking::Refused(vec![refused]));
                }
            }
        }
        Ok(Taking::Taken(taken))
    }

    /// Takes one use of one counter, or returns when a use is allowed. `stored` is the counter as
    /// it was read.
    async fn take_use(
        &self,
        wanted: &CounterUse,
        mut stored: Option<CounterState>,
        now: Timestamp,
        deadline: Instant,
    ) -> Result<Result<TakenUse, Timestamp>, Error> {
        let name = self.keys().counter(&wanted.key);
        loop {
            let (after, taken) = match CounterState::take(stored.as_ref(), wanted, now) {
                Ok(allowed) => allowed,
                Err(retry_at) => return Ok(Err(retry_at)),
            };
            let mut commit = Commit::default();
            match &stored {
                None => commit.require_absent(name.clone()),
                Some(before) => commit.require_value(name.clone(), write(before)),
            }
            let life = Life::Millis(life_millis(after.expires, now).max(1));
            commit.set(name.clone(), write(&after), life);
            if commit.run(self.servers(), deadline).await?.is_ok() {
                return Ok(Ok(taken));
            }
            if Instant::now() >= deadline {
                return Err(Error::contended());
            }
            stored = self.read_counter(&wanted.key, deadline).await?;
        }
    }

    async fn give_back_uses(&self, taken: &[TakenUse], deadline: Instant) -> Result<(), Error> {
        for taken in taken {
            self.change_counter(&taken.key, deadline, |state| state.give_back(taken)).await?;
        }
        Ok(())
    }

    /// Replaces a counter by the state that `change` returns, if the counter is stored and `change`
    /// returns one.
    async fn change_counter(
        &self,
        key: &CounterKey,
        deadline: Instant,
        change: impl Fn(&CounterState) -> Option<CounterState>,
    ) -> Result<(), Error> {
        let name = self.keys().counter(key);
        while Instant::now() < deadline {
            let Some(before) = self.read_counter(key, deadline).await? else { return Ok(()) };
            let Some(after) = change(&before) else { return Ok(()) };
            let mut commit = Commit::default();
            commit.require_value(name.clone(), write(&before));
            commit.set(name.clone(), write(&after), Life::AsBefore);
            if commit.run(self.servers(), deadline).await?.is_ok() {
                return Ok(());
            }
        }
        Err(Error::contended())
    }

    async fn read_counter(
        &self,
        key: &CounterKey,
        deadline: Instant,
    ) -> Result<Option<CounterState>, Error> {
        let value = self.get(&self.keys().counter(key), Access::ReadLatest, deadline).await?;
        value.as_deref().map(read).transpose()
    }
}

/// Returns the value to store: the version of this format, and the fields in decimal.
fn write(state: &CounterState) -> Vec<u8> {
    let CounterState { count, last, epoch, expires, .. } = *state;
    format!("1 {count} {} {epoch} {}", last.as_secs(), expires.as_secs()).into_bytes()
}

fn read(value: &[u8]) -> Result<CounterState, Error> {
    let read = || {
        let mut fields = std::str::from_utf8(value).ok()?.split(' ');
        if fields.next()? != "1" {
            return None;
        }
        let time = |text: &str| text.parse().ok().map(Timestamp::from_secs);
        let (count, last) = (fields.next()?.parse().ok()?, time(fields.next()?)?);
        let (epoch, expires) = (fields.next()?.parse().ok()?, time(fields.next()?)?);
        fields.next().is_none().then(|| CounterState::new(count, last, epoch, expires))
    };
    read().ok_or_else(|| {
        Error::corrupt(
            "a key that contains `count:` holds a value that this store has not written: delete \
             the key",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_read_as_it_was_written() {
        let time = Timestamp::from_secs;
        for state in [
            CounterState::new(0, time(0), 0, time(0)),
            CounterState::new(u32::MAX, time(u32::MAX), i64::MAX as u64, Timestamp::MAX),
        ] {
            assert_eq!(read(&write(&state)).unwrap(), state);
        }
        for bad in ["", "1", "1 2 3 4", "1 2 3 4 5 6", "2 2 3 4 5", "1 x 3 4 5", "1 2 3 4 -5"] {
            assert!(read(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(read(b"1 2 3 4 \xff").is_err());
    }
}
