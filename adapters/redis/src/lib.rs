//! Users and server-side sessions in Redis or Valkey: one server, Sentinel or Cluster.
//!
//! ```no_run
//! use tower_keep_core::{Account, UserDirectory, UserLookup};
//! use tower_keep_redis::RedisStore;
//!
//! # async fn example() -> Result<(), tower_keep_core::StoreError> {
//! let store = RedisStore::builder("redis://:secret@localhost").build().await?;
//! store.insert(&Account::new(42, "ada", "$argon2id$…")).await?;
//! assert!(store.by_login_name("ada").await?.is_some());
//! # Ok(()) }
//! ```
//!
//! The URL selects the topology: see [`RedisStore::builder`]. For users of the application's own
//! type, see [`with_users`](RedisStoreBuilder::with_users).
//!
//! # Keys and slots
//!
//! | key | what it holds |
//! | --- | --- |
//! | `keep:{42}:user` | the user with the id 42: the version of the format (`1`), a claim, and JSON |
//! | `keep:{42}:session:…` | one of the user's session records, as one line of text (`record.rs`); it expires by itself |
//! | `keep:{42}:live` | a sorted set of the user's sessions that have not ended, by expiry |
//! | `keep:{42}:begun` | the same sessions, by time of creation |
//! | `keep:{42}:epoch` | a number that increases each time all of the user's sessions are ended, with when and why they ended and until when they are kept; a record of an earlier epoch has ended |
//! | `keep:{42}:past:1800000000` | the sessions that ended when the epoch became 1800000000, until they are removed |
//! | `keep:{42}:to_notify` | a sorted set of the sessions that ended for a replay of which the user has not been notified yet |
//! | `keep:{42}:pending:…` | marks that a login name is being claimed for the user; it exists for a minute at most |
//! | `keep:login:ada` | the user who has the login name: a claim, and the id |
//! | `keep:session:…` | the user whom the session belongs to: the id |
//! | `keep:past` | a sorted set of the `past` keys of all users, by the time until which their sessions have to be kept |
//!
//! A cluster derives a key's slot from the text between its braces. All keys of one user are in one
//! slot, because a call that concerns several of a user's sessions has to be atomic: of two
//! concurrent logins one sees the other, a limit holds, and a list shows all of an end or nothing
//! of it. So one `MGET` reads the session, the user and the epoch of a request, and everything that
//! is written atomically is in one slot. (In an id, `}` is written as `%7D` and `%` as `%25`; the
//! empty id is `%`.)
//!
//! Two kinds of keys are not in the user's slot, because the calls that read them do not know the
//! user:
//!
//! - The owner of a session, for a call that knows only the session's key, such as a renewal or the
//!   end of one session. This key is written before the record, lives longer and never changes, so
//!   it needs no transaction with the record.
//! - The user who has a login name. The user's value decides: it holds the claim by which the user
//!   has the name, and a name's key with another claim is ignored. The store claims the name first.
//!   Then it writes the user, on condition that the claim has not been cancelled. The next caller
//!   that wants the name takes over an unfinished claim. So a name is unique and a rename is
//!   atomic, without a transaction across slots and without a clock.
//!
//! One script ends all of a user's sessions, and its work does not depend on how many there are: it
//! raises the epoch, renames `begun` to `past:…` and unlinks `live`. Every call that reads a record
//! also reads the epoch. A login over its limit ends up to 100 sessions one by one; if more have to
//! end, it raises the epoch. `upkeep` (`purge`) removes the records that ended with an epoch in
//! batches, as `keep:past` lists them. Without the upkeep they expire by themselves.
//!
//! `live` and `begun` still list a session for a day after it has expired, so that an application
//! server whose clock is wrong removes no live session. A list, and a login with a limit, read
//! `live` from the latest expiry downwards, and so skip expired sessions. If a limit is far
//! exceeded, the newest sessions by `begun` stay, out of the 2,000 newest logins. If too few of
//! those are live, the sessions that expire last stay instead.
//!
//! Every change compares and writes in one short script. A call reads, decides in Rust, and writes
//! if what it has read is unchanged; otherwise it starts again. The script is sent by its SHA-1
//! hash, and in full to a server that does not know the hash, as after a restart. It declares all
//! keys that it uses, except those of records that a sorted set lists, which are in the same slot.
//!
//! # What a failover loses
//!
//! Redis confirms a write before its replicas have it. When a master dies, the writes that no
//! replica has are lost. When a server crashes, it also loses the writes that `appendfsync` has not
//! put on the disk (by default those of the last second):
//!
//! - a login: the user has to log in again;
//! - the end of one session or of all, or a logout: the sessions are valid again, until they are
//!   ended again or expire;
//! - a sign-up, a new password, a deactivation: it has to be done again. The old password is valid
//!   again;
//! - one half of a sign-up: if the name's key is lost, a look-up by that login name finds no user.
//!   The next `modify` that writes the user restores the key, unless another user has taken the
//!   name in the meantime.
//!
//! Replicas in step are milliseconds behind. With 64 clients that log in and out all the time,
//! killing a master of a local cluster lost none of some 5,000 confirmed logins and logouts. A
//! replica that hangs, or whose network is slow, is behind by as long as that lasts; a test shows
//! what is lost then.
//!
//! [`with_replicas_to_wait_for(1)`](RedisStoreBuilder::with_replicas_to_wait_for) confirms a write
//! only when a replica has it. If none has it in time, the write is not undone and the client gets
//! a 503, because it is not known whether the write will last. With one replica per master, no
//! confirmed write is lost with the master. But while there is no replica, as after a failover, no
//! user can log in or out in that master's slots. With two replicas, waiting for one still works
//! when either is lost. Then a confirmed write is lost only if the replica without it is promoted,
//! which Redis avoids if it can. The server's `min-replicas-to-write` keeps a master that is cut
//! off from accepting writes that will be lost.
//!
//! A remember cookie whose renewal was lost is ahead of its record. The layer treats the cookie as
//! absent but does not clear it. The event is `StoreRolledBack`.
//!
//! # Failures
//!
//! | what happens | what a call returns | what users see |
//! | --- | --- | --- |
//! | the server is down or loads its data (`LOADING`); a slot has no master (`CLUSTERDOWN`) | [unavailable] | users who are or were logged in get a 503 and keep their cookies; other users are not affected |
//! | the server has no memory (`OOM`) or can't write to its disk (`MISCONF`), or is a replica (`READONLY`) | [unavailable], if the call writes | logged-in users stay logged in; logging in, logging out and signing up get a 503 |
//! | the server does not respond in time; the connection is lost in the middle of a write | [timeout]: the write may have been done | 503 |
//! | more calls are waiting than are allowed | [unavailable], immediately | 503 |
//! | a key of this store holds another type, or a value that can't be read | [corrupt] | 503 for that user |
//! | the URL, a permission or a version is wrong | [unsupported], from `build` | |
//!
//! Monitor the rate of 503 responses, the events, and the server's `evicted_keys`, `used_memory`,
//! `aof_last_write_status`, `connected_slaves` and `cluster_state`.
//!
//! A command that was certainly not executed is retried: after `MOVED`, `ASK`, `TRYAGAIN` and
//! `NOSCRIPT`, and once after `READONLY`. A read is also retried once after its connection was
//! lost. All calls to one server share one connection; writes that wait for replicas have another,
//! and so have reads from a replica. A connection is reopened when it is lost or has not responded
//! in time. While a server can't be reached, the store tries to connect every half a second, and
//! calls in between fail immediately. A node that hangs delays only calls that need its slots.
//!
//! While a slot moves to another node, its users can be read as before. Writes wait until all their
//! keys are on one node, at most until the time-out.
//!
//! A server that comes back empty has no users: accounts and sessions are lost.
//!
//! [unavailable]: tower_keep_core::StoreErrorKind::Unavailable
//! [timeout]: tower_keep_core::StoreErrorKind::Timeout
//! [corrupt]: tower_keep_core::StoreErrorKind::Corrupt
//! [unsupported]: tower_keep_core::StoreErrorKind::Unsupported
//!
//! | topic | file |
//! | --- | --- |
//! | the keys' names | `keys.rs` |
//! | the scripts | `commit.lua`, `records.lua`, `owner.lua`; `script.rs` sends them |
//! | how users are found and written | `users.rs`; how a login name is claimed: `names.rs` |
//! | what a login writes, and what a request reads | `create.rs`, `logins.rs` |
//! | how one write ends all of a user's sessions | `epoch.rs` |
//! | how records are found, changed and ended | `find.rs`, `sessions.rs` |
//! | which server a command is sent to, and when it is retried | `servers.rs`, `cluster.rs` |
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
