//! One browser is logged in as a customer, as an operator, and as both.

use tower_keep_tests::Process;

#[tokio::test]
async fn a_login_of_one_area_is_none_of_the_other() {
    let site = Process::start(env!("CARGO_BIN_EXE_areas-example"), &["127.0.0.1:0"], 3);
    let mut browser = site.browser();
    assert_eq!(browser.get("/account").await.location(), "/login?next=%2Faccount");
    let orders = browser.get("/admin/orders").await;
    assert_eq!(orders.location(), "/admin/login?next=%2Fadmin%2Forders");

    let customer = [("login", "ada"), ("password", "analytical engine")];
    assert_eq!(browser.post("/login", &customer).await.location(), "/account");
    assert_eq!(browser.get("/account").await.text(), "You are the customer ada.");
    let orders = browser.get("/admin/orders").await;
    assert_eq!(orders.location(), "/admin/login?next=%2Fadmin%2Forders");
    assert!(browser.post("/admin/login", &customer).await.text().contains("Operators"));

    let operator = [("login", "hopper"), ("password", "first bug")];
    let next = browser.post("/admin/login?next=/admin/orders", &operator).await.location();
    assert_eq!(next, "/admin/orders");
    assert_eq!(browser.get("/admin/orders").await.text(), "You are the operator hopper.");
    assert_eq!(browser.get("/account").await.text(), "You are the customer ada.");

    browser.post("/logout", &[]).await;
    assert_eq!(browser.get("/account").await.location(), "/login?next=%2Faccount");
    assert_eq!(browser.get("/admin/orders").await.text(), "You are the operator hopper.");
}
