//! The databases of the benches: servers that a bench starts, or those that `POSTGRES_URL`,
//! `MARIADB_URL` and `MYSQL_URL` name.

use std::sync::atomic::{AtomicU64, Ordering};

use tower_keep_core::{SessionKey, SessionRecord, Timestamp, UserId};
use tower_keep_sql::{Dialect, SqlStore};
use xtask::servers::{Kind, Server};

/// The moment at which every session of the benches begins.
pub const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

/// The number of connections that a store and its bare driver use.
pub const CONNECTIONS: u32 = 10;

/// The address of a database, and its server if the bench started it.
#[derive(Debug)]
pub struct Place {
    /// Its URL.
    pub url: String,
    _server: Option<Server>,
}

/// Returns a server of this kind: the server that the environment names, or a new one.
///
/// # Panics
///
/// Panics if the server can't be started.
#[must_use]
pub fn server(kind: Kind) -> Place {
    if let Ok(url) = std::env::var(kind.variable()) {
        return Place { url, _server: None };
    }
    let server = Server::start(kind).unwrap_or_else(|error| panic!("{error}"));
    Place { url: server.url(), _server: Some(server) }
}

/// Opens an empty store at this URL.
///
/// # Panics
///
/// Panics if the store can't be opened.
pub async fn open<D: Dialect>(url: &str) -> SqlStore<D> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let builder = SqlStore::<D>::builder(url).with_max_connections(CONNECTIONS);
    let prefix = format!("b{}_{number}_", std::process::id());
    let timeout = std::time::Duration::from_secs(60);
    let built = builder.with_table_prefix(prefix).with_timeout(timeout).migrate().build().await;
    built.expect("the store opens")
}

/// Returns the key of the session with this number. Keys are spread evenly, as hashes are.
#[must_use]
pub fn key(number: u64) -> SessionKey {
    // SplitMix64.
    let mixed = |salt: u64| {
        let mixed = (number + salt).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB).to_be_bytes()
    };
    let mut key = [0; 32];
    for (chunk, salt) in key.chunks_mut(8).zip(0_u64..) {
        chunk.copy_from_slice(&mixed(salt << 40));
    }
    SessionKey::new(key)
}

/// Returns a session of this user that began before [`NOW`]. When it began depends on its number,
/// because users log in one after the other.
#[must_use]
pub fn earlier_record(number: u64, user: u64) -> SessionRecord {
    let record = record(number, user);
    let began = NOW.minus(1 + (number % 600_000) as u32);
    SessionRecord {
        created: began,
        session_started: began,
        last_seen: began,
        expires: record.expires.minus(number as u32 % 86_400),
        ..record
    }
}

/// Returns a session of this user as a login creates it.
#[must_use]
pub fn record(number: u64, user: u64) -> SessionRecord {
    let expires = NOW.plus(30 * 24 * 3_600);
    SessionRecord {
        key: key(number),
        user: UserId::from(user),
        generation: 0,
        rotated_at: None,
        seen_at: None,
        salt: [7; 16],
        created: NOW,
        session_started: NOW,
        last_seen: NOW,
        remember_expires: Some(expires),
        remember_seconds: 30 * 24 * 3_600,
        expires,
        address: "192.0.2.7".parse().ok(),
        user_agent: "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0".into(),
        method: "password".into(),
        ended: None,
    }
}
