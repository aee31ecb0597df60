//! `cargo bench -p tower-keep-store-benches --bench million` measures `load_login`, with 1,000 and
//! with 1,000,000 users and sessions in the database. It asserts that the database uses an index
//! even in the large tables, and that the call takes at most 1.5 times as long as in the small
//! tables. `KEEP_STORE` limits the run to one store.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use tower_keep_bench_cases::records::{NOW, key};
use tower_keep_core::{LoginStore, SessionStore, UserId};
use tower_keep_mysql::MySqlDialect;
use tower_keep_postgres::PostgresDialect;
use tower_keep_sql::SqlStore;
use tower_keep_sqlite::SqliteDialect;
use tower_keep_store_benches::databases::{find_or_start_server, open};
use tower_keep_store_benches::tables::{BenchDialect, insert_epochs, insert_sessions};
use xtask::servers::Kind;

const FEW: u64 = 1_000;
const MANY: u64 = 1_000_000;
/// The number of rows in one statement.
const ROWS_PER_STATEMENT: u64 = 1_000;
/// The number of rounds. Each round measures the small store and then the large store.
const ROUNDS: usize = 20;
/// The number of calls in a round, for each store.
const CALLS: u64 = 500;
const MAX_RATIO: f64 = 1.5;

/// Inserts this many users with one session each, and epochs of other users.
async fn fill_store<D: BenchDialect>(store: &SqlStore<D>, count: u64) {
    let with_names = |statement: &str| store.names().fill(statement);
    for first in (0..count).step_by(usize::try_from(ROWS_PER_STATEMENT).unwrap_or_default()) {
        let numbers = first..(first + ROWS_PER_STATEMENT).min(count);
        let users: Vec<String> = numbers
            .clone()
            .map(|n| format!("('{n}', 'user{n}', 'hash', TRUE, {})", D::bytes_literal(b"")))
            .collect();
        let columns = "id, login_name, password_hash, active, security_stamp";
        let users = format!("INSERT INTO {{users}} ({columns}) VALUES {}", users.join(", "));
        D::run_sql(store, &with_names(&users)).await;
        let sessions = insert_sessions::<D>(numbers.map(|n| (n, n)));
        D::run_sql(store, &with_names(&sessions)).await;
        D::run_sql(store, &with_names(&insert_epochs(first..first + ROWS_PER_STATEMENT / 10)))
            .await;
    }
    D::run_sql(store, &with_names(D::ANALYZE)).await;
}

/// Checks the plan of every statement whose cost must not grow with the tables.
async fn check_plans<D: BenchDialect>(store: &SqlStore<D>) {
    let queries = store.queries();
    let now = NOW.as_secs().to_string();
    let key = D::bytes_literal(key(77).as_bytes());
    // If the database's parameters have no numbers, the user's id is passed twice to `list`.
    let is_numbered = D::placeholder(1) != D::placeholder(2);
    let user_values = if is_numbered { vec!["'77'"] } else { vec!["'77'", "'77'"] };
    let list = [&user_values[..], &[now.as_str(), "100"]].concat();
    let statements = [
        ("session_with_user", vec![key.as_str()]),
        ("user_by_id", vec!["'77'"]),
        ("list", list),
        ("to_notify", vec!["'77'"]),
        ("purge", vec![now.as_str(), "1000"]),
    ];
    for (name, values) in &statements {
        let sql = queries[name].to_owned();
        let sql = values.iter().enumerate().fold(sql, |sql, (index, value)| {
            let parameter = D::placeholder(index + 1);
            match is_numbered {
                true => sql.replace(&parameter, value),
                false => sql.replacen(&parameter, value, 1),
            }
        });
        let plan = D::plan(store, &sql).await;
        let scans: HashSet<_> = D::FULL_SCANS.iter().filter(|scan| plan.contains(**scan)).collect();
        assert!(scans.is_empty(), "{} reads a whole table for {name}:\n{plan}", D::NAME);
    }
    let names = statements.map(|(name, _)| name).join(", ");
    println!("{}: {names} use an index", D::NAME);
}

/// Returns the median time of `load_login`, for sessions from all over the table.
async fn time_load_login<D: BenchDialect>(
    store: &SqlStore<D>,
    count: u64,
    round: usize,
) -> Duration {
    let mut times = Vec::new();
    for call in 0..CALLS {
        let number = (round as u64 * CALLS + call).wrapping_mul(0x9E37_79B9_7F4A_7C15) % count;
        let (key, user) = (key(number), UserId::from(number));
        let begun = Instant::now();
        let login = store.load_login(&key, Some(&user)).await.expect("a login");
        times.push(begun.elapsed());
        assert!(login.expect("a login").user.is_some());
    }
    times.sort_unstable();
    times[times.len() / 2]
}

/// Compares a store that holds few users with a store that holds many.
async fn compare<D: BenchDialect>(url: &str) {
    let (few, many) = (open::<D>(url).await, open::<D>(url).await);
    let begun = Instant::now();
    fill_store(&few, FEW).await;
    fill_store(&many, MANY).await;
    println!("{}: filled in {:.0} s", D::NAME, begun.elapsed().as_secs_f64());
    check_plans(&many).await;
    let mut medians = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        medians[0].push(time_load_login(&few, FEW, round).await);
        medians[1].push(time_load_login(&many, MANY, round).await);
    }
    let [few_micros, many_micros] = medians.map(|mut medians| {
        medians.sort_unstable();
        medians[ROUNDS / 2].as_secs_f64() * 1e6
    });
    let ratio = many_micros / few_micros;
    println!(
        "{}: load_login takes {few_micros:.0} µs with {FEW} users and sessions, {many_micros:.0} µs \
         with {MANY}: {ratio:.2} times as long",
        D::NAME
    );
    assert!(ratio <= MAX_RATIO, "{}: {ratio:.2}", D::NAME);
    let user = UserId::from(77);
    let begun = Instant::now();
    assert_eq!(many.list(&user, NOW, 100).await.expect("a list").len(), 1);
    println!("{}: list takes {:.0} µs with {MANY}", D::NAME, begun.elapsed().as_secs_f64() * 1e6);
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let is_selected = |name| std::env::var("KEEP_STORE").map_or(true, |only| only == name);
    runtime.block_on(async {
        if is_selected("sqlite") {
            let directory = tempfile::tempdir().expect("a directory");
            let file = format!("sqlite:{}", directory.path().join("keep.db").display());
            compare::<SqliteDialect>(&file).await;
        }
        if is_selected("postgres") {
            compare::<PostgresDialect>(&find_or_start_server(Kind::Postgres).url).await;
        }
        for (name, kind) in [("mariadb", Kind::MariaDb), ("mysql", Kind::MySql)] {
            if is_selected(name) {
                println!("on {name}:");
                compare::<MySqlDialect>(&find_or_start_server(kind).url).await;
            }
        }
    });
}
