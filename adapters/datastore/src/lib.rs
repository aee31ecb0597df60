//! Users and server-side sessions in Google Datastore (Firestore in Datastore mode), through the
//! API `google.datastore.v1`.
//!
//! ```no_run
//! use tower_keep_core::{Account, UserDirectory, UserLookup};
//! use tower_keep_datastore::DatastoreStore;
//!
//! # async fn example() -> Result<(), tower_keep_core::StoreError> {
//! let store = DatastoreStore::builder("datastore://my-project").build().await?;
//! store.insert(&Account::new(42, "ada", "$argon2id$…")).await?;
//! assert!(store.by_login_name("ada").await?.is_some());
//! # Ok(()) }
//! ```
//!
//! Credentials, project and emulator are found in the same way as by Google's own libraries: see
//! [`DatastoreStore::builder`]. For users of the application's own type, including those that a
//! Python application also writes, see [`with_users`](DatastoreStoreBuilder::with_users). An
//! application imports from `tower_keep` what this page imports from `tower_keep_core`.
//!
//! # Users
//!
//! A user is an entity of the kind `User` ([`with_kind`](DatastoreStoreBuilder::with_kind)).
//! [`UserKeys`] sets what identifies it: the key's id or name, or a property. The fields of the
//! application's type are its properties:
//!
//! | serde | property | also read from |
//! | --- | --- | --- |
//! | `None`, `()` | null | a missing property: `None` |
//! | integers that fit into `i64` | integer | |
//! | `f64`; `f32`, which rounds when reading | double | integer |
//! | `bool` | boolean | integer 0 or 1, which stays an integer |
//! | `String`, `char`, a unit variant | string | `String`: a blob of UTF-8, which stays a blob |
//! | bytes ([`serde_bytes`](https://docs.rs/serde_bytes)) | blob | |
//! | sequences, tuples | array, without arrays in it | `Vec<u8>`: blob |
//! | structs, maps, other variants | embedded entity | |
//! | [`timestamp`] | timestamp | |
//! | [`EntityKey`] | key | |
//! | [`LatLng`] | lat/lng | |
//!
//! A timestamp is also read into a `String` (RFC 3339), or into a `SystemTime` if it is not before
//! 1970.
//!
//! A missing property is an error, unless the field is an `Option` or has `#[serde(default)]`. An
//! `Option` with an attribute `with` also needs the default. Null is not missing: it is read as
//! `None`, or as what [`null_as_default`] makes of it. Properties that the type does not have are
//! ignored. Errors name the kind, the key and the property, and quote no value.
//!
//! A write keeps what is stored and the type does not have: properties, also those of embedded
//! entities, and whether each property is indexed. It also keeps the type of a property if the new
//! value fits it: a string in RFC 3339 stays a timestamp, numbers stay integers or doubles, bytes
//! stay a blob or a string. Only the login name always becomes a string.
//!
//! A write removes what `skip_serializing_if` skips, and what another variant wrote. It leaves what
//! `skip_serializing` never writes as it is. It replaces a map as a whole. An array element that is
//! equal to a stored one keeps what the type does not know about that one, whatever its index is
//! now. (If thousands of elements have changed, not all of them are compared with each other.) Any
//! other element is written over the one at its index.
//!
//! Nothing is written that could not be read again. An example is a property that is stored under
//! an `alias` of its field, while the type writes it under the field's name.
//!
//! Inside `#[serde(flatten)]`, serde reads values before it knows their types. There, ids and
//! numbers are not read as strings or flags, and blobs are not read as `Vec<u8>`.
//!
//! The ready-made [`Account`](tower_keep_core::Account) has the properties `username`,
//! `password_hash` and `active`. If its security stamp is not the hash, it also has
//! `security_stamp`, and `stamped_hash`: the hash at the time when the stamp was written. If the
//! stored hash is another one, for instance because Python has changed the password, the account is
//! read with another security stamp, and its logins end. An account without `active` is active. An
//! account whose `active` is null is not, since `None` is false in Python.
//!
//! # This store's own kinds
//!
//! | kind | named by | what it holds |
//! | --- | --- | --- |
//! | `KeepSession_User` | the session's key, in hexadecimal | a session record. What is merely shown about it is one text, `details`. A property without a value is absent. Two properties are indexed: `expire_at` and, as long as the record itself has not ended, `sort_key`. This is one text of the user (hashed), the epoch and the time of the login |
//! | `KeepLogins_User` | the user's id | the user's epoch, and the sessions that ended because of a replay of which the user has not been notified yet. Each call that begins a session or ends all of them writes this entity, so that two concurrent calls conflict |
//! | `KeepIndex_User.username` | the login name | which user has it. That user's entity decides: if it has another name, or is deleted, the name is free |
//!
//! They have the same ancestors as the users, and are named after the kind of users. No composite
//! index has to be created.
//!
//! Ending all of a user's sessions is one write: it raises the user's epoch. A record of an earlier
//! epoch counts as ended in every call. So the work does not depend on how many sessions there are.
//! The same happens if a login over its limit would have to end more than 100 sessions. `upkeep`
//! (`purge`) deletes these records in batches. The user's `KeepLogins_User` entity then has no
//! expiry and stays forever, since it says that they have ended.
//!
//! Expired sessions are deleted by `upkeep`, or by the database itself:
//! [`with_ttl_policy`](DatastoreStoreBuilder::with_ttl_policy).
//!
//! A login name is looked up by a query, so users that other applications write are found as well.
//! Two things keep it unique: the index entity, which is written in one transaction with the user,
//! and a query in that transaction for users without an index entity. Other applications that write
//! users don't read the index. [`index_users`](DatastoreStore::index_users) brings it up to date,
//! and reports users who share a name. If several users have one name, the index entity says which
//! of them has it. Without an index entity, a look-up returns an error ([corrupt]), and no user is
//! logged in.
//!
//! # Calls
//!
//! | what | calls |
//! | --- | --- |
//! | an authenticated request | one `Lookup` of the record, the user and the user's logins; if a property is the id, a `RunQuery` beside it |
//! | a look-up by login name | one `RunQuery`; if a property is the id, another |
//! | a login | `BeginTransaction`, `Lookup`, `Commit` |
//! | … with a limit | also a `RunQuery` of the newest sessions: as many as the limit and 100 more, at most 500 by each `RunQuery`; and two `Lookup` if sessions have to make room |
//! | … after a replay | also two `Lookup`, of at most 100 records of which the user is notified |
//! | … that replaces a session which another login has replaced already | also a `Lookup` for each login in between |
//! | … that replaces another user's session | also two `Lookup` |
//! | a logout | `BeginTransaction`, two `Lookup`, `Commit` |
//! | the next generation; a note of when a session was last used, or of 50 sessions | the same as a logout; the second `Lookup`, of the user's logins, is not part of the transaction |
//! | a list of sessions | `Lookup`, `RunQuery`, `Lookup`; if one response does not hold all of them, also a transaction that only reads |
//! | the end of all sessions | `BeginTransaction`, `Lookup`, `Commit` |
//! | `insert` | `BeginTransaction`, two `Lookup` or more, `RunQuery`, `Commit` |
//! | `modify` | `Lookup`, `BeginTransaction`, `Lookup`, `Commit`, and again if the user was changed in between; for a new login name also two `Lookup` or more, and a `RunQuery` |
//! | `purge` | `RunQuery`; for each batch to delete also `BeginTransaction`, `Lookup`, `Commit` |
//!
//! If a property is the id, `insert`, `modify` and `delete` also make a `RunQuery` for it.
//!
//! A transaction without changes ends with `Rollback` instead of `Commit`. Transactions are begun
//! explicitly, and rolled back on any failure, also when a request is dropped. A transaction that
//! was aborted because another was faster, or that the service no longer knows, is tried again
//! after a pause, up to 20 times. Nothing else that writes is tried again. Calls of one process
//! that write the same user, the same login name or the same single session take turns before they
//! begin a transaction.
//!
//! # Errors
//!
//! | what happens | what a call returns |
//! | --- | --- |
//! | `UNAVAILABLE` or a lost connection, three times, in any call except a commit | [unavailable] |
//! | the same in a commit, which may have been made | [timeout] |
//! | `RESOURCE_EXHAUSTED` (a quota), or more waiting calls than are allowed | [unavailable], immediately |
//! | `ABORTED` in every try | [unavailable] |
//! | `DEADLINE_EXCEEDED`, or no response in time | [timeout] |
//! | `PERMISSION_DENIED`, `UNAUTHENTICATED`, `INVALID_ARGUMENT`, `FAILED_PRECONDITION`, `NOT_FOUND` (of the database) | [unsupported], also by `build` |
//! | no token can be obtained: temporarily, or permanently | [unavailable], or [unsupported] |
//! | an entity can't be read | [corrupt] |
//! | another user has the id or the login name that is to be written | [conflict] |
//!
//! A visitor who is or was logged in gets a 503 response and keeps the cookies. Other visitors are
//! not affected. A lost connection is opened again. No call takes longer than
//! [`with_timeout`](DatastoreStoreBuilder::with_timeout), except `purge`, each step of which may
//! take that long.
//!
//! # What it does not do
//!
//! - A `revoke` of more than 1,000 keys needs several commits. So a list in between still shows
//!   some of the sessions, and after a time-out those that have ended stay ended.
//! - A database whose concurrency mode is "optimistic with entity groups", as some old ones have
//!   (`gcloud firestore databases describe`), does not support queries in transactions. It has to
//!   be switched to "pessimistic" or "optimistic".
//! - A login replaces the sessions whose cookies the browser sends. If other logins have replaced
//!   such a session in the meantime, one after the other, it replaces the last one of them. It
//!   follows at most 1,000 of them, with a `Lookup` each. A session beyond these stays open beside
//!   the new one. Each login shortens this chain for the next login with the same cookie.
//! - A key's name that looks like a number is found only with [`UserKeys::Name`].
//!
//! [unavailable]: tower_keep_core::StoreErrorKind::Unavailable
//! [timeout]: tower_keep_core::StoreErrorKind::Timeout
//! [conflict]: tower_keep_core::StoreErrorKind::Conflict
//! [corrupt]: tower_keep_core::StoreErrorKind::Corrupt
//! [unsupported]: tower_keep_core::StoreErrorKind::Unsupported
//!
//! | look for | in |
//! | --- | --- |
//! | the settings | `builder.rs`; credentials, project, the connection: `connect.rs`; URLs and addresses: `url.rs` |
//! | which entity has which key | `keys.rs` |
//! | how a value becomes a property, and back | `value/`: `ser.rs`, `de.rs`; what a write keeps: `merge.rs` |
//! | how an entity becomes a user | `mapping.rs`; how users are found and written: `users.rs` |
//! | how login names stay unique | `names.rs`; for users that others write: `import.rs` |
//! | a session's entity, property by property | `record.rs`; the types of the properties: `properties.rs`; how it is found, changed and ended: `sessions.rs` |
//! | what a login writes, and what a request reads | `create.rs`, `load.rs` |
//! | the calls, their time-outs and retries | `client.rs`, `transaction.rs`, `turns.rs`; queries: `query.rs` |
//! | what an error means | `error.rs` |

mod builder;
mod client;
mod connect;
mod create;
mod error;
mod import;
mod keys;
mod load;
mod mapping;
mod names;
mod properties;
mod query;
mod record;
mod sessions;
mod store;
mod transaction;
mod turns;
mod url;
mod users;
mod value;

pub use builder::DatastoreStoreBuilder;
pub use import::{Cursor, IndexProblem, Indexed};
pub use keys::UserKeys;
pub use store::DatastoreStore;
pub use value::{EntityKey, LatLng, PathElement, null_as_default, timestamp};
