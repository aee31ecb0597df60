//! `cargo bench -p tower-keep-store-benches --bench one-user` measures a user with 1,000,000 live
//! sessions (20,000 in Datastore's emulator). It shows whether a login takes longer than with one
//! session, whether a login with a limit and the end of all sessions succeed within the store's own
//! time-out, and how long the logins of other users wait meanwhile. `KEEP_STORE` limits the run to
//! one store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use redis::Pipeline;
use redis::aio::MultiplexedConnection;
use tower_keep_bench_cases::records::{NOW, earlier_record, key, record};
use tower_keep_core::{
    Account, Creation, End, EndReason, NewLogin, SessionLimit, SessionStore, UserId, WhenFull,
};
use tower_keep_datastore::DatastoreStore;
use tower_keep_memory::MemoryStore;
use tower_keep_mysql::MySqlDialect;
use tower_keep_postgres::PostgresDialect;
use tower_keep_redis::RedisStore;
use tower_keep_sql::SqlStore;
use tower_keep_sqlite::SqliteDialect;
use tower_keep_store_benches::databases::server;
use tower_keep_store_benches::loaded::{Loaded, insert_sessions};
use xtask::servers::{Kind, Server};

const MANY: u64 = 1_000_000;
/// The number for Datastore, whose emulator is slow.
const MANY_THERE: u64 = 20_000;
/// The first of two consecutive users with this many sessions each.
const CROWD: u64 = 5_000_000;
/// The number of users with one session each.
const OTHERS: u64 = 1_000;
const ROUNDS: u64 = 20;
const CALLS: u64 = 20;
const AT_MOST: f64 = 1.5;
/// The number of sessions that a limit allows.
const LIMIT: usize = 5;
/// The number of records that one call removes, as in the layer.
const PURGED: usize = 1_000;

/// Returns a session number that is not in use yet.
fn next() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1 << 32);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A store that can be filled with sessions.
trait Filled: Clone + Send + Sync + 'static {
    type Store: SessionStore + 'static;

    fn store(&self) -> &Self::Store;

    /// Inserts these sessions, each given by its number and its user.
    fn fill(&self, sessions: Vec<(u64, u64)>) -> impl Future<Output = ()> + Send;
}

async fn log_in(
    store: &impl SessionStore,
    user: u64,
    limit: Option<SessionLimit>,
) -> (Duration, Creation) {
    let record = record(next(), user);
    let mut login = NewLogin::new(&record, NOW.plus(60));
    login.limit = limit;
    let begun = Instant::now();
    let creation = store.create(&login).await.expect("a login within the time-out");
    (begun.elapsed(), creation)
}

/// Logins of other users, one after the other, while something else is measured. Its end reports
/// the slowest.
struct Meanwhile {
    is_over: Arc<AtomicBool>,
    logins: tokio::task::JoinHandle<(Duration, u64)>,
}

impl Meanwhile {
    fn start<F: Filled>(filled: &F) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let (filled, ends) = (filled.clone(), Arc::clone(&is_over));
        let logins = tokio::spawn(async move {
            let (mut slowest, mut count) = (Duration::ZERO, 0);
            while !ends.load(Ordering::Relaxed) || count == 0 {
                let (took, _) = log_in(filled.store(), OTHERS + count % OTHERS, None).await;
                (slowest, count) = (slowest.max(took), count + 1);
            }
            (slowest, count)
        });
        Self { is_over, logins }
    }

    async fn end(self) -> String {
        self.is_over.store(true, Ordering::Relaxed);
        let (slowest, count) = self.logins.await.expect("no panic");
        format!("the slowest of {count} logins of others meanwhile {}", millis(slowest))
    }
}

fn end() -> End {
    End::new(NOW, EndReason::Revoked, NOW.plus(60))
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

async fn measure<F: Filled>(name: &str, filled: F, many: u64) {
    let store = filled.store();
    let begun = Instant::now();
    let crowd = |user: u64| (0..many).map(move |number| (OTHERS + user % 2 * many + number, user));
    filled.fill((0..OTHERS).map(|number| (number, number)).collect()).await;
    filled.fill(crowd(CROWD).chain(crowd(CROWD + 1)).collect()).await;
    println!(
        "{name}: twice {many} sessions of one user, loaded in {:.0} s",
        begun.elapsed().as_secs_f64()
    );

    let mut medians = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        let mut times = [Vec::new(), Vec::new()];
        for call in 0..CALLS {
            times[0].push(log_in(store, round * CALLS + call, None).await.0);
            times[1].push(log_in(store, CROWD, None).await.0);
        }
        for (medians, times) in medians.iter_mut().zip(times) {
            medians.push(median(times));
        }
    }
    let [one, crowd] = medians.map(|medians| median(medians).as_secs_f64() * 1e6);
    let ratio = crowd / one;
    println!("{name}: a login takes {one:.0} µs with one session, {crowd:.0} µs: {ratio:.2} times");

    let full = SessionLimit::new(LIMIT, WhenFull::EndOldest);
    let meanwhile = Meanwhile::start(&filled);
    let (took, creation) = log_in(store, CROWD, Some(full)).await;
    assert!(matches!(creation, Creation::Created { ended, .. } if !ended.is_empty()));
    println!("{name}: a login with a limit takes {}; {}", millis(took), meanwhile.end().await);
    let user = UserId::from(CROWD);
    assert_eq!(store.list(&user, NOW, 100).await.expect("a list").len(), LIMIT);

    let user = UserId::from(CROWD + 1);
    let meanwhile = Meanwhile::start(&filled);
    let begun = Instant::now();
    store.revoke_all(&user, None, &end()).await.expect("an end within the time-out");
    let took = begun.elapsed();
    let (after, _) = log_in(store, CROWD + 1, None).await;
    println!(
        "{name}: the end of all takes {}, and a login right after it {}; {}",
        millis(took),
        millis(after),
        meanwhile.end().await
    );
    assert_eq!(store.list(&user, NOW, 100).await.expect("a list").len(), 1);

    let meanwhile = Meanwhile::start(&filled);
    let begun = Instant::now();
    let (mut removed, mut slowest) = (0, Duration::ZERO);
    loop {
        let begun = Instant::now();
        let some = store.purge(NOW.plus(60), PURGED).await.expect("upkeep within the time-out");
        slowest = slowest.max(begun.elapsed());
        removed += some;
        if some == 0 {
            break;
        }
    }
    println!(
        "{name}: {removed} are removed in {:.0} s, {PURGED} at once in at most {}; {}",
        begun.elapsed().as_secs_f64(),
        millis(slowest),
        meanwhile.end().await
    );
    assert!(removed as u64 >= 2 * many, "{removed}");
    assert!(ratio <= AT_MOST, "{name}: {ratio:.2}");
}

/// An SQL database: a store with its own time-outs, and a patient store that fills the tables.
struct Sql<D: Loaded>(SqlStore<D>, SqlStore<D>);

impl<D: Loaded> Clone for Sql<D> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), self.1.clone())
    }
}

impl<D: Loaded> Sql<D> {
    async fn open(url: &str) -> Self {
        let builder = || {
            let prefix = format!("o{}_", std::process::id());
            SqlStore::<D>::builder(url).with_table_prefix(prefix).migrate()
        };
        let patient = builder().with_timeout(Duration::from_secs(600)).with_max_connections(1);
        let patient = patient.build().await.expect("the store opens");
        Self(builder().build().await.expect("the store opens"), patient)
    }
}

impl<D: Loaded> Filled for Sql<D> {
    type Store = SqlStore<D>;

    fn store(&self) -> &Self::Store {
        &self.0
    }

    async fn fill(&self, sessions: Vec<(u64, u64)>) {
        let names = self.0.measured().names;
        // Sorted by key, because InnoDB stores rows in that order.
        let mut sessions = sessions;
        sessions.sort_by_cached_key(|(number, _)| key(*number));
        for some in sessions.chunks(1_000) {
            D::run(&self.1, &names.fill(&insert_sessions::<D>(some.iter().copied()))).await;
        }
        D::run(&self.1, &names.fill(D::ANALYZE)).await;
    }
}

impl Filled for MemoryStore<Account> {
    type Store = Self;

    fn store(&self) -> &Self {
        self
    }

    async fn fill(&self, sessions: Vec<(u64, u64)>) {
        fill_by_logins(self, sessions).await;
    }
}

impl Filled for DatastoreStore {
    type Store = Self;

    fn store(&self) -> &Self {
        self
    }

    async fn fill(&self, sessions: Vec<(u64, u64)>) {
        fill_by_logins(self, sessions).await;
    }
}

async fn fill_by_logins(store: &impl SessionStore, sessions: Vec<(u64, u64)>) {
    for (number, user) in sessions {
        let record = earlier_record(number, user);
        let keep_ended_until = record.expires;
        let login = NewLogin::new(&record, keep_ended_until);
        store.create(&login).await.expect("a session");
    }
}

/// Redis, which is filled by commands.
#[derive(Clone)]
struct Redis(
    RedisStore,
    MultiplexedConnection,
    #[expect(dead_code, reason = "it ends with this")] Arc<Server>,
);

impl Redis {
    async fn open() -> Self {
        let settings = ["--appendonly", "no", "--maxmemory-policy", "noeviction"];
        let server = Server::start_redis(&settings).expect("a server");
        let store = RedisStore::builder(server.url()).build().await.expect("a store");
        let client = redis::Client::open(server.url()).expect("a URL");
        let connection = client.get_multiplexed_async_connection().await.expect("a connection");
        Self(store, connection, Arc::new(server))
    }
}

impl Filled for Redis {
    type Store = RedisStore;

    fn store(&self) -> &RedisStore {
        &self.0
    }

    async fn fill(&self, sessions: Vec<(u64, u64)>) {
        let mut connection = self.1.clone();
        // The store writes one session. All others are copies of it.
        let model = record(next(), 0);
        let login = NewLogin::new(&model, model.expires);
        self.0.create(&login).await.expect("a session");
        let member = |key: &tower_keep_core::SessionKey| URL_SAFE_NO_PAD.encode(key.as_bytes());
        let name = format!("keep:{{0}}:session:{}", member(&model.key));
        let mut get = redis::cmd("GET");
        let value: String =
            get.arg(&name).query_async(&mut connection).await.expect("the session's value");
        let life = u64::from(model.expires.as_secs() - NOW.as_secs()) * 1_000;
        for some in sessions.chunks(1_000) {
            let mut writes = Pipeline::new();
            for (number, user) in some {
                let own = member(&key(*number));
                let of_user = |what: &str| format!("keep:{{{user}}}:{what}");
                writes.pset_ex(of_user(&format!("session:{own}")), &value, life).ignore();
                writes.zadd(of_user("live"), &own, model.expires.as_secs()).ignore();
                writes.zadd(of_user("begun"), &own, model.created.as_secs()).ignore();
                writes.pset_ex(format!("keep:session:{own}"), *user, life + 60_000).ignore();
            }
            let () = writes.query_async(&mut connection).await.expect("written");
        }
        self.0.revoke(&[model.key], &end()).await.expect("the model's end");
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let is_asked_for = |name| std::env::var("KEEP_STORE").map_or(true, |only| only == name);
    runtime.expect("a runtime").block_on(async {
        if is_asked_for("memory") {
            measure("memory", MemoryStore::new(), MANY).await;
        }
        if is_asked_for("redis") {
            measure("redis", Redis::open().await, MANY).await;
        }
        if is_asked_for("sqlite") {
            let directory = tempfile::tempdir().expect("a directory");
            let file = format!("sqlite:{}", directory.path().join("keep.db").display());
            measure("sqlite", Sql::<SqliteDialect>::open(&file).await, MANY).await;
        }
        if is_asked_for("postgres") {
            let server = server(Kind::Postgres);
            measure("postgres", Sql::<PostgresDialect>::open(&server.url).await, MANY).await;
        }
        if is_asked_for("mariadb") {
            let server = server(Kind::MariaDb);
            measure("mariadb", Sql::<MySqlDialect>::open(&server.url).await, MANY).await;
        }
        if is_asked_for("mysql") {
            let server = server(Kind::MySql);
            measure("mysql", Sql::<MySqlDialect>::open(&server.url).await, MANY).await;
        }
        if is_asked_for("datastore") {
            // Google's older emulator has no indexes: each query there takes ten seconds.
            let server = server(Kind::Firestore);
            let project = format!("datastore://one-user-{}", std::process::id());
            let builder = DatastoreStore::builder(project).with_emulator(&server.url);
            measure("datastore", builder.build().await.expect("a store"), MANY_THERE).await;
        }
    });
}
