//! Users, server-side sessions and counters in Redis or Valkey: one server, Sentinel or Cluster.
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
//! The URL says whether the servers are one server, sentinels or a cluster: see
//! [`RedisStore::builder`]. For users of the application's own type, see
//! [`with_users`](RedisStoreBuilder::with_users).
//!
//! # Keys and slots
//!
//! | key | value |
//! | --- | --- |
//! | `keep:{42}:user` | the user with the id 42: the version of the format (`1`), the token of the user's claim to their login name, and JSON |
//! | `keep:{42}:session:…` | one of the user's session records, as one line of text (`record.rs`); the key expires by itself |
//! | `keep:{42}:live` | a sorted set of the user's sessions that have not ended, by the time at which they expire |
//! | `keep:{42}:begun` | a sorted set of the same sessions, by the time of the login |
//! | `keep:{42}:epoch` | the user's epoch, a number that is raised each time all of the user's sessions are ended; the time and the reason of this end, and the time until which the records are kept. A record that was created in an earlier epoch has ended |
//! | `keep:{42}:past:1800000000` | a sorted set of the sessions that ended when the epoch became 1800000000, until they are removed |
//! | `keep:{42}:to_notify` | a sorted set of the sessions that ended because of a replay of which the user has not been notified yet |
//! | `keep:{42}:pending:…` | exists while the user's claim to a login name is pending, for a minute at most |
//! | `keep:login:ada` | a user's claim to the login name: a token, and the user's id |
//! | `keep:session:…` | the id of the user whom the session belongs to |
//! | `keep:count:…` | a counter, such as of attempts to log in: the version of the format (`1`), how many uses were taken, the time of the last one, the epoch (which rises when the counter starts over), and the time from which the counter has no effect; the key expires by itself |
//! | `keep:past` | a sorted set of the epochs of all users whose ended sessions are still to be removed, by the time until which these sessions are kept |
//!
//! A cluster derives a key's slot from the text between its braces. All keys of one user are in one
//! slot, because a call that changes several of a user's sessions has to be atomic, and only keys
//! in one slot can be written atomically. The sessions of a user then never exceed the limit, and a
//! list shows all changes of such a call or none. It also means that one `MGET` reads the session,
//! the user and the epoch of a request. (In an id, `}` is written as `%7D` and `%` as `%25`; the
//! empty id is `%`.)
//!
//! Two keys are not in the user's slot, because the calls that read them do not know the user:
//!
//! - `keep:session:…`, for a call that knows only the session's key, such as a renewal or the end
//!   of one session. This key is written before the record, lives longer than the record and never
//!   changes. So it does not have to be written atomically with the record.
//! - `keep:login:…`. A user has a login name if this key holds the user's id and the same token as
//!   the user's value. With any other token the key has no effect. A call that gives a name to a
//!   user first writes the claim, which is the token and the id, to this key. Then it writes the
//!   user with the token, on condition that no other call has cancelled the claim. A call that
//!   needs a name with an unfinished claim cancels that claim. So a name is unique and a rename is
//!   atomic, without a transaction across slots, and even if clocks are wrong.
//!
//! One script ends all of a user's sessions: it raises the epoch, renames `begun` to `past:…` and
//! unlinks `live`. Its work does not depend on the number of sessions. Every call that reads a
//! record also reads the epoch. A login over the limit ends at most 100 sessions one by one. If
//! more sessions have to end, the login raises the epoch. `upkeep` (`purge`) finds the records that
//! ended because of a new epoch in `keep:past`, and removes them in batches. Without the upkeep
//! they expire by themselves.
//!
//! `live` and `begun` still list a session for a day after it has expired, so that an application
//! server with a wrong clock removes no live session. A list, and a login with a limit, read `live`
//! from the latest expiry down to the current time, so they do not read expired sessions. If a user
//! has many more sessions than the limit allows, the newest logins stay. If too few of the user's
//! 2,000 newest logins are still live, the sessions that expire last stay instead.
//!
//! A call reads, decides in Rust, and then runs one short script, which compares and writes: if a
//! value that the call has read was changed in the meantime, the script writes nothing, and the
//! call starts again. The script is sent by its SHA-1 hash, and in full if the server does not know
//! the hash, for example after a restart. A script declares all keys that it uses, except the
//! records that a sorted set lists. They are in the same slot.
//!
//! # Design
//!
//! - The rules stay in one language, Rust, where they are typed and tested. The script that writes
//!   only compares and writes.
//! - The adapter keeps track of a cluster's slots itself, on the connections of the redis crate.
//!   That crate's cluster client (1.8.1) sends a write again although its outcome is unknown, unless
//!   its retries are off. Even then, it serves no slot while it learns the nodes, and it waits for
//!   every node: while a replica hung, a call of each client failed. It does not replace a
//!   connection on which no reply arrives, and it does not tell whether a command was sent. With
//!   tokio 1.54.1 it stopped for good after a master was killed: the task that learns the slots
//!   waits for a lock that a call holds, and the call is not polled again. So
//!   `a_replica_takes_over_under_load_when_a_master_of_the_cluster_is_killed` and
//!   `a_write_that_waited_for_a_replica_is_not_lost_with_the_master` failed. All other tests of a
//!   cluster passed, and a single task read 2.5 times as fast. (Tried in November 2026.)
//! - If replicas serve reads
//!   ([`with_reads_from_replicas`](RedisStoreBuilder::with_reads_from_replicas)), a call that finds
//!   no key on a replica asks the master. A session that has just begun must not look absent.
//! - Times to live are computed from the time that the caller passes, so the clock of the Redis
//!   server makes no difference.
//!
//! # What a failover loses
//!
//! Redis confirms a write before its replicas have it. If a master dies, the writes that no replica
//! has are lost. If a server crashes and restarts, the writes that are not on its disk are lost:
//! with the default of `appendfsync`, these are the writes of the last second. The consequences
//! are:
//!
//! - A login is lost: the user has to log in again.
//! - A logout, or the end of one or all of a user's sessions, is lost: the sessions are valid
//!   again, until they are ended again or expire.
//! - A counter goes back: some more attempts are allowed, and a token that works once may work
//!   twice.
//! - A sign-up, a new password or a deactivation is lost: it has to be done again. The old password
//!   is valid again.
//! - Half of a sign-up is lost: if it is the name's key, no call finds a user by this login name.
//!   The next `modify` that writes the user restores the key, unless another user has taken the
//!   name in the meantime.
//!
//! A healthy replica is milliseconds behind its master. With 64 clients that logged in and out all
//! the time, killing a master of a local cluster lost none of some 5,000 confirmed logins and
//! logouts. A replica that hangs or has a slow network can be any length of time behind; a test
//! shows the losses in this case.
//!
//! With [`with_replicas_to_wait_for(1)`](RedisStoreBuilder::with_replicas_to_wait_for), a call
//! confirms a write only when a replica has it. If no replica has it in time, the write is not
//! undone and the client gets a 503, because it is not known whether the write will last.
//!
//! - With one replica per master, no confirmed write is lost with the master. But while the master
//!   has no replica, for example after a failover, no user in its slots can log in or out.
//! - With two replicas per master, users can still log in and out if one of them is lost. A
//!   confirmed write is lost only if the replica without the write becomes the master. Redis avoids
//!   this if it can.
//!
//! A master that is cut off from its replicas accepts writes that will be lost. The server's
//! setting `min-replicas-to-write` prevents that.
//!
//! If the renewal of a remember cookie is lost, the cookie has a later generation than its record.
//! The layer then treats the cookie as absent, but does not clear it. The event is
//! `StoreRolledBack`.
//!
//! # Failures
//!
//! | failure | error of a call | responses to users |
//! | --- | --- | --- |
//! | the server is down or loads its data (`LOADING`); a slot has no master (`CLUSTERDOWN`) | [unavailable] | requests with cookies of a login get a 503, and the cookies are kept; other requests are not affected |
//! | the server has no memory (`OOM`), can't write to its disk (`MISCONF`), or has become a replica (`READONLY`) | [unavailable], if the call writes | users stay logged in; logging in, logging out and signing up get a 503 |
//! | the server does not respond in time; the connection is lost in the middle of a write | [timeout]: the write may have been done | 503 |
//! | the limit of waiting calls is reached (`with_max_waiting`) | [unavailable], immediately | 503 |
//! | a key of this store holds another type of value, or a value that can't be read | [corrupt] | 503 for this user |
//! | the URL, a permission or a version is wrong | [unsupported], from `build` | |
//!
//! Monitor the rate of 503 responses, the events, and the server's `evicted_keys`, `used_memory`,
//! `aof_last_write_status`, `connected_slaves` and `cluster_state`.
//!
//! A command is retried if it was certainly not executed: after `MOVED`, `ASK`, `TRYAGAIN` and
//! `NOSCRIPT`, and once after `READONLY`. A read is also retried once if its connection was lost.
//!
//! All calls to one server share one connection. Writes that wait for replicas have a second
//! connection. A connection is opened again after it was lost or a reply did not arrive in time.
//! While a server can't be reached, the store pauses between its attempts to connect, for at most
//! half a second. A call in such a pause fails immediately. A node that hangs delays only calls
//! that need its slots.
//!
//! While a slot moves to another node, its users can be read as before. A write waits until all its
//! keys are on one node, at most until the time-out.
//!
//! A server that restarts without its data has no users: accounts and sessions are lost.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! | --- | --- | --- |
//! | `tls` | off | connections over TLS, with rustls: the URLs that begin with `rediss`, and `with_certificates` |
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
//! | finding and writing users | `users.rs`; claiming a login name: `names.rs` |
//! | writing a login; reading the session and the user of a request | `create.rs`; `logins.rs` |
//! | ending all of a user's sessions with one write | `epoch.rs`; removing their records: `purge.rs` |
//! | a record as a value | `record.rs`; writing it, together with the user's indexes: `write_session.rs` |
//! | finding, changing and ending records | `find.rs`, `sessions.rs` |
//! | how long keys live | `life.rs` |
//! | choosing the server for a command, and retrying it | `access.rs`, `servers.rs`, `cluster.rs` |
//! | one connection | `link.rs` |
//! | converting errors | `error.rs` |
#![cfg_attr(docsrs, feature(doc_cfg))]

mod access;
mod builder;
mod check;
mod cluster;
mod counters;
mod create;
mod epoch;
mod error;
mod find;
mod format;
mod keys;
mod life;
mod link;
mod logins;
mod names;
mod purge;
mod record;
mod script;
mod servers;
mod sessions;
mod store;
mod url;
mod users;
mod write_session;

pub use builder::RedisStoreBuilder;
pub use format::{Json, UserFormat};
#[cfg(feature = "tls")]
pub use redis::{ClientTlsConfig, TlsCertificates};
pub use store::RedisStore;
