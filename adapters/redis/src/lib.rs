//! Users and session records in Redis or Valkey: one server, Sentinel or Cluster.
//!
//! ```no_run
//! use tower_keep_core::{Account, UserDirectory, UserFinder};
//! use tower_keep_redis::RedisStore;
//!
//! # async fn example() -> Result<(), tower_keep_core::StoreError> {
//! let store = RedisStore::builder("redis://:secret@localhost").build().await?;
//! store.insert(&Account::new(42, "ada", "$argon2id$…")).await?;
//! assert!(store.by_login("ada").await?.is_some());
//! # Ok(()) }
//! ```
//!
//! Another URL is another topology: see [`RedisStore::builder`]. For users of the application's own
//! type, see [`with_users`](RedisStoreBuilder::with_users).
//!
//! # Keys and slots
//!
//! | key | what it holds |
//! | --- | --- |
//! | `keep:{42}:user` | the user with the id 42: `1`, a claim, and JSON |
//! | `keep:{42}:session:…` | a session record of theirs, one line of text (`record.rs`); it expires by itself |
//! | `keep:{42}:live` | a sorted set of their sessions that have not ended, by expiry |
//! | `keep:{42}:begun` | the same sessions, by when they were created |
//! | `keep:{42}:epoch` | a number that rises each time all of their sessions are ended, with when, why, and how long those sessions are kept; a record of an earlier epoch has ended |
//! | `keep:{42}:past:1800000000` | the sessions that ended when the epoch became 1800000000, until they are removed |
//! | `keep:{42}:untold` | a sorted set of the sessions that ended for a replay of which the user was not notified yet |
//! | `keep:{42}:pending:…` | that a login name is being taken for them; for a minute at most |
//! | `keep:login:ada` | which user has the login name: a claim, and the id |
//! | `keep:session:…` | which user has the session: the id |
//! | `keep:past` | a sorted set that lists the `past` keys of all users, by when their sessions need not be kept any longer |
//!
//! A cluster puts a key into a slot by what is between its braces. All keys of one user are in one
//! slot, because a call that concerns several of a user's sessions has to happen at one moment: of
//! two concurrent logins one sees the other, a limit holds, and a list shows all of an end or
//! nothing. So the session, the user and the epoch of a request come by one `MGET`, and what is
//! written at one moment is in one slot. (In an id, `}` is written as `%7D` and `%` as `%25`; the
//! empty id is `%`.)
//!
//! Two things are not in the user's slot, because a call that looks for them does not know the
//! user:
//!
//! - Which user has a session, for a call that knows only the session's key, such as a renewal or
//!   the end of one session. It is written before the record, lives longer and never changes, so it
//!   needs no transaction with the record.
//! - Which user has a login name. The user's value decides: it holds the claim by which they have
//!   the name, and a name's key with another claim counts for nothing. A name is claimed first.
//!   Then the user is written, on condition that nobody has broken off the claim. An unfinished
//!   claim is taken over by the next caller that wants the name. So a name is unique and a rename
//!   happens at one moment, without a transaction across slots, and without a clock.
//!
//! Ending all of a user's sessions is one script, and its work does not depend on how many there
//! are: it raises the epoch, renames `begun` to `past:…` and unlinks `live`. Every call that reads
//! a record also reads the epoch. A login over its limit ends up to 100 sessions one by one, and
//! more of them by a new epoch. `upkeep` (`purge`) removes the records that ended with an epoch in
//! batches, as `keep:past` lists them; without it they expire by themselves.
//!
//! `live` and `begun` still list a session for a day after it has expired, so that a server whose
//! clock is wrong removes none. A list and a login with a limit read `live` from its far end, and so
//! skip those. If a limit is far exceeded, the newest by `begun` stay, of the 2,000 newest logins; if
//! too few of those are live, the sessions that expire last stay instead.
//!
//! Every change is a comparison and a write in one short script. A call reads, decides in Rust, and
//! writes if what it has read is still the same; otherwise it begins again. The script is sent by
//! its SHA-1, and as a whole to a server that does not know it, as after a restart. It names all
//! its keys, except those of records that a sorted set lists, which are in the same slot.
//!
//! # What a failover loses
//!
//! Redis confirms a write before its replicas have it. When a master dies, the writes that no
//! replica has are lost. When a server crashes, so are those that `appendfsync` has not written to
//! the disk (of one second by default):
//!
//! - a login: the visitor is asked to log in again;
//! - the end of one session or of all, or a logout: the sessions count again, until they are ended
//!   anew or expire;
//! - a sign-up, a new password, a deactivation: it has to be done again. The old password counts
//!   again;
//! - one half of a sign-up: if the name's key is lost, nobody is found by that name. The next
//!   `modify` that writes the user brings it back, unless another user has taken it meanwhile.
//!
//! Replicas in step are milliseconds behind: with 64 clients that log in and out all the time, the
//! kill of a master of a local cluster lost none of some 5,000 confirmed logins and logouts. A
//! replica that hangs, or whose network is slow, is that far behind; a test shows what is lost
//! then.
//!
//! [`with_replicas_to_wait_for(1)`](RedisStoreBuilder::with_replicas_to_wait_for) confirms a write
//! only when a replica has it. If none has it in time, the write stands and the visitor gets a 503:
//! it is not known whether the write will last. With one replica per master, nothing confirmed is
//! lost with the master; but while there is no replica, as after a failover, nobody logs in or out
//! in its slots. With two replicas, waiting for one survives the loss of either. Then a confirmed
//! write is lost only if the replica without it takes over, which Redis avoids if it can. The
//! server's `min-replicas-to-write` keeps a master that is cut off from accepting writes that will
//! be lost.
//!
//! A remember cookie whose renewal was lost is ahead of its record. It counts as absent and is
//! kept; the event is `StoreRolledBack`, logged as a warning.
//!
//! # Faults
//!
//! | what happens | what a call returns | what visitors see |
//! | --- | --- | --- |
//! | the server is gone, loads its data (`LOADING`); a slot has no master (`CLUSTERDOWN`) | [unavailable] | 503 if they are or were logged in, and they keep their cookies; others browse on |
//! | it has no memory (`OOM`), no disk (`MISCONF`), is a replica (`READONLY`) | [unavailable], if it writes | logged-in users stay logged in; 503 to log in, log out, sign up |
//! | it does not respond in time; the connection is lost in the middle of a write | [timeout]: the write may have been done | 503 |
//! | more calls wait than are allowed | [unavailable], at once | 503 |
//! | a key of this store holds another type, or a value that can't be read | [corrupt] | 503 for that user |
//! | the URL, a right or a version is wrong | [unsupported], by `build` | |
//!
//! Watch the rate of 503s, the events, and of the server `evicted_keys`, `used_memory`,
//! `aof_last_write_status`, `connected_slaves` and `cluster_state`.
//!
//! What was certainly not done is tried again: after `MOVED`, `ASK`, `TRYAGAIN` and `NOSCRIPT`,
//! once after `READONLY`, and a read once more after its connection was lost. Each server has one
//! connection for all calls (one more for writes that wait for replicas, and one for reads from a
//! replica). A connection is made again when it is lost, or has not responded in time. While a
//! server can't be reached, the store tries every half a second, and calls in between fail at once.
//! A node that hangs delays only calls that need its slots.
//!
//! While a slot moves to another node, its users are read as before. Writes wait until their keys
//! are together, at most until the time-out.
//!
//! On a server that comes back empty there are no users: accounts and sessions are gone.
//!
//! [unavailable]: tower_keep_core::StoreErrorKind::Unavailable
//! [timeout]: tower_keep_core::StoreErrorKind::Timeout
//! [corrupt]: tower_keep_core::StoreErrorKind::Corrupt
//! [unsupported]: tower_keep_core::StoreErrorKind::Unsupported
//!
//! | look for | in |
//! | --- | --- |
//! | the keys' names | `keys.rs` |
//! | the scripts | `commit.lua`, `records.lua`, `owner.lua`; what sends them: `script.rs` |
//! | how users are found and written | `users.rs`; how a login name is taken: `names.rs` |
//! | what a login writes, and what a request reads | `create.rs`, `logins.rs` |
//! | how all sessions end at once | `epoch.rs` |
//! | how records are found, changed and ended | `find.rs`, `sessions.rs` |
//! | which server a command is sent to, and when again | `servers.rs`, `cluster.rs` |
//! | one connection | `link.rs` |
//! | what an error means | `error.rs` |

mod address;
mod builder;
mod check;
mod cluster;
mod create;
mod epoch;
mod error;
mod find;
mod format;
mod keys;
mod link;
mod logins;
mod names;
mod record;
mod script;
mod servers;
mod sessions;
mod store;
mod users;

pub use builder::RedisStoreBuilder;
pub use format::{Json, UserFormat};
#[cfg(feature = "tls")]
pub use redis::{ClientTlsConfig, TlsCertificates};
pub use store::RedisStore;
