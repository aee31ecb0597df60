//! Real databases that die, hang, reject writes or are busy. Each test has its own server.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, PgConnection};
use tower_keep_core::{
    Account, End, EndReason, NewLogin, Rotation, SessionRecord, SessionStore, StoreError,
    StoreErrorKind, Timestamp, UserDirectory, UserId,
};
use tower_keep_mysql::{MySqlDialect, MySqlStore};
use tower_keep_postgres::{PostgresDialect, PostgresStore};
use tower_keep_sql::{Dialect, SqlStore};
use tower_keep_sqlite::SqliteStore;
use tower_keep_testkit::contract;
use tower_keep_testkit::contract::sessions::new_record;
use tower_keep_tests::load::Load;
use xtask::servers::{Kind, Server};

fn server(kind: Kind) -> Server {
    Server::start(kind).expect("a server")
}

async fn open<D: Dialect>(server: &Server, timeout: Duration) -> SqlStore<D> {
    let builder = SqlStore::<D>::builder(server.url()).with_timeout(timeout).migrate();
    builder.build().await.expect("a store")
}

fn login(record: &SessionRecord) -> NewLogin<'_> {
    NewLogin::new(record, record.expires)
}

async fn begin<S: SessionStore>(store: &S) -> SessionRecord {
    let record = new_record(&"1".into());
    store.create(&login(&record)).await.expect("a new session");
    record
}

fn rotation(record: &SessionRecord) -> Rotation {
    Rotation::new(record.key, record.generation, record.created.plus(10), record.expires)
}

fn end(record: &SessionRecord) -> End {
    End::new(record.created, EndReason::Revoked, record.expires)
}

// ---- under load ----

const CLIENTS: usize = 64;
const KILLED_AFTER: Duration = Duration::from_secs(10);
const DOWN: Duration = Duration::from_secs(8);
const AFTERWARDS: Duration = Duration::from_secs(12);
/// How soon every client must be served again.
const RECOVERY: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn postgres_is_killed_under_load_and_comes_back() {
    killed_under_load::<PostgresDialect>(Kind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn mariadb_is_killed_under_load_and_comes_back() {
    killed_under_load::<MySqlDialect>(Kind::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn mysql_is_killed_under_load_and_comes_back() {
    killed_under_load::<MySqlDialect>(Kind::MySql).await;
}

async fn killed_under_load<D: Dialect>(kind: Kind) {
    let mut server = server(kind);
    let store = open::<D>(&server, Duration::from_secs(2)).await;
    let load = Load::start(Arc::new(store), CLIENTS).await;
    tokio::time::sleep(KILLED_AFTER).await;
    server.kill();
    let killed = Instant::now();
    tokio::time::sleep(DOWN).await;
    let (server, down, back) = tokio::task::spawn_blocking(move || {
        let down = killed..Instant::now();
        server.start_again().expect("it comes back");
        (server, down, Instant::now())
    })
    .await
    .expect("it comes back");
    tokio::time::sleep(AFTERWARDS).await;
    let late = load.stop().await.served_but_for(down, back);
    assert!(late <= RECOVERY, "the last failed {late:?} after the server was back");
    drop(server);
}

// ---- one by one ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_died_while_idle_are_not_noticed() {
    idle_connections_die::<PostgresDialect>(Kind::Postgres).await;
    idle_connections_die::<MySqlDialect>(Kind::MariaDb).await;
    idle_connections_die::<MySqlDialect>(Kind::MySql).await;
}

async fn idle_connections_die<D: Dialect>(kind: Kind) {
    let mut server = server(kind);
    let store = open::<D>(&server, Duration::from_secs(3)).await;
    let record = begin(&store).await;
    for round in 0..3 {
        // Several connections, all idle.
        let held: Vec<_> = futures_of(8, || store.pool().acquire()).await;
        drop(held);
        tokio::time::sleep(Duration::from_millis(50)).await;
        server.kill();
        server.start_again().expect("it comes back");
        match round {
            0 => assert!(store.load(&record.key).await.expect("asked again").is_some()),
            1 => drop(begin(&store).await),
            _ => assert_eq!(store.revoke(&[record.key], &end(&record)).await.expect("again"), 1),
        }
    }
}

/// Makes several values one after the other, and keeps each until all exist.
async fn futures_of<T, E: std::fmt::Debug, F: Future<Output = Result<T, E>>>(
    count: usize,
    make: impl Fn() -> F,
) -> Vec<T> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(make().await.expect("one more"));
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_is_given_up_in_time() {
    hangs::<PostgresDialect>(Kind::Postgres).await;
    hangs::<MySqlDialect>(Kind::MariaDb).await;
    hangs::<MySqlDialect>(Kind::MySql).await;
}

async fn hangs<D: Dialect>(kind: Kind) {
    let server = server(kind);
    let timeout = Duration::from_secs(2);
    let store = open::<D>(&server, timeout).await;
    let record = begin(&store).await;
    server.suspend();
    let begun = Instant::now();
    let load = store.load(&record.key).await.expect_err("it hangs");
    let other = new_record(&"1".into());
    let create = store.create(&login(&other)).await.expect_err("it hangs");
    let took = begun.elapsed();
    server.resume();
    assert!(took < timeout * 6, "{took:?}");
    for error in [load, create] {
        let kinds = [StoreErrorKind::Timeout, StoreErrorKind::Unavailable];
        assert!(kinds.contains(&error.kind()), "{error:?}");
    }
    let found = store.load(&record.key).await.expect("it answers again");
    assert_eq!(found.as_deref(), Some(&record));
    begin(&store).await;
}

/// Waits until this many of the store's transactions wait for a lock.
async fn until_they_wait<D: Dialect + Waiting>(server: &Server, transactions: i64) {
    let begun = Instant::now();
    while D::waiting(server).await < transactions {
        assert!(begun.elapsed() < Duration::from_secs(30), "they wait");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Counts the transactions that wait for a lock.
trait Waiting {
    async fn waiting(server: &Server) -> i64;
}

impl Waiting for PostgresDialect {
    async fn waiting(server: &Server) -> i64 {
        let mut asking = PgConnection::connect(&server.url()).await.expect("a connection");
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        sqlx::query_scalar(sql).fetch_one(&mut asking).await.expect("who waits")
    }
}

impl Waiting for MySqlDialect {
    async fn waiting(server: &Server) -> i64 {
        let mut asking = MySqlConnection::connect(&server.url()).await.expect("a connection");
        // The table of transactions can't be used: MySQL fails to show a statement that has bytes
        // in it.
        let sql = "SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'";
        let waiting: (String, String) =
            sqlx::query_as(sql).fetch_one(&mut asking).await.expect("who waits");
        waiting.1.parse().expect("a number")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_is_cut_off_may_have_been_done_and_says_so() {
    let mut server = server(Kind::Postgres);
    let store = open::<PostgresDialect>(&server, Duration::from_secs(8)).await;
    let record = begin(&store).await;
    let mut other = PgConnection::connect(&server.url()).await.expect("a connection");
    other.execute("BEGIN; SELECT * FROM keep_sessions FOR UPDATE").await.expect("a lock");
    let (rotation, waiting) = (rotation(&record), store.clone());
    let rotate = tokio::spawn(async move { waiting.rotate(&rotation).await });
    let (waiting, ends) = (store.clone(), end(&record));
    let revoke = tokio::spawn(async move { waiting.revoke(&[record.key], &ends).await });
    until_they_wait::<PostgresDialect>(&server, 2).await;
    server.kill();
    let cut = rotate.await.expect("no panic").expect_err("it was cut off");
    assert_eq!(cut.kind(), StoreErrorKind::Timeout, "whether it was done is not known: {cut:?}");
    // A transaction that did not reach its end has written nothing, and is retried until the
    // time-out.
    let undone = revoke.await.expect("no panic").expect_err("there is no server");
    assert_eq!(undone.kind(), StoreErrorKind::Unavailable, "{undone:?}");
    server.start_again().expect("it comes back");
    let found = store.load(&record.key).await.expect("it answers again");
    assert_eq!(found.as_deref(), Some(&record));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_waits_for_a_lock_ends_in_time() {
    let postgres = server(Kind::Postgres);
    let lock = "SELECT * FROM keep_sessions FOR UPDATE";
    let timeout = Duration::from_secs(2);

    let store = open::<PostgresDialect>(&postgres, timeout).await;
    let record = begin(&store).await;
    let mut other = PgConnection::connect(&postgres.url()).await.expect("a connection");
    other.execute("BEGIN").await.expect("a transaction");
    other.execute(lock).await.expect("a lock");
    waits_in_vain(&store, &record).await;
    other.execute("ROLLBACK").await.expect("no lock any more");
    // The server gave up as well: nothing is written after the call has returned.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(store.load(&record.key).await.expect("no error").as_deref(), Some(&record));

    for mysql in [server(Kind::MariaDb), server(Kind::MySql)] {
        let store = open::<MySqlDialect>(&mysql, timeout).await;
        let record = begin(&store).await;
        let mut other = MySqlConnection::connect(&mysql.url()).await.expect("a connection");
        other.execute("START TRANSACTION").await.expect("a transaction");
        other.execute(lock).await.expect("a lock");
        waits_in_vain(&store, &record).await;
        other.execute("ROLLBACK").await.expect("no lock any more");
        assert_eq!(store.load(&record.key).await.expect("no error").as_deref(), Some(&record));
    }
}

async fn waits_in_vain<D: Dialect>(store: &SqlStore<D>, record: &SessionRecord) {
    let begun = Instant::now();
    let error = store.rotate(&rotation(record)).await.expect_err("the row is locked");
    let kinds = [StoreErrorKind::Timeout, StoreErrorKind::Unavailable];
    assert!(kinds.contains(&error.kind()), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_deadlock_the_store_tries_again() {
    let timeout = Duration::from_secs(20);
    let postgres = server(Kind::Postgres);
    let mut other = PgConnection::connect(&postgres.url()).await.expect("a connection");
    // Each transaction looks for a deadlock once, after it has waited this long. The deadlock must
    // exist by then.
    for setting in ["ALTER SYSTEM SET deadlock_timeout = '4s'", "SELECT pg_reload_conf()"] {
        other.execute(setting).await.expect("a setting");
    }
    let store = open::<PostgresDialect>(&postgres, timeout).await;
    // So the store's transaction looks for deadlocks, and is ended.
    other.execute("SET deadlock_timeout = '1h'; BEGIN").await.expect("a transaction");
    gives_way(&store, &postgres, "'\\x", async |sql| {
        other.execute(AssertSqlSafe(sql)).await.expect("the store gives way");
    })
    .await;

    for mysql in [server(Kind::MariaDb), server(Kind::MySql)] {
        let store = open::<MySqlDialect>(&mysql, timeout).await;
        let mut other = MySqlConnection::connect(&mysql.url()).await.expect("a connection");
        other.execute("CREATE TABLE heavy (n INT)").await.expect("a table");
        // The transaction that wrote less ends.
        let rows = "START TRANSACTION; \
            INSERT INTO heavy SELECT 1 FROM information_schema.columns LIMIT 300";
        other.execute(rows).await.expect("many rows");
        gives_way(&store, &mysql, "x'", async |sql| {
            other.execute(AssertSqlSafe(sql)).await.expect("the store gives way");
        })
        .await;
    }
}

/// Makes a deadlock: the store locks one session and then another, while a transaction of the
/// application, through `run`, locks them in the opposite order. `quote` begins a literal of bytes
/// in a statement.
async fn gives_way<D: Dialect + Waiting>(
    store: &SqlStore<D>,
    server: &Server,
    quote: &str,
    mut run: impl AsyncFnMut(String),
) {
    let [first, second] = two(store).await;
    let touch = |record: &SessionRecord| {
        let key: String = record.key.as_bytes().iter().map(|b| format!("{b:02x}")).collect();
        format!("UPDATE keep_sessions SET details = 'x' WHERE session_key = {quote}{key}'")
    };
    run(touch(&second)).await;
    let (revoking, keys, ends) = (store.clone(), [first.key, second.key], end(&first));
    let revoke = tokio::spawn(async move { revoking.revoke(&keys, &ends).await });
    until_they_wait::<D>(server, 1).await;
    run(touch(&first)).await;
    run("COMMIT".to_owned()).await;
    assert_eq!(revoke.await.expect("no panic").expect("tried again"), 2);
}

/// Creates two sessions, and returns them in the order in which the store locks them.
async fn two<D: Dialect>(store: &SqlStore<D>) -> [SessionRecord; 2] {
    let mut two = [begin(store).await, begin(store).await];
    two.sort_by_key(|record| *record.key.as_bytes());
    two
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn serializable_databases_are_asked_again() {
    let server = server(Kind::Postgres);
    let url = format!("{}?options=-c%20default_transaction_isolation%3Dserializable", server.url());
    // The pool is the application's, so its settings apply.
    let pool = sqlx::PgPool::connect(&url).await.expect("a pool");
    let mut connection = pool.acquire().await.expect("a connection");
    let row: (String,) = sqlx::query_as("SHOW transaction_isolation")
        .fetch_one(&mut *connection)
        .await
        .expect("a setting");
    assert_eq!(row.0, "serializable");
    drop(connection);
    let store = PostgresStore::builder_on(pool).migrate().build().await.expect("a store");
    contract::run_all(|| async { store.clone() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_only_reads_is_unavailable_for_logins() {
    let server = server(Kind::Postgres);
    let store = open::<PostgresDialect>(&server, Duration::from_secs(3)).await;
    let record = begin(&store).await;
    let url = format!("{}?options=-c%20default_transaction_read_only%3Don", server.url());
    let pool = sqlx::PgPool::connect(&url).await.expect("a pool");
    let replica = PostgresStore::builder_on(pool).build().await.expect("it reads");
    only_reads(&replica, &record).await;

    for server in [self::server(Kind::MariaDb), self::server(Kind::MySql)] {
        let store = open::<MySqlDialect>(&server, Duration::from_secs(3)).await;
        let record = begin(&store).await;
        for statement in [
            "CREATE USER site@'%' IDENTIFIED BY 'secret'",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON keep.* TO site@'%'",
            "SET GLOBAL read_only = 1",
        ] {
            store.pool().execute(statement).await.expect(statement);
        }
        let url = server.url().replace("keep:secret@", "site:secret@");
        let replica = MySqlStore::builder(url).build().await.expect("it reads");
        only_reads(&replica, &record).await;

        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("keep.db");
        let url = format!("sqlite:{}", path.display());
        let store = SqliteStore::builder(url.clone()).migrate().build().await.expect("a store");
        let record = begin(&store).await;
        let pool = sqlx::SqlitePool::connect(&format!("{url}?mode=ro")).await.expect("a pool");
        let replica = SqliteStore::builder_on(pool).build().await.expect("it reads");
        only_reads(&replica, &record).await;
    }
}

async fn only_reads<D: Dialect>(store: &SqlStore<D>, record: &SessionRecord) {
    let found = store.load(&record.key).await.expect("it reads");
    assert_eq!(found.as_deref(), Some(record));
    let other = new_record(&"1".into());
    let errors = [
        store.create(&login(&other)).await.map(drop).expect_err("it only reads"),
        store.rotate(&rotation(record)).await.map(drop).expect_err("it only reads"),
        store.revoke(&[record.key], &end(record)).await.map(drop).expect_err("it only reads"),
        store.insert(&Account::new(1, "ada", "")).await.expect_err("it only reads"),
    ];
    for error in errors {
        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
    }
    let found = store.load(&record.key).await.expect("it still reads");
    assert_eq!(found.as_deref(), Some(record));
}

async fn sqlite(path: &Path, timeout: Duration) -> Result<SqliteStore, StoreError> {
    let url = format!("sqlite:{}", path.display());
    SqliteStore::builder(url).with_timeout(timeout).migrate().build().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_unavailable_for_logins_and_loses_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = sqlite(&directory.path().join("keep.db"), Duration::from_secs(3)).await;
    let store = store.expect("a store");
    let record = begin(&store).await;
    // The only connection that writes may use no more pages than this.
    store.pool().execute("PRAGMA max_page_count = 40").await.expect("a setting");
    let mut kept = HashSet::from([record.key]);
    let error = loop {
        let record = new_record(&"1".into());
        match store.create(&login(&record)).await {
            Ok(_) => assert!(kept.insert(record.key) && kept.len() < 10_000),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
    assert!(error.to_string().contains("full"), "{error}");
    let user = UserId::from("1");
    let listed = store.list(&user, record.created, 100_000).await.expect("it reads");
    assert_eq!(listed.iter().map(|record| record.key).collect::<HashSet<_>>(), kept);
    store.pool().execute("PRAGMA max_page_count = 1000000").await.expect("a setting");
    begin(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_busy_is_unavailable_in_time() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("keep.db");
    let timeout = Duration::from_secs(2);
    let store = sqlite(&path, timeout).await.expect("a store");
    let record = begin(&store).await;
    let other = sqlite(&path, timeout).await.expect("another process, as it were");
    let mut writer = other.pool().acquire().await.expect("its writer");
    writer.execute("BEGIN IMMEDIATE").await.expect("it writes");
    let begun = Instant::now();
    let login_record = new_record(&"1".into());
    let error = store.create(&login(&login_record)).await.expect_err("somebody writes");
    let kinds = [StoreErrorKind::Timeout, StoreErrorKind::Unavailable];
    assert!(kinds.contains(&error.kind()), "{error:?}");
    assert!(begun.elapsed() < timeout * 10, "{:?}", begun.elapsed());
    assert!(store.load(&record.key).await.expect("readers don't wait").is_some());
    writer.execute("ROLLBACK").await.expect("it ends");
    // The call that was given up is not carried out later.
    tokio::time::sleep(timeout).await;
    assert!(store.load(&login_record.key).await.expect("no error").is_none());
    begin(&store).await;
    let purged = store.purge(Timestamp::from_secs(1), 10).await;
    assert_eq!(purged.expect("no error"), 0);
}
