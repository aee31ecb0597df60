//! The stores of the tests: they record their calls, and fail on demand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tower_keep::Account;
use tower_keep::store::{CounterStore, LoginStore, Modified, StoreErrorKind, UserDirectory};
use tower_keep_datastore::DatastoreStore;
use tower_keep_memory::MemoryStore;
use tower_keep_mysql::MySqlStore;
use tower_keep_postgres::PostgresStore;
use tower_keep_redis::RedisStore;
use tower_keep_sql::{Dialect, SqlStoreBuilder};
use tower_keep_sqlite::SqliteStore;
use tower_keep_testkit::{Call, FaultyStore, Trouble};

/// Any store of users, sessions and counters.
pub trait AnyStore: UserDirectory<User = Account> + LoginStore + CounterStore {}

impl<S: UserDirectory<User = Account> + LoginStore + CounterStore> AnyStore for S {}

/// A store that records its calls, and whose calls can be made to fail. Calls to its
/// [`inner`](FaultyStore::inner) store are not recorded, and do not fail.
pub type WatchedStore = FaultyStore<Arc<dyn AnyStore>>;

/// Opens an empty store of the kind that the variable `KEEP_STORE` names: `memory` (the default),
/// `sqlite`, `postgres`, `mariadb`, `mysql`, `redis`, `redis-sentinel`, `redis-cluster`,
/// `datastore` or `firestore` (Google's two emulators). `cargo xtask test` runs the same tests on
/// each kind.
///
/// # Panics
///
/// Panics if `KEEP_STORE` has another value, or if the store can't be opened.
pub async fn new_store() -> WatchedStore {
    let kind = std::env::var("KEEP_STORE");
    FaultyStore::new(match kind.as_deref().unwrap_or("memory") {
        "memory" => Arc::new(MemoryStore::new()),
        "sqlite" => open_sql(SqliteStore::builder("sqlite::memory:")).await,
        "postgres" => open_sql(PostgresStore::builder(url("POSTGRES_URL"))).await,
        "mariadb" => open_sql(MySqlStore::builder(url("MARIADB_URL"))).await,
        "mysql" => open_sql(MySqlStore::builder(url("MYSQL_URL"))).await,
        "redis" => open_redis(url("REDIS_URL")).await,
        "redis-sentinel" => open_redis(url("REDIS_SENTINEL_URL")).await,
        "redis-cluster" => open_redis(url("REDIS_CLUSTER_URL")).await,
        "datastore" => open_datastore(url("DATASTORE_URL")).await,
        "firestore" => open_datastore(url("FIRESTORE_URL")).await,
        other => panic!(
            "KEEP_STORE is {other:?}: set it to memory, sqlite, postgres, mariadb, mysql, redis, \
             redis-sentinel, redis-cluster, datastore or firestore"
        ),
    })
}

/// Returns whether the stores of [`new_store`] drop expired sessions by themselves, so that there
/// is nothing to purge.
pub fn drops_expired_sessions() -> bool {
    std::env::var("KEEP_STORE").is_ok_and(|kind| kind.starts_with("redis"))
}

/// The time-out of a call. It is long because other tests run at the same time, and transactions
/// may wait for each other.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

fn url(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: run `cargo xtask test`, which starts a server")
    })
}

/// Returns a new prefix for the names of tables and keys. Tests run at the same time and share a
/// server, so each store has its own prefix.
fn prefix() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("h{}_{number}_", std::process::id())
}

async fn open_redis(url: String) -> Arc<dyn AnyStore> {
    let builder = RedisStore::builder(url).with_key_prefix(prefix());
    let store = builder.with_timeout(CALL_TIMEOUT).build().await;
    Arc::new(store.expect("the store opens"))
}

/// Opens a store in a new project. An emulator creates a project when a request first names it.
async fn open_datastore(url: String) -> Arc<dyn AnyStore> {
    let project = format!("datastore://{}", prefix().replace('_', "-").trim_end_matches('-'));
    let builder = DatastoreStore::builder(project).with_emulator(url);
    let store = builder.with_timeout(CALL_TIMEOUT).build().await;
    Arc::new(store.expect("the store opens"))
}

/// Opens a store with few connections, because all tests share the server's connections.
async fn open_sql<D: Dialect>(builder: SqlStoreBuilder<D>) -> Arc<dyn AnyStore> {
    let builder = builder.with_table_prefix(prefix());
    let store = builder.with_max_connections(4).with_timeout(CALL_TIMEOUT).migrate().build().await;
    Arc::new(store.expect("the store opens"))
}

/// Helpers of tests for a [`WatchedStore`].
pub trait WatchedStoreExt {
    /// Returns the number of recorded `by_id` and `load_login` calls, and removes all recorded
    /// calls.
    fn take_load_count(&self) -> usize;

    /// Waits until this call is recorded, and removes all recorded calls.
    fn wait_for(&self, call: Call) -> impl Future<Output = ()> + Send;

    /// If `is_down`, makes every call fail. Otherwise, makes all calls work again.
    fn set_down(&self, is_down: bool);

    /// Changes the stored account with this id.
    fn change(
        &self,
        id: &str,
        change: impl FnOnce(&mut Account) + Send,
    ) -> impl Future<Output = ()> + Send;
}

impl WatchedStoreExt for WatchedStore {
    fn take_load_count(&self) -> usize {
        let is_load = |call: &Call| matches!(call, Call::ById | Call::LoadLogin);
        self.take_calls().into_iter().filter(is_load).count()
    }

    async fn wait_for(&self, call: Call) {
        let begun = Instant::now();
        while !self.take_calls().contains(&call) {
            assert!(begun.elapsed() < CALL_TIMEOUT, "{call:?} was not called in time");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn set_down(&self, is_down: bool) {
        if is_down {
            self.set_all(Trouble::Fails(StoreErrorKind::Unavailable));
        } else {
            self.heal();
        }
    }

    async fn change(&self, id: &str, change: impl FnOnce(&mut Account) + Send) {
        let mut change = Some(change);
        let mut modify = |stored: &Account| {
            let mut account = stored.clone();
            let change = change.take().expect("no other call changes the account");
            change(&mut account);
            Some(account)
        };
        let modified = self.inner().modify(&id.into(), &mut modify).await;
        assert!(matches!(modified, Ok(Modified::Changed(_))), "{modified:?}");
    }
}
