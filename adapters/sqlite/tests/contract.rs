//! The store contracts, against a file and against memory.

use tower_keep_sqlite::SqliteStore;
use tower_keep_testkit::contract;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_keeps_every_clause() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path().join("keep.db")).await.unwrap();
    contract::run_all(|| async { store.clone() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_keeps_every_clause() {
    let store = SqliteStore::in_memory().await.unwrap();
    contract::run_all(|| async { store.clone() }).await;
}
