//! Runs the store contract tests against a server.

mod common;

use tower_keep_testkit::contract;

async fn every_clause_is_kept(variable: &str) {
    let store = common::builder(variable).build().await.expect("a store");
    contract::run_all(|| async { store.clone() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_clause_is_kept_on_mariadb() {
    every_clause_is_kept("MARIADB_URL").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_clause_is_kept_on_mysql() {
    every_clause_is_kept("MYSQL_URL").await;
}
