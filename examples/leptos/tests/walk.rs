//! Uses the site as a new visitor does: pages that the server has rendered, and forms that call
//! server functions.

use http::StatusCode;
use tower_keep_tests::Process;

#[tokio::test]
async fn a_visitor_can_log_in_change_the_name_and_log_out() {
    let site = Process::start(env!("CARGO_BIN_EXE_leptos-example"), &["127.0.0.1:0"], 3);
    let mut browser = site.browser();
    assert_eq!(browser.get("/account").await.location(), "/login?next=%2Faccount");
    let page = browser.get("/login?next=%2Faccount").await.text();
    assert!(page.contains("Please log in to see this page."), "{page}");
    assert!(page.contains(r#"action="/api/log-in""#), "{page}");
    assert!(page.contains(r#"name="next" value="/account""#), "{page}");

    let password = site.printed("demo password: ");
    let mut log_in = async |login, password, next| {
        let form = [("login", login), ("password", password), ("next", next)];
        let response = browser.post("/api/log-in", &form).await;
        assert_eq!(response.status, StatusCode::FOUND, "{}", response.text());
        response.location()
    };
    assert_eq!(log_in("ada", "wrong", "/notes").await, "/login?next=%2Fnotes");
    assert_eq!(log_in("ada", password, "https://evil.example").await, "/account");
    assert_eq!(log_in("ada", password, "/notes").await, "/notes");
    let page = browser.get("/account").await.text();
    assert!(page.contains("You are ada."), "{page}");

    let renamed = browser.post("/api/rename", &[("name", "countess")]).await;
    assert_eq!(renamed.location(), "/account");
    assert!(browser.get("/account").await.text().contains("You are countess."));

    let empty = browser.post("/api/rename", &[("name", " ")]).await;
    assert_eq!(empty.status, StatusCode::UNPROCESSABLE_ENTITY);

    let large = browser.post("/api/rename", &[("name", &"x".repeat(20_000))]).await;
    assert_eq!(large.status, StatusCode::PAYLOAD_TOO_LARGE);

    assert_eq!(browser.post("/api/log-out", &[]).await.location(), "/login");
    assert_eq!(browser.get("/account").await.location(), "/login?next=%2Faccount");
    let rejected = browser.post("/api/rename", &[("name", "nobody")]).await;
    assert_eq!(rejected.location(), "/login");
}
