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
//! Another URL is another topology: see [`RedisStore::builder`]. Users of the application's own type:
//! [`with_users`](RedisStoreBuilder::with_users).
//!
//! # Keys and slots
//!
//! | key | what it holds |
//! | --- | --- |
//! | `keep:{42}:user` | the user with the id 42: `1`, a claim, and JSON |
//! | `keep:{42}:session:…` | a session record of theirs, a line of text (`record.rs`); it expires by itself |
//! | `keep:{42}:live` | a sorted set of their sessions that have not ended, by when they expire |
//! | `keep:{42}:begun` | the same, by when they were created |
//! | `keep:{42}:epoch` | how often all of their sessions were ended; a record of an earlier epoch has ended |
//! | `keep:{42}:past:3` | the sessions that ended when the epoch became 3, until they are removed |
//! | `keep:{42}:untold` | the same of those that ended for a replay and were not told yet |
//! | `keep:{42}:pending:…` | that a login name is being taken for them; for a minute at most |
//! | `keep:login:ada` | whose login name that is: a claim, and the id |
//! | `keep:session:…` | whose session that is: the id |
//! | `keep:past` | a sorted set of the `past` keys, by when their sessions need not be kept any longer |
//!
//! A cluster puts a key into a slot by what stands between its braces. All that is of one user is in one
//! slot, because the contract of sessions wants it at one moment: of two logins one sees the other, a limit
//! holds, a list shows all of an end or nothing. So the user, the record and the epoch of a request come by
//! one `MGET`, and what is written at once has one slot. (In an id, `}` is written as `%7D` and `%` as `%25`; the
//! empty id is `%`.)
//!
//! Two things are not in the user's slot, because who looks for them does not know the user:
//!
//! - Whose session it is, for who knows the session's key alone: a remember cookie that comes back, the end
//!   of a session by its key. It is written before the record, lives longer and never changes, so it needs
//!   no transaction with it.
//! - Whose login name it is. The user's value decides: it holds the claim by which they have the name, and
//!   a name's key with another claim is nobody's. A name is claimed first and the user is written after, on
//!   condition that nobody has broken off the claim; what was left halfway is taken over by the next who
//!   wants the name. So a name is unique and a rename happens at one moment, without a transaction across
//!   slots, and without a clock.
//!
//! Every change is a comparison and a write in one short script: a call reads, decides in Rust, and writes
//! if what it read is still so; else it begins again. The script is sent by its SHA-1, and whole to a server
//! that does not know it, as after a restart. Its keys are all named, but for those of records that an index
//! lists, which are in the same slot.
//!
//! # What a failover loses
//!
//! Redis confirms a write before its replicas have it. When a master dies, what no replica has is lost with
//! it, and so is what `appendfsync` had not got to the disk when a server crashes (a second's worth by
//! default):
//!
//! - a login: the visitor is asked to log in again;
//! - the end of a session, or a logout: it counts again, until it is ended anew or expires;
//! - a sign-up, a new password, a deactivation: they have to be done again. The old password counts again.
//! - one half of a sign-up: where the name's key is lost, nobody is found by that name until the user is
//!   next updated, which brings it back, unless somebody else has taken it meanwhile.
//!
//! In step, replicas are milliseconds behind: with 64 clients that log in and out all the time, the kill of a
//! master of a local cluster lost none of some 5,000 confirmed logins and logouts. A replica that hangs, or
//! whose network is slow, is as far behind as that takes, and a test shows what is lost then.
//!
//! [`with_replicas_to_wait_for(1)`](RedisStoreBuilder::with_replicas_to_wait_for) confirms a write only when
//! a replica has it. If none has in time, the write stands and the visitor gets a 503: whether it will last
//! is not known. With one replica per master nothing confirmed is lost with the master; but while there is
//! none, as after a failover, nobody logs in or out in its slots. With two, waiting for one survives the loss
//! of either, and a confirmed write is lost only if the one without it takes over, which Redis avoids if it
//! can. The server's `min-replicas-to-write` keeps a master that is cut off from taking what will be lost.
//!
//! A remember cookie whose renewal was lost is ahead of its record. It counts as absent and is kept; the event
//! is `StoreRolledBack`, logged as a warning.
//!
//! # Faults
//!
//! | what happens | what a call answers | what visitors see |
//! | --- | --- | --- |
//! | the server is gone, loads its data (`LOADING`); a slot has no master (`CLUSTERDOWN`) | [unavailable] | 503 for who is or was logged in, cookies kept; others browse on |
//! | it has no memory (`OOM`), no disk (`MISCONF`), is a replica (`READONLY`) | [unavailable], if it writes | who is logged in stays so; 503 to log in, log out, sign up |
//! | it does not answer in time; the connection is lost in the middle of a write | [timeout]: it may have been done | 503 |
//! | more calls wait than are allowed | [unavailable], at once | 503 |
//! | a key of ours holds another type, or what can't be read | [corrupt] | 503 for that user |
//! | the URL, a right or a version is wrong | [unsupported], by `build` | |
//!
//! Watch the rate of 503s, the events, and of the server `evicted_keys`, `used_memory`, `aof_last_write_status`,
//! `connected_slaves` and `cluster_state`.
//!
//! What surely was not done is done again: after `MOVED`, `ASK`, `TRYAGAIN` and `NOSCRIPT`, once after
//! `READONLY`, and once more what only reads and lost its connection. Each server has one connection for all
//! calls (one more for writes that wait for replicas, and one for reads of a replica). It is made anew when it
//! is lost, or has not answered in time. While a server can't be reached, one try every half a second is made,
//! and calls in between fail at once. A node that hangs holds up its own slots and no others.
//!
//! While a slot moves to another node, its users are read as before; who writes waits until their keys are
//! together, at most for the time-out.
//!
//! A server that comes back empty knows nobody: accounts and sessions are gone.
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
//! | how a login name is taken | `names.rs` |
//! | what a login writes | `create.rs`; how all sessions end at once: `epoch.rs` |
//! | how records are found, changed and ended | `find.rs`, `sessions.rs` |
//! | which server is asked, and when again | `servers.rs`, `cluster.rs` |
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
