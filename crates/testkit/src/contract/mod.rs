//! The store contracts as tests. Each rule of a contract is a *clause*: a function that checks the
//! rule on a store.
//!
//! An adapter runs all clauses against a real database:
//!
//! ```
//! use tower_keep_memory::MemoryStore;
//! use tower_keep_testkit::contract;
//!
//! # const _: &str = stringify!(
//! #[tokio::test(flavor = "multi_thread")]
//! # );
//! async fn my_store_keeps_every_clause() {
//!     let store = MemoryStore::new(); // connect to the database here
//!     contract::run_all(|| async { store.clone() }).await;
//! }
//! ```
//!
//! The closure is called once for each clause. It should return a clone of the same store, so that
//! all clauses share the connections of the store. Wrap a store that is not `Clone` in an `Arc`.
//! The store may already hold data, including the data of earlier clauses, because every clause
//! uses new ids and names. A clause panics if the store breaks the rule. Clauses spawn tasks, so
//! they need a tokio runtime. With several threads (`#[tokio::test(flavor = "multi_thread")]`), the
//! clauses about concurrency find more errors.
//!
//! A store that has only users, only sessions or only counters uses [`users::run_all`],
//! [`sessions::run_all`] or [`counters::run_all`].
//! To run a single clause, call it by name, as in
//! `contract::sessions::an_expired_session_can_be_ended(store)`, or pass its name to
//! [`users::run`], [`sessions::run`], [`logins::run`] or [`counters::run`].

mod clauses;
pub mod counters;
mod drops;
pub mod logins;
pub mod sessions;
mod tasks;
pub mod users;
mod values;

use tower_keep_core::{Account, CounterStore, LoginStore, UserDirectory};

pub use self::tasks::with_contention_of;

/// Runs every clause of every contract, one after the other.
pub async fn run_all<S, F, Fut>(factory: F)
where
    S: UserDirectory<User = Account> + LoginStore + CounterStore + 'static,
    F: Fn() -> Fut,
    Fut: Future<Output = S>,
{
    users::run_all(&factory).await;
    sessions::run_all(&factory).await;
    logins::run_all(&factory).await;
    counters::run_all(&factory).await;
}
