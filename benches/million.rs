//! `cargo bench -p tower-keep-benches --bench million`: a login with 1,000 users and sessions in the
//! database, and with 1,000,000. It stays a lookup in an index, which is asserted, and takes at most half
//! as long again.

use std::collections::HashSet;
use std::fmt::Write;
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Row};
use tower_keep_benches::databases::{NOW, key, open, record, server};
use tower_keep_core::{LoginStore, SessionStore, UserId};
use tower_keep_mysql::MySqlDialect;
use tower_keep_postgres::PostgresDialect;
use tower_keep_sql::{Dialect, SqlStore};
use tower_keep_sqlite::SqliteDialect;
use xtask::servers::Kind;

const FEW: u64 = 1_000;
const MANY: u64 = 1_000_000;
/// How many rows go into one statement.
const ROWS: u64 = 1_000;
/// What is asked of one, then of the other, and so on.
const ROUNDS: usize = 20;
const LOGINS: u64 = 500;
const AT_MOST: f64 = 1.5;

/// What the script says in a database's own words.
trait Loaded: Dialect {
    async fn run(store: &SqlStore<Self>, sql: &str);

    /// How the statement would be run, as text.
    async fn plan(store: &SqlStore<Self>, sql: &str) -> String;

    fn bytes(bytes: &[u8]) -> String;

    /// What shows in a plan that reads a whole table.
    const SCANS: &'static [&'static str];
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
    "ANALYZE TABLE {users}, {sessions}"
);
loaded!(
    SqliteDialect,
    "EXPLAIN QUERY PLAN",
    "detail",
    |hex| format!("x'{hex}'"),
    &["SCAN"],
    "ANALYZE"
);

/// Users and sessions, one of each per number.
async fn load<D: Loaded>(store: &SqlStore<D>, count: u64) {
    let fill = |statement: &str| store.measured().names.fill(statement);
    for first in (0..count).step_by(usize::try_from(ROWS).unwrap_or_default()) {
        let numbers = first..(first + ROWS).min(count);
        let users: Vec<String> = numbers
            .clone()
            .map(|n| format!("('{n}', 'user{n}', 'hash', TRUE, {})", D::bytes(b"")))
            .collect();
        let columns = "id, login, password_hash, active, stamp";
        let users = format!("INSERT INTO {{users}} ({columns}) VALUES {}", users.join(", "));
        D::run(store, &fill(&users)).await;
        let sessions: Vec<String> = numbers
            .map(|n| {
                let record = record(n, n);
                let (key, salt) = (D::bytes(record.key.as_bytes()), D::bytes(&record.salt));
                let (now, expires) = (NOW.as_secs(), record.expires.as_secs() - n as u32 % 86_400);
                format!(
                    "({key}, '{n}', 0, {salt}, {now}, {now}, {now}, {expires}, 2592000, {expires}, \
                     '192.0.2.7', '{}', 'password', FALSE)",
                    record.user_agent
                )
            })
            .collect();
        let columns = "session_key, user_id, generation, salt, created, session_started, last_seen, \
            remember_expires, remember_seconds, expires, address, user_agent, method, told";
        let sessions =
            format!("INSERT INTO {{sessions}} ({columns}) VALUES {}", sessions.join(", "));
        D::run(store, &fill(&sessions)).await;
    }
    D::run(store, &fill(D::ANALYZE)).await;
}

/// Every statement whose cost must not grow with the tables.
async fn check_plans<D: Loaded>(store: &SqlStore<D>) {
    let measured = store.measured();
    let now = NOW.as_secs().to_string();
    let key = D::bytes(key(77).as_bytes());
    let statements = [
        ("login", measured.login.as_str(), vec![key.as_str()]),
        ("by id", measured.by_id.as_str(), vec!["'77'"]),
        ("list", measured.list.as_str(), vec!["'77'", now.as_str(), "100"]),
        ("untold", measured.untold.as_str(), vec!["'77'"]),
        ("purge", measured.purge.as_str(), vec![now.as_str(), "1000"]),
    ];
    for (name, sql, values) in statements {
        let sql = values.iter().enumerate().fold(sql.to_owned(), |sql, (index, value)| {
            sql.replacen(&D::placeholder(index + 1), value, 1)
        });
        let plan = D::plan(store, &sql).await;
        let scans: HashSet<_> = D::SCANS.iter().filter(|scan| plan.contains(**scan)).collect();
        assert!(scans.is_empty(), "{} reads a whole table for {name}:\n{plan}", D::NAME);
    }
    println!("{}: login, by id, list, untold and purge look up an index", D::NAME);
}

/// The median of many logins, of sessions from all over the table.
async fn login<D: Loaded>(store: &SqlStore<D>, count: u64, round: usize) -> Duration {
    let mut times = Vec::new();
    for call in 0..LOGINS {
        let number = (round as u64 * LOGINS + call).wrapping_mul(0x9E37_79B9_7F4A_7C15) % count;
        let (key, user) = (key(number), UserId::from(number));
        let begun = Instant::now();
        let login = store.load_login(&key, Some(&user)).await.expect("a login");
        times.push(begun.elapsed());
        assert!(login.expect("a login").user.is_some());
    }
    times.sort_unstable();
    times[times.len() / 2]
}

async fn compare<D: Loaded>(url: &str) {
    let (few, many) = (open::<D>(url).await, open::<D>(url).await);
    let begun = Instant::now();
    load(&few, FEW).await;
    load(&many, MANY).await;
    println!("{}: loaded in {:.0} s", D::NAME, begun.elapsed().as_secs_f64());
    check_plans(&many).await;
    let mut medians = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        medians[0].push(login(&few, FEW, round).await);
        medians[1].push(login(&many, MANY, round).await);
    }
    let [few_took, many_took] = medians.map(|mut medians| {
        medians.sort_unstable();
        medians[ROUNDS / 2].as_secs_f64() * 1e6
    });
    let ratio = many_took / few_took;
    println!(
        "{}: a login takes {few_took:.0} µs with {FEW} users and sessions, {many_took:.0} µs with \
         {MANY}: {ratio:.2} times as long",
        D::NAME
    );
    assert!(ratio <= AT_MOST, "{}: {ratio:.2}", D::NAME);
    let user = UserId::from(77);
    let begun = Instant::now();
    assert_eq!(many.list(&user, NOW, 100).await.expect("a list").len(), 1);
    println!("{}: a list takes {:.0} µs there", D::NAME, begun.elapsed().as_secs_f64() * 1e6);
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let directory = tempfile::tempdir().expect("a directory");
    let file = format!("sqlite:{}", directory.path().join("keep.db").display());
    let (postgres, mariadb) = (server(Kind::Postgres), server(Kind::MariaDb));
    runtime.block_on(async {
        compare::<SqliteDialect>(&file).await;
        compare::<PostgresDialect>(&postgres.url).await;
        compare::<MySqlDialect>(&mariadb.url).await;
    });
}
