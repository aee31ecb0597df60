//! Tests of Datastore that go beyond the contracts. `cargo xtask test` starts Google's emulators.

/// Implements `AuthUser` for a type whose id is this field, and whose logins no change ends.
macro_rules! without_stamp {
    ($user:ty, $id:ident) => {
        impl tower_keep_core::AuthUser for $user {
            fn id(&self) -> tower_keep_core::UserId {
                self.$id.to_string().into()
            }
            fn security_stamp(&self) -> std::borrow::Cow<'_, [u8]> {
                std::borrow::Cow::Borrowed(b"")
            }
        }
    };
}

mod calls;
mod credentials;
mod entities;
mod faults;
mod index;
mod load;
mod opening;
mod python;
mod sessions;
mod werkzeug;

use std::borrow::Cow;
use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tower_keep_core::{AuthUser, NewLogin, SessionRecord, UserId};
use tower_keep_datastore::{DatastoreStore, DatastoreStoreBuilder};
use tower_keep_tests::proxy::Proxy;

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: use `cargo xtask test`"))
}

/// Returns the URL of the Datastore emulator.
fn emulator() -> String {
    variable("DATASTORE_URL")
}

/// Returns the emulator's address, in the form of `DATASTORE_EMULATOR_HOST`.
fn host() -> String {
    emulator().replace("http://", "")
}

/// Returns a new project. Emulators create a project when it is first named.
fn project(what: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{what}-{}-{count}", std::process::id())
}

/// Returns the builder of a store in a project of its own.
fn builder(what: &str) -> DatastoreStoreBuilder {
    in_project(&project(what))
}

fn in_project(project: &str) -> DatastoreStoreBuilder {
    let builder = DatastoreStore::builder(format!("datastore://{project}"));
    builder.with_emulator(emulator()).with_timeout(Duration::from_secs(20))
}

/// Returns the builder of a store in a project of its own, behind a proxy.
fn through(proxy: &Proxy, what: &str) -> DatastoreStoreBuilder {
    DatastoreStore::builder(format!("datastore://{}", project(what)))
        .with_emulator(proxy.address.to_string())
}

/// A program with a store. It is killed when this is dropped.
struct Client {
    child: Child,
    _input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Client {
    /// Starts it in this environment, but without the variables that concern Google.
    fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_datastore-client"));
        for inherited in [
            "DATASTORE_EMULATOR_HOST",
            "DATASTORE_PROJECT_ID",
            "GCP_PROJECT",
            "GCP_PROJECT_ID",
            "GOOGLE_APPLICATION_CREDENTIALS",
            "GOOGLE_CLOUD_PROJECT",
            "PROJECT_ID",
        ] {
            command.env_remove(inherited);
        }
        // Hides the credentials of the user who runs the tests.
        command.env("HOME", "/nonexistent").args(arguments).envs(variables.iter().copied());
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it runs");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let input = child.stdin.take().expect("piped");
        Self { child, _input: input, lines }
    }

    /// Returns the next line of its output.
    fn line(&mut self) -> String {
        self.lines.next().map(|line| line.expect("text")).unwrap_or_default()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn login(record: &SessionRecord) -> NewLogin<'_> {
    NewLogin::new(record, record.expires)
}

/// Returns the text of an error, without the store's name and the kind.
fn message(error: &tower_keep_core::StoreError) -> String {
    error.to_string().splitn(3, ": ").nth(2).unwrap_or_default().to_owned()
}

/// A user type of an application, with serde's traits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Member {
    id: String,
    username: String,
    #[serde(default)]
    password_hash: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nickname: Option<String>,
}

impl Member {
    fn new(id: impl ToString, username: &str) -> Self {
        let (password_hash, nickname) = ("hash".to_owned(), None);
        Self { id: id.to_string(), username: username.to_owned(), password_hash, nickname }
    }

    fn name(&self) -> &str {
        &self.username
    }
}

impl AuthUser for Member {
    fn id(&self) -> UserId {
        self.id.as_str().into()
    }

    fn security_stamp(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.password_hash.as_bytes())
    }
}
