//! Each call of the store fails during each kind of request. A failure is never treated as a login,
//! and never as "no user is logged in". It changes no cookie.

use std::time::Duration;

use http::{StatusCode, header};
use tower_keep::UserId;
use tower_keep::client::SessionProtection;
use tower_keep::store::StoreErrorKind;
use tower_keep_testkit::{Call, Trouble};
use tower_keep_tests::{Browser, Site, WatchedStoreExt};

/// How long a test waits for a response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

const SESSION: &str = "__Host-Http-keep";
const REMEMBER: &str = "__Host-Http-keep-remember";

/// A kind of request.
struct Request {
    name: &'static str,
    path: &'static str,
    /// Whether the browser is closed before the request, which removes the session cookie.
    is_after_closing: bool,
}

const REQUESTS: [Request; 8] = [
    Request { name: "public", path: "/hello", is_after_closing: false },
    Request { name: "guarded", path: "/secret", is_after_closing: false },
    Request { name: "fresh-guarded", path: "/sensitive", is_after_closing: false },
    Request { name: "login", path: "/login?user=notch&remember=1", is_after_closing: false },
    Request { name: "logout", path: "/logout", is_after_closing: false },
    Request { name: "restore", path: "/secret", is_after_closing: true },
    Request { name: "list", path: "/sessions", is_after_closing: false },
    Request { name: "end others", path: "/end-others", is_after_closing: false },
];

/// The response to each request while a call fails: `o` means 200, because the request does not
/// make the call, and `x` means 503. The columns are in the order of [`REQUESTS`].
#[rustfmt::skip]
const MATRIX: [(Call, &str); 10] = [
    //                 public, guarded, fresh-guarded, login, logout, restore, list, end others
    (Call::LoadLogin, "o        x        x              o      x       x        x     x"),
    (Call::Create,    "o        o        o              x      o       o        o     o"),
    (Call::Rotate,    "o        o        o              o      o       x        o     o"),
    (Call::MarkSeen,  "o        x        x              o      o       o        x     x"),
    (Call::Touch,     "o        x        x              o      o       o        x     x"),
    (Call::Revoke,    "o        o        o              o      x       o        o     o"),
    (Call::RevokeAll, "o        o        o              o      o       o        o     x"),
    (Call::List,      "o        o        o              o      o       o        x     o"),
    (Call::Load,      "o        o        o              o      o       o        o     o"),
    (Call::Purge,     "o        o        o              o      o       o        o     o"),
];

/// Returns a site and a logged-in browser. The browser's next request also marks the session's
/// generation as seen and touches the session, because no request has used the generation yet, and
/// the session was last used 400 seconds ago.
async fn prepared() -> (Site, Browser) {
    let site = Site::with_server_sessions().await;
    let mut browser = site.logged_in("user=notch&remember=1").await;
    assert_eq!(browser.get("/confirm").await.text(), "confirmed");
    site.advance(400);
    site.store.take_calls();
    (site, browser)
}

fn cookies(browser: &Browser) -> [Option<String>; 2] {
    [SESSION, REMEMBER].map(|name| browser.jar.get(name).map(str::to_owned))
}

#[tokio::test]
async fn a_request_whose_store_call_fails_gets_503_and_changes_no_cookie() {
    let (unavailable, timeout) = (StoreErrorKind::Unavailable, StoreErrorKind::Timeout);
    let troubles =
        [Trouble::Fails(unavailable), Trouble::Fails(timeout), Trouble::FailsAfterwards(timeout)];
    for trouble in troubles {
        for (call, row) in MATRIX {
            for (request, cell) in REQUESTS.iter().zip(row.split_whitespace()) {
                let case = format!("{call:?} {trouble:?}, {}", request.name);
                let (site, mut browser) = prepared().await;
                if request.is_after_closing {
                    browser.close_browser();
                }
                let before = cookies(&browser);
                site.store.set(call, trouble);
                let response = browser.get(request.path).await;
                let was_made = site.store.take_calls().contains(&call);
                assert_eq!(was_made, cell == "x", "{case}");
                if cell == "o" {
                    assert_eq!(response.status, StatusCode::OK, "{case}");
                    continue;
                }
                assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE, "{case}");
                assert_eq!(response.header(header::RETRY_AFTER), "1", "{case}");
                assert_eq!(response.set_cookies(), [] as [String; 0], "{case}");
                assert_eq!(cookies(&browser), before, "{case}");
                // No event says that a user was logged out.
                let events = site.events.take();
                assert!(!events.contains(&"logged_out notch".to_owned()), "{case}: {events:?}");

                site.store.heal();
                let next = browser.get("/secret").await;
                let was_carried_out = matches!(trouble, Trouble::FailsAfterwards(_));
                match request.name {
                    // The store carried out the call and then returned an error. So the login
                    // replaced the old session, and the browser has only the old cookies.
                    "login" if was_carried_out => {
                        assert_eq!(next.status, StatusCode::UNAUTHORIZED, "{case}");
                        assert!(next.set_cookies().is_empty(), "{case}");
                        assert_eq!(browser.get(request.path).await.status, StatusCode::OK);
                        assert_eq!(browser.get("/secret").await.status, StatusCode::OK, "{case}");
                    }
                    "logout" if was_carried_out && call == Call::Revoke => {
                        assert_eq!(next.status, StatusCode::UNAUTHORIZED, "{case}");
                    }
                    _ => assert_eq!(next.text(), "secret of notch", "{case}"),
                }
            }
        }
    }
}

#[tokio::test]
async fn a_client_that_gives_up_during_a_store_call_is_still_logged_in() {
    for (call, row) in MATRIX {
        for (request, cell) in REQUESTS.iter().zip(row.split_whitespace()) {
            let case = format!("{call:?} hangs, {}", request.name);
            let (site, mut browser) = prepared().await;
            if request.is_after_closing {
                browser.close_browser();
            }
            let before = cookies(&browser);
            site.store.set(call, Trouble::Hangs);
            if cell == "o" {
                let response =
                    tokio::time::timeout(RESPONSE_TIMEOUT, browser.get(request.path)).await;
                assert!(response.is_ok(), "{case}");
                continue;
            }
            tokio::select! {
                () = site.store.wait_for(call) => {}
                response = browser.get(request.path) => panic!("{case}: {response:?}"),
            }
            assert_eq!(cookies(&browser), before, "{case}");
            site.store.heal();
            assert_eq!(browser.get("/secret").await.text(), "secret of notch", "{case}");
        }
    }
}

/// A request itself ends its session for three reasons: a replay, which is an old remember cookie
/// that is sent again; another client, if session protection is strong; and a user who is not
/// active.
#[tokio::test]
async fn requests_get_503_until_the_end_of_the_session_is_stored() {
    for reason in ["replay", "protection", "inactive"] {
        let site = Site::start_with(|builder| {
            let protection = match reason {
                "protection" => SessionProtection::Strong,
                _ => SessionProtection::Basic,
            };
            builder.with_sessions().with_session_protection(protection)
        })
        .await;
        let mut browser = site.logged_in("user=notch&remember=1").await;
        match reason {
            "replay" => {
                let mut thief = site.browser();
                thief.jar = browser.jar.clone();
                browser.close_browser();
                for _ in 0..2 {
                    assert_eq!(browser.get("/secret").await.status, StatusCode::OK);
                }
                site.advance(61);
                thief.close_browser();
                browser = thief;
            }
            "protection" => browser.set_header(header::USER_AGENT, "Thief/1.0"),
            _ => site.store.change("1", |notch| notch.set_active(false)).await,
        }
        site.events.take();
        site.store.set(Call::Revoke, Trouble::Fails(StoreErrorKind::Unavailable));
        for path in ["/secret", "/username"] {
            let response = browser.get(path).await;
            assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE, "{reason}");
            assert!(response.set_cookies().is_empty(), "{reason}");
        }
        assert!(site.events.take().is_empty(), "{reason}");
        site.store.heal();
        let response = browser.get("/secret").await;
        assert_eq!(response.status, StatusCode::UNAUTHORIZED, "{reason}");
        assert!(response.header("set-cookie").contains("Max-Age=0"), "{reason}");
        assert!(site.events.take().contains(&format!("session_ended of 1: {reason}")));
        assert!(site.auth_layer.sessions_of(&UserId::from(1)).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_request_whose_rotation_loses_to_another_request_three_times_gets_503() {
    for (path, is_after_closing) in [("/secret", true), ("/confirm", false)] {
        let site = Site::with_server_sessions().await;
        let mut browser = site.logged_in("user=notch&remember=1").await;
        if is_after_closing {
            browser.close_browser();
        }
        site.store.set(Call::Rotate, Trouble::Loses);
        site.store.take_calls();
        let response = browser.get(path).await;
        assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert!(response.set_cookies().is_empty(), "{path}");
        // The rotation is tried three times.
        let calls = site.store.take_calls();
        assert_eq!(calls, [Call::LoadLogin, Call::Rotate, Call::Rotate, Call::Rotate], "{path}");
        site.store.heal();
        assert_eq!(browser.get("/secret").await.status, StatusCode::OK, "{path}");
    }
}
