//! The store contracts, against both of Google's emulators: as one server has the store, and as several
//! have it, whose calls only the emulator keeps apart.

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

/// A store in a project of its own: emulators make projects as they are named.
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

/// It finds out at the commit that another transaction was faster, and says so at once: all of the
/// contention there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_datastore_emulator_keeps_every_clause_between_servers() {
    let store = several("DATASTORE_URL", "several", 8).await;
    contract::run_all(|| async { store.clone() }).await;
}

/// It lets transactions wait for each other, and gives up on one after two seconds: every clause, with
/// two tasks at a time where they compete. With fifty it would take an hour.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_firestore_emulator_keeps_every_clause_between_servers() {
    let store = several("FIRESTORE_URL", "several", 2).await;
    contract::with_contention_of(2, contract::run_all(|| async { store.clone() })).await;
}
