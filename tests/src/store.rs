//! A store that counts what it is asked, and fails on demand.

use tower_keep::{Account, StoreErrorKind, UserDirectory, UserStore};
use tower_keep_memory::MemoryStore;
use tower_keep_testkit::{Call, FaultyStore, Trouble};

/// Users and sessions in memory, with troubles and counts. What is asked of
/// [`inner`](FaultyStore::inner) has none.
pub type WatchedStore = FaultyStore<MemoryStore<Account>>;

/// Short words for what tests do with it.
pub trait Watched {
    /// How many users or logins were looked up since anything was last counted.
    fn loads(&self) -> usize;

    /// Makes every call fail, or work again.
    fn set_down(&self, is_down: bool);

    /// Changes the stored account with this id.
    fn change(
        &self,
        id: &str,
        change: impl FnOnce(&mut Account) + Send,
    ) -> impl Future<Output = ()> + Send;
}

impl Watched for WatchedStore {
    fn loads(&self) -> usize {
        let is_load = |call: &Call| matches!(call, Call::ById | Call::LoadLogin);
        self.take_calls().into_iter().filter(is_load).count()
    }

    fn set_down(&self, is_down: bool) {
        if is_down {
            self.set_all(Trouble::Fails(StoreErrorKind::Unavailable));
        } else {
            self.heal();
        }
    }

    async fn change(&self, id: &str, change: impl FnOnce(&mut Account) + Send) {
        let stored = self.inner().by_id(&id.into()).await.expect("memory works");
        let mut account = Account::clone(&stored.expect("the account is there"));
        change(&mut account);
        self.inner().update(&account).await.expect("memory works");
    }
}
