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
    let place = StorePlace::new();
    // A database in memory is faster than a file, which is for tests with several processes.
    match place.kind.as_str() {
        "sqlite" => FaultyStore::new(open_sql(SqliteStore::builder("sqlite::memory:"), "k_").await),
        _ => place.open().await,
    }
}

/// The kind of a store, and which of all stores of this kind it is. So several processes can open
/// the same store.
#[derive(Clone, Debug)]
pub struct StorePlace {
    kind: String,
    /// The prefix of the names of tables or keys, or the path of a file.
    name: String,
}

impl StorePlace {
    /// Chooses a place for a new store of the kind that the variable `KEEP_STORE` names.
    pub fn new() -> Self {
        Self::of_kind(std::env::var("KEEP_STORE").unwrap_or_else(|_| "memory".to_owned()))
    }

    /// Does the same as [`new`](Self::new), but with a file of SQLite in place of the store in
    /// memory, so that several processes can open the store.
    pub fn of_processes() -> Self {
        let place = Self::new();
        if place.is_memory() { Self::of_kind("sqlite".to_owned()) } else { place }
    }

    fn of_kind(kind: String) -> Self {
        let name = match kind.as_str() {
            "sqlite" => {
                let file = format!("tower-keep-{}.db", prefix());
                std::env::temp_dir().join(file).display().to_string()
            }
            _ => prefix(),
        };
        Self { kind, name }
    }

    /// Whether the store is in the memory of a process, so that no other process can open it.
    pub fn is_memory(&self) -> bool {
        self.kind == "memory"
    }

    /// Returns the arguments for another process.
    pub fn arguments(&self) -> Vec<String> {
        vec![self.kind.clone(), self.name.clone()]
    }

    /// Reads the arguments that another process has passed.
    ///
    /// # Panics
    ///
    /// Panics if there are no arguments.
    pub fn from_arguments(arguments: &mut impl Iterator<Item = String>) -> Self {
        let mut next = || arguments.next().expect("the kind and the name of a store");
        Self { kind: next(), name: next() }
    }

    /// Removes the file of the store, if it has one.
    pub(crate) fn remove_file(&self) {
        if self.kind == "sqlite" {
            for suffix in ["", "-wal", "-shm"] {
                let _ = std::fs::remove_file(format!("{}{suffix}", self.name));
            }
        }
    }

    /// Opens the store. The first call creates it.
    ///
    /// # Panics
    ///
    /// Panics if there is no such kind, or if the store can't be opened.
    pub async fn open(&self) -> WatchedStore {
        let name = self.name.as_str();
        FaultyStore::new(match self.kind.as_str() {
            "memory" => Arc::new(MemoryStore::new()),
            "sqlite" => open_sql(SqliteStore::builder(format!("sqlite:{name}")), "k_").await,
            "postgres" => open_sql(PostgresStore::builder(url("POSTGRES_URL")), name).await,
            "mariadb" => open_sql(MySqlStore::builder(url("MARIADB_URL")), name).await,
            "mysql" => open_sql(MySqlStore::builder(url("MYSQL_URL")), name).await,
            "redis" => open_redis(url("REDIS_URL"), name).await,
            "redis-sentinel" => open_redis(url("REDIS_SENTINEL_URL"), name).await,
            "redis-cluster" => open_redis(url("REDIS_CLUSTER_URL"), name).await,
            "datastore" => open_datastore(url("DATASTORE_URL"), name).await,
            "firestore" => open_datastore(url("FIRESTORE_URL"), name).await,
            other => panic!(
                "KEEP_STORE is {other:?}: set it to memory, sqlite, postgres, mariadb, mysql, \
                 redis, redis-sentinel, redis-cluster, datastore or firestore"
            ),
        })
    }
}

impl Default for StorePlace {
    fn default() -> Self {
        Self::new()
    }
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

/// Returns a new name for the tables and keys of a store. Tests run at the same time and share a
/// server, so each store has its own prefix.
fn prefix() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("h{}_{number}_", std::process::id())
}

async fn open_redis(url: String, prefix: &str) -> Arc<dyn AnyStore> {
    let builder = RedisStore::builder(url).with_key_prefix(prefix);
    let store = builder.with_timeout(CALL_TIMEOUT).build().await;
    Arc::new(store.expect("the store opens"))
}

/// Opens a store in a new project. An emulator creates a project when a request first names it.
async fn open_datastore(url: String, name: &str) -> Arc<dyn AnyStore> {
    let project = format!("datastore://{}", name.replace('_', "-").trim_end_matches('-'));
    let builder = DatastoreStore::builder(project).with_emulator(url);
    let store = builder.with_timeout(CALL_TIMEOUT).build().await;
    Arc::new(store.expect("the store opens"))
}

/// Opens a store with few connections, because all tests share the server's connections.
async fn open_sql<D: Dialect>(builder: SqlStoreBuilder<D>, prefix: &str) -> Arc<dyn AnyStore> {
    let builder = builder.with_table_prefix(prefix);
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
