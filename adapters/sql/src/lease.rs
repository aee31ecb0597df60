//! A connection that is taken from the pool for one call.

use std::time::Duration;

use futures_core::future::BoxFuture;
use sqlx::pool::PoolConnection;
use sqlx::{Connection, Pool};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout, timeout_at};
use tower_keep_core::StoreErrorKind;

use crate::dialect::{ArgumentsOf, ConnectionOf, Dialect, RowOf, TypeOf};
use crate::driver::{Operations, Query, Shape};
use crate::error::Error;
use crate::statements::Statement;

/// The maximum duration of making a connection usable again after a call on it was dropped.
const RESET_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that can be used until a deadline.
///
/// If the lease is dropped in the middle of a call, for example because the request was cancelled,
/// a background task makes the connection usable again, or the connection is closed. An open
/// transaction is rolled back.
pub(crate) struct Lease<D: Dialect> {
    connection: Option<PoolConnection<D::Database>>,
    deadline: Instant,
    /// Whether statements are kept prepared.
    persistent: bool,
    /// Whether a call on the connection is running.
    is_busy: bool,
    /// Whether a transaction is open.
    in_transaction: bool,
}

impl<D: Dialect> Lease<D> {
    /// Takes a connection from the pool. If `with_ping` is true, takes a connection that responds
    /// to a ping.
    pub(crate) async fn take(
        pool: &Pool<D::Database>,
        deadline: Instant,
        persistent: bool,
        with_ping: bool,
    ) -> Result<Self, Error> {
        loop {
            let taken = timeout_at(deadline, pool.acquire()).await;
            let taken = taken.unwrap_or(Err(sqlx::Error::PoolTimedOut));
            let connection = Some(taken.map_err(Error::of::<D>)?);
            let mut lease =
                Self { connection, deadline, persistent, is_busy: false, in_transaction: false };
            if !with_ping {
                return Ok(lease);
            }
            match lease.run_until_deadline(|connection| Box::pin(connection.ping())).await {
                Err(error) if error.is_end_of_connection() => {}
                result => return result.map(|()| lease),
            }
        }
    }

    /// Runs `work` on the connection, until the deadline.
    async fn run_until_deadline<T>(
        &mut self,
        work: impl FnOnce(&mut ConnectionOf<D>) -> BoxFuture<'_, Result<T, sqlx::Error>>,
    ) -> Result<T, Error> {
        let Some(connection) = self.connection.as_deref_mut() else {
            return Err(Error::of::<D>(sqlx::Error::WorkerCrashed));
        };
        self.is_busy = true;
        let done = timeout_at(self.deadline, work(connection)).await;
        self.is_busy = false;
        let error = match done {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => Error::of::<D>(error),
            Err(_) => {
                // A late reply must not become the reply to the next statement.
                self.close();
                Error::new(StoreErrorKind::Timeout, "the database did not respond in time")
            }
        };
        if error.is_end_of_connection() {
            self.close();
        }
        Err(error)
    }

    /// Closes the connection without telling the server. The pool may then open another connection.
    fn close(&mut self) {
        self.in_transaction = false;
        drop(self.connection.take().map(PoolConnection::detach));
    }

    /// Runs a statement that returns rows.
    pub(crate) async fn rows(
        &mut self,
        statement: &Statement<D>,
        arguments: Result<ArgumentsOf<D>, sqlx::Error>,
    ) -> Result<Vec<RowOf<D>>, Error> {
        let query = self.query(statement, arguments)?;
        self.run_until_deadline(|connection| D::Database::rows(connection, query)).await
    }

    /// Runs a statement that returns one row or none.
    pub(crate) async fn row(
        &mut self,
        statement: &Statement<D>,
        arguments: Result<ArgumentsOf<D>, sqlx::Error>,
    ) -> Result<Option<RowOf<D>>, Error> {
        let query = self.query(statement, arguments)?;
        self.run_until_deadline(|connection| D::Database::row(connection, query)).await
    }

    /// Runs a statement that changes rows, and returns the number of changed rows.
    pub(crate) async fn run(
        &mut self,
        statement: &Statement<D>,
        arguments: Result<ArgumentsOf<D>, sqlx::Error>,
    ) -> Result<u64, Error> {
        let query = self.query(statement, arguments)?;
        let done = self.run_until_deadline(|connection| D::Database::run(connection, query));
        done.await.map(|result| D::changed(&result))
    }

    /// Joins a statement and its arguments.
    fn query(
        &self,
        statement: &Statement<D>,
        arguments: Result<ArgumentsOf<D>, sqlx::Error>,
    ) -> Result<Query<D::Database>, Error> {
        let arguments = arguments.map_err(Error::of::<D>)?;
        let is_persistent = self.persistent && statement.is_persistent();
        Ok(Query { sql: statement.sql(), arguments, is_persistent })
    }

    /// Runs statements that have no parameters, without preparing them.
    pub(crate) async fn script(&mut self, sql: String) -> Result<(), Error> {
        self.run_until_deadline(|connection| D::Database::script(connection, sql)).await
    }

    /// Prepares a statement without running it, and returns its columns and its number of
    /// parameters.
    pub(crate) async fn describe(
        &mut self,
        statement: &Statement<D>,
        parameters: Vec<TypeOf<D>>,
    ) -> Result<Shape<D::Database>, Error> {
        let sql = statement.sql();
        self.run_until_deadline(|connection| D::Database::describe(connection, sql, parameters))
            .await
    }

    /// Begins a transaction with the SQL that [`Dialect::begin`] returned.
    pub(crate) async fn begin(&mut self, sql: String) -> Result<(), Error> {
        self.in_transaction = true;
        self.script(sql).await
    }

    /// Commits the transaction, if there is one. If the reply is lost, it is not known whether the
    /// commit took place.
    pub(crate) async fn finish(mut self) -> Result<(), Error> {
        if !self.in_transaction {
            return Ok(());
        }
        let done = self.script("COMMIT".to_owned()).await;
        self.in_transaction &= done.is_err();
        done.map_err(Error::during_write)
    }
}

impl<D: Dialect> Drop for Lease<D> {
    fn drop(&mut self) {
        let in_transaction = self.in_transaction;
        let needs_reset = self.is_busy || in_transaction;
        let Some(mut connection) = self.connection.take().filter(|_| needs_reset) else { return };
        let Ok(runtime) = Handle::try_current() else { return drop(connection.detach()) };
        if self.is_busy && !D::RECOVERS {
            return drop(connection.detach());
        }
        runtime.spawn(async move {
            let reset = async {
                if in_transaction {
                    D::Database::script(&mut connection, "ROLLBACK".to_owned()).await
                } else {
                    connection.ping().await
                }
            };
            match timeout(RESET_TIMEOUT, reset).await {
                // If the database itself responds with an error, there was no transaction any more.
                Ok(Ok(()) | Err(sqlx::Error::Database(_))) => {}
                _ => drop(connection.detach()),
            }
        });
    }
}
