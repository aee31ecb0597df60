//! Users and sessions in SQLite, for [tower-keep]: a file beside the server, or memory.
//!
//! ```
//! use tower_keep_core::{Account, UserDirectory};
//! use tower_keep_sqlite::SqliteStore;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_keep_core::StoreError> {
//! let store = SqliteStore::in_memory().await?;
//! store.insert(&Account::new(1, "ada", "$argon2id$…")).await?;
//! assert!(store.by_login("ada").await?.is_some());
//! # Ok(()) }
//! ```
//!
//! A file is kept with a write-ahead log, so that reads go on while something is written; one
//! connection writes, and waits up to five seconds for another process's writing to end. Each login is
//! durable once it is answered (`synchronous = FULL`). The tables are made and kept up to date when the
//! store is opened; the statements are in this crate's `migrations`.
//!
//! [tower-keep]: https://crates.io/crates/tower-keep

mod sessions;
mod users;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use tower_keep_core::{StoreError, StoreErrorKind};
use tower_keep_sql::store_error;

/// The statements that make and change the tables, by version.
static MIGRATIONS: Migrator = sqlx::migrate!();

const NAME: &str = "sqlite";
/// How long a writer waits for another process's writing to end, and a reader for a connection.
const PATIENCE: Duration = Duration::from_secs(5);
const READERS: u32 = 8;
/// How often opening a file that another opens is tried again, and after which pause.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// Users of the ready type and session records in one SQLite database.
///
/// A clone is another handle on the same connections.
#[derive(Clone)]
pub struct SqliteStore {
    reads: SqlitePool,
    /// SQLite has one writer at a time; so has this.
    writes: SqlitePool,
    /// A database in memory lives as long as one connection does, and that of a dropped call may be
    /// closed.
    _keeper: Option<Arc<Mutex<SqliteConnection>>>,
}

impl SqliteStore {
    /// Opens the database in this file, makes it if there is none, and brings its tables up to date.
    ///
    /// # Errors
    ///
    /// The file can't be opened or written, or its tables are of a newer version or another's.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(PATIENCE);
        let pool =
            |most: u32| SqlitePoolOptions::new().max_connections(most).acquire_timeout(PATIENCE);
        let mut tries = 0;
        let writes = loop {
            match pool(1).connect_with(options.clone()).await {
                // Who switches a new file to the write-ahead log waits for nobody by itself.
                Err(error) if is_busy(&error) && tries < TRIES => tokio::time::sleep(PAUSE).await,
                connected => break connected.map_err(fault)?,
            }
            tries += 1;
        };
        migrate(&writes).await?;
        let reads = pool(READERS).connect_with(options.read_only(true)).await.map_err(fault)?;
        Ok(Self { reads, writes, _keeper: None })
    }

    /// A database in memory, which is gone with the last handle.
    ///
    /// # Errors
    ///
    /// SQLite can't be started.
    pub async fn in_memory() -> Result<Self, StoreError> {
        // A database of its own, which this process's connections share.
        let options: SqliteConnectOptions = "sqlite::memory:".parse().map_err(fault)?;
        let keeper = options.connect().await.map_err(fault)?;
        let pool = SqlitePoolOptions::new().max_connections(1).acquire_timeout(PATIENCE);
        let only = pool.connect_with(options).await.map_err(fault)?;
        migrate(&only).await?;
        let keeper = Some(Arc::new(Mutex::new(keeper)));
        Ok(Self { reads: only.clone(), writes: only, _keeper: keeper })
    }
}

/// All in one transaction that writes from its beginning: of several that open a file at once, one
/// makes the tables and the others wait. SQLite's migrations take no lock of their own.
async fn migrate(pool: &SqlitePool) -> Result<(), StoreError> {
    let mut write = pool.begin_with("BEGIN IMMEDIATE").await.map_err(fault)?;
    // `run` on a connection makes a future that can't be sent to another thread.
    MIGRATIONS.run_direct(None, &mut *write, false).await.map_err(|error| match error {
        MigrateError::Execute(error) => fault(error),
        error => StoreError::new(StoreErrorKind::Corrupt, NAME).with_source(error),
    })?;
    write.commit().await.map_err(fault)
}

/// `SQLITE_BUSY`: another connection writes.
fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.and_then(|code| code.parse::<u32>().ok()).is_some_and(|code| code & 0xFF == 5)
}

/// What SQLite's result codes mean (<https://sqlite.org/rescode.html>); the low byte is the primary one.
fn fault(error: sqlx::Error) -> StoreError {
    store_error(NAME, error, |code| match code.parse::<u32>().ok()? & 0xFF {
        // CORRUPT, NOTADB.
        11 | 26 => Some(StoreErrorKind::Corrupt),
        _ => None,
    })
}

/// Shows nothing of what is stored.
impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").finish_non_exhaustive()
    }
}
