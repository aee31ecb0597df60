//! Bearer tokens: logins for clients without cookies, which send `Authorization`.

use std::convert::Infallible;

use http::{Method, Request, Response, StatusCode, header};
use tower::service_fn;
use tower_keep::store::{UserDirectory, UserStore};
use tower_keep::{Account, Keys, LoginLayer, user_loader};
use tower_keep_memory::{MemorySessions, MemoryStore};
use tower_keep_testkit::client::{Client, TestResponse};
use tower_keep_tests::{Browser, Builder, KEY, Site, WatchedStoreExt, send_raw};

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
    let mut program = program(&site, "user=notch&method=password&label=laptop").await;
    let listed = program.get("/sessions").await.text();
    let lines: Vec<_> = listed.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(
        lines[0].contains(" this ") && lines[0].ends_with(" password bearer laptop"),
        "{listed}"
    );
    assert!(lines[1].contains(" other ") && !lines[1].contains("bearer"), "{listed}");
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
async fn other_credentials_beside_a_token_of_ours_do_not_count() {
    use tower_keep::loader::ApiKey;
    let site = site_with(|builder| {
        builder.with_request_loader(ApiKey::new(
            "x-api-key".parse().unwrap(),
            |name: String| async move {
                Ok(Some(std::sync::Arc::new(tower_keep_tests::account(&name))))
            },
        ))
    })
    .await;
    let token = site.browser().get("/token?user=notch").await.text();
    let mut program = site.browser();
    program.set_header("x-api-key".parse().unwrap(), "steve");
    assert_eq!(program.get("/username").await.text(), "steve");
    send_token(&mut program, &token);
    assert_eq!(program.get("/username").await.text(), "notch");
    program.set_header(header::AUTHORIZATION, "Bearer tkb_junk");
    assert_eq!(program.get("/username").await.text(), "Anonymous");
    // Of several fields, one with a token of ours is enough.
    let cookie = site.logged_in("user=steve").await.jar.get("__Host-Http-keep").unwrap().to_owned();
    for fields in [
        format!("Authorization: Bearer tkb_junk\r\nAuthorization: Bearer {token}\r\n"),
        format!("Authorization: Basic YTpi\r\nauthorization: bearer\t{token}\r\n"),
    ] {
        let request = format!(
            "GET /username HTTP/1.1\r\nHost: x\r\nCookie: __Host-Http-keep={cookie}\r\n\
             {fields}Connection: close\r\n\r\n"
        );
        let response = send_raw(site.address, request.as_bytes()).await;
        assert!(response.ends_with("notch"), "{response}");
    }
}

#[tokio::test]
async fn a_token_is_no_fresher_than_the_login_that_has_made_it() {
    let site = site().await;
    let token_of = async |mut client: Browser, query: &str| {
        let token = client.get(&format!("/token?user=notch{query}")).await.text();
        let mut program = site.browser();
        send_token(&mut program, &token);
        program
    };
    let is_fresh = async |mut program: Browser| program.get("/sensitive").await.status.as_u16();
    // A browser whose login was restored, or whose user has confirmed it nine minutes ago.
    let stale = site.logged_in("user=notch&fresh=0").await;
    assert_eq!(is_fresh(token_of(stale.clone(), "").await).await, 401);
    let fresh = site.logged_in("user=notch").await;
    assert_eq!(is_fresh(token_of(fresh.clone(), "").await).await, 200);
    site.advance(9 * MINUTE);
    let token = token_of(fresh, "").await;
    assert_eq!(is_fresh(token.clone()).await, 200);
    // A token that makes tokens does not stay fresh.
    let second = token_of(token.clone(), "").await;
    site.advance(MINUTE);
    assert_eq!(is_fresh(token.clone()).await, 401);
    assert_eq!(is_fresh(second).await, 401);
    assert_eq!(is_fresh(token_of(token, "").await).await, 401);
    // The application may say that the user has just given the password.
    assert_eq!(is_fresh(token_of(stale, "&fresh=1").await).await, 200);
    // A login of another user says nothing.
    let steve = site.logged_in("user=steve&fresh=0").await;
    assert_eq!(is_fresh(token_of(steve, "").await).await, 200);
}

#[tokio::test]
async fn recheck_asks_whether_the_session_of_a_token_still_stands() {
    let site = site().await;
    let program = program(&site, &format!("user=notch&duration={}", 20 * 24 * HOUR)).await;
    let recheck_after = async |meanwhile: &dyn Fn()| {
        let mut waiting = program.clone();
        let response = tokio::spawn(async move { waiting.get("/recheck").await });
        site.gate.wait_for_request().await;
        meanwhile();
        site.gate.let_one_pass();
        response.await.expect("no panic").text()
    };
    // The idle limit does not apply.
    assert_eq!(recheck_after(&|| site.advance(10 * 24 * HOUR)).await, "notch, then notch");
    assert_eq!(recheck_after(&|| site.advance(10 * 24 * HOUR)).await, "notch, then Anonymous");
}

#[tokio::test]
async fn a_new_password_ends_the_other_logins_of_a_program_too() {
    let site = site().await;
    let mut browser = site.logged_in("user=notch").await;
    let mut program = program(&site, "user=notch").await;
    // The stamp changes with the password, so the token is no longer valid either.
    assert_eq!(program.get("/change-password").await.text(), "lost");
    assert_eq!(program.get("/username").await.text(), "Anonymous");
    assert_eq!(browser.get("/username").await.text(), "Anonymous");
    let sessions = site.auth_layer.sessions_of(&1.into()).await.unwrap();
    assert_eq!(sessions.iter().filter(|session| !session.is_bearer()).count(), 0);
}

#[tokio::test]
async fn a_token_of_one_area_disables_the_cookies_of_the_others() {
    let layer = |area: &str| {
        let find = |id: tower_keep::UserId| async move {
            Ok(Some(std::sync::Arc::new(Account::new(id, "ada", ""))))
        };
        LoginLayer::builder(user_loader(find), Keys::new(KEY))
            .with_sessions_in(MemorySessions::new())
            .with_bearer_sessions(true)
            .with_area(area)
            .build()
            .unwrap()
    };
    let (site, admin) = (layer(""), layer("admin"));
    let guarded = site.require_login().layer(admin.require_login().layer(service_fn(
        async |_: Request<String>| Ok::<_, Infallible>(Response::new(String::new())),
    )));
    let mut client = Client::new(site.layer(admin.layer(guarded)));
    client.log_in(&site, Account::new(1, "ada", "")).await.unwrap();
    client.log_in(&admin, Account::new(1, "ada", "")).await.unwrap();
    assert_eq!(client.get("/").await.status, StatusCode::OK);
    client.set_header(header::AUTHORIZATION, "Bearer tkb_junk");
    assert_eq!(client.get("/").await.status, StatusCode::UNAUTHORIZED);
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

// The client closes a real socket while the handler works.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_whose_response_is_lost_leaves_no_session() {
    let site = site().await;
    let mut client = tokio::net::TcpStream::connect(site.address).await.unwrap();
    let request = b"GET /token-slowly HTTP/1.1\r\nhost: x\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut client, request).await.unwrap();
    site.gate.wait_for_request().await;
    let live = async || site.auth_layer.sessions_of(&1.into()).await.unwrap().len();
    assert_eq!(live().await, 1);
    drop(client);
    for _ in 0..500 {
        if live().await == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the session is still live");
}

#[tokio::test]
async fn a_logged_request_does_not_show_its_token() {
    let auth_layer = LoginLayer::builder(MemoryStore::<Account>::new(), Keys::new(KEY))
        .with_sessions()
        .with_bearer_sessions(true)
        .build()
        .unwrap();
    let service = auth_layer.layer(service_fn(|request: Request<String>| async move {
        Ok::<_, Infallible>(Response::new(format!("{:?}", request.headers())))
    }));
    let mut client = Client::new(service);
    for (value, is_shown) in [("Bearer tkb_secret", false), ("Bearer of-another", true)] {
        client.set_header(header::AUTHORIZATION, value);
        let shown = client.get("/").await.text();
        assert_eq!(shown.contains(value), is_shown, "{shown}");
    }
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
async fn a_login_with_a_token_leaves_the_message_of_a_replay_to_a_browser() {
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
    let store = MemoryStore::<Account>::new();
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
