//! The databases of the benches: servers that a bench starts, or those that `POSTGRES_URL`,
//! `MARIADB_URL` and `MYSQL_URL` name.

use std::sync::atomic::{AtomicU64, Ordering};

use tower_keep_sql::{Dialect, SqlStore};
use xtask::servers::{Kind, Server};

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
