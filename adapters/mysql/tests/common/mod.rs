//! Returns the URL of a server, and a builder for a store whose tables belong to one test.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tower_keep_mysql::{MySqlStore, MySqlStoreBuilder};

/// Returns the URL of a server, from this environment variable.
fn url(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set; `cargo xtask test mysql` starts a server")
    })
}

/// Returns a prefix that no other test uses.
fn prefix() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("t{}_{number}_", std::process::id())
}

/// Returns a builder for a store whose tables belong to one test.
pub(crate) fn builder(variable: &str) -> MySqlStoreBuilder {
    let builder = MySqlStore::builder(url(variable)).with_timeout(Duration::from_secs(20));
    builder.with_table_prefix(prefix()).migrate()
}
