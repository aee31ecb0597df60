//! Opens the store that its arguments and its environment name, and looks up a user again and
//! again.
//!
//! ```text
//! datastore-client URL [ENDPOINT [SERVICE_ACCOUNT_FILE|SERVICE_ACCOUNT_JSON]]
//! ```
//!
//! It prints the outcome of each lookup, until its input ends.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tower_keep_core::{StoreError, UserStore};
use tower_keep_datastore::DatastoreStore;

fn said(error: &StoreError) -> String {
    format!("{:?} {error}", error.kind())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut builder = DatastoreStore::builder(arguments.first().expect("a URL"));
    if let Some(endpoint) = arguments.get(1) {
        builder = builder.with_endpoint(endpoint);
    }
    builder = match arguments.get(2) {
        Some(json) if json.starts_with('{') => builder.with_service_account_json(json),
        Some(file) => builder.with_service_account_file(file),
        None => builder,
    };
    let store = match builder.with_timeout(Duration::from_secs(15)).build().await {
        Ok(store) => store,
        Err(error) => return println!("not opened: {}", said(&error)),
    };
    println!("opened {store:?}");
    let is_over = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&is_over);
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        end.store(true, Ordering::Relaxed);
    });
    while !is_over.load(Ordering::Relaxed) {
        match store.by_id(&"7".into()).await {
            Ok(found) => println!("found: {}", found.is_some()),
            Err(error) => println!("not asked: {}", said(&error)),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
