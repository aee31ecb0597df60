//! Uses the site as a new visitor does.

use tower_keep_tests::Process;

#[tokio::test]
async fn a_visitor_can_log_in_see_the_account_and_log_out() {
    let program = env!("CARGO_BIN_EXE_loco-example");
    let site = Process::start_with(program, &["start", "--no-banner"], &[("PORT", "0")], 3);
    let mut browser = site.browser();
    assert_eq!(browser.get("/account").await.location(), "/login?next=%2Faccount");
    let page = browser.get("/login").await.text();
    assert!(page.contains("Please log in to see this page."), "{page}");

    let wrong = [("login", "ada"), ("password", "wrong")];
    let page = browser.post("/login", &wrong).await.text();
    assert!(page.contains("Wrong login name or password."), "{page}");
    let right = [("login", "ada"), ("password", site.printed("demo password: "))];
    assert_eq!(browser.post("/login?next=/notes", &right).await.location(), "/notes");
    assert_eq!(browser.get("/account").await.text(), "You are ada.");

    assert_eq!(browser.post("/logout", &[]).await.location(), "/login");
    assert_eq!(browser.get("/account").await.location(), "/login?next=%2Faccount");
}
