//! Uses the site as a new visitor does. The quickstart's tests do the same on a site with a
//! framework.

use tower_keep_tests::{Browser, Http, Process};

#[tokio::test]
async fn a_visitor_can_log_in_stay_logged_in_and_log_out() {
    let site = Process::start(env!("CARGO_BIN_EXE_hyper-example"), &["127.0.0.1:0"], 3);
    walk(&site, site.browser()).await;
}

#[tokio::test]
async fn http_2_is_the_same() {
    let site = Process::start(env!("CARGO_BIN_EXE_hyper-example"), &["127.0.0.1:0"], 3);
    walk(&site, Browser::new(Http::over_http2_to(site.address))).await;
}

async fn walk(site: &Process, mut browser: Browser) {
    assert_eq!(browser.get("/account").await.location(), "/login?next=%2Faccount");
    assert!(browser.get("/login?next=/account").await.text().contains("Please log in"));
    let wrong = [("login", "ada"), ("password", "wrong")];
    let page = browser.post("/login", &[&wrong[..], &[("next", "/account")]].concat()).await.text();
    assert!(page.contains("Wrong login name or password."), "{page}");
    assert!(page.contains(r#"name=next value="/account""#), "{page}");
    let right =
        [("login", "ada"), ("password", site.printed("demo password: ")), ("remember", "on")];
    assert_eq!(browser.post("/login", &right).await.location(), "/account");
    assert!(browser.get("/account").await.text().contains("You are ada."));
    browser.close_browser();
    assert!(browser.get("/account").await.text().contains("You are ada."));
    assert_eq!(browser.post("/logout", &[]).await.location(), "/");
    assert_eq!(browser.get("/account").await.location(), "/login?next=%2Faccount");
}
