//! `cargo bench -p tower-keep-store-benches --bench million-redis` compares Redis with 1,000 users of one
//! session each to Redis with 1,000,000. It measures how much memory each user and session takes,
//! and whether a login, a list and the end of all sessions take longer.

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline};
use tower_keep_bench_cases::records::{NOW, key, record};
use tower_keep_core::{
    Account, End, EndReason, LoginStore, NewLogin, SessionStore, UserDirectory, UserId,
};
use tower_keep_redis::RedisStore;
use xtask::servers::Server;

const FEW: u64 = 1_000;
const MANY: u64 = 1_000_000;
/// The number of users or sessions in one pipeline.
const BATCH: u64 = 500;
/// The number of rounds. Each measures one server and then the other.
const ROUNDS: u64 = 20;
const CALLS: u64 = 40;
const AT_MOST: f64 = 1.5;

/// A password hash in the format of Argon2.
const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c2l4dGVlbiBieXRlcyE$\
    dGhpcnR5LXR3byBieXRlcyBvZiBhIGhhc2gh";

/// The number of the model user, of whom all other users are copies. It is at least as long as any
/// of their numbers.
const MODEL: u64 = 9_999_999;

/// One server with `count` users and sessions.
struct Place {
    store: RedisStore,
    connection: MultiplexedConnection,
    count: u64,
    _server: Server,
}

async fn text(connection: &mut MultiplexedConnection, command: &mut Cmd) -> String {
    command.query_async(connection).await.expect("an answer")
}

async fn memory(connection: &mut MultiplexedConnection) -> f64 {
    let info = text(connection, redis::cmd("INFO").arg("memory")).await;
    let line = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
    line.and_then(|bytes| bytes.trim().parse().ok()).expect("a number")
}

async fn place(count: u64) -> Place {
    let settings = ["--appendonly", "no", "--maxmemory-policy", "noeviction"];
    let server = Server::start_redis(&settings).expect("a server");
    let store = RedisStore::builder(server.url()).build().await.expect("a store");
    let client = redis::Client::open(server.url()).expect("a URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
    // The store writes one user and one session. All others are copies of them.
    let id = UserId::from(MODEL);
    let account = Account::new(&id, format!("user{MODEL}@example.com"), HASH);
    store.insert(&account).await.expect("an account");
    let model = record(MODEL, MODEL);
    let login = NewLogin::new(&model, model.expires);
    store.create(&login).await.expect("a session");
    let user = format!("keep:{{{MODEL}}}:user");
    let names = redis::cmd("KEYS").arg("keep:{*}:session:*").query_async(&mut connection).await;
    let [name] = <[String; 1]>::try_from(names.unwrap_or(Vec::new())).expect("one session");
    let member = name.rsplit(':').next().expect("a key").to_owned();
    let value = text(&mut connection, redis::cmd("GET").arg(&user)).await;
    let holder = format!("keep:login:user{MODEL}@example.com");
    let holder_value = text(&mut connection, redis::cmd("GET").arg(&holder)).await;
    let session_value = text(&mut connection, redis::cmd("GET").arg(&name)).await;
    let life: u64 =
        redis::cmd("PTTL").arg(&name).query_async(&mut connection).await.expect("a time");
    let all = |number: u64| move |text: &str| text.replace(&MODEL.to_string(), &number.to_string());

    let mut before = memory(&mut connection).await;
    for (what, per) in [("user", 0), ("session", 1)] {
        for first in (0..count).step_by(BATCH as usize) {
            let mut writes = Pipeline::new();
            for number in first..(first + BATCH).min(count) {
                let of = all(number);
                if per == 0 {
                    writes.set(of(&user), of(&value)).ignore();
                    writes.set(of(&holder), of(&holder_value)).ignore();
                    continue;
                }
                let own = session_member(number);
                let name = of(&name).replace(&member, &own);
                writes.pset_ex(name, &session_value, life).ignore();
                let live = of(&format!("keep:{{{MODEL}}}:live"));
                writes.zadd(&live, &own, model.expires.as_secs()).ignore();
                writes.pexpire(&live, life as i64).ignore();
                let begun = of(&format!("keep:{{{MODEL}}}:begun"));
                writes.zadd(&begun, &own, model.created.as_secs()).ignore();
                writes.pexpire(&begun, life as i64).ignore();
                writes.pset_ex(format!("keep:session:{own}"), number, life + 60_000).ignore();
            }
            let () = writes.query_async(&mut connection).await.expect("written");
        }
        let now = memory(&mut connection).await;
        if count == MANY {
            println!("{:.0} bytes a {what}", (now - before) / count as f64);
        }
        before = now;
    }
    Place { store, connection, count, _server: server }
}

fn session_member(number: u64) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(key(number).as_bytes())
}

/// The calls that are measured.
#[derive(Clone, Copy, Debug)]
enum Call {
    Login,
    List,
    EndAll,
}

impl Place {
    /// Returns the median time of some calls, each for another user.
    async fn time(&self, call: Call, round: u64) -> Duration {
        let mut times = Vec::new();
        for index in 0..CALLS {
            // The factor shares no divisor with the counts, so every end is for another user.
            let number = (round * CALLS + index).wrapping_mul(7_919) % self.count;
            let user = UserId::from(number);
            let begun = Instant::now();
            match call {
                Call::Login => {
                    let login = self.store.load_login(&key(number), Some(&user)).await;
                    assert!(login.expect("a login").expect("a login").user.is_some());
                }
                Call::List => {
                    let list = self.store.list(&user, NOW, 100).await.expect("a list");
                    assert_eq!(list.len(), 1);
                }
                Call::EndAll => {
                    let end = End::new(NOW, EndReason::Revoked, NOW.plus(60));
                    self.store.revoke_all(&user, None, &end).await.expect("an end");
                }
            }
            times.push(begun.elapsed());
        }
        times.sort_unstable();
        times[times.len() / 2]
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let begun = Instant::now();
        let mut both = [place(FEW).await, place(MANY).await];
        println!("loaded in {:.0} s", begun.elapsed().as_secs_f64());
        for call in [Call::Login, Call::List, Call::EndAll] {
            let mut medians = [Vec::new(), Vec::new()];
            for round in 0..ROUNDS {
                for (place, medians) in both.iter().zip(&mut medians) {
                    medians.push(place.time(call, round).await);
                }
            }
            let [few, many] = medians.map(|mut medians| {
                medians.sort_unstable();
                medians[medians.len() / 2].as_secs_f64() * 1e6
            });
            let ratio = many / few;
            println!(
                "{call:?}: {few:.0} µs with {FEW} users and sessions, {many:.0} µs with {MANY}: \
                 {ratio:.2} times as long"
            );
            assert!(ratio <= AT_MOST, "{call:?}: {ratio:.2}");
        }
        let total = memory(&mut both[1].connection).await;
        println!("{:.0} MB in all", total / 1e6);
    });
}
