//! Every rule of a store, as the testkit checks it.

use adapter_example::MapStore;
use tower_keep_testkit::contract;

#[tokio::test(flavor = "multi_thread")]
async fn the_store_keeps_every_rule() {
    let store = MapStore::default();
    contract::run_all(|| async { store.clone() }).await;
}
