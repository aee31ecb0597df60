//! Queues in which the calls of one process wait before they write the same data.
//!
//! Only one of these calls at a time begins a transaction. So their transactions neither wait for
//! each other at the service nor abort each other. Transactions of different processes are isolated
//! by the service alone.

use std::hash::{BuildHasher, Hash, RandomState};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use crate::error::Error;

/// The number of queues. Two calls that write different data may share a queue by chance. The
/// second call then only waits a little longer.
const QUEUES: usize = 1_024;

/// The maximum number of calls that wait in one queue.
const MAX_WAITING: usize = 256;

/// The queues. The hash of the written user, session or login name selects one of them.
pub(crate) struct WriteQueues {
    queues: Box<[Queue]>,
    hasher: RandomState,
}

struct Queue {
    /// Its only permit belongs to the call whose turn it is.
    turn: Semaphore,
    /// Each waiting call holds one of its permits.
    waiting: Semaphore,
}

/// The turn of a call. The next call in the queue gets its turn when this value is dropped.
pub(crate) struct WriteTurn<'a> {
    _permit: SemaphorePermit<'a>,
    /// Whether the call had to wait for another call.
    pub(crate) has_waited: bool,
}

impl WriteQueues {
    pub(crate) fn new() -> Self {
        let queue = |_| Queue { turn: Semaphore::new(1), waiting: Semaphore::new(MAX_WAITING) };
        let queues = (0..QUEUES).map(queue).collect();
        Self { queues, hasher: RandomState::new() }
    }

    /// Waits until no other call of this process that writes `target` is in progress.
    ///
    /// # Errors
    ///
    /// Returns an error if too many calls wait already, or if the deadline passes.
    pub(crate) async fn wait_for_turn(
        &self,
        target: impl Hash,
        deadline: Instant,
    ) -> Result<WriteTurn<'_>, Error> {
        let queue = &self.queues[self.hasher.hash_one(target) as usize % QUEUES];
        if let Ok(permit) = queue.turn.try_acquire() {
            return Ok(WriteTurn { _permit: permit, has_waited: false });
        }
        let Ok(_permit) = queue.waiting.try_acquire() else { return Err(Error::queue_full()) };
        match timeout_at(deadline, queue.turn.acquire()).await {
            Ok(Ok(permit)) => Ok(WriteTurn { _permit: permit, has_waited: true }),
            _ => Err(Error::contended()),
        }
    }
}
