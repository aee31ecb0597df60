//! Runs the store contract tests on a file and in memory.

use std::time::Duration;

use tower_keep_sqlite::SqliteStore;
use tower_keep_testkit::contract;

/// The timeout of a call. It is long enough for a busy disk.
const TIMEOUT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_in_a_file_keeps_every_clause_of_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("keep.db").display());
    let store = SqliteStore::builder(url).with_timeout(TIMEOUT).migrate().build().await.unwrap();
    contract::run_all(|| async { store.clone() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_in_memory_keeps_every_clause_of_the_contract() {
    let store = SqliteStore::builder("sqlite::memory:")
        .with_timeout(TIMEOUT)
        .migrate()
        .build()
        .await
        .unwrap();
    contract::run_all(|| async { store.clone() }).await;
}
