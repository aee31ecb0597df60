//! Calls of one process that would write the same data take turns. So their transactions don't wait
//! for each other at the service, or abort each other. The service keeps apart what other processes
//! write.

use std::hash::{BuildHasher, Hash, RandomState};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use crate::error::Error;

/// The number of queues. Two calls that share a queue by chance only wait a little longer.
const QUEUES: usize = 1_024;

/// The maximum number of calls that wait in one queue.
const MAX_WAITING: usize = 256;

/// The queues in which calls wait for their turns.
pub(crate) struct Turns {
    queues: Box<[Queue]>,
    hasher: RandomState,
}

struct Queue {
    turn: Semaphore,
    /// Limits how many calls wait.
    waiting: Semaphore,
}

/// A call's turn, which ends when this is dropped.
pub(crate) struct Turn<'a> {
    _permit: SemaphorePermit<'a>,
    /// Whether another call was before it.
    pub(crate) has_waited: bool,
}

impl Turns {
    pub(crate) fn new() -> Self {
        let queue = |_| Queue { turn: Semaphore::new(1), waiting: Semaphore::new(MAX_WAITING) };
        let queues = (0..QUEUES).map(queue).collect();
        Self { queues, hasher: RandomState::new() }
    }

    /// Waits for the turn of a call that writes `target`.
    pub(crate) async fn wait(
        &self,
        target: impl Hash,
        deadline: Instant,
    ) -> Result<Turn<'_>, Error> {
        let queue = &self.queues[self.hasher.hash_one(target) as usize % QUEUES];
        if let Ok(permit) = queue.turn.try_acquire() {
            return Ok(Turn { _permit: permit, has_waited: false });
        }
        let Ok(_permit) = queue.waiting.try_acquire() else { return Err(Error::queue_full()) };
        match timeout_at(deadline, queue.turn.acquire()).await {
            Ok(Ok(permit)) => Ok(Turn { _permit: permit, has_waited: true }),
            _ => Err(Error::contended()),
        }
    }
}
