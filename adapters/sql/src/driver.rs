//! The part of sqlx that the adapters need, for any database that sqlx supports.

use futures_core::future::BoxFuture;
use sqlx::database::HasStatementCache;
use sqlx::{
    Arguments as _, AssertSqlSafe, Column as _, ColumnIndex, Database, Decode, Either, Encode,
    Executor, IntoArguments, Row as _, SqlStr, Statement as _, Type, ValueRef as _,
};
use tower_keep_core::{SessionKey, Timestamp};

/// A database of sqlx, without the trait bounds that generic code over sqlx repeats everywhere.
///
/// This crate implements it for every database whose rows can hold the types that these methods
/// read. Don't implement it yourself.
pub trait Driver: Database {
    /// Adds a parameter to the arguments of a statement.
    #[doc(hidden)]
    fn bind(arguments: &mut Self::Arguments, value: Value<'_>) -> Result<(), sqlx::Error>;

    /// Returns the number in a column, or `None` if it is null.
    #[doc(hidden)]
    fn int(row: &Self::Row, column: usize) -> Result<Option<i64>, sqlx::Error>;

    /// Returns the text in a column, even if the column's type is binary, or `None` if it is null.
    #[doc(hidden)]
    fn text(row: &Self::Row, column: usize) -> Result<Option<String>, sqlx::Error>;

    /// Returns the bytes in a column, or `None` if it is null.
    #[doc(hidden)]
    fn bytes(row: &Self::Row, column: usize) -> Result<Option<Vec<u8>>, sqlx::Error>;

    /// Returns the boolean in a column, or `None` if it is null.
    #[doc(hidden)]
    fn flag(row: &Self::Row, column: usize) -> Result<Option<bool>, sqlx::Error>;

    /// Checks whether a column is null.
    #[doc(hidden)]
    fn is_null(row: &Self::Row, column: usize) -> Result<bool, sqlx::Error>;

    /// Returns the number of columns in a row.
    #[doc(hidden)]
    fn width(row: &Self::Row) -> usize;

    /// Runs a statement that returns rows.
    #[doc(hidden)]
    fn rows(
        connection: &mut Self::Connection,
        sql: SqlStr,
        arguments: Self::Arguments,
        persistent: bool,
    ) -> BoxFuture<'_, Result<Vec<Self::Row>, sqlx::Error>>;

    /// Runs a statement that returns one row or none.
    #[doc(hidden)]
    fn row(
        connection: &mut Self::Connection,
        sql: SqlStr,
        arguments: Self::Arguments,
        persistent: bool,
    ) -> BoxFuture<'_, Result<Option<Self::Row>, sqlx::Error>>;

    /// Runs a statement that changes data.
    #[doc(hidden)]
    fn run(
        connection: &mut Self::Connection,
        sql: SqlStr,
        arguments: Self::Arguments,
        persistent: bool,
    ) -> BoxFuture<'_, Result<Self::QueryResult, sqlx::Error>>;

    /// Runs statements that have no parameters, without preparing them.
    #[doc(hidden)]
    fn script(
        connection: &mut Self::Connection,
        sql: String,
    ) -> BoxFuture<'_, Result<(), sqlx::Error>>;

    /// Prepares a statement with parameters of these types. Returns its columns and its number of
    /// parameters.
    #[doc(hidden)]
    fn describe(
        connection: &mut Self::Connection,
        sql: SqlStr,
        parameters: Vec<Self::TypeInfo>,
    ) -> BoxFuture<'_, Result<Shape<Self>, sqlx::Error>>;

    /// Returns the type of a text column.
    #[doc(hidden)]
    fn text_type() -> Self::TypeInfo;
}

/// The number of a statement's parameters and the columns that it returns.
#[doc(hidden)]
pub struct Shape<DB: Database> {
    /// The columns' names and types.
    pub columns: Vec<(String, DB::TypeInfo)>,
    /// The number of parameters.
    pub parameters: usize,
}

/// The value of a statement's parameter.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    /// A number, or a time in seconds.
    Int(Option<i64>),
    /// A text.
    Text(Option<&'a str>),
    /// Bytes.
    Bytes(Option<&'a [u8]>),
    /// A boolean.
    Flag(bool),
}

impl From<u32> for Value<'_> {
    fn from(number: u32) -> Self {
        Self::Int(Some(number.into()))
    }
}

/// Converts a maximum number of rows. Databases count in `i64`, so a greater number becomes
/// `i64::MAX`.
impl From<usize> for Value<'_> {
    fn from(number: usize) -> Self {
        Self::Int(Some(i64::try_from(number).unwrap_or(i64::MAX)))
    }
}

impl From<Timestamp> for Value<'_> {
    fn from(time: Timestamp) -> Self {
        time.as_secs().into()
    }
}

impl From<Option<Timestamp>> for Value<'_> {
    fn from(time: Option<Timestamp>) -> Self {
        Self::Int(time.map(|time| time.as_secs().into()))
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Some(text))
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(Some(bytes))
    }
}

impl<'a> From<&'a SessionKey> for Value<'a> {
    fn from(key: &'a SessionKey) -> Self {
        key.as_bytes()[..].into()
    }
}

impl<DB> Driver for DB
where
    DB: Database + HasStatementCache,
    DB::Arguments: IntoArguments<DB>,
    usize: ColumnIndex<DB::Row>,
    i64: Type<DB> + for<'r> Decode<'r, DB>,
    bool: Type<DB> + for<'r> Decode<'r, DB> + for<'q> Encode<'q, DB>,
    String: Type<DB> + for<'r> Decode<'r, DB>,
    Vec<u8>: Type<DB> + for<'r> Decode<'r, DB>,
    Option<i64>: for<'q> Encode<'q, DB>,
    for<'q> Option<&'q str>: Type<DB> + Encode<'q, DB>,
    for<'q> Option<&'q [u8]>: Type<DB> + Encode<'q, DB>,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    fn bind(arguments: &mut DB::Arguments, value: Value<'_>) -> Result<(), sqlx::Error> {
        let added = match value {
            Value::Int(number) => arguments.add(number),
            Value::Text(text) => arguments.add(text),
            Value::Bytes(bytes) => arguments.add(bytes),
            Value::Flag(flag) => arguments.add(flag),
        };
        added.map_err(sqlx::Error::Encode)
    }

    fn int(row: &DB::Row, column: usize) -> Result<Option<i64>, sqlx::Error> {
        row.try_get(column)
    }

    fn text(row: &DB::Row, column: usize) -> Result<Option<String>, sqlx::Error> {
        // On MySQL, text that is compared byte by byte is in columns of a binary type, which a
        // checked read of a `String` rejects.
        row.try_get_unchecked(column)
    }

    fn bytes(row: &DB::Row, column: usize) -> Result<Option<Vec<u8>>, sqlx::Error> {
        row.try_get(column)
    }

    fn flag(row: &DB::Row, column: usize) -> Result<Option<bool>, sqlx::Error> {
        row.try_get(column)
    }

    fn is_null(row: &DB::Row, column: usize) -> Result<bool, sqlx::Error> {
        row.try_get_raw(column).map(|value| value.is_null())
    }

    fn width(row: &DB::Row) -> usize {
        row.len()
    }

    fn rows(
        connection: &mut DB::Connection,
        sql: SqlStr,
        arguments: DB::Arguments,
        persistent: bool,
    ) -> BoxFuture<'_, Result<Vec<DB::Row>, sqlx::Error>> {
        connection.fetch_all(sqlx::query_with(sql, arguments).persistent(persistent))
    }

    fn row(
        connection: &mut DB::Connection,
        sql: SqlStr,
        arguments: DB::Arguments,
        persistent: bool,
    ) -> BoxFuture<'_, Result<Option<DB::Row>, sqlx::Error>> {
        connection.fetch_optional(sqlx::query_with(sql, arguments).persistent(persistent))
    }

    fn run(
        connection: &mut DB::Connection,
        sql: SqlStr,
        arguments: DB::Arguments,
        persistent: bool,
    ) -> BoxFuture<'_, Result<DB::QueryResult, sqlx::Error>> {
        connection.execute(sqlx::query_with(sql, arguments).persistent(persistent))
    }

    fn script(
        connection: &mut DB::Connection,
        sql: String,
    ) -> BoxFuture<'_, Result<(), sqlx::Error>> {
        let done = connection.execute(sqlx::raw_sql(AssertSqlSafe(sql)));
        Box::pin(async { done.await.map(drop) })
    }

    fn describe(
        connection: &mut DB::Connection,
        sql: SqlStr,
        parameters: Vec<DB::TypeInfo>,
    ) -> BoxFuture<'_, Result<Shape<DB>, sqlx::Error>> {
        Box::pin(async move {
            let prepared = connection.prepare_with(sql, &parameters).await?;
            let parameters = match prepared.parameters() {
                Some(Either::Left(types)) => types.len(),
                Some(Either::Right(count)) => count,
                None => parameters.len(),
            };
            let columns = prepared.columns().iter();
            let columns =
                columns.map(|column| (column.name().to_owned(), column.type_info().clone()));
            Ok(Shape { columns: columns.collect(), parameters })
        })
    }

    fn text_type() -> DB::TypeInfo {
        Option::<&str>::type_info()
    }
}
