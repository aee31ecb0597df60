//! Tests of Datastore that go beyond the contracts. `cargo xtask test` starts Google's emulators.

/// Implements `AuthUser` for a type whose id is in the field `$id`. The security stamp is always
/// empty, so no change of a user ends a login.
macro_rules! auth_user_without_stamp {
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
mod proxy;
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

use crate::proxy::Proxy;

fn env_variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `cargo xtask test`"))
}

/// Returns the URL of the Datastore emulator.
fn emulator_url() -> String {
    env_variable("DATASTORE_URL")
}

/// Returns the emulator's address, in the form of `DATASTORE_EMULATOR_HOST`.
fn emulator_host() -> String {
    emulator_url().replace("http://", "")
}

/// Returns an id that begins with `name`, for a new project. An emulator creates a project when a
/// request first names it.
fn new_project(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{name}-{}-{count}", std::process::id())
}

/// Returns the builder of a store in a new project, whose id begins with `name`.
fn builder(name: &str) -> DatastoreStoreBuilder {
    builder_in(&new_project(name))
}

/// Returns the builder of a store in this project.
fn builder_in(project: &str) -> DatastoreStoreBuilder {
    let builder = DatastoreStore::builder(format!("datastore://{project}"));
    builder.with_emulator(emulator_url()).with_timeout(Duration::from_secs(20))
}

/// Returns the builder of a store in a new project, behind a proxy.
fn builder_through(proxy: &Proxy, name: &str) -> DatastoreStoreBuilder {
    DatastoreStore::builder(format!("datastore://{}", new_project(name)))
        .with_emulator(proxy.address.to_string())
}

/// A running `datastore-client`. Dropping this kills the program.
struct ClientProcess {
    child: Child,
    _input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl ClientProcess {
    /// Starts the program with these environment variables, and without inherited variables that
    /// Google's libraries read.
    fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_datastore-client"));
        for variable in [
            "DATASTORE_EMULATOR_HOST",
            "DATASTORE_PROJECT_ID",
            "GCP_PROJECT",
            "GCP_PROJECT_ID",
            "GOOGLE_APPLICATION_CREDENTIALS",
            "GOOGLE_CLOUD_PROJECT",
            "PROJECT_ID",
        ] {
            command.env_remove(variable);
        }
        // Hides the credentials of the user who runs the tests.
        command.env("HOME", "/nonexistent").args(arguments).envs(variables.iter().copied());
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let lines = BufReader::new(child.stdout.take().expect("the pipe")).lines();
        let input = child.stdin.take().expect("the pipe");
        Self { child, _input: input, lines }
    }

    /// Returns the next line of the program's output.
    fn next_line(&mut self) -> String {
        self.lines.next().map(|line| line.expect("text")).unwrap_or_default()
    }
}

impl Drop for ClientProcess {
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
