//! The databases of the benches: servers that a bench starts, or the servers that `POSTGRES_URL`,
//! `MARIADB_URL` and `MYSQL_URL` name.

use std::sync::atomic::{AtomicU64, Ordering};

use tower_keep_sql::{Dialect, SqlStore};
use xtask::servers::{Kind, Server};

/// The number of connections that a store and its bare driver use.
pub const CONNECTIONS: u32 = 10;

/// A database server. If the bench started the server, dropping this value ends the server.
#[derive(Debug)]
pub struct DatabaseServer {
    /// The URL of the database.
    pub url: String,
    _server: Option<Server>,
}

/// Returns the server that the environment names, or starts a new server of this kind.
///
/// # Panics
///
/// Panics if the server can't be started.
#[must_use]
pub fn find_or_start_server(kind: Kind) -> DatabaseServer {
    if let Ok(url) = std::env::var(kind.variable()) {
        return DatabaseServer { url, _server: None };
    }
    let server = Server::start(kind).unwrap_or_else(|error| panic!("{error}"));
    DatabaseServer { url: server.url(), _server: Some(server) }
}

/// Opens a store in the database with this URL. The store's tables are new and empty.
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
    let store = builder.with_table_prefix(prefix).with_timeout(timeout).migrate().build().await;
    store.expect("the store opens")
}
