//! Work outside of requests: writing notes of use in batches, and purging what has expired.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};
use tower_keep_core::{
    CLOCK_SKEW, End, SeenMark, SessionKey, SessionStore, StoreError, StoreErrorKind, Timestamp,
    Touch,
};

/// How many notes may wait. Beyond that, requests write their own.
const CAPACITY: usize = 65_536;
/// How many notes of each kind are written in one batch.
const BATCH: usize = 500;
/// How long notes are collected before they are written.
const COLLECT: Duration = Duration::from_secs(1);
/// How long to wait after an error, at first and at most.
const RETRY: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];
/// How often expired records are purged.
const PURGE: Duration = Duration::from_secs(60);
/// How many records are removed in one batch, and in one round.
const PURGED: [usize; 2] = [500, 50_000];
/// The pause between two batches of a purge, in which other calls get their turn.
const BREATH: Duration = Duration::from_millis(10);

/// What a request has learned about a session.
pub(crate) struct Marks {
    pub(crate) seen: Option<SeenMark>,
    pub(crate) touch: Option<Touch>,
}

#[derive(Default)]
pub(crate) struct Upkeep {
    waiting: Mutex<Waiting>,
    wake: Notify,
    /// How many `drive` futures there are.
    drivers: AtomicUsize,
    /// Whether it was logged that there are none.
    warned_of_no_driver: AtomicBool,
    /// Whether the last write of notes failed. Until one succeeds, requests write their own notes,
    /// and fail if they can't. Otherwise a session could expire while it is in use, without a
    /// visible error.
    is_failing: AtomicBool,
}

/// The notes that wait: at most one of each kind per session.
#[derive(Default)]
struct Waiting {
    seen: HashMap<SessionKey, SeenMark>,
    touches: HashMap<SessionKey, Touch>,
    /// The sessions of logins whose response was not sent, and when to end them. They end a moment
    /// later, because a write that was dropped with its request may still be on its way.
    abandoned: HashMap<SessionKey, (End, Instant)>,
}

impl Waiting {
    fn has_room(&self) -> bool {
        self.seen.len() + self.touches.len() + self.abandoned.len() < CAPACITY
    }

    fn add(&mut self, marks: &Marks) {
        if let Some(seen) = marks.seen {
            // Within one generation the first time counts. A later generation replaces an earlier
            // one.
            let known = self.seen.entry(seen.key).or_insert(seen);
            if known.generation < seen.generation {
                *known = seen;
            }
        }
        if let Some(touch) = marks.touch {
            let known = self.touches.entry(touch.key).or_insert(touch);
            known.at = known.at.max(touch.at);
            known.expires = known.expires.max(touch.expires);
            known.remember_expires = known.remember_expires.max(touch.remember_expires);
        }
    }
}

/// Notes on their way to the store. If the batch is dropped before they are written, they wait
/// again.
struct Batch<'a> {
    upkeep: &'a Upkeep,
    seen: Vec<SeenMark>,
    touches: Vec<Touch>,
    abandoned: Vec<(SessionKey, (End, Instant))>,
}

impl Batch<'_> {
    fn is_empty(&self) -> bool {
        self.seen.is_empty() && self.touches.is_empty() && self.abandoned.is_empty()
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        let mut waiting = self.upkeep.waiting();
        waiting.abandoned.extend(self.abandoned.drain(..));
        for seen in self.seen.drain(..) {
            waiting.add(&Marks { seen: Some(seen), touch: None });
        }
        for touch in self.touches.drain(..) {
            waiting.add(&Marks { seen: None, touch: Some(touch) });
        }
    }
}

/// Counts one future that drives the upkeep, until it is dropped.
struct Driver<'a>(&'a AtomicUsize);

impl<'a> Driver<'a> {
    fn new(drivers: &'a AtomicUsize) -> Self {
        drivers.fetch_add(1, Ordering::Relaxed);
        Self(drivers)
    }
}

impl Drop for Driver<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Upkeep {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves the marks to the future that drives the upkeep. Writes them immediately if there is
    /// no such future, if too many notes wait, or if the last write of notes failed.
    pub(crate) async fn note<S: SessionStore + ?Sized>(
        &self,
        store: &S,
        marks: Marks,
    ) -> Result<(), StoreError> {
        if self.drivers.load(Ordering::Relaxed) > 0 {
            let mut waiting = self.waiting();
            if waiting.has_room() && !self.is_failing.load(Ordering::Relaxed) {
                waiting.add(&marks);
                drop(waiting);
                self.wake.notify_one();
                return Ok(());
            }
        } else if !self.warned_of_no_driver.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "no upkeep is running: each request writes when its session was last used, and \
                 expired sessions are not purged; spawn `auth_layer.upkeep()`"
            );
        }
        if let Some(seen) = marks.seen {
            store.mark_seen(&[seen]).await?;
        }
        if let Some(touch) = marks.touch {
            store.touch(&[touch]).await?;
        }
        Ok(())
    }

    /// Ends a session whose cookies no browser has. It ends a moment later: by then a write that
    /// was dropped with its request has arrived or never will.
    pub(crate) fn abandon(&self, store: Arc<dyn SessionStore>, key: SessionKey, end: End) {
        if self.drivers.load(Ordering::Relaxed) > 0 {
            let mut waiting = self.waiting();
            if waiting.has_room() {
                waiting.abandoned.insert(key, (end, Instant::now() + COLLECT));
                drop(waiting);
                self.wake.notify_one();
                return;
            }
        }
        let Ok(runtime) = Handle::try_current() else {
            tracing::warn!("{ABANDONED}");
            return;
        };
        runtime.spawn(async move {
            sleep(COLLECT).await;
            if let Err(error) = store.revoke(&[key], &end).await {
                log(&error, ABANDONED);
            }
        });
    }

    /// Writes all notes that wait now.
    pub(crate) async fn flush<S: SessionStore + ?Sized>(
        &self,
        store: &S,
    ) -> Result<(), StoreError> {
        self.write(store, Due::All).await
    }

    async fn write<S: SessionStore + ?Sized>(&self, store: &S, due: Due) -> Result<(), StoreError> {
        let written = self.write_all(store, due).await;
        self.is_failing.store(written.is_err(), Ordering::Relaxed);
        written
    }

    async fn write_all<S: SessionStore + ?Sized>(
        &self,
        store: &S,
        due: Due,
    ) -> Result<(), StoreError> {
        loop {
            let mut batch = self.batch(due);
            if batch.is_empty() {
                return Ok(());
            }
            if !batch.seen.is_empty() {
                store.mark_seen(&batch.seen).await?;
                batch.seen.clear();
            }
            if !batch.touches.is_empty() {
                store.touch(&batch.touches).await?;
                batch.touches.clear();
            }
            while let Some((key, (end, _))) = batch.abandoned.last() {
                match store.revoke(&[*key], end).await {
                    Ok(_) => {}
                    Err(error) if may_pass(&error) => return Err(error),
                    // A later call would fail too, and the other sessions must not wait for this
                    // one.
                    Err(error) => log(&error, ABANDONED),
                }
                batch.abandoned.pop();
            }
        }
    }

    fn batch(&self, due: Due) -> Batch<'_> {
        let mut waiting = self.waiting();
        let now = Instant::now();
        let is_due = |at: Instant| matches!(due, Due::All) || at <= now;
        let seen = waiting.seen.keys().take(BATCH).copied().collect::<Vec<_>>();
        let touches = waiting.touches.keys().take(BATCH).copied().collect::<Vec<_>>();
        Batch {
            upkeep: self,
            seen: seen.iter().filter_map(|key| waiting.seen.remove(key)).collect(),
            touches: touches.iter().filter_map(|key| waiting.touches.remove(key)).collect(),
            abandoned: waiting.abandoned.extract_if(|_, (_, at)| is_due(*at)).collect(),
        }
    }

    /// Removes at most `limit` expired records, and returns how many were removed.
    pub(crate) async fn purge<S: SessionStore + ?Sized>(
        &self,
        store: &S,
        now: u32,
        limit: usize,
    ) -> Result<usize, StoreError> {
        store.purge(Timestamp::from_secs(now).minus(CLOCK_SKEW), limit).await
    }

    /// Writes and purges for as long as it is polled.
    pub(crate) async fn drive<S: SessionStore + ?Sized>(&self, store: &S, now: impl Fn() -> u32) {
        let _driver = Driver::new(&self.drivers);
        let (mut next_purge, mut pause) = (Instant::now() + PURGE, RETRY[0]);
        loop {
            if timeout_at(next_purge, self.wake.notified()).await.is_ok() {
                sleep(COLLECT).await;
                if let Err(error) = self.write(store, Due::Now).await {
                    log(&error, "could not write when sessions were last used; trying again later");
                    self.wake.notify_one();
                    sleep(pause).await;
                    pause = (pause * 2).min(RETRY[1]);
                } else {
                    pause = RETRY[0];
                    if !self.waiting().abandoned.is_empty() {
                        self.wake.notify_one();
                    }
                }
            }
            if next_purge <= Instant::now() {
                next_purge = Instant::now() + PURGE;
                let mut purged = 0;
                while purged < PURGED[1] {
                    match self.purge(store, now(), PURGED[0]).await {
                        Ok(0) => break,
                        Ok(some) => purged += some,
                        Err(error) => {
                            log(&error, "could not purge expired sessions; trying again later");
                            break;
                        }
                    }
                    sleep(BREATH).await;
                }
            }
        }
    }
}

/// Which of the abandoned sessions end.
#[derive(Clone, Copy)]
enum Due {
    /// Those that are due now.
    Now,
    /// All of them, because there may be no later write.
    All,
}

const ABANDONED: &str = "a login whose response was not sent is listed until it expires";

/// Whether the same call may succeed later.
fn may_pass(error: &StoreError) -> bool {
    matches!(error.kind(), StoreErrorKind::Unavailable | StoreErrorKind::Timeout)
}

/// Logs an error. The upkeep continues, and tries again later.
fn log(error: &StoreError, what: &str) {
    tracing::error!(store = error.store(), error = error as &dyn std::error::Error, "{what}");
}
