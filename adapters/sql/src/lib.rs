//! What tower-keep's SQL adapters have in common, which is most of their code.
//!
//! Applications use an adapter: `tower-keep-postgres`, `tower-keep-mysql`, `tower-keep-sqlite`. This
//! crate names no database; an adapter is a [`Dialect`] of it, with its migrations.
//!
//! | look for | in |
//! | --- | --- |
//! | opening a store | [`SqlStoreBuilder`] |
//! | the application's own users | [`SqlStoreBuilder::with_users`] |
//! | what a database does differently | [`Dialect`] |
//! | every statement that is run | `statement.rs` |
//! | what `build` checks | `check.rs` |
//! | time-outs, retries, dropped calls | `store.rs`, `lease.rs` |
//! | what a database's error means | [`Cause`] |

mod accounts;
mod builder;
mod check;
mod dialect;
mod driver;
mod error;
mod lease;
mod logins;
mod migrate;
mod names;
mod row;
mod sessions;
mod statement;
mod store;
mod users;

pub use builder::SqlStoreBuilder;
pub use dialect::{Dialect, Pools, Sample, Settings};
pub use driver::{Driver, Value};
pub use error::Cause;
pub use names::Names;
#[doc(hidden)]
pub use store::Measured;
pub use store::SqlStore;
