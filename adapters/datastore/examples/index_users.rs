//! Writes index entities for users that another library has written, batch by batch. An index
//! entity names the user who has a login name.
//!
//! ```text
//! cargo run --example index_users -- datastore://PROJECT/NAMESPACE KIND PROPERTY [CURSOR]
//! ```

use std::env::args;
use std::error::Error;

use tower_keep_datastore::DatastoreStore;

const USAGE: &str = "usage: index_users datastore://PROJECT/NAMESPACE KIND PROPERTY [CURSOR]";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = args().skip(1).collect();
    let [url, kind, property, cursor @ ..] = arguments.as_slice() else { return Err(USAGE.into()) };
    let store = DatastoreStore::builder(url).with_kind(kind).with_login_property(property);
    let store = store.build().await?;
    let mut from = cursor.first().map(|cursor| cursor.parse()).transpose()?;
    let (mut looked_at, mut written, mut problems) = (0, 0, 0);
    loop {
        let batch = store.index_users(from.as_ref(), 400).await?;
        looked_at += batch.looked_at;
        written += batch.written;
        problems += batch.problems.len();
        for problem in &batch.problems {
            println!("{problem}");
        }
        eprint!("{looked_at} users, {written} index entities written, {problems} problems");
        let Some(next) = batch.next else { break };
        eprintln!("; to continue from here, add: {next}");
        from = Some(next);
    }
    eprintln!("; done");
    Ok(())
}
