//! Tests the statements that `SqlStore::queries` returns.

use sqlx::{AssertSqlSafe, Row};
use tower_keep_sqlite::SqliteStore;

#[tokio::test]
async fn the_queries_of_a_request_read_no_whole_table() {
    let store = SqliteStore::builder("sqlite::memory:").migrate().build().await.unwrap();
    let queries = store.queries();
    for name in ["user_by_id", "user_by_login_name", "session_with_user", "load", "list", "rotate"]
    {
        let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {}", queries[name]));
        let rows = sqlx::raw_sql(explain).fetch_all(store.read_pool()).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        assert!(!plan.is_empty(), "{name}");
        assert!(plan.iter().all(|step| !step.contains("SCAN")), "{name}: {plan:?}");
    }
}
