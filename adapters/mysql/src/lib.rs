//! Users and sessions in MySQL or MariaDB, for [tower-keep].
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
//! the feature `tls-rustls`. MariaDB's usual authentication does not.
//!
//! # The application's own users
//!
//! Any type that sqlx can read, by two statements, which are checked when the store is built:
//!
//! ```no_run
//! use std::borrow::Cow;
//! use tower_keep_core::{AuthUser, UserFinder, UserId};
//! use tower_keep_mysql::MySqlStore;
//!
//! #[derive(sqlx::FromRow)]
//! struct Member { id: i64, email: String, password: String }
//!
//! impl AuthUser for Member {
//!     fn id(&self) -> UserId { self.id.into() }
//!     fn stamp(&self) -> Cow<'_, [u8]> { self.password.as_bytes().into() }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_keep_core::StoreError> {
//! # let pool = sqlx::MySqlPool::connect_lazy("").expect("a pool");
//! let store = MySqlStore::builder_on(pool) // the application's pool
//!     .migrate() // the tables of sessions
//!     .with_users::<Member, i64>(
//!         "SELECT id, email, password FROM member WHERE id = ?",
//!         "SELECT id, email, password FROM member WHERE email = ?",
//!     )
//!     .build()
//!     .await?;
//! let ada = store.by_login("ada@example.com").await?;
//! # Ok(()) }
//! ```
//!
//! The check goes by the columns' types: if plain sqlx does not read a column into its field,
//! `build` returns an error. Text with a binary collation is text, and so are MariaDB's `JSON` and
//! `UUID`. With the feature `uuid`, an id can be a `Uuid` in a `BINARY(16)`.
//!
//! [tower-keep]: https://crates.io/crates/tower-keep

use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::mysql::{
    MySql, MySqlConnectOptions, MySqlConnection, MySqlDatabaseError, MySqlQueryResult,
    MySqlTypeInfo,
};
use sqlx::{AssertSqlSafe, Error, Executor, Type, TypeInfo as _};
use tower_keep_core::{Account, StoreErrorKind};
use tower_keep_sql::{Cause, Dialect, Names, Pools, Sample, Settings, SqlStore, SqlStoreBuilder};

/// Users and session records in one database of MariaDB 10.6 or MySQL 8.0, or later.
///
/// [`builder`](SqlStore::builder) takes `mysql://user:password@host/database`, and after it the
/// parameters that sqlx knows, such as `?ssl-mode=VERIFY_IDENTITY`.
pub type MySqlStore<U = Account> = SqlStore<MySqlDialect, U>;

/// Opens a [`MySqlStore`].
pub type MySqlStoreBuilder<U = Account> = SqlStoreBuilder<MySqlDialect, U>;

/// The name of the lock that migrations hold, of the table in its database. It has at most 64 characters,
/// so it is a digest: of a kind that all releases have, as MySQL 9.7 removed `MD5` and `SHA1`.
const MIGRATION_LOCK: &str = "LEFT(SHA2(CONCAT('{versions}', DATABASE()), 256), 60)";

/// What MySQL and MariaDB do differently.
#[derive(Debug)]
pub enum MySqlDialect {}

impl Dialect for MySqlDialect {
    type Database = MySql;

    const NAME: &'static str = "mysql";
    const MIGRATIONS: &'static [&'static str] =
        &[include_str!("../migrations/0001_users_and_sessions.sql")];
    const GREATEST: &'static str = "GREATEST";
    const RETURNING: bool = false;
    const FOR_UPDATE: &'static str = " FOR UPDATE";
    /// sqlx counts on the rest of an answer being read.
    const RECOVERS: bool = false;
    const FORGET: &'static str = "";
    const PURGE: &'static str =
        "DELETE FROM {sessions} WHERE expires <= $1 ORDER BY expires LIMIT $2";
    const TIDY: &'static str =
        "DELETE FROM {sessions} WHERE user_id = $1 AND epoch < $2 AND ended_at IS NULL LIMIT $3";

    fn placeholder(_number: usize) -> String {
        "?".to_owned()
    }

    fn quoted(name: &str) -> String {
        format!("`{}`", name.replace('`', "``"))
    }

    fn sample(column: &MySqlTypeInfo) -> Sample {
        let column_type = column.name();
        // Texts that are compared byte by byte have the names of bytes.
        let is_text = <String as Type<MySql>>::compatible(column);
        let sample = match column_type.trim_end_matches(" UNSIGNED") {
            "TINYINT" | "SMALLINT" | "MEDIUMINT" | "INT" | "BIGINT" => {
                let unsigned =
                    if column_type.ends_with(" UNSIGNED") { "UNSIGNED" } else { "SIGNED" };
                return Sample::of(format!("CAST(0 AS {unsigned})"));
            }
            "BOOLEAN" => "TRUE",
            "FLOAT" | "DOUBLE" => "0e0",
            "DECIMAL" => "0.0",
            // An `enum` of the application's may take just this type.
            "ENUM" => return Sample::Unlike(&["CAST(0 AS SIGNED)", "CAST(0 AS UNSIGNED)"]),
            // No more than a text to sqlx, and too long for a UUID, which is bytes here.
            _ if is_text => "'00000000-0000-0000-0000-000000000000'",
            "BINARY" | "VARBINARY" => "CAST('0123456789abcdef' AS BINARY(16))",
            "BLOB" | "TINYBLOB" | "MEDIUMBLOB" | "LONGBLOB" => {
                "CAST('0123456789abcdef' AS BINARY(16))"
            }
            "JSON" => "CAST('{}' AS JSON)",
            "DATETIME" | "TIMESTAMP" => "TIMESTAMP'1970-01-01 00:00:00'",
            "DATE" => "DATE'1970-01-01'",
            "TIME" => "TIME'00:00:00'",
            _ => return Sample::Unlike(&["''"]),
        };
        Sample::of(sample)
    }

    /// Each user's number is a row of a table of its own, locked until the transaction ends. Reading
    /// what is committed sees what others wrote while this waited, and locks no gaps.
    fn begin(user: Option<u16>, names: &Names, _patience: Duration) -> String {
        let lock = user.map(|user| {
            let slot = user % 256;
            names.fill(&format!("; SELECT slot FROM {{locks}} WHERE slot = {slot} FOR UPDATE"))
        });
        let begin = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; START TRANSACTION";
        format!("{begin}{}", lock.unwrap_or_default())
    }

    /// Changes of tables commit by themselves, so the migrations can be run again from any statement.
    fn migrations_begin(names: &Names) -> String {
        names.fill(&format!("SELECT GET_LOCK({MIGRATION_LOCK}, 3600)"))
    }

    fn migrations_end(names: &Names) -> String {
        names.fill(&format!("SELECT RELEASE_LOCK({MIGRATION_LOCK})"))
    }

    /// What the numbers mean (<https://dev.mysql.com/doc/mysql-errors/8.0/en/server-error-reference.html>).
    fn cause(error: &dyn DatabaseError) -> Option<Cause> {
        let kind = match error.try_downcast_ref::<MySqlDatabaseError>()?.number() {
            // Deadlock; the row has changed since it was read.
            1213 | 1020 => return Some(Cause::Contended),
            // The server ends the connection, or it was never in order; another one may be.
            1053 | 1152..=1161 | 1927 | 3169 | 4031 => return Some(Cause::Lost),
            // Too many connections; a primary that became a replica: the next connection may reach the
            // new one.
            1040 | 1290 | 1792 | 1836 => return Some(Cause::Refused),
            // It was read again and again, and its tables always changed meanwhile.
            1615 => return Some(Cause::Stale),
            // A statement was ended, or took too long.
            1317 | 1969 | 3024 => StoreErrorKind::Timeout,
            // Syntax, unknown names, missing rights, data that the columns don't take.
            1044 | 1045 | 1054 | 1060 | 1064 | 1142 | 1143 | 1146 | 1227 | 1235 | 1264 | 1366
            | 1406 => StoreErrorKind::Unsupported,
            // Broken tables and indexes.
            126 | 127 | 1034 | 1194 | 1712 => StoreErrorKind::Corrupt,
            _ => return None,
        };
        Some(Cause::Kind(kind))
    }

    /// Some messages quote what was to be written.
    fn said(error: &dyn DatabaseError) -> String {
        let number = error.try_downcast_ref::<MySqlDatabaseError>().map(|error| error.number());
        match number {
            Some(1062) => "there is such a row (error 1062)".to_owned(),
            Some(number @ (1264 | 1265 | 1292 | 1366 | 1406 | 1411)) => {
                format!("the data does not fit (error {number})")
            }
            Some(number) => format!("{} (error {number})", error.message()),
            None => error.message().to_owned(),
        }
    }

    /// Longer texts would be cut where the server is not strict.
    fn takes(text: &str) -> bool {
        text.len() <= 2_000
    }

    fn changed(result: &MySqlQueryResult) -> u64 {
        result.rows_affected()
    }

    async fn open(url: &str, settings: &Settings) -> Result<Pools<MySql>, Error> {
        let options: MySqlConnectOptions = url.parse()?;
        // The server gives up as well: what waits for a lock would else wait on.
        let seconds = settings.patience().as_secs().max(1);
        let pool = settings.pool().after_connect(move |connection: &mut MySqlConnection, _| {
            let set = AssertSqlSafe(format!("SET innodb_lock_wait_timeout = {seconds}"));
            Box::pin(async move { connection.execute(set).await.map(drop) })
        });
        pool.connect_with(options).await.map(Pools::one)
    }
}
