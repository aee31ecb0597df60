//! `cargo bench -p tower-keep-store-benches --bench stores` measures the calls of the stores, from one
//! task and from 64 concurrent tasks. It compares each SQL store with the bare driver, which runs
//! the same statements.
//!
//! Store and driver share one pool of ten connections, and both read every column. For Redis and
//! Datastore each has one connection. The times are per call. The bench first runs rounds that
//! alternate between store and driver, and prints their ratios: at 64 tasks, and for Redis and
//! Datastore also at one. Then criterion measures one case after the other, unless `KEEP_RATIOS` is
//! set. `KEEP_STORE` limits the run to one store.

mod datastore;
mod redis;

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use sqlx::{AssertSqlSafe, Connection, MySql, Postgres, Sqlite};
use tokio::runtime::Runtime;
use tower_keep_bench_cases::records::{NOW, key, record};
use tower_keep_core::{Account, LoginStore, NewLogin, Rotated, Rotation, UserDirectory, UserId};
use tower_keep_memory::MemoryStore;
use tower_keep_mysql::MySqlDialect;
use tower_keep_postgres::PostgresDialect;
use tower_keep_sql::{Dialect, Driver, Measured, SqlStore};
use tower_keep_sqlite::SqliteDialect;
use tower_keep_store_benches::databases::{open, server};
use xtask::servers::Kind;

const USERS: u64 = 1_000;
/// The number of sessions of each user.
const SESSIONS: u64 = 3;
const TASKS: [u64; 2] = [1, 64];

/// The next session number that is not in use yet. It is larger than those of the existing
/// sessions.
static NEXT: AtomicU64 = AtomicU64::new(1 << 32);

fn next() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Returns one of many users whom the other calls don't read.
fn new_user(session: u64) -> u64 {
    USERS + session % 100_000
}

/// The calls that are measured, of a store or of a bare driver.
trait Subject: Send + Sync + 'static {
    /// Loads a user by id.
    fn by_id(&self, user: u64) -> impl Future<Output = ()> + Send;
    /// Loads a session's record with its user.
    fn login(&self, session: u64) -> impl Future<Output = ()> + Send;
    /// Creates a session.
    fn create(&self, session: u64) -> impl Future<Output = ()> + Send;
    /// Rotates an existing session from this generation to the next.
    fn rotate(&self, session: u64, from: u32) -> impl Future<Output = ()> + Send;
    /// Lists a user's sessions.
    fn list(&self, user: u64) -> impl Future<Output = ()> + Send;
}

/// A store, which is called as the layer calls it.
struct Keep<S>(S);

impl<S: UserDirectory<User = Account> + LoginStore + 'static> Subject for Keep<S> {
    async fn by_id(&self, user: u64) {
        black_box(self.0.by_id(&user.into()).await.expect("a user")).expect("a user");
    }

    async fn login(&self, session: u64) {
        let user_hint = UserId::from(session % USERS);
        let login = self.0.load_login(&key(session), Some(&user_hint)).await.expect("a login");
        black_box(login).expect("a login").user.expect("a user");
    }

    async fn create(&self, session: u64) {
        let record = record(session, new_user(session));
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
        assert_eq!(black_box(list).len() as u64, SESSIONS);
    }
}

/// The bare driver, which runs the same statements and nothing else.
struct Bare<D: Dialect>(Measured<D>, SqlStore<D>);

/// The type of a column.
#[derive(Clone, Copy)]
enum Column {
    Int,
    Text,
    Bytes,
    Flag,
}

use Column::{Bytes, Flag, Int, Text};

const ACCOUNT: [Column; 5] = [Text, Text, Text, Flag, Bytes];
/// The last three columns say how the session ended, if it ended together with others.
const SESSION: [Column; 21] = [
    Bytes, Text, Bytes, Int, Int, Text, Int, Int, Int, Int, Int, Int, Int, Text, Int, Text, Bytes,
    Flag, Int, Text, Int,
];

/// Reads every column.
fn read<DB: Driver>(row: &DB::Row, columns: impl IntoIterator<Item = Column>) {
    for (index, column) in columns.into_iter().enumerate() {
        match column {
            Int => drop(black_box(DB::int(row, index).expect("a number"))),
            Text => drop(black_box(DB::text(row, index).expect("a text"))),
            Bytes => drop(black_box(DB::bytes(row, index).expect("bytes"))),
            Flag => drop(black_box(DB::flag(row, index).expect("yes or no"))),
        }
    }
}

macro_rules! bare {
    ($dialect:ty, $database:ty, $names_twice:literal, $rotate:expr) => {
        impl Subject for Bare<$dialect> {
            async fn by_id(&self, user: u64) {
                let query = sqlx::query(self.0.by_id.clone()).bind(user.to_string());
                let row = query.fetch_optional(&self.0.reads).await.expect("a user");
                read::<$database>(&row.expect("a user"), ACCOUNT);
            }

            async fn login(&self, session: u64) {
                let query =
                    sqlx::query(self.0.login.clone()).bind(key(session).as_bytes().to_vec());
                let row = query.fetch_optional(&self.0.reads).await.expect("a login");
                read::<$database>(&row.expect("a login"), ACCOUNT.into_iter().chain(SESSION));
            }

            async fn create(&self, session: u64) {
                let new = record(session, new_user(session));
                let mut connection = self.0.writes.acquire().await.expect("a connection");
                let begin = AssertSqlSafe(self.1.measured_begin(&new.user));
                let mut write = connection.begin_with(begin).await.expect("a transaction");
                let seconds = |time: tower_keep_core::Timestamp| i64::from(time.as_secs());
                let query = sqlx::query(self.0.insert.clone())
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
                let query = if $names_twice { query.bind(user) } else { query };
                query.execute(&mut *write).await.expect("a session");
                let query =
                    sqlx::query(self.0.to_notify.clone()).bind(new.user.as_str().to_owned());
                black_box(query.fetch_all(&mut *write).await.expect("no replays"));
                write.commit().await.expect("a session");
            }

            async fn rotate(&self, session: u64, from: u32) {
                let rotate: fn(&Self, u64, u32) -> _ = $rotate;
                rotate(self, session, from).await;
            }

            async fn list(&self, user: u64) {
                let query = sqlx::query(self.0.list.clone()).bind(user.to_string());
                let query = if $names_twice { query.bind(user.to_string()) } else { query };
                let query = query.bind(i64::from(NOW.as_secs())).bind(100_i64);
                let rows = query.fetch_all(&self.0.reads).await.expect("a list");
                assert_eq!(rows.len() as u64, SESSIONS);
                rows.iter().for_each(|row| read::<$database>(row, SESSION));
            }
        }
    };
}

/// The rotation for databases whose UPDATE returns its row.
macro_rules! returning {
    ($database:ty) => {
        |bare, session, from| {
            let at = i64::from(NOW.as_secs());
            let query = sqlx::query(bare.0.rotate.clone())
                .bind(at)
                .bind(None::<i64>)
                .bind(at + 9_999)
                .bind(key(session).as_bytes().to_vec())
                .bind(i64::from(from));
            let pool = bare.0.writes.clone();
            async move {
                // Fetches all rows although there is one, because SQLite has not written it before.
                let rows = query.fetch_all(&pool).await.expect("a session");
                read::<$database>(rows.first().expect("a rotation that won"), SESSION);
            }
        }
    };
}

bare!(PostgresDialect, Postgres, false, returning!(Postgres));
bare!(SqliteDialect, Sqlite, false, returning!(Sqlite));
// A parameter without a number is bound once for each place where it is used.
bare!(MySqlDialect, MySql, true, |bare, session, from| {
    let at = i64::from(NOW.as_secs());
    let query = sqlx::query(bare.0.rotate.clone())
        .bind(at)
        .bind(at)
        .bind(at)
        .bind(None::<i64>)
        .bind(at + 9_999)
        .bind(key(session).as_bytes().to_vec())
        .bind(i64::from(from));
    let load = sqlx::query(bare.0.load.clone()).bind(key(session).as_bytes().to_vec());
    let pool = bare.0.writes.clone();
    async move {
        let begin = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; START TRANSACTION";
        let mut connection = pool.acquire().await.expect("a connection");
        let mut write = connection.begin_with(begin).await.expect("a transaction");
        query.execute(&mut *write).await.expect("a session");
        let row = load.fetch_optional(&mut *write).await.expect("a session");
        read::<MySql>(&row.expect("a session"), SESSION);
        write.commit().await.expect("a session");
    }
});

/// The kinds of calls.
#[derive(Clone, Copy, Debug)]
enum Call {
    ById,
    Login,
    List,
    Rotate,
    Create,
}

const CALLS: [(Call, &str); 5] = [
    (Call::ById, "by id"),
    (Call::Login, "login"),
    (Call::List, "list"),
    (Call::Rotate, "rotate"),
    (Call::Create, "create"),
];

/// The generation of each session.
type Generations = &'static [AtomicU32];

fn generations() -> Generations {
    Vec::leak((0..USERS * SESSIONS).map(|_| AtomicU32::new(0)).collect())
}

impl Call {
    async fn make(self, subject: &impl Subject, task: u64, number: u64, generations: Generations) {
        match self {
            Self::ById => subject.by_id(number % USERS).await,
            Self::Login => subject.login(number % (USERS * SESSIONS)).await,
            Self::List => subject.list(number % USERS).await,
            Self::Rotate => {
                // Each task has sessions of its own, so that every rotation wins.
                let session = task * 40 + number % 40;
                let from = generations[session as usize].fetch_add(1, Ordering::Relaxed);
                subject.rotate(session, from).await;
            }
            Self::Create => subject.create(next()).await,
        }
    }
}

/// Returns how long this many calls take, from this many concurrent tasks.
async fn time<S: Subject>(
    subject: &Arc<S>,
    call: Call,
    (tasks, calls): (u64, u64),
    generations: Generations,
) -> Duration {
    let each = calls.div_ceil(tasks);
    let first = next() * 7_919;
    let begun = Instant::now();
    let mut all = tokio::task::JoinSet::new();
    for task in 0..tasks {
        let subject = Arc::clone(subject);
        all.spawn(async move {
            for number in 0..each {
                call.make(&*subject, task, first + task * each + number, generations).await;
            }
        });
    }
    all.join_all().await;
    // The tasks make a few more calls than requested, so that all make the same number.
    let done = each * tasks;
    begun.elapsed().mul_f64(calls as f64 / done as f64)
}

/// Measures every kind of call.
fn measure<S: Subject>(
    criterion: &mut Criterion,
    runtime: &Runtime,
    [store, who]: [&str; 2],
    subject: &Arc<S>,
    generations: Generations,
) {
    for tasks in TASKS {
        for (call, name) in CALLS {
            let mut group = criterion.benchmark_group(format!("{store}/{name}/{tasks}"));
            group.sample_size(10).warm_up_time(Duration::from_millis(300));
            group.measurement_time(Duration::from_secs(1));
            group.bench_function(who, |bencher| {
                bencher.iter_custom(|calls| {
                    runtime.block_on(time(subject, call, (tasks, calls), generations))
                });
            });
            group.finish();
        }
    }
}

const ROUNDS: usize = 30;
/// The number of calls in a round, and in a round of slow calls.
const ROUND: u64 = 64 * 20;
const SHORT_ROUND: u64 = 64 * 2;

/// Measures store and bare driver in turn. The median of the rounds' ratios shows what the adapter
/// adds.
async fn compare<S: Subject, B: Subject>(
    database: &str,
    (tasks, calls): (u64, u64),
    (keep, generations): (&Arc<S>, Generations),
    (bare, bare_generations): (&Arc<B>, Generations),
) {
    for (call, name) in CALLS {
        let (mut ratios, mut bares) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let work = (tasks, calls);
            // The second one finds the caches as the first one left them, so they take turns.
            let (kept, bared) = if round % 2 == 0 {
                let kept = time(keep, call, work, generations).await;
                (kept, time(bare, call, work, bare_generations).await)
            } else {
                let bared = time(bare, call, work, bare_generations).await;
                (time(keep, call, work, generations).await, bared)
            };
            ratios.push(kept.as_secs_f64() / bared.as_secs_f64());
            bares.push(bared.as_secs_f64() / calls as f64 * 1e6);
        }
        ratios.sort_by(f64::total_cmp);
        bares.sort_by(f64::total_cmp);
        let (ratio, bare) = (ratios[ROUNDS / 2], bares[ROUNDS / 2]);
        println!("{database}/{name}/{tasks}: bare driver {bare:.0} µs, keep {ratio:.2} times that");
    }
}

async fn fill<S: UserDirectory<User = Account> + LoginStore>(store: S) -> S {
    for user in 0..USERS {
        let account = Account::new(user, format!("user{user}"), "$argon2id$v=19$m=19456,t=2,p=1$…");
        store.insert(&account).await.expect("an account");
    }
    for session in 0..USERS * SESSIONS {
        let record = record(session, session % USERS);
        let keep_ended_until = record.expires;
        let login = NewLogin::new(&record, keep_ended_until);
        store.create(&login).await.expect("a session");
    }
    store
}

fn database<D: Dialect>(criterion: &mut Criterion, runtime: &Runtime, url: &str)
where
    Bare<D>: Subject,
{
    let store = runtime.block_on(async { fill(open::<D>(url).await).await });
    let (bare, generations) = (Arc::new(Bare(store.measured(), store.clone())), generations());
    let keep = Arc::new(Keep(store));
    runtime.block_on(compare(
        D::NAME,
        (TASKS[1], ROUND),
        (&keep, generations),
        (&bare, generations),
    ));
    if std::env::var_os("KEEP_RATIOS").is_none() {
        measure(criterion, runtime, [D::NAME, "bare driver"], &bare, generations);
        measure(criterion, runtime, [D::NAME, "keep"], &keep, generations);
    }
}

fn stores(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let is_asked_for = |name| std::env::var("KEEP_STORE").map_or(true, |only| only == name);
    if is_asked_for("sqlite") {
        let directory = tempfile::tempdir().expect("a directory");
        let file = format!("sqlite:{}", directory.path().join("keep.db").display());
        database::<SqliteDialect>(criterion, &runtime, &file);
    }
    if is_asked_for("postgres") {
        database::<PostgresDialect>(criterion, &runtime, &server(Kind::Postgres).url);
    }
    if is_asked_for("mariadb") {
        println!("on MariaDB:");
        database::<MySqlDialect>(criterion, &runtime, &server(Kind::MariaDb).url);
    }
    if is_asked_for("mysql") {
        println!("on MySQL:");
        database::<MySqlDialect>(criterion, &runtime, &server(Kind::MySql).url);
    }
    if is_asked_for("redis") {
        redis::database(criterion, &runtime, &server(Kind::Redis).url);
    }
    if is_asked_for("datastore") {
        datastore::database(criterion, &runtime, &server(Kind::Datastore).url);
    }
    if is_asked_for("memory") {
        let memory = Arc::new(Keep(runtime.block_on(fill(MemoryStore::new()))));
        measure(criterion, &runtime, ["memory", "keep"], &memory, generations());
    }
}

criterion_group!(benches, stores);
criterion_main!(benches);
