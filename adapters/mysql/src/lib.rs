//! Stores users, server-side sessions and counters in MySQL or MariaDB, for [tower-keep].
//!
//! ```no_run
//! use tower_keep_core::{Account, UserDirectory};
//! use tower_keep_mysql::MySqlStore;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_keep_core::StoreError> {
//! let store = MySqlStore::builder("mysql://site:secret@db.example/site").migrate().build().await?;
//! store.insert(&Account::new(1, "ada", "$argon2id$…")).await?;
//! # Ok(()) }
//! ```
//!
//! MySQL's default authentication, `caching_sha2_password`, needs an encrypted connection: enable
//! the feature `tls-rustls`. MariaDB's usual authentication works without encryption.
//!
//! # The application's own users
//!
//! Users can be of any type that sqlx can read from a row. Two statements select them, and `build`
//! checks both:
//!
//! ```no_run
//! use std::borrow::Cow;
//! use tower_keep_core::{AuthUser, UserLookup, UserId};
//! use tower_keep_mysql::MySqlStore;
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
//! # async fn main() -> Result<(), tower_keep_core::StoreError> {
//! # let pool = sqlx::MySqlPool::connect_lazy("").expect("a pool");
//! let store = MySqlStore::builder_on(pool) // the application's pool
//!     .migrate() // creates tower-keep's tables
//!     .with_users::<Member, i64>(
//!         "SELECT id, email, password FROM member WHERE id = ?",
//!         "SELECT id, email, password FROM member WHERE email = ?",
//!     )
//!     .build()
//!     .await?;
//! let ada = store.by_login_name("ada@example.com").await?;
//! # Ok(()) }
//! ```
//!
//! The check compares the types of columns and fields: if sqlx can't read a column into its field,
//! `build` returns an error. Text with a binary collation counts as text, and so do MariaDB's
//! `JSON` and `UUID`. A value of an `ENUM` column can't be made up, so no field after one is
//! checked: make that field the last one, or select `status = 'active'` in its place. With the
//! feature `uuid`, an id can be a `Uuid` in a `BINARY(16)` column.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! | --- | --- | --- |
//! | `tls-rustls` | off | encrypted connections, with rustls; MySQL's default authentication needs them; for the system's TLS library instead, enable sqlx's feature `tls-native-tls` |
//! | `uuid` | off | ids of users from `BINARY(16)` columns, as `Uuid` |
//!
//! # Design
//!
//! If a call is dropped before it finishes, its connection is closed. sqlx's driver would return
//! the rest of the last reply to the next call.
//!
//! The adapter serves MySQL and MariaDB, which differ in functions, types and error numbers. Its
//! statements use only functions that all supported releases of both have.
//!
//! [tower-keep]: https://crates.io/crates/tower-keep

use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::mysql::{
    MySql, MySqlConnectOptions, MySqlConnection, MySqlDatabaseError, MySqlQueryResult,
    MySqlTypeInfo,
};
use sqlx::{AssertSqlSafe, Executor, Type, TypeInfo as _};
use tower_keep_core::{Account, StoreErrorKind};
use tower_keep_sql::{Cause, Dialect, Names, Pools, Sample, Settings, SqlStore, SqlStoreBuilder};

/// A store of users and session records in one database. It needs MariaDB 10.6 or MySQL 8.0, or
/// later.
///
/// [`builder`](SqlStore::builder) takes `mysql://user:password@host/database`, followed by the
/// parameters that sqlx knows, such as `?ssl-mode=VERIFY_IDENTITY`.
pub type MySqlStore<U = Account> = SqlStore<MySqlDialect, U>;

/// Opens a [`MySqlStore`].
pub type MySqlStoreBuilder<U = Account> = SqlStoreBuilder<MySqlDialect, U>;

/// The SQL expression for the name of the lock that migrations hold. The name is a digest of the
/// names of a table and its database, because a lock's name has at most 64 characters. All releases
/// have `SHA2`; MySQL 9.7 removed `MD5` and `SHA1`.
const MIGRATION_LOCK: &str = "LEFT(SHA2(CONCAT('{versions}', DATABASE()), 256), 60)";

/// How MySQL and MariaDB differ from the other databases.
#[derive(Debug)]
pub enum MySqlDialect {}

impl Dialect for MySqlDialect {
    type Database = MySql;

    const NAME: &'static str = "mysql";
    const MIGRATIONS: &'static [&'static str] =
        &[include_str!("../migrations/0001_users_and_sessions.sql")];
    const RETURNING: bool = false;
    /// sqlx's driver has to read each reply to its end.
    const RECOVERS: bool = false;
    const PURGE: &'static str = "DELETE FROM {table} WHERE expires <= $1 ORDER BY expires LIMIT $2";
    const PURGE_EARLIER_EPOCHS: &'static str =
        "DELETE FROM {sessions} WHERE user_id = $1 AND epoch < $2 AND ended_at IS NULL LIMIT $3";

    fn placeholder(_number: usize) -> String {
        "?".to_owned()
    }

    fn quoted(name: &str) -> String {
        format!("`{}`", name.replace('`', "``"))
    }

    fn sample(column_type: &MySqlTypeInfo) -> Sample {
        let type_name = column_type.name();
        // A text column with a binary collation has the type name of a binary column.
        let is_text = <String as Type<MySql>>::compatible(column_type);
        let sample = match type_name.trim_end_matches(" UNSIGNED") {
            "TINYINT" | "SMALLINT" | "MEDIUMINT" | "INT" | "BIGINT" => {
                let cast_type =
                    if type_name.ends_with(" UNSIGNED") { "UNSIGNED" } else { "SIGNED" };
                return Sample::of(format!("CAST(0 AS {cast_type})"));
            }
            "BOOLEAN" => "TRUE",
            "FLOAT" | "DOUBLE" => "0e0",
            "DECIMAL" => "0.0",
            // An `enum` of the application may be readable only from a column of this type.
            "ENUM" => return Sample::OfOtherTypes(&["CAST(0 AS SIGNED)", "CAST(0 AS UNSIGNED)"]),
            // A `Uuid` field can't read this sample, because sqlx's `Uuid` needs 16 bytes.
            _ if is_text => "'00000000-0000-0000-0000-000000000000'",
            "BINARY" | "VARBINARY" => "CAST('0123456789abcdef' AS BINARY(16))",
            "BLOB" | "TINYBLOB" | "MEDIUMBLOB" | "LONGBLOB" => {
                "CAST('0123456789abcdef' AS BINARY(16))"
            }
            "JSON" => "CAST('{}' AS JSON)",
            "DATETIME" | "TIMESTAMP" => "TIMESTAMP'1970-01-01 00:00:00'",
            "DATE" => "DATE'1970-01-01'",
            "TIME" => "TIME'00:00:00'",
            _ => return Sample::OfOtherTypes(&["''"]),
        };
        Sample::of(sample)
    }

    /// A server that is not in strict mode would truncate longer texts.
    fn can_store(text: &str) -> bool {
        text.len() <= 2_000
    }

    fn changed(result: &MySqlQueryResult) -> u64 {
        result.rows_affected()
    }

    /// Maps error numbers to causes:
    /// <https://dev.mysql.com/doc/mysql-errors/8.0/en/server-error-reference.html>.
    fn cause(error: &dyn DatabaseError) -> Option<Cause> {
        let kind = match error.try_downcast_ref::<MySqlDatabaseError>()?.number() {
            // A deadlock, or a row that has changed since it was read.
            1213 | 1020 => return Some(Cause::Contended),
            // The server closes the connection, or can't accept it now. Another connection may
            // work.
            1053 | 1152..=1161 | 1927 | 3169 | 4031 => return Some(Cause::Lost),
            // There are too many connections, or the primary has become a replica. The next
            // connection may reach the new primary.
            1040 | 1290 | 1792 | 1836 => return Some(Cause::NotRun),
            // The server prepared the statement again several times, but its tables changed each
            // time.
            1615 => return Some(Cause::Stale),
            // A statement was killed, or took too long.
            1317 | 1969 | 3024 => StoreErrorKind::Timeout,
            // Syntax errors, unknown names, missing privileges, data that the columns can't hold.
            1044 | 1045 | 1054 | 1060 | 1064 | 1142 | 1143 | 1146 | 1227 | 1235 | 1264 | 1366
            | 1406 => StoreErrorKind::Unsupported,
            // Broken tables and indexes.
            126 | 127 | 1034 | 1194 | 1712 => StoreErrorKind::Corrupt,
            _ => return None,
        };
        Some(Cause::Kind(kind))
    }

    /// Leaves out the messages that quote data.
    fn safe_message(error: &dyn DatabaseError) -> String {
        let number = error.try_downcast_ref::<MySqlDatabaseError>().map(|error| error.number());
        match number {
            Some(1062) => "a row with this key already exists (error 1062)".to_owned(),
            Some(number @ (1264 | 1265 | 1292 | 1366 | 1406 | 1411)) => {
                format!("a value is not valid for its column, or too long (error {number})")
            }
            Some(number) => format!("{} (error {number})", error.message()),
            None => error.message().to_owned(),
        }
    }

    /// `user_lock` selects a row in the table of locks. The row stays locked until the transaction
    /// ends. With `READ COMMITTED`, the transaction sees the rows that other transactions wrote
    /// while it waited for the lock, and it locks no gaps between rows.
    fn begin(user_lock: Option<u16>, names: &Names, _patience: Duration) -> String {
        let lock = user_lock.map(|user_lock| {
            let slot = user_lock % 256;
            names.fill(&format!("; SELECT slot FROM {{locks}} WHERE slot = {slot} FOR UPDATE"))
        });
        let begin = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; START TRANSACTION";
        format!("{begin}{}", lock.unwrap_or_default())
    }

    /// Takes a lock of the connection instead of beginning a transaction, because a statement that
    /// creates or alters a table commits by itself. So a migration that fails halfway is not rolled
    /// back. Each migration is written so that it can be run again from its beginning.
    fn migrations_begin(names: &Names) -> String {
        names.fill(&format!("SELECT GET_LOCK({MIGRATION_LOCK}, 3600)"))
    }

    fn migrations_end(names: &Names) -> String {
        names.fill(&format!("SELECT RELEASE_LOCK({MIGRATION_LOCK})"))
    }

    async fn open(url: &str, settings: &Settings) -> Result<Pools<MySql>, sqlx::Error> {
        let options: MySqlConnectOptions = url.parse()?;
        // The server needs a timeout, too. Otherwise, a statement that waits for a lock would
        // continue to wait after the store's timeout.
        let seconds = settings.patience().as_secs().max(1);
        let pool = settings.pool().after_connect(move |connection: &mut MySqlConnection, _| {
            let set = AssertSqlSafe(format!("SET innodb_lock_wait_timeout = {seconds}"));
            Box::pin(async move { connection.execute(set).await.map(drop) })
        });
        pool.connect_with(options).await.map(Pools::one)
    }
}
