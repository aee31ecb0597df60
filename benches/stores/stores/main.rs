//! `cargo bench -p tower-keep-store-benches --bench stores` measures the calls of the stores, from
//! one task and from 64 concurrent tasks. It compares each store in a database with the bare
//! driver, which runs the same statements.
//!
//! An SQL store and its bare driver share a pool of ten connections, and both read every column. In
//! Redis and Datastore, the store and the bare driver have one connection each. All times are for
//! one call. First, the bench runs rounds that alternate between store and driver, and prints how
//! many times as long the store takes: with 64 tasks, and for Redis and Datastore also with one
//! task. After that, criterion measures one case after the other, unless `KEEP_RATIOS_ONLY` is set.
//! `KEEP_STORE` limits the run to one store.

mod datastore;
mod redis;

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use sqlx::{AssertSqlSafe, ColumnIndex, Connection, Decode, Row, SqlSafeStr, SqlStr, Type};
use tokio::runtime::Runtime;
use tower_keep_bench_cases::records::{NOW, key, record};
use tower_keep_core::{Account, LoginStore, NewLogin, Rotated, Rotation, UserDirectory, UserId};
use tower_keep_memory::MemoryStore;
use tower_keep_mysql::MySqlDialect;
use tower_keep_postgres::PostgresDialect;
use tower_keep_sql::{Dialect, SqlStore};
use tower_keep_sqlite::SqliteDialect;
use tower_keep_store_benches::databases::{find_or_start_server, open};
use xtask::servers::Kind;

const USERS: u64 = 1_000;
const SESSIONS_PER_USER: u64 = 3;
/// The time after which a server aborts a statement.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(45);
/// The numbers of concurrent tasks.
const TASKS: [u64; 2] = [1, 64];

/// Returns a session number that is not in use yet. It is larger than the numbers of the sessions
/// that the bench inserted before it measures.
fn unused_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1 << 32);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Returns the user of a new session: one of many users whom the other calls don't read.
fn user_of_new_session(session: u64) -> u64 {
    USERS + session % 100_000
}

/// A store or a bare driver whose calls are measured.
trait Subject: Send + Sync + 'static {
    /// Loads a user by id.
    fn by_id(&self, user: u64) -> impl Future<Output = ()> + Send;
    /// Loads a session's record with its user.
    fn load_login(&self, session: u64) -> impl Future<Output = ()> + Send;
    /// Creates a session.
    fn create(&self, session: u64) -> impl Future<Output = ()> + Send;
    /// Rotates an existing session from this generation to the next generation.
    fn rotate(&self, session: u64, from: u32) -> impl Future<Output = ()> + Send;
    /// Lists a user's sessions.
    fn list(&self, user: u64) -> impl Future<Output = ()> + Send;
}

/// A store of tower-keep, which is called as the layer calls it.
struct KeepStore<S>(S);

impl<S: UserDirectory<User = Account> + LoginStore + 'static> Subject for KeepStore<S> {
    async fn by_id(&self, user: u64) {
        black_box(self.0.by_id(&user.into()).await.expect("a user")).expect("a user");
    }

    async fn load_login(&self, session: u64) {
        let user_hint = UserId::from(session % USERS);
        let login = self.0.load_login(&key(session), Some(&user_hint)).await.expect("a login");
        black_box(login).expect("a login").user.expect("a user");
    }

    async fn create(&self, session: u64) {
        let record = record(session, user_of_new_session(session));
        let keep_ended_until = record.expires;
        let login = NewLogin::new(&record, keep_ended_until);
        black_box(self.0.create(&login).await.expect("a session"));
    }

    async fn rotate(&self, session: u64, from: u32) {
        let expires = NOW.plus(9_999);
        let key = key(session);
        let rotation = Rotation::new(key, from, NOW, expires);
        let rotated = self.0.rotate(&rotation).await.expect("a session");
        assert!(matches!(black_box(rotated), Some(Rotated::Won(_))));
    }

    async fn list(&self, user: u64) {
        let list = self.0.list(&user.into(), NOW, 100).await.expect("a list");
        assert_eq!(black_box(list).len() as u64, SESSIONS_PER_USER);
    }
}

/// The bare driver, which runs the statements of the store and nothing else.
struct BareDriver<D: Dialect> {
    /// The store whose pools the bare driver uses.
    store: SqlStore<D>,
    user_by_id: SqlStr,
    session_with_user: SqlStr,
    insert: SqlStr,
    to_notify: SqlStr,
    list: SqlStr,
    rotate: SqlStr,
    load: SqlStr,
}

impl<D: Dialect> BareDriver<D> {
    fn new(store: SqlStore<D>) -> Self {
        let queries = store.queries();
        let query = |name| AssertSqlSafe(Arc::<str>::from(queries[name])).into_sql_str();
        Self {
            user_by_id: query("user_by_id"),
            session_with_user: query("session_with_user"),
            insert: query("insert"),
            to_notify: query("to_notify"),
            list: query("list"),
            rotate: query("rotate"),
            load: query("load"),
            store,
        }
    }
}

/// Returns the SQL that begins the transaction of a login.
fn begin_login<D: Dialect>(store: &SqlStore<D>, user: u64) -> SqlStr {
    // Like the store's own numbers, these differ for almost all pairs of users.
    let user_lock = (user % 0x1_0000) as u16;
    AssertSqlSafe(D::begin(Some(user_lock), store.names(), STATEMENT_TIMEOUT)).into_sql_str()
}

/// The type of a column.
#[derive(Clone, Copy)]
enum Column {
    Int,
    Text,
    Bytes,
    Flag,
}

use Column::{Bytes, Flag, Int, Text};

const ACCOUNT_COLUMNS: [Column; 5] = [Text, Text, Text, Flag, Bytes];
/// The last three columns belong to the user's epoch. They are `NULL` unless the session ended
/// together with all sessions of the user.
const SESSION_COLUMNS: [Column; 21] = [
    Bytes, Text, Bytes, Int, Int, Text, Int, Int, Int, Int, Int, Int, Int, Text, Int, Text, Bytes,
    Flag, Int, Text, Int,
];

/// Reads every column of a row.
fn read_columns<R>(row: &R, columns: impl IntoIterator<Item = Column>)
where
    R: Row,
    usize: ColumnIndex<R>,
    i64: Type<R::Database> + for<'r> Decode<'r, R::Database>,
    String: Type<R::Database> + for<'r> Decode<'r, R::Database>,
    Vec<u8>: Type<R::Database> + for<'r> Decode<'r, R::Database>,
    bool: Type<R::Database> + for<'r> Decode<'r, R::Database>,
{
    for (index, column) in columns.into_iter().enumerate() {
        match column {
            Int => drop(black_box(row.get::<Option<i64>, _>(index))),
            // On MySQL, text that is compared byte by byte has a binary type.
            Text => drop(black_box(row.get_unchecked::<Option<String>, _>(index))),
            Bytes => drop(black_box(row.get::<Option<Vec<u8>>, _>(index))),
            Flag => drop(black_box(row.get::<Option<bool>, _>(index))),
        }
    }
}

macro_rules! bare_driver {
    ($dialect:ty, $binds_user_twice:literal, $rotate:expr) => {
        impl Subject for BareDriver<$dialect> {
            async fn by_id(&self, user: u64) {
                let query = sqlx::query(self.user_by_id.clone()).bind(user.to_string());
                let row = query.fetch_optional(self.store.read_pool()).await.expect("a user");
                read_columns(&row.expect("a user"), ACCOUNT_COLUMNS);
            }

            async fn load_login(&self, session: u64) {
                let query = sqlx::query(self.session_with_user.clone())
                    .bind(key(session).as_bytes().to_vec());
                let row = query.fetch_optional(self.store.read_pool()).await.expect("a login");
                read_columns(
                    &row.expect("a login"),
                    ACCOUNT_COLUMNS.into_iter().chain(SESSION_COLUMNS),
                );
            }

            async fn create(&self, session: u64) {
                let new = record(session, user_of_new_session(session));
                let mut connection = self.store.pool().acquire().await.expect("a connection");
                let begin = begin_login(&self.store, user_of_new_session(session));
                let mut write = connection.begin_with(begin).await.expect("a transaction");
                let seconds = |time: tower_keep_core::Timestamp| i64::from(time.as_secs());
                let query = sqlx::query(self.insert.clone())
                    .bind(new.key.as_bytes().to_vec())
                    .bind(new.user.as_str().to_owned())
                    .bind(new.salt.to_vec())
                    .bind(seconds(new.created))
                    .bind(seconds(new.expires))
                    .bind(None::<String>)
                    .bind(0_i64)
                    .bind(None::<i64>)
                    .bind(None::<i64>)
                    .bind(seconds(new.session_started))
                    .bind(seconds(new.last_seen))
                    .bind(new.remember.map(|remember| seconds(remember.expires)))
                    .bind(new.remember.map(|remember| i64::from(remember.seconds)))
                    .bind(new.details.as_str().to_owned())
                    .bind(None::<i64>)
                    .bind(None::<String>)
                    .bind(None::<Vec<u8>>)
                    .bind(false);
                let user = new.user.as_str().to_owned();
                let query = if $binds_user_twice { query.bind(user) } else { query };
                query.execute(&mut *write).await.expect("a session");
                let query = sqlx::query(self.to_notify.clone()).bind(new.user.as_str().to_owned());
                black_box(query.fetch_all(&mut *write).await.expect("no replays"));
                write.commit().await.expect("a session");
            }

            async fn rotate(&self, session: u64, from: u32) {
                let rotate: fn(&Self, u64, u32) -> _ = $rotate;
                rotate(self, session, from).await;
            }

            async fn list(&self, user: u64) {
                let query = sqlx::query(self.list.clone()).bind(user.to_string());
                let query = if $binds_user_twice { query.bind(user.to_string()) } else { query };
                let query = query.bind(i64::from(NOW.as_secs())).bind(100_i64);
                let rows = query.fetch_all(self.store.read_pool()).await.expect("a list");
                assert_eq!(rows.len() as u64, SESSIONS_PER_USER);
                rows.iter().for_each(|row| read_columns(row, SESSION_COLUMNS));
            }
        }
    };
}

/// The rotation for databases whose `UPDATE` returns the changed row.
macro_rules! rotate_returning {
    () => {
        |bare, session, from| {
            let at = i64::from(NOW.as_secs());
            let query = sqlx::query(bare.rotate.clone())
                .bind(at)
                .bind(None::<i64>)
                .bind(at + 9_999)
                .bind(key(session).as_bytes().to_vec())
                .bind(i64::from(from));
            let pool = bare.store.pool().clone();
            async move {
                // Fetches all rows, though there is only one: SQLite has completed the write only
                // once all rows are fetched.
                let rows = query.fetch_all(&pool).await.expect("a session");
                read_columns(rows.first().expect("a rotation that won"), SESSION_COLUMNS);
            }
        }
    };
}

bare_driver!(PostgresDialect, false, rotate_returning!());
bare_driver!(SqliteDialect, false, rotate_returning!());
// MySQL's parameters have no numbers, so a value that is used several times is bound several times.
bare_driver!(MySqlDialect, true, |bare, session, from| {
    let at = i64::from(NOW.as_secs());
    let query = sqlx::query(bare.rotate.clone())
        .bind(at)
        .bind(at)
        .bind(at)
        .bind(None::<i64>)
        .bind(at + 9_999)
        .bind(key(session).as_bytes().to_vec())
        .bind(i64::from(from));
    let load = sqlx::query(bare.load.clone()).bind(key(session).as_bytes().to_vec());
    let pool = bare.store.pool().clone();
    async move {
        let begin = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; START TRANSACTION";
        let mut connection = pool.acquire().await.expect("a connection");
        let mut write = connection.begin_with(begin).await.expect("a transaction");
        query.execute(&mut *write).await.expect("a session");
        let row = load.fetch_optional(&mut *write).await.expect("a session");
        read_columns(&row.expect("a session"), SESSION_COLUMNS);
        write.commit().await.expect("a session");
    }
});

/// The kinds of calls, in the order in which they are measured.
#[derive(Clone, Copy, Debug)]
enum Call {
    ById,
    LoadLogin,
    List,
    Rotate,
    Create,
}

const CALLS: [(Call, &str); 5] = [
    (Call::ById, "by id"),
    (Call::LoadLogin, "load login"),
    (Call::List, "list"),
    (Call::Rotate, "rotate"),
    (Call::Create, "create"),
];

/// The generation from which the next rotation of each session starts, by the session's number.
type Generations = &'static [AtomicU32];

fn new_generations() -> Generations {
    Vec::leak((0..USERS * SESSIONS_PER_USER).map(|_| AtomicU32::new(0)).collect())
}

impl Call {
    /// Makes this call. `number` decides which user or session the call is about.
    async fn make(self, subject: &impl Subject, task: u64, number: u64, generations: Generations) {
        match self {
            Self::ById => subject.by_id(number % USERS).await,
            Self::LoadLogin => subject.load_login(number % (USERS * SESSIONS_PER_USER)).await,
            Self::List => subject.list(number % USERS).await,
            Self::Rotate => {
                // No two tasks rotate the same session, so every rotation wins.
                let session = task * 40 + number % 40;
                let from = generations[session as usize].fetch_add(1, Ordering::Relaxed);
                subject.rotate(session, from).await;
            }
            Self::Create => subject.create(unused_number()).await,
        }
    }
}

/// A number of calls, and the number of concurrent tasks that make them.
#[derive(Clone, Copy)]
struct Work {
    tasks: u64,
    calls: u64,
}

/// Returns how long these calls take.
async fn time_calls<S: Subject>(
    subject: &Arc<S>,
    call: Call,
    Work { tasks, calls }: Work,
    generations: Generations,
) -> Duration {
    let calls_per_task = calls.div_ceil(tasks);
    // Each call of this function starts elsewhere, so that it reads other users and sessions.
    let first = unused_number() * 7_919;
    let begun = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for task in 0..tasks {
        let subject = Arc::clone(subject);
        running.spawn(async move {
            for index in 0..calls_per_task {
                let number = first + task * calls_per_task + index;
                call.make(&*subject, task, number, generations).await;
            }
        });
    }
    running.join_all().await;
    // All tasks make the same number of calls, so together they may make a few calls too many.
    let made = calls_per_task * tasks;
    begun.elapsed().mul_f64(calls as f64 / made as f64)
}

/// Measures every kind of call with criterion.
fn measure<S: Subject>(
    criterion: &mut Criterion,
    runtime: &Runtime,
    [store, subject_name]: [&str; 2],
    subject: &Arc<S>,
    generations: Generations,
) {
    for tasks in TASKS {
        for (call, name) in CALLS {
            let mut group = criterion.benchmark_group(format!("{store}/{name}/{tasks}"));
            group.sample_size(10).warm_up_time(Duration::from_millis(300));
            group.measurement_time(Duration::from_secs(1));
            group.bench_function(subject_name, |bencher| {
                bencher.iter_custom(|calls| {
                    runtime.block_on(time_calls(subject, call, Work { tasks, calls }, generations))
                });
            });
            group.finish();
        }
    }
}

const ROUNDS: usize = 30;
/// The number of calls in a round, for the store and for the bare driver.
const CALLS_PER_ROUND: u64 = 64 * 20;
/// The number of calls in a round for Datastore's emulator, whose calls are slow.
const SLOW_CALLS_PER_ROUND: u64 = 64 * 2;

/// Measures the store and the bare driver in turn. Each round gives the ratio of the store's time to
/// the bare driver's time. The median of these ratios shows what the adapter adds.
async fn compare<S: Subject, B: Subject>(
    database: &str,
    work: Work,
    (keep, keep_generations): (&Arc<S>, Generations),
    (bare, bare_generations): (&Arc<B>, Generations),
) {
    for (call, name) in CALLS {
        let (mut ratios, mut bare_micros) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            // The first of the two fills caches that help the second, so they take turns at being
            // first.
            let (keep_time, bare_time) = if round % 2 == 0 {
                let keep_time = time_calls(keep, call, work, keep_generations).await;
                (keep_time, time_calls(bare, call, work, bare_generations).await)
            } else {
                let bare_time = time_calls(bare, call, work, bare_generations).await;
                (time_calls(keep, call, work, keep_generations).await, bare_time)
            };
            ratios.push(keep_time.as_secs_f64() / bare_time.as_secs_f64());
            bare_micros.push(bare_time.as_secs_f64() / work.calls as f64 * 1e6);
        }
        ratios.sort_by(f64::total_cmp);
        bare_micros.sort_by(f64::total_cmp);
        let (ratio, micros) = (ratios[ROUNDS / 2], bare_micros[ROUNDS / 2]);
        println!(
            "{database}/{name}/{}: bare driver {micros:.0} µs, keep {ratio:.2} times that",
            work.tasks
        );
    }
}

/// Inserts the users and their sessions, and returns the store.
async fn fill<S: UserDirectory<User = Account> + LoginStore>(store: S) -> S {
    for user in 0..USERS {
        let account = Account::new(user, format!("user{user}"), "$argon2id$v=19$m=19456,t=2,p=1$…");
        store.insert(&account).await.expect("an account");
    }
    for session in 0..USERS * SESSIONS_PER_USER {
        let record = record(session, session % USERS);
        let keep_ended_until = record.expires;
        let login = NewLogin::new(&record, keep_ended_until);
        store.create(&login).await.expect("a session");
    }
    store
}

/// Measures the SQL database with this URL.
fn bench_sql<D: Dialect>(criterion: &mut Criterion, runtime: &Runtime, url: &str)
where
    BareDriver<D>: Subject,
{
    let store = runtime.block_on(async { fill(open::<D>(url).await).await });
    let (bare, generations) = (Arc::new(BareDriver::new(store.clone())), new_generations());
    let keep = Arc::new(KeepStore(store));
    runtime.block_on(compare(
        D::NAME,
        Work { tasks: TASKS[1], calls: CALLS_PER_ROUND },
        (&keep, generations),
        (&bare, generations),
    ));
    if std::env::var_os("KEEP_RATIOS_ONLY").is_none() {
        measure(criterion, runtime, [D::NAME, "bare driver"], &bare, generations);
        measure(criterion, runtime, [D::NAME, "keep"], &keep, generations);
    }
}

fn bench_stores(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let is_selected = |name| std::env::var("KEEP_STORE").map_or(true, |only| only == name);
    if is_selected("sqlite") {
        let directory = tempfile::tempdir().expect("a directory");
        let file = format!("sqlite:{}", directory.path().join("keep.db").display());
        bench_sql::<SqliteDialect>(criterion, &runtime, &file);
    }
    if is_selected("postgres") {
        bench_sql::<PostgresDialect>(
            criterion,
            &runtime,
            &find_or_start_server(Kind::Postgres).url,
        );
    }
    if is_selected("mariadb") {
        println!("on MariaDB:");
        bench_sql::<MySqlDialect>(criterion, &runtime, &find_or_start_server(Kind::MariaDb).url);
    }
    if is_selected("mysql") {
        println!("on MySQL:");
        bench_sql::<MySqlDialect>(criterion, &runtime, &find_or_start_server(Kind::MySql).url);
    }
    if is_selected("redis") {
        redis::bench(criterion, &runtime, &find_or_start_server(Kind::Redis).url);
    }
    if is_selected("datastore") {
        datastore::bench(criterion, &runtime, &find_or_start_server(Kind::Datastore).url);
    }
    if is_selected("memory") {
        let memory = Arc::new(KeepStore(runtime.block_on(fill(MemoryStore::new()))));
        measure(criterion, &runtime, ["memory", "keep"], &memory, new_generations());
    }
}

criterion_group!(benches, bench_stores);
criterion_main!(benches);
