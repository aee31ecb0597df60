//! A connection for the time of one call.

use std::time::Duration;

use futures_core::future::BoxFuture;
use sqlx::pool::PoolConnection;
use sqlx::{Connection, Error, Pool, SqlStr};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout, timeout_at};
use tower_keep_core::StoreErrorKind;

use crate::dialect::{ArgumentsOf, ConnectionOf, RowOf, TypeOf};
use crate::driver::Shape;
use crate::error::Fault;
use crate::statement::Statement;
use crate::{Dialect, Driver};

/// How long a connection may take to become usable again after a call that was dropped.
const TIDYING: Duration = Duration::from_secs(5);

/// A connection, until a deadline.
///
/// Dropped in the middle, as when a request is cancelled, it is brought back to order behind the
/// caller's back, or closed: what an open transaction has written is gone.
pub(crate) struct Lease<D: Dialect> {
    connection: Option<PoolConnection<D::Database>>,
    deadline: Instant,
    /// Whether statements are kept prepared.
    keeps: bool,
    is_busy: bool,
    is_open: bool,
}

impl<D: Dialect> Lease<D> {
    /// A connection from the pool; with `tested`, one that answers.
    pub(crate) async fn take(
        pool: &Pool<D::Database>,
        deadline: Instant,
        keeps: bool,
        tested: bool,
    ) -> Result<Self, Fault> {
        loop {
            let taken = timeout_at(deadline, pool.acquire()).await;
            let taken = taken.unwrap_or(Err(Error::PoolTimedOut));
            let connection = Some(taken.map_err(Fault::of::<D>)?);
            let mut lease = Self { connection, deadline, keeps, is_busy: false, is_open: false };
            if !tested {
                return Ok(lease);
            }
            match lease.work(|connection| Box::pin(connection.ping())).await {
                Err(fault) if fault.is_end_of_connection() => {}
                answer => return answer.map(|()| lease),
            }
        }
    }

    /// Does something with the connection, in time.
    async fn work<T>(
        &mut self,
        work: impl FnOnce(&mut ConnectionOf<D>) -> BoxFuture<'_, Result<T, Error>>,
    ) -> Result<T, Fault> {
        let Some(connection) = self.connection.as_deref_mut() else {
            return Err(Fault::of::<D>(Error::WorkerCrashed));
        };
        self.is_busy = true;
        let done = timeout_at(self.deadline, work(connection)).await;
        self.is_busy = false;
        let fault = match done {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => Fault::of::<D>(error),
            Err(_) => {
                let words = "the database did not answer in time";
                let fault = Fault::new(StoreErrorKind::Timeout, words);
                // Nobody knows when it will.
                self.close();
                fault
            }
        };
        if fault.is_end_of_connection() {
            self.close();
        }
        Err(fault)
    }

    /// The connection is dropped without a farewell, and the pool may open another.
    fn close(&mut self) {
        self.is_open = false;
        drop(self.connection.take().map(PoolConnection::detach));
    }

    /// Runs a statement that answers rows.
    pub(crate) async fn rows(
        &mut self,
        statement: &Statement<D>,
        arguments: Result<ArgumentsOf<D>, Error>,
    ) -> Result<Vec<RowOf<D>>, Fault> {
        let (sql, arguments, keeps) = self.question(statement, arguments)?;
        self.work(|connection| D::Database::rows(connection, sql, arguments, keeps)).await
    }

    /// Runs a statement that answers one row, or none.
    pub(crate) async fn row(
        &mut self,
        statement: &Statement<D>,
        arguments: Result<ArgumentsOf<D>, Error>,
    ) -> Result<Option<RowOf<D>>, Fault> {
        let (sql, arguments, keeps) = self.question(statement, arguments)?;
        self.work(|connection| D::Database::row(connection, sql, arguments, keeps)).await
    }

    /// Runs a statement that changes rows, and answers how many.
    pub(crate) async fn run(
        &mut self,
        statement: &Statement<D>,
        arguments: Result<ArgumentsOf<D>, Error>,
    ) -> Result<u64, Fault> {
        let (sql, arguments, keeps) = self.question(statement, arguments)?;
        let done = self.work(|connection| D::Database::run(connection, sql, arguments, keeps));
        done.await.map(|result| D::changed(&result))
    }

    /// The text, the parameters, and whether to keep it prepared.
    fn question(
        &self,
        statement: &Statement<D>,
        arguments: Result<ArgumentsOf<D>, Error>,
    ) -> Result<(SqlStr, ArgumentsOf<D>, bool), Fault> {
        let arguments = arguments.map_err(Fault::of::<D>)?;
        Ok((statement.sql(), arguments, self.keeps && statement.is_kept()))
    }

    pub(crate) async fn script(&mut self, sql: String) -> Result<(), Fault> {
        self.work(|connection| D::Database::script(connection, sql)).await
    }

    /// Has the database read a statement, and not run it.
    pub(crate) async fn read(
        &mut self,
        statement: &Statement<D>,
        parameters: Vec<TypeOf<D>>,
    ) -> Result<Shape<D::Database>, Fault> {
        let sql = statement.sql();
        self.work(|connection| D::Database::read(connection, sql, parameters)).await
    }

    /// Begins a transaction, with [`Dialect::begin`].
    pub(crate) async fn begin(&mut self, sql: String) -> Result<(), Fault> {
        self.is_open = true;
        self.script(sql).await
    }

    /// Makes the transaction's changes lasting, if there is one. Whether a lost answer was a yes is not
    /// known.
    pub(crate) async fn finish(mut self) -> Result<(), Fault> {
        if !self.is_open {
            return Ok(());
        }
        let done = self.script("COMMIT".to_owned()).await;
        self.is_open &= done.is_err();
        done.map_err(Fault::unsure)
    }
}

impl<D: Dialect> Drop for Lease<D> {
    fn drop(&mut self) {
        let (is_open, is_used) = (self.is_open, self.is_busy || self.is_open);
        let Some(mut connection) = self.connection.take().filter(|_| is_used) else { return };
        let Ok(runtime) = Handle::try_current() else { return drop(connection.detach()) };
        if self.is_busy && !D::RECOVERS {
            return drop(connection.detach());
        }
        runtime.spawn(async move {
            let tidied = async {
                if is_open {
                    D::Database::script(&mut connection, "ROLLBACK".to_owned()).await
                } else {
                    connection.ping().await
                }
            };
            match timeout(TIDYING, tidied).await {
                // A database's own error is that there was no transaction any more.
                Ok(Ok(()) | Err(Error::Database(_))) => {}
                _ => drop(connection.detach()),
            }
        });
    }
}
