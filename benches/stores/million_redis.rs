//! `cargo bench -p tower-keep-store-benches --bench million-redis` compares a Redis server with
//! 1,000 users, of one session each, with a server that has 1,000,000 such users. It measures how
//! much memory each user and session takes. It asserts that `load_login`, `list` and `revoke_all`
//! take at most 1.5 times as long on the large server as on the small server.

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
/// The number of users or sessions that one pipeline writes.
const PIPELINE_SIZE: u64 = 500;
/// The number of rounds. Each round measures the small server and then the large server.
const ROUNDS: u64 = 20;
/// The number of calls in a round, for each server.
const CALLS: u64 = 40;
const MAX_RATIO: f64 = 1.5;

/// A password hash in the format of Argon2.
const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c2l4dGVlbiBieXRlcyE$\
    dGhpcnR5LXR3byBieXRlcyBvZiBhIGhhc2gh";

/// The number of the model user. All other users are copies of this user, with another number. The
/// number has at least as many digits as theirs.
const MODEL_USER: u64 = 9_999_999;

/// A server with `count` users and sessions.
struct FilledServer {
    store: RedisStore,
    connection: MultiplexedConnection,
    count: u64,
    _server: Server,
}

/// Sends a command whose reply is a text.
async fn query_text(connection: &mut MultiplexedConnection, command: &mut Cmd) -> String {
    command.query_async(connection).await.expect("a reply")
}

/// Returns how many bytes of memory the server uses.
async fn used_memory(connection: &mut MultiplexedConnection) -> f64 {
    let info = query_text(connection, redis::cmd("INFO").arg("memory")).await;
    let line = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
    line.and_then(|bytes| bytes.trim().parse().ok()).expect("a number")
}

/// Starts a server and fills it with this many users of one session each.
async fn start_filled(count: u64) -> FilledServer {
    let settings = ["--appendonly", "no", "--maxmemory-policy", "noeviction"];
    let server = Server::start_redis(&settings).expect("a server");
    let store = RedisStore::builder(server.url()).build().await.expect("a store");
    let client = redis::Client::open(server.url()).expect("a URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
    // The store writes one user and one session. All other users and sessions are copies of these
    // two.
    let id = UserId::from(MODEL_USER);
    let account = Account::new(&id, format!("user{MODEL_USER}@example.com"), HASH);
    store.insert(&account).await.expect("an account");
    let model = record(MODEL_USER, MODEL_USER);
    let login = NewLogin::new(&model, model.expires);
    store.create(&login).await.expect("a session");
    let user_key = format!("keep:{{{MODEL_USER}}}:user");
    let session_keys =
        redis::cmd("KEYS").arg("keep:{*}:session:*").query_async(&mut connection).await;
    let [session_key] =
        <[String; 1]>::try_from(session_keys.unwrap_or(Vec::new())).expect("one session");
    let model_encoded_key = session_key.rsplit(':').next().expect("a key").to_owned();
    let user_value = query_text(&mut connection, redis::cmd("GET").arg(&user_key)).await;
    let login_name_key = format!("keep:login:user{MODEL_USER}@example.com");
    let login_name_value =
        query_text(&mut connection, redis::cmd("GET").arg(&login_name_key)).await;
    let session_value = query_text(&mut connection, redis::cmd("GET").arg(&session_key)).await;
    let ttl_millis: u64 =
        redis::cmd("PTTL").arg(&session_key).query_async(&mut connection).await.expect("a time");
    let copy_for =
        |number: u64| move |text: &str| text.replace(&MODEL_USER.to_string(), &number.to_string());

    let mut memory_before = used_memory(&mut connection).await;
    for (item, is_session) in [("user", false), ("session", true)] {
        for first in (0..count).step_by(PIPELINE_SIZE as usize) {
            let mut writes = Pipeline::new();
            for number in first..(first + PIPELINE_SIZE).min(count) {
                let copy = copy_for(number);
                if !is_session {
                    writes.set(copy(&user_key), copy(&user_value)).ignore();
                    writes.set(copy(&login_name_key), copy(&login_name_value)).ignore();
                    continue;
                }
                let encoded_key = encode_key(number);
                let name = copy(&session_key).replace(&model_encoded_key, &encoded_key);
                writes.pset_ex(name, &session_value, ttl_millis).ignore();
                let live_index = copy(&format!("keep:{{{MODEL_USER}}}:live"));
                writes.zadd(&live_index, &encoded_key, model.expires.as_secs()).ignore();
                writes.pexpire(&live_index, ttl_millis as i64).ignore();
                let begun_index = copy(&format!("keep:{{{MODEL_USER}}}:begun"));
                writes.zadd(&begun_index, &encoded_key, model.created.as_secs()).ignore();
                writes.pexpire(&begun_index, ttl_millis as i64).ignore();
                writes
                    .pset_ex(format!("keep:session:{encoded_key}"), number, ttl_millis + 60_000)
                    .ignore();
            }
            let () = writes.query_async(&mut connection).await.expect("written");
        }
        let memory = used_memory(&mut connection).await;
        if count == MANY {
            println!("{:.0} bytes for each {item}", (memory - memory_before) / count as f64);
        }
        memory_before = memory;
    }
    FilledServer { store, connection, count, _server: server }
}

fn encode_key(number: u64) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(key(number).as_bytes())
}

/// The calls of the store that are measured.
#[derive(Clone, Copy, Debug)]
enum Call {
    LoadLogin,
    List,
    RevokeAll,
}

impl FilledServer {
    /// Returns the median time of some calls, each for a different user.
    async fn median_time(&self, call: Call, round: u64) -> Duration {
        let mut times = Vec::new();
        for index in 0..CALLS {
            // The factor and the count have no common divisor, so each call is for a different user.
            let number = (round * CALLS + index).wrapping_mul(7_919) % self.count;
            let user = UserId::from(number);
            let begun = Instant::now();
            match call {
                Call::LoadLogin => {
                    let login = self.store.load_login(&key(number), Some(&user)).await;
                    assert!(login.expect("a login").expect("a login").user.is_some());
                }
                Call::List => {
                    let list = self.store.list(&user, NOW, 100).await.expect("a list");
                    assert_eq!(list.len(), 1);
                }
                Call::RevokeAll => {
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
        let mut servers = [start_filled(FEW).await, start_filled(MANY).await];
        println!("filled in {:.0} s", begun.elapsed().as_secs_f64());
        for call in [Call::LoadLogin, Call::List, Call::RevokeAll] {
            let mut medians = [Vec::new(), Vec::new()];
            for round in 0..ROUNDS {
                for (server, medians) in servers.iter().zip(&mut medians) {
                    medians.push(server.median_time(call, round).await);
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
            assert!(ratio <= MAX_RATIO, "{call:?}: {ratio:.2}");
        }
        let total = used_memory(&mut servers[1].connection).await;
        println!("{:.0} MB in all", total / 1e6);
    });
}
