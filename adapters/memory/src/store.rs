//! [`MemoryStore`], and the maps of its users.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tower_keep_core::{AuthUser, LoginName, UserId};

use crate::counters::MemoryCounters;
use crate::shards::MemorySessions;

/// A store of users, by id and by login name, of session records and of counters, in memory.
///
/// A clone shares all of them. Reads run concurrently. A write blocks reads only for a
/// few map operations. No lock is held across an await.
pub struct MemoryStore<U> {
    users: Arc<RwLock<Users<U>>>,
    pub(crate) sessions: MemorySessions,
    pub(crate) login_name: fn(&U) -> &str,
}

pub(crate) struct Users<U> {
    pub(crate) by_id: HashMap<UserId, Arc<U>>,
    pub(crate) ids_by_login_name: HashMap<String, UserId>,
}

impl<U: LoginName + Clone> MemoryStore<U> {
    /// Creates an empty store.
    pub fn new() -> Self {
        Self::with_login_name(U::login_name)
    }
}

impl<U: LoginName + Clone> Default for MemoryStore<U> {
    fn default() -> Self {
        Self::new()
    }
}

impl<U: AuthUser + Clone> MemoryStore<U> {
    /// Creates an empty store for a user type that does not implement [`LoginName`].
    ///
    /// ```
    /// # use tower_keep_core::Account as User;
    /// use tower_keep_memory::MemoryStore;
    ///
    /// let store = MemoryStore::with_login_name(|user: &User| user.login_name());
    /// # let _ = store;
    /// ```
    pub fn with_login_name(login_name: fn(&U) -> &str) -> Self {
        let users = Users { by_id: HashMap::new(), ids_by_login_name: HashMap::new() };
        let users = Arc::new(RwLock::new(users));
        Self { users, sessions: MemorySessions::new(), login_name }
    }

    pub(crate) fn counters(&self) -> &MemoryCounters {
        self.sessions.counters()
    }

    // Only the application's code (`id`, `login_name`, `clone`) can panic under the lock. It runs
    // before either map is changed, so the maps agree even if the lock is poisoned.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Users<U>> {
        self.users.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Users<U>> {
        self.users.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<U> Clone for MemoryStore<U> {
    fn clone(&self) -> Self {
        Self {
            users: Arc::clone(&self.users),
            sessions: self.sessions.clone(),
            login_name: self.login_name,
        }
    }
}

impl<U> fmt::Debug for MemoryStore<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}
