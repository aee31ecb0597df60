//! What one database does differently.

use std::any::Any;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::pool::PoolOptions;
use sqlx::{Connection, Database, Error, Pool};

use crate::{Cause, Driver, Names};

/// A kind of database: what its adapter says about it.
pub trait Dialect: Send + Sync + Sized + 'static {
    /// The database, in sqlx.
    type Database: Driver;

    /// Its name in errors.
    const NAME: &'static str;

    /// The files in `migrations`, the oldest first. Each is a script that ends by noting its version.
    const MIGRATIONS: &'static [&'static str];

    /// The function that answers the greater of two numbers, and null if the first is null.
    const GREATEST: &'static str;

    /// Whether an `UPDATE` can answer the rows that it changed.
    const RETURNING: bool;

    /// Whether a connection is in order after a call on it was dropped in the middle. One that isn't is
    /// closed: it could answer the next question with what is left of the last answer.
    const RECOVERS: bool;

    /// Forgets a connection's prepared statements, where a proxy hands connections from one to another.
    const FORGET: &'static str;

    /// What a `SELECT` ends with that keeps others from changing its rows until the transaction ends.
    const FOR_UPDATE: &'static str;

    /// Removes at most `$2` sessions that have expired at `$1`.
    const PURGE: &'static str;

    /// Removes at most `$3` sessions of the user `$1` that have not ended by themselves and are of an
    /// epoch before `$2`.
    const TIDY: &'static str;

    /// How a statement names its parameter with this number, counted from one.
    fn placeholder(number: usize) -> String;

    /// A name between the quotes of this database.
    fn quoted(name: &str) -> String;

    /// A value of this type, for a row that nobody is.
    fn sample(column: &<Self::Database as Database>::TypeInfo) -> Sample;

    /// Two values of this type, if the database pads what is stored in such a column, so that an id
    /// that is read there is not found again.
    fn padded(_column: &<Self::Database as Database>::TypeInfo) -> Option<[String; 2]> {
        None
    }

    /// Begins a transaction whose statements each see what was committed before. With a number of a
    /// user, transactions with the same number wait for each other. The server is to give up a
    /// statement after this time, if it can be told to.
    fn begin(user: Option<u16>, names: &Names, patience: Duration) -> String;

    /// Begins the migrations and keeps other nodes from beginning theirs. They name their tables without
    /// a schema.
    fn migrations_begin(names: &Names) -> String;

    /// Ends them.
    fn migrations_end(names: &Names) -> String;

    /// What an error of this database means, where it is known.
    fn cause(error: &dyn DatabaseError) -> Option<Cause>;

    /// What is told of an error: its code, and its message where that holds nothing that is stored.
    fn said(error: &dyn DatabaseError) -> String;

    /// Whether a text can be an id or a login name here.
    fn takes(text: &str) -> bool;

    /// How many rows a statement changed.
    fn changed(result: &<Self::Database as Database>::QueryResult) -> u64;

    /// Opens the database of a URL.
    fn open(
        url: &str,
        settings: &Settings,
    ) -> impl Future<Output = Result<Pools<Self::Database>, Error>> + Send;
}

pub(crate) type ArgumentsOf<D> = <<D as Dialect>::Database as Database>::Arguments;
pub(crate) type ConnectionOf<D> = <<D as Dialect>::Database as Database>::Connection;
pub(crate) type TypeOf<D> = <<D as Dialect>::Database as Database>::TypeInfo;
pub(crate) type RowOf<D> = <<D as Dialect>::Database as Database>::Row;

/// What a column of a made-up row holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sample {
    /// This value, which is of the column's type.
    Of(String),
    /// Nothing: no value of the type can be written without a table. What reads one of these in its place
    /// can't read the type.
    Unlike(&'static [&'static str]),
}

impl Sample {
    /// A value of the column's type.
    pub fn of(value: impl Into<String>) -> Self {
        Self::Of(value.into())
    }
}

/// What [`Dialect::open`] opens the database with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a call to the store takes at most.
    pub timeout: Duration,
    /// How many connections the store opens at most.
    pub max_connections: u32,
    /// Whether a proxy gives each transaction another connection.
    pub transaction_pooling: bool,
}

impl Settings {
    /// The settings of a pool: what is idle for a second is tried before it is used.
    pub fn pool<DB: Driver>(&self) -> PoolOptions<DB> {
        let patience = self.timeout / 4;
        PoolOptions::new()
            .max_connections(self.max_connections)
            .acquire_timeout(self.timeout)
            .test_before_acquire(false)
            .before_acquire(move |connection: &mut DB::Connection, meta| {
                Box::pin(async move {
                    if meta.idle_for < Duration::from_secs(1) {
                        return Ok(true);
                    }
                    // One that never answers, as across a network that is gone, must leave time for others.
                    let answer = tokio::time::timeout(patience, connection.ping()).await;
                    Ok(answer.is_ok_and(|answer| answer.is_ok()))
                })
            })
    }

    /// How long the server goes on with a statement: it gives up before the store does, so that nothing
    /// is written after the store has answered.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.timeout * 3 / 4
    }
}

/// The connections of a store.
pub struct Pools<DB: Database> {
    /// For what only reads.
    pub reads: Pool<DB>,
    /// For what writes: the same, where a database has many writers.
    pub writes: Pool<DB>,
    /// What has to live as long as the store does.
    pub keeper: Option<Arc<dyn Any + Send + Sync>>,
}

impl<DB: Database> Pools<DB> {
    /// One pool for both.
    pub fn one(pool: Pool<DB>) -> Self {
        Self { reads: pool.clone(), writes: pool, keeper: None }
    }
}
