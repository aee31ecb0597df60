//! Columns of an application's own tables, of every common type: a store reads them as plain sqlx
//! does, or `build` says that it can't. The cells of one table for each database are checked:
//! {column} × {Rust type} × {id, login name, another column}.

use std::borrow::Cow;
use std::fmt::Display;
use std::pin::Pin;

use sqlx::{AssertSqlSafe, FromRow, Pool};
use tower_keep_core::{
    AuthUser, LoginStore, NewLogin, SessionStore, StoreError, UserId, UserLookup,
};
use tower_keep_mysql::MySqlStore;
use tower_keep_postgres::PostgresStore;
use tower_keep_sqlite::SqliteStore;
use tower_keep_testkit::contract::sessions::new_record;
use uuid::Uuid;

/// A user whose three columns are of any types.
#[derive(Debug, FromRow)]
struct Owner<I, L, O> {
    id: I,
    #[expect(dead_code, reason = "it is read, and that is all")]
    login: L,
    #[expect(dead_code, reason = "it is read, and that is all")]
    other: O,
}

impl<I, L, O> AuthUser for Owner<I, L, O>
where
    I: Written + Send + Sync + 'static,
    L: Send + Sync + 'static,
    O: Send + Sync + 'static,
{
    fn id(&self) -> UserId {
        self.id.written().into()
    }

    fn security_stamp(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(b"1")
    }
}

/// Writes an id as text.
trait Written {
    fn written(&self) -> String;
}

macro_rules! written {
    ($($id:ty)*) => {$(
        impl Written for $id {
            fn written(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

written!(String i64 i32 u64 bool f64 Uuid);

/// The outcome of a cell, with plain sqlx or with a store of ours.
#[derive(Debug, PartialEq)]
enum Cell {
    Works,
    /// The value can be read, but as a login name no text finds it.
    FindsNobody,
    IsAnErrorOfBuild,
}

/// Returns the outcome with a store of ours, on a table with one user.
async fn ours<S>(store: Result<S, StoreError>, id: &str, login: &str) -> Cell
where
    S: UserLookup + LoginStore + SessionStore,
{
    let Ok(store) = store else { return Cell::IsAnErrorOfBuild };
    let named = store.by_login_name(login).await.expect("what was built reads");
    let Some(named) = named else { return Cell::FindsNobody };
    let known = store.by_id(&named.id()).await.expect("what was built reads");
    assert!(known.is_some(), "nobody has the id {:?}, which is of {id}", named.id());
    let record = new_record(&named.id());
    store.create(&NewLogin::new(&record, record.expires)).await.expect("a new session");
    let found =
        store.load_login(&record.key, Some(&named.id())).await.expect("what was built reads");
    assert!(found.is_some_and(|found| found.user.is_some()), "the next request forgot the user");
    Cell::Works
}

fn number() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}

fn server(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set; `cargo xtask servers` starts a server"))
}

/// Checks the cells of one column: its type, a value, the value as a login name, and the Rust
/// types.
macro_rules! column {
    ($on:ident, $column:literal, $value:literal, $login:literal, $($rust:ty)*) => {$(
        $on.cell::<String, String, $rust>("other", $column, $value, "ada").await;
        $on.cell::<String, String, Option<$rust>>("other", $column, $value, "ada").await;
        $on.cell::<String, $rust, String>("login", $column, $value, $login).await;
    )*};
}

/// Checks the cells of one column that can also be an id.
macro_rules! id_column {
    ($on:ident, $column:literal, $value:literal, $login:literal, $($rust:ty)*) => {
        column!($on, $column, $value, $login, $($rust)*);
        $($on.cell::<$rust, String, String>("id", $column, $value, "ada").await;)*
    };
}

macro_rules! database {
    ($name:ident, $database:ty, $store:ident, $parameter:literal, $text:literal) => {
        /// The database where the cells are checked.
        struct $name {
            pool: Pool<$database>,
            prefix: String,
            counts: std::cell::Cell<(u32, u32)>,
        }

        impl $name {
            async fn open(url: &str) -> Self {
                let pool = Pool::connect(url).await.expect("a database");
                let prefix = format!("c{}_{}_", std::process::id(), number());
                let store = $store::builder_on(pool.clone()).with_table_prefix(&prefix).migrate();
                store.build().await.expect("tables");
                Self { pool, prefix, counts: Default::default() }
            }

            async fn run(&self, sql: String) {
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&self.pool).await.expect("a statement");
            }

            /// Checks a cell against plain sqlx: what sqlx reads works, and what it can't read is
            /// an error of `build`.
            fn cell<'a, I, L, O>(
                &'a self,
                role: &'a str,
                column: &'a str,
                value: &'a str,
                login: &'a str,
            ) -> Pin<Box<dyn Future<Output = ()> + 'a>>
            where
                Owner<I, L, O>: for<'r> FromRow<'r, <$database as sqlx::Database>::Row> + AuthUser,
                I: Display + std::str::FromStr + sqlx::Type<$database> + Send + Unpin,
                I: for<'q> sqlx::Encode<'q, $database> + for<'q> sqlx::Decode<'q, $database>,
                I: 'static,
                L: Send + Unpin + 'static,
                O: Send + Unpin + 'static,
            {
                // A boxed future, because the tests below hold hundreds of them.
                Box::pin(self.tried::<I, L, O>(role, column, value, login))
            }

            async fn tried<I, L, O>(&self, role: &str, column: &str, value: &str, login: &str)
            where
                Owner<I, L, O>: for<'r> FromRow<'r, <$database as sqlx::Database>::Row> + AuthUser,
                I: Display + std::str::FromStr + sqlx::Type<$database> + Send + Unpin,
                I: for<'q> sqlx::Encode<'q, $database> + for<'q> sqlx::Decode<'q, $database>,
                I: 'static,
                L: Send + Unpin + 'static,
                O: Send + Unpin + 'static,
            {
                let table = format!("owner{}_{}", std::process::id(), number());
                let of = |name: &str| if name == role { column } else { $text };
                let (id, name, other) = (of("id"), of("login"), of("other"));
                let create = format!("CREATE TABLE {table} (id {id}, login {name}, other {other})");
                self.run(create).await;
                let of = |name: &str, text: &str| {
                    if name == role { value.to_owned() } else { format!("'{text}'") }
                };
                let values = [of("id", "7"), of("login", "ada"), of("other", "x")].join(", ");
                self.run(format!("INSERT INTO {table} VALUES ({values})")).await;
                let by = |column| {
                    format!("SELECT id, login, other FROM {table} WHERE {column} = {}", $parameter)
                };
                let all = format!("SELECT id, login, other FROM {table}");
                let plain = sqlx::query_as::<_, Owner<I, L, O>>(AssertSqlSafe(all));
                let mut plain =
                    plain.fetch_one(&self.pool).await.map(|owner| owner.id().to_string());
                // A login name is also looked up.
                if role == "login" && plain.is_ok() {
                    let named = sqlx::query_as::<_, Owner<I, L, O>>(AssertSqlSafe(by("login")));
                    let named = named.bind(login.to_owned()).fetch_one(&self.pool).await;
                    plain = named.map(|owner| owner.id().to_string());
                }
                let padded = role == "id" && plain.as_ref().is_ok_and(|id| id.ends_with(' '));
                let right = match &plain {
                    Ok(_) if !padded => Cell::Works,
                    Err(sqlx::Error::RowNotFound) => Cell::FindsNobody,
                    _ => Cell::IsAnErrorOfBuild,
                };
                let store = $store::builder_on(self.pool.clone()).with_table_prefix(&self.prefix);
                let store = store.with_users::<Owner<I, L, O>, I>(by("id"), by("login"));
                let store = store.build().await;
                let what = format!(
                    "{role} {column} as ({}, {}, {}): {plain:?}, {:?}",
                    std::any::type_name::<I>(),
                    std::any::type_name::<L>(),
                    std::any::type_name::<O>(),
                    store.as_ref().err(),
                );
                println!("{what}");
                assert_eq!(ours(store, column, login).await, right, "{what}");
                let (works, fails) = self.counts.get();
                self.counts.set(match right {
                    Cell::IsAnErrorOfBuild => (works, fails + 1),
                    _ => (works + 1, fails),
                });
                self.run(format!("DROP TABLE {table}")).await;
            }
        }
    };
}

database!(OnPostgres, sqlx::Postgres, PostgresStore, "$1", "TEXT");
database!(OnMySql, sqlx::MySql, MySqlStore, "?", "VARCHAR(100)");
database!(OnSqlite, sqlx::Sqlite, SqliteStore, "?1", "TEXT");

#[tokio::test]
async fn postgres_reads_each_column_as_sqlx_does_or_says_that_it_cannot() {
    let on = OnPostgres::open(&server("POSTGRES_URL")).await;
    on.run(
        "DROP TYPE IF EXISTS keep_role; CREATE TYPE keep_role AS ENUM ('admin', 'user')".to_owned(),
    )
    .await;
    id_column!(on, "TEXT", "'x'", "x", String i64 i32 Uuid);
    id_column!(on, "VARCHAR(20)", "'x'", "x", String i64 Uuid);
    id_column!(on, "TEXT COLLATE \"C\"", "'x'", "x", String i64);
    id_column!(on, "CHAR(8)", "'x'", "x", String i64);
    id_column!(on, "SMALLINT", "7", "7", String i64 i32 bool);
    id_column!(on, "INTEGER", "7", "7", String i64 i32 bool);
    id_column!(on, "BIGINT", "7", "7", String i64 i32 f64);
    id_column!(on, "UUID", "'00000000-0000-0000-0000-000000000007'", "7", String i64 Uuid);
    column!(on, "BOOLEAN", "TRUE", "true", String i64 bool);
    column!(on, "DOUBLE PRECISION", "1.5", "1.5", String i64 f64);
    column!(on, "NUMERIC(9, 2)", "1.5", "1.5", String i64 f64);
    column!(on, "BYTEA", "'\\x00'", "x", String Vec<u8> i64);
    column!(on, "JSON", "'{}'", "{}", String serde_json::Value i64);
    column!(on, "JSONB", "'{}'", "{}", String serde_json::Value i64);
    column!(on, "DATE", "'2020-01-01'", "2020-01-01", String i64);
    column!(on, "TIMESTAMP", "'2020-01-01'", "2020-01-01", String i64);
    column!(on, "TIMESTAMPTZ", "'2020-01-01'", "2020-01-01", String i64);
    column!(on, "TIME", "'00:00:00'", "00:00:00", String i64);
    column!(on, "INET", "'127.0.0.1'", "127.0.0.1", String i64);
    column!(on, "keep_role", "'admin'", "admin", String i64);
    column!(on, "TEXT[]", "'{a}'", "a", String Vec<String> i64);
    let (works, fails) = on.counts.get();
    assert!(works > 30 && fails > 30, "{works} {fails}");
}

async fn mysql_columns(on: &OnMySql) {
    id_column!(on, "VARCHAR(20)", "'x'", "x", String i64 Uuid);
    id_column!(on, "VARCHAR(20) COLLATE utf8mb4_bin", "'x'", "x", String i64 Uuid);
    id_column!(on, "VARCHAR(20) COLLATE utf8mb4_general_ci", "'x'", "x", String i64);
    id_column!(on, "VARCHAR(20) CHARACTER SET latin1", "'x'", "x", String i64);
    id_column!(on, "VARCHAR(20) CHARACTER SET ascii COLLATE ascii_bin", "'x'", "x", String i64);
    id_column!(on, "CHAR(20)", "'x'", "x", String i64);
    id_column!(on, "CHAR(20) COLLATE utf8mb4_bin", "'x'", "x", String i64);
    id_column!(on, "TEXT", "'x'", "x", String i64);
    id_column!(on, "TEXT COLLATE utf8mb4_bin", "'x'", "x", String i64);
    column!(on, "TINYTEXT COLLATE utf8mb4_bin", "'x'", "x", String i64);
    column!(on, "LONGTEXT COLLATE utf8mb4_bin", "'x'", "x", String i64);
    id_column!(on, "SMALLINT", "7", "7", String i64 i32 u64);
    id_column!(on, "INT", "7", "7", String i64 i32 u64);
    id_column!(on, "INT UNSIGNED", "7", "7", String i64 i32 u64);
    id_column!(on, "BIGINT", "7", "7", String i64 i32 u64);
    id_column!(on, "BIGINT UNSIGNED", "7", "7", String i64 i32 u64);
    id_column!(on, "BINARY(16)", "x'00000000000000000000000000000007'", "x", i64 Uuid);
    column!(on, "BINARY(16)", "'0123456789abcdef'", "0123456789abcdef", String Vec<u8>);
    column!(on, "VARBINARY(20)", "'x'", "x", String Vec<u8> i64);
    column!(on, "BLOB", "'x'", "x", String Vec<u8> i64);
    column!(on, "BOOLEAN", "TRUE", "1", String i64 bool);
    column!(on, "DOUBLE", "1.5", "1.5", String i64 f64);
    column!(on, "DECIMAL(9, 2)", "1.5", "1.5", String i64);
    column!(on, "JSON", "'{}'", "{}", serde_json::Value i64);
    column!(on, "DATE", "'2020-01-01'", "2020-01-01", String i64);
    column!(on, "DATETIME", "'2020-01-01'", "2020-01-01", String i64);
    column!(on, "TIMESTAMP", "'2020-01-01'", "2020-01-01", String i64);
    column!(on, "TIME", "'00:00:00'", "00:00:00", String i64);
    column!(on, "YEAR", "2020", "2020", String);
    column!(on, "BIT(1)", "1", "1", String bool u64);
    column!(on, "ENUM('admin', 'user')", "'admin'", "admin", String i64);
    column!(on, "SET('admin', 'user')", "'admin'", "admin", String i64);
    // Only as another column, because MySQL does not compare JSON with text.
    on.cell::<String, String, String>("other", "JSON", "'{}'", "ada").await;
    let (works, fails) = on.counts.get();
    assert!(works > 30 && fails > 30, "{works} {fails}");
}

#[tokio::test]
async fn mysql_reads_each_column_as_sqlx_does_or_says_that_it_cannot() {
    mysql_columns(&OnMySql::open(&server("MYSQL_URL")).await).await;
}

#[tokio::test]
async fn mariadb_reads_each_column_as_sqlx_does_or_says_that_it_cannot() {
    let on = OnMySql::open(&server("MARIADB_URL")).await;
    mysql_columns(&on).await;
    let seven = "'00000000-0000-0000-0000-000000000007'";
    on.cell::<String, String, String>("id", "UUID", seven, "ada").await;
    on.cell::<Uuid, String, String>("id", "UUID", seven, "ada").await;
    on.cell::<String, String, Uuid>("other", "UUID", seven, "ada").await;
    column!(on, "UUID", "'00000000-0000-0000-0000-000000000007'",
        "00000000-0000-0000-0000-000000000007", String i64);
}

#[tokio::test]
async fn sqlite_reads_each_column_as_sqlx_does_or_says_that_it_cannot() {
    let file = format!("{}/columns{}.db", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    let _ = std::fs::remove_file(&file);
    let on = OnSqlite::open(&format!("sqlite:{file}?mode=rwc")).await;
    id_column!(on, "TEXT", "'x'", "x", String i64 Uuid);
    id_column!(on, "TEXT COLLATE NOCASE", "'x'", "x", String i64);
    id_column!(on, "VARCHAR(20)", "'x'", "x", String i64);
    id_column!(on, "CHAR(20)", "'x'", "x", String i64);
    id_column!(on, "INTEGER", "7", "7", String i64 i32);
    id_column!(on, "INT", "7", "7", String i64 i32);
    id_column!(on, "BIGINT", "7", "7", String i64 i32);
    id_column!(on, "BLOB", "x'00000000000000000000000000000007'", "x", i64 Uuid);
    column!(on, "BLOB", "x'00'", "x", Vec<u8> i64);
    column!(on, "BOOLEAN", "TRUE", "1", String i64 bool);
    column!(on, "REAL", "1.5", "1.5", String i64 f64);
    column!(on, "DATETIME", "'2020-01-01 00:00:00'", "2020-01-01 00:00:00", String i64);
    let (works, fails) = on.counts.get();
    assert!(works > 20 && fails > 20, "{works} {fails}");
    let _ = std::fs::remove_file(&file);
}
