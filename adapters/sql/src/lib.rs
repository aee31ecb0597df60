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
//! | settings that not every database has | [`Schemas`], [`TransactionPooling`] |
//! | every SQL statement | `statements.rs`, [`SqlStore::queries`] |
//! | the columns of a row | `row.rs` |
//! | the checks of `build` | `check.rs` |
//! | timeouts, retries, dropped futures | `store.rs`, `lease.rs` |
//! | the meaning of a database error | [`Cause`] |
//!
//! # Design
//!
//! **One store, three dialects.** [`SqlStore`] has the statements, the time-outs and the retries
//! once. `PostgresStore`, `MySqlStore` and `SqliteStore` are type aliases of it. The trait
//! [`Driver`] stands for the bounds of sqlx. Every database that meets them implements it.
//!
//! **The application's own users are read within the statement of a request.** The application's
//! SELECT becomes a subquery, with the user's id from the cookie. The record decides whether it was
//! the right user. A join would need the names of the application's table and columns, which this
//! crate does not have. A store finds the application's own users and `Account`s alike, so handlers
//! can move between stores. It writes only `Account`s: the application writes its own table itself.
//!
//! **`build` reads a made-up row** as the application's user type, with a value of each column's
//! type. So a field that fits no column is an error of `build`, not of the first login. The type of
//! a column decides, not its name: MySQL gives a text with a binary collation the name of a binary
//! type. For some types, such as an enum, no value can be written without a table. Then `build`
//! tries null, and values of other types: a field that can read one of those can't read the column.
//! An id that the database pads with spaces is an error, because no query would find it again.
//!
//! **An application's statement is wrapped** so that it returns the columns that it had when the
//! store was built. A column that its tables get later changes no prepared statement. If a column
//! gets another type, a call is tried again, at most once for each connection of the pool, because
//! each of them may have prepared the old statement.
//!
//! **A call with an unknown outcome is never tried again.** The outcome is unknown if the
//! connection was lost, or a proxy reports it as lost, after a single write or a COMMIT was sent. A
//! call that conflicts with others and was rolled back is tried again, and so is a call that was
//! not run.
//!
//! **A database's message is passed on only if it quotes no data** ([`Dialect::safe_message`]). Its
//! details, which can hold rows, never are.
//!
//! **Migrations are this crate's own.** The table of sqlx's migrations would be the application's
//! too. Its locks don't work through a proxy that pools transactions, and SQLite has none. Each
//! version is one file, which can also be run by hand.
//!
//! **Logins of one user, and ends of all their sessions, wait for each other**: by an advisory lock
//! in PostgreSQL, by a locked row in MySQL, and by the single writer in SQLite. So limits hold, a
//! user is notified of a replay once, and every statement reads what is committed. The clocks and
//! isolation levels of other nodes make no difference.

mod accounts;
mod builder;
mod cause;
mod check;
mod counters;
mod dialect;
mod driver;
mod error;
mod lease;
mod logins;
mod migrate;
mod names;
mod pools;
mod row;
mod sessions;
mod statements;
mod store;
mod users;
mod value;

pub use builder::SqlStoreBuilder;
pub use cause::Cause;
pub use dialect::{Dialect, Sample, Schemas, TransactionPooling};
pub use driver::Driver;
pub use names::Names;
pub use pools::{Pools, Settings};
pub use store::SqlStore;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
