//! Tests databases in files: a file outlives the process, and can be missing or invalid.

use std::borrow::Cow;
use std::path::Path;
use std::time::Duration;

use tower_keep_core::{
    Account, AuthUser, NewLogin, SessionStore, StoreError, StoreErrorKind, UserDirectory, UserId,
    UserLookup, UserStore,
};
use tower_keep_sqlite::SqliteStore;
use tower_keep_testkit::contract::sessions::new_record;

async fn open(path: &Path) -> Result<SqliteStore, StoreError> {
    let builder = SqliteStore::builder(format!("sqlite:{}", path.display()));
    builder.with_timeout(Duration::from_secs(20)).migrate().build().await
}

#[tokio::test]
async fn users_and_sessions_remain_when_the_file_is_closed_and_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keep.db");
    let (account, record) = (Account::new(1, "ada", "hash"), new_record(&UserId::from(1)));
    {
        let store = open(&path).await.unwrap();
        store.insert(&account).await.unwrap();
        store.create(&NewLogin::new(&record, record.expires)).await.unwrap();
    }
    let store = open(&path).await.unwrap();
    assert_eq!(store.by_id(account.id()).await.unwrap().as_deref(), Some(&account));
    assert_eq!(store.load(&record.key).await.unwrap().as_deref(), Some(&record));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_stores_on_one_file_see_each_others_writes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keep.db");
    // Several stores open the file at the same time. The tables are created once.
    let open = || {
        let path = path.clone();
        tokio::spawn(async move { open(&path).await })
    };
    let mut stores = Vec::new();
    for opened in [open(), open(), open(), open()] {
        stores.push(opened.await.unwrap().expect("the stores wait for each other"));
    }
    let (one, other) = (stores.swap_remove(0), stores.swap_remove(0));
    let inserts: Vec<_> = (0..40)
        .map(|id| {
            let store = if id % 2 == 0 { one.clone() } else { other.clone() };
            tokio::spawn(async move { store.insert(&Account::new(id, format!("{id}"), "")).await })
        })
        .collect();
    for insert in inserts {
        insert.await.unwrap().expect("the stores wait for each other");
    }
    for id in 0..40 {
        assert!(one.by_id(&id.into()).await.unwrap().is_some());
        assert!(other.by_id(&id.into()).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_reader_does_not_wait_for_a_writer() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keep.db");
    let store = open(&path).await.unwrap();
    store.insert(&Account::new(1, "ada", "hash")).await.unwrap();
    // Another connection begins to write and does not finish.
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let mut other = sqlx::ConnectOptions::connect(&options).await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    assert!(store.by_id(&1.into()).await.unwrap().is_some());
    let grace = Account::new(2, "grace", "");
    let insert = store.insert(&grace);
    let inserted = tokio::time::timeout(Duration::from_millis(50), insert).await;
    assert!(inserted.is_err(), "a second writer waits for the first");
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    store.insert(&Account::new(3, "joan", "")).await.unwrap();
}

#[tokio::test]
async fn a_missing_directory_and_a_file_of_another_format_are_clear_errors() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("nowhere").join("keep.db");
    let error = open(&missing).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert!(error.to_string().contains("unable to open"), "{error}");
    let text = directory.path().join("text.db");
    std::fs::write(
        &text,
        "this file is no database, and it is longer than the header of a database",
    )
    .unwrap();
    let error = open(&text).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{error:?}");
}

#[derive(sqlx::FromRow)]
struct Member {
    id: i64,
}

impl AuthUser for Member {
    fn id(&self) -> UserId {
        self.id.into()
    }

    fn security_stamp(&self) -> Cow<'_, [u8]> {
        b"".into()
    }
}

#[tokio::test]
async fn the_applications_own_users_can_be_in_a_database_in_memory() {
    let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1);
    let pool = pool.connect("sqlite::memory:").await.unwrap();
    sqlx::raw_sql(
        "CREATE TABLE member (id INTEGER PRIMARY KEY, email TEXT); \
        INSERT INTO member VALUES (7, 'ada')",
    )
    .execute(&pool)
    .await
    .unwrap();
    let [by_id, by_email] =
        ["id", "email"].map(|column| format!("SELECT * FROM member WHERE {column} = ?"));
    // The second store uses the tables that the first one created.
    for _ in 0..2 {
        let store = SqliteStore::builder_on(pool.clone()).migrate();
        let store = store.with_users::<Member, i64>(&by_id, &by_email).build().await.unwrap();
        assert!(store.by_id(&7.into()).await.unwrap().is_some());
        assert!(store.by_login_name("ada").await.unwrap().is_some());
    }
}
