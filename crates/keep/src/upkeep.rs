//! Work outside of requests: writing the use of sessions in batches, ending sessions whose cookies
//! were not sent, and purging expired records.

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

/// If this many notes wait, requests write their own notes.
const MAX_WAITING: usize = 65_536;
/// A batch has at most this many seen marks, and at most this many touches.
const BATCH_SIZE: usize = 500;
/// Notes are collected for this long before they are written.
const COLLECTION_TIME: Duration = Duration::from_secs(1);
/// The pause after the first failed write. Each further failure doubles the pause, up to
/// `MAX_RETRY_PAUSE`.
const MIN_RETRY_PAUSE: Duration = Duration::from_secs(1);
const MAX_RETRY_PAUSE: Duration = Duration::from_secs(30);
/// How often expired records are purged.
const PURGE_INTERVAL: Duration = Duration::from_secs(60);
/// One call of the store removes at most this many records.
const PURGE_BATCH_SIZE: usize = 500;
/// No batch of a purge begins after this many records were removed.
const MAX_PURGED_PER_ROUND: usize = 50_000;
/// The pause between two batches of a purge. It lets other calls of the store run.
const PURGE_PAUSE: Duration = Duration::from_millis(10);

/// The use of a session by one request, as far as the store has to record it.
pub(crate) struct Notes {
    pub(crate) seen: Option<SeenMark>,
    pub(crate) touch: Option<Touch>,
}

/// Collects the notes of requests, and writes them while its future [`run`](Self::run) is polled.
#[derive(Default)]
pub(crate) struct Upkeep {
    waiting: Mutex<WaitingNotes>,
    /// Wakes the `run` future.
    note_added: Notify,
    /// The number of `run` futures that exist.
    run_count: AtomicUsize,
    /// Whether it was logged that no `run` future exists.
    has_warned: AtomicBool,
    /// Whether the last write of waiting notes failed. Until such a write succeeds, requests write
    /// their own notes, and return an error if they can't. Without this rule, a session could
    /// expire while it is in use, and no request would show an error.
    is_failing: AtomicBool,
}

/// The notes that wait to be written: at most one of each kind per session.
#[derive(Default)]
struct WaitingNotes {
    seen: HashMap<SessionKey, SeenMark>,
    touches: HashMap<SessionKey, Touch>,
    /// The sessions whose cookies were not sent, and which therefore have to end.
    abandoned: HashMap<SessionKey, AbandonedSession>,
}

/// How and when to end a session whose cookies were not sent. It does not end immediately, because
/// the store may execute a write after the request that sent it was dropped.
struct AbandonedSession {
    end: End,
    due: Instant,
}

impl WaitingNotes {
    fn has_room(&self) -> bool {
        self.seen.len() + self.touches.len() + self.abandoned.len() < MAX_WAITING
    }

    fn add(&mut self, notes: &Notes) {
        if let Some(seen) = notes.seen {
            // The mark of a later generation replaces the mark of an earlier generation. Within one
            // generation, the first mark stays.
            let known = self.seen.entry(seen.key).or_insert(seen);
            if known.generation < seen.generation {
                *known = seen;
            }
        }
        if let Some(touch) = notes.touch {
            let known = self.touches.entry(touch.key).or_insert(touch);
            known.at = known.at.max(touch.at);
            known.expires = known.expires.max(touch.expires);
            known.remember_expires = known.remember_expires.max(touch.remember_expires);
        }
    }
}

/// Notes that are being written. On drop, the notes that were not written wait again.
struct Batch<'a> {
    upkeep: &'a Upkeep,
    seen: Vec<SeenMark>,
    touches: Vec<Touch>,
    abandoned: Vec<(SessionKey, AbandonedSession)>,
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
            waiting.add(&Notes { seen: Some(seen), touch: None });
        }
        for touch in self.touches.drain(..) {
            waiting.add(&Notes { seen: None, touch: Some(touch) });
        }
    }
}

/// Counts one `run` future, until it is dropped.
struct CountedRun<'a>(&'a AtomicUsize);

impl<'a> CountedRun<'a> {
    fn new(run_count: &'a AtomicUsize) -> Self {
        run_count.fetch_add(1, Ordering::Relaxed);
        Self(run_count)
    }
}

impl Drop for CountedRun<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Upkeep {
    fn waiting(&self) -> MutexGuard<'_, WaitingNotes> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the notes to those that wait for the `run` future. Writes them immediately if there is
    /// no such future, if too many notes wait, or if the last write of waiting notes failed.
    pub(crate) async fn note<S: SessionStore + ?Sized>(
        &self,
        store: &S,
        notes: Notes,
    ) -> Result<(), StoreError> {
        if self.run_count.load(Ordering::Relaxed) > 0 {
            let mut waiting = self.waiting();
            if waiting.has_room() && !self.is_failing.load(Ordering::Relaxed) {
                waiting.add(&notes);
                drop(waiting);
                self.note_added.notify_one();
                return Ok(());
            }
        } else if !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "no upkeep is running: each request writes when its session was last used, and \
                 expired sessions are not purged; spawn `auth_layer.upkeep()`"
            );
        }
        if let Some(seen) = notes.seen {
            store.mark_seen(&[seen]).await?;
        }
        if let Some(touch) = notes.touch {
            store.touch(&[touch]).await?;
        }
        Ok(())
    }

    /// Ends a session whose cookies were not sent, one second later. By then, the store has
    /// executed the write of a request that was dropped, or will never execute it.
    pub(crate) fn abandon(&self, store: Arc<dyn SessionStore>, key: SessionKey, end: End) {
        if self.run_count.load(Ordering::Relaxed) > 0 {
            let mut waiting = self.waiting();
            if waiting.has_room() {
                let due = Instant::now() + COLLECTION_TIME;
                waiting.abandoned.insert(key, AbandonedSession { end, due });
                drop(waiting);
                self.note_added.notify_one();
                return;
            }
        }
        let Ok(runtime) = Handle::try_current() else {
            tracing::warn!("{NOT_ENDED}");
            return;
        };
        runtime.spawn(async move {
            sleep(COLLECTION_TIME).await;
            if let Err(error) = store.revoke(&[key], &end).await {
                log(&error, NOT_ENDED);
            }
        });
    }

    /// Writes all notes that wait now.
    pub(crate) async fn flush<S: SessionStore + ?Sized>(
        &self,
        store: &S,
    ) -> Result<(), StoreError> {
        self.write(store, AbandonedFilter::All).await
    }

    /// Writes the notes that wait, and sets `is_failing`.
    async fn write<S: SessionStore + ?Sized>(
        &self,
        store: &S,
        filter: AbandonedFilter,
    ) -> Result<(), StoreError> {
        let written = self.write_all(store, filter).await;
        self.is_failing.store(written.is_err(), Ordering::Relaxed);
        written
    }

    /// Writes the notes that wait, batch by batch.
    async fn write_all<S: SessionStore + ?Sized>(
        &self,
        store: &S,
        filter: AbandonedFilter,
    ) -> Result<(), StoreError> {
        loop {
            let mut batch = self.take_batch(filter);
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
            while let Some((key, AbandonedSession { end, .. })) = batch.abandoned.last() {
                match store.revoke(&[*key], end).await {
                    Ok(_) => {}
                    Err(error) if may_succeed_later(&error) => return Err(error),
                    // A later call would fail too, so this session is given up, and the other
                    // sessions end.
                    Err(error) => log(&error, NOT_ENDED),
                }
                batch.abandoned.pop();
            }
        }
    }

    fn take_batch(&self, filter: AbandonedFilter) -> Batch<'_> {
        let mut waiting = self.waiting();
        let now = Instant::now();
        let is_included = |session: &AbandonedSession| match filter {
            AbandonedFilter::All => true,
            AbandonedFilter::Due => session.due <= now,
        };
        let seen = waiting.seen.keys().take(BATCH_SIZE).copied().collect::<Vec<_>>();
        let touches = waiting.touches.keys().take(BATCH_SIZE).copied().collect::<Vec<_>>();
        Batch {
            upkeep: self,
            seen: seen.iter().filter_map(|key| waiting.seen.remove(key)).collect(),
            touches: touches.iter().filter_map(|key| waiting.touches.remove(key)).collect(),
            abandoned: waiting.abandoned.extract_if(|_, session| is_included(session)).collect(),
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

    /// Writes the notes that wait, and purges expired records. Never returns.
    pub(crate) async fn run<S: SessionStore + ?Sized>(&self, store: &S, now: impl Fn() -> u32) {
        let _running = CountedRun::new(&self.run_count);
        let (mut next_purge, mut pause) = (Instant::now() + PURGE_INTERVAL, MIN_RETRY_PAUSE);
        loop {
            if timeout_at(next_purge, self.note_added.notified()).await.is_ok() {
                sleep(COLLECTION_TIME).await;
                if let Err(error) = self.write(store, AbandonedFilter::Due).await {
                    log(&error, "could not write the notes about sessions; trying again later");
                    self.note_added.notify_one();
                    sleep(pause).await;
                    pause = (pause * 2).min(MAX_RETRY_PAUSE);
                } else {
                    pause = MIN_RETRY_PAUSE;
                    if !self.waiting().abandoned.is_empty() {
                        self.note_added.notify_one();
                    }
                }
            }
            if next_purge <= Instant::now() {
                next_purge = Instant::now() + PURGE_INTERVAL;
                let mut purged = 0;
                while purged < MAX_PURGED_PER_ROUND {
                    match self.purge(store, now(), PURGE_BATCH_SIZE).await {
                        Ok(0) => break,
                        Ok(count) => purged += count,
                        Err(error) => {
                            log(
                                &error,
                                "could not purge expired sessions; trying again in a minute",
                            );
                            break;
                        }
                    }
                    sleep(PURGE_PAUSE).await;
                }
            }
        }
    }
}

/// Which of the abandoned sessions a write ends.
#[derive(Clone, Copy)]
enum AbandonedFilter {
    /// The sessions that are due.
    Due,
    /// All sessions, because there may be no later write.
    All,
}

const NOT_ENDED: &str = "could not end the session of a login whose response was not sent; the \
    session is listed until it expires";

/// Whether the same call of the store may succeed later.
fn may_succeed_later(error: &StoreError) -> bool {
    matches!(error.kind(), StoreErrorKind::Unavailable | StoreErrorKind::Timeout)
}

/// Logs an error of the store.
fn log(error: &StoreError, message: &str) {
    tracing::error!(store = error.store(), error = error as &dyn std::error::Error, "{message}");
}
