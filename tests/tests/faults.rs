//! Every call of the store fails, at every kind of request. A failure of the store is never treated
//! as if a user was logged in, and never as if none was, and no cookie changes.

use std::time::Duration;

use http::{StatusCode, header};
use tower_keep::UserId;
use tower_keep::client::SessionProtection;
use tower_keep::store::StoreErrorKind;
use tower_keep_testkit::{Call, Trouble};
use tower_keep_tests::{Browser, Site, Watched};

/// How long a test waits for a response that must come.
const PATIENCE: Duration = Duration::from_secs(30);

const SESSION: &str = "__Host-Http-keep";
const REMEMBER: &str = "__Host-Http-keep-remember";

/// A kind of request: its path, and whether the browser was closed before it.
struct Request {
    name: &'static str,
    path: &'static str,
    closed: bool,
}

const REQUESTS: [Request; 8] = [
    Request { name: "public", path: "/hello", closed: false },
    Request { name: "guarded", path: "/secret", closed: false },
    Request { name: "fresh-guarded", path: "/sensitive", closed: false },
    Request { name: "login", path: "/login?user=notch&remember=1", closed: false },
    Request { name: "logout", path: "/logout", closed: false },
    Request { name: "restore", path: "/secret", closed: true },
    Request { name: "list", path: "/sessions", closed: false },
    Request { name: "end others", path: "/end-others", closed: false },
];

/// The response to each request while a call fails: `o` for 200, because the request doesn't make
/// the call; `x` for 503. The columns are in the order of [`REQUESTS`].
#[rustfmt::skip]
const MATRIX: [(Call, &str); 10] = [
    //                 public, guarded, fresh-guarded, login, logout, restore, list, end others
    (Call::LoadLogin, "o        x        x              o      x       x        x     x"),
    (Call::Create,    "o        o        o              x      o       o        o     o"),
    (Call::Rotate,    "o        o        o              o      o       x        o     o"),
    (Call::MarkSeen,      "o        x        x              o      o       o        x     x"),
    (Call::Touch,     "o        x        x              o      o       o        x     x"),
    (Call::Revoke,    "o        o        o              o      x       o        o     o"),
    (Call::RevokeAll, "o        o        o              o      o       o        o     x"),
    (Call::List,      "o        o        o              o      o       o        x     o"),
    (Call::Load,      "o        o        o              o      o       o        o     o"),
    (Call::Purge,     "o        o        o              o      o       o        o     o"),
];

/// Returns a site and a browser in a state where a request makes every call that it can make: the
/// session is freshly confirmed, its new generation has not been seen yet, and it has not been used
/// for some time.
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
async fn a_failing_call_is_503_for_who_needs_it_and_changes_no_cookie() {
    let (error, late) = (StoreErrorKind::Unavailable, StoreErrorKind::Timeout);
    for trouble in [Trouble::Fails(error), Trouble::Fails(late), Trouble::FailsAfterwards(late)] {
        for (call, row) in MATRIX {
            for (request, cell) in REQUESTS.iter().zip(row.split_whitespace()) {
                let at = format!("{call:?} {trouble:?}, {}", request.name);
                let (site, mut browser) = prepared().await;
                if request.closed {
                    browser.close_browser();
                }
                let before = cookies(&browser);
                site.store.set(call, trouble);
                let response = browser.get(request.path).await;
                let was_made = site.store.take_calls().contains(&call);
                assert_eq!(was_made, cell == "x", "{at}");
                if cell == "o" {
                    assert_eq!(response.status, StatusCode::OK, "{at}");
                    continue;
                }
                assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE, "{at}");
                assert_eq!(response.header(header::RETRY_AFTER), "1", "{at}");
                assert_eq!(response.set_cookies(), [] as [String; 0], "{at}");
                assert_eq!(cookies(&browser), before, "{at}");
                // No event says that a user was logged out.
                let events = site.events.take();
                assert!(!events.contains(&"logged_out notch".to_owned()), "{at}: {events:?}");

                site.store.heal();
                let first = browser.get("/secret").await;
                let took_place = matches!(trouble, Trouble::FailsAfterwards(_));
                match request.name {
                    // The store carried out the call, though its response was lost.
                    "login" if took_place => {
                        assert_eq!(first.status, StatusCode::UNAUTHORIZED, "{at}");
                        assert!(first.set_cookies().is_empty(), "{at}");
                        assert_eq!(browser.get(request.path).await.status, StatusCode::OK);
                        assert_eq!(browser.get("/secret").await.status, StatusCode::OK, "{at}");
                    }
                    "logout" if took_place && call == Call::Revoke => {
                        assert_eq!(first.status, StatusCode::UNAUTHORIZED, "{at}");
                    }
                    _ => assert_eq!(first.text(), "secret of notch", "{at}"),
                }
            }
        }
    }
}

#[tokio::test]
async fn a_hanging_call_leaves_everything_as_it_was_when_the_client_gives_up() {
    for (call, row) in MATRIX {
        for (request, cell) in REQUESTS.iter().zip(row.split_whitespace()) {
            let at = format!("{call:?} hangs, {}", request.name);
            let (site, mut browser) = prepared().await;
            if request.closed {
                browser.close_browser();
            }
            let before = cookies(&browser);
            site.store.set(call, Trouble::Hangs);
            if cell == "o" {
                let response = tokio::time::timeout(PATIENCE, browser.get(request.path)).await;
                assert!(response.is_ok(), "{at}");
                continue;
            }
            tokio::select! {
                () = site.store.asked(call) => {}
                response = browser.get(request.path) => panic!("{at}: {response:?}"),
            }
            assert_eq!(cookies(&browser), before, "{at}");
            site.store.heal();
            assert_eq!(browser.get("/secret").await.text(), "secret of notch", "{at}");
        }
    }
}

/// The rules demand the end of a session in three cases: a replay, strong protection, a
/// deactivation.
#[tokio::test]
async fn an_end_that_cannot_be_recorded_is_503_until_it_can() {
    for reason in ["replay", "protection", "inactive"] {
        let site = Site::start_with(|builder| {
            let strong = match reason {
                "protection" => SessionProtection::Strong,
                _ => SessionProtection::Basic,
            };
            builder.with_sessions().with_session_protection(strong)
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
async fn a_race_that_never_ends_is_503() {
    for (path, closed) in [("/secret", true), ("/confirm", false)] {
        let site = Site::with_server_sessions().await;
        let mut browser = site.logged_in("user=notch&remember=1").await;
        if closed {
            browser.close_browser();
        }
        site.store.set(Call::Rotate, Trouble::Loses);
        site.store.take_calls();
        let response = browser.get(path).await;
        assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert!(response.set_cookies().is_empty(), "{path}");
        // The rotation is tried once, and then twice more.
        let calls = site.store.take_calls();
        assert_eq!(calls, [Call::LoadLogin, Call::Rotate, Call::Rotate, Call::Rotate], "{path}");
        site.store.heal();
        assert_eq!(browser.get("/secret").await.status, StatusCode::OK, "{path}");
    }
}
