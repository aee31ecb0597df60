//! Bearer tokens: logins for clients without cookies, which send `Authorization`.

use http::{Method, StatusCode, header};
use tower_keep::store::{UserDirectory, UserStore};
use tower_keep::{Keys, LoginLayer};
use tower_keep_memory::MemoryStore;
use tower_keep_testkit::client::TestResponse;
use tower_keep_tests::{Browser, Builder, KEY, Site, WatchedStoreExt};

const TOKEN_BYTES: usize = 72;
const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

async fn site() -> Site {
    site_with(|builder| builder).await
}

async fn site_with(configure: impl FnOnce(Builder) -> Builder) -> Site {
    Site::start_with(|builder| {
        let builder = builder.with_login_page("/login").expect("a page");
        configure(builder.with_sessions().with_bearer_sessions(true))
    })
    .await
}

/// Logs in with this query of `/token`, and returns a client that sends the token.
async fn program(site: &Site, query: &str) -> Browser {
    let mut client = site.browser();
    let response = client.get(&format!("/token?{query}")).await;
    assert_eq!(response.header(header::CACHE_CONTROL), "no-store");
    assert!(response.set_cookies().is_empty());
    send_token(&mut client, &response.text());
    client
}

fn send_token(client: &mut Browser, token: &str) {
    assert_eq!(token.len(), TOKEN_BYTES, "{token}");
    client.set_header(header::AUTHORIZATION, &format!("Bearer {token}"));
}

fn challenge(response: &TestResponse) -> (u16, String) {
    (response.status.as_u16(), response.header(header::WWW_AUTHENTICATE))
}

#[tokio::test]
async fn a_token_logs_in_its_user_and_sets_no_cookie() {
    let site = site().await;
    let mut program = program(&site, "user=notch").await;
    for (path, expected) in
        [("/username", "notch"), ("/secret", "secret of notch"), ("/is-bearer", "true")]
    {
        let response = program.get(path).await;
        assert_eq!(response.text(), expected);
        assert!(response.set_cookies().is_empty());
        assert_eq!(response.header(header::CACHE_CONTROL), "no-store");
        assert_eq!(response.header(header::VARY), "Cookie, Authorization");
    }
    assert_eq!(site.browser().get("/username").await.header(header::VARY), "Cookie, Authorization");
    assert_eq!(site.browser().get("/is-bearer").await.text(), "false");
    assert_eq!(site.events.take(), ["logged_in notch"]);
}

#[tokio::test]
async fn a_session_with_a_token_is_listed_and_ended_like_any_other() {
    let site = site().await;
    let mut browser = site.logged_in("user=notch").await;
    let mut program = program(&site, "user=notch&method=cli").await;
    let listed = program.get("/sessions").await.text();
    let lines: Vec<_> = listed.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].contains(" this ") && lines[0].ends_with(" cli bearer"), "{listed}");
    assert!(lines[1].contains(" other ") && !lines[1].ends_with("bearer"), "{listed}");
    // The browser ends it.
    let id = lines[0].split(' ').next().unwrap();
    assert_eq!(browser.get(&format!("/end-session?session={id}")).await.text(), "true");
    assert_eq!(program.get("/username").await.text(), "Anonymous");
    assert_eq!(browser.get("/username").await.text(), "notch");
    // The program logs out itself, and ends nothing else.
    let mut program = self::program(&site, "user=notch").await;
    assert_eq!(program.get("/logout").await.text(), "notch");
    assert_eq!(program.get("/username").await.text(), "Anonymous");
    assert_eq!(browser.get("/username").await.text(), "notch");
    // One call ends all.
    let mut program = self::program(&site, "user=notch").await;
    assert_eq!(browser.get("/end-all").await.text(), "notch");
    assert_eq!(program.get("/username").await.text(), "Anonymous");
}

#[tokio::test]
async fn a_browser_that_makes_a_token_stays_logged_in_as_before() {
    let site = site().await;
    let mut browser = site.logged_in("user=steve&remember=1").await;
    let before = browser.jar.clone();
    let token = browser.get("/token?user=steve").await.text();
    assert_eq!(browser.jar.names(), before.names());
    let mut program = site.browser();
    send_token(&mut program, &token);
    assert_eq!(program.get("/username").await.text(), "steve");
    assert_eq!(browser.get("/logout").await.text(), "steve");
    assert_eq!(program.get("/username").await.text(), "steve");
}

#[tokio::test]
async fn a_token_expires_at_its_time_however_often_it_is_used() {
    let site =
        site_with(|builder| builder.with_idle_limit(std::time::Duration::from_secs(HOUR))).await;
    let mut program = program(&site, &format!("user=notch&duration={}", 5 * HOUR)).await;
    // The idle limit is for browsers.
    site.advance(4 * HOUR);
    assert_eq!(program.get("/username").await.text(), "notch");
    site.advance(HOUR - 1);
    assert_eq!(program.get("/username").await.text(), "notch");
    site.advance(1);
    assert_eq!(program.get("/username").await.text(), "Anonymous");
    let mut browser = site.logged_in("user=notch").await;
    assert_eq!(browser.get("/sessions").await.text().lines().count(), 1, "it is no longer listed");
}

#[tokio::test]
async fn a_login_with_a_token_is_fresh_for_ten_minutes() {
    let site = site().await;
    let mut program = program(&site, "user=notch").await;
    assert_eq!(program.get("/sensitive").await.status, StatusCode::OK);
    site.advance(10 * MINUTE - 1);
    assert_eq!(program.get("/recent").await.status, StatusCode::OK);
    site.advance(1);
    assert_eq!(
        challenge(&program.get("/recent").await),
        (
            401,
            r#"Bearer realm="site", error="insufficient_user_authentication", max_age="600""#
                .into()
        )
    );
    assert_eq!(program.get("/confirm").await.text(), "nobody", "a token can't be made fresh");
    assert_eq!(program.get("/sensitive").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(program.get("/username").await.text(), "notch");
    let mut stale = self::program(&site, "user=notch&fresh=0").await;
    assert_eq!(stale.get("/sensitive").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn two_processes_can_share_a_token_for_its_whole_life() {
    let site = site().await;
    let (mut one, other) = (program(&site, "user=notch").await, site.browser());
    let mut other = Browser::clone(&other);
    let token = one.get("/token?user=notch").await.text();
    send_token(&mut one, &token);
    send_token(&mut other, &token);
    for _ in 0..5 {
        site.advance(5 * 24 * HOUR);
        assert_eq!(one.get("/username").await.text(), "notch");
        assert_eq!(other.get("/username").await.text(), "notch");
    }
    let replays = site.events.take().into_iter().filter(|event| event.contains("replay"));
    assert_eq!(replays.count(), 0);
}

#[tokio::test]
async fn a_token_of_ours_decides_alone_even_if_it_is_invalid() {
    let site = site().await;
    let mut browser = site.logged_in("user=steve&remember=1").await;
    let mut program = program(&site, "user=notch").await;
    let token = program.get("/token?user=notch").await.text();
    let cookies = browser.jar.names().len();
    // With a valid token, the user of the token is logged in, not that of the cookies.
    send_token(&mut browser, &token);
    assert_eq!(browser.get("/username").await.text(), "notch");
    let junk = format!("tkb_{}", "A".repeat(TOKEN_BYTES - 4));
    let flipped = {
        let last = if token.ends_with('A') { 'B' } else { 'A' };
        format!("{}{last}", &token[..TOKEN_BYTES - 1])
    };
    for invalid in [junk.as_str(), flipped.as_str(), "tkb_", "tkb_!", &token[..TOKEN_BYTES - 1]] {
        browser.set_header(header::AUTHORIZATION, &format!("Bearer {invalid}"));
        assert_eq!(browser.get("/username").await.text(), "Anonymous", "{invalid}");
        for path in ["/secret", "/extracted", "/sensitive"] {
            let response = browser.get(path).await;
            let expected = r#"Bearer realm="site", error="invalid_token""#;
            assert_eq!(challenge(&response), (401, expected.into()), "{path} with {invalid}");
            assert!(response.set_cookies().is_empty());
        }
        // No cookie is set either.
        let response = browser.get("/login?user=notch").await;
        assert_eq!(response.status, StatusCode::BAD_REQUEST);
        let response = browser.get("/flash").await;
        assert!(response.set_cookies().is_empty());
        assert_eq!(browser.get("/logout").await.text(), "");
    }
    // The login of the cookies was not touched.
    browser.remove_header(header::AUTHORIZATION);
    assert_eq!(browser.get("/username").await.text(), "steve");
    assert_eq!(browser.jar.names().len(), cookies);
    // A token of another kind is left to the request loaders, and the cookies count.
    browser.set_header(header::AUTHORIZATION, "Bearer of-the-application");
    assert_eq!(browser.get("/username").await.text(), "steve");
}

#[tokio::test]
async fn a_token_in_a_url_or_in_a_cookie_is_not_read() {
    let site = site().await;
    let token = site.browser().get("/token?user=notch").await.text();
    let mut client = site.browser();
    for path in [
        format!("/username?access_token={token}"),
        format!("/username?token={token}"),
        format!("/username?authorization=Bearer%20{token}"),
    ] {
        assert_eq!(client.get(&path).await.text(), "Anonymous");
    }
    for cookie in ["__Host-Http-keep", "__Host-Http-keep-remember"] {
        client.jar.insert(cookie, &token[4..]);
        assert_eq!(client.get("/username").await.text(), "Anonymous");
    }
    // Nor is the value of a cookie valid in a token.
    let cookie = site.logged_in("user=notch").await.jar.get("__Host-Http-keep").unwrap().to_owned();
    let mut client = site.browser();
    client.set_header(header::AUTHORIZATION, &format!("Bearer tkb_{cookie}"));
    assert_eq!(client.get("/username").await.text(), "Anonymous");
}

#[tokio::test]
async fn a_changed_password_a_deactivation_and_a_deletion_end_a_token() {
    let site = site().await;
    for (change, is_undone) in [("stamp", false), ("active", true), ("deleted", false)] {
        let mut program = program(&site, "user=steve").await;
        assert_eq!(program.get("/username").await.text(), "steve");
        let steve = site.store.inner().by_id(&"2".into()).await.unwrap().unwrap();
        match change {
            "stamp" => site.store.change("2", |steve| steve.set_security_stamp(b"new")).await,
            "active" => site.store.change("2", |steve| steve.set_active(false)).await,
            _ => assert!(site.store.inner().delete(&"2".into()).await.unwrap()),
        }
        assert_eq!(program.get("/username").await.text(), "Anonymous", "{change}");
        if is_undone {
            site.store.change("2", |steve| steve.set_active(true)).await;
            assert_eq!(program.get("/username").await.text(), "Anonymous", "the session has ended");
        }
        if change == "deleted" {
            site.store.inner().insert(&steve).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_token_is_valid_only_for_its_area_and_while_its_key_is_kept() {
    let site = site().await;
    let token = site.browser().get("/token?user=notch").await.text();
    let another = async |keys: Keys, area: &'static str| {
        let configure =
            |builder: Builder| builder.with_sessions().with_bearer_sessions(true).with_area(area);
        let other = site.start_another(keys, configure).await;
        let mut client = other.browser();
        send_token(&mut client, &token);
        client.get("/username").await.text()
    };
    const NEW_KEY: &str = "another key for tests, also long enough.";
    assert_eq!(another(Keys::new(KEY), "").await, "notch");
    assert_eq!(another(Keys::new(KEY), "admin").await, "Anonymous");
    assert_eq!(another(Keys::new(NEW_KEY).with_previous(KEY), "").await, "notch");
    assert_eq!(another(Keys::new(NEW_KEY).with_next(KEY), "").await, "notch");
    assert_eq!(another(Keys::new(NEW_KEY), "").await, "Anonymous");
}

#[tokio::test]
async fn a_session_limit_counts_tokens_and_their_first_use() {
    use tower_keep::session::WhenFull;
    let site = site_with(|builder| builder.with_session_limit(2, WhenFull::Refuse)).await;
    let mut one = program(&site, "user=notch").await;
    let mut two = program(&site, "user=notch").await;
    assert_eq!(one.get("/username").await.text(), "notch");
    assert_eq!(two.get("/username").await.text(), "notch");
    let refused = site.browser().get("/token?user=notch").await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert_eq!(one.get("/logout").await.text(), "notch");
    assert_eq!(program(&site, "user=notch").await.get("/username").await.text(), "notch");
}

#[tokio::test]
async fn a_store_that_fails_is_503_for_a_program() {
    let site = site().await;
    let mut program = program(&site, "user=notch").await;
    site.store.set_down(true);
    for path in ["/secret", "/username", "/logout", "/token?user=notch"] {
        let response = program.get(path).await;
        assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert_eq!(response.header(header::CONTENT_TYPE), "application/problem+json");
    }
    site.store.set_down(false);
    assert_eq!(program.get("/username").await.text(), "notch");
}

#[tokio::test]
async fn a_program_does_not_use_up_the_notice_of_a_replay() {
    let site = site().await;
    let mut browser = site.logged_in("user=notch&remember=1").await;
    browser.close_browser();
    let mut thief = browser.clone();
    thief.jar.ignore_expiry();
    assert_eq!(browser.get("/username").await.text(), "notch");
    site.advance(HOUR);
    browser.close_browser();
    assert_eq!(browser.get("/username").await.text(), "notch");
    site.advance(HOUR);
    assert_eq!(thief.get("/username").await.text(), "Anonymous");
    drop(program(&site, "user=notch").await);
    let mut browser = site.logged_in("user=notch").await;
    assert!(browser.get("/take-flash").await.text().starts_with("Replayed"));
}

#[tokio::test]
async fn tokens_need_server_side_sessions_and_a_setting() {
    let store = MemoryStore::<tower_keep::Account>::new();
    let builder = || LoginLayer::builder(store.clone(), Keys::new(KEY)).with_bearer_sessions(true);
    let error = builder().build().unwrap_err().to_string();
    assert!(error.contains("`with_sessions`"), "{error}");
    assert!(builder().with_sessions().build().is_ok());
    // Without the setting, no token is made, and `Authorization` is left to the application.
    let without = Site::start_with(Builder::with_sessions).await;
    let response = without.browser().send(Method::POST, "/token?user=notch", String::new()).await;
    assert_eq!(response.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(response.text().contains("with_bearer_sessions"), "{}", response.text());
    let mut browser = without.logged_in("user=notch").await;
    browser.set_header(header::AUTHORIZATION, "Bearer tkb_abc");
    assert_eq!(browser.get("/username").await.text(), "notch");
}
