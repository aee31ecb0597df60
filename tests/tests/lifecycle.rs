//! Logging in, staying logged in, logging out, and remember cookies: the rules that hold with and
//! without server-side sessions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};
use tower_keep::Keys;
use tower_keep::client::SessionProtection;
use tower_keep::store::UserDirectory;
use tower_keep_tests::{Browser, KEY, Site, WatchedStoreExt, account, has_server_sessions};

const SESSION: &str = "__Host-Http-keep";
const REMEMBER: &str = "__Host-Http-keep-remember";
const DAY: u64 = 24 * 3600;

#[tokio::test]
async fn a_login_replaces_a_planted_session_cookie() {
    let site = Site::start().await;
    let attacker = site.logged_in("user=steve").await;
    let planted = attacker.jar.get(SESSION).unwrap().to_owned();
    let mut victim = site.browser();
    victim.jar.insert(SESSION, &planted);
    victim.get("/login?user=notch").await;
    assert_ne!(victim.jar.get(SESSION), Some(planted.as_str()));
    assert_eq!(victim.get("/username").await.text(), "notch");
    let mut holder = site.browser();
    holder.jar.insert(SESSION, &planted);
    // The planted session never becomes the victim's. With server-side sessions it has ended,
    // because the victim's login replaced it. Without them it stays the attacker's.
    let user = holder.get("/username").await.text();
    assert_eq!(user, if has_server_sessions() { "Anonymous" } else { "steve" });
}

#[tokio::test]
async fn a_restored_login_gets_a_new_session_cookie() {
    let site = Site::start().await;
    let mut browser = site.logged_in("user=notch&remember=1").await;
    let first = browser.jar.get(SESSION).unwrap().to_owned();
    browser.close_browser();
    assert_eq!(browser.get("/username").await.text(), "notch");
    let restored = browser.jar.get(SESSION).unwrap().to_owned();
    assert_ne!(first, restored);
    // With server-side sessions, a login that was restored less than a minute ago is not rotated
    // again. So the clock moves on.
    site.advance(60);
    browser.close_browser();
    browser.get("/username").await;
    assert_ne!(browser.jar.get(SESSION).unwrap(), restored);
}

#[tokio::test]
async fn a_session_cookie_that_the_client_made_up_is_never_accepted() {
    let site = Site::start().await;
    let genuine = site.logged_in("user=notch").await.jar.get(SESSION).unwrap().to_owned();
    for made_up in ["A".repeat(genuine.len()), "1".into(), genuine.to_lowercase()] {
        let mut browser = site.browser();
        browser.jar.insert(SESSION, &made_up);
        let response = browser.get("/username").await;
        assert_eq!(response.text(), "Anonymous");
        assert!(response.set_cookies().is_empty(), "{:?}", response.set_cookies());
        browser.get("/login?user=notch").await;
        assert_ne!(browser.jar.get(SESSION), Some(made_up.as_str()));
    }
}

#[tokio::test]
async fn a_second_login_leaves_no_cookie_of_the_first() {
    let site = Site::start().await;
    let mut browser = site.logged_in("user=notch&remember=1").await;
    browser.get("/flash").await;
    let session_of_notch = browser.jar.get(SESSION).unwrap().to_owned();
    browser.get("/login?user=steve").await;
    assert_ne!(browser.jar.get(SESSION), Some(session_of_notch.as_str()));
    assert_eq!(browser.jar.get(REMEMBER), None);
    browser.close_browser();
    assert_eq!(browser.get("/username").await.text(), "Anonymous");
}

#[tokio::test]
async fn limits_hold_even_if_the_client_ignores_the_expiry_of_cookies() {
    for persistent in [false, true] {
        let site = Site::start_with(|builder| {
            builder
                .with_persistent_session(persistent)
                .with_idle_limit(Duration::from_secs(1_000))
                .with_absolute_limit(Duration::from_secs(5_000))
                .with_remember_duration(Duration::from_secs(9_000))
        })
        .await;
        // The idle limit.
        let mut browser = site.logged_in("user=notch").await;
        let mut other = site.logged_in("user=notch").await;
        browser.jar.ignore_expiry();
        site.advance(999);
        assert_eq!(other.get("/username").await.text(), "notch");
        site.advance(1);
        let response = browser.get("/username").await;
        assert_eq!(response.text(), "Anonymous");
        assert!(response.header("set-cookie").starts_with("__Host-Http-keep=; Max-Age=0"));
        // The absolute limit, however busy the session is.
        let mut browser = site.logged_in("user=notch").await;
        for _ in 0..9 {
            site.advance(500);
            assert_eq!(browser.get("/username").await.text(), "notch");
            browser.jar.ignore_expiry();
        }
        site.advance(500);
        assert_eq!(browser.get("/username").await.text(), "Anonymous");
        // The limit of the remember cookie.
        let mut browser = site.logged_in("user=notch&remember=1").await;
        browser.jar.ignore_expiry();
        browser.jar.remove(SESSION);
        site.advance(8_999);
        assert_eq!(browser.clone().get("/username").await.text(), "notch");
        site.advance(1);
        let response = browser.get("/username").await;
        assert_eq!(response.text(), "Anonymous");
        assert!(response.header("set-cookie").starts_with("__Host-Http-keep-remember=; Max-Age=0"));
    }
}

#[tokio::test]
async fn limits_can_be_disabled_and_a_login_can_set_its_remember_duration() {
    let site = Site::start_with(|builder| {
        builder.with_idle_limit(None).with_absolute_limit(None).with_persistent_session(true)
    })
    .await;
    let mut browser = site.logged_in("user=notch&remember=1&duration=60").await;
    browser.jar.ignore_expiry();
    site.advance(59);
    assert_eq!(browser.get("/is-remembered").await.text(), "true");
    site.advance(1);
    assert_eq!(browser.get("/is-remembered").await.text(), "false");
    site.advance(3_000 * DAY);
    assert_eq!(browser.get("/username").await.text(), "notch");
}

#[tokio::test]
async fn a_session_is_renewed_only_after_a_tenth_of_the_idle_limit() {
    let site =
        Site::start_with(|builder| builder.with_idle_limit(Duration::from_secs(1_000))).await;
    let mut browser = site.logged_in("user=notch").await;
    site.advance(99);
    assert!(browser.get("/username").await.set_cookies().is_empty());
    site.advance(1);
    // A server-side session is renewed in the store, and its cookie stays as it is.
    let renewed = if has_server_sessions() { 0 } else { 1 };
    assert_eq!(browser.get("/username").await.set_cookies().len(), renewed);
    assert!(browser.get("/username").await.set_cookies().is_empty());
    assert_eq!(browser.get("/is-fresh").await.text(), "true");
}

#[tokio::test]
async fn a_session_ends_with_the_browser_unless_it_is_persistent() {
    let site = Site::start().await;
    let mut browser = site.logged_in("user=notch").await;
    browser.close_browser();
    assert_eq!(browser.get("/username").await.text(), "Anonymous");
    let site = Site::start_with(|builder| builder.with_persistent_session(true)).await;
    let mut browser = site.logged_in("user=notch").await;
    browser.close_browser();
    assert_eq!(browser.get("/username").await.text(), "notch");
}

#[tokio::test]
async fn a_changed_security_stamp_ends_every_other_login() {
    let site = Site::start().await;
    let mut this_browser = site.logged_in("user=notch&remember=1").await;
    let mut other_browser = site.logged_in("user=notch&remember=1").await;
    let mut closed_browser = site.logged_in("user=notch&remember=1").await;
    closed_browser.close_browser();
    assert_eq!(this_browser.get("/change-password").await.text(), "changed");
    for browser in [&mut other_browser, &mut closed_browser] {
        let response = browser.get("/username").await;
        assert_eq!(response.text(), "Anonymous");
        // A wrong security stamp does not clear the cookies. With server-side sessions, the other
        // sessions have ended, and the cookies of an ended session are cleared.
        assert_eq!(response.set_cookies().is_empty(), !has_server_sessions());
    }
    // This browser stays logged in, and its remember cookie remains valid.
    assert_eq!(this_browser.get("/sensitive").await.text(), "secret of notch");
    this_browser.close_browser();
    assert_eq!(this_browser.get("/username").await.text(), "notch");
}

#[tokio::test]
async fn a_deactivated_or_deleted_user_is_logged_out_at_the_next_request() {
    for is_deleted in [false, true] {
        for is_closed in [false, true] {
            let site = Site::start().await;
            let mut browser = site.logged_in("user=notch&remember=1").await;
            if is_closed {
                browser.close_browser();
            }
            if is_deleted {
                assert!(site.store.inner().delete(&"1".into()).await.unwrap());
            } else {
                site.store.change("1", |notch| notch.set_active(false)).await;
            }
            assert_eq!(browser.get("/secret").await.status, StatusCode::UNAUTHORIZED);
            assert!(browser.jar.names().is_empty(), "{:?}", browser.jar.names());
            assert_eq!(browser.get("/username").await.text(), "Anonymous");
        }
    }
}

#[tokio::test]
async fn a_login_counts_even_if_the_handler_then_fails() {
    let site = Site::start().await;
    let mut browser = site.browser();
    let response = browser.get("/log-in-and-fail").await;
    assert_eq!(response.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(browser.get("/username").await.text(), "notch");
}

#[tokio::test]
async fn a_previous_key_is_accepted_and_its_cookies_are_reissued() {
    // The sites are named after the keys that they accept.
    let old = Site::start().await;
    let new_key = "another key for tests, also long enough";
    let both = old.start_another(Keys::new(new_key).with_previous(KEY), |builder| builder).await;
    let new = old.start_another(Keys::new(new_key), |builder| builder).await;
    for is_closed in [false, true] {
        let mut browser = old.logged_in("user=notch&remember=1").await;
        if is_closed {
            browser.close_browser();
        }
        let mut on_new = new.browser();
        on_new.jar = browser.jar.clone();
        let response = on_new.get("/username").await;
        assert_eq!(response.text(), "Anonymous");
        // A cookie that was signed with an unknown key is not cleared.
        assert!(response.set_cookies().is_empty());

        let mut on_both = both.browser();
        on_both.jar = browser.jar.clone();
        both.advance(5);
        assert_eq!(on_both.get("/username").await.text(), "notch");
        assert_eq!(on_both.get("/is-fresh").await.text(), (!is_closed).to_string());
        on_new.jar = on_both.jar.clone();
        assert_eq!(on_new.get("/username").await.text(), "notch");
        on_new.jar.remove(SESSION);
        assert_eq!(on_new.get("/username").await.text(), "notch");
    }
    // A reissued cookie expires at the same time as before.
    let mut browser = old.logged_in("user=notch&remember=1&duration=100").await;
    browser.jar.ignore_expiry();
    let mut on_both = both.browser();
    on_both.jar = browser.jar;
    both.advance(90);
    on_both.get("/username").await;
    on_both.jar.ignore_expiry();
    both.advance(10);
    assert_eq!(on_both.get("/is-remembered").await.text(), "false");
}

#[tokio::test]
async fn the_next_key_is_accepted_before_it_signs_cookies() {
    let next_key = "the next key, which other nodes already use";
    let first = Site::start_with(|builder| builder).await;
    let prepared = first.start_another(Keys::new(KEY).with_next(next_key), |builder| builder).await;
    let updated =
        first.start_another(Keys::new(next_key).with_previous(KEY), |builder| builder).await;
    // The requests of a browser reach both kinds of nodes in turn. The nodes don't set new cookies
    // at every request.
    for is_closed in [false, true] {
        let mut browser = updated.logged_in("user=notch&remember=1").await;
        if is_closed {
            browser.close_browser();
        }
        let mut on_prepared = prepared.browser();
        let mut cookie_count = 0;
        for _ in 0..10 {
            on_prepared.jar = browser.jar.clone();
            let response = on_prepared.get("/username").await;
            assert_eq!(response.text(), "notch");
            cookie_count += response.set_cookies().len();
            browser.jar = on_prepared.jar.clone();
            let response = browser.get("/username").await;
            assert_eq!(response.text(), "notch");
            cookie_count += response.set_cookies().len();
        }
        // A restored login gets two new cookies once. The updated node reissues them once, because
        // they were signed with the old key.
        let limit = if is_closed { 2 + 2 } else { 0 };
        assert!(cookie_count <= limit, "{cookie_count} cookies in 20 requests");
    }
}

#[tokio::test]
async fn a_login_without_remember_never_sets_the_remember_cookie() {
    for has_refresh in [false, true] {
        let site = Site::start_with(|builder| builder.with_remember_refresh(has_refresh)).await;
        let mut browser = site.logged_in("user=notch").await;
        for path in ["/username", "/secret", "/confirm", "/change-password", "/username"] {
            browser.get(path).await;
            site.advance(DAY);
        }
        assert_eq!(browser.jar.names(), [SESSION]);
        assert_eq!(browser.get("/is-remembered").await.text(), "false");
    }
}

#[tokio::test]
async fn a_refresh_never_creates_a_remember_cookie() {
    let site = Site::start_with(|builder| builder.with_remember_refresh(true)).await;
    let steve = site.logged_in("user=steve&remember=1").await;
    let cookie_of_steve = steve.jar.get(REMEMBER).unwrap().to_owned();
    for foreign in ["garbage", "", cookie_of_steve.as_str()] {
        let mut browser = site.logged_in("user=notch").await;
        browser.jar.insert(REMEMBER, foreign);
        site.advance(10);
        assert!(browser.get("/username").await.set_cookies().is_empty());
        assert_eq!(browser.jar.get(REMEMBER), Some(foreign));
    }
}

#[tokio::test]
async fn a_refresh_extends_a_genuine_remember_cookie() {
    let site = Site::start_with(|builder| builder.with_remember_refresh(true)).await;
    let mut browser = site.logged_in("user=notch&remember=1&duration=100").await;
    for _ in 0..5 {
        site.advance(90);
        assert_eq!(browser.get("/is-fresh").await.text(), "true");
    }
    browser.close_browser();
    assert_eq!(browser.get("/username").await.text(), "notch");
}

#[tokio::test]
async fn anonymous_clients_and_users_of_request_loaders_are_never_fresh() {
    let site = Site::start_with(|builder| {
        builder.with_request_loader(tower_keep::loader::Bearer::new(|token: String| async move {
            Ok((token == "t").then(|| account("notch").into()))
        }))
    })
    .await;
    let mut nobody = site.browser();
    assert_eq!(nobody.get("/confirm").await.text(), "nobody");
    assert_eq!(nobody.get("/is-fresh").await.text(), "false");
    let mut api = site.browser();
    api.set_header(http::header::AUTHORIZATION, "Bearer t");
    assert_eq!(api.get("/username").await.text(), "notch");
    assert_eq!(api.get("/confirm").await.text(), "nobody");
    assert_eq!(api.get("/is-fresh").await.text(), "false");
    assert_eq!(api.get("/sensitive").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(api.get("/change-password").await.text(), "lost");
    assert!(nobody.jar.names().is_empty() && api.jar.names().is_empty());
}

#[tokio::test]
async fn a_cookie_that_is_not_genuine_is_not_cleared() {
    let site = Site::start().await;
    let genuine = site.logged_in("user=notch&remember=1").await.jar;
    let other = Site::start_with(|builder| builder.with_area("other")).await;
    let foreign = other.logged_in("user=notch&remember=1").await.jar;
    for name in [SESSION, REMEMBER] {
        let value = genuine.get(name).unwrap();
        let (start, last) = value.split_at(value.len() - 1);
        let truncated = start.to_owned();
        let changed = format!("{start}{}", if last == "A" { "Q" } else { "A" });
        let of_other_area = foreign.get(&name.replace("keep", "keep-other")).unwrap().to_owned();
        for value in [truncated, changed, of_other_area, "garbage".into(), String::new()] {
            let mut browser = site.browser();
            browser.jar.insert(name, &value);
            let response = browser.get("/secret").await;
            assert_eq!(response.status, StatusCode::UNAUTHORIZED);
            assert!(response.set_cookies().is_empty(), "{value}");
        }
    }
}

// Without server-side sessions, the old copy stays valid and not fresh.
#[tokio::test]
async fn confirm_changes_the_cookie_and_an_old_copy_is_not_fresh() {
    let site = Site::start().await;
    let mut browser = site.logged_in("user=notch&fresh=0").await;
    let copy = browser.clone();
    assert_eq!(browser.get("/sensitive").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(browser.get("/confirm").await.text(), "confirmed");
    assert_ne!(browser.jar.get(SESSION), copy.jar.get(SESSION));
    assert_eq!(browser.get("/sensitive").await.status, StatusCode::OK);
    let mut copy = copy;
    assert_eq!(copy.get("/sensitive").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn an_auth_session_cannot_log_in_after_the_response() {
    let site = Site::start().await;
    let mut browser = site.browser();
    assert_eq!(browser.get("/log-in-late").await.text(), "later");
    tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            use tower_keep::AuthUser;
            use tower_keep::store::UserStore;
            let steve = site.store.inner().by_id(&"2".into()).await.unwrap().unwrap();
            match steve.security_stamp().as_ref() {
                b"refused" => break,
                b"accepted" => panic!("a late login was accepted"),
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    })
    .await
    .expect("the late login is decided");
    assert!(site.events.take().is_empty());
    assert!(browser.jar.names().is_empty());
}

#[tokio::test]
async fn require_fresh_within_rejects_a_login_that_was_confirmed_too_long_ago() {
    let site = Site::start().await;
    let mut browser = site.logged_in("user=notch").await;
    site.advance(600);
    assert_eq!(browser.get("/recent").await.status, StatusCode::OK);
    site.advance(1);
    assert_eq!(browser.get("/recent").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(browser.get("/sensitive").await.status, StatusCode::OK);
    browser.get("/confirm").await;
    assert_eq!(browser.get("/recent").await.status, StatusCode::OK);
}

#[tokio::test]
async fn logout_clears_a_remember_cookie_whose_path_excludes_the_logout() {
    let site = Site::start_with(|builder| {
        let cookie = tower_keep::cookie::CookieSettings::new().with_name("me").with_path("/secret");
        builder.with_remember_cookie(cookie)
    })
    .await;
    let mut browser = site.logged_in("user=notch&remember=1").await;
    browser.get("/logout").await;
    assert!(browser.jar.names().is_empty(), "{:?}", browser.jar.names());
}

#[tokio::test]
async fn an_inactive_user_logs_in_only_with_force_and_passes_no_guard() {
    let site = Site::start().await;
    let mut browser = site.browser();
    assert_eq!(browser.get("/login?user=creeper").await.text(), "False");
    assert!(browser.jar.names().is_empty() && site.events.take().is_empty());
    let mut browser = site.logged_in("user=creeper&force=1&remember=1").await;
    for _ in 0..2 {
        assert_eq!(browser.get("/username").await.text(), "Anonymous");
        assert_eq!(browser.get("/inactive").await.text(), "creeper");
        assert_eq!(browser.get("/secret").await.status, StatusCode::UNAUTHORIZED);
        browser.close_browser();
    }
    // Once the user is active, a forced login is like a login without force.
    site.store.change("3", |creeper| creeper.set_active(true)).await;
    assert_eq!(browser.get("/secret").await.text(), "secret of creeper");
}

#[tokio::test]
async fn a_login_fails_if_its_cookie_is_too_large_for_browsers() {
    use tower_keep::store::UserDirectory;
    let site = Site::start().await;
    // Browsers drop a cookie whose name and value are longer than 4,096 bytes. The value is the
    // user's id and some more bytes, in base64. With server-side sessions no cookie has to contain
    // the id, and only the store limits the length of an id.
    let lengths = if has_server_sessions() {
        [(39, StatusCode::OK), (1_500, StatusCode::OK)]
    } else {
        [(3_002, StatusCode::OK), (3_003, StatusCode::INTERNAL_SERVER_ERROR)]
    };
    for (length, status) in lengths {
        let long = tower_keep::Account::new("x".repeat(length), format!("long{length}"), "");
        site.store.inner().insert(&long).await.unwrap();
        let mut browser = site.browser();
        let response = browser.get(&format!("/login?user=long{length}")).await;
        assert_eq!(response.status, status, "{length}");
        assert_eq!(browser.jar.names().is_empty(), status != StatusCode::OK);
    }
}

#[tokio::test]
async fn strong_protection_ends_the_login_and_basic_only_its_freshness() {
    use SessionProtection::{Basic, None, Strong};
    for (protection, persistent, user, is_fresh, cookie_count) in [
        (None, false, "notch", "true", 2),
        (Basic, false, "notch", "false", 2),
        (Strong, false, "Anonymous", "false", 0),
        (Strong, true, "notch", "false", 2),
    ] {
        let site = Site::start_with(|builder| {
            builder.with_session_protection(protection).with_persistent_session(persistent)
        })
        .await;
        let mut browser = site.logged_in("user=notch&remember=1").await;
        browser.set_header(http::header::USER_AGENT, "Another/1.0");
        assert_eq!(browser.get("/username").await.text(), user);
        assert_eq!(browser.get("/is-fresh").await.text(), is_fresh);
        assert_eq!(browser.jar.names().len(), cookie_count, "{protection:?}");
        let has_event = site.events.take().contains(&"session_protected".to_owned());
        assert_eq!(has_event, protection != None);
    }
}

#[tokio::test]
async fn a_logout_works_with_get_and_post() {
    let site = Site::start().await;
    for method in [Method::GET, Method::POST] {
        let mut browser = site.logged_in("user=notch&remember=1").await;
        assert_eq!(browser.send(method, "/logout", String::new()).await.text(), "notch");
        assert!(browser.jar.names().is_empty());
        assert_eq!(browser.get("/secret").await.status, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn a_body_that_asks_for_the_user_while_it_is_sent_gets_the_user() {
    let site = Site::start().await;
    let mut browser = site.logged_in("user=notch").await;
    assert_eq!(browser.get("/asked-late").await.text(), "notch");
    assert_eq!(site.browser().get("/asked-late").await.text(), "Anonymous");
}

// Once a request has seen the user active, a new deactivation logs the user out.
#[tokio::test]
async fn a_forced_login_loses_its_force_once_a_request_has_seen_the_user_active() {
    let site = Site::start().await;
    for is_closed in [false, true] {
        let mut browser = site.logged_in("user=creeper&force=1&remember=1").await;
        site.store.change("3", |creeper| creeper.set_active(true)).await;
        if is_closed {
            browser.close_browser();
        }
        assert_eq!(browser.get("/username").await.text(), "creeper");
        site.store.change("3", |creeper| creeper.set_active(false)).await;
        assert_eq!(browser.get("/inactive").await.text(), "");
        assert!(browser.jar.names().is_empty(), "{:?}", browser.jar.names());
    }
}

#[tokio::test]
async fn a_flash_message_for_one_user_is_not_shown_to_the_next() {
    let site = Site::start().await;
    for path in ["/logout", "/login?user=steve"] {
        let mut browser = site.logged_in("user=notch").await;
        browser.get("/flash").await;
        browser.get(path).await;
        browser.get("/login?user=steve").await;
        assert_eq!(browser.get("/take-flash").await.text(), "", "{path}");
    }
    // A flash message for an anonymous visitor is kept when the visitor logs in.
    let mut browser = site.browser();
    browser.get("/flash").await;
    browser.get("/login?user=steve").await;
    assert_eq!(browser.get("/take-flash").await.text(), "Application success Well done.");
}

/// Sends `/recheck`, which asks for the user, then does something else while the handler waits, and
/// returns whom the handler has found before and after.
async fn recheck_after(
    site: &Site,
    browser: &Browser,
    meanwhile: impl AsyncFnOnce(),
) -> (StatusCode, String) {
    let mut waiting = browser.clone();
    let response = tokio::spawn(async move { waiting.get("/recheck").await });
    site.gate.wait_for_request().await;
    meanwhile().await;
    site.gate.let_one_pass();
    let response = response.await.expect("the task does not panic");
    (response.status, response.text())
}

#[tokio::test]
async fn recheck_says_whether_the_login_still_stands() {
    let ok = |text: &str| (StatusCode::OK, text.to_owned());
    let site = Site::start().await;
    assert_eq!(
        recheck_after(&site, &site.browser(), async || {}).await,
        ok("Anonymous, then Anonymous")
    );
    let mut browser = site.logged_in("user=notch").await;
    assert_eq!(recheck_after(&site, &browser, async || {}).await, ok("notch, then notch"));
    // A user who is changed without a new security stamp is returned as changed.
    let rename = async || {
        site.store.change("1", |notch| notch.set_login_name("renamed")).await;
    };
    assert_eq!(recheck_after(&site, &browser, rename).await, ok("notch, then renamed"));
    site.store.change("1", |notch| notch.set_login_name("notch")).await;
    // Without server-side sessions, a logout does not end copies of the cookies.
    let logout = async || drop(browser.clone().get("/logout").await);
    let after_logout = recheck_after(&site, &browser, logout).await;
    let expected =
        if has_server_sessions() { "notch, then Anonymous" } else { "notch, then notch" };
    assert_eq!(after_logout, ok(expected));
    browser = site.logged_in("user=notch").await;
    let new_password = async || {
        site.store.change("1", |notch| notch.set_security_stamp(b"another")).await;
    };
    assert_eq!(recheck_after(&site, &browser, new_password).await, ok("notch, then Anonymous"));
    browser = site.logged_in("user=notch").await;
    let deactivate = async || site.store.change("1", |notch| notch.set_active(false)).await;
    assert_eq!(recheck_after(&site, &browser, deactivate).await, ok("notch, then Anonymous"));
    site.store.change("1", |notch| notch.set_active(true)).await;
    // The idle limit is seven days, and a remember cookie would restore the login.
    browser = site.logged_in("user=notch").await;
    let week = async || site.advance(7 * DAY);
    assert_eq!(recheck_after(&site, &browser, week).await, ok("notch, then Anonymous"));
    browser = site.logged_in("user=notch&remember=1").await;
    let week = async || site.advance(7 * DAY);
    assert_eq!(recheck_after(&site, &browser, week).await, ok("notch, then notch"));
    browser = site.logged_in("user=notch&remember=1").await;
    let month = async || site.advance(30 * DAY);
    assert_eq!(recheck_after(&site, &browser, month).await, ok("notch, then Anonymous"));
    browser = site.logged_in("user=notch").await;
    let fail = async || site.store.set_down(true);
    let (status, _) = recheck_after(&site, &browser, fail).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    site.store.set_down(false);
    let delete = async || assert!(site.store.inner().delete(&"1".into()).await.unwrap());
    assert_eq!(recheck_after(&site, &browser, delete).await, ok("notch, then Anonymous"));
}

#[tokio::test]
async fn recheck_counts_as_a_use_of_a_server_side_session() {
    let site = Site::with_server_sessions().await;
    let browser = site.logged_in("user=notch").await;
    for _ in 0..2 {
        // The request is a use, and the recheck six days later is another.
        let six_days = async || site.advance(6 * DAY);
        let (_, text) = recheck_after(&site, &browser, six_days).await;
        assert_eq!(text, "notch, then notch");
        site.advance(6 * DAY);
    }
    assert_eq!(browser.clone().get("/username").await.text(), "notch");
}

/// The remember cookie keeps the login, but only a restored session may go on, which is not fresh.
#[tokio::test]
async fn recheck_does_not_revive_a_session_that_was_idle_for_too_long() {
    let site = Site::with_server_sessions().await;
    let mut browser = site.logged_in("user=notch&remember=1").await;
    let eight_days = async || site.advance(8 * DAY);
    let (_, text) = recheck_after(&site, &browser, eight_days).await;
    assert_eq!(text, "notch, then notch");
    assert_eq!(browser.get("/is-fresh").await.text(), "false");
    assert_eq!(browser.get("/username").await.text(), "notch");
}

#[tokio::test]
async fn recheck_asks_the_request_loaders_again() {
    let is_valid = Arc::new(AtomicBool::new(true));
    let valid = Arc::clone(&is_valid);
    let site = Site::start_with(|builder| {
        builder.with_request_loader(tower_keep::loader::Bearer::new(move |name: String| {
            let found = valid.load(Ordering::Relaxed).then(|| account(&name));
            async move { Ok(found.map(Arc::new)) }
        }))
    })
    .await;
    let mut program = site.browser();
    program.set_header(http::header::AUTHORIZATION, "Bearer notch");
    let (_, text) = recheck_after(&site, &program, async || {}).await;
    assert_eq!(text, "notch, then notch");
    let revoke = async || is_valid.store(false, Ordering::Relaxed);
    let (_, text) = recheck_after(&site, &program, revoke).await;
    assert_eq!(text, "notch, then Anonymous");
}
