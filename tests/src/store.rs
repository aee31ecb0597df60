//! A store that counts what it is asked, and fails on demand.

use std::sync::Arc;

use tower_keep::{Account, LoginStore, StoreErrorKind, UserDirectory, UserStore};
use tower_keep_memory::MemoryStore;
use tower_keep_sqlite::SqliteStore;
use tower_keep_testkit::{Call, FaultyStore, Trouble};

/// A store of users and sessions, whichever it is.
pub trait AnyStore: UserDirectory<User = Account> + LoginStore {}

impl<S: UserDirectory<User = Account> + LoginStore> AnyStore for S {}

/// Users and sessions, with troubles and counts. What is asked of [`inner`](FaultyStore::inner) has
/// none.
pub type WatchedStore = FaultyStore<Arc<dyn AnyStore>>;

/// An empty store, of the kind that `KEEP_STORE` names: `memory`, which is the default, or `sqlite`.
/// `cargo xtask test` runs the same tests on each.
///
/// # Panics
///
/// If there is no such kind, or it can't be opened.
pub async fn new_store() -> WatchedStore {
    let kind = std::env::var("KEEP_STORE");
    FaultyStore::new(match kind.as_deref().unwrap_or("memory") {
        "memory" => Arc::new(MemoryStore::new()),
        "sqlite" => Arc::new(SqliteStore::in_memory().await.expect("SQLite starts")),
        other => panic!("there is no store {other:?}; there are memory and sqlite"),
    })
}

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
