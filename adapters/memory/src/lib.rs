//! Stores users, server-side sessions and counters in memory, for tests, examples and small tools.
//!
//! Everything is gone when the process ends, and nothing is shared between processes.
//!
//! ```
//! use tower_keep_core::{Account, UserDirectory, UserLookup};
//! use tower_keep_memory::MemoryStore;
//!
//! # async fn example() -> Result<(), tower_keep_core::StoreError> {
//! let store = MemoryStore::new();
//! store.insert(&Account::new(1, "ada", "$argon2id$…")).await?;
//! assert!(store.by_login_name("ada").await?.is_some());
//! # Ok(()) }
//! ```

mod counters;
mod create;
mod ending;
mod epoch;
mod error;
mod forward;
mod logins;
mod purge;
mod record_shard;
mod session_set;
mod sessions;
mod shards;
mod store;
mod users;

pub use counters::MemoryCounters;
pub use shards::MemorySessions;
pub use store::MemoryStore;
