//! Every clause passes on a store that follows the contract.

use tower_keep_core::SplitStore;
use tower_keep_memory::{MemorySessions, MemoryStore};
use tower_keep_testkit::{FaultyStore, contract};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_clause_passes_on_the_memory_store() {
    contract::run_all(|| async { MemoryStore::new() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_clause_passes_on_a_faulty_store_without_troubles() {
    let store = FaultyStore::new(MemoryStore::new());
    contract::run_all(|| async { store.clone() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_clause_passes_on_a_split_store() {
    contract::run_all(|| async { SplitStore(MemoryStore::new(), MemorySessions::new()) }).await;
}
