//! The program that indexes users that other applications have written.

use std::path::PathBuf;
use std::process::Command;

use tower_keep_core::{Account, UserDirectory};
use tower_keep_datastore::DatastoreStore;

fn host() -> String {
    let url = std::env::var("DATASTORE_URL");
    let url =
        url.expect("DATASTORE_URL is not set: `cargo xtask test datastore` starts an emulator");
    url.trim_start_matches("http://").to_owned()
}

/// Cargo builds a package's examples with its tests, and puts them into the directory beside the
/// tests.
fn program() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own program");
    let beside = test.parent().and_then(|deps| deps.parent()).expect("target/debug");
    let program = beside.join("examples/index_users");
    assert!(program.is_file(), "of one test alone cargo builds no examples: add `--examples`");
    program
}

#[tokio::test]
async fn it_shows_how_far_it_is() {
    let project = format!("program-{}", std::process::id());
    let url = format!("datastore://{project}");
    let theirs = DatastoreStore::builder(&url).with_emulator(host()).with_kind_prefix("Other");
    let theirs = theirs.build().await.expect("a store");
    // One more than a batch.
    for number in 1..=401 {
        let account = Account::new(number, format!("name{number}"), "hash");
        theirs.insert(&account).await.expect("a new account");
    }
    let run = |arguments: &[&str]| {
        let mut command = Command::new(program());
        let command = command.args(arguments).env("DATASTORE_EMULATOR_HOST", host());
        let output = command.output().expect("it runs");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (is_done, stderr) = run(&[&url, "User", "username"]);
    let first = "400 users, 400 index entities written, 0 problems; to go on from here: ";
    let all = "401 users, 401 index entities written, 0 problems; done";
    assert!(is_done && stderr.contains(first) && stderr.contains(all), "{stderr}");
    let cursor = stderr.lines().find_map(|line| line.strip_prefix(first)).expect("where to go on");
    let (is_done, stderr) = run(&[&url, "User", "username", cursor]);
    assert!(is_done && stderr.contains("1 users, 0 index entities written"), "{stderr}");
    assert!(!stderr.contains("400 users"), "{stderr}");
    let (is_done, stderr) = run(&[&url, "User", "username", "no cursor!"]);
    assert!(!is_done && stderr.contains("not a cursor"), "{stderr}");
    let (is_done, stderr) = run(&["redis://localhost", "User", "username"]);
    assert!(!is_done && stderr.contains("datastore://PROJECT"), "{stderr}");
}
