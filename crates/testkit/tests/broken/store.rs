//! The store that breaks one clause. What each call does wrong is in `users.rs`, `sessions.rs`,
//! `logins.rs` and `counters.rs`.

use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard};

use tower_keep_core::{Account, SessionKey, SessionRecord, StoreError, StoreErrorKind, UserId};
use tower_keep_memory::MemoryStore;

/// A memory store that breaks a clause on purpose. As a side effect, it may break other clauses
/// too.
pub(crate) struct BrokenStore {
    pub(crate) inner: MemoryStore<Account>,
    /// The name of the clause to break.
    pub(crate) clause: &'static str,
    /// Records that `load` returns in place of the stored records.
    pub(crate) altered_records: Mutex<HashMap<SessionKey, SessionRecord>>,
    /// Users as they were when they were inserted or first loaded. To break some clauses, calls use
    /// these users in place of the stored users.
    pub(crate) outdated_users: Mutex<HashMap<UserId, Arc<Account>>>,
    /// How often `create` was called. Only the clause that needs this number counts the calls.
    pub(crate) create_calls: AtomicUsize,
}

impl BrokenStore {
    pub(crate) fn that_breaks(clause: &'static str) -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryStore::new(),
            clause,
            altered_records: Mutex::default(),
            outdated_users: Mutex::default(),
            create_calls: AtomicUsize::new(0),
        })
    }

    pub(crate) fn breaks(&self, clause: &str) -> bool {
        self.clause == clause
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while this lock is held")
}

pub(crate) fn error() -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, "broken")
}

pub(crate) fn has_nul(text: &str) -> bool {
    text.contains('\0')
}
