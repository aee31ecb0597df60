//! Runs the store contract tests against a server.

mod common;

use tower_keep_testkit::contract;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_clause_of_the_contract_is_kept() {
    let store = common::builder().build().await.unwrap();
    contract::run_all(|| async { store.clone() }).await;
}
