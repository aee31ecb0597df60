//! Every clause passes on a store that keeps the contract.

use tower_keep_core::SplitStore;
use tower_keep_memory::{MemorySessions, MemoryStore};
use tower_keep_testkit::{FaultyStore, contract};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_store_keeps_every_clause() {
    contract::run_all(|| async { MemoryStore::new() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_faulty_store_without_troubles_keeps_every_clause() {
    let store = FaultyStore::new(MemoryStore::new());
    contract::run_all(|| async { store.clone() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_stores_joined_keep_every_clause() {
    contract::run_all(|| async { SplitStore(MemoryStore::new(), MemorySessions::new()) }).await;
}
