//! The scripts, and atomic changes.
//!
//! The rules are in Rust: a call reads, decides, and writes on condition that the values that it
//! has read are unchanged. If a value has changed, the call starts again. So `commit.lua`, the
//! script that writes, only checks conditions and applies steps.

use std::collections::HashMap;
use std::sync::LazyLock;

use redis::{Cmd, Value};
use tokio::time::Instant;

use crate::access::Access;
use crate::error::{Cause, Error};
use crate::life::Life;
use crate::servers::Servers;

/// A script. A call sends only its hash. If the server does not know the hash, the call sends the
/// whole script.
pub(crate) struct Script {
    code: &'static str,
    hash: String,
}

/// Applies a [`Commit`], or returns which of its conditions failed.
static COMMIT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("commit.lua")));

/// Reads the members of an index, and the record of each of them.
pub(crate) static RECORDS: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("records.lua")));

/// Reads the owner key of a session, which holds the id of the session's user, and makes the key
/// live for at least the given time.
pub(crate) static OWNER: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("owner.lua")));

impl Script {
    fn new(code: &'static str) -> Self {
        Self { code, hash: redis::Script::new(code).get_hash().to_owned() }
    }

    /// Runs the script with these keys, which are all in one slot.
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

/// An atomic change of keys in one slot, with conditions. Methods that begin with `require_` add a
/// condition. The other methods add a step, which is applied only if all conditions are met.
#[derive(Default)]
pub(crate) struct Commit {
    /// The keys, and their numbers, counted from 0.
    keys: HashMap<String, usize>,
    conditions: Vec<Step>,
    /// Steps that take no memory: they rename or unlink keys. They come before `growing`, which may
    /// create the same keys again.
    moves: Vec<Step>,
    /// Steps that take memory. They come before `freeing`: if the server has no memory, it refuses
    /// the first of the growing steps, so nothing has been written by then.
    growing: Vec<Step>,
    /// Steps that free memory.
    freeing: Vec<Step>,
}

/// A condition or a step, as `commit.lua` reads it.
struct Step {
    operation: &'static str,
    key_number: usize,
    operands: [Vec<u8>; 2],
}

/// A condition of a [`Commit`] that was not met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FailedCondition {
    /// The position among the conditions, in the order in which they were added, counted from 0.
    pub(crate) index: usize,
}

impl Commit {
    fn key_number(&mut self, key: String) -> usize {
        let next = self.keys.len();
        *self.keys.entry(key).or_insert(next)
    }

    fn step(&mut self, operation: &'static str, key: String, operands: [Vec<u8>; 2]) -> Step {
        Step { operation, key_number: self.key_number(key), operands }
    }

    fn add_condition(&mut self, operation: &'static str, key: String, value: impl Into<Vec<u8>>) {
        let step = self.step(operation, key, [value.into(), Vec::new()]);
        self.conditions.push(step);
    }

    fn add_growing(&mut self, operation: &'static str, key: String, operands: [Vec<u8>; 2]) {
        let step = self.step(operation, key, operands);
        self.growing.push(step);
    }

    fn add_freeing(&mut self, operation: &'static str, key: String, operands: [Vec<u8>; 2]) {
        let step = self.step(operation, key, operands);
        self.freeing.push(step);
    }

    /// Adds the condition that the key has this value.
    pub(crate) fn require_value(&mut self, key: String, value: impl Into<Vec<u8>>) {
        self.add_condition("is", key, value);
    }

    /// Adds the condition that the key does not exist.
    pub(crate) fn require_absent(&mut self, key: String) {
        self.add_condition("absent", key, Vec::new());
    }

    /// Adds the condition that the key does not exist, or has this value.
    pub(crate) fn require_absent_or_value(&mut self, key: String, value: impl Into<Vec<u8>>) {
        self.add_condition("absent or is", key, value);
    }

    /// Adds the condition that the first `count` members of the index, the highest score first, are
    /// these members. If the index has fewer than `count` members, `members` has to list all of
    /// them. With `above`, members whose score is not higher than `above` are ignored.
    pub(crate) fn require_highest(
        &mut self,
        key: String,
        count: usize,
        above: Option<u32>,
        members: &[String],
    ) {
        let min_score = above.map_or_else(|| "-inf".to_owned(), |above| format!("({above}"));
        let operands =
            [format!("{count} {min_score}").into_bytes(), members.join(" ").into_bytes()];
        let step = self.step("highest", key, operands);
        self.conditions.push(step);
    }

    /// Returns the number of a key as an operand. The scripts count from 1.
    fn key_operand(&mut self, key: String) -> Vec<u8> {
        (self.key_number(key) + 1).to_string().into_bytes()
    }

    /// Renames a key, if it exists.
    pub(crate) fn rename(&mut self, key: String, new_name: String) {
        let operands = [self.key_operand(new_name), Vec::new()];
        let step = self.step("rename", key, operands);
        self.moves.push(step);
    }

    /// Removes a key. The server frees its memory later, so that a large set delays no other call.
    pub(crate) fn unlink(&mut self, key: String) {
        let step = self.step("unlink", key, Default::default());
        self.moves.push(step);
    }

    pub(crate) fn set(&mut self, key: String, value: Vec<u8>, life: Life) {
        self.add_growing("set", key, [value, life.argument()]);
    }

    /// Adds a member to an index, and makes the index expire in this many milliseconds or later.
    pub(crate) fn add_member(&mut self, index: String, member: String, score: u32, millis: u64) {
        let score = score.to_string().into_bytes();
        self.add_growing("add", index.clone(), [score, member.into_bytes()]);
        self.extend_life(index, millis);
    }

    /// Makes a key expire in this many milliseconds or later.
    pub(crate) fn extend_life(&mut self, key: String, millis: u64) {
        self.add_growing("extend life", key, [millis.to_string().into_bytes(), Vec::new()]);
    }

    /// Makes a key expire later than another key, if the other key expires.
    pub(crate) fn outlive(&mut self, key: String, other: String) {
        let operands = [self.key_operand(other), Vec::new()];
        self.add_growing("outlive", key, operands);
    }

    pub(crate) fn delete(&mut self, key: String) {
        self.add_freeing("delete", key, Default::default());
    }

    pub(crate) fn remove_member(&mut self, index: String, member: String) {
        self.remove_member_bytes(index, member.into_bytes());
    }

    pub(crate) fn remove_member_bytes(&mut self, index: String, member: Vec<u8>) {
        self.add_freeing("remove", index, [member, Vec::new()]);
    }

    /// Removes at most 100 members from `index` and from `other`: members with a score of at most
    /// `max_score` in `index`. Also deletes the records of these members. The name of a record is
    /// the prefix, followed by the member.
    pub(crate) fn prune(&mut self, index: String, other: String, max_score: u32, prefix: &str) {
        let other = self.key_number(other) + 1;
        let operands =
            [max_score.to_string().into_bytes(), format!("{other} {prefix}").into_bytes()];
        self.add_freeing("prune", index, operands);
    }

    /// Runs the change.
    pub(crate) async fn run(
        self,
        servers: &Servers,
        deadline: Instant,
    ) -> Result<Result<(), FailedCondition>, Error> {
        self.run_as(Access::Write, servers, deadline).await
    }

    /// Runs the change without waiting for replicas. This is for a change that may be lost, because
    /// no caller depends on it.
    pub(crate) async fn run_unconfirmed(
        self,
        servers: &Servers,
        deadline: Instant,
    ) -> Result<Result<(), FailedCondition>, Error> {
        self.run_as(Access::UNCONFIRMED_WRITE, servers, deadline).await
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
            .flat_map(|Step { operation, key_number, operands: [first, second] }| {
                [operation.as_bytes(), numbers[*key_number].as_bytes(), first, second]
            })
            .collect();
        let mut keys: Vec<_> = keys.iter().collect();
        keys.sort_unstable_by_key(|(_, number)| **number);
        let keys: Vec<&str> = keys.into_iter().map(|(key, _)| key.as_str()).collect();
        match COMMIT.run(servers, access, &keys, &arguments, deadline).await? {
            Value::Int(0) => Ok(Ok(())),
            Value::Int(number) => {
                let number = usize::try_from(number).map_err(|_| Error::unexpected_reply())?;
                Ok(Err(FailedCondition { index: number - 1 }))
            }
            _ => Err(Error::unexpected_reply()),
        }
    }
}
