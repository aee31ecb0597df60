//! A store that counts its calls, and fails on demand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tower_keep::Account;
use tower_keep::store::{LoginStore, Modified, StoreErrorKind, UserDirectory};
use tower_keep_datastore::DatastoreStore;
use tower_keep_memory::MemoryStore;
use tower_keep_mysql::MySqlStore;
use tower_keep_postgres::PostgresStore;
use tower_keep_redis::RedisStore;
use tower_keep_sql::{Dialect, SqlStoreBuilder};
use tower_keep_sqlite::SqliteStore;
use tower_keep_testkit::{Call, FaultyStore, Trouble};

/// Any store of users and sessions.
pub trait AnyStore: UserDirectory<User = Account> + LoginStore {}

impl<S: UserDirectory<User = Account> + LoginStore> AnyStore for S {}

/// A store that counts its calls, and whose calls can be made to fail. Calls to
/// [`inner`](FaultyStore::inner) are not counted, and do not fail.
pub type WatchedStore = FaultyStore<Arc<dyn AnyStore>>;

/// Opens an empty store of the kind that `KEEP_STORE` names: `memory`, which is the default,
/// `sqlite`, `postgres`, `mariadb`, `mysql`, `redis`, `redis-sentinel`, `redis-cluster`,
/// `datastore` or `firestore` (both of Google's emulators). `cargo xtask test` runs the same tests
/// on each.
///
/// # Panics
///
/// Panics if there is no such kind, or the store can't be opened.
pub async fn new_store() -> WatchedStore {
    let kind = std::env::var("KEEP_STORE");
    FaultyStore::new(match kind.as_deref().unwrap_or("memory") {
        "memory" => Arc::new(MemoryStore::new()),
        "sqlite" => opened(SqliteStore::builder("sqlite::memory:")).await,
        "postgres" => opened(PostgresStore::builder(url("POSTGRES_URL"))).await,
        "mariadb" => opened(MySqlStore::builder(url("MARIADB_URL"))).await,
        "mysql" => opened(MySqlStore::builder(url("MYSQL_URL"))).await,
        "redis" => redis(url("REDIS_URL")).await,
        "redis-sentinel" => redis(url("REDIS_SENTINEL_URL")).await,
        "redis-cluster" => redis(url("REDIS_CLUSTER_URL")).await,
        "datastore" => datastore(url("DATASTORE_URL")).await,
        "firestore" => datastore(url("FIRESTORE_URL")).await,
        other => panic!(
            "there is no store {other:?}; there are memory, sqlite, postgres, mariadb, mysql, redis, \
             redis-sentinel, redis-cluster, datastore and firestore"
        ),
    })
}

/// Returns whether that store removes expired sessions by itself, so that there is nothing to
/// purge.
pub fn drops_by_itself() -> bool {
    std::env::var("KEEP_STORE").is_ok_and(|kind| kind.starts_with("redis"))
}

/// The time-out of a call to a store. It is long because other tests run at the same time, and
/// transactions may wait for each other.
const PATIENCE: Duration = Duration::from_secs(20);

fn url(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set; `cargo xtask test` starts a server"))
}

/// Returns a prefix for names that no other test has, because tests run side by side.
fn prefix() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("h{}_{number}_", std::process::id())
}

async fn redis(url: String) -> Arc<dyn AnyStore> {
    let builder = RedisStore::builder(url).with_key_prefix(prefix());
    let store = builder.with_timeout(PATIENCE).build().await;
    Arc::new(store.expect("the store opens"))
}

/// Opens a store in a project of its own. Emulators create a project when it is first named.
async fn datastore(url: String) -> Arc<dyn AnyStore> {
    let project = format!("datastore://{}", prefix().replace('_', "-").trim_end_matches('-'));
    let builder = DatastoreStore::builder(project).with_emulator(url);
    let store = builder.with_timeout(PATIENCE).build().await;
    Arc::new(store.expect("the store opens"))
}

/// Opens a store with few connections, because all tests share a server.
async fn opened<D: Dialect>(builder: SqlStoreBuilder<D>) -> Arc<dyn AnyStore> {
    let builder = builder.with_table_prefix(prefix());
    let store = builder.with_max_connections(4).with_timeout(PATIENCE).migrate().build().await;
    Arc::new(store.expect("the store opens"))
}

/// Short names for what tests do with a store.
pub trait Watched {
    /// Returns how many users or logins were looked up since calls were last counted.
    fn loads(&self) -> usize;

    /// Waits until this call has been made since calls were last counted.
    fn asked(&self, call: Call) -> impl Future<Output = ()> + Send;

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

    async fn asked(&self, call: Call) {
        let begun = Instant::now();
        while !self.take_calls().contains(&call) {
            assert!(begun.elapsed() < PATIENCE, "{call:?} is asked");
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
        let mut once = Some(change);
        let mut modify = |stored: &Account| {
            let mut account = stored.clone();
            once.take().expect("nobody else changes it")(&mut account);
            Some(account)
        };
        let modified = self.inner().modify(&id.into(), &mut modify).await;
        assert!(matches!(modified, Ok(Modified::Changed(_))), "{modified:?}");
    }
}
