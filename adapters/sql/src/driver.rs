//! The part of sqlx that this crate needs, for any database that sqlx supports.

use futures_core::future::BoxFuture;
use sqlx::database::HasStatementCache;
use sqlx::{
    Arguments as _, AssertSqlSafe, Column as _, ColumnIndex, Database, Decode, Either, Encode,
    Executor, IntoArguments, Row as _, SqlStr, Statement as _, Type, ValueRef as _,
};

use crate::value::Value;

/// A database of sqlx.
///
/// This crate implements it for every database of sqlx whose rows can hold texts, bytes, booleans
/// and `i64` numbers. It can't be implemented elsewhere.
pub trait Driver: Operations {}

impl<DB: Operations> Driver for DB {}

/// What this crate does with a database of sqlx. Generic code would otherwise have to repeat many
/// trait bounds.
pub trait Operations: Database {
    /// Adds a parameter to the arguments of a statement.
    fn bind(arguments: &mut Self::Arguments, value: Value<'_>) -> Result<(), sqlx::Error>;

    /// Returns the number in a column, or `None` if it is null.
    fn int(row: &Self::Row, column: usize) -> Result<Option<i64>, sqlx::Error>;

    /// Returns the text in a column, even if the column's type is binary, or `None` if it is null.
    fn text(row: &Self::Row, column: usize) -> Result<Option<String>, sqlx::Error>;

    /// Returns the bytes in a column, or `None` if it is null.
    fn bytes(row: &Self::Row, column: usize) -> Result<Option<Vec<u8>>, sqlx::Error>;

    /// Returns the boolean in a column, or `None` if it is null.
    fn flag(row: &Self::Row, column: usize) -> Result<Option<bool>, sqlx::Error>;

    /// Checks whether a column is null.
    fn is_null(row: &Self::Row, column: usize) -> Result<bool, sqlx::Error>;

    /// Returns the number of columns in a row.
    fn width(row: &Self::Row) -> usize;

    /// Runs a statement that returns rows.
    fn rows(
        connection: &mut Self::Connection,
        query: Query<Self>,
    ) -> BoxFuture<'_, Result<Vec<Self::Row>, sqlx::Error>>;

    /// Runs a statement that returns one row or none.
    fn row(
        connection: &mut Self::Connection,
        query: Query<Self>,
    ) -> BoxFuture<'_, Result<Option<Self::Row>, sqlx::Error>>;

    /// Runs a statement that changes data.
    fn run(
        connection: &mut Self::Connection,
        query: Query<Self>,
    ) -> BoxFuture<'_, Result<Self::QueryResult, sqlx::Error>>;

    /// Runs statements that have no parameters, without preparing them.
    fn script(
        connection: &mut Self::Connection,
        sql: String,
    ) -> BoxFuture<'_, Result<(), sqlx::Error>>;

    /// Prepares a statement with parameters of these types. Returns its columns and its number of
    /// parameters.
    fn describe(
        connection: &mut Self::Connection,
        sql: SqlStr,
        parameters: Vec<Self::TypeInfo>,
    ) -> BoxFuture<'_, Result<Shape<Self>, sqlx::Error>>;

    /// Returns the type of a text column.
    fn text_type() -> Self::TypeInfo;
}

/// A statement with its arguments.
pub struct Query<DB: Database> {
    /// The statement.
    pub sql: SqlStr,
    /// The values of the statement's parameters.
    pub arguments: DB::Arguments,
    /// Whether the connection keeps the statement prepared.
    pub is_persistent: bool,
}

impl<DB: Database + HasStatementCache> Query<DB>
where
    DB::Arguments: IntoArguments<DB>,
{
    fn into_sqlx(self) -> sqlx::query::Query<'static, DB, DB::Arguments> {
        sqlx::query_with(self.sql, self.arguments).persistent(self.is_persistent)
    }
}

/// The number of a statement's parameters and the columns that it returns.
pub struct Shape<DB: Database> {
    /// The columns' names and types.
    pub columns: Vec<(String, DB::TypeInfo)>,
    /// The number of parameters.
    pub parameters: usize,
}

impl<DB> Operations for DB
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
        query: Query<DB>,
    ) -> BoxFuture<'_, Result<Vec<DB::Row>, sqlx::Error>> {
        connection.fetch_all(query.into_sqlx())
    }

    fn row(
        connection: &mut DB::Connection,
        query: Query<DB>,
    ) -> BoxFuture<'_, Result<Option<DB::Row>, sqlx::Error>> {
        connection.fetch_optional(query.into_sqlx())
    }

    fn run(
        connection: &mut DB::Connection,
        query: Query<DB>,
    ) -> BoxFuture<'_, Result<DB::QueryResult, sqlx::Error>> {
        connection.execute(query.into_sqlx())
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
