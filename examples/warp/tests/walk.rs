//! Uses the site as a new visitor does.

use tower_keep_tests::Process;

#[tokio::test]
async fn a_visitor_can_log_in_see_the_account_and_log_out() {
    let site = Process::start(env!("CARGO_BIN_EXE_warp-example"), &["127.0.0.1:0"], 3);
    let mut browser = site.browser();
    let account = browser.get("/members/account").await;
    assert_eq!(account.location(), "/login?next=%2Fmembers%2Faccount");
    let page = browser.get("/login").await.text();
    assert!(page.contains("Please log in to see this page."), "{page}");

    let wrong = [("login", "ada"), ("password", "wrong")];
    let page = browser.post("/login", &wrong).await.text();
    assert!(page.contains("Wrong login name or password."), "{page}");
    let right = [("login", "ada"), ("password", site.printed("demo password: "))];
    let next = browser.post("/login?next=/members/notes", &right).await.location();
    assert_eq!(next, "/members/notes");
    let large = [("login", "ada"), ("password", &"x".repeat(20_000))];
    assert_eq!(browser.post("/login", &large).await.status, 413);
    assert_eq!(browser.get("/members/account").await.text(), "You are ada.");

    assert_eq!(browser.post("/logout", &[]).await.location(), "/login");
    let account = browser.get("/members/account").await;
    assert_eq!(account.location(), "/login?next=%2Fmembers%2Faccount");
    assert_eq!(browser.get("/nowhere").await.status, 404);
}
