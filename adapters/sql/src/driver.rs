//! What the adapters need of sqlx, for any of its databases.

use futures_core::future::BoxFuture;
use sqlx::database::HasStatementCache;
use sqlx::{
    Arguments as _, AssertSqlSafe, Column as _, ColumnIndex, Database, Decode, Either, Encode,
    Error, Executor, IntoArguments, Row as _, SqlStr, Statement as _, Type, ValueRef as _,
};
use tower_keep_core::{SessionKey, Timestamp};

/// A database of sqlx, without the bounds that its generic code repeats everywhere.
///
/// Every database whose rows hold these types has it; nobody implements it.
pub trait Driver: Database {
    /// Adds a parameter.
    #[doc(hidden)]
    fn bind(arguments: &mut Self::Arguments, value: Value<'_>) -> Result<(), Error>;

    /// A number.
    #[doc(hidden)]
    fn int(row: &Self::Row, column: usize) -> Result<Option<i64>, Error>;

    /// A text, or bytes that are one.
    #[doc(hidden)]
    fn text(row: &Self::Row, column: usize) -> Result<Option<String>, Error>;

    /// Bytes.
    #[doc(hidden)]
    fn bytes(row: &Self::Row, column: usize) -> Result<Option<Vec<u8>>, Error>;

    /// Yes or no.
    #[doc(hidden)]
    fn flag(row: &Self::Row, column: usize) -> Result<Option<bool>, Error>;

    /// Whether there is nothing in a column.
    #[doc(hidden)]
    fn is_null(row: &Self::Row, column: usize) -> Result<bool, Error>;

    /// How many columns a row has.
    #[doc(hidden)]
    fn width(row: &Self::Row) -> usize;

    /// Runs a statement that answers rows.
    #[doc(hidden)]
    fn rows(
        connection: &mut Self::Connection,
        sql: SqlStr,
        arguments: Self::Arguments,
        keeps: bool,
    ) -> BoxFuture<'_, Result<Vec<Self::Row>, Error>>;

    /// Runs a statement that answers one row, or none.
    #[doc(hidden)]
    fn row(
        connection: &mut Self::Connection,
        sql: SqlStr,
        arguments: Self::Arguments,
        keeps: bool,
    ) -> BoxFuture<'_, Result<Option<Self::Row>, Error>>;

    /// Runs a statement that changes something.
    #[doc(hidden)]
    fn run(
        connection: &mut Self::Connection,
        sql: SqlStr,
        arguments: Self::Arguments,
        keeps: bool,
    ) -> BoxFuture<'_, Result<Self::QueryResult, Error>>;

    /// Runs statements without parameters, unprepared.
    #[doc(hidden)]
    fn script(connection: &mut Self::Connection, sql: String) -> BoxFuture<'_, Result<(), Error>>;

    /// Has the database read a statement with parameters of these types.
    #[doc(hidden)]
    fn read(
        connection: &mut Self::Connection,
        sql: SqlStr,
        parameters: Vec<Self::TypeInfo>,
    ) -> BoxFuture<'_, Result<Shape<Self>, Error>>;

    /// The type of a text.
    #[doc(hidden)]
    fn text_type() -> Self::TypeInfo;
}

/// What a statement takes and answers.
#[doc(hidden)]
pub struct Shape<DB: Database> {
    /// The columns' names and types.
    pub columns: Vec<(String, DB::TypeInfo)>,
    /// How many parameters there are.
    pub parameters: usize,
}

/// A parameter of a statement.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    /// A number, or a time in seconds.
    Int(Option<i64>),
    /// A text.
    Text(Option<&'a str>),
    /// Bytes.
    Bytes(Option<&'a [u8]>),
    /// Yes or no.
    Flag(bool),
}

impl From<u32> for Value<'_> {
    fn from(number: u32) -> Self {
        Self::Int(Some(number.into()))
    }
}

/// How many at most; a database counts in `i64`.
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
    fn bind(arguments: &mut DB::Arguments, value: Value<'_>) -> Result<(), Error> {
        let added = match value {
            Value::Int(number) => arguments.add(number),
            Value::Text(text) => arguments.add(text),
            Value::Bytes(bytes) => arguments.add(bytes),
            Value::Flag(flag) => arguments.add(flag),
        };
        added.map_err(Error::Encode)
    }

    fn int(row: &DB::Row, column: usize) -> Result<Option<i64>, Error> {
        row.try_get(column)
    }

    fn text(row: &DB::Row, column: usize) -> Result<Option<String>, Error> {
        // MySQL keeps as bytes what is compared as bytes.
        row.try_get_unchecked(column)
    }

    fn bytes(row: &DB::Row, column: usize) -> Result<Option<Vec<u8>>, Error> {
        row.try_get(column)
    }

    fn flag(row: &DB::Row, column: usize) -> Result<Option<bool>, Error> {
        row.try_get(column)
    }

    fn is_null(row: &DB::Row, column: usize) -> Result<bool, Error> {
        row.try_get_raw(column).map(|value| value.is_null())
    }

    fn width(row: &DB::Row) -> usize {
        row.len()
    }

    fn rows(
        connection: &mut DB::Connection,
        sql: SqlStr,
        arguments: DB::Arguments,
        keeps: bool,
    ) -> BoxFuture<'_, Result<Vec<DB::Row>, Error>> {
        connection.fetch_all(sqlx::query_with(sql, arguments).persistent(keeps))
    }

    fn row(
        connection: &mut DB::Connection,
        sql: SqlStr,
        arguments: DB::Arguments,
        keeps: bool,
    ) -> BoxFuture<'_, Result<Option<DB::Row>, Error>> {
        connection.fetch_optional(sqlx::query_with(sql, arguments).persistent(keeps))
    }

    fn run(
        connection: &mut DB::Connection,
        sql: SqlStr,
        arguments: DB::Arguments,
        keeps: bool,
    ) -> BoxFuture<'_, Result<DB::QueryResult, Error>> {
        connection.execute(sqlx::query_with(sql, arguments).persistent(keeps))
    }

    fn script(connection: &mut DB::Connection, sql: String) -> BoxFuture<'_, Result<(), Error>> {
        let done = connection.execute(sqlx::raw_sql(AssertSqlSafe(sql)));
        Box::pin(async { done.await.map(drop) })
    }

    fn read(
        connection: &mut DB::Connection,
        sql: SqlStr,
        parameters: Vec<DB::TypeInfo>,
    ) -> BoxFuture<'_, Result<Shape<DB>, Error>> {
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
