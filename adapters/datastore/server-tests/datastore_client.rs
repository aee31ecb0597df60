//! Opens the store that the arguments and the environment name, and looks up a user five times a
//! second.
//!
//! ```text
//! datastore-client URL [ENDPOINT [SERVICE_ACCOUNT_FILE|SERVICE_ACCOUNT_JSON]]
//! ```
//!
//! The program prints the outcome of each lookup, and exits when its input ends.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tower_keep_core::{StoreError, UserStore};
use tower_keep_datastore::DatastoreStore;

fn kind_and_text(error: &StoreError) -> String {
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
        Err(error) => return println!("not opened: {}", kind_and_text(&error)),
    };
    println!("opened {store:?}");
    let has_input_ended = Arc::new(AtomicBool::new(false));
    let input_end = Arc::clone(&has_input_ended);
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        input_end.store(true, Ordering::Relaxed);
    });
    while !has_input_ended.load(Ordering::Relaxed) {
        match store.by_id(&"7".into()).await {
            Ok(found) => println!("found: {}", found.is_some()),
            Err(error) => println!("not looked up: {}", kind_and_text(&error)),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
