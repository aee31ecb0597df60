//! A store that counts what it is asked, and fails on demand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tower_keep::{Account, LoginStore, Modified, StoreErrorKind, UserDirectory};
use tower_keep_datastore::DatastoreStore;
use tower_keep_memory::MemoryStore;
use tower_keep_mysql::MySqlStore;
use tower_keep_postgres::PostgresStore;
use tower_keep_redis::RedisStore;
use tower_keep_sql::{Dialect, SqlStoreBuilder};
use tower_keep_sqlite::SqliteStore;
use tower_keep_testkit::{Call, FaultyStore, Trouble};

/// A store of users and sessions, whichever it is.
pub trait AnyStore: UserDirectory<User = Account> + LoginStore {}

impl<S: UserDirectory<User = Account> + LoginStore> AnyStore for S {}

/// Users and sessions, with troubles and counts. What is asked of [`inner`](FaultyStore::inner) has
/// none.
pub type WatchedStore = FaultyStore<Arc<dyn AnyStore>>;

/// An empty store, of the kind that `KEEP_STORE` names: `memory`, which is the default, `sqlite`,
/// `postgres`, `mariadb`, `mysql`, `redis`, `redis-sentinel`, `redis-cluster`, `datastore` or `firestore` (both of
/// Google's emulators). `cargo xtask test` runs the same tests on each.
///
/// # Panics
///
/// If there is no such kind, or it can't be opened.
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

/// Whether that store drops what has expired by itself, so that there is nothing to purge.
pub fn drops_by_itself() -> bool {
    std::env::var("KEEP_STORE").is_ok_and(|kind| kind.starts_with("redis"))
}

/// For a call to a store: other tests run beside, and transactions may wait for each other.
const PATIENCE: Duration = Duration::from_secs(20);

fn url(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set; `cargo xtask test` starts a server"))
}

/// What names begin with that no other test has: tests run side by side.
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

/// In a project of its own: emulators make projects as they are named.
async fn datastore(url: String) -> Arc<dyn AnyStore> {
    let project = format!("datastore://{}", prefix().replace('_', "-").trim_end_matches('-'));
    let builder = DatastoreStore::builder(project).with_emulator(url);
    let store = builder.with_timeout(PATIENCE).build().await;
    Arc::new(store.expect("the store opens"))
}

/// Few connections, as all tests share a server.
async fn opened<D: Dialect>(builder: SqlStoreBuilder<D>) -> Arc<dyn AnyStore> {
    let builder = builder.with_table_prefix(prefix());
    let store = builder.with_max_connections(4).with_timeout(PATIENCE).migrate().build().await;
    Arc::new(store.expect("the store opens"))
}

/// Short words for what tests do with it.
pub trait Watched {
    /// How many users or logins were looked up since anything was last counted.
    fn loads(&self) -> usize;

    /// Waits until this is asked, since anything was last counted.
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
