//! Redis, beside the redis crate on its own.

use std::hint::black_box;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use criterion::Criterion;
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, ExistenceCheck, IntoConnectionInfo, SetExpiry, SetOptions};
use tokio::runtime::Runtime;
use tower_keep_redis::RedisStore;

use super::{Keep, NOW, ROUND, SESSIONS, Subject, TASKS, USERS, compare, fill, generations, key};
use super::{measure, new_user, record};

/// The commands that the store sends, without its conditions. The values in the replies are not
/// decoded.
struct Bare {
    connection: MultiplexedConnection,
    prefix: String,
}

type Bytes = Vec<u8>;

impl Bare {
    fn user(&self, user: u64) -> String {
        format!("{}{{{user}}}:user", self.prefix)
    }

    fn session(&self, user: u64, session: u64) -> String {
        format!("{}{{{user}}}:session:{}", self.prefix, member(session))
    }

    fn live(&self, user: u64) -> String {
        format!("{}{{{user}}}:live", self.prefix)
    }

    fn owner(&self, session: u64) -> String {
        format!("{}session:{}", self.prefix, member(session))
    }
}

fn member(session: u64) -> String {
    URL_SAFE_NO_PAD.encode(key(session).as_bytes())
}

impl Subject for Bare {
    async fn by_id(&self, user: u64) {
        let mut connection = self.connection.clone();
        let found: Option<Bytes> = connection.get(self.user(user)).await.expect("a user");
        black_box(found.expect("a user"));
    }

    async fn login(&self, session: u64) {
        let user = session % USERS;
        let mut connection = self.connection.clone();
        let mut both = redis::pipe();
        both.get(self.session(user, session)).get(self.user(user));
        let both: [Option<Bytes>; 2] = both.query_async(&mut connection).await.expect("a login");
        assert!(black_box(both).iter().all(Option::is_some));
    }

    async fn create(&self, session: u64) {
        let user = new_user(session);
        let mut connection = self.connection.clone();
        let value = format!("{:?}", record(session, user)).into_bytes();
        let life = SetOptions::default().with_expiration(SetExpiry::EX(2_592_000));
        let mut all = redis::pipe();
        let owner = life.clone().conditional_set(ExistenceCheck::NX);
        all.set_options(self.owner(session), user, owner);
        all.set_options(self.session(user, session), value, life);
        all.zadd(self.live(user), member(session), NOW.as_secs());
        all.expire(self.live(user), 2_592_000);
        let () = all.query_async(&mut connection).await.expect("a session");
    }

    async fn rotate(&self, session: u64, _from: u32) {
        let mut connection = self.connection.clone();
        let owner: Option<u64> = connection.get(self.owner(session)).await.expect("an owner");
        let name = self.session(owner.expect("an owner"), session);
        let value: Option<Bytes> = connection.get(&name).await.expect("a session");
        let life = SetOptions::default().with_expiration(SetExpiry::KEEPTTL);
        let value = value.expect("a session");
        let () = connection.set_options(&name, value, life).await.expect("a session");
    }

    async fn list(&self, user: u64) {
        let mut connection = self.connection.clone();
        let members: Vec<String> = connection.zrange(self.live(user), 0, -1).await.expect("a list");
        let names: Vec<String> = members
            .iter()
            .map(|member| format!("{}{{{user}}}:session:{member}", self.prefix))
            .collect();
        let values: Vec<Option<Bytes>> = connection.mget(names).await.expect("a list");
        assert_eq!(black_box(values).len() as u64, SESSIONS);
    }
}

/// Measures Redis.
pub(super) fn database(criterion: &mut Criterion, runtime: &Runtime, url: &str) {
    let prefix = format!("b{}:", std::process::id());
    let (store, connection) = runtime.block_on(async {
        let store = RedisStore::builder(url).with_key_prefix(&prefix).build().await;
        // Uses the same kind of connection as the store.
        let info = url.into_connection_info().expect("a URL");
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        let client = redis::Client::open(info.set_tcp_settings(tcp)).expect("a URL");
        let connection = client.get_multiplexed_async_connection().await.expect("a connection");
        (fill(store.expect("a store")).await, connection)
    });
    let (keep, bare) = (Arc::new(Keep(store)), Arc::new(Bare { connection, prefix }));
    // The bare driver's rotations leave the records as they are.
    let (kept, bared) = (generations(), generations());
    for tasks in TASKS {
        runtime.block_on(compare("redis", (tasks, ROUND), (&keep, kept), (&bare, bared)));
    }
    if std::env::var_os("KEEP_RATIOS").is_none() {
        measure(criterion, runtime, ["redis", "bare driver"], &bare, bared);
        measure(criterion, runtime, ["redis", "keep"], &keep, kept);
    }
}
