//! How server-side sessions end and are listed, generations of cookies, and replays. A session
//! begins with its first generation of cookies, and a restoration or a confirmation begins the next
//! generation.

use std::time::Duration;

use http::StatusCode;
use tower_keep::client::SessionProtection;
use tower_keep::clock::{Clock, Timestamp};
use tower_keep::error::AuthErrorKind;
use tower_keep::session::{SessionRecord, WhenFull};
use tower_keep::store::{SessionStore, StoreErrorKind, UserDirectory, UserStore};
use tower_keep::{Account, AuthUser, Keys, LoginLayer, UserId};
use tower_keep_core::{NewLogin, SessionKey};
use tower_keep_memory::{MemorySessions, MemoryStore};
use tower_keep_testkit::contract::sessions::new_record;
use tower_keep_testkit::{Call, Trouble};
use tower_keep_tests::{
    Browser, Builder, KEY, Site, WatchedStoreExt, account, drops_expired_sessions, new_store,
    send_raw,
};

const SESSION: &str = "__Host-Http-keep";
const REMEMBER: &str = "__Host-Http-keep-remember";
/// The grace period in seconds: the cookies of a generation are valid for this long after a request
/// has used the next generation.
const GRACE: u64 = 60;

async fn username(browser: &mut Browser) -> String {
    let response = browser.get("/username").await;
    assert_eq!(response.status, StatusCode::OK, "{}", response.text());
    response.text()
}

/// Returns a new browser with the cookies of this browser.
fn copy_of(site: &Site, browser: &Browser) -> Browser {
    let mut copy = site.browser();
    copy.jar = browser.jar.clone();
    copy
}

fn now(site: &Site) -> Timestamp {
    site.clock.now().into()
}

fn cookie(browser: &Browser, name: &str) -> String {
    browser.jar.get(name).unwrap_or_default().to_owned()
}

/// Returns a browser that has only a remember cookie, because it was closed after its login.
async fn remembered(site: &Site) -> Browser {
    let mut browser = site.logged_in("user=notch&remember=1").await;
    browser.close_browser();
    browser
}

#[tokio::test]
async fn after_a_logout_no_copy_of_a_cookie_logs_in() {
    let site = Site::with_server_sessions().await;
    let mut browser = site.logged_in("user=notch&remember=1").await;
    let copy = copy_of(&site, &browser);
    assert_eq!(browser.get("/logout").await.text(), "notch");
    for kept in [&[SESSION][..], &[REMEMBER], &[SESSION, REMEMBER]] {
        let mut thief = copy_of(&site, &copy);
        for name in [SESSION, REMEMBER] {
            if !kept.contains(&name) {
                thief.jar.remove(name);
            }
        }
        let response = thief.get("/username").await;
        assert_eq!(response.text(), "Anonymous", "{kept:?}");
        assert_eq!(response.set_cookies().len(), kept.len(), "each invalid cookie is cleared");
        assert_eq!(thief.get("/secret").await.status, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn a_slow_request_during_a_logout_never_brings_the_session_back() {
    for path in ["/username", "/slow", "/confirm"] {
        let site = Site::with_server_sessions().await;
        site.advance(GRACE);
        let mut browser = site.logged_in("user=notch&remember=1").await;
        let mut slow = copy_of(&site, &browser);
        slow.close_browser();
        site.store.set(Call::Rotate, Trouble::Delays(Duration::from_millis(500)));
        site.store.take_calls();
        let in_flight = tokio::spawn(async move {
            let response = slow.get(path).await;
            (response, slow)
        });
        if path == "/slow" {
            site.gate.wait_for_request().await;
        } else {
            site.store.wait_for(Call::Rotate).await;
        }
        assert_eq!(browser.get("/logout").await.text(), "notch");
        site.gate.let_one_pass();
        let (response, slow) = in_flight.await.unwrap();
        // The cookies of the late response log no user in.
        assert!(!response.status.is_server_error(), "{path}");
        for mut late in [copy_of(&site, &slow), browser] {
            for (name, value) in [SESSION, REMEMBER].map(|name| (name, cookie(&slow, name))) {
                late.jar.insert(name, &value);
            }
            assert_eq!(username(&mut late).await, "Anonymous", "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_requests_with_one_remember_cookie_all_succeed() {
    for _ in 0..3 {
        let site = Site::with_server_sessions().await;
        let browser = remembered(&site).await;
        let in_flight: Vec<_> = (0..50)
            .map(|_| {
                let mut tab = copy_of(&site, &browser);
                tokio::spawn(async move { (username(&mut tab).await, tab) })
            })
            .collect();
        let mut tabs = Vec::new();
        for tab in in_flight {
            let (name, tab) = tab.await.unwrap();
            assert_eq!(name, "notch");
            tabs.push(tab);
        }
        // All responses set the same cookies, so it does not matter which response comes last.
        let cookies = |tab: &Browser| (cookie(tab, SESSION), cookie(tab, REMEMBER));
        assert!(tabs.iter().all(|tab| cookies(tab) == cookies(&tabs[0])));
        assert_ne!(cookie(&tabs[0], REMEMBER), cookie(&browser, REMEMBER));
        let mut tab = tabs.swap_remove(7);
        assert_eq!(username(&mut tab).await, "notch");
        for _ in 0..3 {
            site.advance(GRACE + 1);
            tab.close_browser();
            assert_eq!(username(&mut tab).await, "notch");
            assert_eq!(username(&mut tab).await, "notch");
        }
        assert!(!site.events.take().iter().any(|event| event.contains("replay")));
    }
}

#[tokio::test]
async fn a_remember_cookie_works_until_the_rotated_cookie_arrives() {
    let site = Site::with_server_sessions().await;
    let mut browser = remembered(&site).await;
    for wait in [0, 1, GRACE, 3 * GRACE, 6 * 3600] {
        site.advance(wait);
        let mut lost = copy_of(&site, &browser);
        assert_eq!(username(&mut lost).await, "notch");
    }
    let first = cookie(&browser, REMEMBER);
    assert_eq!(username(&mut browser).await, "notch");
    assert_ne!(cookie(&browser, REMEMBER), first, "the rotated cookie has arrived");
    assert_eq!(username(&mut browser).await, "notch");
    assert!(!site.events.take().iter().any(|event| event.contains("replay")));
}

#[tokio::test]
async fn an_earlier_remember_cookie_is_a_replay_after_the_grace_period() {
    let site = Site::with_server_sessions().await;
    let mut phone = site.logged_in("user=notch&remember=1").await;
    let mut browser = remembered(&site).await;
    let thief = copy_of(&site, &browser);
    // The first request gets the cookies of the next generation, and the second request uses them.
    assert_eq!(username(&mut browser).await, "notch");
    assert_eq!(username(&mut browser).await, "notch");
    site.events.take();

    // Within the grace period the old cookie logs in, and the response sets no cookie.
    for wait in [0, GRACE] {
        site.advance(wait);
        let mut early = copy_of(&site, &thief);
        let response = early.get("/secret").await;
        assert_eq!(
            (response.status, response.text().as_str()),
            (StatusCode::OK, "secret of notch")
        );
        assert!(response.set_cookies().is_empty());
        assert_eq!(early.get("/sensitive").await.status, StatusCode::UNAUTHORIZED, "not fresh");
    }
    let twice = ["restored notch", "restored notch", "needs_refresh notch"].repeat(2);
    assert_eq!(site.events.take(), twice);

    // After the grace period the session ends for both clients that hold its cookies. No other
    // session ends.
    site.advance(1);
    let mut late = copy_of(&site, &thief);
    let response = late.get("/secret").await;
    assert_eq!(response.status, StatusCode::UNAUTHORIZED);
    assert!(response.header("set-cookie").starts_with("__Host-Http-keep-remember=; Max-Age=0"));
    assert_eq!(site.events.take(), ["session_ended of 1: replay", "unauthorized"]);
    assert_eq!(username(&mut copy_of(&site, &thief)).await, "Anonymous");
    assert_eq!(username(&mut browser).await, "Anonymous");
    assert_eq!(site.events.take(), Vec::<String>::new(), "the end of the session raised one event");
    assert_eq!(username(&mut phone).await, "notch");

    // The next login on any device notifies the user of the replay, once.
    assert_eq!(phone.get("/take-flash").await.text(), "");
    browser.get("/login?user=notch").await;
    let flash = browser.get("/take-flash").await.text();
    assert!(flash.starts_with("Replayed warning An old copy of one of"), "{flash}");
    assert_eq!(browser.get("/take-flash").await.text(), "");
    browser.get("/login?user=notch").await;
    assert_eq!(browser.get("/take-flash").await.text(), "");
}

#[tokio::test]
async fn a_cookie_two_generations_old_is_a_replay_except_right_after_a_rotation() {
    let site = Site::with_server_sessions().await;
    let mut browser = remembered(&site).await;
    let old = copy_of(&site, &browser);
    for _ in 0..2 {
        assert_eq!(username(&mut browser).await, "notch");
        assert_eq!(username(&mut browser).await, "notch");
        site.advance(GRACE);
        browser.close_browser();
    }
    // The session was rotated a moment ago: the request is anonymous, and nothing else happens.
    assert_eq!(username(&mut browser).await, "notch");
    let response = copy_of(&site, &old).get("/username").await;
    assert_eq!((response.text().as_str(), response.set_cookies().len()), ("Anonymous", 0));
    assert_eq!(username(&mut browser).await, "notch");
    site.advance(GRACE + 1);
    assert_eq!(username(&mut copy_of(&site, &old)).await, "Anonymous");
    assert_eq!(username(&mut browser).await, "Anonymous", "the session has ended");
}

#[tokio::test]
async fn a_restoration_within_the_grace_period_begins_no_next_generation() {
    let site = Site::with_server_sessions().await;
    let mut browser = remembered(&site).await;
    let cookies = |browser: &Browser| (cookie(browser, SESSION), cookie(browser, REMEMBER));
    assert_eq!(username(&mut browser).await, "notch");
    let first = cookies(&browser);
    assert!(
        browser.get("/username").await.set_cookies().is_empty(),
        "a session cookie is not rotated"
    );
    site.advance(GRACE - 1);
    browser.close_browser();
    let response = browser.get("/username").await;
    assert_eq!(response.set_cookies().len(), 1, "only the session cookie");
    assert_eq!(cookies(&browser).1, first.1);
    site.advance(1);
    browser.close_browser();
    assert_eq!(username(&mut browser).await, "notch");
    assert_ne!(cookies(&browser).1, first.1);
}

#[tokio::test]
async fn confirming_rotates_the_cookies_and_a_copy_of_the_old_ones_is_never_fresh() {
    let site = Site::with_server_sessions().await;
    let mut browser = remembered(&site).await;
    assert_eq!(username(&mut browser).await, "notch");
    let mut old = copy_of(&site, &browser);
    let before = (cookie(&browser, SESSION), cookie(&browser, REMEMBER));
    assert_eq!(browser.get("/confirm").await.text(), "confirmed");
    assert_ne!(cookie(&browser, SESSION), before.0);
    assert_ne!(cookie(&browser, REMEMBER), before.1, "the remember cookie is rotated too");
    for wait in [0, 3 * GRACE] {
        site.advance(wait);
        assert_eq!(old.get("/is-fresh").await.text(), "false");
        assert_eq!(username(&mut old).await, "notch", "no request has used the new cookie");
        old.jar.insert(SESSION, &before.0);
    }
    assert_eq!(browser.get("/is-fresh").await.text(), "true");
    site.advance(GRACE);
    assert_eq!(username(&mut old).await, "notch");
    site.advance(1);
    old.jar.remove(REMEMBER);
    assert_eq!(username(&mut old).await, "Anonymous");
    assert_eq!(browser.get("/is-fresh").await.text(), "true");
    // The browser's current remember cookie is not a replay.
    browser.close_browser();
    assert_eq!(username(&mut browser).await, "notch");
}

// The model in `crates/keep/src/model` found this case: if one confirmation began two generations,
// a browser that misses the response would be two generations behind.
#[tokio::test]
async fn a_browsers_cookies_work_however_many_responses_to_confirmations_are_lost() {
    let site = Site::with_server_sessions().await;
    // The browser has only the remember cookie, or a session cookie too.
    for is_closed in [true, false] {
        let mut browser = site.logged_in("user=notch&remember=1").await;
        if is_closed {
            browser.close_browser();
        }
        for _ in 0..3 {
            let response = copy_of(&site, &browser).get("/confirm").await;
            assert_eq!(response.text(), "confirmed");
            site.advance(GRACE + 1);
        }
        assert_eq!(browser.get("/confirm").await.text(), "confirmed");
        assert_eq!(browser.get("/is-fresh").await.text(), "true");
        browser.close_browser();
        assert_eq!(username(&mut browser).await, "notch");
    }
    assert!(!site.events.take().iter().any(|event| event.contains("replay")));
}

#[tokio::test]
async fn cookies_of_a_replaced_session_are_cleared_only_after_the_grace_period() {
    let site = Site::with_server_sessions().await;
    let mut browser = site.logged_in("user=notch&remember=1").await;
    let late = copy_of(&site, &browser);
    browser.get("/login?user=notch&remember=1").await;
    for (wait, cleared) in [(0, 0), (GRACE, 0), (1, 2)] {
        site.advance(wait);
        let response = copy_of(&site, &late).get("/username").await;
        assert_eq!(
            (response.text().as_str(), response.set_cookies().len()),
            ("Anonymous", cleared)
        );
    }
    assert_eq!(username(&mut browser).await, "notch");
}

#[tokio::test]
async fn a_response_that_is_too_slow_sets_no_rotated_cookies() {
    // A response may take a tenth of the grace period. Within half of the period, another request
    // could have begun the next generation by a confirmation, and a third request could have used
    // it.
    for (wait, cookies) in [(GRACE / 10, 2), (GRACE / 10 + 1, 0), (GRACE / 2 + 1, 0)] {
        let site = Site::with_server_sessions().await;
        let browser = remembered(&site).await;
        let mut slow = copy_of(&site, &browser);
        let in_flight = tokio::spawn(async move { slow.get("/slow").await });
        site.gate.wait_for_request().await;
        site.advance(wait);
        site.gate.let_one_pass();
        let response = in_flight.await.unwrap();
        assert_eq!(response.text(), "notch");
        assert_eq!(response.set_cookies().len(), cookies, "after {wait} s");
        // The previous remember cookie still works.
        assert_eq!(username(&mut copy_of(&site, &browser)).await, "notch");
    }
}

#[tokio::test]
async fn cookies_are_valid_only_for_their_kind_of_login_and_their_area() {
    let with = Site::with_server_sessions().await;
    // Two more sites have the same keys and users: one without server-side sessions, and one with
    // another area. The logins of each area are separate.
    let without = with.start_another_without_server_sessions().await;
    let area = with
        .start_another(Keys::new(KEY), |builder| builder.with_sessions().with_area("admin"))
        .await;
    let server_side = with.logged_in("user=notch&remember=1").await;
    let stateless = without.logged_in("user=notch&remember=1").await;
    for (site, foreign) in [(&with, &stateless), (&without, &server_side), (&area, &server_side)] {
        let mut browser = copy_of(site, foreign);
        for (from, to) in
            [(SESSION, "__Host-Http-keep-admin"), (REMEMBER, "__Host-Http-keep-admin-remember")]
        {
            let value = cookie(foreign, from);
            browser.jar.insert(to, &value);
        }
        let response = browser.get("/username").await;
        assert_eq!((response.text().as_str(), response.set_cookies().len()), ("Anonymous", 0));
    }
}

#[tokio::test]
async fn logging_out_with_the_remember_cookie_alone_ends_the_session_without_rotating() {
    let site = Site::with_server_sessions().await;
    let mut browser = site.logged_in("user=notch&remember=1").await;
    let mut copy = copy_of(&site, &browser);
    browser.close_browser();
    site.store.take_calls();
    assert_eq!(browser.get("/logout").await.text(), "notch");
    assert_eq!(site.store.take_calls(), [Call::LoadLogin, Call::Revoke]);
    assert_eq!(username(&mut copy).await, "Anonymous");
}

#[tokio::test]
async fn logging_out_with_cookies_of_two_sessions_ends_both() {
    let site = Site::with_server_sessions().await;
    let mut browser = site.logged_in("user=notch").await;
    let mut other = site.logged_in("user=steve&remember=1").await;
    let value = cookie(&other, REMEMBER);
    browser.jar.insert(REMEMBER, &value);
    let mut copy = copy_of(&site, &browser);
    copy.jar.remove(REMEMBER);
    site.store.take_calls();
    assert_eq!(browser.get("/logout").await.text(), "notch");
    assert_eq!(site.store.take_calls(), [Call::LoadLogin, Call::Revoke], "one write for both");
    assert_eq!(username(&mut copy).await, "Anonymous");
    assert_eq!(username(&mut other).await, "Anonymous");
    assert!(browser.jar.names().is_empty());
}

/// A line of `/sessions`.
struct ListedSession {
    public_id: String,
    is_current: bool,
    /// The line without the public id: `this` or `other`, the device, and the method.
    text: String,
}

/// Returns the lines of `/sessions`.
async fn sessions(browser: &mut Browser) -> Vec<ListedSession> {
    let response = browser.get("/sessions").await;
    assert_eq!(response.status, StatusCode::OK, "{}", response.text());
    let parse = |line: &str| {
        let (public_id, text) = line.split_once(' ').expect("a line of `/sessions`");
        ListedSession {
            public_id: public_id.to_owned(),
            is_current: text.starts_with("this "),
            text: text.to_owned(),
        }
    };
    response.text().lines().map(parse).collect()
}

#[tokio::test]
async fn the_current_session_is_listed_first_and_then_the_most_recently_used() {
    let site = Site::with_server_sessions().await;
    let mut first = site.logged_in("user=notch&method=password").await;
    site.advance(10);
    site.logged_in("user=notch&method=passkey").await;
    site.advance(10);
    site.logged_in("user=notch").await;
    site.logged_in("user=steve").await;
    let listed = sessions(&mut first).await;
    let texts: Vec<_> = listed.iter().map(|session| session.text.as_str()).collect();
    assert_eq!(texts, ["this Test password", "other Test ", "other Test passkey"]);
    assert!(sessions(&mut site.browser()).await.is_empty(), "an anonymous user has none");
}

#[tokio::test]
async fn the_current_session_is_listed_however_many_others_were_used_later() {
    let site = Site::with_server_sessions().await;
    let mut browser = site.logged_in("user=notch").await;
    for number in 0..1_001_u16 {
        let mut key = [7; 32];
        key[..2].copy_from_slice(&number.to_be_bytes());
        let mut record = new_record(&UserId::from(1));
        record.key = SessionKey::new(key);
        (record.last_seen, record.expires) = (now(&site).plus(60), now(&site).plus(3_600));
        let login = NewLogin::new(&record, now(&site));
        site.store.inner().create(&login).await.unwrap();
    }
    let listed = sessions(&mut browser).await;
    assert_eq!(listed.len(), 1_000);
    let current_count = listed.iter().filter(|session| session.is_current).count();
    assert_eq!((listed[0].is_current, current_count), (true, 1));
}

#[tokio::test]
async fn a_user_can_end_only_their_own_sessions_by_public_id() {
    let site = Site::with_server_sessions().await;
    let mut here = site.logged_in("user=notch").await;
    let mut there = site.logged_in("user=notch&remember=1").await;
    let mut stranger = site.logged_in("user=steve").await;
    let of_notch = sessions(&mut here).await;
    let public_id = &of_notch.iter().find(|session| !session.is_current).unwrap().public_id;
    let end = format!("/end-session?session={public_id}");
    for browser in [&mut stranger, &mut site.browser()] {
        assert_eq!(browser.get(&end).await.text(), "false");
    }
    assert_eq!(username(&mut there).await, "notch");
    for wrong in ["", "x", "%00", &public_id[1..], &cookie(&there, SESSION)] {
        let response = here.get(&format!("/end-session?session={wrong}")).await;
        assert_eq!(response.text(), "false");
    }
    assert_eq!(here.get(&end).await.text(), "true");
    assert_eq!(username(&mut there).await, "Anonymous");
    assert_eq!(here.get(&end).await.text(), "false", "the session has ended already");
    // Ending this session logs the browser out.
    let own = &sessions(&mut here).await[0].public_id;
    assert_eq!(here.get(&format!("/end-session?session={own}")).await.text(), "true");
    assert!(here.jar.names().is_empty());
    assert_eq!(username(&mut stranger).await, "steve");
}

#[tokio::test]
async fn a_public_id_is_neither_in_the_cookies_nor_in_the_store() {
    use base64::Engine;
    let site = Site::with_server_sessions().await;
    let mut browser = site.logged_in("user=notch&remember=1").await;
    let base64 = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let public_id = sessions(&mut browser).await[0].public_id.clone();
    let public_id = base64.decode(public_id).unwrap();
    for name in [SESSION, REMEMBER] {
        let cookie = base64.decode(cookie(&browser, name)).unwrap();
        assert!(!cookie.windows(public_id.len()).any(|bytes| bytes == public_id));
        let id = &cookie[3..19];
        let records = site.store.inner().list(&UserId::from(1), now(&site), 1).await.unwrap();
        let key = records[0].key.as_bytes();
        assert!(!key.windows(public_id.len()).any(|bytes| bytes == public_id));
        assert!(
            !key.windows(id.len()).any(|bytes| bytes == id),
            "the store does not hold the session's id"
        );
    }
}

#[tokio::test]
async fn the_other_sessions_or_all_can_be_ended_with_and_without_a_request() {
    let site = Site::with_server_sessions().await;
    let mut here = site.logged_in("user=notch&remember=1").await;
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(site.logged_in("user=notch&remember=1").await);
    }
    let mut stranger = site.logged_in("user=steve").await;
    assert_eq!(here.get("/end-others").await.text(), "ended");
    for other in &mut others {
        assert_eq!(username(other).await, "Anonymous");
    }
    assert_eq!(username(&mut here).await, "notch");
    assert_eq!(here.get("/end-others").await.text(), "ended");
    let mut there = site.logged_in("user=notch").await;
    assert_eq!(here.get("/end-all").await.text(), "notch");
    assert!(here.jar.names().is_empty());
    assert_eq!(username(&mut there).await, "Anonymous");
    // An administrator ends sessions without a request.
    let steve = UserId::from(2);
    let listed = site.auth_layer.sessions_of(&steve).await.unwrap();
    assert_eq!((listed.len(), listed[0].is_current()), (1, false));
    assert!(
        !site.auth_layer.end_session_of(&UserId::from(1), &listed[0].public_id()).await.unwrap()
    );
    assert!(site.auth_layer.end_session_of(&steve, &listed[0].public_id()).await.unwrap());
    assert_eq!(username(&mut stranger).await, "Anonymous");
    let mut again = site.logged_in("user=steve&remember=1").await;
    site.auth_layer.end_all_sessions_of(&steve).await.unwrap();
    assert_eq!(username(&mut again).await, "Anonymous");
    site.auth_layer.end_all_sessions_of(&"nobody".into()).await.unwrap();
}

#[tokio::test]
async fn a_login_drops_only_the_flash_message_of_another_user_however_long_the_ids() {
    let site = Site::with_server_sessions().await;
    for (login_name, letter) in [("long", "a"), ("longer", "b")] {
        // The session cookie leaves out ids of more than 1,024 bytes.
        let user = Account::new(letter.repeat(1_100), login_name, "a hash");
        site.store.inner().insert(&user).await.unwrap();
    }
    for (next, expected) in [("long", "Application success Well done."), ("longer", "")] {
        let mut browser = site.logged_in("user=long").await;
        browser.get("/flash").await;
        browser.get(&format!("/login?user={next}")).await;
        assert_eq!(browser.get("/take-flash").await.text(), expected, "{next}");
    }
}

#[tokio::test]
async fn a_login_after_the_response_has_begun_is_an_error_and_leaves_no_record() {
    let site = Site::with_server_sessions().await;
    assert_eq!(site.browser().get("/log-in-late").await.text(), "later");
    let mut outcome = Vec::new();
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let steve = site.store.inner().by_id(&UserId::from(2)).await.unwrap().unwrap();
        outcome = steve.security_stamp().into_owned();
        if outcome == b"refused" {
            break;
        }
    }
    assert_eq!(outcome, b"refused");
    assert!(site.auth_layer.sessions_of(&UserId::from(1)).await.unwrap().is_empty());
    // The same holds if the response's head is sent while the record is written.
    site.store.set(Call::Create, Trouble::Delays(Duration::from_secs(2)));
    let request = http::Request::new(String::new());
    let service = tower::service_fn({
        let auth_layer = site.auth_layer.clone();
        move |request: http::Request<String>| {
            let auth = auth_layer.auth_session(request.extensions()).unwrap();
            let late = tokio::spawn(async move { auth.log_in(account("notch")).await.is_err() });
            async move {
                tokio::time::sleep(Duration::from_millis(60)).await;
                Ok::<_, std::convert::Infallible>(http::Response::new(late))
            }
        }
    });
    let response =
        tower::ServiceExt::oneshot(site.auth_layer.layer(service), request).await.unwrap();
    assert!(!response.headers().contains_key(http::header::SET_COOKIE));
    assert!(response.into_body().await.unwrap(), "the login was refused");
    assert!(site.auth_layer.sessions_of(&UserId::from(1)).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_user_has_no_more_sessions_than_the_limit() {
    let limited = |when_full| {
        Site::start_with(move |builder| builder.with_sessions().with_session_limit(2, when_full))
    };
    let site = limited(WhenFull::EndOldest).await;
    let mut first = site.logged_in("user=notch&remember=1").await;
    site.advance(1);
    let mut second = site.logged_in("user=notch").await;
    site.advance(1);
    let mut third = site.logged_in("user=notch").await;
    let names =
        [username(&mut first).await, username(&mut second).await, username(&mut third).await];
    assert_eq!(names, ["Anonymous", "notch", "notch"]);
    assert!(site.events.take().contains(&"session_ended of 1: limit".to_owned()));
    // A login that replaces another session in the same browser does not exceed the limit.
    second.get("/login?user=notch").await;
    assert_eq!(username(&mut third).await, "notch");

    let site = limited(WhenFull::Refuse).await;
    let mut first = site.logged_in("user=notch").await;
    let mut second = site.logged_in("user=notch").await;
    assert_eq!([username(&mut first).await, username(&mut second).await], ["notch", "notch"]);
    let mut third = site.browser();
    let refused = third.get("/login?user=notch").await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert!(third.jar.names().is_empty());
    assert_eq!(username(&mut first).await, "notch");
    assert_eq!(first.get("/login?user=notch").await.status, StatusCode::OK);
    first.get("/logout").await;
    assert_eq!(third.get("/login?user=notch").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_login_whose_write_timed_out_does_not_count_towards_the_limit() {
    let site =
        Site::start_with(|builder| builder.with_sessions().with_session_limit(1, WhenFull::Refuse))
            .await;
    let mut browser = site.browser();
    site.store.set(Call::Create, Trouble::FailsAfterwards(StoreErrorKind::Timeout));
    let response = browser.get("/login?user=notch").await;
    assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
    site.store.heal();
    assert_eq!(browser.get("/login?user=notch").await.status, StatusCode::OK);
}

fn limit_to_one_session(builder: Builder) -> Builder {
    builder.with_sessions().with_session_limit(1, WhenFull::Refuse)
}

/// Waits until notch has no session.
async fn wait_until_no_session(site: &Site) {
    let begun = std::time::Instant::now();
    let sessions = async || site.auth_layer.sessions_of(&UserId::from(1)).await.expect("no error");
    while !sessions().await.is_empty() {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "the session of a lost login did not end"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

// The client closes a real socket while the handler works.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_whose_client_hangs_up_leaves_no_session() {
    for with_upkeep in [false, true] {
        let site = Site::start_with(limit_to_one_session).await;
        let upkeep = with_upkeep.then(|| tokio::spawn(site.auth_layer.upkeep()));
        let mut client = tokio::net::TcpStream::connect(site.address).await.unwrap();
        let request = b"GET /log-in-slowly HTTP/1.1\r\nhost: x\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut client, request).await.unwrap();
        site.gate.wait_for_request().await;
        assert_eq!(site.auth_layer.sessions_of(&UserId::from(1)).await.unwrap().len(), 1);
        drop(client);
        wait_until_no_session(&site).await;
        let mut browser = site.logged_in("user=notch").await;
        assert_eq!(username(&mut browser).await, "notch");
        if let Some(upkeep) = upkeep {
            upkeep.abort();
        }
    }
}

// The layer can't know whether the cookies of a response reached the browser.
#[tokio::test]
async fn an_unused_session_of_a_lost_response_never_makes_the_limit_refuse_a_login() {
    let site = Site::start_with(limit_to_one_session).await;
    for _ in 0..3 {
        // No browser stores the cookies of this response.
        let response = send_raw(
            site.address,
            b"GET /login?user=notch HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        );
        assert!(response.await.starts_with("HTTP/1.1 200"));
    }
    let mut here = site.logged_in("user=notch").await;
    assert_eq!(site.auth_layer.sessions_of(&UserId::from(1)).await.unwrap().len(), 1);
    // Once a request has used a session, the session counts towards the limit, whether it was
    // restored or not.
    assert_eq!(username(&mut here).await, "notch");
    assert_eq!(site.browser().get("/login?user=notch").await.status, StatusCode::CONFLICT);
    assert_eq!(username(&mut here).await, "notch");
    here.get("/logout").await;
    let mut here = site.logged_in("user=notch&remember=1").await;
    here.close_browser();
    assert_eq!(username(&mut here).await, "notch");
    assert_eq!(site.browser().get("/login?user=notch").await.status, StatusCode::CONFLICT);
}

// A service around the layer drops the request, maybe during the write, or catches a panic.
#[tokio::test]
async fn a_login_whose_request_is_dropped_or_panics_leaves_no_session() {
    use tower::ServiceExt;
    for (case, delay) in [("time-out", 0), ("time-out", 300), ("panic", 0)] {
        let site = Site::start_with(limit_to_one_session).await;
        site.store.set(Call::Create, Trouble::Delays(Duration::from_millis(delay)));
        let auth_layer = site.auth_layer.clone();
        let service = auth_layer.layer(tower::service_fn(move |request: http::Request<String>| {
            let auth = request.extensions().get::<tower_keep::AuthSession<_>>().cloned().unwrap();
            async move {
                auth.log_in(account("notch")).await.unwrap();
                if case == "panic" {
                    panic!("a panic that is caught outside the layer");
                }
                std::future::pending::<Result<http::Response<String>, std::convert::Infallible>>()
                    .await
            }
        }));
        let call = tokio::spawn(service.oneshot(http::Request::new(String::new())));
        if case == "time-out" {
            tokio::time::sleep(Duration::from_millis(100)).await;
            call.abort();
        }
        assert!(call.await.is_err(), "{case}");
        site.store.heal();
        wait_until_no_session(&site).await;
    }
}

#[tokio::test]
async fn a_new_password_keeps_this_login_even_if_the_other_sessions_cannot_be_ended() {
    let site = Site::with_server_sessions().await;
    let mut browser = site.logged_in("user=notch&remember=1").await;
    let mut other = site.logged_in("user=notch&remember=1").await;
    site.store.set(Call::RevokeAll, Trouble::Fails(StoreErrorKind::Unavailable));
    // The store has the new password, so the request succeeds.
    let response = browser.get("/change-password").await;
    assert_eq!((response.status, response.text().as_str()), (StatusCode::OK, "changed"));
    assert_eq!(
        response.set_cookies().len(),
        2,
        "the new security stamp invalidates the old cookies"
    );
    site.store.heal();
    assert_eq!(username(&mut browser).await, "notch");
    assert_eq!(username(&mut other).await, "Anonymous");
    assert_eq!(
        sessions(&mut browser).await.len(),
        2,
        "the other session is invalid by its stamp, but has not ended"
    );
    // The request also succeeds if the store can't begin the next generation, because the new
    // security stamp invalidates the earlier cookies.
    site.store.set_all(Trouble::Fails(StoreErrorKind::Unavailable));
    site.store.heal_call(Call::LoadLogin);
    assert_eq!(browser.get("/change-password").await.text(), "changed");
    site.store.heal();
    assert_eq!(username(&mut browser).await, "notch");
    assert_eq!(browser.get("/change-password").await.text(), "changed");
    assert_eq!(sessions(&mut browser).await.len(), 1);
}

#[tokio::test]
async fn a_second_login_in_a_browser_leaves_exactly_one_session() {
    let site = Site::with_server_sessions().await;
    let mut browser = site.logged_in("user=notch&remember=1").await;
    // Two forms are sent at the same time.
    let (mut one, mut other) = (copy_of(&site, &browser), copy_of(&site, &browser));
    tokio::join!(one.get("/login?user=notch&remember=1"), other.get("/login?user=notch"));
    assert_eq!(site.auth_layer.sessions_of(&UserId::from(1)).await.unwrap().len(), 1);
    let names = [username(&mut one).await, username(&mut other).await];
    assert!(names == ["notch", "Anonymous"] || names == ["Anonymous", "notch"], "{names:?}");
    browser.get("/login?user=steve").await;
    assert_eq!(username(&mut browser).await, "steve");
}

#[tokio::test]
async fn strong_protection_ends_the_session_for_every_client() {
    let site = Site::start_with(|builder| {
        builder.with_sessions().with_session_protection(SessionProtection::Strong)
    })
    .await;
    let mut browser = site.logged_in("user=notch&remember=1").await;
    let mut thief = copy_of(&site, &browser);
    thief.set_header(http::header::USER_AGENT, "Thief/1.0");
    assert_eq!(username(&mut thief).await, "Anonymous");
    assert!(thief.jar.names().is_empty());
    assert_eq!(
        username(&mut browser).await,
        "Anonymous",
        "the layer can't tell which client is the thief"
    );
    assert!(site.events.take().contains(&"session_ended of 1: protection".to_owned()));
}

#[tokio::test]
async fn a_reactivated_user_has_to_log_in_again() {
    let site = Site::with_server_sessions().await;
    let mut browser = site.logged_in("user=notch&remember=1").await;
    let mut copy = copy_of(&site, &browser);
    site.store.change("1", |notch| notch.set_active(false)).await;
    assert_eq!(username(&mut browser).await, "Anonymous");
    site.store.change("1", |notch| notch.set_active(true)).await;
    assert_eq!(username(&mut copy).await, "Anonymous", "the session ended with the deactivation");
}

#[tokio::test]
async fn a_request_makes_no_more_calls_than_it_needs() {
    use Call::{Create, LoadLogin, Revoke, Rotate};
    let site = Site::with_server_sessions().await;
    let (mut anonymous, mut browser) = (site.browser(), site.browser());
    let calls = async |browser: &mut Browser, path: &str| {
        site.store.take_calls();
        browser.get(path).await;
        site.store.take_calls()
    };
    // Anonymous requests make no calls.
    for path in ["/hello", "/username", "/secret", "/sensitive", "/next", "/sessions", "/logout"] {
        assert_eq!(calls(&mut anonymous, path).await, [], "{path}");
    }
    assert_eq!(calls(&mut browser, "/login?user=notch&remember=1").await, [Create]);
    assert_eq!(calls(&mut browser, "/hello").await, [], "the handler does not ask for the user");
    for path in ["/username", "/secret", "/sensitive", "/twice", "/extracted-fresh", "/streamed"] {
        assert_eq!(calls(&mut browser, path).await, [LoadLogin], "{path}");
    }
    assert_eq!(calls(&mut browser, "/confirm").await, [LoadLogin, Rotate]);
    assert_eq!(calls(&mut browser, "/username").await, [LoadLogin, Call::MarkSeen]);
    assert_eq!(calls(&mut browser, "/login?user=notch&remember=1").await, [Create]);
    browser.close_browser();
    assert_eq!(calls(&mut browser, "/username").await, [LoadLogin, Rotate]);
    assert_eq!(calls(&mut browser, "/logout").await, [LoadLogin, Revoke]);
}

#[tokio::test]
async fn a_session_is_touched_once_per_touch_interval() {
    let site = Site::start_with(|builder| {
        builder.with_sessions().with_touch_interval(Duration::from_secs(100))
    })
    .await;
    let mut browser = site.logged_in("user=notch").await;
    let touches = async |browser: &mut Browser| {
        site.store.take_calls();
        assert_eq!(username(browser).await, "notch");
        site.store.take_calls().iter().filter(|call| **call == Call::Touch).count()
    };
    site.advance(99);
    assert_eq!(touches(&mut browser).await, 0);
    site.advance(1);
    assert_eq!([touches(&mut browser).await, touches(&mut browser).await], [1, 0]);
    let seen = site.auth_layer.sessions_of(&UserId::from(1)).await.unwrap()[0].last_seen();
    assert_eq!(seen, site.clock.now());

    // While the upkeep runs, it writes the touches, and no request waits for a touch.
    let upkeep = tokio::spawn(site.auth_layer.upkeep());
    tokio::task::yield_now().await;
    site.advance(100);
    site.store.set(Call::Touch, Trouble::Fails(StoreErrorKind::Unavailable));
    assert_eq!([touches(&mut browser).await, touches(&mut browser).await], [0, 0]);
    // While the store is down, the touch waits. Afterwards it is written once.
    assert!(site.auth_layer.flush().await.is_err());
    site.store.heal();
    site.store.take_calls();
    site.auth_layer.flush().await.unwrap();
    site.auth_layer.flush().await.unwrap();
    assert_eq!(site.store.take_calls(), [Call::Touch]);
    let seen = site.auth_layer.sessions_of(&UserId::from(1)).await.unwrap()[0].last_seen();
    assert_eq!(seen, site.clock.now());
    // The upkeep also writes touches without a call of `flush`.
    site.advance(100);
    assert_eq!(touches(&mut browser).await, 0);
    let mut seen = None;
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        seen = Some(site.auth_layer.sessions_of(&UserId::from(1)).await.unwrap()[0].last_seen());
        if seen == Some(site.clock.now()) {
            break;
        }
    }
    assert_eq!(seen, Some(site.clock.now()));
    // If the upkeep can't write touches, requests write their own touches and fail. Otherwise a
    // session in use would expire while the store takes no writes, and nobody would notice.
    site.store.set(Call::Touch, Trouble::Fails(StoreErrorKind::Unavailable));
    site.advance(100);
    assert_eq!(touches(&mut browser).await, 0);
    assert!(site.auth_layer.flush().await.is_err());
    assert_eq!(browser.get("/secret").await.status, StatusCode::SERVICE_UNAVAILABLE);
    site.store.heal();
    assert_eq!(browser.get("/secret").await.status, StatusCode::OK);
    site.auth_layer.flush().await.unwrap();
    // Once the upkeep no longer runs, requests write their own touches.
    upkeep.abort();
    let _ = upkeep.await;
    site.advance(100);
    assert_eq!(touches(&mut browser).await, 1);
}

// The layer touches a session at least once per tenth of the idle limit.
#[tokio::test]
async fn a_touch_interval_above_the_idle_limit_expires_no_session_in_use() {
    let site = Site::start_with(|builder| {
        builder
            .with_sessions()
            .with_idle_limit(Duration::from_secs(1_000))
            .with_touch_interval(Duration::from_secs(5_000))
    })
    .await;
    let mut browser = site.logged_in("user=notch").await;
    for _ in 0..3 {
        site.advance(999);
        assert_eq!(username(&mut browser).await, "notch");
    }
}

#[tokio::test]
async fn expired_sessions_are_purged_after_the_clock_skew() {
    let site = Site::start_with(|builder| {
        builder.with_sessions().with_idle_limit(Duration::from_secs(1_000))
    })
    .await;
    for _ in 0..5 {
        site.logged_in("user=notch").await;
    }
    let mut remembered = site.logged_in("user=notch&remember=1").await;
    site.advance(1_000 + 299);
    assert_eq!(site.auth_layer.purge(100).await.unwrap(), 0);
    site.advance(1);
    let expected = if drops_expired_sessions() { [0, 0] } else { [3, 2] };
    assert_eq!(site.auth_layer.purge(3).await.unwrap(), expected[0]);
    assert_eq!(site.auth_layer.purge(100).await.unwrap(), expected[1]);
    assert_eq!(username(&mut remembered).await, "notch");
}

#[tokio::test]
async fn users_and_sessions_can_be_in_two_stores() {
    let (users, records) = (MemoryStore::new(), MemorySessions::new());
    users.insert(&account("notch")).await.unwrap();
    let auth_layer = LoginLayer::builder(users.clone(), Keys::new(KEY))
        .with_sessions_in(records)
        .build()
        .unwrap();
    let page = tower::service_fn(|_: http::Request<String>| async {
        Ok::<_, std::convert::Infallible>(http::Response::new("members only".to_owned()))
    });
    let site = auth_layer.layer(tower::Layer::layer(&auth_layer.require_login(), page));
    let mut client = tower_keep_testkit::client::Client::new(site);
    client.log_in(&auth_layer, account("notch")).await.unwrap();
    assert_eq!(client.get("/").await.text(), "members only");
    auth_layer.end_all_sessions_of(&UserId::from(1)).await.unwrap();
    assert_eq!(client.get("/").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn without_server_side_sessions_listing_and_ending_are_errors_that_say_what_to_do() {
    let site = Site::start().await.start_another_without_server_sessions().await;
    let mut browser = site.logged_in("user=notch").await;
    for path in ["/sessions", "/end-session?session=x", "/end-others", "/end-all"] {
        let response = browser.get(path).await;
        assert_eq!(response.status, StatusCode::INTERNAL_SERVER_ERROR, "{path}");
    }
    let error = site.auth_layer.end_all_sessions_of(&UserId::from(1)).await.unwrap_err();
    assert_eq!(error.kind(), AuthErrorKind::NoSessions);
    assert!(error.to_string().contains("with_sessions"), "{error}");
    assert_eq!(username(&mut browser).await, "notch");
}

#[tokio::test]
async fn a_store_restored_from_a_backup_raises_an_event_and_ends_no_session() {
    let site = Site::with_server_sessions().await;
    let mut browser = remembered(&site).await;
    assert_eq!(username(&mut browser).await, "notch");
    site.advance(GRACE);
    let before = site.store.inner().list(&UserId::from(1), now(&site), 1).await.unwrap();
    browser.close_browser();
    assert_eq!(username(&mut browser).await, "notch");
    // Another site has the key and the clock of this site, and the record from before the last
    // restoration.
    let store = new_store().await;
    let login = NewLogin::new(&before[0], before[0].expires);
    store.inner().create(&login).await.unwrap();
    let backup = site.start_another_with_server_sessions(store).await;
    let mut ahead = copy_of(&backup, &browser);
    ahead.close_browser();
    let response = ahead.get("/username").await;
    assert_eq!((response.text().as_str(), response.set_cookies().len()), ("Anonymous", 0));
    assert_eq!(backup.events.take(), ["store_rolled_back of 1"]);
}

#[tokio::test]
async fn a_cookie_whose_verifier_does_not_fit_the_record_logs_nobody_in() {
    let site = Site::with_server_sessions().await;
    let browser = remembered(&site).await;
    let records = site.store.inner().list(&UserId::from(1), now(&site), 1).await.unwrap();
    let store = new_store().await;
    let mut record = SessionRecord::clone(&records[0]);
    record.salt = [0; 16];
    let login = NewLogin::new(&record, record.expires);
    store.inner().create(&login).await.unwrap();
    let other = site.start_another_with_server_sessions(store).await;
    let response = copy_of(&other, &browser).get("/username").await;
    assert_eq!((response.text().as_str(), response.set_cookies().len()), ("Anonymous", 0));
    assert_eq!(other.events.take(), ["wrong_verifier of 1"]);
}

#[tokio::test]
async fn settings_of_server_side_sessions_can_be_set_after_with_sessions() {
    let settings = |builder: Builder| {
        builder
            .with_sessions()
            .with_rotation_grace(Duration::from_secs(10))
            .with_replay_message("Somebody used an old cookie.")
    };
    let site = Site::start_with(settings).await;
    let mut browser = remembered(&site).await;
    let thief = copy_of(&site, &browser);
    assert_eq!(username(&mut browser).await, "notch");
    assert_eq!(username(&mut browser).await, "notch");
    site.advance(11);
    assert_eq!(username(&mut copy_of(&site, &thief)).await, "Anonymous");
    browser.get("/login?user=notch").await;
    let flash = browser.get("/take-flash").await.text();
    assert_eq!(flash, "Replayed warning Somebody used an old cookie.");
}
