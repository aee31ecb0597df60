//! How one database differs from the others.

use std::any::Any;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::pool::PoolOptions;
use sqlx::{Connection, Database, Pool};

use crate::{Cause, Driver, Names};

/// Describes how a database differs from the others. Each adapter implements it for its database.
pub trait Dialect: Send + Sync + Sized + 'static {
    /// The database's type in sqlx.
    type Database: Driver;

    /// The database's name in errors.
    const NAME: &'static str;

    /// The contents of the files in `migrations`, the oldest first. Each is a script that ends by
    /// inserting its version.
    const MIGRATIONS: &'static [&'static str];

    /// The SQL function that returns the greater of two numbers, or null if the first is null.
    const GREATEST: &'static str;

    /// Whether an `UPDATE` can return the rows that it changed.
    const RETURNING: bool;

    /// Whether a connection can be used again after a call on it was dropped before it finished. If
    /// not, the connection is closed: it could return the rest of the last reply to the next
    /// statement.
    const RECOVERS: bool;

    /// The statement that removes a connection's prepared statements. It is used behind a proxy
    /// that passes connections from one client to another.
    const FORGET: &'static str;

    /// The end of a `SELECT` that prevents other transactions from changing its rows until the
    /// transaction ends.
    const FOR_UPDATE: &'static str;

    /// The statement that removes at most `$2` sessions that have expired at the time `$1`.
    const PURGE: &'static str;

    /// The statement that removes at most `$3` sessions of the user `$1`: those of an epoch before
    /// `$2` that have not ended individually.
    const PURGE_EARLIER_EPOCHS: &'static str;

    /// Returns the placeholder of the parameter with this number, counted from one.
    fn placeholder(number: usize) -> String;

    /// Returns a name, quoted in the syntax of this database.
    fn quoted(name: &str) -> String;

    /// Returns a value of this type for a made-up row, which belongs to no user.
    fn sample(column: &<Self::Database as Database>::TypeInfo) -> Sample;

    /// Returns two values of this type if the database pads what is stored in such a column,
    /// otherwise `None`. An id that is read from a padded column would not be found again.
    fn padded_samples(_column: &<Self::Database as Database>::TypeInfo) -> Option<[String; 2]> {
        None
    }

    /// Returns the SQL that begins a transaction in which each statement sees what was committed
    /// before it. With a user's number, transactions with the same number wait for each other. The
    /// server aborts a statement that takes longer than `patience`, if it has a setting for that.
    fn begin(user: Option<u16>, names: &Names, patience: Duration) -> String;

    /// Returns the SQL that begins the migrations and prevents other nodes from beginning theirs.
    /// Migrations name their tables without a schema.
    fn migrations_begin(names: &Names) -> String;

    /// Returns the SQL that ends the migrations.
    fn migrations_end(names: &Names) -> String;

    /// Returns what an error of this database means, or `None` if that is not known.
    fn cause(error: &dyn DatabaseError) -> Option<Cause>;

    /// Returns the part of an error that may be shown: its code, and its message unless that
    /// contains stored data.
    fn safe_message(error: &dyn DatabaseError) -> String;

    /// Checks whether this database can store a text as an id or as a login name.
    fn can_store(text: &str) -> bool;

    /// Returns the number of rows that a statement changed.
    fn changed(result: &<Self::Database as Database>::QueryResult) -> u64;

    /// Opens the database at a URL.
    fn open(
        url: &str,
        settings: &Settings,
    ) -> impl Future<Output = Result<Pools<Self::Database>, sqlx::Error>> + Send;
}

pub(crate) type ArgumentsOf<D> = <<D as Dialect>::Database as Database>::Arguments;
pub(crate) type ConnectionOf<D> = <<D as Dialect>::Database as Database>::Connection;
pub(crate) type TypeOf<D> = <<D as Dialect>::Database as Database>::TypeInfo;
pub(crate) type RowOf<D> = <<D as Dialect>::Database as Database>::Row;

/// The value of a column in a made-up row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sample {
    /// A value of the column's type.
    Of(String),
    /// No value, because none of the column's type can be written without a table. The list has
    /// values of other types: a field that can read one of them can't read the column's type.
    Unlike(&'static [&'static str]),
}

impl Sample {
    /// Creates a sample from a value of the column's type.
    pub fn of(value: impl Into<String>) -> Self {
        Self::Of(value.into())
    }
}

/// The settings with which [`Dialect::open`] opens the database.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The maximum duration of a call to the store.
    pub timeout: Duration,
    /// The maximum number of connections that the store opens.
    pub max_connections: u32,
    /// Whether a proxy gives each transaction another connection.
    pub transaction_pooling: bool,
}

impl Settings {
    /// Returns the options of a pool. A connection that was idle for a second is tested before it
    /// is used.
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
                    // A connection that never responds, for example over a broken network, must
                    // leave time to try another one.
                    let result = tokio::time::timeout(patience, connection.ping()).await;
                    Ok(result.is_ok_and(|result| result.is_ok()))
                })
            })
    }

    /// Returns the time after which the server aborts a statement. It is shorter than the store's
    /// timeout, so that nothing is written after a call to the store has returned.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.timeout * 3 / 4
    }
}

/// The connection pools of a store.
pub struct Pools<DB: Database> {
    /// The pool for calls that only read.
    pub reads: Pool<DB>,
    /// The pool for calls that write. It is the same pool if the database allows many writers.
    pub writes: Pool<DB>,
    /// A value that has to live as long as the store does.
    pub keeper: Option<Arc<dyn Any + Send + Sync>>,
}

impl<DB: Database> Pools<DB> {
    /// Uses one pool for reads and writes.
    pub fn one(pool: Pool<DB>) -> Self {
        Self { reads: pool.clone(), writes: pool, keeper: None }
    }
}
