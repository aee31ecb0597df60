//! Tests of keys that expire, slots, failovers, and all the ways in which a Redis server can be
//! unavailable. A test that breaks a server starts a server of its own.

mod faults;
mod lifetimes;
mod load;
mod names;
mod opening;
mod slots;

use std::error::Error;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tower_keep_core::{
    AuthUser, End, EndReason, NewLogin, Rotation, SessionRecord, SessionStore, StoreError,
    StoreErrorKind, Timestamp,
};
use tower_keep_redis::{RedisStore, RedisStoreBuilder};
use tower_keep_testkit::contract::sessions::new_record;
use xtask::servers::{Kind, Server, call_redis};

fn env_variable(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set: `cargo xtask servers` starts a server"))
}

/// Returns a prefix that no other test's keys have.
fn unused_prefix() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("r{}-{}:", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

async fn open_store(url: &str) -> RedisStore {
    let builder = RedisStore::builder(url).with_timeout(Duration::from_secs(20));
    builder.build().await.expect("a store")
}

/// Opens a store with a short time-out. Tries several times, because a server that has just started
/// may not respond in this time.
async fn open_with_timeout(
    builder: impl Fn() -> RedisStoreBuilder,
    timeout: Duration,
) -> RedisStore {
    for _ in 0..10 {
        match builder().with_timeout(timeout).build().await {
            Err(error) if error.kind() == StoreErrorKind::Timeout => {}
            Err(error) if error.kind() == StoreErrorKind::Unavailable => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            store => return store.expect("a store"),
        }
    }
    panic!("the server did not respond in ten attempts");
}

fn start_server() -> Server {
    Server::start(Kind::Redis).expect("a server")
}

/// Sends a command to the server on this port, and returns the reply.
fn run_command(port: u16, command: &str) -> String {
    call_redis(port, command).expect("a reply").trim().to_owned()
}

fn new_login(record: &SessionRecord) -> NewLogin<'_> {
    NewLogin::new(record, record.expires)
}

/// Creates a session of this user.
async fn log_in<U: AuthUser>(store: &RedisStore<U>, user: &str) -> SessionRecord {
    let record = new_record(&user.into());
    store.create(&new_login(&record)).await.expect("a new session");
    record
}

/// Returns a new record with these times.
fn new_record_at(user: &str, created: Timestamp, expires: Timestamp) -> SessionRecord {
    let mut record = new_record(&user.into());
    record.created = created;
    record.expires = expires;
    record
}

fn end(record: &SessionRecord) -> End {
    End::new(record.created, EndReason::Revoked, record.expires)
}

fn rotation(record: &SessionRecord) -> Rotation {
    let at = record.created.plus(10);
    Rotation::new(record.key, record.generation, at, record.expires)
}

/// Returns the texts of an error and of its sources, as a log shows them.
fn error_text(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

/// Returns the text of the error that `build` returns for this URL.
async fn build_error(url: &str) -> String {
    let builder = RedisStore::builder(url).with_timeout(Duration::from_secs(5));
    let error = builder.build().await.expect_err("the store can't be opened");
    let text = error_text(&error);
    // If waiting can't help, the error has to be `Unsupported`.
    let is_permanent = !text.contains("no connection") || text.contains("WRONGPASS");
    let is_unsupported = error.kind() == StoreErrorKind::Unsupported;
    assert!(is_unsupported || !is_permanent, "{error:?}");
    text
}
