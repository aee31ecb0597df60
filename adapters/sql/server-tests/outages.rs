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
use tower_keep_testkit::FaultyStore;
use tower_keep_testkit::contract;
use tower_keep_testkit::contract::sessions::new_record;
use tower_keep_tests::WatchedStore;
use tower_keep_tests::load::Load;
use tower_keep_tests::nodes::Guesses;
use xtask::servers::{Kind, Server};

fn start_server(kind: Kind) -> Server {
    Server::start(kind).expect("a server")
}

async fn open<D: Dialect>(server: &Server, timeout: Duration) -> SqlStore<D> {
    let builder = SqlStore::<D>::builder(server.url()).with_timeout(timeout).migrate();
    builder.build().await.expect("a store")
}

fn login(record: &SessionRecord) -> NewLogin<'_> {
    NewLogin::new(record, record.expires)
}

async fn create_session<S: SessionStore>(store: &S) -> SessionRecord {
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

// ---- counters ----

/// The store of a site that records its calls.
fn watched<D: Dialect>(store: SqlStore<D>) -> WatchedStore {
    FaultyStore::new(Arc::new(store))
}

async fn check_counters_survive_a_restart<D: Dialect>(kind: Kind) {
    let mut server = start_server(kind);
    let timeout = Duration::from_secs(20);
    let guesses = Guesses::make(watched(open::<D>(&server, timeout).await)).await;
    server.kill();
    guesses.assert_absent_below(server.directory());
    server.start_and_wait().expect("the server starts again");
    guesses.assert_still_counted(watched(open::<D>(&server, timeout).await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_survive_a_restart_of_a_server_and_show_no_name() {
    check_counters_survive_a_restart::<PostgresDialect>(Kind::Postgres).await;
    check_counters_survive_a_restart::<MySqlDialect>(Kind::MariaDb).await;
    check_counters_survive_a_restart::<MySqlDialect>(Kind::MySql).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_survive_a_restart_in_a_file_and_show_no_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("keep.db");
    let timeout = Duration::from_secs(20);
    let guesses = {
        let store = open_sqlite(&path, timeout).await.expect("a new file");
        Guesses::make(watched(store)).await
    };
    guesses.assert_absent_below(directory.path());
    let store = open_sqlite(&path, timeout).await.expect("the file");
    guesses.assert_still_counted(watched(store)).await;
}

// ---- under load ----

const CLIENTS: usize = 64;
const KILLED_AFTER: Duration = Duration::from_secs(10);
/// How long a server is down.
const DOWN: Duration = Duration::from_secs(8);
/// How long the load goes on after the server has responded again.
const AFTERWARDS: Duration = Duration::from_secs(12);
/// Every client must be served again this soon after the server responds again.
const RECOVERY: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clients_are_served_again_after_postgres_was_killed_under_load() {
    kill_under_load::<PostgresDialect>(Kind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clients_are_served_again_after_mariadb_was_killed_under_load() {
    kill_under_load::<MySqlDialect>(Kind::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clients_are_served_again_after_mysql_was_killed_under_load() {
    kill_under_load::<MySqlDialect>(Kind::MySql).await;
}

async fn kill_under_load<D: Dialect>(kind: Kind) {
    let mut server = start_server(kind);
    let store = open::<D>(&server, Duration::from_secs(2)).await;
    let load = Load::start(Arc::new(store), CLIENTS).await;
    tokio::time::sleep(KILLED_AFTER).await;
    server.kill();
    let killed = Instant::now();
    tokio::time::sleep(DOWN).await;
    let (server, down, back) = tokio::task::spawn_blocking(move || {
        let down = killed..Instant::now();
        server.start_and_wait().expect("the server starts again");
        (server, down, Instant::now())
    })
    .await
    .expect("no panic");
    tokio::time::sleep(AFTERWARDS).await;
    let recovery = load.stop().await.check_outage(down, back);
    assert!(recovery <= RECOVERY, "requests failed until {recovery:?} after the server was back");
    drop(server);
}

// ---- single calls ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_succeeds_although_all_idle_connections_have_died() {
    kill_idle_connections::<PostgresDialect>(Kind::Postgres).await;
    kill_idle_connections::<MySqlDialect>(Kind::MariaDb).await;
    kill_idle_connections::<MySqlDialect>(Kind::MySql).await;
}

async fn kill_idle_connections<D: Dialect>(kind: Kind) {
    let mut server = start_server(kind);
    let store = open::<D>(&server, Duration::from_secs(3)).await;
    let record = create_session(&store).await;
    for round in 0..3 {
        // The pool opens eight connections, which are idle once they are dropped.
        let held: Vec<_> = make_several(8, || store.pool().acquire()).await;
        drop(held);
        tokio::time::sleep(Duration::from_millis(50)).await;
        server.kill();
        server.start_and_wait().expect("the server starts again");
        match round {
            0 => assert!(store.load(&record.key).await.expect("retried").is_some()),
            1 => drop(create_session(&store).await),
            _ => assert_eq!(store.revoke(&[record.key], &end(&record)).await.expect("retried"), 1),
        }
    }
}

/// Makes several values one after the other, and keeps each value until all of them exist.
async fn make_several<T, E: std::fmt::Debug, F: Future<Output = Result<T, E>>>(
    count: usize,
    make: impl Fn() -> F,
) -> Vec<T> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(make().await.expect("a value"));
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_fails_in_time_if_the_server_hangs() {
    suspend_server::<PostgresDialect>(Kind::Postgres).await;
    suspend_server::<MySqlDialect>(Kind::MariaDb).await;
    suspend_server::<MySqlDialect>(Kind::MySql).await;
}

async fn suspend_server<D: Dialect>(kind: Kind) {
    let server = start_server(kind);
    let timeout = Duration::from_secs(2);
    let store = open::<D>(&server, timeout).await;
    let record = create_session(&store).await;
    server.suspend();
    let begun = Instant::now();
    let load = store.load(&record.key).await.expect_err("the server hangs");
    let other = new_record(&"1".into());
    let create = store.create(&login(&other)).await.expect_err("the server hangs");
    let took = begun.elapsed();
    server.resume();
    assert!(took < timeout * 6, "{took:?}");
    for error in [load, create] {
        let kinds = [StoreErrorKind::Timeout, StoreErrorKind::Unavailable];
        assert!(kinds.contains(&error.kind()), "{error:?}");
    }
    let found = store.load(&record.key).await.expect("the server responds again");
    assert_eq!(found.as_deref(), Some(&record));
    create_session(&store).await;
}

/// Waits until at least this many transactions of the server wait for a lock.
async fn wait_for_lock_waits<D: Dialect + LockWaits>(server: &Server, transactions: i64) {
    let begun = Instant::now();
    while D::lock_waits(server).await < transactions {
        assert!(begun.elapsed() < Duration::from_secs(30), "too few transactions wait");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

trait LockWaits {
    /// Returns how many transactions of the server wait for a lock.
    async fn lock_waits(server: &Server) -> i64;
}

impl LockWaits for PostgresDialect {
    async fn lock_waits(server: &Server) -> i64 {
        let mut connection = PgConnection::connect(&server.url()).await.expect("a connection");
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        sqlx::query_scalar(sql).fetch_one(&mut connection).await.expect("a count")
    }
}

impl LockWaits for MySqlDialect {
    async fn lock_waits(server: &Server) -> i64 {
        let mut connection = MySqlConnection::connect(&server.url()).await.expect("a connection");
        // The table of transactions can't be used, because MySQL fails to show a statement that
        // contains bytes.
        let sql = "SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'";
        let row: (String, String) =
            sqlx::query_as(sql).fetch_one(&mut connection).await.expect("a count");
        row.1.parse().expect("a number")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_write_that_is_cut_off_is_a_timeout_because_it_may_have_taken_effect() {
    let mut server = start_server(Kind::Postgres);
    let store = open::<PostgresDialect>(&server, Duration::from_secs(8)).await;
    let record = create_session(&store).await;
    let mut other = PgConnection::connect(&server.url()).await.expect("a connection");
    other.execute("BEGIN; SELECT * FROM keep_sessions FOR UPDATE").await.expect("a lock");
    let (rotation, rotating) = (rotation(&record), store.clone());
    let rotate = tokio::spawn(async move { rotating.rotate(&rotation).await });
    let (end, revoking) = (end(&record), store.clone());
    let revoke = tokio::spawn(async move { revoking.revoke(&[record.key], &end).await });
    wait_for_lock_waits::<PostgresDialect>(&server, 2).await;
    server.kill();
    let cut = rotate.await.expect("no panic").expect_err("the server was killed");
    assert_eq!(cut.kind(), StoreErrorKind::Timeout, "the write may have taken effect: {cut:?}");
    // A transaction without a commit has written nothing, so the store retries it until the
    // time-out.
    let undone = revoke.await.expect("no panic").expect_err("there is no server");
    assert_eq!(undone.kind(), StoreErrorKind::Unavailable, "{undone:?}");
    server.start_and_wait().expect("the server starts again");
    let found = store.load(&record.key).await.expect("the server responds again");
    assert_eq!(found.as_deref(), Some(&record));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_waits_for_a_lock_fails_in_time() {
    let postgres = start_server(Kind::Postgres);
    let lock = "SELECT * FROM keep_sessions FOR UPDATE";
    let timeout = Duration::from_secs(2);

    let store = open::<PostgresDialect>(&postgres, timeout).await;
    let record = create_session(&store).await;
    let mut other = PgConnection::connect(&postgres.url()).await.expect("a connection");
    other.execute("BEGIN").await.expect("a transaction");
    other.execute(lock).await.expect("a lock");
    check_rotation_fails(&store, &record).await;
    other.execute("ROLLBACK").await.expect("the lock is released");
    // PostgreSQL has ended the statement too, so the statement writes nothing after the call.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(store.load(&record.key).await.expect("no error").as_deref(), Some(&record));

    for mysql in [start_server(Kind::MariaDb), start_server(Kind::MySql)] {
        let store = open::<MySqlDialect>(&mysql, timeout).await;
        let record = create_session(&store).await;
        let mut other = MySqlConnection::connect(&mysql.url()).await.expect("a connection");
        other.execute("START TRANSACTION").await.expect("a transaction");
        other.execute(lock).await.expect("a lock");
        check_rotation_fails(&store, &record).await;
        other.execute("ROLLBACK").await.expect("the lock is released");
        assert_eq!(store.load(&record.key).await.expect("no error").as_deref(), Some(&record));
    }
}

/// Checks that a rotation fails in time, because another transaction has locked the row.
async fn check_rotation_fails<D: Dialect>(store: &SqlStore<D>, record: &SessionRecord) {
    let begun = Instant::now();
    let error = store.rotate(&rotation(record)).await.expect_err("the row is locked");
    let kinds = [StoreErrorKind::Timeout, StoreErrorKind::Unavailable];
    assert!(kinds.contains(&error.kind()), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_retries_a_transaction_that_a_deadlock_ended() {
    let timeout = Duration::from_secs(20);
    let postgres = start_server(Kind::Postgres);
    let mut other = PgConnection::connect(&postgres.url()).await.expect("a connection");
    // A transaction looks for a deadlock once, after it has waited for `deadlock_timeout`. By then,
    // the test must have made the deadlock.
    for setting in ["ALTER SYSTEM SET deadlock_timeout = '4s'", "SELECT pg_reload_conf()"] {
        other.execute(setting).await.expect("a setting");
    }
    let store = open::<PostgresDialect>(&postgres, timeout).await;
    // With this setting, the transaction of `other` never looks for a deadlock. So the store's
    // transaction finds the deadlock, and PostgreSQL ends that transaction.
    other.execute("SET deadlock_timeout = '1h'; BEGIN").await.expect("a transaction");
    check_deadlock_is_retried(&store, &postgres, "'\\x", async |sql| {
        other.execute(AssertSqlSafe(sql)).await.expect("the store's transaction ends");
    })
    .await;

    for mysql in [start_server(Kind::MariaDb), start_server(Kind::MySql)] {
        let store = open::<MySqlDialect>(&mysql, timeout).await;
        let mut other = MySqlConnection::connect(&mysql.url()).await.expect("a connection");
        other.execute("CREATE TABLE heavy (n INT)").await.expect("a table");
        // The database ends the transaction that wrote fewer rows, so `other` writes many.
        let rows = "START TRANSACTION; \
            INSERT INTO heavy SELECT 1 FROM information_schema.columns LIMIT 300";
        other.execute(rows).await.expect("many rows");
        check_deadlock_is_retried(&store, &mysql, "x'", async |sql| {
            other.execute(AssertSqlSafe(sql)).await.expect("the store's transaction ends");
        })
        .await;
    }
}

/// Makes a deadlock: the store locks two sessions, and at the same time, a transaction of the
/// application locks them in the opposite order. `run` executes a statement of that transaction,
/// and `quote` begins a literal of bytes in a statement.
async fn check_deadlock_is_retried<D: Dialect + LockWaits>(
    store: &SqlStore<D>,
    server: &Server,
    quote: &str,
    mut run: impl AsyncFnMut(String),
) {
    let [first, second] = create_two_sessions(store).await;
    let update = |record: &SessionRecord| {
        let key: String = record.key.as_bytes().iter().map(|b| format!("{b:02x}")).collect();
        format!("UPDATE keep_sessions SET details = 'x' WHERE session_key = {quote}{key}'")
    };
    run(update(&second)).await;
    let (revoking, keys, end) = (store.clone(), [first.key, second.key], end(&first));
    let revoke = tokio::spawn(async move { revoking.revoke(&keys, &end).await });
    wait_for_lock_waits::<D>(server, 1).await;
    run(update(&first)).await;
    run("COMMIT".to_owned()).await;
    assert_eq!(revoke.await.expect("no panic").expect("retried"), 2);
}

/// Creates two sessions, and returns them in the order in which the store locks them.
async fn create_two_sessions<D: Dialect>(store: &SqlStore<D>) -> [SessionRecord; 2] {
    let mut records = [create_session(store).await, create_session(store).await];
    records.sort_by_key(|record| *record.key.as_bytes());
    records
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_contract_holds_if_all_transactions_are_serializable() {
    let server = start_server(Kind::Postgres);
    let url = format!("{}?options=-c%20default_transaction_isolation%3Dserializable", server.url());
    // The store uses the application's pool, with the pool's settings.
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
async fn a_read_only_database_is_unavailable_for_writes_and_still_read() {
    let server = start_server(Kind::Postgres);
    let store = open::<PostgresDialect>(&server, Duration::from_secs(3)).await;
    let record = create_session(&store).await;
    let url = format!("{}?options=-c%20default_transaction_read_only%3Don", server.url());
    let pool = sqlx::PgPool::connect(&url).await.expect("a pool");
    let replica = PostgresStore::builder_on(pool).build().await.expect("a store");
    check_only_reads(&replica, &record).await;

    for server in [start_server(Kind::MariaDb), start_server(Kind::MySql)] {
        let store = open::<MySqlDialect>(&server, Duration::from_secs(3)).await;
        let record = create_session(&store).await;
        for statement in [
            "CREATE USER site@'%' IDENTIFIED BY 'secret'",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON keep.* TO site@'%'",
            "SET GLOBAL read_only = 1",
        ] {
            store.pool().execute(statement).await.expect(statement);
        }
        let url = server.url().replace("keep:secret@", "site:secret@");
        let replica = MySqlStore::builder(url).build().await.expect("a store");
        check_only_reads(&replica, &record).await;
    }

    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("keep.db");
    let url = format!("sqlite:{}", path.display());
    let store = SqliteStore::builder(url.clone()).migrate().build().await.expect("a store");
    let record = create_session(&store).await;
    let pool = sqlx::SqlitePool::connect(&format!("{url}?mode=ro")).await.expect("a pool");
    let replica = SqliteStore::builder_on(pool).build().await.expect("a store");
    check_only_reads(&replica, &record).await;
}

/// Checks that the store reads, and that each write is an error that leaves the record unchanged.
async fn check_only_reads<D: Dialect>(store: &SqlStore<D>, record: &SessionRecord) {
    let found = store.load(&record.key).await.expect("a read");
    assert_eq!(found.as_deref(), Some(record));
    let other = new_record(&"1".into());
    let errors = [
        store.create(&login(&other)).await.map(drop).expect_err("the database only reads"),
        store.rotate(&rotation(record)).await.map(drop).expect_err("the database only reads"),
        store
            .revoke(&[record.key], &end(record))
            .await
            .map(drop)
            .expect_err("the database only reads"),
        store.insert(&Account::new(1, "ada", "")).await.expect_err("the database only reads"),
    ];
    for error in errors {
        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
    }
    let found = store.load(&record.key).await.expect("a read");
    assert_eq!(found.as_deref(), Some(record));
}

async fn open_sqlite(path: &Path, timeout: Duration) -> Result<SqliteStore, StoreError> {
    let url = format!("sqlite:{}", path.display());
    SqliteStore::builder(url).with_timeout(timeout).migrate().build().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_unavailable_for_logins_and_loses_no_session() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open_sqlite(&directory.path().join("keep.db"), Duration::from_secs(3)).await;
    let store = store.expect("a store");
    let record = create_session(&store).await;
    // The store writes on one connection, and this setting of the connection limits the pages.
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
    let listed = store.list(&user, record.created, 100_000).await.expect("a read");
    assert_eq!(listed.iter().map(|record| record.key).collect::<HashSet<_>>(), kept);
    store.pool().execute("PRAGMA max_page_count = 1000000").await.expect("a setting");
    create_session(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_fails_in_time_while_another_process_writes_to_sqlite() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("keep.db");
    let timeout = Duration::from_secs(2);
    let store = open_sqlite(&path, timeout).await.expect("a store");
    let record = create_session(&store).await;
    // To the database, a second store is like another process.
    let other = open_sqlite(&path, timeout).await.expect("a store");
    let mut writer = other.pool().acquire().await.expect("a connection");
    writer.execute("BEGIN IMMEDIATE").await.expect("a transaction");
    let begun = Instant::now();
    let login_record = new_record(&"1".into());
    let error = store
        .create(&login(&login_record))
        .await
        .expect_err("the other store holds the write lock");
    let kinds = [StoreErrorKind::Timeout, StoreErrorKind::Unavailable];
    assert!(kinds.contains(&error.kind()), "{error:?}");
    assert!(begun.elapsed() < timeout * 10, "{:?}", begun.elapsed());
    assert!(store.load(&record.key).await.expect("a read does not wait").is_some());
    writer.execute("ROLLBACK").await.expect("the lock is released");
    // The call that failed does not take effect later.
    tokio::time::sleep(timeout).await;
    assert!(store.load(&login_record.key).await.expect("no error").is_none());
    create_session(&store).await;
    let purged = store.purge(Timestamp::from_secs(1), 10).await;
    assert_eq!(purged.expect("no error"), 0);
}
