//! The store contracts, against both of Google's emulators. They run once with one store, as on one
//! server, and once with several stores, as on several servers. Only the emulator keeps the calls
//! of several stores apart.

use std::sync::Arc;
use std::time::Duration;

use tower_keep_datastore::DatastoreStore;
use tower_keep_testkit::{Several, contract};

fn host(variable: &str) -> String {
    let url = std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: `cargo xtask test datastore` starts emulators")
    });
    url.trim_start_matches("http://").to_owned()
}

/// Opens a store in a project of its own. Emulators create a project when it is first named.
async fn store(variable: &str, project: &str) -> DatastoreStore {
    let project = format!("datastore://{project}-{}", std::process::id());
    let builder = DatastoreStore::builder(project).with_emulator(host(variable));
    builder.with_timeout(Duration::from_secs(30)).build().await.expect("a store")
}

async fn several(variable: &str, project: &str, count: usize) -> Arc<Several<DatastoreStore>> {
    let mut stores = Vec::new();
    for _ in 0..count {
        stores.push(store(variable, project).await);
    }
    Arc::new(Several::new(stores))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_datastore_emulator_keeps_every_clause() {
    let store = store("DATASTORE_URL", "one").await;
    contract::run_all(|| async { store.clone() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_firestore_emulator_keeps_every_clause() {
    let store = store("FIRESTORE_URL", "one").await;
    contract::run_all(|| async { store.clone() }).await;
}

/// This emulator finds out at the commit that another transaction was faster, and reports it
/// immediately. So this runs with full contention.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_datastore_emulator_keeps_every_clause_between_servers() {
    let store = several("DATASTORE_URL", "several", 8).await;
    contract::run_all(|| async { store.clone() }).await;
}

/// This emulator lets transactions wait for each other, and gives up on one after two seconds. So
/// this runs every clause with two competing tasks at a time. With fifty it would take an hour.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_firestore_emulator_keeps_every_clause_between_servers() {
    let store = several("FIRESTORE_URL", "several", 2).await;
    contract::with_contention_of(2, contract::run_all(|| async { store.clone() })).await;
}
