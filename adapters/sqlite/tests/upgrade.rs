//! Tests a later release, which has one more migration, on tables that are in use.

use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::sqlite::{Sqlite, SqliteQueryResult, SqliteTypeInfo};
use tower_keep_core::{
    Account, LoginStore, NewLogin, SessionStore, StoreErrorKind, UserDirectory, UserId,
};
use tower_keep_sql::{Cause, Dialect, Names, Pools, Sample, Settings, SqlStore};
use tower_keep_sqlite::{SqliteDialect, SqliteStore};
use tower_keep_testkit::contract;
use tower_keep_testkit::contract::sessions::new_record;

/// The dialect of SQLite in a later release.
enum LaterDialect {}

impl Dialect for LaterDialect {
    type Database = Sqlite;

    const NAME: &'static str = SqliteDialect::NAME;
    const MIGRATIONS: &'static [&'static str] = &[
        SqliteDialect::MIGRATIONS[0],
        "ALTER TABLE keep_sessions ADD COLUMN place TEXT; \
         CREATE INDEX keep_sessions_by_place ON keep_sessions (place); \
         INSERT INTO keep_versions (version) VALUES (2);",
    ];
    const RETURNING: bool = SqliteDialect::RETURNING;
    const RECOVERS: bool = SqliteDialect::RECOVERS;
    const GREATEST: &'static str = SqliteDialect::GREATEST;
    const FOR_UPDATE: &'static str = SqliteDialect::FOR_UPDATE;
    const PURGE: &'static str = SqliteDialect::PURGE;
    const PURGE_EARLIER_EPOCHS: &'static str = SqliteDialect::PURGE_EARLIER_EPOCHS;

    fn placeholder(number: usize) -> String {
        SqliteDialect::placeholder(number)
    }

    fn sample(column_type: &SqliteTypeInfo) -> Sample {
        SqliteDialect::sample(column_type)
    }

    fn can_store(text: &str) -> bool {
        SqliteDialect::can_store(text)
    }

    fn changed(result: &SqliteQueryResult) -> u64 {
        SqliteDialect::changed(result)
    }

    fn cause(error: &dyn DatabaseError) -> Option<Cause> {
        SqliteDialect::cause(error)
    }

    fn safe_message(error: &dyn DatabaseError) -> String {
        SqliteDialect::safe_message(error)
    }

    fn begin(user_lock: Option<u16>, names: &Names, patience: Duration) -> String {
        SqliteDialect::begin(user_lock, names, patience)
    }

    fn migrations_begin(names: &Names) -> String {
        SqliteDialect::migrations_begin(names)
    }

    async fn open(url: &str, settings: &Settings) -> Result<Pools<Sqlite>, sqlx::Error> {
        SqliteDialect::open(url, settings).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_keeps_users_logged_in_and_the_earlier_release_running() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("keep.db").display());
    let earlier = SqliteStore::builder(url.clone()).migrate().build().await.unwrap();
    let (ada, record) = (Account::new(1, "ada", "hash"), new_record(&UserId::from(1)));
    earlier.insert(&ada).await.unwrap();
    earlier.create(&NewLogin::new(&record, record.expires)).await.unwrap();

    let later =
        SqlStore::<LaterDialect>::builder(url.clone()).with_timeout(Duration::from_secs(20));
    let later = later.migrate().build().await.unwrap();
    let found = later.load_login(&record.key, None).await.unwrap().expect("ada is logged in");
    assert_eq!((&*found.record, found.user.as_deref()), (&record, Some(&ada)));
    contract::run_all(|| async { later.clone() }).await;

    // A node of the earlier release continues to work as long as it runs.
    let found = earlier.load_login(&record.key, None).await.unwrap().expect("ada is logged in");
    assert_eq!(found.user.as_deref(), Some(&ada));
    contract::run_all(|| async { earlier.clone() }).await;
    let error = SqliteStore::builder(url).migrate().build().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unsupported);
    assert!(format!("{error:?}").contains("later release"), "{error:?}");
}
