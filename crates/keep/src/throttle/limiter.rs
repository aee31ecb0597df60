//! The limiter: it makes the keys of the counters, and takes uses of them.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::available_parallelism;
use std::time::Duration;

use hmac::{Hmac, Mac};
use sha2::Sha256;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tower_keep_core::{
    CLOCK_SKEW, Clock, CounterKey, CounterStore, CounterUse, RefusedUse, StoreError, TakenUse,
    Taking, Timestamp,
};

use super::error::{LimitError, Throttled};
use super::limit::{Limit, LimitUse};
use super::new_counters::NewCounters;
use super::recent::RecentRefusals;
use crate::error::log_store_error;

/// For each core, this many counters may begin in a second: about as many as the passwords that it
/// can check, with three counters each.
const NEW_COUNTERS_PER_CORE: usize = 100;
/// At least this many counters may begin in a second.
const MIN_NEW_COUNTERS: usize = 200;

/// While the limiter is used, expired counters are removed this often.
const PURGE_INTERVAL: Duration = Duration::from_secs(60);
/// One call removes at most this many counters.
const PURGE_BATCH_SIZE: usize = 1_000;
/// Each time, at most this many calls are made.
const PURGE_BATCHES: usize = 200;

/// Limits how often something may be done. Created by
/// [`LoginLayer::limiter`](crate::LoginLayer::limiter). A clone is the same limiter.
#[derive(Clone)]
pub struct Limiter(Arc<Shared>);

struct Shared {
    store: Arc<dyn CounterStore>,
    /// The digest of the layer's key, which makes the keys of the counters.
    digest: Hmac<Sha256>,
    clock: Arc<dyn Clock>,
    recent: RecentRefusals,
    new_counters: NewCounters,
    next_purge: Mutex<Instant>,
}

/// A use that is wanted, its counter, and the name of its limit.
struct Wanted {
    counter: CounterUse,
    limit: &'static str,
}

impl Limiter {
    pub(crate) fn new(
        store: Arc<dyn CounterStore>,
        digest: Hmac<Sha256>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        let max_new = cores.saturating_mul(NEW_COUNTERS_PER_CORE).max(MIN_NEW_COUNTERS);
        Self(Arc::new(Shared {
            store,
            digest,
            clock,
            recent: RecentRefusals::default(),
            new_counters: NewCounters::at_most(u32::try_from(max_new).unwrap_or(u32::MAX)),
            next_purge: Mutex::new(Instant::now() + PURGE_INTERVAL),
        }))
    }

    /// Sets how many counters this process may begin in a second; 100 for each core by default, and
    /// at least 200. Logins from [known devices](crate::throttle#known-devices) are not limited by
    /// this.
    ///
    /// Returns a limiter with the same counters. Clones of the earlier one keep their own number.
    #[must_use]
    pub fn with_max_new_counters(&self, max: u32) -> Self {
        let Shared { store, digest, clock, .. } = &*self.0;
        Self(Arc::new(Shared {
            store: Arc::clone(store),
            digest: digest.clone(),
            clock: Arc::clone(clock),
            recent: RecentRefusals::default(),
            new_counters: NewCounters::at_most(max),
            next_purge: Mutex::new(Instant::now() + PURGE_INTERVAL),
        }))
    }

    /// Takes one use of each of these limits, or none of them if one of them refuses.
    ///
    /// The uses stay counted, unless they are [given back](TakenUses::give_back), for example
    /// because the code was right.
    ///
    /// # Errors
    ///
    /// Returns [`Throttled`](LimitError::Throttled) if a limit refuses, [`Busy`](LimitError::Busy)
    /// if too many counters begin in this second, and [`Store`](LimitError::Store) if the store
    /// fails.
    pub async fn take(&self, uses: &[LimitUse]) -> Result<TakenUses, LimitError> {
        self.take_counting(uses, true).await
    }

    /// Does the same as `take`. If `is_capped` is false, the counters that begin don't count
    /// against the greatest number of new counters.
    pub(crate) async fn take_counting(
        &self,
        uses: &[LimitUse],
        is_capped: bool,
    ) -> Result<TakenUses, LimitError> {
        let shared = &*self.0;
        let now = Timestamp::from(shared.clock.now());
        let wanted: Vec<_> = uses.iter().filter_map(|wanted| self.wanted(wanted)).collect();
        self.check_recent(&wanted, now)?;
        let reserved = match is_capped {
            true => {
                let reserved = shared.new_counters.reserve(wanted.len(), now);
                Some(reserved.ok_or(LimitError::Busy)?)
            }
            false => None,
        };
        let counters: Vec<_> = wanted.iter().map(|wanted| wanted.counter).collect();
        match shared.store.take(&counters, now).await? {
            Taking::Taken(taken) => {
                if let Some(reserved) = reserved {
                    reserved.used(taken.iter().filter(|taken| taken.is_new).count());
                }
                self.purge_sometimes(now);
                Ok(TakenUses { limiter: self.clone(), taken })
            }
            Taking::Refused(refused) => {
                shared.recent.remember(&refused, now);
                Err(throttled(&wanted, &refused, now).into())
            }
        }
    }

    /// Returns an error if one of these limits has refused within the last second, without asking
    /// the store.
    #[cfg(feature = "password")]
    pub(crate) fn check_refused_lately(&self, uses: &[LimitUse]) -> Result<(), Throttled> {
        let now = Timestamp::from(self.0.clock.now());
        let wanted: Vec<_> = uses.iter().filter_map(|wanted| self.wanted(wanted)).collect();
        self.check_recent(&wanted, now)
    }

    fn check_recent(&self, wanted: &[Wanted], now: Timestamp) -> Result<(), Throttled> {
        let refused = self.0.recent.find(wanted.iter().map(|wanted| wanted.counter.key), now);
        if refused.is_empty() { Ok(()) } else { Err(throttled(wanted, &refused, now)) }
    }

    /// Resets these limits: none of their uses was taken.
    ///
    /// # Errors
    ///
    /// Returns [`Store`](LimitError::Store) if the store fails.
    pub async fn reset(&self, uses: &[LimitUse]) -> Result<(), LimitError> {
        let keys: Vec<_> = uses.iter().filter_map(|wanted| self.key(wanted)).collect();
        self.reset_keys(&keys).await
    }

    pub(crate) async fn reset_keys(&self, keys: &[CounterKey]) -> Result<(), LimitError> {
        if !keys.is_empty() {
            self.0.recent.forget(keys.iter().copied());
            self.0.store.reset_counters(keys).await?;
        }
        Ok(())
    }

    async fn give_back(&self, taken: &[TakenUse]) -> Result<(), StoreError> {
        if taken.is_empty() {
            return Ok(());
        }
        self.0.recent.forget(taken.iter().map(|taken| taken.key));
        self.0.store.give_back(taken).await
    }

    /// Returns the use's counter, or `None` if the use is not counted.
    fn wanted(&self, wanted: &LimitUse) -> Option<Wanted> {
        let Limit { name, rule } = wanted.limit;
        let key = self.key(wanted)?;
        Some(Wanted { counter: CounterUse::new(key, rule), limit: name })
    }

    fn key(&self, wanted: &LimitUse) -> Option<CounterKey> {
        let subject = wanted.subject.as_ref()?;
        Some(CounterKey::new(self.digest_of(wanted.limit.name, subject)))
    }

    /// Returns the keyed digest of a subject. The length of the name comes first, so that another
    /// name and another subject never have the same bytes when joined.
    pub(crate) fn digest_of(&self, name: &str, subject: &[u8]) -> [u8; 32] {
        let mut digest = self.0.digest.clone();
        digest.update(&(name.len() as u64).to_be_bytes());
        digest.update(name.as_bytes());
        digest.update(subject);
        digest.finalize().into_bytes().into()
    }

    /// Removes expired counters in the background, if the last time was a while ago.
    fn purge_sometimes(&self, now: Timestamp) {
        {
            let mut next = self.0.next_purge.lock().unwrap_or_else(PoisonError::into_inner);
            if Instant::now() < *next {
                return;
            }
            *next = Instant::now() + PURGE_INTERVAL;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        let store = Arc::clone(&self.0.store);
        runtime.spawn(async move {
            for _ in 0..PURGE_BATCHES {
                match store.purge_counters(now.minus(CLOCK_SKEW), PURGE_BATCH_SIZE).await {
                    Ok(0) => return,
                    Ok(_) => tokio::task::yield_now().await,
                    Err(error) => return log_store_error(&error),
                }
            }
        });
    }
}

/// Returns the error for these refusals. It says how long the client has to wait for all of them.
fn throttled(wanted: &[Wanted], refused: &[RefusedUse], now: Timestamp) -> Throttled {
    let longest = refused.iter().max_by_key(|refused| refused.retry_at);
    let (key, retry_at) =
        longest.map_or((None, now), |longest| (Some(longest.key), longest.retry_at));
    let limit = wanted.iter().find(|wanted| Some(wanted.counter.key) == key);
    Throttled::new(limit.map_or("", |wanted| wanted.limit), retry_at.since(now))
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter").finish_non_exhaustive()
    }
}

/// Uses that were taken. Created by [`Limiter::take`]. If this value is dropped, they stay counted.
#[derive(Debug)]
pub struct TakenUses {
    limiter: Limiter,
    taken: Vec<TakenUse>,
}

impl TakenUses {
    /// Gives the uses back: they count as never taken.
    ///
    /// # Errors
    ///
    /// Returns [`Store`](LimitError::Store) if the store fails. Some of the uses may then stay
    /// counted.
    pub async fn give_back(self) -> Result<(), LimitError> {
        Ok(self.limiter.give_back(&self.taken).await?)
    }

    /// Returns those of the first `count` counters of which other uses were taken before.
    #[cfg(feature = "password")]
    pub(crate) fn counters_in_use(&self, count: usize) -> impl Iterator<Item = CounterKey> {
        let first = self.taken.iter().take(count);
        first.filter(|taken| taken.count > 1).map(|taken| taken.key)
    }
}
