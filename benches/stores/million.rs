//! `cargo bench -p tower-keep-store-benches --bench million` compares a login with 1,000 users and
//! sessions in the database to one with 1,000,000. It asserts that the login remains an index
//! lookup, and that it takes at most 1.5 times as long. `KEEP_STORE` limits the run to one store.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use tower_keep_bench_cases::records::{NOW, key};
use tower_keep_core::{LoginStore, SessionStore, UserId};
use tower_keep_mysql::MySqlDialect;
use tower_keep_postgres::PostgresDialect;
use tower_keep_sql::SqlStore;
use tower_keep_sqlite::SqliteDialect;
use tower_keep_store_benches::databases::{open, server};
use tower_keep_store_benches::loaded::{Loaded, insert_epochs, insert_sessions};
use xtask::servers::Kind;

const FEW: u64 = 1_000;
const MANY: u64 = 1_000_000;
/// The number of rows in one statement.
const ROWS: u64 = 1_000;
/// The number of rounds. Each measures one store and then the other.
const ROUNDS: usize = 20;
const LOGINS: u64 = 500;
const AT_MOST: f64 = 1.5;

/// Inserts users and sessions, one of each for every number.
async fn load<D: Loaded>(store: &SqlStore<D>, count: u64) {
    let fill = |statement: &str| store.measured().names.fill(statement);
    for first in (0..count).step_by(usize::try_from(ROWS).unwrap_or_default()) {
        let numbers = first..(first + ROWS).min(count);
        let users: Vec<String> = numbers
            .clone()
            .map(|n| format!("('{n}', 'user{n}', 'hash', TRUE, {})", D::bytes(b"")))
            .collect();
        let columns = "id, login_name, password_hash, active, security_stamp";
        let users = format!("INSERT INTO {{users}} ({columns}) VALUES {}", users.join(", "));
        D::run(store, &fill(&users)).await;
        let sessions = insert_sessions::<D>(numbers.map(|n| (n, n)));
        D::run(store, &fill(&sessions)).await;
        D::run(store, &fill(&insert_epochs(first..first + ROWS / 10))).await;
    }
    D::run(store, &fill(D::ANALYZE)).await;
}

/// Checks the plan of every statement whose cost must not grow with the tables.
async fn check_plans<D: Loaded>(store: &SqlStore<D>) {
    let measured = store.measured();
    let now = NOW.as_secs().to_string();
    let key = D::bytes(key(77).as_bytes());
    // Where parameters have no numbers, the user's id is passed twice.
    let is_numbered = D::placeholder(1) != D::placeholder(2);
    let user = if is_numbered { vec!["'77'"] } else { vec!["'77'", "'77'"] };
    let list = [&user[..], &[now.as_str(), "100"]].concat();
    let statements = [
        ("login", measured.login.as_str(), vec![key.as_str()]),
        ("by id", measured.by_id.as_str(), vec!["'77'"]),
        ("list", measured.list.as_str(), list),
        ("to_notify", measured.to_notify.as_str(), vec!["'77'"]),
        ("purge", measured.purge.as_str(), vec![now.as_str(), "1000"]),
    ];
    for (name, sql, values) in statements {
        let sql = values.iter().enumerate().fold(sql.to_owned(), |sql, (index, value)| {
            let parameter = D::placeholder(index + 1);
            match is_numbered {
                true => sql.replace(&parameter, value),
                false => sql.replacen(&parameter, value, 1),
            }
        });
        let plan = D::plan(store, &sql).await;
        let scans: HashSet<_> = D::SCANS.iter().filter(|scan| plan.contains(**scan)).collect();
        assert!(scans.is_empty(), "{} reads a whole table for {name}:\n{plan}", D::NAME);
    }
    println!("{}: login, by id, list, to_notify and purge look up an index", D::NAME);
}

/// Returns the median time of many logins, with sessions from all over the table.
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
    let is_asked_for = |name| std::env::var("KEEP_STORE").map_or(true, |only| only == name);
    runtime.block_on(async {
        if is_asked_for("sqlite") {
            let directory = tempfile::tempdir().expect("a directory");
            let file = format!("sqlite:{}", directory.path().join("keep.db").display());
            compare::<SqliteDialect>(&file).await;
        }
        if is_asked_for("postgres") {
            compare::<PostgresDialect>(&server(Kind::Postgres).url).await;
        }
        for (name, kind) in [("mariadb", Kind::MariaDb), ("mysql", Kind::MySql)] {
            if is_asked_for(name) {
                println!("on {name}:");
                compare::<MySqlDialect>(&server(kind).url).await;
            }
        }
    });
}
