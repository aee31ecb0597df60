//! Redis: the store, compared with the bare driver, which is the crate redis.

use std::hint::black_box;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use criterion::Criterion;
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, ExistenceCheck, IntoConnectionInfo, SetExpiry, SetOptions};
use tokio::runtime::Runtime;
use tower_keep_redis::RedisStore;

use super::{
    CALLS_PER_ROUND, KeepStore, NOW, SESSIONS_PER_USER, Subject, TASKS, USERS, Work, compare, fill,
    key, measure, new_generations, record, user_of_new_session,
};

/// The bare driver. It sends the same commands as the store, but not as one script with conditions,
/// and it does not decode the values in the replies.
struct BareDriver {
    connection: MultiplexedConnection,
    prefix: String,
}

type Bytes = Vec<u8>;

impl BareDriver {
    // The names of the keys are those of the store.
    fn user_key(&self, user: u64) -> String {
        format!("{}{{{user}}}:user", self.prefix)
    }

    fn session_key(&self, user: u64, session: u64) -> String {
        format!("{}{{{user}}}:session:{}", self.prefix, encoded_key(session))
    }

    fn live_key(&self, user: u64) -> String {
        format!("{}{{{user}}}:live", self.prefix)
    }

    fn owner_key(&self, session: u64) -> String {
        format!("{}session:{}", self.prefix, encoded_key(session))
    }
}

fn encoded_key(session: u64) -> String {
    URL_SAFE_NO_PAD.encode(key(session).as_bytes())
}

impl Subject for BareDriver {
    async fn by_id(&self, user: u64) {
        let mut connection = self.connection.clone();
        let found: Option<Bytes> = connection.get(self.user_key(user)).await.expect("a user");
        black_box(found.expect("a user"));
    }

    async fn load_login(&self, session: u64) {
        let user = session % USERS;
        let mut connection = self.connection.clone();
        let mut reads = redis::pipe();
        reads.get(self.session_key(user, session)).get(self.user_key(user));
        let values: [Option<Bytes>; 2] = reads.query_async(&mut connection).await.expect("a login");
        assert!(black_box(values).iter().all(Option::is_some));
    }

    async fn create(&self, session: u64) {
        let user = user_of_new_session(session);
        let mut connection = self.connection.clone();
        let value = format!("{:?}", record(session, user)).into_bytes();
        let options = SetOptions::default().with_expiration(SetExpiry::EX(2_592_000));
        let mut writes = redis::pipe();
        let if_absent = options.clone().conditional_set(ExistenceCheck::NX);
        writes.set_options(self.owner_key(session), user, if_absent);
        writes.set_options(self.session_key(user, session), value, options);
        writes.zadd(self.live_key(user), encoded_key(session), NOW.as_secs());
        writes.expire(self.live_key(user), 2_592_000);
        let () = writes.query_async(&mut connection).await.expect("a session");
    }

    async fn rotate(&self, session: u64, _from: u32) {
        let mut connection = self.connection.clone();
        let owner: Option<u64> = connection.get(self.owner_key(session)).await.expect("an owner");
        let name = self.session_key(owner.expect("an owner"), session);
        let value: Option<Bytes> = connection.get(&name).await.expect("a session");
        let options = SetOptions::default().with_expiration(SetExpiry::KEEPTTL);
        let value = value.expect("a session");
        let () = connection.set_options(&name, value, options).await.expect("a session");
    }

    async fn list(&self, user: u64) {
        let mut connection = self.connection.clone();
        let encoded_keys: Vec<String> =
            connection.zrange(self.live_key(user), 0, -1).await.expect("a list");
        let names: Vec<String> = encoded_keys
            .iter()
            .map(|encoded_key| format!("{}{{{user}}}:session:{encoded_key}", self.prefix))
            .collect();
        let values: Vec<Option<Bytes>> = connection.mget(names).await.expect("a list");
        assert_eq!(black_box(values).len() as u64, SESSIONS_PER_USER);
    }
}

/// Measures the Redis server with this URL.
pub(super) fn bench(criterion: &mut Criterion, runtime: &Runtime, url: &str) {
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
    let (keep, bare) = (Arc::new(KeepStore(store)), Arc::new(BareDriver { connection, prefix }));
    // A rotation by the bare driver does not raise the generation in the record. So the bench counts
    // the generations separately: in one list for the store, and in another for the bare driver.
    let (keep_generations, bare_generations) = (new_generations(), new_generations());
    for tasks in TASKS {
        let work = Work { tasks, calls: CALLS_PER_ROUND };
        let (keep, bare) = ((&keep, keep_generations), (&bare, bare_generations));
        runtime.block_on(compare("redis", work, keep, bare));
    }
    if std::env::var_os("KEEP_RATIOS_ONLY").is_none() {
        measure(criterion, runtime, ["redis", "bare driver"], &bare, bare_generations);
        measure(criterion, runtime, ["redis", "keep"], &keep, keep_generations);
    }
}
