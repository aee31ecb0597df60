//! Stores users, server-side sessions and counters in PostgreSQL, for [tower-keep].
//!
//! ```no_run
//! use tower_keep_core::{Account, UserDirectory};
//! use tower_keep_postgres::PostgresStore;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_keep_core::StoreError> {
//! let store = PostgresStore::builder("postgres://site:secret@db.example/site")
//!     .migrate()
//!     .build()
//!     .await?;
//! store.insert(&Account::new(1, "ada", "$argon2id$…")).await?;
//! # Ok(()) }
//! ```
//!
//! # The application's own users
//!
//! Users can be of any type that sqlx can read from a row. Two statements select them, and `build`
//! checks both:
//!
//! ```no_run
//! use std::borrow::Cow;
//! use tower_keep_core::{AuthUser, UserLookup, UserId};
//! use tower_keep_postgres::PostgresStore;
//!
//! #[derive(Clone, sqlx::FromRow)]
//! struct Member { id: i64, email: String, password: String }
//!
//! impl AuthUser for Member {
//!     fn id(&self) -> UserId { self.id.into() }
//!     fn security_stamp(&self) -> Cow<'_, [u8]> { self.password.as_bytes().into() }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_keep_core::StoreError> {
//! # let pool = sqlx::PgPool::connect_lazy("").expect("a pool");
//! let store = PostgresStore::builder_on(pool) // the application's pool
//!     .migrate() // creates tower-keep's tables
//!     .with_users::<Member, i64>(
//!         "SELECT id, email, password FROM member WHERE id = $1",
//!         "SELECT id, email, password FROM member WHERE email = $1",
//!     )
//!     .build()
//!     .await?;
//! let ada = store.by_login_name("ada@example.com").await?;
//! # Ok(()) }
//! ```
//!
//! The check compares the types of columns and fields: if sqlx can't read a column into its field,
//! `build` returns an error. An id in a `CHAR(n)` column is an error, too, because PostgreSQL pads
//! the value with spaces. Cast the id to `text` in both statements, or change the column's type.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! | --- | --- | --- |
//! | `tls-rustls` | off | encrypted connections, with rustls; for the system's TLS library instead, enable sqlx's feature `tls-native-tls` |
//! | `uuid` | off | ids of users from `UUID` columns, as `Uuid` |
//!
//! [tower-keep]: https://crates.io/crates/tower-keep

use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::postgres::{
    PgConnectOptions, PgConnection, PgDatabaseError, PgQueryResult, PgTypeInfo, PgTypeKind,
    Postgres,
};
use sqlx::{AssertSqlSafe, Executor, TypeInfo as _};
use tower_keep_core::{Account, StoreErrorKind};
use tower_keep_sql::{
    Cause, Dialect, Names, Pools, Sample, Schemas, Settings, SqlStore, SqlStoreBuilder,
    TransactionPooling,
};

/// A store of users and session records in one PostgreSQL database. It needs PostgreSQL 13 or
/// later.
///
/// [`builder`](SqlStore::builder) takes `postgres://user:password@host/database`, followed by the
/// parameters that sqlx knows, such as `?sslmode=verify-full`.
pub type PostgresStore<U = Account> = SqlStore<PostgresDialect, U>;

/// Opens a [`PostgresStore`].
///
/// The default schema of the tables is the first schema in the connection's `search_path`.
/// [`with_schema`](SqlStoreBuilder::with_schema) sets another.
///
/// With [`with_transaction_pooling`](SqlStoreBuilder::with_transaction_pooling), the store works
/// through PgBouncer in transaction mode. A pool of the application's own then needs
/// `statement_cache_capacity(0)` and `extra_float_digits(None)`.
pub type PostgresStoreBuilder<U = Account> = SqlStoreBuilder<PostgresDialect, U>;

/// Converts a time to milliseconds, within the range that PostgreSQL accepts.
fn milliseconds(time: Duration) -> u128 {
    time.as_millis().clamp(1, i32::MAX as u128)
}

/// How PostgreSQL differs from the other databases.
#[derive(Debug)]
pub enum PostgresDialect {}

impl Dialect for PostgresDialect {
    type Database = Postgres;

    const NAME: &'static str = "postgres";
    const MIGRATIONS: &'static [&'static str] =
        &[include_str!("../migrations/0001_users_and_sessions.sql")];
    const RETURNING: bool = true;
    const RECOVERS: bool = true;
    const PURGE: &'static str = "DELETE FROM {table} WHERE {key} IN \
        (SELECT {key} FROM {table} WHERE expires <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED)";
    const PURGE_EARLIER_EPOCHS: &'static str = "DELETE FROM {sessions} WHERE session_key IN \
        (SELECT session_key FROM {sessions} WHERE user_id = $1 AND epoch < $2 AND ended_at IS NULL \
        ORDER BY epoch, created LIMIT $3 FOR UPDATE SKIP LOCKED)";

    fn placeholder(number: usize) -> String {
        format!("${number}")
    }

    fn sample(column_type: &PgTypeInfo) -> Sample {
        let type_name = column_type.name();
        let sample = match type_name {
            "INT2" | "INT4" | "INT8" | "OID" | "NUMERIC" | "FLOAT4" | "FLOAT8" | "INTERVAL" => "0",
            "BOOL" => "false",
            "TEXT" | "VARCHAR" | "NAME" | "citext" | "BYTEA" => "",
            // A value of type `CHAR(n)` is read with the spaces that pad it. When such a value is
            // compared as text, the spaces count.
            "CHAR" => return Sample::Padded(["CAST('a' AS BPCHAR)", "CAST('b' AS BPCHAR)"]),
            "UUID" => "00000000-0000-0000-0000-000000000000",
            "DATE" | "TIMESTAMP" | "TIMESTAMPTZ" => "epoch",
            "TIME" | "TIMETZ" => "00:00",
            "JSON" | "JSONB" => "{}",
            "INET" | "CIDR" => "0.0.0.0",
            _ => match column_type.kind() {
                PgTypeKind::Enum(_) => {
                    return Sample::of(format!("(enum_range(CAST(NULL AS {type_name})))[1]"));
                }
                PgTypeKind::Array(_) => "{}",
                _ => return Sample::OfOtherTypes(&["CAST('' AS TEXT)", "CAST(0 AS BIGINT)"]),
            },
        };
        Sample::of(format!("CAST('{sample}' AS {type_name})"))
    }

    /// A text in PostgreSQL can't contain NUL, and an entry of an index can't be much longer than
    /// 2,000 bytes.
    fn can_store(text: &str) -> bool {
        !text.contains('\0') && text.len() <= 2_000
    }

    fn changed(result: &PgQueryResult) -> u64 {
        result.rows_affected()
    }

    /// Maps error codes to causes:
    /// <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
    fn cause(error: &dyn DatabaseError) -> Option<Cause> {
        let code = error.code()?;
        let kind = match &*code {
            "40001" | "40P01" => return Some(Cause::Contended),
            // The server closes the connection, or can't accept it now. Another connection may
            // work.
            "57P01" | "57P02" | "57P03" | "57P05" => return Some(Cause::Lost),
            // The primary has become a replica. The next connection may reach the new primary.
            "25006" => return Some(Cause::NotRun),
            "0A000" if is_stale(error) => return Some(Cause::Stale),
            "0A000" => StoreErrorKind::Unsupported,
            // A statement took too long.
            "57014" => StoreErrorKind::Timeout,
            "23505" => StoreErrorKind::Conflict,
            _ => match code.get(..2)? {
                "08" => return Some(Cause::Lost),
                "XX" => StoreErrorKind::Corrupt,
                // Data that the types can't hold, exceeded limits, unknown names, missing
                // privileges.
                "22" | "42" | "54" => StoreErrorKind::Unsupported,
                _ => StoreErrorKind::Unavailable,
            },
        };
        Some(Cause::Kind(kind))
    }

    /// Returns the message and the code, but not the details, because those contain rows. Leaves
    /// out the messages of data exceptions (class 22), because these messages contain data.
    fn safe_message(error: &dyn DatabaseError) -> String {
        let code = error.code().unwrap_or_default();
        if code.starts_with("22") {
            return format!("a value is not valid for its column, or too long (code {code})");
        }
        format!("{} (code {code})", error.message())
    }

    /// `user_lock` is the second key of an advisory lock, which is released when the transaction
    /// ends. The first key is "keep" in ASCII, so these locks differ from the application's.
    fn begin(user_lock: Option<u16>, _names: &Names, patience: Duration) -> String {
        let lock =
            user_lock.map(|key| format!("; SELECT pg_advisory_xact_lock(1801807216, {key})"));
        format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = {}{}",
            milliseconds(patience),
            lock.unwrap_or_default()
        )
    }

    fn migrations_begin(names: &Names) -> String {
        let begin = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = 0; \
            SELECT pg_advisory_xact_lock(1801807216, -1)";
        match names.schema() {
            Some(schema) => {
                format!("{begin}; SET LOCAL search_path TO {}", Self::quoted(schema))
            }
            None => begin.to_owned(),
        }
    }

    async fn open(url: &str, settings: &Settings) -> Result<Pools<Postgres>, sqlx::Error> {
        let options: PgConnectOptions = url.parse()?;
        // sqlx sends this parameter by default. A proxy rejects parameters that it does not know.
        let options = options.extra_float_digits(None);
        if settings.has_transaction_pooling() {
            let options = options.statement_cache_capacity(0);
            return settings.pool().connect_with(options).await.map(Pools::one);
        }
        // The server needs a timeout, too. Otherwise, a statement that waits for a lock would
        // continue to wait after the store's timeout.
        let timeout = milliseconds(settings.patience());
        let pool = settings.pool().after_connect(move |connection: &mut PgConnection, _| {
            let set = AssertSqlSafe(format!("SET statement_timeout = {timeout}"));
            Box::pin(async move { connection.execute(set).await.map(drop) })
        });
        pool.connect_with(options).await.map(Pools::one)
    }
}

impl Schemas for PostgresDialect {}

impl TransactionPooling for PostgresDialect {
    const FORGET: &'static str = "DEALLOCATE ALL";
}

/// Checks whether the statement was prepared before a migration changed the columns of a table. The
/// server may translate the error's message, but not the name of the routine in the server's source
/// code.
fn is_stale(error: &dyn DatabaseError) -> bool {
    let error = error.try_downcast_ref::<PgDatabaseError>();
    error.and_then(PgDatabaseError::routine) == Some("RevalidateCachedQuery")
}
