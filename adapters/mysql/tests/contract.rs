//! Runs the store contract tests against a server.

mod common;

use tower_keep_testkit::contract;

async fn run_contract_tests(url_variable: &str) {
    let store = common::builder(url_variable).build().await.expect("the server can be reached");
    contract::run_all(|| async { store.clone() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_clause_of_the_contract_is_kept_on_mariadb() {
    run_contract_tests("MARIADB_URL").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_clause_of_the_contract_is_kept_on_mysql() {
    run_contract_tests("MYSQL_URL").await;
}
