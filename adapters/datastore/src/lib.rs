//! Users and session records in Google Datastore (Firestore in Datastore mode).

mod builder;
mod client;
mod create;
mod error;
mod import;
mod keys;
mod logins;
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
pub use value::{EntityKey, LatLng, PathElement, timestamp};
