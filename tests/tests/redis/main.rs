//! Tests of what only Redis has: keys that expire, slots, failovers, and all the ways in which a
//! server can be unavailable. Each test that breaks a server starts one of its own.

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

fn env(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set; `cargo xtask servers` starts a server"))
}

/// Returns a prefix that no other test's keys have.
fn prefix() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("r{}-{}:", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

async fn open(url: &str) -> RedisStore {
    let builder = RedisStore::builder(url).with_timeout(Duration::from_secs(20));
    builder.build().await.expect("a store")
}

/// Opens a store with a short time-out. Opening is tried several times, because the server has only
/// just started, beside others.
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
    panic!("a server that has begun answers");
}

fn server() -> Server {
    Server::start(Kind::Redis).expect("a server")
}

fn ask(port: u16, words: &str) -> String {
    call_redis(port, words).expect("an answer").trim().to_owned()
}

fn login(record: &SessionRecord) -> NewLogin<'_> {
    NewLogin::new(record, record.expires)
}

async fn begin<U: AuthUser>(store: &RedisStore<U>, user: &str) -> SessionRecord {
    let record = new_record(&user.into());
    store.create(&login(&record)).await.expect("a new session");
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

/// Returns everything that an error says, as a log shows it.
fn error_text(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

/// Returns the text of the error that a store on this URL fails to open with.
async fn build_error(url: &str) -> String {
    let builder = RedisStore::builder(url).with_timeout(Duration::from_secs(5));
    let error = builder.build().await.expect_err("it can't be opened");
    let text = error_text(&error);
    // An error that waiting does not fix has to be `Unsupported`.
    let is_wrong = !text.contains("no connection") || text.contains("WRONGPASS");
    let is_unsupported = error.kind() == StoreErrorKind::Unsupported;
    assert!(is_unsupported || !is_wrong, "{error:?}");
    text
}
