//! Calls the API as the page's script does. `browser.rs` does it with the script itself.

use serde_json::Value;
use tower_keep_testkit::client::TestResponse;
use tower_keep_tests::Process;

/// Returns the type and the allowed age of the problem.
fn problem(response: &TestResponse) -> (String, Value) {
    assert_eq!(response.status, 401);
    let problem: Value = serde_json::from_str(&response.text()).expect("JSON");
    (problem["type"].as_str().expect("a type").to_owned(), problem["max_age"].clone())
}

#[tokio::test]
async fn a_call_without_a_login_gets_a_problem() {
    let site = Process::start(env!("CARGO_BIN_EXE_spa-example"), &["127.0.0.1:0"], 3);
    let mut browser = site.browser();
    browser.set_header(http::header::ACCEPT, "application/json");
    for path in ["/api/me", "/api/notes"] {
        let (kind, _) = problem(&browser.get(path).await);
        assert_eq!(kind, tower_keep::problem::LOGIN_REQUIRED);
    }
    assert!(browser.get("/").await.text().contains("<h1>Notes</h1>"));

    browser.set_header(http::header::CONTENT_TYPE, "application/json");
    let right = r#"{"login":"ada","password":"analytical engine","remember":true}"#;
    let response = browser.send(http::Method::POST, "/api/login", right.to_owned()).await;
    assert_eq!(response.status, 204);
    assert_eq!(browser.get("/api/me").await.text(), r#"{"login":"ada"}"#);
    browser.close_browser();
    assert_eq!(browser.get("/api/notes").await.text(), "[]");
    let response = browser.send(http::Method::DELETE, "/api/notes", String::new()).await;
    let (kind, max_age) = problem(&response);
    assert_eq!((kind.as_str(), max_age), (tower_keep::problem::LOGIN_NOT_FRESH, 600.into()));
}
