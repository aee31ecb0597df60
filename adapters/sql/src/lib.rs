//! Contains most of the code of tower-keep's SQL adapters.
//!
//! Applications use an adapter: `tower-keep-postgres`, `tower-keep-mysql`, `tower-keep-sqlite`.
//! This crate contains nothing about a particular database. An adapter implements [`Dialect`] for
//! its database, and contains the migrations.
//!
//! | topic | see |
//! | --- | --- |
//! | opening a store | [`SqlStoreBuilder`] |
//! | the application's own users | [`SqlStoreBuilder::with_users`] |
//! | the differences between databases | [`Dialect`] |
//! | every SQL statement | `statement.rs` |
//! | the checks of `build` | `check.rs` |
//! | timeouts, retries, dropped futures | `store.rs`, `lease.rs` |
//! | the meaning of a database error | [`Cause`] |

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
