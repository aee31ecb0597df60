//! Calls of one process that would write the same data take turns. So their transactions don't wait
//! for each other at the service, or abort each other. The service keeps apart what other processes
//! write.

use std::hash::{BuildHasher, Hash, RandomState};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use crate::error::Error;

/// The number of queues. Two calls that share a queue by chance only wait a little longer.
const QUEUES: usize = 1_024;

/// The most calls that wait in one queue.
const MOST_IN_A_QUEUE: usize = 256;

/// The queues in which calls wait for their turns.
pub(crate) struct Turns {
    queues: Box<[Queue]>,
    hasher: RandomState,
}

struct Queue {
    front: Semaphore,
    /// Limits how many calls wait.
    room: Semaphore,
}

/// A call's turn, which ends when this is dropped.
pub(crate) struct Turn<'a> {
    _permit: SemaphorePermit<'a>,
    /// Whether another call was before it.
    pub(crate) has_waited: bool,
}

impl Turns {
    pub(crate) fn new() -> Self {
        let queue = |_| Queue { front: Semaphore::new(1), room: Semaphore::new(MOST_IN_A_QUEUE) };
        let queues = (0..QUEUES).map(queue).collect();
        Self { queues, hasher: RandomState::new() }
    }

    /// Waits for the turn of a call that writes `what`.
    pub(crate) async fn wait(&self, what: impl Hash, deadline: Instant) -> Result<Turn<'_>, Error> {
        let queue = &self.queues[self.hasher.hash_one(what) as usize % QUEUES];
        if let Ok(permit) = queue.front.try_acquire() {
            return Ok(Turn { _permit: permit, has_waited: false });
        }
        let Ok(_room) = queue.room.try_acquire() else { return Err(Error::crowded()) };
        match timeout_at(deadline, queue.front.acquire()).await {
            Ok(Ok(permit)) => Ok(Turn { _permit: permit, has_waited: true }),
            _ => Err(Error::contended()),
        }
    }
}
