//! The scripts, and atomic changes.
//!
//! The rules are in Rust: a call reads, decides, and writes on condition that what it has read is
//! unchanged. Otherwise it starts again. So the one script that writes knows nothing about logins.

use std::collections::HashMap;
use std::sync::LazyLock;

use redis::{Cmd, Value};
use tokio::time::Instant;

use crate::error::{Cause, Error};
use crate::servers::{Access, Servers};

/// A script. It is sent by its hash, and in full to a server that does not know the hash.
pub(crate) struct Script {
    code: &'static str,
    hash: String,
}

/// Writes a whole change, or returns which of its conditions failed.
static COMMIT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("commit.lua")));

/// Reads the records that an index lists.
pub(crate) static RECORDS: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("records.lua")));

/// Reads which user a session belongs to, and makes that key live for as long as the session may
/// exist.
pub(crate) static OWNER: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("owner.lua")));

impl Script {
    fn new(code: &'static str) -> Self {
        Self { code, hash: redis::Script::new(code).get_hash().to_owned() }
    }

    pub(crate) async fn run(
        &self,
        servers: &Servers,
        access: Access,
        keys: &[&str],
        arguments: &[&[u8]],
        deadline: Instant,
    ) -> Result<Value, Error> {
        let Some(first) = keys.first() else { return Err(Error::unexpected_reply()) };
        let command = |name, script| -> Cmd {
            let mut command = redis::cmd(name);
            command.arg(script).arg(keys.len()).arg(keys).arg(arguments);
            command
        };
        let by_hash = command("EVALSHA", self.hash.as_str());
        match servers.call(first, access, &by_hash, deadline).await {
            Err(error) if error.cause == Cause::NoScript => {
                servers.call(first, access, &command("EVAL", self.code), deadline).await
            }
            reply => reply,
        }
    }
}

/// How long a key lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// The key never expires.
    Forever,
    /// The key keeps its expiry.
    AsBefore,
    /// The key expires after this many milliseconds.
    Millis(u64),
}

impl Life {
    fn argument(self) -> Vec<u8> {
        match self {
            Self::Forever => Vec::new(),
            Self::AsBefore => b"as before".to_vec(),
            Self::Millis(millis) => millis.to_string().into_bytes(),
        }
    }
}

/// An atomic change of keys in one slot, with conditions.
#[derive(Default)]
pub(crate) struct Commit {
    keys: HashMap<String, usize>,
    conditions: Vec<Step>,
    /// Steps that take no memory and have to come before `growing`.
    moves: Vec<Step>,
    /// Steps that take memory. They come before `freeing`, because a server without memory refuses
    /// the first of them, and then nothing has been written.
    growing: Vec<Step>,
    freeing: Vec<Step>,
}

struct Step {
    operation: &'static str,
    /// The number of the key, counted from 0.
    key: usize,
    operands: [Vec<u8>; 2],
}

/// The index of the condition that failed, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FailedCondition(pub(crate) usize);

impl Commit {
    fn key(&mut self, key: String) -> usize {
        let next = self.keys.len();
        *self.keys.entry(key).or_insert(next)
    }

    fn condition(&mut self, operation: &'static str, key: String, value: impl Into<Vec<u8>>) {
        let key = self.key(key);
        self.conditions.push(Step { operation, key, operands: [value.into(), Vec::new()] });
    }

    fn growing_step(&mut self, operation: &'static str, key: String, operands: [Vec<u8>; 2]) {
        let key = self.key(key);
        self.growing.push(Step { operation, key, operands });
    }

    fn freeing_step(&mut self, operation: &'static str, key: String, operands: [Vec<u8>; 2]) {
        let key = self.key(key);
        self.freeing.push(Step { operation, key, operands });
    }

    /// Adds the condition that the key has this value.
    pub(crate) fn if_is(&mut self, key: String, value: impl Into<Vec<u8>>) {
        self.condition("is", key, value);
    }

    /// Adds the condition that the key does not exist.
    pub(crate) fn if_absent(&mut self, key: String) {
        self.condition("absent", key, Vec::new());
    }

    /// Adds the condition that the key does not exist, or has this value.
    pub(crate) fn if_absent_or_is(&mut self, key: String, value: impl Into<Vec<u8>>) {
        self.condition("absent or is", key, value);
    }

    /// Adds the condition that these are the highest members of the index, at most `count`, in this
    /// order. With `above`, only members with a higher score are compared.
    pub(crate) fn if_highest(
        &mut self,
        key: String,
        count: usize,
        above: Option<u32>,
        members: &[String],
    ) {
        let key = self.key(key);
        let above = above.map_or_else(|| "-inf".to_owned(), |above| format!("({above}"));
        let operands = [format!("{count} {above}").into_bytes(), members.join(" ").into_bytes()];
        self.conditions.push(Step { operation: "highest", key, operands });
    }

    /// Renames a key, if it exists.
    pub(crate) fn rename(&mut self, key: String, name: String) {
        let (key, name) = (self.key(key), self.key(name));
        let operands = [(name + 1).to_string().into_bytes(), Vec::new()];
        self.moves.push(Step { operation: "rename", key, operands });
    }

    /// Removes a key. The server frees its memory later.
    pub(crate) fn unlink(&mut self, key: String) {
        let key = self.key(key);
        self.moves.push(Step { operation: "unlink", key, operands: Default::default() });
    }

    pub(crate) fn set(&mut self, key: String, value: Vec<u8>, life: Life) {
        self.growing_step("set", key, [value, life.argument()]);
    }

    /// Adds a member to an index, and makes the index live at least this long.
    pub(crate) fn add(&mut self, key: String, member: String, score: u32, millis: u64) {
        let score = score.to_string().into_bytes();
        self.growing_step("add", key.clone(), [score, member.into_bytes()]);
        self.extend_life(key, millis);
    }

    /// Makes a key that expires live at least this long.
    pub(crate) fn extend_life(&mut self, key: String, millis: u64) {
        self.growing_step("extend life", key, [millis.to_string().into_bytes(), Vec::new()]);
    }

    /// Makes a key live longer than another one.
    pub(crate) fn outlive(&mut self, key: String, other: String) {
        let other = (self.key(other) + 1).to_string().into_bytes();
        self.growing_step("outlive", key, [other, Vec::new()]);
    }

    pub(crate) fn delete(&mut self, key: String) {
        self.freeing_step("delete", key, Default::default());
    }

    pub(crate) fn remove(&mut self, key: String, member: String) {
        self.remove_bytes(key, member.into_bytes());
    }

    pub(crate) fn remove_bytes(&mut self, key: String, member: Vec<u8>) {
        self.freeing_step("remove", key, [member, Vec::new()]);
    }

    /// Removes the members of an index that expired before this time, also from the other index,
    /// and deletes the keys named by the prefix and the member.
    pub(crate) fn prune(&mut self, key: String, other: String, before: u32, prefix: &str) {
        let other = self.key(other) + 1;
        let operands = [before.to_string().into_bytes(), format!("{other} {prefix}").into_bytes()];
        self.freeing_step("prune", key, operands);
    }

    /// Runs the change.
    pub(crate) async fn run(
        self,
        servers: &Servers,
        deadline: Instant,
    ) -> Result<Result<(), FailedCondition>, Error> {
        self.run_as(Access::Write, servers, deadline).await
    }

    /// Runs the change without waiting for replicas, because no caller depends on it.
    pub(crate) async fn run_unconfirmed(
        self,
        servers: &Servers,
        deadline: Instant,
    ) -> Result<Result<(), FailedCondition>, Error> {
        self.run_as(Access::ReadLatest, servers, deadline).await
    }

    async fn run_as(
        self,
        access: Access,
        servers: &Servers,
        deadline: Instant,
    ) -> Result<Result<(), FailedCondition>, Error> {
        let Self { keys, conditions, moves, growing, freeing } = self;
        let steps: Vec<_> =
            conditions.into_iter().chain(moves).chain(growing).chain(freeing).collect();
        if steps.is_empty() {
            return Ok(Ok(()));
        }
        let numbers: Vec<_> = (1..=keys.len()).map(|number| number.to_string()).collect();
        let arguments: Vec<&[u8]> = steps
            .iter()
            .flat_map(|Step { operation, key, operands: [first, second] }| {
                [operation.as_bytes(), numbers[*key].as_bytes(), first, second]
            })
            .collect();
        let mut keys: Vec<_> = keys.iter().collect();
        keys.sort_unstable_by_key(|(_, number)| **number);
        let keys: Vec<&str> = keys.into_iter().map(|(key, _)| key.as_str()).collect();
        match COMMIT.run(servers, access, &keys, &arguments, deadline).await? {
            Value::Int(0) => Ok(Ok(())),
            Value::Int(failed) => {
                let failed = usize::try_from(failed).map_err(|_| Error::unexpected_reply())?;
                Ok(Err(FailedCondition(failed - 1)))
            }
            _ => Err(Error::unexpected_reply()),
        }
    }
}
