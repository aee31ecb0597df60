//! A user's epoch: a number, which is raised to end all of the user's sessions together.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use tower_keep_core::{End, Epoch, SessionRecord};

/// A user's epoch. Each of the user's records also points to it.
#[derive(Default)]
pub(crate) struct SharedEpoch {
    number: AtomicU64,
    current: RwLock<Epoch>,
}

impl SharedEpoch {
    /// Returns the next epoch, without setting it.
    pub(crate) fn next(&self, end: &End) -> Epoch {
        self.current.read().unwrap_or_else(PoisonError::into_inner).raised(end)
    }

    pub(crate) fn set(&self, next: Epoch) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        self.number.store(next.number, Ordering::Release);
        *current = next;
    }

    pub(crate) fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// Returns this record as ended if it was created in an earlier epoch. Otherwise returns it
    /// unchanged.
    pub(crate) fn apply_to(&self, record: SessionRecord, created_in: u64) -> SessionRecord {
        let epoch = self.current.read().unwrap_or_else(PoisonError::into_inner);
        epoch.apply_to(record, created_in)
    }
}
