//! Members sign up, get a role in the database, and lose it again, on MySQL and MariaDB.

use http::StatusCode;
use sqlx::MySqlPool;
use tower_keep_tests::Process;

#[tokio::test]
async fn members_with_roles_in_mysql() {
    walk("MYSQL_URL").await;
}

#[tokio::test]
async fn members_with_roles_in_mariadb() {
    walk("MARIADB_URL").await;
}

async fn walk(variable: &str) {
    let url = std::env::var(variable);
    let url = url.expect("`cargo xtask test own-users` starts the server");
    let pool = MySqlPool::connect(&url).await.expect("the server is running");
    let run = async |sql: &'static str| sqlx::query(sql).execute(&pool).await.expect(sql);
    // What an earlier run has left.
    run("DROP TABLE IF EXISTS member_role").await;
    run("DROP TABLE IF EXISTS member").await;
    let program = env!("CARGO_BIN_EXE_own-users-example");
    let variables = [("DATABASE_URL", url.as_str())];
    let site = Process::start_with(program, &["127.0.0.1:0"], &variables, 1);
    let mut browser = site.browser();

    let ada = [("email", "Ada@example.com"), ("password", "analytical engine")];
    let short = [("email", "ada@example.com"), ("password", "short")];
    let rejected = browser.post("/sign-up", &short).await.status;
    assert_eq!(rejected, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(browser.post("/sign-up", &ada).await.status, StatusCode::CREATED);
    assert_eq!(browser.post("/sign-up", &ada).await.status, StatusCode::CONFLICT);
    assert_eq!(browser.get("/articles").await.location(), "/login?next=%2Farticles");
    let next = browser.post("/login?next=%2Farticles", &ada).await.location();
    assert_eq!(next, "/articles");
    assert!(browser.get("/").await.text().contains("You are ada@example.com."));

    for (path, role) in [("/articles", "author"), ("/members", "admin")] {
        assert_eq!(browser.get(path).await.status, StatusCode::FORBIDDEN, "{path}");
        let sql = "INSERT INTO member_role (member_id, role) SELECT id, ? FROM member";
        sqlx::query(sql).bind(role).execute(&pool).await.expect(sql);
        assert_eq!(browser.get(path).await.status, StatusCode::OK, "{path}");
    }
    run("DELETE FROM member_role").await;
    assert_eq!(browser.get("/members").await.status, StatusCode::FORBIDDEN);

    let remembered = [&ada[..], &[("remember", "on")]].concat();
    assert_eq!(browser.post("/login", &remembered).await.location(), "/");
    browser.close_browser();
    let new_password = [("password", "difference engine")];
    assert_eq!(browser.post("/password", &new_password).await.location(), "/confirm");
    let wrong = browser.post("/confirm", &[("password", "wrong")]).await;
    assert!(wrong.text().contains("Confirm"), "{}", wrong.text());
    assert_eq!(browser.post("/confirm", &ada).await.location(), "/");

    let mut other = site.browser();
    other.post("/login", &ada).await;
    let response = browser.post("/password", &new_password).await;
    assert_eq!(response.location(), "/");
    assert_eq!(browser.get("/").await.status, StatusCode::OK, "this login goes on");
    assert_eq!(other.get("/").await.location(), "/login?next=%2F", "the other has ended");
    let page = other.post("/login", &ada).await.text();
    assert!(page.contains("Log in"), "the password has changed: {page}");

    run("UPDATE member SET active = FALSE").await;
    assert_eq!(browser.get("/").await.location(), "/login?next=%2F");
}
