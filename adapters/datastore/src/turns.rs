//! Calls of one process that would write the same take turns, so that their transactions don't wait for each
//! other, or abort each other, at the service. What other processes write is the service's to keep apart.

use std::hash::{BuildHasher, Hash, RandomState};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use crate::error::Fault;

/// So many queues there are. Two that share one only wait a little longer.
const QUEUES: usize = 1_024;

/// So many calls wait in one queue at most.
const MOST_IN_A_QUEUE: usize = 256;

/// The queues.
pub(crate) struct Turns {
    queues: Box<[Queue]>,
    hasher: RandomState,
}

struct Queue {
    front: Semaphore,
    /// The room behind it.
    room: Semaphore,
}

/// A call's turn, which ends when this is dropped.
pub(crate) struct Turn<'a> {
    _permit: SemaphorePermit<'a>,
    /// Another was before it.
    pub(crate) has_waited: bool,
}

impl Turns {
    pub(crate) fn new() -> Self {
        let queue = |_| Queue { front: Semaphore::new(1), room: Semaphore::new(MOST_IN_A_QUEUE) };
        let queues = (0..QUEUES).map(queue).collect();
        Self { queues, hasher: RandomState::new() }
    }

    /// Waits for the turn of a call that writes this.
    pub(crate) async fn wait(&self, what: impl Hash, deadline: Instant) -> Result<Turn<'_>, Fault> {
        let queue = &self.queues[self.hasher.hash_one(what) as usize % QUEUES];
        if let Ok(permit) = queue.front.try_acquire() {
            return Ok(Turn { _permit: permit, has_waited: false });
        }
        let Ok(_room) = queue.room.try_acquire() else { return Err(Fault::crowded()) };
        match timeout_at(deadline, queue.front.acquire()).await {
            Ok(Ok(permit)) => Ok(Turn { _permit: permit, has_waited: true }),
            _ => Err(Fault::contended()),
        }
    }
}
