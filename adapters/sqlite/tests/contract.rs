//! Runs the store contract tests on a file and in memory.

use std::time::Duration;

use tower_keep_sqlite::SqliteStore;
use tower_keep_testkit::contract;

/// The timeout of a call, which is long enough for a busy disk.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_keeps_every_clause() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("keep.db").display());
    let store = SqliteStore::builder(url).with_timeout(PATIENCE).migrate().build().await.unwrap();
    contract::run_all(|| async { store.clone() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_keeps_every_clause() {
    let store = SqliteStore::builder("sqlite::memory:")
        .with_timeout(PATIENCE)
        .migrate()
        .build()
        .await
        .unwrap();
    contract::run_all(|| async { store.clone() }).await;
}
