//! A visitor of the site before it has a login, with a login, and with its users in PostgreSQL; and
//! how many lines the login takes.

use std::process::Command;

use http::StatusCode;
use sqlx::PgPool;
use tower_keep_tests::Process;

#[tokio::test]
async fn before_everyone_sees_the_account() {
    let site = Process::start(env!("CARGO_BIN_EXE_before"), &["127.0.0.1:0"], 1);
    let mut browser = site.browser();
    assert!(browser.get("/").await.text().contains("Your account"));
    assert_eq!(
        browser
            .post("/address", &[("street", "Main")])
            .await
            .location(),
        "/"
    );
}

#[tokio::test]
async fn after_only_the_user_sees_the_account() {
    walk(&Process::start(
        env!("CARGO_BIN_EXE_after"),
        &["127.0.0.1:0"],
        1,
    ))
    .await;
}

#[tokio::test]
async fn with_postgresql_the_user_is_there_at_the_next_start() {
    let server = std::env::var("POSTGRES_URL");
    let server = server.expect("`cargo xtask test first-login` starts the server");
    // Another site on this server has a user with the same name.
    let pool = PgPool::connect(&server)
        .await
        .expect("the server is running");
    for sql in [
        "DROP DATABASE IF EXISTS first_login",
        "CREATE DATABASE first_login",
    ] {
        sqlx::query(sql).execute(&pool).await.expect(sql);
    }
    let (server, _database) = server.rsplit_once('/').expect("a URL with a database");
    let url = format!("{server}/first_login");
    for _ in 0..2 {
        let program = env!("CARGO_BIN_EXE_postgres");
        let variables = [("DATABASE_URL", url.as_str())];
        walk(&Process::start_with(
            program,
            &["127.0.0.1:0"],
            &variables,
            1,
        ))
        .await;
    }
}

async fn walk(site: &Process) {
    let mut browser = site.browser();
    assert_eq!(browser.get("/").await.location(), "/login?next=%2F");
    let page = browser.get("/login?next=%2Faddress").await.text();
    assert!(page.contains("Stay logged in"), "{page}");
    let wrong = [("login", "ada"), ("password", "wrong")];
    let page = browser.post("/login?next=%2Faddress", &wrong).await.text();
    assert!(page.contains("Stay logged in"), "the form again: {page}");
    assert_eq!(browser.get("/").await.location(), "/login?next=%2F");

    let right = [
        ("login", "ada"),
        ("password", "first bug"),
        ("remember", "on"),
    ];
    let response = browser.post("/login?next=%2Faddress", &right).await;
    assert_eq!(response.location(), "/address");
    assert!(browser.get("/address").await.text().contains("street"));
    assert_eq!(
        browser
            .post("/address", &[("street", "Main")])
            .await
            .location(),
        "/"
    );

    browser.close_browser();
    assert!(
        browser.get("/").await.text().contains("Your account"),
        "remembered"
    );
    let fresh_only = browser.post("/address", &[("street", "High")]).await;
    assert_eq!(fresh_only.location(), "/confirm");
    assert_eq!(
        browser.get("/address").await.location(),
        "/confirm?next=%2Faddress"
    );
    assert_eq!(
        browser
            .post("/confirm?next=%2Faddress", &right)
            .await
            .location(),
        "/address"
    );
    assert_eq!(browser.get("/address").await.status, StatusCode::OK);

    assert_eq!(browser.post("/logout", &[]).await.location(), "/login");
    assert_eq!(browser.get("/").await.location(), "/login?next=%2F");
}

#[test]
fn a_login_is_17_lines_and_another_store_3() {
    assert!(added_lines("before.rs", "after.rs") <= 17);
    assert!(added_lines("after.rs", "postgres.rs") <= 3);
}

/// Returns how many lines of the second file are not in the first one, as `diff` counts.
fn added_lines(before: &str, after: &str) -> usize {
    let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    let output = Command::new("diff")
        .current_dir(sources)
        .args([before, after])
        .output();
    let output = output.expect("`diff` is installed");
    let differences = String::from_utf8(output.stdout).expect("UTF-8");
    let added = differences
        .lines()
        .filter(|line| line.starts_with('>'))
        .count();
    assert!(added > 0, "{before} and {after} are the same");
    added
}
