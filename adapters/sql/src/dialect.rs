//! How one database differs from the others.

use std::future::Future;
use std::time::Duration;

use sqlx::Database;
use sqlx::error::DatabaseError;

use crate::cause::Cause;
use crate::driver::Driver;
use crate::names::Names;
use crate::pools::{Pools, Settings};

/// Describes how a database differs from the others. Each adapter implements it for its database.
///
/// A default is what most databases need, or a choice that is safe on all of them. A dialect can
/// also implement [`Schemas`] and [`TransactionPooling`], if its database has these.
///
/// The store replaces the parameters `$1`, `$2` and so on in [`PURGE`](Self::PURGE) and
/// [`PURGE_EARLIER_EPOCHS`](Self::PURGE_EARLIER_EPOCHS), and the tables' names, such as
/// `{sessions}`. It runs the SQL of [`begin`](Self::begin),
/// [`migrations_begin`](Self::migrations_begin) and [`migrations_end`](Self::migrations_end) as it
/// is. If these need a table's name, they call [`Names::fill`].
pub trait Dialect: Send + Sync + Sized + 'static {
    /// The database's type in sqlx.
    type Database: Driver;

    /// The database's name in errors.
    const NAME: &'static str;

    /// The contents of the files in `migrations`, the oldest first. Each is a script that ends by
    /// inserting its version into `keep_versions`. Together they create the tables and columns that
    /// the migrations of the other adapters create. The store replaces `keep_` with the prefix of
    /// its tables' names.
    const MIGRATIONS: &'static [&'static str];

    /// Whether an `UPDATE` can return the rows that it changed, with a `RETURNING` clause. If not,
    /// the store needs a transaction and a second statement to rotate a session.
    const RETURNING: bool = false;

    /// Whether a connection can be used again after a call on it was dropped before it finished. If
    /// not, the store closes the connection, because the next statement could get the rest of the
    /// reply to the dropped call.
    const RECOVERS: bool = false;

    /// The SQL function that returns the greater of two numbers. Neither of them is null.
    const GREATEST: &'static str = "GREATEST";

    /// The end of a `SELECT` that locks its rows: no other transaction can change them until this
    /// transaction ends. It is empty if the database has only one writer at a time.
    const FOR_UPDATE: &'static str = " FOR UPDATE";

    /// The statement that removes at most `$2` rows of the table `{table}` that have expired at the
    /// time `$1`. The store replaces `{key}` with the name of the table's primary key.
    const PURGE: &'static str;

    /// The statement that removes at most `$3` sessions of the user `$1`: those of an epoch before
    /// `$2` that have not ended individually. A user's [epoch](tower_keep_core::Epoch) is a number
    /// that is raised to end all of the user's sessions.
    const PURGE_EARLIER_EPOCHS: &'static str;

    /// Returns the placeholder of the parameter with this number, counted from one. If it is the
    /// same for all numbers, the store binds a value as often as the statement uses it.
    fn placeholder(number: usize) -> String;

    /// Returns a name, quoted in the syntax of this database. By default, it is in double quotes,
    /// as in standard SQL.
    fn quoted(name: &str) -> String {
        format!("\"{}\"", name.replace('"', "\"\""))
    }

    /// Returns a value of this column type, for a made-up row. When a store is opened, the user
    /// type reads such rows, to check whether it can read the columns.
    fn sample(column_type: &<Self::Database as Database>::TypeInfo) -> Sample;

    /// Checks whether this database can store a text as an id or as a login name. If not, the text
    /// belongs to no user, and inserting it is an error.
    fn can_store(text: &str) -> bool;

    /// Returns the number of rows that a statement changed.
    fn changed(result: &<Self::Database as Database>::QueryResult) -> u64;

    /// Returns the meaning of an error of this database, or `None` if the dialect does not know the
    /// error. The store recognizes a violated unique constraint itself, and takes any other error
    /// for a database that is unavailable.
    fn cause(error: &dyn DatabaseError) -> Option<Cause>;

    /// Returns the part of an error that may be shown: its code, and its message unless the message
    /// contains stored data.
    fn safe_message(error: &dyn DatabaseError) -> String;

    /// Returns the SQL that begins a transaction in which each statement sees what was committed
    /// before the statement began. Transactions with the same `user_lock` wait for each other; it
    /// is a number that the store derives from a user's id. The server aborts a statement that
    /// takes longer than `patience`, if the server has a setting for that.
    fn begin(user_lock: Option<u16>, names: &Names, patience: Duration) -> String;

    /// Returns the SQL that begins the migrations. If another node is running migrations, the SQL
    /// waits until that node has finished. If `names` has a schema, the SQL selects it, because
    /// migrations name their tables without one.
    fn migrations_begin(names: &Names) -> String;

    /// Returns the SQL that ends the migrations. By default, it commits the transaction that
    /// [`migrations_begin`](Self::migrations_begin) began.
    fn migrations_end(_names: &Names) -> String {
        "COMMIT".to_owned()
    }

    /// Opens the database at a URL, with pools that have the options of [`Settings::pool`]. If the
    /// server can abort its statements, it does so after [`Settings::patience`].
    fn open(
        url: &str,
        settings: &Settings,
    ) -> impl Future<Output = Result<Pools<Self::Database>, sqlx::Error>> + Send;
}

/// A dialect whose tables can be in a schema. Its stores have
/// [`with_schema`](crate::SqlStoreBuilder::with_schema).
///
/// [`Dialect::migrations_begin`] selects the schema that [`Names::schema`] returns.
pub trait Schemas: Dialect {}

/// A dialect that can work through a proxy that gives each transaction another connection. Its
/// stores have [`with_transaction_pooling`](crate::SqlStoreBuilder::with_transaction_pooling).
///
/// In [`Dialect::open`], [`Settings::has_transaction_pooling`] says whether there is a proxy.
pub trait TransactionPooling: Dialect {
    /// The statement that removes a connection's prepared statements. The store runs it before and
    /// after it checks the application's statements, because the proxy passes the connection from
    /// one client to another.
    const FORGET: &'static str;
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
    /// Two SQL expressions of the column's type with different values. The database pads the values
    /// in such a column with spaces, so no user is found by an id from it. With the two values, the
    /// store checks whether the user's id is read from the column, which is an error.
    Padded([&'static str; 2]),
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
