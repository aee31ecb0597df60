//! Runs the example program `index_users`, which writes index entities for users that other
//! applications have written.

use std::path::PathBuf;
use std::process::Command;

use tower_keep_core::{Account, UserDirectory};
use tower_keep_datastore::DatastoreStore;

/// Returns `HOST:PORT` of the emulator.
fn emulator_host() -> String {
    let url = std::env::var("DATASTORE_URL");
    let url =
        url.expect("DATASTORE_URL is not set: `cargo xtask test datastore` starts an emulator");
    url.trim_start_matches("http://").to_owned()
}

/// Returns the path of the compiled example. Cargo writes tests to `target/debug/deps`, and
/// examples to `target/debug/examples`.
fn example_path() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let debug = test.parent().and_then(|deps| deps.parent()).expect("target/debug");
    let example = debug.join("examples/index_users");
    assert!(
        example.is_file(),
        "the example is not built: run all tests of the package, or add `--examples`",
    );
    example
}

#[tokio::test]
async fn index_users_shows_its_progress_and_continues_from_a_cursor() {
    let project = format!("program-{}", std::process::id());
    let url = format!("datastore://{project}");
    // With another prefix, this store writes index entities that the program does not see.
    let other_application =
        DatastoreStore::builder(&url).with_emulator(emulator_host()).with_kind_prefix("Other");
    let other_application = other_application.build().await.expect("a store");
    // A batch has 400 users.
    for number in 1..=401 {
        let account = Account::new(number, format!("name{number}"), "hash");
        other_application.insert(&account).await.expect("a new account");
    }
    let run = |arguments: &[&str]| {
        let mut command = Command::new(example_path());
        let command = command.args(arguments).env("DATASTORE_EMULATOR_HOST", emulator_host());
        let output = command.output().expect("the example runs");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (has_succeeded, stderr) = run(&[&url, "User", "username"]);
    let after_first =
        "400 users, 400 index entities written, 0 problems; to continue from here, add: ";
    let after_last = "401 users, 401 index entities written, 0 problems; done";
    assert!(
        has_succeeded && stderr.contains(after_first) && stderr.contains(after_last),
        "{stderr}"
    );
    let cursor = stderr.lines().find_map(|line| line.strip_prefix(after_first)).expect("a cursor");
    let (has_succeeded, stderr) = run(&[&url, "User", "username", cursor]);
    assert!(has_succeeded && stderr.contains("1 users, 0 index entities written"), "{stderr}");
    assert!(!stderr.contains("400 users"), "{stderr}");
    let (has_succeeded, stderr) = run(&[&url, "User", "username", "no cursor!"]);
    assert!(!has_succeeded && stderr.contains("not a cursor"), "{stderr}");
    let (has_succeeded, stderr) = run(&["redis://localhost", "User", "username"]);
    assert!(!has_succeeded && stderr.contains("datastore://PROJECT"), "{stderr}");
}
