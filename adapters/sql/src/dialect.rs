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
    /// not, the store closes the connection, because the next statement could get the rest of the
    /// reply to the dropped call.
    const RECOVERS: bool;

    /// The statement that removes a connection's prepared statements. The store runs it behind a
    /// proxy that passes connections from one client to another.
    const FORGET: &'static str;

    /// The end of a `SELECT` that locks its rows: no other transaction can change them until this
    /// transaction ends.
    const FOR_UPDATE: &'static str;

    /// The statement that removes at most `$2` sessions that have expired at the time `$1`.
    const PURGE: &'static str;

    /// The statement that removes at most `$3` sessions of the user `$1`: those of an epoch before
    /// `$2` that have not ended individually. A user's [epoch](tower_keep_core::Epoch) is a number
    /// that is raised to end all of the user's sessions.
    const PURGE_EARLIER_EPOCHS: &'static str;

    /// Returns the placeholder of the parameter with this number, counted from one.
    fn placeholder(number: usize) -> String;

    /// Returns a name, quoted in the syntax of this database.
    fn quoted(name: &str) -> String;

    /// Returns a value of this column type, for a made-up row. When a store is opened, the user
    /// type reads such rows, to check whether it can read the columns.
    fn sample(column_type: &<Self::Database as Database>::TypeInfo) -> Sample;

    /// Returns two different values of this column type, as SQL expressions, if the database pads
    /// the values in such a column with spaces, otherwise `None`. With them, the store checks
    /// whether the user's id is read from such a column. This is an error, because no user is found
    /// by a padded id.
    fn samples_if_padded(
        _column_type: &<Self::Database as Database>::TypeInfo,
    ) -> Option<[String; 2]> {
        None
    }

    /// Returns the SQL that begins a transaction in which each statement sees what was committed
    /// before the statement began. Transactions with the same `user_lock` wait for each other; it
    /// is a number that the store derives from a user's id. The server aborts a statement that
    /// takes longer than `patience`, if the server has a setting for that.
    fn begin(user_lock: Option<u16>, names: &Names, patience: Duration) -> String;

    /// Returns the SQL that begins the migrations. If another node is running migrations, the SQL
    /// waits until that node has finished. If `names` has a schema, the SQL selects it, because
    /// migrations name their tables without one.
    fn migrations_begin(names: &Names) -> String;

    /// Returns the SQL that ends the migrations.
    fn migrations_end(names: &Names) -> String;

    /// Returns the meaning of an error of this database, or `None` if the dialect does not know the
    /// error.
    fn cause(error: &dyn DatabaseError) -> Option<Cause>;

    /// Returns the part of an error that may be shown: its code, and its message unless the message
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

/// The value of a column in a made-up row, as SQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sample {
    /// An SQL expression of the column's type.
    Of(String),
    /// SQL expressions of other types, which a correct field rejects. They are used if no expression
    /// without a table has the column's type. If a field can read one of them, it can't read the
    /// column.
    OfOtherTypes(&'static [&'static str]),
}

impl Sample {
    /// Creates a sample from an SQL expression of the column's type.
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
    /// Whether a proxy may run each transaction on another connection to the database.
    pub transaction_pooling: bool,
}

impl Settings {
    /// Returns the options of a pool. A connection that was idle for a second is tested before it
    /// is used.
    pub fn pool<DB: Driver>(&self) -> PoolOptions<DB> {
        let ping_timeout = self.timeout / 4;
        PoolOptions::new()
            .max_connections(self.max_connections)
            .acquire_timeout(self.timeout)
            .test_before_acquire(false)
            .before_acquire(move |connection: &mut DB::Connection, meta| {
                Box::pin(async move {
                    if meta.idle_for < Duration::from_secs(1) {
                        return Ok(true);
                    }
                    // If the connection never responds, for example over a broken network, there
                    // must be time left to try another connection.
                    let result = tokio::time::timeout(ping_timeout, connection.ping()).await;
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
    /// The pool for calls that write. It is the same pool as `reads` if the database allows many
    /// writers.
    pub writes: Pool<DB>,
    /// A value that is dropped together with the store.
    pub keeper: Option<Arc<dyn Any + Send + Sync>>,
}

impl<DB: Database> Pools<DB> {
    /// Uses one pool for reads and writes.
    pub fn one(pool: Pool<DB>) -> Self {
        Self { reads: pool.clone(), writes: pool, keeper: None }
    }
}
