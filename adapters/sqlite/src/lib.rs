//! Stores users, server-side sessions and counters in SQLite, for [tower-keep]: in a local file, or
//! in memory.
//!
//! ```
//! use tower_keep_core::{Account, UserDirectory, UserLookup};
//! use tower_keep_sqlite::SqliteStore;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_keep_core::StoreError> {
//! let store = SqliteStore::builder("sqlite::memory:").migrate().build().await?;
//! store.insert(&Account::new(1, "ada", "$argon2id$…")).await?;
//! assert!(store.by_login_name("ada").await?.is_some());
//! # Ok(()) }
//! ```
//!
//! With the URL `sqlite:site.db`, the store creates the file if it is missing. The database has a
//! write-ahead log, so reads continue during a write. Only one connection of the store writes. It
//! waits for the writes of other processes, at most for three quarters of the store's timeout. Each
//! login is durable once its call has returned (`synchronous = FULL`).
//!
//! # The application's own users
//!
//! Users can be of any type that sqlx can read from a row. Two statements select them, and `build`
//! checks both:
//!
//! ```
//! use std::borrow::Cow;
//! use tower_keep_core::{AuthUser, UserLookup, UserId, UserStore};
//! use tower_keep_sqlite::SqliteStore;
//!
//! #[derive(sqlx::FromRow)]
//! struct Member { id: i64, email: String, password: String }
//!
//! impl AuthUser for Member {
//!     fn id(&self) -> UserId { self.id.into() }
//!     fn security_stamp(&self) -> Cow<'_, [u8]> { self.password.as_bytes().into() }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let url = format!("sqlite:{}", directory.path().join("site.db").display());
//! # let pool = sqlx::SqlitePool::connect(&format!("{url}?mode=rwc")).await?;
//! # sqlx::raw_sql("CREATE TABLE member (id INTEGER PRIMARY KEY, email TEXT UNIQUE, password TEXT);
//! #     INSERT INTO member VALUES (7, 'ada@example.com', 'hash')").execute(&pool).await?;
//! let store = SqliteStore::builder(url)
//!     .migrate() // creates tower-keep's tables
//!     .with_users::<Member, i64>(
//!         "SELECT * FROM member WHERE id = ?",
//!         "SELECT * FROM member WHERE email = ?",
//!     )
//!     .build()
//!     .await?;
//! let ada = store.by_login_name("ada@example.com").await?.expect("a member");
//! assert_eq!(store.by_id(&ada.id()).await?.map(|member| member.id), Some(7));
//! # Ok(()) }
//! ```
//!
//! # Features
//!
//! | feature | default | what it adds |
//! | --- | --- | --- |
//! | `uuid` | off | ids of users from `BLOB` columns of 16 bytes, as `Uuid` |
//!
//! [tower-keep]: https://crates.io/crates/tower-keep

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::sqlite::{
    Sqlite, SqliteConnectOptions, SqliteJournalMode, SqliteQueryResult, SqliteSynchronous,
    SqliteTypeInfo,
};
use sqlx::{ConnectOptions, TypeInfo as _};
use tower_keep_core::{Account, StoreErrorKind};
use tower_keep_sql::{Cause, Dialect, Names, Pools, Sample, Settings, SqlStore, SqlStoreBuilder};

/// A store of users and session records in one SQLite database.
///
/// [`builder`](SqlStore::builder) takes `sqlite:PATH` or `sqlite::memory:`. A database in memory is
/// gone when the last clone of the store is dropped. With [`builder_on`](SqlStore::builder_on), the
/// pool's own settings apply: the application configures the write-ahead log and the number of
/// connections itself.
pub type SqliteStore<U = Account> = SqlStore<SqliteDialect, U>;

/// Opens a [`SqliteStore`].
pub type SqliteStoreBuilder<U = Account> = SqlStoreBuilder<SqliteDialect, U>;

/// How SQLite differs from the other databases.
#[derive(Debug)]
pub enum SqliteDialect {}

/// If another connection is opening the same file, the store tries again at most this many times.
const MAX_RETRIES: u32 = 50;
/// The pause before opening a file is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

impl Dialect for SqliteDialect {
    type Database = Sqlite;

    const NAME: &'static str = "sqlite";
    const MIGRATIONS: &'static [&'static str] =
        &[include_str!("../migrations/0001_users_and_sessions.sql")];
    const RETURNING: bool = true;
    const RECOVERS: bool = true;
    const GREATEST: &'static str = "MAX";
    const FOR_UPDATE: &'static str = "";
    const PURGE: &'static str = "DELETE FROM {table} WHERE {key} IN \
        (SELECT {key} FROM {table} WHERE expires <= $1 LIMIT $2)";
    const PURGE_EARLIER_EPOCHS: &'static str = "DELETE FROM {sessions} WHERE session_key IN \
        (SELECT session_key FROM {sessions} WHERE user_id = $1 AND epoch < $2 AND ended_at IS NULL \
        ORDER BY epoch, created LIMIT $3)";

    fn placeholder(number: usize) -> String {
        format!("?{number}")
    }

    /// A column can hold values of any type. Its declared type only shows which type is likely.
    fn sample(column_type: &SqliteTypeInfo) -> Sample {
        let sample = match column_type.name() {
            "INTEGER" | "BOOLEAN" => "0",
            "REAL" => "0.5",
            "TEXT" => "''",
            "BLOB" => "zeroblob(16)",
            "DATETIME" => "'1970-01-01 00:00:00'",
            "DATE" => "'1970-01-01'",
            "TIME" => "'00:00:00'",
            // The column has no type, or a type that depends on the row.
            _ => return Sample::OfOtherTypes(&[]),
        };
        Sample::of(sample)
    }

    fn can_store(_text: &str) -> bool {
        true
    }

    fn changed(result: &SqliteQueryResult) -> u64 {
        result.rows_affected()
    }

    /// Maps result codes (<https://sqlite.org/rescode.html>) to causes. The low byte is the primary
    /// code.
    fn cause(error: &dyn DatabaseError) -> Option<Cause> {
        let kind = match error.code()?.parse::<u32>().ok()? & 0xFF {
            // INTERRUPT.
            9 => StoreErrorKind::Timeout,
            // CORRUPT, NOTADB.
            11 | 26 => StoreErrorKind::Corrupt,
            // ERROR (no such table or column), TOOBIG, MISMATCH.
            1 | 18 | 20 => StoreErrorKind::Unsupported,
            // PERM, BUSY, LOCKED, READONLY, IOERR, FULL, CANTOPEN.
            3 | 5 | 6 | 8 | 10 | 13 | 14 => StoreErrorKind::Unavailable,
            _ => return None,
        };
        Some(Cause::Kind(kind))
    }

    fn safe_message(error: &dyn DatabaseError) -> String {
        format!("{} (code {})", error.message(), error.code().unwrap_or_default())
    }

    /// SQLite has one writer at a time. `IMMEDIATE` makes the transaction the writer from its
    /// beginning, so no other connection changes the data that the transaction reads.
    fn begin(_user_lock: Option<u16>, _names: &Names, _patience: Duration) -> String {
        "BEGIN IMMEDIATE".to_owned()
    }

    fn migrations_begin(_names: &Names) -> String {
        "BEGIN IMMEDIATE".to_owned()
    }

    async fn open(url: &str, settings: &Settings) -> Result<Pools<Sqlite>, sqlx::Error> {
        let options: SqliteConnectOptions = url.parse()?;
        let options = options.busy_timeout(settings.patience());
        // sqlx gives the database in memory a name, so all connections with these options share it.
        if url.contains(":memory:") || url.contains("mode=memory") {
            // The database exists as long as it has a connection. The pool may close its only
            // connection after a dropped call, so the store keeps another connection open.
            let keeper = options.connect().await?;
            let pool = settings.pool().max_connections(1).connect_with(options).await?;
            return Ok(Pools { keeper: Some(Arc::new(Mutex::new(keeper))), ..Pools::one(pool) });
        }
        let options = options
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let mut retries = 0;
        let writes = loop {
            let opened = settings.pool().max_connections(1).connect_with(options.clone()).await;
            match opened {
                // SQLite does not wait for other connections when it switches a new file to the
                // write-ahead log.
                Err(error) if is_busy(&error) && retries < MAX_RETRIES => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                opened => break opened?,
            }
            retries += 1;
        };
        let reads = settings.pool().connect_lazy_with(options.read_only(true));
        Ok(Pools { reads, writes, keeper: None })
    }
}

/// Checks for `SQLITE_BUSY`, which means that another connection is writing.
fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.and_then(|code| code.parse::<u32>().ok()).is_some_and(|code| code & 0xFF == 5)
}
