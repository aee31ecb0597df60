//! The store. It runs each statement with a deadline, and tries again if that is safe.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use futures_core::future::BoxFuture;
use sqlx::{Database, Pool};
use tokio::time::Instant;
use tower_keep_core::{Account, UserId};

use crate::dialect::{ArgumentsOf, Dialect, RowOf};
use crate::error::Error;
use crate::lease::Lease;
use crate::names::Names;
use crate::pools::{Pools, Settings};
use crate::statements::{Statement, Statements};
use crate::users::Users;

/// The maximum number of attempts to run a transaction that conflicts with others.
const MAX_ATTEMPTS: usize = 10;

/// A store of users and session records in a database.
///
/// A clone uses the same connections. Applications use the type alias of an adapter, such as
/// `SqliteStore`.
pub struct SqlStore<D: Dialect, U = Account> {
    pub(crate) shared: Arc<Shared<D, U>>,
}

pub(crate) struct Shared<D: Dialect, U> {
    pub(crate) pools: Pools<D::Database>,
    pub(crate) settings: Settings,
    pub(crate) names: Names,
    pub(crate) statements: Statements<D>,
    pub(crate) users: Users<D, U>,
}

impl<D: Dialect, U> Clone for SqlStore<D, U> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

/// Shows neither the stored data nor the connection.
impl<D: Dialect, U> fmt::Debug for SqlStore<D, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlStore").field("database", &D::NAME).finish_non_exhaustive()
    }
}

impl<D: Dialect, U> SqlStore<D, U> {
    /// Returns the pool of connections that write, for the application's own statements.
    ///
    /// SQLite's pool has one connection, so a task that holds it delays every login. PostgreSQL's
    /// connections abort statements that take longer than the timeout.
    pub fn pool(&self) -> &Pool<D::Database> {
        &self.shared.pools.writes
    }

    /// Returns the pool of connections that only read, for the application's own `SELECT`s.
    ///
    /// It is the same pool as [`pool`](Self::pool) if the database allows many writers. In SQLite,
    /// reads on this pool delay no login.
    pub fn read_pool(&self) -> &Pool<D::Database> {
        &self.shared.pools.reads
    }

    /// Returns the names of the store's tables.
    pub fn names(&self) -> &Names {
        &self.shared.names
    }

    /// Returns the SQL of the store's statements, by name, to look at the database's plans for
    /// them. Three of the names are `user_by_id`, `session_with_user` and `list`.
    ///
    /// Statements whose number of parameters varies are left out. The names and the statements can
    /// change in any release.
    pub fn queries(&self) -> BTreeMap<&'static str, &str> {
        let Shared { users, statements, .. } = &*self.shared;
        users.named().chain(statements.named()).map(|(name, sql)| (name, sql.as_str())).collect()
    }

    pub(crate) fn statements(&self) -> &Statements<D> {
        &self.shared.statements
    }

    /// Returns the time by which a call that begins now has to return.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.shared.settings.timeout
    }

    fn begin_sql(&self, user_lock: Option<u16>) -> String {
        D::begin(user_lock, &self.shared.names, self.shared.settings.patience())
    }

    /// Takes a connection from one of this store's pools.
    async fn lease(
        &self,
        pool: &Pool<D::Database>,
        deadline: Instant,
        with_ping: bool,
    ) -> Result<Lease<D>, Error> {
        let persistent = !self.shared.settings.has_transaction_pooling();
        Lease::take(pool, deadline, persistent, with_ping).await
    }

    /// Runs a statement and returns all its rows.
    pub(crate) async fn rows(
        &self,
        deadline: Instant,
        statement: &Statement<D>,
        arguments: impl Fn() -> Result<ArgumentsOf<D>, sqlx::Error>,
    ) -> Result<Vec<RowOf<D>>, Error> {
        self.read(deadline, Fetch::All, statement, arguments).await
    }

    /// Runs a statement and returns a row, if there is one.
    pub(crate) async fn row(
        &self,
        deadline: Instant,
        statement: &Statement<D>,
        arguments: impl Fn() -> Result<ArgumentsOf<D>, sqlx::Error>,
    ) -> Result<Option<RowOf<D>>, Error> {
        Ok(self.read(deadline, Fetch::Optional, statement, arguments).await?.pop())
    }

    /// Runs a statement that reads. If the connection turns out to have died while it was idle,
    /// tries once more. If the connection prepared the statement before a migration changed the
    /// columns of a table, tries again, at most once for each connection of the pool.
    async fn read(
        &self,
        deadline: Instant,
        fetch: Fetch,
        statement: &Statement<D>,
        arguments: impl Fn() -> Result<ArgumentsOf<D>, sqlx::Error>,
    ) -> Result<Vec<RowOf<D>>, Error> {
        let Shared { pools, settings, .. } = &*self.shared;
        let mut with_ping = false;
        let mut stale_retries_left = max_connections(&pools.reads);
        loop {
            let attempt = async {
                let mut lease = self.lease(&pools.reads, deadline, with_ping).await?;
                if settings.has_transaction_pooling() {
                    lease.begin(self.begin_sql(None)).await?;
                }
                let rows = match fetch {
                    Fetch::Optional => Vec::from_iter(lease.row(statement, arguments()).await?),
                    Fetch::All => lease.rows(statement, arguments()).await?,
                };
                lease.finish().await.map(|()| rows)
            };
            match attempt.await {
                Err(error) if stale_retries_left > 0 && error.is_stale() => stale_retries_left -= 1,
                Err(error) if !with_ping && error.is_lost_without_effect() => with_ping = true,
                result => return result,
            }
        }
    }

    /// Takes a connection for [`Users::check_and_name_columns`].
    pub(crate) async fn begin_check(&self) -> Result<Lease<D>, Error> {
        let mut lease = self.lease(self.read_pool(), self.deadline(), false).await?;
        if let Some(forget) = self.shared.settings.forget {
            lease.begin(self.begin_sql(None)).await?;
            // Preparing a statement gives it a name, which another client's statement may already
            // have on the proxy's connection.
            lease.script(forget.to_owned()).await?;
        }
        Ok(lease)
    }

    /// Returns the connection of [`begin_check`](Self::begin_check) to the pool.
    pub(crate) async fn finish_check(&self, mut lease: Lease<D>) -> Result<(), Error> {
        if let Some(forget) = self.shared.settings.forget {
            lease.script(forget.to_owned()).await?;
        }
        lease.finish().await
    }

    /// Runs one statement that changes rows, and returns the number of changed rows.
    pub(crate) async fn run(
        &self,
        deadline: Instant,
        statement: &Statement<D>,
        arguments: impl Fn() -> Result<ArgumentsOf<D>, sqlx::Error>,
    ) -> Result<u64, Error> {
        self.run_as(Write::Statement, deadline, statement, arguments).await
    }

    /// Runs one statement as this kind of write, and returns the number of changed rows.
    pub(crate) async fn run_as(
        &self,
        write: Write<'_>,
        deadline: Instant,
        statement: &Statement<D>,
        arguments: impl Fn() -> Result<ArgumentsOf<D>, sqlx::Error>,
    ) -> Result<u64, Error> {
        self.write(deadline, write, |mut lease| {
            let arguments = arguments();
            Box::pin(async move {
                let changed = lease.run(statement, arguments).await?;
                lease.finish().await.map(|()| changed)
            })
        })
        .await
    }

    /// Runs a write, and tries again if nothing can have been written:
    ///
    /// - if the transaction conflicts with others, with at most [`MAX_ATTEMPTS`] attempts in total,
    /// - if the connection was lost and nothing was written, once,
    /// - if the connection prepared the statement before a migration changed the columns of a
    ///   table, at most once for each connection of the pool.
    pub(crate) async fn write<'a, T>(
        &'a self,
        deadline: Instant,
        write: Write<'_>,
        work: impl Fn(Lease<D>) -> BoxFuture<'a, Result<T, Error>>,
    ) -> Result<T, Error> {
        let user_lock = match write {
            Write::UserTransaction(user) => Some(lock_number(user)),
            Write::Statement | Write::Transaction => None,
        };
        let needs_transaction =
            self.shared.settings.has_transaction_pooling() || !matches!(write, Write::Statement);
        let (mut attempts, mut with_ping) = (1, false);
        let mut stale_retries_left = max_connections(self.pool());
        loop {
            let attempt = async {
                let mut lease = self.lease(self.pool(), deadline, with_ping).await?;
                if needs_transaction {
                    lease.begin(self.begin_sql(user_lock)).await?;
                    return work(lease).await;
                }
                work(lease).await.map_err(Error::during_write)
            };
            match attempt.await {
                Err(error) if attempts < MAX_ATTEMPTS && error.is_contended() => attempts += 1,
                Err(error) if stale_retries_left > 0 && error.is_stale() => stale_retries_left -= 1,
                Err(error) if !with_ping && error.is_lost_without_effect() => with_ping = true,
                done => return done,
            }
        }
    }
}

/// Returns the maximum number of connections in a pool.
fn max_connections<DB: Database>(pool: &Pool<DB>) -> u32 {
    pool.options().get_max_connections()
}

/// The rows to read.
#[derive(Clone, Copy)]
enum Fetch {
    /// The first row, if there is one.
    Optional,
    /// All rows.
    All,
}

/// How a write is run.
#[derive(Clone, Copy)]
pub(crate) enum Write<'a> {
    /// One statement.
    Statement,
    /// Several statements in a transaction.
    Transaction,
    /// Several statements in a transaction. Such transactions for one user wait for each other.
    UserTransaction(&'a UserId),
}

/// Returns the number of this user's lock. It is an FNV-1a hash, so it is the same on every node.
fn lock_number(user: &UserId) -> u16 {
    let hash = user
        .as_bytes()
        .iter()
        .fold(0x811C_9DC5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    // Both halves of the hash are used.
    ((hash >> 16) ^ (hash & 0xFFFF)) as u16
}
