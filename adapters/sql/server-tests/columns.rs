//! A store on an application's own table reads each column as plain sqlx does, or `build` returns
//! an error. For each database, the tests check combinations of a column's type, its Rust type, and
//! its role: the id, the login name, or another column.

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

/// A user of the application, whose three columns have any types.
#[derive(Debug, FromRow)]
struct AppUser<I, L, O> {
    id: I,
    #[expect(dead_code, reason = "only read from the database")]
    login: L,
    #[expect(dead_code, reason = "only read from the database")]
    other: O,
}

impl<I, L, O> AuthUser for AppUser<I, L, O>
where
    I: IdText + Send + Sync + 'static,
    L: Send + Sync + 'static,
    O: Send + Sync + 'static,
{
    fn id(&self) -> UserId {
        self.id.id_text().into()
    }

    fn security_stamp(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(b"1")
    }
}

/// An id that can be written as text.
trait IdText {
    fn id_text(&self) -> String;
}

macro_rules! id_text {
    ($($id:ty)*) => {$(
        impl IdText for $id {
            fn id_text(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

id_text!(String i64 i32 u64 bool f64 Uuid);

/// What happens with a combination.
#[derive(Debug, PartialEq)]
enum Outcome {
    Works,
    /// The column can be read, but looking up its value as a login name finds no user.
    FindsNoUser,
    BuildFails,
}

/// Returns the outcome with a store on a table with one user.
async fn outcome_of<S>(store: Result<S, StoreError>, column: &str, login: &str) -> Outcome
where
    S: UserLookup + LoginStore + SessionStore,
{
    let Ok(store) = store else { return Outcome::BuildFails };
    let named = store.by_login_name(login).await.expect("a store that was built can read");
    let Some(named) = named else { return Outcome::FindsNoUser };
    let by_id = store.by_id(&named.id()).await.expect("a store that was built can read");
    assert!(by_id.is_some(), "no user has the id {:?} of the column {column}", named.id());
    let record = new_record(&named.id());
    store.create(&NewLogin::new(&record, record.expires)).await.expect("a new session");
    let found = store
        .load_login(&record.key, Some(&named.id()))
        .await
        .expect("a store that was built can read");
    assert!(found.is_some_and(|found| found.user.is_some()), "the next request finds no user");
    Outcome::Works
}

fn next_number() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}

fn database_url(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set; `cargo xtask servers` starts a server"))
}

/// Checks a column as the login name and as another column, with each of the Rust types. The
/// arguments are the column's type, a value as an SQL literal, and the login name that finds the
/// value.
macro_rules! check_column {
    ($db:ident, $column:literal, $value:literal, $login:literal, $($rust:ty)*) => {$(
        $db.check::<String, String, $rust>("other", $column, $value, "ada").await;
        $db.check::<String, String, Option<$rust>>("other", $column, $value, "ada").await;
        $db.check::<String, $rust, String>("login", $column, $value, $login).await;
    )*};
}

/// Checks a column as `check_column` does, and also as the id.
macro_rules! check_id_column {
    ($db:ident, $column:literal, $value:literal, $login:literal, $($rust:ty)*) => {
        check_column!($db, $column, $value, $login, $($rust)*);
        $($db.check::<$rust, String, String>("id", $column, $value, "ada").await;)*
    };
}

macro_rules! database {
    ($name:ident, $database:ty, $store:ident, $parameter:literal, $text:literal) => {
        /// The database where the combinations are checked.
        struct $name {
            pool: Pool<$database>,
            prefix: String,
            /// How many combinations worked, and for how many `build` failed.
            counts: std::cell::Cell<(u32, u32)>,
        }

        impl $name {
            async fn open(url: &str) -> Self {
                let pool = Pool::connect(url).await.expect("a database");
                let prefix = format!("c{}_{}_", std::process::id(), next_number());
                let store = $store::builder_on(pool.clone()).with_table_prefix(&prefix).migrate();
                store.build().await.expect("tables");
                Self { pool, prefix, counts: Default::default() }
            }

            async fn run(&self, sql: String) {
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&self.pool).await.expect("a statement");
            }

            /// Checks one combination: a column that plain sqlx reads works, and for a column that
            /// sqlx can't read, `build` fails.
            fn check<'a, I, L, O>(
                &'a self,
                role: &'a str,
                column: &'a str,
                value: &'a str,
                login: &'a str,
            ) -> Pin<Box<dyn Future<Output = ()> + 'a>>
            where
                AppUser<I, L, O>:
                    for<'r> FromRow<'r, <$database as sqlx::Database>::Row> + AuthUser,
                I: Display + std::str::FromStr + sqlx::Type<$database> + Send + Unpin,
                I: for<'q> sqlx::Encode<'q, $database> + for<'q> sqlx::Decode<'q, $database>,
                I: 'static,
                L: Send + Unpin + 'static,
                O: Send + Unpin + 'static,
            {
                // A boxed future, because the tests below hold hundreds of them.
                Box::pin(async move {
                    let table = format!("owner{}_{}", std::process::id(), next_number());
                    let type_of = |name: &str| if name == role { column } else { $text };
                    let (id, name, other) = (type_of("id"), type_of("login"), type_of("other"));
                    let create =
                        format!("CREATE TABLE {table} (id {id}, login {name}, other {other})");
                    self.run(create).await;
                    let literal = |name: &str, text: &str| {
                        if name == role { value.to_owned() } else { format!("'{text}'") }
                    };
                    let values =
                        [literal("id", "7"), literal("login", "ada"), literal("other", "x")];
                    let values = values.join(", ");
                    self.run(format!("INSERT INTO {table} VALUES ({values})")).await;
                    let select_by = |column| {
                        format!(
                            "SELECT id, login, other FROM {table} WHERE {column} = {}",
                            $parameter
                        )
                    };
                    let all = format!("SELECT id, login, other FROM {table}");
                    let plain = sqlx::query_as::<_, AppUser<I, L, O>>(AssertSqlSafe(all));
                    let mut id_by_sqlx =
                        plain.fetch_one(&self.pool).await.map(|user| user.id().to_string());
                    // The login name must also find the user.
                    if role == "login" && id_by_sqlx.is_ok() {
                        let named = sqlx::query_as::<_, AppUser<I, L, O>>(AssertSqlSafe(
                            select_by("login"),
                        ));
                        let named = named.bind(login.to_owned()).fetch_one(&self.pool).await;
                        id_by_sqlx = named.map(|user| user.id().to_string());
                    }
                    // `build` rejects a column that pads ids with spaces.
                    let is_padded =
                        role == "id" && id_by_sqlx.as_ref().is_ok_and(|id| id.ends_with(' '));
                    let expected = match &id_by_sqlx {
                        Ok(_) if !is_padded => Outcome::Works,
                        Err(sqlx::Error::RowNotFound) => Outcome::FindsNoUser,
                        _ => Outcome::BuildFails,
                    };
                    let store =
                        $store::builder_on(self.pool.clone()).with_table_prefix(&self.prefix);
                    let store = store
                        .with_users::<AppUser<I, L, O>, I>(select_by("id"), select_by("login"));
                    let store = store.build().await;
                    let combination = format!(
                        "{role} {column} as ({}, {}, {}): {id_by_sqlx:?}, {:?}",
                        std::any::type_name::<I>(),
                        std::any::type_name::<L>(),
                        std::any::type_name::<O>(),
                        store.as_ref().err(),
                    );
                    println!("{combination}");
                    assert_eq!(outcome_of(store, column, login).await, expected, "{combination}");
                    let (works, fails) = self.counts.get();
                    self.counts.set(match expected {
                        Outcome::BuildFails => (works, fails + 1),
                        _ => (works + 1, fails),
                    });
                    self.run(format!("DROP TABLE {table}")).await;
                })
            }
        }
    };
}

database!(OnPostgres, sqlx::Postgres, PostgresStore, "$1", "TEXT");
database!(OnMySql, sqlx::MySql, MySqlStore, "?", "VARCHAR(100)");
database!(OnSqlite, sqlx::Sqlite, SqliteStore, "?1", "TEXT");

#[tokio::test]
async fn postgres_reads_each_column_as_sqlx_does_or_build_fails() {
    let db = OnPostgres::open(&database_url("POSTGRES_URL")).await;
    db.run(
        "DROP TYPE IF EXISTS keep_role; CREATE TYPE keep_role AS ENUM ('admin', 'user')".to_owned(),
    )
    .await;
    check_id_column!(db, "TEXT", "'x'", "x", String i64 i32 Uuid);
    check_id_column!(db, "VARCHAR(20)", "'x'", "x", String i64 Uuid);
    check_id_column!(db, "TEXT COLLATE \"C\"", "'x'", "x", String i64);
    check_id_column!(db, "CHAR(8)", "'x'", "x", String i64);
    check_id_column!(db, "SMALLINT", "7", "7", String i64 i32 bool);
    check_id_column!(db, "INTEGER", "7", "7", String i64 i32 bool);
    check_id_column!(db, "BIGINT", "7", "7", String i64 i32 f64);
    check_id_column!(db, "UUID", "'00000000-0000-0000-0000-000000000007'", "7", String i64 Uuid);
    check_column!(db, "BOOLEAN", "TRUE", "true", String i64 bool);
    check_column!(db, "DOUBLE PRECISION", "1.5", "1.5", String i64 f64);
    check_column!(db, "NUMERIC(9, 2)", "1.5", "1.5", String i64 f64);
    check_column!(db, "BYTEA", "'\\x00'", "x", String Vec<u8> i64);
    check_column!(db, "JSON", "'{}'", "{}", String serde_json::Value i64);
    check_column!(db, "JSONB", "'{}'", "{}", String serde_json::Value i64);
    check_column!(db, "DATE", "'2020-01-01'", "2020-01-01", String i64);
    check_column!(db, "TIMESTAMP", "'2020-01-01'", "2020-01-01", String i64);
    check_column!(db, "TIMESTAMPTZ", "'2020-01-01'", "2020-01-01", String i64);
    check_column!(db, "TIME", "'00:00:00'", "00:00:00", String i64);
    check_column!(db, "INET", "'127.0.0.1'", "127.0.0.1", String i64);
    check_column!(db, "keep_role", "'admin'", "admin", String i64);
    check_column!(db, "TEXT[]", "'{a}'", "a", String Vec<String> i64);
    let (works, fails) = db.counts.get();
    assert!(works > 30 && fails > 30, "{works} {fails}");
}

async fn mysql_columns(db: &OnMySql) {
    check_id_column!(db, "VARCHAR(20)", "'x'", "x", String i64 Uuid);
    check_id_column!(db, "VARCHAR(20) COLLATE utf8mb4_bin", "'x'", "x", String i64 Uuid);
    check_id_column!(db, "VARCHAR(20) COLLATE utf8mb4_general_ci", "'x'", "x", String i64);
    check_id_column!(db, "VARCHAR(20) CHARACTER SET latin1", "'x'", "x", String i64);
    check_id_column!(db, "VARCHAR(20) CHARACTER SET ascii COLLATE ascii_bin", "'x'", "x",
        String i64);
    check_id_column!(db, "CHAR(20)", "'x'", "x", String i64);
    check_id_column!(db, "CHAR(20) COLLATE utf8mb4_bin", "'x'", "x", String i64);
    check_id_column!(db, "TEXT", "'x'", "x", String i64);
    check_id_column!(db, "TEXT COLLATE utf8mb4_bin", "'x'", "x", String i64);
    check_column!(db, "TINYTEXT COLLATE utf8mb4_bin", "'x'", "x", String i64);
    check_column!(db, "LONGTEXT COLLATE utf8mb4_bin", "'x'", "x", String i64);
    check_id_column!(db, "SMALLINT", "7", "7", String i64 i32 u64);
    check_id_column!(db, "INT", "7", "7", String i64 i32 u64);
    check_id_column!(db, "INT UNSIGNED", "7", "7", String i64 i32 u64);
    check_id_column!(db, "BIGINT", "7", "7", String i64 i32 u64);
    check_id_column!(db, "BIGINT UNSIGNED", "7", "7", String i64 i32 u64);
    check_id_column!(db, "BINARY(16)", "x'00000000000000000000000000000007'", "x", i64 Uuid);
    check_column!(db, "BINARY(16)", "'0123456789abcdef'", "0123456789abcdef", String Vec<u8>);
    check_column!(db, "VARBINARY(20)", "'x'", "x", String Vec<u8> i64);
    check_column!(db, "BLOB", "'x'", "x", String Vec<u8> i64);
    check_column!(db, "BOOLEAN", "TRUE", "1", String i64 bool);
    check_column!(db, "DOUBLE", "1.5", "1.5", String i64 f64);
    check_column!(db, "DECIMAL(9, 2)", "1.5", "1.5", String i64);
    check_column!(db, "JSON", "'{}'", "{}", serde_json::Value i64);
    check_column!(db, "DATE", "'2020-01-01'", "2020-01-01", String i64);
    check_column!(db, "DATETIME", "'2020-01-01'", "2020-01-01", String i64);
    check_column!(db, "TIMESTAMP", "'2020-01-01'", "2020-01-01", String i64);
    check_column!(db, "TIME", "'00:00:00'", "00:00:00", String i64);
    check_column!(db, "YEAR", "2020", "2020", String);
    check_column!(db, "BIT(1)", "1", "1", String bool u64);
    check_column!(db, "ENUM('admin', 'user')", "'admin'", "admin", String i64);
    check_column!(db, "SET('admin', 'user')", "'admin'", "admin", String i64);
    // A JSON column that is read as a `String` is not checked as the login name, because MySQL does
    // not compare JSON with text.
    db.check::<String, String, String>("other", "JSON", "'{}'", "ada").await;
    let (works, fails) = db.counts.get();
    assert!(works > 30 && fails > 30, "{works} {fails}");
}

#[tokio::test]
async fn mysql_reads_each_column_as_sqlx_does_or_build_fails() {
    mysql_columns(&OnMySql::open(&database_url("MYSQL_URL")).await).await;
}

#[tokio::test]
async fn mariadb_reads_each_column_as_sqlx_does_or_build_fails() {
    let db = OnMySql::open(&database_url("MARIADB_URL")).await;
    mysql_columns(&db).await;
    let seven = "'00000000-0000-0000-0000-000000000007'";
    db.check::<String, String, String>("id", "UUID", seven, "ada").await;
    db.check::<Uuid, String, String>("id", "UUID", seven, "ada").await;
    db.check::<String, String, Uuid>("other", "UUID", seven, "ada").await;
    check_column!(db, "UUID", "'00000000-0000-0000-0000-000000000007'",
        "00000000-0000-0000-0000-000000000007", String i64);
}

#[tokio::test]
async fn sqlite_reads_each_column_as_sqlx_does_or_build_fails() {
    let file = format!("{}/columns{}.db", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    let _ = std::fs::remove_file(&file);
    let db = OnSqlite::open(&format!("sqlite:{file}?mode=rwc")).await;
    check_id_column!(db, "TEXT", "'x'", "x", String i64 Uuid);
    check_id_column!(db, "TEXT COLLATE NOCASE", "'x'", "x", String i64);
    check_id_column!(db, "VARCHAR(20)", "'x'", "x", String i64);
    check_id_column!(db, "CHAR(20)", "'x'", "x", String i64);
    check_id_column!(db, "INTEGER", "7", "7", String i64 i32);
    check_id_column!(db, "INT", "7", "7", String i64 i32);
    check_id_column!(db, "BIGINT", "7", "7", String i64 i32);
    check_id_column!(db, "BLOB", "x'00000000000000000000000000000007'", "x", i64 Uuid);
    check_column!(db, "BLOB", "x'00'", "x", Vec<u8> i64);
    check_column!(db, "BOOLEAN", "TRUE", "1", String i64 bool);
    check_column!(db, "REAL", "1.5", "1.5", String i64 f64);
    check_column!(db, "DATETIME", "'2020-01-01 00:00:00'", "2020-01-01 00:00:00", String i64);
    let (works, fails) = db.counts.get();
    assert!(works > 20 && fails > 20, "{works} {fails}");
    let _ = std::fs::remove_file(&file);
}
