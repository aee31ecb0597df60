//! Users and session records in Google Datastore: Firestore in Datastore mode, by `google.datastore.v1`.
//!
//! ```no_run
//! use tower_keep_core::{Account, UserDirectory, UserFinder};
//! use tower_keep_datastore::DatastoreStore;
//!
//! # async fn example() -> Result<(), tower_keep_core::StoreError> {
//! let store = DatastoreStore::builder("datastore://my-project").build().await?;
//! store.insert(&Account::new(42, "ada", "$argon2id$…")).await?;
//! assert!(store.by_login("ada").await?.is_some());
//! # Ok(()) }
//! ```
//!
//! Credentials, project and emulator are found as Google's own libraries find them: see
//! [`DatastoreStore::builder`]. Users of the application's own type, also those that a Python application
//! writes beside: [`with_users`](DatastoreStoreBuilder::with_users). What is called `tower_keep_core` here is in
//! `tower_keep` as well, for applications.
//!
//! # Users
//!
//! A user is an entity of the kind `User` ([`with_kind`](DatastoreStoreBuilder::with_kind)). What names it is
//! [`UserKeys`]: the key's id or name, or a property. The fields of the application's type are its properties:
//!
//! | serde | property | read as well from |
//! | --- | --- | --- |
//! | `None`, `()` | null | a property that is missing: `None` |
//! | integers, as far as `i64` | integer | |
//! | `f64`; `f32`, which rounds what it reads | double | integer |
//! | `bool` | boolean | integer 0 or 1, which it stays |
//! | `String`, `char`, a variant that is only a name | string | `String`: a blob that is UTF-8, which it stays |
//! | bytes ([`serde_bytes`](https://docs.rs/serde_bytes)) | blob | |
//! | sequences, tuples | array, which holds no arrays | `Vec<u8>`: blob |
//! | structs, maps, other variants | embedded entity | |
//! | [`timestamp`] | timestamp | |
//! | [`EntityKey`] | key | |
//! | [`LatLng`] | lat/lng | |
//!
//! A timestamp is also read by a `String` (RFC 3339), or a `SystemTime` if it is not before 1970.
//!
//! A missing property is an error, unless the field is an `Option` or has `#[serde(default)]` (with an attribute
//! `with`, also an `Option` needs that). Null is not missing: it is `None`, or what
//! [`null_as_default`] makes of it. What the type does not know is passed over. Errors name kind, key and
//! property, and quote no value.
//!
//! A write keeps what is stored and the type does not know of: properties, of embedded entities too; whether
//! each is indexed; and types, where the new value can have them (a string in RFC 3339 stays a timestamp where
//! there was one, numbers stay integers or doubles, bytes a blob or a string; a login name alone becomes a string).
//! What `skip_serializing_if` skips is removed, and what another variant wrote; what `skip_serializing` never writes
//! stays as it is. A map is written whole. An element of an array that is equal to a stored one keeps what the type
//! does not know of that one, wherever it is now (where thousands have changed, not all are compared with all); any
//! other is written over the one at its place. Nothing is written that could not be read again, as with an `alias`
//! under which a property is stored, while the type writes it under its name.
//!
//! Within `#[serde(flatten)]` serde reads values before it knows their types: there, ids and numbers are not read as
//! strings or flags, nor blobs as `Vec<u8>`.
//!
//! The ready [`Account`](tower_keep_core::Account) is `username`, `password_hash`, `active`, and, if the stamp is
//! not the hash, `stamp` and `stamped_hash`, the hash that was there then: where there is another now, as when Python
//! has changed the password, the stamp is another, too, and logins end. Who has no `active` is active, and who has
//! null is not: in Python, `None` is false.
//!
//! # This store's own kinds
//!
//! | kind | named by | what it holds |
//! | --- | --- | --- |
//! | `KeepSession_User` | the session's key, in hexadecimal | a session record. Indexed are `user`, `open` and `expire_at` |
//! | `KeepLogins_User` | the user's id | which sessions ended for a replay that the user was not told of. Each call that begins a session or ends all of them writes it, so that two at once conflict |
//! | `KeepIndex_User.username` | the login name | whose it is. Its user decides: with another name, or gone, it is nobody's |
//!
//! They are below what users are below, and named after the kind of users. No composite index has to be made.
//! Expired sessions are deleted by `upkeep` (`purge`), or by the database itself:
//! [`with_ttl_policy`](DatastoreStoreBuilder::with_ttl_policy).
//!
//! A login name is looked for by a query, so users whom others write are found as well. What keeps it unique is
//! the index entity, which is written in one transaction with the user, and a query within that transaction for
//! those who have none. Others who write users don't ask it; [`index_users`](DatastoreStore::index_users) brings
//! it up to date, and names those who have one name. Of several with one name the index entity says whose it
//! is; without one, a look-up is a fault and nobody is let in.
//!
//! # Calls
//!
//! | what | calls |
//! | --- | --- |
//! | an authenticated request | one `Lookup`, of the record and the user; with a property for an id, a `RunQuery` beside it |
//! | a look-up by login name | one `RunQuery`; with a property for an id, another |
//! | a login | `BeginTransaction`, `Lookup`, `Commit`; with a limit a `RunQuery` and a `Lookup` besides |
//! | a logout, the next generation | `BeginTransaction`, `Lookup`, `Commit`; where there is nothing to write, `Rollback` |
//! | a list of sessions | one `RunQuery`; for hundreds of them, a transaction that only reads |
//! | the end of all | `BeginTransaction`, `RunQuery`, two `Lookup`, `Commit`, for each 1,000 of them |
//! | `insert`, a rename | `BeginTransaction`, two `Lookup` or more, `RunQuery`, `Commit` |
//!
//! Transactions are begun explicitly, and rolled back whatever goes wrong, also when a request is dropped. One
//! that was aborted, because another was faster, or that the service has forgotten, is tried again after a pause, up to
//! 20 times; nothing else that writes is. Calls of one process that would write the same user, the same login name or the
//! same single session take turns before they begin.
//!
//! # Faults
//!
//! | what happens | what a call answers |
//! | --- | --- |
//! | `UNAVAILABLE`, or the connection is lost, three times: of all but commits | [unavailable] |
//! | the same of a commit: it may have been made | [timeout] |
//! | `RESOURCE_EXHAUSTED`: a quota; or more calls wait than are allowed | [unavailable], at once |
//! | `ABORTED`, over and over | [unavailable] |
//! | `DEADLINE_EXCEEDED`, or no answer in time | [timeout] |
//! | `PERMISSION_DENIED`, `UNAUTHENTICATED`, `INVALID_ARGUMENT`, `FAILED_PRECONDITION`, `NOT_FOUND` (of the database) | [unsupported], also by `build` |
//! | no token can be had: for now, or at all | [unavailable], or [unsupported] |
//! | an entity can't be read | [corrupt] |
//! | an id or a login name that is to be inserted is taken | [conflict] |
//!
//! Visitors who are or were logged in get a 503 and keep their cookies; others browse on. The connection is made
//! anew when it is lost; no call waits longer than [`with_timeout`](DatastoreStoreBuilder::with_timeout), but for
//! `purge`, which makes several.
//!
//! # What it does not do
//!
//! - More than 1,000 sessions of one user, or keys in one `revoke`, end in several commits, so a list in between
//!   shows some of them; what has ended when the time is up stays ended. A limit that is new can't end thousands of a
//!   user's sessions at their next login: end them first.
//! - A database whose concurrency mode is "optimistic with entity groups", as some old ones have
//!   (`gcloud firestore databases describe`), has no queries in transactions; it has to be switched to
//!   "pessimistic" or "optimistic".
//! - A login takes the place of the sessions whose cookies the browser shows, or of those that took theirs. From one
//!   whose place was taken over and over, as by a program that logs in with the same old cookie again and again, it
//!   looks 100 steps far; what is beyond stays open beside it.
//! - A name of a key that is written like a number is found only with [`UserKeys::Name`].
//!
//! [unavailable]: tower_keep_core::StoreErrorKind::Unavailable
//! [timeout]: tower_keep_core::StoreErrorKind::Timeout
//! [conflict]: tower_keep_core::StoreErrorKind::Conflict
//! [corrupt]: tower_keep_core::StoreErrorKind::Corrupt
//! [unsupported]: tower_keep_core::StoreErrorKind::Unsupported
//!
//! | look for | in |
//! | --- | --- |
//! | the settings | `builder.rs`; credentials, project, the connection: `connect.rs`; URLs and addresses: `place.rs` |
//! | which entity has which key | `keys.rs` |
//! | how a value becomes a property, and back | `value/`: `ser.rs`, `de.rs`; what a write keeps: `merge.rs` |
//! | how an entity becomes a user | `mapping.rs`; users are found and written in `users.rs` |
//! | how a name is one user's alone | `names.rs`; for users of others: `import.rs` |
//! | a session's entity | `record.rs`; how it is found, changed and ended: `sessions.rs` |
//! | what a login writes, and what a request reads | `create.rs`, `load.rs` |
//! | the calls, their time and their tries | `client.rs`, `transaction.rs`, `turns.rs`; queries, in words: `query.rs` |
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
mod place;
mod query;
mod record;
mod sessions;
mod store;
mod transaction;
mod turns;
mod users;
mod value;

pub use builder::DatastoreStoreBuilder;
pub use import::{Cursor, IndexProblem, Indexed};
pub use keys::UserKeys;
pub use store::DatastoreStore;
pub use value::{EntityKey, LatLng, PathElement, null_as_default, timestamp};
