//! Runs the store contracts against both of Google's emulators, once with one store and once with
//! several stores. Several stores are like several servers: their calls do not wait for each other
//! in this process, so they conflict in the emulator.

use std::sync::Arc;
use std::time::Duration;

use tower_keep_datastore::DatastoreStore;
use tower_keep_testkit::{Several, contract};

/// Returns `HOST:PORT` of the emulator that this environment variable names.
fn emulator_host(variable: &str) -> String {
    let url = std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: `cargo xtask test datastore` starts emulators")
    });
    url.trim_start_matches("http://").to_owned()
}

/// Opens a store in this process's own project. Emulators create a project when a call first names
/// it.
async fn store(variable: &str, project: &str) -> DatastoreStore {
    let url = format!("datastore://{project}-{}", std::process::id());
    let builder = DatastoreStore::builder(url).with_emulator(emulator_host(variable));
    builder.with_timeout(Duration::from_secs(30)).build().await.expect("a store")
}

/// Opens several stores in the same project.
async fn several_stores(
    variable: &str,
    project: &str,
    count: usize,
) -> Arc<Several<DatastoreStore>> {
    let mut stores = Vec::new();
    for _ in 0..count {
        stores.push(store(variable, project).await);
    }
    Arc::new(Several::new(stores))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_store_keeps_the_contract_in_the_datastore_emulator() {
    let store = store("DATASTORE_URL", "one").await;
    contract::run_all(|| async { store.clone() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_store_keeps_the_contract_in_the_firestore_emulator() {
    let store = store("FIRESTORE_URL", "one").await;
    contract::run_all(|| async { store.clone() }).await;
}

/// The Datastore emulator detects a conflict at the commit, and reports it immediately. So this
/// test runs with the usual number of competing tasks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_stores_keep_the_contract_in_the_datastore_emulator() {
    let store = several_stores("DATASTORE_URL", "several", 8).await;
    contract::run_all(|| async { store.clone() }).await;
}

/// The Firestore emulator lets conflicting transactions wait for each other, and aborts one of them
/// after two seconds. So this test runs with two competing tasks at a time. With fifty tasks it
/// would take an hour.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_stores_keep_the_contract_in_the_firestore_emulator() {
    let store = several_stores("FIRESTORE_URL", "several", 2).await;
    contract::with_contention_of(2, contract::run_all(|| async { store.clone() })).await;
}
