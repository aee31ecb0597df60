//! The scripts, and changes that happen at one moment or not at all.
//!
//! The rules are in Rust: a call reads, decides, and writes on condition that what it has read is still
//! there; otherwise it begins again. So the one script that writes knows nothing of logins.

use std::collections::HashMap;
use std::sync::LazyLock;

use redis::{Cmd, Value};
use tokio::time::Instant;

use crate::error::{Cause, Fault};
use crate::servers::{Servers, Use};

/// A script. It is sent by its hash, and whole to a server that does not know it.
pub(crate) struct Script {
    code: &'static str,
    hash: String,
}

/// Writes all of a change, or says which of its conditions does not hold.
static COMMIT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("commit.lua")));

/// Reads the records that an index lists.
pub(crate) static RECORDS: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("records.lua")));

/// Reads whose a session is, and lets that be known for as long as the session may be there.
pub(crate) static OWNER: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("owner.lua")));

impl Script {
    fn new(code: &'static str) -> Self {
        Self { code, hash: redis::Script::new(code).get_hash().to_owned() }
    }

    pub(crate) async fn run(
        &self,
        servers: &Servers,
        whose: Use,
        keys: &[&str],
        arguments: &[&[u8]],
        deadline: Instant,
    ) -> Result<Value, Fault> {
        let Some(first) = keys.first() else { return Err(Fault::odd_answer()) };
        let command = |name, script| -> Cmd {
            let mut command = redis::cmd(name);
            command.arg(script).arg(keys.len()).arg(keys).arg(arguments);
            command
        };
        let by_hash = command("EVALSHA", self.hash.as_str());
        match servers.ask(first, whose, &by_hash, deadline).await {
            Err(fault) if fault.cause == Cause::NoScript => {
                servers.ask(first, whose, &command("EVAL", self.code), deadline).await
            }
            answer => answer,
        }
    }
}

/// How long a key lives on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// For good.
    Forever,
    /// As long as it did before.
    AsBefore,
    /// So many milliseconds.
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

/// A change of keys in one slot, with conditions.
#[derive(Default)]
pub(crate) struct Commit {
    keys: HashMap<String, usize>,
    conditions: Vec<Step>,
    /// What takes no memory and has to come before what is set.
    moves: Vec<Step>,
    /// What takes memory comes first: a server without any refuses the first of these, and then nothing
    /// has been written.
    sets: Vec<Step>,
    frees: Vec<Step>,
}

struct Step {
    word: &'static str,
    key: usize,
    values: [Vec<u8>; 2],
}

/// Which of the conditions did not hold, counted from the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused(pub(crate) usize);

impl Commit {
    fn key(&mut self, key: String) -> usize {
        let next = self.keys.len();
        *self.keys.entry(key).or_insert(next)
    }

    fn condition(&mut self, word: &'static str, key: String, value: impl Into<Vec<u8>>) {
        let key = self.key(key);
        self.conditions.push(Step { word, key, values: [value.into(), Vec::new()] });
    }

    fn set_step(&mut self, word: &'static str, key: String, values: [Vec<u8>; 2]) {
        let key = self.key(key);
        self.sets.push(Step { word, key, values });
    }

    fn free_step(&mut self, word: &'static str, key: String, values: [Vec<u8>; 2]) {
        let key = self.key(key);
        self.frees.push(Step { word, key, values });
    }

    /// On condition that the value is this one.
    pub(crate) fn if_is(&mut self, key: String, value: impl Into<Vec<u8>>) {
        self.condition("is", key, value);
    }

    /// On condition that there is no such key.
    pub(crate) fn if_absent(&mut self, key: String) {
        self.condition("absent", key, Vec::new());
    }

    /// On condition that there is no such key, or that its value is this one.
    pub(crate) fn if_absent_or_is(&mut self, key: String, value: impl Into<Vec<u8>>) {
        self.condition("absent or is", key, value);
    }

    /// On condition that these are the highest members of the index, at most `count`, in this order;
    /// with `above`, of those with a higher score alone.
    pub(crate) fn if_highest(
        &mut self,
        key: String,
        count: usize,
        above: Option<u32>,
        members: &[String],
    ) {
        let key = self.key(key);
        let above = above.map_or_else(|| "-inf".to_owned(), |above| format!("({above}"));
        let values = [format!("{count} {above}").into_bytes(), members.join(" ").into_bytes()];
        self.conditions.push(Step { word: "highest", key, values });
    }

    /// Gives a key another name, if it is there.
    pub(crate) fn rename(&mut self, key: String, name: String) {
        let (key, name) = (self.key(key), self.key(name));
        let values = [(name + 1).to_string().into_bytes(), Vec::new()];
        self.moves.push(Step { word: "rename", key, values });
    }

    /// Removes a key, whose memory the server frees when it has time for that.
    pub(crate) fn unlink(&mut self, key: String) {
        let key = self.key(key);
        self.moves.push(Step { word: "unlink", key, values: Default::default() });
    }

    pub(crate) fn set(&mut self, key: String, value: Vec<u8>, life: Life) {
        self.set_step("set", key, [value, life.argument()]);
    }

    /// Adds to an index, which lives at least so long.
    pub(crate) fn add(&mut self, key: String, member: String, score: u32, millis: u64) {
        let score = score.to_string().into_bytes();
        self.set_step("add", key.clone(), [score, member.into_bytes()]);
        self.keep(key, millis);
    }

    /// Lets a key that expires live at least so long.
    pub(crate) fn keep(&mut self, key: String, millis: u64) {
        self.set_step("keep", key, [millis.to_string().into_bytes(), Vec::new()]);
    }

    /// Lets a key live longer than another one.
    pub(crate) fn outlive(&mut self, key: String, other: String) {
        let other = (self.key(other) + 1).to_string().into_bytes();
        self.set_step("outlive", key, [other, Vec::new()]);
    }

    pub(crate) fn delete(&mut self, key: String) {
        self.free_step("delete", key, Default::default());
    }

    pub(crate) fn remove(&mut self, key: String, member: String) {
        self.remove_bytes(key, member.into_bytes());
    }

    pub(crate) fn remove_bytes(&mut self, key: String, member: Vec<u8>) {
        self.free_step("remove", key, [member, Vec::new()]);
    }

    /// Removes from an index what expired before then, from another index too, and with the keys of its
    /// members.
    pub(crate) fn prune(&mut self, key: String, other: String, before: u32, prefix: &str) {
        let other = self.key(other) + 1;
        let values = [before.to_string().into_bytes(), format!("{other} {prefix}").into_bytes()];
        self.free_step("prune", key, values);
    }

    /// Does it.
    pub(crate) async fn run(
        self,
        servers: &Servers,
        deadline: Instant,
    ) -> Result<Result<(), Refused>, Fault> {
        self.run_as(Use::Write, servers, deadline).await
    }

    /// Does it, and does not wait for replicas: nobody counts on it.
    pub(crate) async fn run_unconfirmed(
        self,
        servers: &Servers,
        deadline: Instant,
    ) -> Result<Result<(), Refused>, Fault> {
        self.run_as(Use::ReadLatest, servers, deadline).await
    }

    async fn run_as(
        self,
        whose: Use,
        servers: &Servers,
        deadline: Instant,
    ) -> Result<Result<(), Refused>, Fault> {
        let Self { keys, conditions, moves, sets, frees } = self;
        let steps: Vec<_> = conditions.into_iter().chain(moves).chain(sets).chain(frees).collect();
        if steps.is_empty() {
            return Ok(Ok(()));
        }
        let numbers: Vec<_> = (1..=keys.len()).map(|number| number.to_string()).collect();
        let arguments: Vec<&[u8]> = steps
            .iter()
            .flat_map(|Step { word, key, values: [one, other] }| {
                [word.as_bytes(), numbers[*key].as_bytes(), one, other]
            })
            .collect();
        let mut keys: Vec<_> = keys.iter().collect();
        keys.sort_unstable_by_key(|(_, number)| **number);
        let keys: Vec<&str> = keys.into_iter().map(|(key, _)| key.as_str()).collect();
        match COMMIT.run(servers, whose, &keys, &arguments, deadline).await? {
            Value::Int(0) => Ok(Ok(())),
            Value::Int(refused) => {
                let refused = usize::try_from(refused).map_err(|_| Fault::odd_answer())?;
                Ok(Err(Refused(refused - 1)))
            }
            _ => Err(Fault::odd_answer()),
        }
    }
}
