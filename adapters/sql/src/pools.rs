//! The connection pools of a store, and the settings with which they are opened.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolOptions;
use sqlx::{Connection, Database, Pool};

use crate::driver::Driver;

/// The settings with which [`Dialect::open`](crate::Dialect::open) opens the database.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The maximum duration of a call to the store.
    pub(crate) timeout: Duration,
    /// The maximum number of connections that the store opens.
    pub(crate) max_connections: u32,
    /// The statement that removes a connection's prepared statements, if a proxy may run each
    /// transaction on another connection to the database.
    pub(crate) forget: Option<&'static str>,
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

    /// Checks whether a proxy may run each transaction on another connection to the database. If
    /// so, connections must keep no statements prepared, and need no settings of their own.
    #[must_use]
    pub fn has_transaction_pooling(&self) -> bool {
        self.forget.is_some()
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
