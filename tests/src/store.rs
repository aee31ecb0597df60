//! A store that counts what it is asked, and fails on demand.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tower_keep::{
    Account, StoreError, StoreErrorKind, UserDirectory, UserId, UserStore, async_trait,
};
use tower_keep_memory::MemoryStore;

/// Users in memory, with a count of look-ups and a switch that makes them fail.
#[derive(Clone, Debug, Default)]
pub struct WatchedStore {
    /// The users; what is asked here is not counted.
    pub users: MemoryStore<Account>,
    loads: Arc<AtomicUsize>,
    is_down: Arc<AtomicBool>,
}

impl WatchedStore {
    /// How many users were looked up since the last time this was asked.
    pub fn loads(&self) -> usize {
        self.loads.swap(0, Ordering::SeqCst)
    }

    /// Makes every look-up fail, or work again.
    pub fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::SeqCst);
    }

    /// Changes the stored account with this id.
    pub async fn change(&self, id: &str, change: impl FnOnce(&mut Account)) {
        let stored = self.users.by_id(&id.into()).await.expect("memory works");
        let mut account = Account::clone(&stored.expect("the account is there"));
        change(&mut account);
        self.users.update(&account).await.expect("memory works");
    }
}

#[async_trait]
impl UserStore for WatchedStore {
    type User = Account;

    async fn by_id(&self, id: &UserId) -> Result<Option<Arc<Account>>, StoreError> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        if self.is_down.load(Ordering::SeqCst) {
            return Err(StoreError::new(StoreErrorKind::Unavailable, "watched"));
        }
        self.users.by_id(id).await
    }
}
