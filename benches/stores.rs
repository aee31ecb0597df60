//! `cargo bench -p tower-keep-benches --bench stores`: what the stores take, alone and with 64 tasks at
//! once, and beside each SQL store what the bare driver takes for the same statements.
//!
//! Store and driver share one pool of ten connections. The times are per call.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use sqlx::{AssertSqlSafe, Connection};
use tokio::runtime::Runtime;
use tower_keep_benches::databases::{NOW, key, open, record, server};
use tower_keep_core::{Account, LoginStore, NewLogin, Rotation, UserDirectory, UserId};
use tower_keep_memory::MemoryStore;
use tower_keep_mysql::MySqlDialect;
use tower_keep_postgres::PostgresDialect;
use tower_keep_sql::{Dialect, Measured};
use tower_keep_sqlite::SqliteDialect;
use xtask::servers::Kind;

const USERS: u64 = 1_000;
/// So many sessions has every user.
const SESSIONS: u64 = 3;
const TASKS: [u64; 2] = [1, 64];

/// Numbers that were not given yet, beyond those of the sessions that are there.
static NEXT: AtomicU64 = AtomicU64::new(1 << 32);

fn next() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// What is measured: one call.
trait Subject: Send + Sync + 'static {
    /// A user by id.
    fn by_id(&self, user: u64) -> impl Future<Output = ()> + Send;
    /// A user with the session's record.
    fn login(&self, session: u64) -> impl Future<Output = ()> + Send;
    /// A new session.
    fn create(&self, session: u64) -> impl Future<Output = ()> + Send;
    /// The next generation of a session that is there and has this one.
    fn rotate(&self, session: u64, from: u32) -> impl Future<Output = ()> + Send;
    /// A user's sessions.
    fn list(&self, user: u64) -> impl Future<Output = ()> + Send;
}

/// A store, as the layer asks it.
struct Keep<S>(S);

impl<S: UserDirectory<User = Account> + LoginStore + 'static> Subject for Keep<S> {
    async fn by_id(&self, user: u64) {
        black_box(self.0.by_id(&user.into()).await.expect("a user")).expect("a user");
    }

    async fn login(&self, session: u64) {
        let likely = UserId::from(session % USERS);
        let login = self.0.load_login(&key(session), Some(&likely)).await.expect("a login");
        black_box(login).expect("a login").user.expect("a user");
    }

    async fn create(&self, session: u64) {
        let record = record(session, session % USERS);
        let ended_until = record.expires;
        let login = NewLogin { record: &record, replacing: &[], ended_until, limit: None };
        black_box(self.0.create(&login).await.expect("a session"));
    }

    async fn rotate(&self, session: u64, from: u32) {
        let expires = NOW.plus(9_999);
        let key = key(session);
        let rotation = Rotation { key, from, at: NOW, remember_expires: None, expires };
        black_box(self.0.rotate(&rotation).await.expect("a session"));
    }

    async fn list(&self, user: u64) {
        let list = self.0.list(&user.into(), NOW, 100).await.expect("a list");
        assert!(!black_box(list).is_empty());
    }
}

/// The same statements, and nothing else.
struct Bare<D: Dialect>(Measured<D>);

macro_rules! bare {
    ($dialect:ty, $rotate:expr) => {
        impl Subject for Bare<$dialect> {
            async fn by_id(&self, user: u64) {
                let query = sqlx::query(self.0.by_id.clone()).bind(user.to_string());
                black_box(query.fetch_optional(&self.0.reads).await.expect("a user"));
            }

            async fn login(&self, session: u64) {
                let query =
                    sqlx::query(self.0.login.clone()).bind(key(session).as_bytes().to_vec());
                black_box(query.fetch_optional(&self.0.reads).await.expect("a login"));
            }

            async fn create(&self, session: u64) {
                let new = record(session, session % USERS);
                let mut connection = self.0.writes.acquire().await.expect("a connection");
                let begin = AssertSqlSafe((self.0.begin)(Some(&new.user), &self.0.names));
                let mut write = connection.begin_with(begin).await.expect("a transaction");
                let seconds = |time: tower_keep_core::Timestamp| i64::from(time.as_secs());
                let query = sqlx::query(self.0.insert.clone())
                    .bind(new.key.as_bytes().to_vec())
                    .bind(new.user.as_str().to_owned())
                    .bind(0_i64)
                    .bind(None::<i64>)
                    .bind(None::<i64>)
                    .bind(new.salt.to_vec())
                    .bind(seconds(new.created))
                    .bind(seconds(new.session_started))
                    .bind(seconds(new.last_seen))
                    .bind(new.remember_expires.map(seconds))
                    .bind(i64::from(new.remember_seconds))
                    .bind(seconds(new.expires))
                    .bind(new.address.map(|address| address.to_string()))
                    .bind(new.user_agent.to_string())
                    .bind(new.method.to_string())
                    .bind(None::<i64>)
                    .bind(None::<String>)
                    .bind(None::<Vec<u8>>)
                    .bind(false);
                query.execute(&mut *write).await.expect("a session");
                let query = sqlx::query(self.0.untold.clone()).bind(new.user.as_str().to_owned());
                black_box(query.fetch_all(&mut *write).await.expect("no replays"));
                write.commit().await.expect("a session");
            }

            async fn rotate(&self, session: u64, from: u32) {
                let rotate: fn(&Self, u64, u32) -> _ = $rotate;
                rotate(self, session, from).await;
            }

            async fn list(&self, user: u64) {
                let query = sqlx::query(self.0.list.clone())
                    .bind(user.to_string())
                    .bind(i64::from(NOW.as_secs()))
                    .bind(100_i64);
                assert!(!query.fetch_all(&self.0.reads).await.expect("a list").is_empty());
            }
        }
    };
}

/// Where an update answers its row.
macro_rules! returning {
    () => {
        |bare, session, from| {
            let at = i64::from(NOW.as_secs());
            let query = sqlx::query(bare.0.rotate.clone())
                .bind(at)
                .bind(None::<i64>)
                .bind(at + 9_999)
                .bind(key(session).as_bytes().to_vec())
                .bind(i64::from(from));
            let pool = bare.0.writes.clone();
            async move { drop(black_box(query.fetch_optional(&pool).await.expect("a session"))) }
        }
    };
}

bare!(PostgresDialect, returning!());
bare!(SqliteDialect, returning!());
bare!(MySqlDialect, |bare, session, from| {
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
        black_box(load.fetch_optional(&mut *write).await.expect("a session"));
        write.commit().await.expect("a session");
    }
});

/// What one call takes if so many tasks call at once: all of the time, through the calls.
fn time<S: Subject, F: Future<Output = ()> + Send>(
    runtime: &Runtime,
    subject: &Arc<S>,
    (tasks, calls): (u64, u64),
    call: impl Fn(Arc<S>, u64, u64) -> F + Copy + Send + 'static,
) -> Duration {
    runtime.block_on(async {
        let each = calls.div_ceil(tasks);
        let first = next() * 7_919;
        let begun = Instant::now();
        let mut all = tokio::task::JoinSet::new();
        for task in 0..tasks {
            let subject = Arc::clone(subject);
            all.spawn(async move {
                for number in 0..each {
                    call(Arc::clone(&subject), task, first + task * each + number).await;
                }
            });
        }
        all.join_all().await;
        // A few more calls than were asked for, so that all tasks have the same.
        let done = each * tasks;
        begun.elapsed().mul_f64(calls as f64 / done as f64)
    })
}

/// Which generation each session has.
type Generations = &'static [AtomicU32];

fn generations() -> Generations {
    Vec::leak((0..USERS * SESSIONS).map(|_| AtomicU32::new(0)).collect())
}

/// Measures every kind of call.
fn measure<S: Subject>(
    criterion: &mut Criterion,
    runtime: &Runtime,
    [store, who]: [&str; 2],
    subject: S,
    generations: Generations,
) {
    let subject = Arc::new(subject);
    for tasks in TASKS {
        macro_rules! bench {
            ($what:literal, $call:expr) => {
                let mut group = criterion.benchmark_group(format!("{store}/{}/{tasks}", $what));
                group.sample_size(20).warm_up_time(Duration::from_millis(500));
                group.measurement_time(Duration::from_secs(2));
                group.bench_function(who, |bencher| {
                    bencher.iter_custom(|calls| time(runtime, &subject, (tasks, calls), $call));
                });
                group.finish();
            };
        }
        bench!("by id", |subject, _, number| async move { subject.by_id(number % USERS).await });
        bench!("login", |subject, _, number| async move {
            subject.login(number % (USERS * SESSIONS)).await;
        });
        bench!("list", |subject, _, number| async move { subject.list(number % USERS).await });
        bench!("rotate", move |subject, task, number| {
            // Each task has sessions of its own, so that every rotation wins.
            let session = task * 40 + number % 40;
            let from = generations[session as usize].fetch_add(1, Ordering::Relaxed);
            async move { subject.rotate(session, from).await }
        });
        bench!("create", |subject, _, _| async move { subject.create(next()).await });
    }
}

async fn fill<S: UserDirectory<User = Account> + LoginStore>(store: S) -> S {
    for user in 0..USERS {
        let account = Account::new(user, format!("user{user}"), "$argon2id$v=19$m=19456,t=2,p=1$…");
        store.insert(&account).await.expect("an account");
    }
    for session in 0..USERS * SESSIONS {
        let record = record(session, session % USERS);
        let ended_until = record.expires;
        let login = NewLogin { record: &record, replacing: &[], ended_until, limit: None };
        store.create(&login).await.expect("a session");
    }
    store
}

fn database<D: Dialect>(criterion: &mut Criterion, runtime: &Runtime, url: &str)
where
    Bare<D>: Subject,
{
    let store = runtime.block_on(async { fill(open::<D>(url).await).await });
    let (bare, generations) = (Bare(store.measured()), generations());
    measure(criterion, runtime, [D::NAME, "bare driver"], bare, generations);
    measure(criterion, runtime, [D::NAME, "keep"], Keep(store), generations);
}

fn stores(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let memory = runtime.block_on(fill(MemoryStore::new()));
    measure(criterion, &runtime, ["memory", "keep"], Keep(memory), generations());
    let directory = tempfile::tempdir().expect("a directory");
    let file = format!("sqlite:{}", directory.path().join("keep.db").display());
    database::<SqliteDialect>(criterion, &runtime, &file);
    let (postgres, mariadb) = (server(Kind::Postgres), server(Kind::MariaDb));
    database::<PostgresDialect>(criterion, &runtime, &postgres.url);
    database::<MySqlDialect>(criterion, &runtime, &mariadb.url);
}

criterion_group!(benches, stores);
criterion_main!(benches);
