//! Tests the settings that only PostgreSQL has: schemas, and proxies that pool transactions.

#[expect(dead_code, reason = "this test does not use every helper")]
mod common;

use sqlx::{Executor, PgPool};
use tower_keep_core::{Account, UserDirectory, UserStore};
use tower_keep_postgres::PostgresStore;
use tower_keep_testkit::contract;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_schema_creates_the_tables_in_that_schema() {
    let pool = PgPool::connect(&common::url()).await.unwrap();
    let (schema, prefix) = (common::prefix(), common::prefix());
    let builder = || {
        PostgresStore::builder_on(pool.clone())
            .with_schema(schema.clone())
            .with_table_prefix(prefix.clone())
            .migrate()
    };
    let error = builder().build().await.unwrap_err();
    assert!(format!("{error:?}").contains("schema"), "{error:?}");
    pool.execute(sqlx::AssertSqlSafe(format!("CREATE SCHEMA {schema}"))).await.unwrap();
    let store = builder().build().await.unwrap();
    contract::run_all(|| async { store.clone() }).await;
    let tables = "SELECT COUNT(*) FROM pg_tables WHERE schemaname = $1 AND tablename LIKE $2";
    let count: i64 = sqlx::query_scalar(tables)
        .bind(&schema)
        .bind(format!("{prefix}%"))
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(count, 5);
    // The settings of the application's connections have not changed.
    let path: String = sqlx::query_scalar("SHOW search_path").fetch_one(&pool).await.unwrap();
    assert!(!path.contains(&schema), "{path}");
    for bad in ["", "a b", "x\"; DROP TABLE y"] {
        let builder = PostgresStore::builder_on(pool.clone()).with_schema(bad);
        assert!(format!("{:?}", builder.build().await.unwrap_err()).contains("schema"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_clause_of_the_contract_is_kept_through_a_proxy_that_pools_transactions() {
    let url = std::env::var("PGBOUNCER_URL")
        .expect("PGBOUNCER_URL is not set; `cargo xtask test postgres` starts a proxy");
    let prefix = common::prefix();
    // The default timeout is too short for a busy machine.
    let timeout = std::time::Duration::from_secs(20);
    let builder = || {
        let builder = PostgresStore::builder(url.clone()).with_timeout(timeout);
        builder.with_table_prefix(prefix.clone())
    };
    let store = builder().with_transaction_pooling().migrate().build().await.unwrap();
    contract::run_all(|| async { store.clone() }).await;
    // Several pools, each with its own statements, share the proxy's connections.
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..8 {
        let store = builder().with_transaction_pooling().build().await.unwrap();
        tasks.spawn(async move {
            for number in 0..50 {
                let account = Account::new(task * 1_000 + number, format!("{task}-{number}"), "");
                store.insert(&account).await.unwrap();
                let found = store.by_id(account.id()).await.unwrap();
                assert_eq!(found.as_deref(), Some(&account));
            }
        });
    }
    tasks.join_all().await;
}
