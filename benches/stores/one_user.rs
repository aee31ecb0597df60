//! `cargo bench -p tower-keep-store-benches --bench one-user` measures a user with 1,000,000 live
//! sessions (20,000 in Datastore's emulator). It asserts that this user's login takes at most 1.5
//! times as long as the login of a user with one session. It asserts that `revoke_all`, and a login
//! with a session limit, succeed within the store's default time-out. It prints how long the logins
//! of other users take during these calls. `KEEP_STORE` limits the run to one store.

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
use tower_keep_store_benches::databases::find_or_start_server;
use tower_keep_store_benches::tables::{BenchDialect, insert_sessions};
use xtask::servers::{Kind, Server};

/// The number of sessions of a crowded user.
const MANY: u64 = 1_000_000;
/// The number of sessions of a crowded user in Datastore, whose emulator is slow.
const MANY_IN_DATASTORE: u64 = 20_000;
/// The number of the first crowded user. The second crowded user has the next number.
const CROWDED_USER: u64 = 5_000_000;
/// The number of users with one session each. They are the users 0 to 999.
const USERS_WITH_ONE_SESSION: u64 = 1_000;
const ROUNDS: u64 = 20;
/// The number of logins in a round, for each kind of user.
const CALLS: u64 = 20;
const MAX_RATIO: f64 = 1.5;
/// The number of sessions that a limit allows.
const LIMIT: usize = 5;
/// The number of records that one call of `purge` removes at most, as in the layer.
const PURGE_LIMIT: usize = 1_000;

/// Returns a session number that is not in use yet.
fn unused_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1 << 32);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A store that can be filled with sessions.
trait FillableStore: Clone + Send + Sync + 'static {
    type Store: SessionStore + 'static;

    fn store(&self) -> &Self::Store;

    /// Inserts these sessions. Each pair has a session's number and its user's number.
    fn fill(&self, sessions: Vec<(u64, u64)>) -> impl Future<Output = ()> + Send;
}

async fn log_in(
    store: &impl SessionStore,
    user: u64,
    limit: Option<SessionLimit>,
) -> (Duration, Creation) {
    let record = record(unused_number(), user);
    let mut login = NewLogin::new(&record, NOW.plus(60));
    login.limit = limit;
    let begun = Instant::now();
    let creation = store.create(&login).await.expect("a login within the time-out");
    (begun.elapsed(), creation)
}

/// Logs other users in, one after the other, while a call for a crowded user is measured.
struct OtherLogins {
    must_stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<(Duration, u64)>,
}

impl OtherLogins {
    fn start<F: FillableStore>(filled: &F) -> Self {
        let must_stop = Arc::new(AtomicBool::new(false));
        let (filled, must_stop_of_task) = (filled.clone(), Arc::clone(&must_stop));
        let task = tokio::spawn(async move {
            let (mut slowest, mut count) = (Duration::ZERO, 0);
            while !must_stop_of_task.load(Ordering::Relaxed) || count == 0 {
                let (took, _) = log_in(
                    filled.store(),
                    USERS_WITH_ONE_SESSION + count % USERS_WITH_ONE_SESSION,
                    None,
                )
                .await;
                (slowest, count) = (slowest.max(took), count + 1);
            }
            (slowest, count)
        });
        Self { must_stop, task }
    }

    /// Stops the logins, and returns a text that says how long the slowest took.
    async fn stop(self) -> String {
        self.must_stop.store(true, Ordering::Relaxed);
        let (slowest, count) = self.task.await.expect("no panic");
        format!("the slowest of {count} logins of other users meanwhile took {}", millis(slowest))
    }
}

fn revoked() -> End {
    End::new(NOW, EndReason::Revoked, NOW.plus(60))
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

async fn measure<F: FillableStore>(name: &str, fillable: F, many: u64) {
    let store = fillable.store();
    let begun = Instant::now();
    let crowded_sessions = |user: u64| {
        (0..many).map(move |number| (USERS_WITH_ONE_SESSION + user % 2 * many + number, user))
    };
    fillable.fill((0..USERS_WITH_ONE_SESSION).map(|number| (number, number)).collect()).await;
    let sessions = crowded_sessions(CROWDED_USER).chain(crowded_sessions(CROWDED_USER + 1));
    fillable.fill(sessions.collect()).await;
    println!(
        "{name}: two users with {many} sessions each, inserted in {:.0} s",
        begun.elapsed().as_secs_f64()
    );

    let mut medians = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        let mut times = [Vec::new(), Vec::new()];
        for call in 0..CALLS {
            times[0].push(log_in(store, round * CALLS + call, None).await.0);
            times[1].push(log_in(store, CROWDED_USER, None).await.0);
        }
        for (medians, times) in medians.iter_mut().zip(times) {
            medians.push(median(times));
        }
    }
    let [one_micros, many_micros] = medians.map(|medians| median(medians).as_secs_f64() * 1e6);
    let ratio = many_micros / one_micros;
    println!(
        "{name}: a login takes {one_micros:.0} µs with one session, {many_micros:.0} µs with {many}: \
         {ratio:.2} times as long"
    );

    let limit = SessionLimit::new(LIMIT, WhenFull::EndOldest);
    let other_logins = OtherLogins::start(&fillable);
    let (took, creation) = log_in(store, CROWDED_USER, Some(limit)).await;
    assert!(matches!(creation, Creation::Created { ended, .. } if !ended.is_empty()));
    println!("{name}: a login with a limit takes {}; {}", millis(took), other_logins.stop().await);
    let user = UserId::from(CROWDED_USER);
    assert_eq!(store.list(&user, NOW, 100).await.expect("a list").len(), LIMIT);

    let user = UserId::from(CROWDED_USER + 1);
    let other_logins = OtherLogins::start(&fillable);
    let begun = Instant::now();
    store.revoke_all(&user, None, &revoked()).await.expect("an end within the time-out");
    let took = begun.elapsed();
    let (login_time, _) = log_in(store, CROWDED_USER + 1, None).await;
    println!(
        "{name}: revoke_all takes {}, and a login right after it {}; {}",
        millis(took),
        millis(login_time),
        other_logins.stop().await
    );
    assert_eq!(store.list(&user, NOW, 100).await.expect("a list").len(), 1);

    let other_logins = OtherLogins::start(&fillable);
    let begun = Instant::now();
    let (mut removed, mut slowest) = (0, Duration::ZERO);
    loop {
        let begun = Instant::now();
        let count =
            store.purge(NOW.plus(60), PURGE_LIMIT).await.expect("a purge within the time-out");
        slowest = slowest.max(begun.elapsed());
        removed += count;
        if count == 0 {
            break;
        }
    }
    println!(
        "{name}: purge removes {removed} sessions in {:.0} s, and each call of {PURGE_LIMIT} takes at most \
         {}; {}",
        begun.elapsed().as_secs_f64(),
        millis(slowest),
        other_logins.stop().await
    );
    assert!(removed as u64 >= 2 * many, "{removed}");
    assert!(ratio <= MAX_RATIO, "{name}: {ratio:.2}");
}

/// Two stores with the same tables in an SQL database.
struct Sql<D: BenchDialect> {
    /// The measured store, with its default time-out.
    store: SqlStore<D>,
    /// The store that fills the tables, with a long time-out.
    patient_store: SqlStore<D>,
}

impl<D: BenchDialect> Clone for Sql<D> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), patient_store: self.patient_store.clone() }
    }
}

impl<D: BenchDialect> Sql<D> {
    async fn open(url: &str) -> Self {
        let builder = || {
            let prefix = format!("o{}_", std::process::id());
            SqlStore::<D>::builder(url).with_table_prefix(prefix).migrate()
        };
        let patient = builder().with_timeout(Duration::from_secs(600)).with_max_connections(1);
        let patient_store = patient.build().await.expect("the store opens");
        Self { store: builder().build().await.expect("the store opens"), patient_store }
    }
}

impl<D: BenchDialect> FillableStore for Sql<D> {
    type Store = SqlStore<D>;

    fn store(&self) -> &Self::Store {
        &self.store
    }

    async fn fill(&self, sessions: Vec<(u64, u64)>) {
        let names = self.store.names();
        let mut sessions = sessions;
        // InnoDB stores rows in the order of their keys, so inserting them in this order is faster.
        sessions.sort_by_cached_key(|(number, _)| key(*number));
        for chunk in sessions.chunks(1_000) {
            D::run_sql(
                &self.patient_store,
                &names.fill(&insert_sessions::<D>(chunk.iter().copied())),
            )
            .await;
        }
        D::run_sql(&self.patient_store, &names.fill(D::ANALYZE)).await;
    }
}

impl FillableStore for MemoryStore<Account> {
    type Store = Self;

    fn store(&self) -> &Self {
        self
    }

    async fn fill(&self, sessions: Vec<(u64, u64)>) {
        fill_by_logins(self, sessions).await;
    }
}

impl FillableStore for DatastoreStore {
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

/// A store in Redis, and a connection that fills it.
#[derive(Clone)]
struct Redis {
    store: RedisStore,
    connection: MultiplexedConnection,
    #[expect(dead_code, reason = "dropping this value stops the server")]
    server: Arc<Server>,
}

impl Redis {
    async fn open() -> Self {
        let settings = ["--appendonly", "no", "--maxmemory-policy", "noeviction"];
        let server = Server::start_redis(&settings).expect("a server");
        let store = RedisStore::builder(server.url()).build().await.expect("a store");
        let client = redis::Client::open(server.url()).expect("a URL");
        let connection = client.get_multiplexed_async_connection().await.expect("a connection");
        Self { store, connection, server: Arc::new(server) }
    }
}

impl FillableStore for Redis {
    type Store = RedisStore;

    fn store(&self) -> &RedisStore {
        &self.store
    }

    async fn fill(&self, sessions: Vec<(u64, u64)>) {
        let mut connection = self.connection.clone();
        // The store writes one session, the model. All other sessions are copies of the model.
        let model = record(unused_number(), 0);
        let login = NewLogin::new(&model, model.expires);
        self.store.create(&login).await.expect("a session");
        let encode_key = |key: &tower_keep_core::SessionKey| URL_SAFE_NO_PAD.encode(key.as_bytes());
        let name = format!("keep:{{0}}:session:{}", encode_key(&model.key));
        let mut get = redis::cmd("GET");
        let value: String =
            get.arg(&name).query_async(&mut connection).await.expect("the session's value");
        let ttl_millis = u64::from(model.expires.as_secs() - NOW.as_secs()) * 1_000;
        for chunk in sessions.chunks(1_000) {
            let mut writes = Pipeline::new();
            for (number, user) in chunk {
                let encoded_key = encode_key(&key(*number));
                let user_key = |suffix: &str| format!("keep:{{{user}}}:{suffix}");
                writes
                    .pset_ex(user_key(&format!("session:{encoded_key}")), &value, ttl_millis)
                    .ignore();
                writes.zadd(user_key("live"), &encoded_key, model.expires.as_secs()).ignore();
                writes.zadd(user_key("begun"), &encoded_key, model.created.as_secs()).ignore();
                writes
                    .pset_ex(format!("keep:session:{encoded_key}"), *user, ttl_millis + 60_000)
                    .ignore();
            }
            let () = writes.query_async(&mut connection).await.expect("written");
        }
        self.store.revoke(&[model.key], &revoked()).await.expect("the model's end");
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let is_selected = |name| std::env::var("KEEP_STORE").map_or(true, |only| only == name);
    runtime.expect("a runtime").block_on(async {
        if is_selected("memory") {
            measure("memory", MemoryStore::new(), MANY).await;
        }
        if is_selected("redis") {
            measure("redis", Redis::open().await, MANY).await;
        }
        if is_selected("sqlite") {
            let directory = tempfile::tempdir().expect("a directory");
            let file = format!("sqlite:{}", directory.path().join("keep.db").display());
            measure("sqlite", Sql::<SqliteDialect>::open(&file).await, MANY).await;
        }
        if is_selected("postgres") {
            let server = find_or_start_server(Kind::Postgres);
            measure("postgres", Sql::<PostgresDialect>::open(&server.url).await, MANY).await;
        }
        if is_selected("mariadb") {
            let server = find_or_start_server(Kind::MariaDb);
            measure("mariadb", Sql::<MySqlDialect>::open(&server.url).await, MANY).await;
        }
        if is_selected("mysql") {
            let server = find_or_start_server(Kind::MySql);
            measure("mysql", Sql::<MySqlDialect>::open(&server.url).await, MANY).await;
        }
        if is_selected("datastore") {
            // Uses the Firestore emulator. The Datastore emulator has no indexes, so each query
            // would take ten seconds.
            let server = find_or_start_server(Kind::Firestore);
            let project = format!("datastore://one-user-{}", std::process::id());
            let builder = DatastoreStore::builder(project).with_emulator(&server.url);
            measure("datastore", builder.build().await.expect("a store"), MANY_IN_DATASTORE).await;
        }
    });
}
