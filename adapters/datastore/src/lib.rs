//! Users, server-side sessions and counters in Google Datastore (Firestore in Datastore mode),
//! through the API `google.datastore.v1`.
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
//! application imports these names from `tower_keep` instead of `tower_keep_core`.
//!
//! # Users
//!
//! A user is an entity of the kind `User` ([`with_kind`](DatastoreStoreBuilder::with_kind)). The
//! user's id is the id or name in the entity's key, or a property: [`UserKeys`]. The fields of the
//! application's user type are the entity's properties:
//!
//! | serde | property | also read from |
//! | --- | --- | --- |
//! | `None`, `()` | null | a missing property: `None` |
//! | integers that fit into `i64` | integer | |
//! | `f64`; `f32`, which is rounded when it is read | double | integer |
//! | `bool` | boolean | integer 0 or 1; it is written as an integer again |
//! | `String`, `char`, a unit variant | string | `String`: a blob of UTF-8; it is written as a blob again |
//! | bytes ([`serde_bytes`](https://docs.rs/serde_bytes)) | blob | |
//! | sequences, tuples | array; no element is an array | `Vec<u8>`: blob |
//! | structs, maps, other variants | embedded entity | |
//! | [`timestamp`] | timestamp | |
//! | [`EntityKey`] | key | |
//! | [`LatLng`] | lat/lng | |
//!
//! A timestamp is also read into a `String` (RFC 3339), or into a `SystemTime` if it is not before
//! 1970.
//!
//! A missing property is an error, unless the field is an `Option` or has `#[serde(default)]`. An
//! `Option` with serde's attribute `with` needs `#[serde(default)]` too. Null is not the same as
//! missing: null is read as `None`, or as the default by [`null_as_default`]. Properties that the
//! type does not have are ignored. Errors name the kind, the key and the property, and quote no
//! value.
//!
//! A write keeps the stored properties that the type does not have, including those in embedded
//! entities. It does not change whether a stored property is indexed. It keeps the type of a stored
//! property if the new value fits that type. So a timestamp stays a timestamp if the new value is a
//! string in RFC 3339, a number stays an integer or a double, and bytes stay a blob or a string.
//! Only the login name always becomes a string.
//!
//! A write removes the stored properties of fields that `skip_serializing_if` skips. If an enum has
//! another variant than the stored one, a write removes the properties of the stored variant.
//! Properties that `skip_serializing` never writes stay as they are. A map is replaced as a whole.
//!
//! If a new array element equals a stored element in all fields of the type, the stored element
//! moves to the new index, with its properties that the type does not have. A new element that
//! equals no stored element is written over the stored element at the same index. (If thousands of
//! elements have changed, a new element is not compared with every stored element.)
//!
//! If the user could not be read again after a write, the call returns an error, and nothing is
//! written. For example, a stored property may have the name of a field's serde `alias`. The write
//! would add a second property with the field's own name, and serde rejects an entity with both.
//!
//! Inside `#[serde(flatten)]`, serde reads values before it knows the types of the fields. So
//! inside it, a number in the key can't be read into a `String`, an integer can't be read into a
//! `bool`, and a blob can't be read into a `Vec<u8>`.
//!
//! The ready-made [`Account`](tower_keep_core::Account) has the properties `username`,
//! `password_hash` and `active`. If its security stamp is not the hash, it also has the properties
//! `security_stamp` and `stamped_hash`. `stamped_hash` is the password hash at the time when the
//! security stamp was written. If it differs from `password_hash`, another application has changed
//! the password. Then the account is read with another security stamp, so its logins end. An
//! account without the property `active` is active. If `active` is null, the account is not active,
//! since `None` is false in Python.
//!
//! # This store's own kinds
//!
//! | kind | the key's name | content |
//! | --- | --- | --- |
//! | `KeepSession_User` | the session's key, in hexadecimal | a session record. The facts that are merely shown about a session are one text, `details`. A property without a value is absent. Two properties are indexed: `deletable_at` and `sort_key`. `sort_key` is removed when the session is ended individually. It is one text of the user (hashed), the epoch and the time of the login |
//! | `KeepLogins_User` | the user's id | the user's epoch, and the sessions that ended because of a replay and of which the user has not been notified. Each call that creates a session of the user, or ends all of them, writes this entity, so two such calls conflict |
//! | `KeepCounter_User` | the counter's key, in hexadecimal | a counter, such as of attempts to log in |
//! | `KeepIndex_User.username` | the login name | the key of the user who has this login name. If that user is deleted or has another login name by now, the login name is free |
//!
//! These entities have the same ancestors as the users. The names of the kinds contain the kind of
//! the users (`User`) and a prefix ([`Keep`](DatastoreStoreBuilder::with_kind_prefix)). No
//! composite index has to be created.
//!
//! The epoch is a number of the user. A session record holds the epoch in which it was created. One
//! write ends all of a user's sessions: it raises the user's epoch. Every call then treats the
//! records of earlier epochs as ended. So the work does not depend on how many sessions there are.
//! A login also raises the epoch if it would have to end more than 100 sessions to make room within
//! the limit. `upkeep` calls `purge`, which deletes the ended records in batches. Once a user's
//! epoch has been raised, the user's `KeepLogins_User` entity is never deleted, because only the
//! epoch in it shows that the sessions of earlier epochs have ended.
//!
//! Expired sessions are deleted by `upkeep`, and expired counters while a limiter is used; or both
//! are deleted by the database itself: [`with_ttl_policy`](DatastoreStoreBuilder::with_ttl_policy).
//!
//! A login name is looked up by a query, so users that other applications write are found as well.
//! Two things keep a login name unique: the index entity, which is written in one transaction with
//! the user, and a query in that transaction for users without an index entity. Other applications
//! neither read nor write index entities. [`index_users`](DatastoreStore::index_users) writes the
//! missing ones, and reports users who have the same login name. If several users have the same
//! login name, a look-up returns the user whom the index entity names. Without an index entity, the
//! look-up returns an error ([corrupt]), and no user is logged in.
//!
//! # Calls
//!
//! | operation | calls |
//! | --- | --- |
//! | an authenticated request | one `Lookup` of the session record, the user and the user's `KeepLogins_User` entity. If the user's id is a property, there is also a concurrent `RunQuery` |
//! | a look-up by login name | one `RunQuery`; two if the user's id is a property |
//! | a login | `BeginTransaction`, `Lookup`, `Commit` |
//! | … with a session limit | also a `RunQuery` of the newest sessions, 100 more than the limit; for more than 500 sessions, several `RunQuery`. Also two `Lookup` if sessions have to make room |
//! | … after a replay | also two `Lookup`: of at most 100 session records that ended because of a replay, and of the `KeepLogins_User` entity |
//! | … that replaces a session which another login has replaced already | also a `Lookup` for each successor that it follows. The successor of a session is the login that replaced it |
//! | … that replaces another user's session | also two `Lookup` |
//! | a logout | `BeginTransaction`, two `Lookup`, `Commit` |
//! | the next generation of a session; touching up to 50 sessions | the same as a logout. The second `Lookup`, of the users' `KeepLogins_User` entities, is not part of the transaction |
//! | a list of sessions | `Lookup`, `RunQuery`, `Lookup`; if one response does not hold all sessions, also a transaction that only reads |
//! | ending all sessions of a user | `BeginTransaction`, `Lookup`, `Commit` |
//! | `insert` | `BeginTransaction`, two `Lookup` or more, `RunQuery`, `Commit` |
//! | `modify` | `Lookup`, `BeginTransaction`, `Lookup`, `Commit`; all of them again if the user was changed between the two `Lookup`. For a new login name also two `Lookup` or more, and a `RunQuery` |
//! | `take` | `Lookup`; unless the uses are refused, also `BeginTransaction`, `Lookup`, `Commit` |
//! | `give_back`, `reset_counters` | `BeginTransaction`, `Lookup`, `Commit` |
//! | `purge`, `purge_counters` | `RunQuery`; for each batch to delete also `BeginTransaction`, `Lookup`, `Commit` |
//!
//! If the user's id is a property, `insert`, `modify` and `delete` also make a `RunQuery` for it.
//!
//! Each transaction begins with a call of its own. A transaction without changes ends with
//! `Rollback` instead of `Commit`. It is also rolled back on any failure, and when a future is
//! dropped. If the service aborted a transaction in favour of another one, or no longer knows it,
//! the store tries again after a pause, up to 20 times in total. A `Commit` that fails for another
//! reason is not tried again. Calls of one process that write the same user, the same login name,
//! the same session or the same counter (the first of a call) wait for each other before they begin
//! a transaction. A `revoke`, `touch` or `mark_seen` of several sessions does not wait.
//!
//! # Errors
//!
//! | event | error |
//! | --- | --- |
//! | `UNAVAILABLE` or a lost connection, three times, in any call except a commit | [unavailable] |
//! | the same in a commit, so it is not known whether the commit took effect | [timeout] |
//! | `RESOURCE_EXHAUSTED` (a quota), or more waiting calls than are allowed | [unavailable], immediately |
//! | `ABORTED` in all 20 attempts, or until the time-out | [unavailable] |
//! | `DEADLINE_EXCEEDED`, or no response in time | [timeout] |
//! | `PERMISSION_DENIED`, `UNAUTHENTICATED`, `INVALID_ARGUMENT`, `FAILED_PRECONDITION`, `NOT_FOUND` (of the database) | [unsupported], also by `build` |
//! | no token can be obtained for now | [unavailable] |
//! | no token can be obtained with these credentials | [unsupported] |
//! | an entity can't be read | [corrupt] |
//! | another user has the id or the login name of the user to write | [conflict] |
//!
//! On such an error, a browser that sends login cookies gets a 503 response and keeps the cookies.
//! Requests without login cookies are not affected. A lost connection is opened again. No call
//! takes longer than [`with_timeout`](DatastoreStoreBuilder::with_timeout), except `purge`: each of
//! its batches may take that long.
//!
//! # What it does not do
//!
//! - A `revoke` of more than 1,000 keys needs several commits, so it is not atomic. A list between
//!   two commits still shows the sessions of the later commit. After a time-out, some of the
//!   sessions may have ended and others not.
//! - An old database may have the concurrency mode "optimistic with entity groups", which does not
//!   support queries in transactions (`gcloud firestore databases describe` shows the mode). Such a
//!   database has to be switched to "pessimistic" or "optimistic".
//! - A login replaces the sessions whose cookies the browser sends. If another login has already
//!   replaced such a session, that login is the session's successor, and may have a successor
//!   itself. The new login replaces the last successor. It follows at most 1,000 successors, with a
//!   `Lookup` each. If there are more, the last successor stays open beside the new session. Each
//!   login shortens the chain of successors for the next login with the same cookie.
//! - If the name in a user's key looks like a number, the user is found only with
//!   [`UserKeys::Name`].
//!
//! [unavailable]: tower_keep_core::StoreErrorKind::Unavailable
//! [timeout]: tower_keep_core::StoreErrorKind::Timeout
//! [conflict]: tower_keep_core::StoreErrorKind::Conflict
//! [corrupt]: tower_keep_core::StoreErrorKind::Corrupt
//! [unsupported]: tower_keep_core::StoreErrorKind::Unsupported
//!
//! # Design
//!
//! - Emulators differ in whether a query in a transaction notices concurrent inserts. So each call
//!   that begins a session, or ends all of a user's sessions, writes the user's `KeepLogins_User`
//!   entity.
//! - A session's place is one indexed text, `sort_key`. So one query finds the user's open sessions
//!   of the current epoch, the newest first, and another finds those of earlier epochs for `purge`.
//! - Transactions are a macro around a block, because a function that takes an async closure can't
//!   promise that its future is `Send`. A transaction that is dropped is rolled back by a task.
//!   Otherwise the entities that it has read could stay locked for a minute.
//! - Calls of one process that write the same entity take turns. When their transactions waited for
//!   each other instead, fifty requests with one remember cookie took minutes. Now one call writes,
//!   and the others read the result.
//! - For a write, serde reports which fields the type has left out on purpose (`skip_field`), and
//!   whether a value is a map or a struct. It reports nothing about flattened fields and variants.
//!   So the stored user is serialized as well: a property that the stored user would have written
//!   and the new user does not is removed.
//! - If the id is a property, two entities may have it. A look-up by login name fails unless the id
//!   of the user that it found leads to the same entity. Otherwise the next request would be
//!   another user's.
//!
//! # Source files
//!
//! | topic | source file |
//! | --- | --- |
//! | settings | `builder.rs`; credentials, project, the connection: `connect.rs`; URLs and addresses: `url.rs` |
//! | the keys of all entities | `keys.rs` |
//! | values as properties | `value/`: writing: `ser.rs`, reading: `de.rs`, writing over a stored entity: `merge.rs` |
//! | entities as users | `mapping.rs`; finding and writing users: `users.rs` |
//! | unique login names | `names.rs`; for users that other applications write: `import.rs` |
//! | a session's entity, property by property | `record.rs`; the types of the properties: `properties.rs` |
//! | finding, changing, ending and purging sessions | `find.rs`, `change.rs`, `sessions.rs`, `purge.rs` |
//! | what a login writes, and what a request reads | `create.rs`, `load.rs` |
//! | calls, time-outs and retries | `client.rs`, `transaction.rs`, `write_queues.rs`; queries: `query.rs` |
//! | the status codes of the service, and which are tried again | `status_codes.rs`; the causes: `error.rs` |

mod builder;
mod change;
mod client;
mod connect;
mod counters;
mod create;
mod error;
mod find;
mod import;
mod keys;
mod load;
mod mapping;
mod names;
mod properties;
mod purge;
mod query;
mod record;
mod sessions;
mod status_codes;
mod store;
mod transaction;
mod url;
mod users;
mod value;
mod write_queues;

pub use builder::DatastoreStoreBuilder;
pub use import::{Cursor, IndexProblem, Indexed};
pub use keys::UserKeys;
pub use store::DatastoreStore;
pub use value::types::{EntityKey, LatLng, PathElement, null_as_default, timestamp};
