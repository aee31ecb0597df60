//! Runs the store contracts against one server, Sentinel and a cluster.

use std::time::Duration;

use tower_keep_redis::RedisStore;
use tower_keep_testkit::contract;

fn url(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: `cargo xtask test redis` starts servers")
    })
}

async fn keeps_every_clause(variable: &str) {
    let builder = RedisStore::builder(url(variable)).with_timeout(Duration::from_secs(20));
    let store = builder.build().await.expect("a store");
    contract::run_all(|| async { store.clone() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_keeps_every_clause() {
    keeps_every_clause("REDIS_URL").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinel_keeps_every_clause() {
    keeps_every_clause("REDIS_SENTINEL_URL").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_keeps_every_clause() {
    keeps_every_clause("REDIS_CLUSTER_URL").await;
}
