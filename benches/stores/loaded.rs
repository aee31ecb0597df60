//! Tables that are filled by SQL statements, which is the fastest way.

use std::fmt::Write;

use sqlx::{AssertSqlSafe, Row};
use tower_keep_bench_cases::records::{NOW, earlier_record};
use tower_keep_mysql::MySqlDialect;
use tower_keep_postgres::PostgresDialect;
use tower_keep_sql::{Dialect, SqlStore};
use tower_keep_sqlite::SqliteDialect;

/// The statements and literals of the benches that depend on the database.
pub trait Loaded: Dialect {
    /// Runs a statement.
    fn run(store: &SqlStore<Self>, sql: &str) -> impl Future<Output = ()> + Send;

    /// Returns the database's plan for the statement, as text.
    fn plan(store: &SqlStore<Self>, sql: &str) -> impl Future<Output = String> + Send;

    /// Returns a literal of these bytes.
    fn bytes(bytes: &[u8]) -> String;

    /// The texts that a plan contains if it reads a whole table.
    const SCANS: &'static [&'static str];
    /// The statement that makes the database collect statistics about its tables.
    const ANALYZE: &'static str;
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

macro_rules! loaded {
    ($dialect:ty, $explain:literal, $column:expr, $bytes:expr, $scans:expr, $analyze:literal) => {
        impl Loaded for $dialect {
            async fn run(store: &SqlStore<Self>, sql: &str) {
                let run = sqlx::raw_sql(AssertSqlSafe(sql)).execute(store.pool());
                run.await.expect("a statement that runs");
            }

            async fn plan(store: &SqlStore<Self>, sql: &str) -> String {
                let explain = AssertSqlSafe(format!("{} {sql}", $explain));
                let rows = sqlx::raw_sql(explain).fetch_all(store.pool()).await.expect("a plan");
                let line = |row| Row::get::<String, _>(row, $column);
                rows.iter().map(line).collect::<Vec<_>>().join("\n")
            }

            fn bytes(bytes: &[u8]) -> String {
                let write: fn(String) -> String = $bytes;
                write(hex(bytes))
            }

            const SCANS: &'static [&'static str] = $scans;
            const ANALYZE: &'static str = $analyze;
        }
    };
}

loaded!(PostgresDialect, "EXPLAIN", 0, |hex| format!("'\\x{hex}'"), &["Seq Scan"], "ANALYZE");
loaded!(
    MySqlDialect,
    "EXPLAIN FORMAT=JSON",
    0,
    |hex| format!("x'{hex}'"),
    &[r#""access_type": "ALL""#, r#""access_type": "index""#],
    "ANALYZE TABLE {users}, {sessions}, {epochs}"
);
loaded!(
    SqliteDialect,
    "EXPLAIN QUERY PLAN",
    "detail",
    |hex| format!("x'{hex}'"),
    &["SCAN"],
    "ANALYZE"
);

/// Returns the statement that inserts sessions, each given by its own number and its user's.
pub fn insert_sessions<D: Loaded>(numbers: impl Iterator<Item = (u64, u64)>) -> String {
    let row = |(number, user): (u64, u64)| {
        let record = earlier_record(number, user);
        let (key, salt) = (D::bytes(record.key.as_bytes()), D::bytes(&record.salt));
        let (began, expires) = (record.created.as_secs(), record.expires.as_secs());
        format!(
            "({key}, '{user}', {salt}, {began}, {expires}, 0, {began}, {began}, {expires}, 2592000, \
             '{}', FALSE)",
            record.details.as_str()
        )
    };
    let rows: Vec<String> = numbers.map(row).collect();
    let columns = "session_key, user_id, salt, created, expires, generation, session_started, \
        last_seen, remember_expires, remember_seconds, details, notified";
    format!("INSERT INTO {{sessions}} ({columns}) VALUES {}", rows.join(", "))
}

/// Returns the statement that inserts the epochs of other users, given by these numbers, who have
/// ended all their sessions.
pub fn insert_epochs(numbers: impl Iterator<Item = u64>) -> String {
    let at = NOW.as_secs();
    let row = |number| format!("('other{number}', {at}, {at}, 'revoked', {at}, TRUE)");
    let rows: Vec<String> = numbers.map(row).collect();
    let columns = "user_id, epoch, ended_at, end_reason, kept_until, purged";
    format!("INSERT INTO {{epochs}} ({columns}) VALUES {}", rows.join(", "))
}
