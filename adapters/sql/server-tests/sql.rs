//! The common behaviour of the SQL adapters: the application's own users, the checks at the start,
//! migrations, names, errors and secrets. Each test runs on PostgreSQL, on SQLite, and on the
//! server of `MYSQL_URL`, which is MySQL or MariaDB.

use std::borrow::Cow;
use std::error::Error;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sqlx::{FromRow, Pool};
use tower_keep_core::{
    Account, AuthUser, Creation, LoginStore, MAX_PER_CALL, NewLogin, RememberPeriod,
    SessionDetails, SessionKey, SessionLimit, SessionRecord, SessionStore, StoreError,
    StoreErrorKind, Timestamp, UserDirectory, UserId, UserLookup, UserStore, WhenFull,
};
use tower_keep_mysql::MySqlDialect;
use tower_keep_postgres::PostgresDialect;
use tower_keep_sql::{Dialect, SqlStore, SqlStoreBuilder};
use tower_keep_sqlite::SqliteDialect;
use tower_keep_testkit::contract;
use tower_keep_testkit::contract::sessions::new_record;
use uuid::Uuid;

/// A database that the tests run on.
trait Tested: Dialect {
    /// Returns the URL of the database; for SQLite, the URL of a new file.
    fn url() -> String;

    /// Runs these statements.
    async fn run(pool: &Pool<Self::Database>, sql: &str);

    /// Returns the number that this query selects.
    async fn select_number(pool: &Pool<Self::Database>, sql: &str) -> i64;

    /// The SQL type of a column of UUIDs.
    const UUID_TYPE: &'static str;
    /// Returns this UUID as an SQL literal.
    fn uuid(uuid: Uuid) -> String;

    /// Returns these bytes as an SQL literal.
    fn bytes(hex: &str) -> String {
        if Self::NAME == "postgres" { format!("'\\x{hex}'") } else { format!("x'{hex}'") }
    }

    /// Returns a statement that makes the column `created` a `VARCHAR` of this length.
    fn retype(table: &str, length: u32) -> String {
        let column = format!("created VARCHAR({length})");
        match Self::NAME {
            "postgres" => {
                format!("ALTER TABLE {table} ALTER COLUMN created TYPE VARCHAR({length})")
            }
            "mysql" => format!("ALTER TABLE {table} MODIFY COLUMN {column}"),
            _ => format!(
                "ALTER TABLE {table} DROP COLUMN created; ALTER TABLE {table} ADD COLUMN {column}"
            ),
        }
    }

    /// The SQL type of a column of texts that may be a key.
    const TEXT_TYPE: &'static str;
}

macro_rules! tested {
    ($dialect:ty, $url:expr, $uuid_type:literal, $text_type:literal, $uuid:expr) => {
        impl Tested for $dialect {
            fn url() -> String {
                $url
            }

            async fn run(pool: &Pool<Self::Database>, sql: &str) {
                sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(pool).await.expect(sql);
            }

            async fn select_number(pool: &Pool<Self::Database>, sql: &str) -> i64 {
                let query = sqlx::query_scalar(sqlx::AssertSqlSafe(sql));
                query.fetch_one(pool).await.expect(sql)
            }

            const UUID_TYPE: &'static str = $uuid_type;
            const TEXT_TYPE: &'static str = $text_type;

            fn uuid(uuid: Uuid) -> String {
                let write: fn(Uuid) -> String = $uuid;
                write(uuid)
            }
        }
    };
}

fn server_url(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: run `cargo xtask test`, which starts a server")
    })
}

tested!(PostgresDialect, server_url("POSTGRES_URL"), "UUID", "TEXT", |id| format!("'{id}'"));
tested!(MySqlDialect, server_url("MYSQL_URL"), "BINARY(16)", "VARCHAR(200)", |id| {
    format!("x'{}'", id.simple())
});
tested!(SqliteDialect, new_file_url(), "BLOB", "TEXT", |id| format!("x'{}'", id.simple()));

fn new_file_url() -> String {
    let file = format!("{}/{}.db", env!("CARGO_TARGET_TMPDIR"), new_prefix());
    // An earlier process with the same id may have left these files.
    for file in [file.clone(), format!("{file}-wal"), format!("{file}-shm")] {
        let _ = std::fs::remove_file(file);
    }
    format!("sqlite:{file}")
}

/// Returns a number that no earlier call has returned.
fn next_number() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}

/// Returns a table prefix that no other test uses.
fn new_prefix() -> String {
    format!("s{}_{}_", std::process::id(), next_number())
}

fn builder<D: Tested>() -> SqlStoreBuilder<D> {
    let builder = SqlStore::builder(D::url()).with_timeout(Duration::from_secs(20));
    builder.with_table_prefix(new_prefix()).migrate()
}

/// Returns the builder of a store with other tables in the same database. The caller adds the
/// users.
fn builder_beside<D: Tested>(store: &SqlStore<D>) -> SqlStoreBuilder<D> {
    let builder = SqlStore::builder_on(store.pool().clone()).with_timeout(Duration::from_secs(20));
    builder.with_table_prefix(new_prefix()).migrate()
}

/// Runs a test on each database, as three tests.
macro_rules! on_each {
    ($($test:ident)*) => {$(
        mod $test {
            use super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                super::$test::<PostgresDialect>().await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn mysql() {
                super::$test::<MySqlDialect>().await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                super::$test::<SqliteDialect>().await;
            }
        }
    )*};
}

on_each! {
    own_users_have_ids_of_every_type
    the_session_contract_holds_beside_own_users
    a_select_that_does_not_fit_the_users_is_an_error_at_the_start
    missing_older_or_newer_tables_are_an_error_that_says_what_to_do
    several_nodes_can_migrate_at_the_same_time
    tables_of_the_first_version_are_migrated_and_the_logins_stay
    the_application_chooses_the_table_prefix
    no_error_shows_the_password
    without_a_free_connection_a_call_is_unavailable_in_time
    no_error_shows_stored_values
    a_new_limit_ends_all_sessions_beyond_it
    columns_added_to_the_users_later_do_no_harm
    calls_succeed_after_a_column_got_another_type
    rows_that_cannot_be_read_are_corrupt
    an_acting_user_is_stored_as_given_or_is_an_error
    a_dropped_call_leaves_its_connection_usable
}

/// Returns all texts of an error and its sources, as a log may show them.
fn full_text(error: &StoreError) -> String {
    let mut text = format!("{error} {error:?}");
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error} {error:?}");
        source = error.source();
    }
    text
}

/// A user of the application's own type, with an id of type `I`.
#[derive(Clone, Debug, FromRow, PartialEq)]
struct Member<I> {
    id: I,
    email: String,
    /// A column of the application, which has the same name as a column of our session table.
    created: Option<String>,
}

impl<I: ToString + Send + Sync + 'static> AuthUser for Member<I> {
    fn id(&self) -> UserId {
        self.id.to_string().into()
    }

    fn security_stamp(&self) -> Cow<'_, [u8]> {
        self.email.as_bytes().into()
    }
}

/// Creates a table of two members, whose ids are SQL literals of the type `id_type`, and returns
/// the table's name.
async fn create_members<D: Tested>(
    pool: &Pool<D::Database>,
    id_type: &str,
    ids: [&str; 2],
) -> String {
    let table = format!("member{}_{}", std::process::id(), next_number());
    let text = D::TEXT_TYPE;
    let create = format!(
        "CREATE TABLE {table} (id {id_type} NOT NULL PRIMARY KEY, email {text} NOT NULL UNIQUE, \
         created {text})"
    );
    D::run(pool, &create).await;
    for (id, email) in ids.iter().zip(["ada", "grace"]) {
        D::run(pool, &format!("INSERT INTO {table} VALUES ({id}, '{email}', NULL)")).await;
    }
    table
}

/// Returns the statements that select a member by id and by login name.
fn selects<D: Tested>(table: &str) -> [String; 2] {
    ["id", "email"].map(|column| {
        let parameter = D::placeholder(1);
        // The store must accept a comment at the end of a statement.
        format!("SELECT id, email, created FROM {table} WHERE {column} = {parameter} -- one;")
    })
}

async fn create_session<S: SessionStore>(store: &S, user: &UserId) -> SessionRecord {
    let record = new_record(user);
    store.create(&NewLogin::new(&record, record.expires)).await.expect("a new session");
    record
}

async fn own_users_have_ids_of_every_type<D: Tested>()
where
    i32: OwnId<D>,
    i64: OwnId<D>,
    String: OwnId<D>,
    Uuid: OwnId<D>,
{
    let uuids = [Uuid::from_u128(7), Uuid::from_u128(u128::MAX - 7)];
    let uuid_literals = uuids.map(D::uuid);
    let small = [7, i32::MIN];
    let large = [7_000_000_000, i64::MIN + 1];
    check_ids::<D, i32>("INTEGER", small.map(|id| id.to_string()), small).await;
    check_ids::<D, i64>("BIGINT", large.map(|id| id.to_string()), large).await;
    check_ids::<D, Uuid>(D::UUID_TYPE, uuid_literals, uuids).await;
    let texts = ["ada-1", "Grace 2"].map(str::to_owned);
    check_ids::<D, String>(D::TEXT_TYPE, texts.clone().map(|id| format!("'{id}'")), texts).await;
}

/// A type of the application's ids that a database supports.
trait OwnId<D: Tested>: Clone + Debug + PartialEq + ToString + Send + Sync + Unpin + 'static {
    async fn store(
        builder: SqlStoreBuilder<D>,
        selects: [String; 2],
    ) -> Result<SqlStore<D, Member<Self>>, StoreError>;
}

macro_rules! own_ids {
    ($($dialect:ty: $($id:ty)*;)*) => {$($(
        impl OwnId<$dialect> for $id {
            async fn store(
                builder: SqlStoreBuilder<$dialect>,
                [by_id, by_login_name]: [String; 2],
            ) -> Result<SqlStore<$dialect, Member<Self>>, StoreError> {
                builder.with_users::<Member<Self>, Self>(by_id, by_login_name).build().await
            }
        }
    )*)*};
}

own_ids! {
    PostgresDialect: i32 i64 String Uuid;
    MySqlDialect: i32 i64 String Uuid;
    SqliteDialect: i32 i64 String Uuid;
}

async fn check_ids<D: Tested, I: OwnId<D>>(id_type: &str, literals: [String; 2], ids: [I; 2]) {
    let plain = builder::<D>().build().await.expect("a database");
    let table = create_members::<D>(plain.pool(), id_type, [&literals[0], &literals[1]]).await;
    let own = builder_beside(&plain);
    let store = I::store(own, selects::<D>(&table)).await.expect("statements that fit");
    let member = |index: usize| {
        let email = ["ada", "grace"][index].to_owned();
        Member { id: ids[index].clone(), email, created: None }
    };
    for index in 0..2 {
        let id = member(index).id();
        let found = store.by_id(&id).await.expect("no error");
        assert_eq!(found.as_deref(), Some(&member(index)), "{id_type}");
        let named = store.by_login_name(&member(index).email).await.expect("no error");
        assert_eq!(named.as_deref(), Some(&member(index)), "{id_type}");
        let record = create_session(&store, &id).await;
        let other = member(1 - index).id();
        for user_hint in [Some(&id), None, Some(&other), Some(&"a\0b".into()), Some(&"x".into())] {
            let login = store.load_login(&record.key, user_hint).await.expect("no error");
            let login = login.expect("a login");
            assert_eq!(login.user.as_deref(), Some(&member(index)), "{id_type} {user_hint:?}");
            assert_eq!(*login.record, record, "{id_type} {user_hint:?}");
            let unknown = store.load_login(&SessionKey::new([9; 32]), user_hint).await;
            assert!(unknown.expect("no error").is_none(), "{id_type} {user_hint:?}");
        }
    }
    // A text that can't be an id, or that is another notation of an id, finds no user.
    let first = ids[0].to_string();
    let huge = "9".repeat(40);
    let long = "x".repeat(70_000);
    let odd_ids = [
        "",
        " ",
        "x",
        "007",
        "+7",
        "7 ",
        "7.0",
        "0x7",
        "a\0b",
        "' OR 1=1 --",
        "ADA-1",
        "grace 2",
        "ada-1 ",
        huge.as_str(),
        long.as_str(),
        "00000000000000000000000000000007",
    ];
    for id in odd_ids.into_iter().filter(|id| *id != first) {
        assert_eq!(store.by_id(&id.into()).await.expect("no error"), None, "{id_type} {id:?}");
    }
    assert_eq!(store.by_login_name("a\0b").await.expect("no error"), None);
    // If a user is deleted, the record remains.
    let record = create_session(&store, &member(0).id()).await;
    D::run(plain.pool(), &format!("DELETE FROM {table}")).await;
    for user_hint in [Some(&record.user), None] {
        let login = store.load_login(&record.key, user_hint).await.expect("no error");
        assert_eq!(login.expect("a login").user, None);
    }
}

async fn the_session_contract_holds_beside_own_users<D: Tested>()
where
    i64: OwnId<D>,
{
    let plain = builder::<D>().build().await.expect("a database");
    let table = create_members::<D>(plain.pool(), "BIGINT", ["1", "2"]).await;
    let own = builder_beside(&plain);
    let store = i64::store(own, selects::<D>(&table)).await.expect("statements that fit");
    contract::sessions::run_all(|| async { store.clone() }).await;
}

async fn a_select_that_does_not_fit_the_users_is_an_error_at_the_start<D: Tested>()
where
    i64: OwnId<D>,
    Uuid: OwnId<D>,
{
    let plain = builder::<D>().build().await.expect("a database");
    let table = create_members::<D>(plain.pool(), "BIGINT", ["1", "2"]).await;
    let one = D::placeholder(1);
    let good = |column| format!("SELECT * FROM {table} WHERE {column} = {one}");
    let by_id = |columns: &str, table: &str| {
        [format!("SELECT {columns} FROM {table} WHERE id = {one}"), good("email")]
    };
    let cases = [
        (by_id("*", "no_such_table"), "by id", "no_such_table"),
        (by_id("id, emial", &table), "by id", "emial"),
        (by_id("id, email", &table), "by id", "created"),
        ([good("id"), format!("SELECT id FROM {table} WHERE email = {one}")], "by login", "email"),
        ([good("id"), "SELECT nonsense".to_owned()], "by login", "nonsense"),
        ([format!("SELECT * FROM {table}"), good("email")], "by id", "0 parameters"),
    ];
    for (selects, statement, cause) in cases {
        let own = builder_beside(&plain);
        let error = i64::store(own, selects).await.expect_err(cause);
        let text = error.to_string();
        assert!(text.contains(statement) && text.contains(cause), "{text}");
    }
    let uuids = [Uuid::from_u128(7), Uuid::from_u128(8)].map(D::uuid);
    let table = create_members::<D>(plain.pool(), D::UUID_TYPE, [&uuids[0], &uuids[1]]).await;
    let own = builder_beside(&plain);
    let good_uuids = selects::<D>(&table);
    let bad = [by_id("id, email", &table)[0].clone(), good_uuids[1].clone()];
    let error = Uuid::store(own, bad).await.expect_err("a column is missing");
    assert!(full_text(&error).contains("created"), "{error:?}");
    let own = builder_beside(&plain);
    let semicolons = [good("id") + " ;", good("email") + ";;"];
    i64::store(own, semicolons).await.expect("a semicolon at the end does no harm");
}

async fn missing_older_or_newer_tables_are_an_error_that_says_what_to_do<D: Tested>() {
    let (url, prefix) = (D::url(), new_prefix());
    let builder = || SqlStore::<D>::builder(url.clone()).with_table_prefix(prefix.clone());
    let error = builder().build().await.expect_err("there are no tables");
    assert!(full_text(&error).contains("migrate()"), "{error:?}");
    let store = builder().migrate().build().await.expect("the tables");
    builder().build().await.expect("the tables are of this version");
    let newer = format!("INSERT INTO {prefix}versions (version) VALUES (1000)");
    D::run(store.pool(), &newer).await;
    for builder in [builder(), builder().migrate()] {
        let error = builder.build().await.expect_err("the tables are newer");
        assert_eq!(error.kind(), StoreErrorKind::Unsupported);
        assert!(full_text(&error).contains("later release"), "{error:?}");
    }
    let older = format!("DELETE FROM {prefix}versions");
    D::run(store.pool(), &older).await;
    let error = builder().build().await.expect_err("the tables are older");
    assert!(full_text(&error).contains("migrate()"), "{error:?}");
}

async fn several_nodes_can_migrate_at_the_same_time<D: Tested>() {
    let (url, prefix) = (D::url(), new_prefix());
    let mut nodes = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let builder = SqlStore::<D>::builder(url.clone()).with_table_prefix(prefix.clone());
        nodes.spawn(builder.with_max_connections(2).migrate().build());
    }
    let stores = nodes.join_all().await;
    let store = stores[0].as_ref().expect("a store");
    for other in &stores {
        assert!(other.is_ok(), "{other:?}");
    }
    let count = format!("SELECT COUNT(*) FROM {prefix}versions");
    assert_eq!(D::select_number(store.pool(), &count).await, D::MIGRATIONS.len() as i64);
}

async fn tables_of_the_first_version_are_migrated_and_the_logins_stay<D: Tested>() {
    let prefix = new_prefix();
    let pool = builder::<D>().build().await.expect("a database").pool().clone();
    D::run(&pool, &D::MIGRATIONS[0].replace("keep_", &prefix)).await;
    let insert = format!(
        "INSERT INTO {prefix}users (id, login_name, password_hash, active, security_stamp) \
         VALUES ('1', 'ada', 'hash', TRUE, {stamp})",
        stamp = D::bytes("AB"),
    );
    D::run(&pool, &insert).await;
    let insert = format!(
        "INSERT INTO {prefix}sessions (session_key, user_id, acting_user, generation, rotated_at, \
         seen_at, salt, created, session_started, last_seen, remember_expires, remember_seconds, \
         expires, details, ended_at, end_reason, successor, notified) VALUES \
         ({key}, '1', '2', 3, 1600000100, NULL, {salt}, 1600000000, 1600000100, 1600000200, \
         4000000000, 86400, 4000000000, '{{\"method\":\"password\"}}', NULL, NULL, NULL, FALSE)",
        key = D::bytes(&"07".repeat(32)),
        salt = D::bytes(&"01".repeat(16)),
    );
    D::run(&pool, &insert).await;
    let builder = SqlStore::<D>::builder_on(pool).with_table_prefix(prefix).migrate();
    let store = builder.build().await.expect("the newest version");
    let login = store.load_login(&SessionKey::new([7; 32]), None).await.expect("no error");
    let login = login.expect("a login");
    let account = Account::new(1, "ada", "hash").with_security_stamp([0xAB]);
    assert_eq!(login.user.as_deref(), Some(&account));
    let (created, expires) =
        (Timestamp::from_secs(1_600_000_000), Timestamp::from_secs(4_000_000_000));
    let key = SessionKey::new([7; 32]);
    let mut expected = SessionRecord::new(key, "1".into(), [1; 16], created, expires);
    expected.acting_user = Some("2".into());
    expected.generation = 3;
    expected.rotated_at = Some(created.plus(100));
    expected.session_started = created.plus(100);
    expected.last_seen = created.plus(200);
    expected.remember = Some(RememberPeriod::new(expires, 86_400));
    expected.details = SessionDetails::new(r#"{"method":"password"}"#);
    assert_eq!(*login.record, expected);
}

async fn the_application_chooses_the_table_prefix<D: Tested>() {
    let url = D::url();
    let open = |prefix: String| {
        let builder = SqlStore::<D>::builder(url.clone()).with_table_prefix(prefix);
        builder.with_max_connections(2).migrate().build()
    };
    let (one, other) =
        (open(new_prefix()).await.expect("one"), open(new_prefix()).await.expect("other"));
    let ada = Account::new(1, "ada", "");
    one.insert(&ada).await.expect("a new account");
    assert_eq!(other.by_id(ada.id()).await.expect("no error"), None);
    for bad in ["", "a b", "keep_; DROP TABLE x", "Ä"] {
        let error = open(bad.to_owned()).await.expect_err("not a prefix");
        assert!(full_text(&error).contains("prefix"), "{error:?}");
    }
}

async fn no_error_shows_the_password<D: Tested>() {
    let secret = "hunter2-and-more";
    let scheme = D::url().split(':').next().expect("a scheme").to_owned();
    let closed = "127.0.0.1:1";
    let urls = [
        format!("{scheme}://site:{secret}@{closed}/site"),
        format!("{scheme}://site:{secret}@{closed}:x/site"),
        format!("{scheme}://site:{secret}@no-such-host.invalid/site"),
        format!("{scheme}://site:{secret}@{closed}/site?no-such-parameter={secret}"),
        format!("nothing://site:{secret}@{closed}/site"),
        format!("{scheme}:/no-such-directory/{secret}?x={secret}"),
    ];
    for url in urls {
        let builder = SqlStore::<D>::builder(url.clone()).with_timeout(Duration::from_millis(200));
        let shown = format!("{builder:?}");
        assert!(!shown.contains(secret), "{shown}");
        let error = builder.build().await.expect_err("no database at this URL");
        let text = full_text(&error);
        assert!(!text.contains(secret), "{url}: {text}");
    }
    let store = builder::<D>().build().await.expect("a database");
    assert!(!format!("{store:?}").contains("secret"));
}

async fn without_a_free_connection_a_call_is_unavailable_in_time<D: Tested>() {
    let timeout = Duration::from_secs(2);
    let builder = builder::<D>().with_max_connections(1).with_timeout(timeout);
    let store = builder.build().await.expect("a database");
    let record = create_session(&store, &"1".into()).await;
    let held = store.pool().acquire().await.expect("the only connection");
    let begun = Instant::now();
    let other = new_record(&"1".into());
    let login = NewLogin::new(&other, other.expires);
    let error = store.create(&login).await.expect_err("there is no connection");
    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
    assert!(begun.elapsed() < timeout * 5, "{:?}", begun.elapsed());
    drop(held);
    assert!(store.load(&record.key).await.expect("a connection is free").is_some());
    store.create(&login).await.expect("a connection is free");
}

async fn no_error_shows_stored_values<D: Tested>() {
    let store = builder::<D>().build().await.expect("a database");
    let ada = Account::new("id-of-ada", "name-of-ada", "hash-of-ada");
    store.insert(&ada).await.expect("a new account");
    let taken = store.insert(&ada).await.expect_err("the account exists");
    assert_eq!(taken.kind(), StoreErrorKind::Conflict);
    let long = Account::new("x", "name-of-ada".repeat(10_000), "hash-of-ada");
    let mut errors = vec![taken];
    errors.extend(store.insert(&long).await.err());
    for error in errors {
        let text = full_text(&error);
        assert!(!text.contains("of-ada"), "{text}");
    }
}

async fn a_new_limit_ends_all_sessions_beyond_it<D: Tested>() {
    let store = builder::<D>().with_timeout(Duration::MAX).build().await.expect("a database");
    let user = UserId::from("1");
    for _ in 0..1_100 {
        create_session(&store, &user).await;
    }
    let limited = async |when_full| {
        let record = new_record(&user);
        let mut login = NewLogin::new(&record, record.expires);
        login.limit = Some(SessionLimit::new(2, when_full));
        store.create(&login).await.expect("no error")
    };
    assert_eq!(limited(WhenFull::Refuse).await, Creation::Full);
    let Creation::Created { ended, .. } = limited(WhenFull::EndOldest).await else {
        panic!("the login was refused");
    };
    assert!(ended.len() >= MAX_PER_CALL, "at least this many are reported");
    let now = new_record(&user).created;
    assert_eq!(store.list(&user, now, 2_000).await.expect("no error").len(), 2);
}

async fn columns_added_to_the_users_later_do_no_harm<D: Tested>()
where
    i64: OwnId<D>,
{
    let plain = builder::<D>().build().await.expect("a database");
    let table = create_members::<D>(plain.pool(), "BIGINT", ["1", "2"]).await;
    let own = builder_beside(&plain);
    let select_all = ["id", "email"]
        .map(|column| format!("SELECT * FROM {table} WHERE {column} = {}", D::placeholder(1)));
    let store = i64::store(own, select_all).await.expect("statements that fit");
    let record = create_session(&store, &1.into()).await;
    for number in 0..3 {
        let found = store.load_login(&record.key, Some(&record.user)).await.expect("no error");
        assert!(found.expect("a login").user.is_some());
        assert!(store.by_id(&1.into()).await.expect("no error").is_some());
        assert!(store.by_login_name("ada").await.expect("no error").is_some());
        // This runs on another connection, as the application's migrations would.
        let add = format!("ALTER TABLE {table} ADD COLUMN more{number} INTEGER");
        D::run(plain.pool(), &add).await;
    }
}

/// Calls succeed on each connection, although it has prepared its statements for the old type.
async fn calls_succeed_after_a_column_got_another_type<D: Tested>()
where
    i64: OwnId<D>,
{
    const CONNECTIONS: u32 = 12;
    let url = D::url();
    let plain = SqlStore::<D>::builder(url.clone()).with_table_prefix(new_prefix()).migrate();
    let plain = plain.build().await.expect("a database");
    let table = create_members::<D>(plain.pool(), "BIGINT", ["1", "2"]).await;
    let own = SqlStore::builder(url).with_table_prefix(new_prefix()).migrate();
    let own = own.with_timeout(Duration::from_secs(20)).with_max_connections(CONNECTIONS);
    let store = i64::store(own, selects::<D>(&table)).await.expect("statements that fit");
    let record = create_session(&store, &1.into()).await;
    let look_up = || async {
        let found = store.load_login(&record.key, Some(&record.user)).await.expect("no error");
        assert!(found.expect("a login").user.is_some());
        assert!(store.by_id(&1.into()).await.expect("no error").is_some());
        assert!(store.by_login_name("ada").await.expect("no error").is_some());
    };
    for length in 301..304 {
        futures_util::future::join_all((0..CONNECTIONS * 4).map(|_| look_up())).await;
        D::run(plain.pool(), &D::retype(&table, length)).await;
        // First one task looks up a login, then many tasks at the same time use all connections.
        look_up().await;
        futures_util::future::join_all((0..CONNECTIONS * 4).map(|_| look_up())).await;
    }
}

async fn rows_that_cannot_be_read_are_corrupt<D: Tested>() {
    let prefix = new_prefix();
    let builder = SqlStore::<D>::builder(D::url()).with_table_prefix(prefix.clone()).migrate();
    let store = builder.build().await.expect("a database");
    let broken = [
        "generation = -1",
        "expires = 5000000000",
        "remember_seconds = NULL",
        "ended_at = 1, end_reason = 'A whim'",
        "ended_at = 1",
    ];
    for broken in broken {
        let record = create_session(&store, &"1".into()).await;
        let update = format!("UPDATE {prefix}sessions SET {broken}");
        D::run(store.pool(), &update).await;
        let error = store.load(&record.key).await.expect_err(broken);
        assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{broken}: {error:?}");
        let error = store.load_login(&record.key, None).await.expect_err(broken);
        assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{broken}: {error:?}");
        D::run(store.pool(), &format!("DELETE FROM {prefix}sessions")).await;
    }
}

async fn an_acting_user_is_stored_as_given_or_is_an_error<D: Tested>() {
    let store = builder::<D>().build().await.expect("a database");
    for acting_user in ["2", "", "a\0b", &"x".repeat(70_000)] {
        let mut record = new_record(&"1".into());
        record.acting_user = Some(acting_user.into());
        let created = store.create(&NewLogin::new(&record, record.expires)).await;
        let found = store.load(&record.key).await.expect("no error");
        match created {
            Ok(_) => assert_eq!(found.as_deref(), Some(&record)),
            Err(error) => {
                assert_eq!(error.kind(), StoreErrorKind::Unsupported, "{error:?}");
                assert_ne!(acting_user, "2");
                assert_eq!(found, None);
            }
        }
    }
}

async fn a_dropped_call_leaves_its_connection_usable<D: Tested>() {
    let (url, prefix) = (D::url(), new_prefix());
    let open = || SqlStore::<D>::builder(url.clone()).with_table_prefix(prefix.clone()).migrate();
    let store = open().with_max_connections(1).build().await.expect("a database");
    let witness = open().build().await.expect("a database");
    for micros in (0..60).map(|step| step * 50) {
        let record = new_record(&"1".into());
        let login = NewLogin::new(&record, record.expires);
        let create = store.create(&login);
        let _ = tokio::time::timeout(Duration::from_micros(micros), create).await;
        // Another call on the same connection writes a row, and the witness reads the row: the
        // dropped call has left no transaction open.
        let account = Account::new(micros, format!("user{micros}"), "");
        store.insert(&account).await.expect("the only connection works");
        let found = witness.by_id(account.id()).await.expect("no error");
        assert_eq!(found.as_deref(), Some(&account), "after {micros} µs");
        if let Some(found) = witness.load(&record.key).await.expect("no error") {
            assert_eq!(*found, record, "after {micros} µs");
        }
    }
}
