//! The store, and how it asks: in time, and again where that is safe.

use std::fmt;
use std::sync::Arc;

use futures_core::future::BoxFuture;
use sqlx::{Database, Error, Pool, SqlStr};
use tokio::time::Instant;
use tower_keep_core::{Account, StoreError, StoreErrorKind, UserId};

use crate::dialect::{ArgumentsOf, RowOf, Settings};
use crate::error::Fault;
use crate::lease::Lease;
use crate::statement::{Statement, Statements};
use crate::users::Users;
use crate::{Dialect, Names, Pools};

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
    pub(crate) settings: Settings,
    pub(crate) names: Names,
    pub(crate) statements: Statements<D>,
    pub(crate) users: Users<D, U>,
}

/// See [`SqlStore::measured`].
#[doc(hidden)]
pub struct Measured<D: Dialect> {
    pub reads: Pool<D::Database>,
    pub writes: Pool<D::Database>,
    pub names: Names,
    pub by_id: SqlStr,
    pub login: SqlStr,
    pub list: SqlStr,
    pub purge: SqlStr,
    pub insert: SqlStr,
    pub untold: SqlStr,
    pub rotate: SqlStr,
    pub load: SqlStr,
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
    /// The connections that write, for the application's own statements. SQLite has one, so that whoever
    /// holds it holds up every login; PostgreSQL's give up what takes longer than the time-out.
    pub fn pool(&self) -> &Pool<D::Database> {
        &self.shared.pools.writes
    }

    /// What this store sends, for those who measure it and look at its plans.
    #[doc(hidden)]
    pub fn measured(&self) -> Measured<D> {
        let Shared { pools, users, statements, names, .. } = &*self.shared;
        Measured {
            reads: pools.reads.clone(),
            writes: pools.writes.clone(),
            names: names.clone(),
            by_id: users.by_id.sql(),
            login: users.login.sql(),
            list: statements.list.sql(),
            purge: statements.purge.sql(),
            insert: statements.insert.sql(),
            untold: statements.untold.sql(),
            rotate: statements.rotate.sql(),
            load: statements.load.sql(),
        }
    }

    /// How this store begins a login's transaction.
    #[doc(hidden)]
    pub fn measured_begin(&self, user: &UserId) -> String {
        self.begin(Some(number(user)))
    }

    pub(crate) fn statements(&self) -> &Statements<D> {
        &self.shared.statements
    }

    /// When a call that begins now has to be answered.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.shared.settings.timeout
    }

    fn begin(&self, user: Option<u16>) -> String {
        D::begin(user, &self.shared.names, self.shared.settings.patience())
    }

    async fn reader(&self, deadline: Instant, tested: bool) -> Result<Lease<D>, Fault> {
        Lease::take(
            &self.shared.pools.reads,
            deadline,
            !self.shared.settings.transaction_pooling,
            tested,
        )
        .await
    }

    async fn writer(&self, deadline: Instant, tested: bool) -> Result<Lease<D>, Fault> {
        Lease::take(
            &self.shared.pools.writes,
            deadline,
            !self.shared.settings.transaction_pooling,
            tested,
        )
        .await
    }

    /// Asks for all rows of an answer.
    pub(crate) async fn rows(
        &self,
        deadline: Instant,
        statement: &Statement<D>,
        arguments: impl Fn() -> Result<ArgumentsOf<D>, Error>,
    ) -> Result<Vec<RowOf<D>>, Fault> {
        self.read(deadline, Most::All, statement, arguments).await
    }

    /// Asks for a row, if there is one.
    pub(crate) async fn row(
        &self,
        deadline: Instant,
        statement: &Statement<D>,
        arguments: impl Fn() -> Result<ArgumentsOf<D>, Error>,
    ) -> Result<Option<RowOf<D>>, Fault> {
        Ok(self.read(deadline, Most::One, statement, arguments).await?.pop())
    }

    /// Reads; once more if the connection turns out to have died while it was idle, and as often as there
    /// may be connections that know the tables as they were.
    async fn read(
        &self,
        deadline: Instant,
        most: Most,
        statement: &Statement<D>,
        arguments: impl Fn() -> Result<ArgumentsOf<D>, Error>,
    ) -> Result<Vec<RowOf<D>>, Fault> {
        let (mut tested, mut stale) = (false, most_connections(&self.shared.pools.reads));
        loop {
            let attempt = async {
                let mut lease = self.reader(deadline, tested).await?;
                if self.shared.settings.transaction_pooling {
                    lease.begin(self.begin(None)).await?;
                }
                let rows = match most {
                    Most::One => Vec::from_iter(lease.row(statement, arguments()).await?),
                    Most::All => lease.rows(statement, arguments()).await?,
                };
                lease.finish().await.map(|()| rows)
            };
            match attempt.await {
                Err(fault) if stale > 0 && fault.is_stale() => stale -= 1,
                Err(fault) if !tested && fault.is_lost_before() => tested = true,
                answer => return answer,
            }
        }
    }

    /// A connection for [`Users::learn`].
    pub(crate) async fn learner(&self) -> Result<Lease<D>, Fault> {
        let mut lease = self.reader(self.deadline(), false).await?;
        if self.shared.settings.transaction_pooling {
            lease.begin(self.begin(None)).await?;
            // Reading a statement prepares it, under a name that another's may have there.
            lease.script(D::FORGET.to_owned()).await?;
        }
        Ok(lease)
    }

    /// Done with it.
    pub(crate) async fn learned(&self, mut lease: Lease<D>) -> Result<(), Fault> {
        if self.shared.settings.transaction_pooling {
            lease.script(D::FORGET.to_owned()).await?;
        }
        lease.finish().await
    }

    /// Runs one statement that changes rows, and answers how many.
    pub(crate) async fn run(
        &self,
        deadline: Instant,
        statement: &Statement<D>,
        arguments: impl Fn() -> Result<ArgumentsOf<D>, Error>,
    ) -> Result<u64, Fault> {
        self.write(deadline, Write::One, |mut lease| {
            let arguments = arguments();
            Box::pin(async move {
                let changed = lease.run(statement, arguments).await?;
                lease.finish().await.map(|()| changed)
            })
        })
        .await
    }

    /// Runs one statement that changes a row, and answers it.
    pub(crate) async fn changed_row(
        &self,
        deadline: Instant,
        statement: &Statement<D>,
        arguments: impl Fn() -> Result<ArgumentsOf<D>, Error>,
    ) -> Result<Option<RowOf<D>>, Fault> {
        self.write(deadline, Write::One, |mut lease| {
            let arguments = arguments();
            Box::pin(async move {
                let rows = lease.rows(statement, arguments).await?;
                lease.finish().await.map(|()| rows.into_iter().next())
            })
        })
        .await
    }

    /// Writes, and again where nothing can have been written: while others are in the way, once if the
    /// connection was dead before a transaction, and as often as there may be connections that know the
    /// tables as they were.
    pub(crate) async fn write<'a, T>(
        &'a self,
        deadline: Instant,
        write: Write<'_>,
        work: impl Fn(Lease<D>) -> BoxFuture<'a, Result<T, Fault>>,
    ) -> Result<T, Fault> {
        let user = match write {
            Write::ForUser(user) => Some(number(user)),
            Write::One | Write::Many => None,
        };
        let begins = self.shared.settings.transaction_pooling || !matches!(write, Write::One);
        let (mut tries, mut tested) = (1, false);
        let mut stale = most_connections(&self.shared.pools.writes);
        loop {
            let attempt = async {
                let mut lease = self.writer(deadline, tested).await?;
                if begins {
                    lease.begin(self.begin(user)).await?;
                    return work(lease).await;
                }
                work(lease).await.map_err(Fault::unsure)
            };
            match attempt.await {
                Err(fault) if tries < TRIES && fault.is_contended() => tries += 1,
                Err(fault) if stale > 0 && fault.is_stale() => stale -= 1,
                Err(fault) if !tested && fault.is_lost_before() => tested = true,
                done => return done,
            }
        }
    }
}

/// How many connections a pool holds at most.
fn most_connections<DB: Database>(pool: &Pool<DB>) -> u32 {
    pool.options().get_max_connections()
}

/// How many rows are asked for.
#[derive(Clone, Copy)]
enum Most {
    One,
    All,
}

/// What is written at once.
#[derive(Clone, Copy)]
pub(crate) enum Write<'a> {
    /// One statement.
    One,
    /// Several, all or none.
    Many,
    /// Several, all or none, and of one user's not two at once.
    ForUser(&'a UserId),
}

/// Which of the locks is this user's: FNV-1a, the same on every node.
fn number(user: &UserId) -> u16 {
    let hash = user
        .as_bytes()
        .iter()
        .fold(0x811C_9DC5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    // Both halves count.
    ((hash >> 16) ^ (hash & 0xFFFF)) as u16
}

/// This text can't be kept here.
pub(crate) fn refused(what: &str) -> Fault {
    Fault::new(StoreErrorKind::Unsupported, format!("the database takes no such {what}"))
}

/// Other writes to the same rows always came first.
pub(crate) fn contended() -> Fault {
    Fault::new(StoreErrorKind::Unavailable, "other writes to the same rows always came first")
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
