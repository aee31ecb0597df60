//! Fills a store's tables with SQL statements, which is faster than calls of the store.

use std::fmt::Write;

use sqlx::{AssertSqlSafe, Row};
use tower_keep_bench_cases::records::{NOW, earlier_record};
use tower_keep_mysql::MySqlDialect;
use tower_keep_postgres::PostgresDialect;
use tower_keep_sql::{Dialect, SqlStore};
use tower_keep_sqlite::SqliteDialect;

/// The parts of the benches that differ between the databases.
pub trait BenchDialect: Dialect {
    /// Runs a statement.
    fn run_sql(store: &SqlStore<Self>, sql: &str) -> impl Future<Output = ()> + Send;

    /// Returns the database's plan for the statement, as text.
    fn plan(store: &SqlStore<Self>, sql: &str) -> impl Future<Output = String> + Send;

    /// Returns an SQL literal for these bytes.
    fn bytes_literal(bytes: &[u8]) -> String;

    /// A plan that reads a whole table contains one of these texts.
    const FULL_SCANS: &'static [&'static str];
    /// The statement that makes the database collect statistics about its tables.
    const ANALYZE: &'static str;
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

macro_rules! bench_dialect {
    ($dialect:ty, $explain:literal, $column:expr, $literal:expr, $scans:expr, $analyze:literal) => {
        impl BenchDialect for $dialect {
            async fn run_sql(store: &SqlStore<Self>, sql: &str) {
                let result = sqlx::raw_sql(AssertSqlSafe(sql)).execute(store.pool());
                result.await.expect("a valid statement");
            }

            async fn plan(store: &SqlStore<Self>, sql: &str) -> String {
                let explain = AssertSqlSafe(format!("{} {sql}", $explain));
                let rows = sqlx::raw_sql(explain).fetch_all(store.pool()).await.expect("a plan");
                let line = |row| Row::get::<String, _>(row, $column);
                let plan = rows.iter().map(line).collect::<Vec<_>>().join("\n");
                // `FULL_SCANS` has single spaces.
                plan.split_whitespace().collect::<Vec<_>>().join(" ")
            }

            fn bytes_literal(bytes: &[u8]) -> String {
                let literal: fn(String) -> String = $literal;
                literal(hex(bytes))
            }

            const FULL_SCANS: &'static [&'static str] = $scans;
            const ANALYZE: &'static str = $analyze;
        }
    };
}

bench_dialect!(
    PostgresDialect,
    "EXPLAIN",
    0,
    |hex| format!("'\\x{hex}'"),
    &["Seq Scan"],
    "ANALYZE"
);
bench_dialect!(
    MySqlDialect,
    "EXPLAIN FORMAT=JSON",
    0,
    |hex| format!("x'{hex}'"),
    // MariaDB's words for a table and for an index, then MySQL's. What MySQL calls an access of type
    // "index" may be a lookup.
    &[
        r#""access_type": "ALL""#,
        r#""access_type": "index", "key""#,
        r#""access_type": "index", "possible_keys""#,
        r#""access_type": "table""#,
        r#""index_access_type": "index_scan""#,
    ],
    "ANALYZE TABLE {users}, {sessions}, {epochs}"
);
bench_dialect!(
    SqliteDialect,
    "EXPLAIN QUERY PLAN",
    "detail",
    |hex| format!("x'{hex}'"),
    &["SCAN"],
    "ANALYZE"
);

/// Returns the statement that inserts sessions. Each pair has a session's number and its user's
/// number.
pub fn insert_sessions<D: BenchDialect>(numbers: impl Iterator<Item = (u64, u64)>) -> String {
    let row = |(number, user): (u64, u64)| {
        let record = earlier_record(number, user);
        let (key, salt) = (D::bytes_literal(record.key.as_bytes()), D::bytes_literal(&record.salt));
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

/// Returns the statement that inserts epochs, which are the marks that end all sessions of a user.
/// Each number gives an epoch of a user who has no other rows: the user `other7` for the number 7.
pub fn insert_epochs(numbers: impl Iterator<Item = u64>) -> String {
    let at = NOW.as_secs();
    let row = |number| format!("('other{number}', {at}, {at}, 'revoked', {at}, TRUE)");
    let rows: Vec<String> = numbers.map(row).collect();
    let columns = "user_id, epoch, ended_at, end_reason, kept_until, purged";
    format!("INSERT INTO {{epochs}} ({columns}) VALUES {}", rows.join(", "))
}
