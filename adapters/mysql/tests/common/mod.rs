//! A server, and tables of a test's own in it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tower_keep_mysql::{MySqlStore, MySqlStoreBuilder};

/// The URL of the server that this variable names.
fn url(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} names no server; `cargo xtask test mysql` starts one")
    })
}

/// A prefix that no other test has.
fn prefix() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("t{}_{number}_", std::process::id())
}

/// A store's builder, whose tables are the test's own.
pub(crate) fn builder(variable: &str) -> MySqlStoreBuilder {
    let builder = MySqlStore::builder(url(variable)).with_timeout(Duration::from_secs(20));
    builder.with_table_prefix(prefix()).migrate()
}
