//! The counterparts of Flask-Login's tests that are in no other file. For each of Flask-Login's 107
//! tests, `tests/flask_login.md` names the counterpart, or says why the test has
//! no meaning here.

use http::{StatusCode, header};
use tower_keep::client::SessionProtection;
use tower_keep_tests::{Browser, Site, has_server_sessions};

async fn site_with(protection: SessionProtection, persistent: bool) -> Site {
    Site::start_with(|builder| {
        builder.with_session_protection(protection).with_persistent_session(persistent)
    })
    .await
}

/// Sends a request as if from another client.
async fn send_from_another_client(browser: &mut Browser) {
    browser.set_header(header::USER_AGENT, "different");
    browser.get("/username").await;
}

#[tokio::test]
async fn nobody_is_logged_in_at_first() {
    let site = Site::start().await;
    let mut browser = site.browser();
    assert_eq!(browser.get("/hello").await.text(), "hello");
    assert_eq!(browser.get("/username").await.text(), "Anonymous");
    assert_eq!(browser.get("/is-fresh").await.text(), "false");
    assert_eq!(browser.get("/is-remembered").await.text(), "false");
    assert!(browser.jar.names().is_empty());
}

#[tokio::test]
async fn a_login_raises_an_event_and_lasts() {
    let site = Site::start().await;
    let mut browser = site.logged_in("user=notch").await;
    assert_eq!(site.events.take(), ["logged_in notch"]);
    for _ in 0..3 {
        assert_eq!(browser.get("/username").await.text(), "notch");
    }
    assert_eq!(browser.get("/is-fresh").await.text(), "true");
    assert!(site.events.take().is_empty());
}

#[tokio::test]
async fn a_login_can_be_not_fresh() {
    let site = Site::start().await;
    let mut browser = site.logged_in("user=notch&fresh=0").await;
    assert_eq!(browser.get("/is-fresh").await.text(), "false");
    assert_eq!(browser.get("/username").await.text(), "notch");
}

#[tokio::test]
async fn a_logout_raises_an_event_and_lasts() {
    let site = Site::start().await;
    for query in ["user=notch", "user=notch&remember=1", "user=notch&remember=1&duration=25200"] {
        let mut browser = site.logged_in(query).await;
        assert_eq!(browser.get("/logout").await.text(), "notch");
        assert_eq!(site.events.take(), ["logged_in notch", "logged_out notch"]);
        assert_eq!(browser.get("/username").await.text(), "Anonymous");
        browser.close_browser();
        assert_eq!(browser.get("/username").await.text(), "Anonymous");
    }
}

#[tokio::test]
async fn a_logout_without_a_login_raises_no_event() {
    let site = Site::start().await;
    assert_eq!(site.browser().get("/logout").await.text(), "");
    assert!(site.events.take().is_empty());
}

#[tokio::test]
async fn a_rejected_request_raises_an_event() {
    let site = Site::start().await;
    site.browser().get("/secret").await;
    assert_eq!(site.events.take(), ["unauthorized"]);
    let mut stale = site.logged_in("user=notch&fresh=0").await;
    assert_eq!(stale.get("/sensitive").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(site.events.take(), ["logged_in notch", "needs_refresh notch"]);
}

#[tokio::test]
async fn a_deleted_user_is_logged_out() {
    use tower_keep::store::UserDirectory;
    let site = Site::start().await;
    let mut browser = site.logged_in("user=notch").await;
    site.store.inner().delete(&"1".into()).await.unwrap();
    assert_eq!(browser.get("/username").await.text(), "Anonymous");
    assert_eq!(browser.get("/secret").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_remember_cookie_restores_a_login_that_is_not_fresh() {
    let site = Site::start().await;
    for query in ["user=notch&remember=1", "user=notch&remember=1&duration=25200"] {
        let mut browser = site.logged_in(query).await;
        assert_eq!(browser.get("/is-remembered").await.text(), "true");
        assert_eq!(browser.get("/is-fresh").await.text(), "true");
        site.events.take();
        browser.close_browser();
        assert_eq!(browser.get("/username").await.text(), "notch");
        assert_eq!(site.events.take(), ["restored notch"]);
        assert_eq!(browser.get("/is-fresh").await.text(), "false");
        assert!(site.events.take().is_empty());
    }
}

#[tokio::test]
async fn the_remember_cookie_has_the_configured_attributes() {
    use tower_keep::cookie::{CookieSettings, SameSite};
    let cookie = CookieSettings::new()
        .with_name("me")
        .with_path("/username")
        .with_domain_and_subdomains("example.org")
        .with_same_site(SameSite::Strict);
    let site = Site::start_with(|builder| {
        builder
            .with_remember_cookie(cookie)
            .with_remember_duration(std::time::Duration::from_secs(77))
    })
    .await;
    for (query, seconds) in [("", 77), ("&duration=99", 99)] {
        let response = site.browser().get(&format!("/login?user=notch&remember=1{query}")).await;
        let cookies = response.set_cookies();
        let (pair, attributes) = cookies[1].split_once("; ").unwrap();
        assert!(pair.starts_with("me="));
        assert_eq!(
            attributes,
            format!(
                "Max-Age={seconds}; Path=/username; Domain=example.org; Secure; HttpOnly; \
                 SameSite=Strict"
            )
        );
    }
}

#[tokio::test]
async fn the_remember_cookie_is_not_refreshed_by_default() {
    let site = Site::start().await;
    let mut browser = site.logged_in("user=notch&remember=1").await;
    site.advance(60);
    assert!(browser.get("/username").await.set_cookies().is_empty());
}

#[tokio::test]
async fn confirming_a_login_makes_it_fresh_and_raises_an_event() {
    let site = Site::start().await;
    let mut browser = site.logged_in("user=notch&remember=1").await;
    browser.close_browser();
    assert_eq!(browser.get("/sensitive").await.status, StatusCode::UNAUTHORIZED);
    site.events.take();
    assert_eq!(browser.get("/confirm").await.text(), "confirmed");
    assert_eq!(site.events.take(), ["confirmed notch"]);
    assert_eq!(browser.get("/sensitive").await.text(), "secret of notch");
}

#[tokio::test]
async fn a_garbled_remember_cookie_is_ignored() {
    let site = Site::start().await;
    let mut browser = site.browser();
    for value in ["foo", "1|foo", "", "%00", "====", "\"quoted\""] {
        browser.jar.insert("__Host-Http-keep-remember", value);
        assert_eq!(browser.get("/username").await.text(), "Anonymous", "{value}");
        assert_eq!(browser.get("/is-remembered").await.text(), "false", "{value}");
    }
}

#[tokio::test]
async fn session_protection_accepts_the_same_client() {
    for protection in [SessionProtection::Basic, SessionProtection::Strong] {
        let site = site_with(protection, false).await;
        let mut browser = site.logged_in("user=notch&remember=1").await;
        assert_eq!(browser.get("/username").await.text(), "notch");
        assert_eq!(browser.get("/is-fresh").await.text(), "true");
        // Closing the browser removes the session cookie, so there is no session to protect.
        browser.close_browser();
        site.events.take();
        browser.get("/username").await;
        assert_eq!(site.events.take(), ["restored notch"]);
        // The restored session belongs to this client.
        assert_eq!(browser.get("/username").await.text(), "notch");
        assert!(site.events.take().is_empty());
    }
}

#[tokio::test]
async fn session_protection_raises_an_event_for_another_client() {
    use SessionProtection::{Basic, None, Strong};
    for (protection, persistent, raises_event) in
        [(None, false, false), (Basic, false, true), (Strong, false, true), (Strong, true, true)]
    {
        let site = site_with(protection, persistent).await;
        let mut browser = site.logged_in("user=notch&remember=1").await;
        site.events.take();
        send_from_another_client(&mut browser).await;
        let mut expected = if raises_event { vec!["session_protected"] } else { vec![] };
        if has_server_sessions() && protection == Strong && !persistent {
            expected.insert(0, "session_ended of 1: protection");
        }
        assert_eq!(site.events.take(), expected);
        // An anonymous visitor has nothing to protect.
        let mut nobody = site.browser();
        send_from_another_client(&mut nobody).await;
        assert!(site.events.take().is_empty());
        assert!(nobody.jar.names().is_empty());
    }
}

#[tokio::test]
async fn a_user_id_may_be_any_text() {
    let site = Site::start().await;
    let mut browser = site.logged_in("user=sato&remember=1").await;
    assert_eq!(browser.get("/username").await.text(), "sato");
    browser.close_browser();
    assert_eq!(browser.get("/username").await.text(), "sato");
}

#[tokio::test]
async fn a_request_loader_raises_an_event_and_sets_no_cookie() {
    use tower_keep::loader::ApiKey;
    let site = Site::start_with(|builder| {
        builder.with_request_loader(ApiKey::new(
            "x-user".parse().unwrap(),
            |name: String| async move {
                Ok::<_, tower_keep::store::StoreError>(Some(
                    tower_keep_tests::account(&name).into(),
                ))
            },
        ))
    })
    .await;
    let mut browser = site.browser();
    browser.set_header("x-user".parse().unwrap(), "steve");
    assert_eq!(browser.get("/secret").await.text(), "secret of steve");
    assert_eq!(site.events.take(), ["loaded_from_request steve"]);
    assert!(browser.jar.names().is_empty());
    browser.remove_header("x-user".parse().unwrap());
    assert_eq!(browser.get("/secret").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_redirect_to_the_confirm_page_can_keep_next_in_a_cookie() {
    let site = Site::start_with(|builder| {
        builder.with_confirm_page("/confirm").expect("a page").with_next_in_cookie(true)
    })
    .await;
    let mut browser = site.logged_in("user=notch&fresh=0").await;
    assert_eq!(browser.get("/sensitive").await.location(), "/confirm");
    assert_eq!(browser.get("/next").await.text(), "/sensitive");
}

#[tokio::test]
async fn the_test_client_logs_in_with_every_session_protection() {
    use SessionProtection::{Basic, None, Strong};
    for protection in [None, Basic, Strong] {
        // The site sees the client at 127.0.0.1, which is also the default address of the test
        // client.
        let site = site_with(protection, false).await;
        let mut browser = site.browser();
        browser.log_in(&site.auth_layer, tower_keep_tests::account("notch")).await.unwrap();
        assert_eq!(browser.get("/sensitive").await.text(), "secret of notch");
        let mut browser = site.browser();
        browser
            .log_in_not_fresh(&site.auth_layer, tower_keep_tests::account("notch"))
            .await
            .unwrap();
        assert_eq!(browser.get("/secret").await.text(), "secret of notch");
        assert_eq!(browser.get("/sensitive").await.status, StatusCode::UNAUTHORIZED);
    }
}
