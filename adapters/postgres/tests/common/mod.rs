//! Returns the URL of a server, and a builder for a store whose tables belong to one test.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tower_keep_postgres::{PostgresStore, PostgresStoreBuilder};

/// Returns the server's URL.
pub(crate) fn url() -> String {
    std::env::var("POSTGRES_URL")
        .expect("POSTGRES_URL is not set; `cargo xtask test postgres` starts a server")
}

/// Returns a prefix that no other test uses.
pub(crate) fn prefix() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("t{}_{number}_", std::process::id())
}

/// Returns a builder for a store whose tables belong to one test.
pub(crate) fn builder() -> PostgresStoreBuilder {
    let builder = PostgresStore::builder(url()).with_timeout(Duration::from_secs(20));
    builder.with_table_prefix(prefix()).migrate()
}
