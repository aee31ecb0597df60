//! The store, and how it asks: in time, and again where that is safe.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_core::future::BoxFuture;
use sqlx::{Database, Error, Pool};
use tokio::time::Instant;
use tower_keep_core::{Account, StoreError, StoreErrorKind, UserId};

use crate::error::Fault;
use crate::lease::Lease;
use crate::statement::{ArgumentsOf, Statement, Statements};
use crate::users::Users;
use crate::{Dialect, Names, Pools};

pub(crate) type RowOf<D> = <<D as Dialect>::Database as Database>::Row;

/// How often a transaction is tried that others were in the way of.
const TRIES: usize = 10;

/// Users and session records in a database.
///
/// A clone is another handle on the same connections. Applications name it by its adapter, such as
/// `SqliteStore`.
pub struct SqlStore<D: Dialect, U = Account> {
    pub(crate) shared: Arc<Shared<D, U>>,
}

pub(crate) struct Shared<D: Dialect, U> {
    pub(crate) pools: Pools<D::Database>,
    pub(crate) timeout: Duration,
    /// Whether each statement needs a transaction around it, so that its parts reach one connection.
    pub(crate) pooled: bool,
    pub(crate) names: Names,
    pub(crate) statements: Statements<D>,
    pub(crate) users: Users<D, U>,
}

impl<D: Dialect, U> Clone for SqlStore<D, U> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

/// Shows nothing of what is stored, and nothing of the connection.
impl<D: Dialect, U> fmt::Debug for SqlStore<D, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlStore").field("database", &D::NAME).finish_non_exhaustive()
    }
}

impl<D: Dialect, U> SqlStore<D, U> {
    /// The connections, for the application's own statements.
    pub fn pool(&self) -> &Pool<D::Database> {
        &self.shared.pools.writes
    }

    pub(crate) fn statements(&self) -> &Statements<D> {
        &self.shared.statements
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.shared.timeout
    }

    async fn reader(&self, deadline: Instant, tested: bool) -> Result<Lease<D>, Fault> {
        Lease::take(&self.shared.pools.reads, deadline, !self.shared.pooled, tested).await
    }

    async fn writer(&self, deadline: Instant, tested: bool) -> Result<Lease<D>, Fault> {
        Lease::take(&self.shared.pools.writes, deadline, !self.shared.pooled, tested).await
    }

    /// Asks for rows; once more if the connection turns out to have died while it was idle.
    pub(crate) async fn rows(
        &self,
        statement: &Statement<D>,
        arguments: impl Fn() -> Result<ArgumentsOf<D>, Error>,
    ) -> Result<Vec<RowOf<D>>, Fault> {
        let deadline = self.deadline();
        let mut tested = false;
        loop {
            let asked = self.rows_once(deadline, tested, statement, arguments());
            match asked.await {
                Err(fault) if !tested && fault.is_lost_before() => tested = true,
                answer => return answer,
            }
        }
    }

    async fn rows_once(
        &self,
        deadline: Instant,
        tested: bool,
        statement: &Statement<D>,
        arguments: Result<ArgumentsOf<D>, Error>,
    ) -> Result<Vec<RowOf<D>>, Fault> {
        let mut lease = self.reader(deadline, tested).await?;
        if !self.shared.pooled {
            return lease.rows(statement, arguments).await;
        }
        lease.begin(D::begin(None, &self.shared.names)).await?;
        let rows = lease.rows(statement, arguments).await?;
        lease.commit().await.map(|()| rows)
    }

    /// The row, if there is one.
    pub(crate) async fn row(
        &self,
        statement: &Statement<D>,
        arguments: impl Fn() -> Result<ArgumentsOf<D>, Error>,
    ) -> Result<Option<RowOf<D>>, Fault> {
        Ok(self.rows(statement, arguments).await?.into_iter().next())
    }

    /// Whether the users can be asked for.
    pub(crate) async fn check_users(&self) -> Result<(), Fault> {
        let mut lease = self.reader(self.deadline(), false).await?;
        if self.shared.pooled {
            lease.begin(D::begin(None, &self.shared.names)).await?;
        }
        self.shared.users.check(&mut lease).await?;
        if self.shared.pooled { lease.commit().await } else { Ok(()) }
    }

    /// Runs one statement that changes rows, once.
    pub(crate) async fn run(
        &self,
        statement: &Statement<D>,
        arguments: Result<ArgumentsOf<D>, Error>,
    ) -> Result<u64, Fault> {
        let mut lease = self.writer(self.deadline(), false).await?;
        if self.shared.pooled {
            lease.begin(D::begin(None, &self.shared.names)).await?;
            let changed = lease.run(statement, arguments).await?;
            return lease.commit().await.map(|()| changed);
        }
        let done = lease.run(statement, arguments).await;
        done.map_err(Fault::unsure)
    }

    /// Runs one statement that answers the row that it changed, once.
    pub(crate) async fn changed_row(
        &self,
        statement: &Statement<D>,
        arguments: Result<ArgumentsOf<D>, Error>,
    ) -> Result<Option<RowOf<D>>, Fault> {
        let mut lease = self.writer(self.deadline(), false).await?;
        if self.shared.pooled {
            lease.begin(D::begin(None, &self.shared.names)).await?;
            let rows = lease.rows(statement, arguments).await?;
            return lease.commit().await.map(|()| rows.into_iter().next());
        }
        let done = lease.rows(statement, arguments).await;
        let rows = done.map_err(Fault::unsure)?;
        Ok(rows.into_iter().next())
    }

    /// Runs a transaction, and again while others are in its way or the connection was dead: nothing
    /// of it is written before it commits.
    pub(crate) async fn transaction<'a, T>(
        &'a self,
        user: Option<&UserId>,
        work: impl Fn(Lease<D>) -> BoxFuture<'a, Result<T, Fault>>,
    ) -> Result<T, Fault> {
        let deadline = self.deadline();
        let user = user.map(number);
        let (mut tries, mut tested) = (1, false);
        loop {
            let attempt = async {
                let mut lease = self.writer(deadline, tested).await?;
                lease.begin(D::begin(user, &self.shared.names)).await?;
                work(lease).await
            };
            match attempt.await {
                Err(fault) if tries < TRIES && fault.is_contended() => tries += 1,
                Err(fault) if !tested && fault.is_lost_before() => tested = true,
                done => return done,
            }
        }
    }
}

/// Which of the locks is this user's: FNV-1a, the same on every node.
fn number(user: &UserId) -> u16 {
    let hash = user.as_bytes().iter().fold(0x811C_9DC5_u32, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    // Both halves count.
    ((hash >> 16) ^ (hash & 0xFFFF)) as u16
}

/// This text can't be kept here.
pub(crate) fn refused(what: &str) -> Fault {
    Fault::new(StoreErrorKind::Unsupported, format!("the database takes no such {what}"))
}

/// What the store answers.
pub(crate) trait Answer<T> {
    fn answer<D: Dialect>(self) -> Result<T, StoreError>;
}

impl<T> Answer<T> for Result<T, Fault> {
    fn answer<D: Dialect>(self) -> Result<T, StoreError> {
        self.map_err(Fault::into_store_error::<D>)
    }
}
