//! Logging in with a password: limits on guessing, known devices, and what a client can tell.
//! `guessing.rs` has what several nodes have to agree on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use argon2::password_hash::PasswordHasher;
use axum::Router;
use axum::extract::{Form, State};
use axum::response::{IntoResponse, Response, Result};
use axum::routing::{get, post};
use http::{Method, StatusCode};
use tower_keep::event::Event;
use tower_keep::layer::LoginService;
use tower_keep::password::{PasswordChange, PasswordError};
use tower_keep::sign_in::{PasswordCheck, PasswordRejection, SignInLimits};
use tower_keep::store::{StoreErrorKind, UserDirectory, UserLookup};
use tower_keep::throttle::{CounterRule, Limit, LimitError};
use tower_keep::{Account, AuthUser, Keys, LoginLayer, PasswordSignIn, Passwords};
use tower_keep_testkit::client::{Client, TestResponse};
use tower_keep_testkit::{Call, TestClock, Trouble};
use tower_keep_tests::{KEY, WatchedStore, WatchedStoreExt, new_store};

type AuthSession = tower_keep::AuthSession<Account>;
type Browser = Client<LoginService<Router, Account>>;
type Builder = tower_keep::LoginLayerBuilder<WatchedStore>;

const PASSWORD: &str = "correct horse battery staple";

/// A site whose users log in with a password.
struct Site {
    store: WatchedStore,
    clock: TestClock,
    auth_layer: LoginLayer<Account>,
    sign_in: PasswordSignIn<Account>,
    /// Each event of a failed or a throttled login: its name, the user's login name, the client's
    /// address, and the digest of the typed name.
    attempts: Arc<Mutex<Vec<[String; 4]>>>,
    service: LoginService<Router, Account>,
}

impl Site {
    async fn start() -> Self {
        Self::start_with(|builder| builder, |sign_in| sign_in).await
    }

    async fn start_with(
        configure: impl FnOnce(Builder) -> Builder,
        change: impl FnOnce(PasswordSignIn<Account>) -> PasswordSignIn<Account>,
    ) -> Self {
        let (store, clock) = (new_store().await, TestClock::new());
        let hash = Passwords::new().hash(PASSWORD).await.expect("this succeeds in a test");
        for (id, name) in [(1, "ada"), (2, "bob")] {
            store
                .inner()
                .insert(&Account::new(id, name, hash.clone()))
                .await
                .expect("this succeeds in a test");
        }
        store
            .inner()
            .insert(&Account::new(3, "no hash", "!"))
            .await
            .expect("this succeeds in a test");
        store
            .inner()
            .insert(&Account::new(4, "inactive", hash).with_active(false))
            .await
            .expect("this succeeds in a test");
        let attempts = Arc::<Mutex<Vec<[String; 4]>>>::default();
        let recorded = Arc::clone(&attempts);
        let listener = move |event: &Event<Account>| {
            if let Event::LoginFailed { attempt } | Event::Throttled { attempt, .. } = event {
                let user = attempt.user.as_ref().map(|user| user.login_name().to_owned());
                let address = attempt.client_addr.map(|address| address.to_string());
                let digest = attempt.name_digest.clone();
                let [user, address, digest] =
                    [user, address, digest].map(Option::unwrap_or_default);
                recorded.lock().expect("this succeeds in a test").push([
                    event.name().to_owned(),
                    user,
                    address,
                    digest,
                ]);
            }
        };
        let builder = LoginLayer::builder(store.clone(), Keys::new(KEY))
            .with_sessions()
            .with_clock(clock.clone())
            .with_listener(listener);
        let auth_layer = configure(builder).build().expect("this succeeds in a test");
        let sign_in = change(PasswordSignIn::new(&auth_layer, store.clone()));
        let router = Router::new()
            .route("/sign-in", post(log_in))
            .route("/check-only", post(check_only))
            .route("/confirm", post(confirm))
            .route("/change", post(change_password))
            .route("/name", get(name))
            .with_state((sign_in.clone(), store.clone()));
        let service = auth_layer.layer(router);
        store.take_calls();
        Self { store, clock, auth_layer, sign_in, attempts, service }
    }

    /// Returns a browser at this public address.
    fn browser(&self, address: &str) -> Browser {
        let mut browser = Client::new(self.service.clone()).with_clock(self.clock.clone());
        browser.set_address(address.parse().expect("this succeeds in a test"));
        browser
    }

    /// Returns a browser in which this user has logged in before, and has logged out.
    async fn known_device(&self, address: &str, user: &str) -> Browser {
        let mut browser = self.browser(address);
        assert_eq!(try_password(&mut browser, user, PASSWORD).await, StatusCode::OK);
        browser.jar.remove("__Host-Http-keep");
        assert_eq!(browser.get("/name").await.text(), "nobody");
        self.store.take_calls();
        browser
    }

    fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    fn take_attempts(&self) -> Vec<[String; 4]> {
        std::mem::take(&mut *self.attempts.lock().expect("this succeeds in a test"))
    }
}

type App = State<(PasswordSignIn<Account>, WatchedStore)>;
type LoginForm = Form<HashMap<String, String>>;

/// Returns the response to a password that is not right, or was not checked.
fn refuse(not_ok: PasswordCheck<Account>) -> Response {
    match not_ok {
        PasswordCheck::Throttled(throttled) => throttled.into_response(),
        _ => (StatusCode::UNAUTHORIZED, "wrong").into_response(),
    }
}

async fn log_in(
    State((sign_in, _)): App,
    auth: AuthSession,
    Form(form): LoginForm,
) -> Result<Response> {
    match sign_in.check(&auth, &form["login"], &form["password"]).await? {
        PasswordCheck::Ok(user) => auth.log_in(user).await?,
        not_ok => return Ok(refuse(not_ok)),
    }
    Ok("in".into_response())
}

/// Checks a password, and logs nobody in: a second factor may be missing.
async fn check_only(
    State((sign_in, _)): App,
    auth: AuthSession,
    Form(form): LoginForm,
) -> Result<Response> {
    Ok(match sign_in.check(&auth, &form["login"], &form["password"]).await? {
        PasswordCheck::Ok(_) => "right".into_response(),
        not_ok => refuse(not_ok),
    })
}

async fn confirm(
    State((sign_in, _)): App,
    auth: AuthSession,
    Form(form): LoginForm,
) -> Result<Response> {
    match sign_in.check_again(&auth, &form["password"]).await? {
        PasswordCheck::Ok(_) => {
            Ok(format!("confirmed: {}", auth.confirm().await?.is_some()).into_response())
        }
        not_ok => Ok(refuse(not_ok)),
    }
}

async fn change_password(
    State((sign_in, store)): App,
    auth: AuthSession,
    Form(form): LoginForm,
) -> Result<Response> {
    let user = match sign_in.check_again(&auth, &form["password"]).await? {
        PasswordCheck::Ok(user) => user,
        not_ok => return Ok(refuse(not_ok)),
    };
    let changed = sign_in.passwords().change(&store, &user, &form["new"]).await?;
    let PasswordChange::Changed(user) = changed else { return Ok("stale".into_response()) };
    Ok(format!("kept: {}", auth.keep_logged_in(user).await?.is_some()).into_response())
}

async fn name(auth: AuthSession) -> Result<String> {
    Ok(auth.user().await?.map_or("nobody".to_owned(), |user| user.login_name().to_owned()))
}

async fn send(browser: &mut Browser, path: &str, login: &str, password: &str) -> TestResponse {
    browser.post(path, &[("login", login), ("password", password)]).await
}

async fn try_password(browser: &mut Browser, login: &str, password: &str) -> StatusCode {
    send(browser, "/sign-in", login, password).await.status
}

/// Tries this many wrong passwords, which must reach the hash.
async fn try_wrong(browser: &mut Browser, login: &str, count: usize) {
    for number in 0..count {
        let status = try_password(browser, login, "wrong").await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "attempt {number} for {login}");
    }
}

const TOO_MANY: StatusCode = StatusCode::TOO_MANY_REQUESTS;

#[tokio::test]
async fn five_wrong_passwords_make_a_name_wait_but_not_the_users_own_device() {
    let site = Site::start().await;
    let mut own = site.known_device("203.0.113.1", "ada").await;
    let mut stranger = site.browser("203.0.113.66");
    try_wrong(&mut stranger, "ada", 5).await;
    stranger.set_header(http::header::ACCEPT, "application/json");
    let refused = send(&mut stranger, "/sign-in", "ada", PASSWORD).await;
    assert_eq!((refused.status, refused.header("retry-after").as_str()), (TOO_MANY, "30"));
    let problem = refused.text();
    assert!(
        problem.contains("constant.THROTTLED.html") && problem.contains(r#""retry_after":30"#),
        "{problem}"
    );
    assert!(refused.header("cache-control").contains("no-store"));
    // The name waits at every address; other names and the known device don't.
    let mut elsewhere = site.browser("203.0.113.67");
    assert_eq!(try_password(&mut elsewhere, "ada", PASSWORD).await, TOO_MANY);
    assert_eq!(try_password(&mut elsewhere, "bob", PASSWORD).await, StatusCode::OK);
    assert_eq!(try_password(&mut own, "ada", PASSWORD).await, StatusCode::OK);
    // A refused attempt extends nothing. After the wait, one attempt is allowed, and the wait
    // doubles.
    site.advance(29);
    assert_eq!(try_password(&mut stranger, "ada", "wrong").await, TOO_MANY);
    site.advance(1);
    try_wrong(&mut stranger, "ada", 1).await;
    let refused = send(&mut stranger, "/sign-in", "ada", "wrong").await;
    assert_eq!(refused.header("retry-after"), "60");
    // Other spellings of the name are the same name.
    assert_eq!(try_password(&mut stranger, " ADA", "wrong").await, TOO_MANY);
}

#[tokio::test]
async fn a_completed_login_resets_the_name_and_a_right_password_alone_does_not() {
    let site = Site::start().await;
    let mut browser = site.browser("203.0.113.1");
    try_wrong(&mut browser, "ada", 4).await;
    // Right passwords use nothing up, but don't reset the wrong ones before them.
    for _ in 0..3 {
        assert_eq!(send(&mut browser, "/check-only", "ada", PASSWORD).await.text(), "right");
    }
    try_wrong(&mut browser, "ada", 1).await;
    assert_eq!(try_password(&mut browser, "ada", PASSWORD).await, TOO_MANY);
    site.advance(30);
    assert_eq!(try_password(&mut browser, "ada", PASSWORD).await, StatusCode::OK);
    let mut stranger = site.browser("203.0.113.66");
    try_wrong(&mut stranger, "ada", 5).await;
    assert_eq!(try_password(&mut stranger, "ada", "wrong").await, TOO_MANY);
    // The login of one user resets nothing of another's.
    assert_eq!(try_password(&mut stranger, "bob", PASSWORD).await, StatusCode::OK);
    assert_eq!(try_password(&mut stranger, "ada", "wrong").await, TOO_MANY);
}

/// Everything that a client sees of a response, except the time.
fn visible(response: &TestResponse) -> (StatusCode, Vec<String>, String) {
    let mut headers: Vec<_> = response
        .headers
        .iter()
        .filter(|(name, _)| *name != http::header::DATE)
        .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
        .collect();
    headers.sort();
    (response.status, headers, response.text())
}

#[tokio::test]
async fn an_unknown_name_gets_the_same_responses_after_the_same_calls() {
    let long = "x".repeat(2_000);
    let site = Site::start().await;
    let mut seen = Vec::new();
    for (index, login) in ["ada", "nobody", "no hash", "", "佐藤", &long].into_iter().enumerate()
    {
        let mut browser = site.browser(&format!("203.0.113.{index}"));
        let mut steps = Vec::new();
        for try_number in 0..8 {
            if try_number == 6 {
                site.advance(1); // the refusal is no longer remembered
            }
            let response = send(&mut browser, "/sign-in", login, "wrong").await;
            let calls: Vec<Call> = site.store.take_calls();
            steps.push((visible(&response), calls));
        }
        seen.push((login, steps));
    }
    let (_, expected) = seen[0].clone();
    for (login, steps) in seen {
        for (number, (step, expected)) in steps.iter().zip(&expected).enumerate() {
            assert_eq!(step.0, expected.0, "{login}: try {number}");
            // Nobody has a name that is this long, so it is not looked up.
            let mut calls = step.1.clone();
            if login == long && expected.1.first() == Some(&Call::ByLoginName) {
                calls.insert(0, Call::ByLoginName);
            }
            assert_eq!(calls, expected.1, "{login}: try {number}");
        }
    }
    let calls: Vec<_> = expected.into_iter().map(|(_, calls)| calls).collect();
    let counted = vec![Call::ByLoginName, Call::Take];
    // Five attempts, a refusal by the store, two that are remembered for a second, and one by the
    // store.
    let mut all = vec![counted.clone(); 6];
    all.extend([counted, vec![]]);
    assert_eq!(calls, all);
}

#[tokio::test]
async fn a_fault_gives_the_attempt_back_and_is_never_a_wrong_password() {
    let site = Site::start().await;
    let mut browser = site.browser("203.0.113.1");
    try_wrong(&mut browser, "ada", 4).await;
    for call in [Call::ByLoginName, Call::Take] {
        site.store.set(call, Trouble::Fails(StoreErrorKind::Unavailable));
        for _ in 0..6 {
            let status = try_password(&mut browser, "ada", PASSWORD).await;
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{call:?}");
        }
        site.store.heal();
    }
    // The attempts of a store that could not be reached were not counted.
    try_wrong(&mut browser, "ada", 1).await;
    assert_eq!(try_password(&mut browser, "ada", PASSWORD).await, TOO_MANY);
    // A right password logs in, even if the counts can't be given back or reset.
    site.advance(30);
    site.store.set(Call::GiveBack, Trouble::Fails(StoreErrorKind::Unavailable));
    site.store.set(Call::ResetCounters, Trouble::Fails(StoreErrorKind::Unavailable));
    assert_eq!(try_password(&mut browser, "ada", PASSWORD).await, StatusCode::OK);
}

#[tokio::test]
async fn a_wrong_password_counts_even_if_the_client_hangs_up() {
    let site = Site::start().await;
    let mut answered = 0;
    for time in 0.. {
        assert!(time < 200, "the wrong passwords were not counted");
        let mut browser = site.browser("203.0.113.1");
        let request = async { try_password(&mut browser, "ada", "wrong").await };
        // The hash takes longer than this at first.
        match tokio::time::timeout(Duration::from_millis(1 + time), request).await {
            Ok(TOO_MANY) => break,
            Ok(_) => answered += 1,
            Err(_) => {}
        }
    }
    assert!(answered < 5, "{answered} passwords were answered");
    // An event was raised for each, and the hashes of some may still be running.
    let begun = Instant::now();
    let mut failed = 0;
    while failed < 5 {
        assert!(begun.elapsed() < Duration::from_secs(30), "only {failed} events");
        let events = site.take_attempts();
        failed += events.iter().filter(|attempt| attempt[0] == "login_failed").count();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(failed, 5);
}

#[tokio::test]
async fn a_right_password_is_given_back_even_if_the_client_hangs_up() {
    let site = Site::start().await;
    // Writes that conflict wait for seconds in one of the emulators.
    let attempts = if std::env::var("KEEP_STORE").as_deref() == Ok("firestore") { 3 } else { 20 };
    for time in 0..attempts {
        let mut browser = site.browser("203.0.113.1");
        let request = async { send(&mut browser, "/check-only", "ada", PASSWORD).await };
        // The hash takes longer than this, and the calls of some stores do, too.
        let _ = tokio::time::timeout(Duration::from_millis(1 + time / 4), request).await;
    }
    // The attempts are given back in the background.
    let mut browser = site.browser("203.0.113.2");
    let begun = Instant::now();
    while send(&mut browser, "/check-only", "ada", PASSWORD).await.status != StatusCode::OK {
        assert!(begun.elapsed() < Duration::from_secs(30), "the attempts were not given back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    try_wrong(&mut browser, "ada", 5).await;
    assert_eq!(try_password(&mut browser, "ada", "wrong").await, TOO_MANY);
}

#[tokio::test]
async fn an_application_lets_a_user_start_over() {
    let site = Site::start().await;
    let mut stranger = site.browser("203.0.113.66");
    try_wrong(&mut stranger, "ada", 5).await;
    assert_eq!(try_password(&mut stranger, "ada", PASSWORD).await, TOO_MANY);
    // The user has followed a link in a mail.
    let ada = site.store.by_login_name("ada").await.unwrap().expect("there is such a user");
    site.sign_in.reset_limits_of(&ada, "Ada").await.unwrap();
    assert_eq!(
        try_password(&mut site.browser("203.0.113.1"), "ada", PASSWORD).await,
        StatusCode::OK
    );
}

#[tokio::test]
async fn names_that_are_stored_as_one_name_are_counted_together() {
    let base = |typed: &str| typed.split('+').next().unwrap_or_default().to_owned();
    let site = Site::start_with(|builder| builder, |sign_in| sign_in.with_stored_name(base)).await;
    let mut browser = site.browser("203.0.113.1");
    for user in ["ada", "nobody"] {
        for number in 0..5 {
            try_wrong(&mut browser, &format!("{user}+{number}"), 1).await;
        }
        let status = try_password(&mut browser, &format!("{user}+5"), "wrong").await;
        assert_eq!(status, TOO_MANY, "{user}");
    }
}

#[tokio::test]
async fn a_sign_in_never_logs_in_to_another_area() {
    let site = Site::start().await;
    let admin_store = new_store().await;
    let admins = LoginLayer::builder(admin_store, Keys::new(KEY))
        .with_sessions()
        .with_clock(site.clock.clone())
        .with_area("admin")
        .build()
        .unwrap();
    // Both layers have users of the same type, and the innermost is not that of the sign-in.
    let router = Router::new()
        .merge(site.sign_in.routes())
        .route("/sign-in", post(log_in))
        .with_state((site.sign_in.clone(), site.store.clone()));
    let service = site.auth_layer.layer(admins.layer(router));
    let mut browser = Client::new(service).with_clock(site.clock.clone());
    browser.set_address("203.0.113.1".parse().expect("a valid value"));
    let form = [("login", "ada"), ("password", PASSWORD)];
    assert_eq!(browser.post("/sign-in", &form).await.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(browser.post("/login", &form).await.location(), "/");
    let cookies = [
        ("__Host-Http-keep", true),
        ("__Host-Http-keep-device", true),
        ("__Host-Http-keep-admin", false),
        ("__Host-Http-keep-admin-device", false),
    ];
    for (name, is_set) in cookies {
        assert_eq!(browser.jar.get(name).is_some(), is_set, "{name}");
    }
}

#[tokio::test]
async fn a_confirmation_is_limited_together_with_the_login() {
    let site = Site::start().await;
    let mut thief = site.browser("203.0.113.1");
    assert_eq!(try_password(&mut thief, "ada", PASSWORD).await, StatusCode::OK);
    // The thief has the session cookie of the user, and no device cookie.
    thief.jar.remove("__Host-Http-keep-device");
    for _ in 0..5 {
        assert_eq!(
            send(&mut thief, "/confirm", "", "wrong").await.status,
            StatusCode::UNAUTHORIZED
        );
    }
    assert_eq!(send(&mut thief, "/confirm", "", PASSWORD).await.status, TOO_MANY);
    assert_eq!(try_password(&mut thief, "ada", PASSWORD).await, TOO_MANY);
    site.advance(30);
    assert_eq!(send(&mut thief, "/confirm", "", PASSWORD).await.text(), "confirmed: true");
    // The confirmation has reset the count.
    for _ in 0..5 {
        let mut stranger = site.browser("203.0.113.66");
        assert_eq!(try_password(&mut stranger, "ada", "wrong").await, StatusCode::UNAUTHORIZED);
    }
    // Nobody is logged in: the password of nobody is wrong.
    let mut nobody = site.browser("203.0.113.3");
    assert_eq!(send(&mut nobody, "/confirm", "", PASSWORD).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_known_device_has_a_limit_of_its_own() {
    let site = Site::start().await;
    let mut own = site.known_device("203.0.113.1", "ada").await;
    try_wrong(&mut own, "ada", 5).await;
    assert_eq!(try_password(&mut own, "ada", PASSWORD).await, TOO_MANY);
    // From elsewhere, the user still logs in. That does not reset the device.
    let mut elsewhere = site.browser("203.0.113.2");
    assert_eq!(try_password(&mut elsewhere, "ada", PASSWORD).await, StatusCode::OK);
    assert_eq!(try_password(&mut own, "ada", PASSWORD).await, TOO_MANY);
    site.advance(30);
    assert_eq!(try_password(&mut own, "ada", PASSWORD).await, StatusCode::OK);
    try_wrong(&mut own, "ada", 5).await;
}

/// Whether attempts from this browser for this user are counted separately from those of strangers:
/// the name waits for everyone else.
async fn is_known(site: &Site, browser: &mut Browser, user: &str) -> bool {
    let mut stranger = site.browser("203.0.113.66");
    while try_password(&mut stranger, user, "wrong").await != TOO_MANY {}
    try_password(browser, user, PASSWORD).await == StatusCode::OK
}

#[tokio::test]
async fn a_device_cookie_is_of_one_user_and_can_not_be_forged() {
    let site = Site::start().await;
    let name = "__Host-Http-keep-device";
    let device = site.known_device("203.0.113.1", "ada").await;
    let cookie = device.jar.get(name).expect("a device cookie").to_owned();
    let with = |value: &str| {
        let mut browser = site.browser("203.0.113.9");
        browser.jar.insert(name, value);
        browser
    };
    assert!(is_known(&site, &mut with(&cookie), "ada").await);
    assert!(!is_known(&site, &mut with(&cookie), "bob").await, "another user's cookie");
    for index in 0..cookie.len() {
        let mut forged = cookie.clone().into_bytes();
        forged[index] = if forged[index] == b'A' { b'B' } else { b'A' };
        let forged = String::from_utf8(forged).unwrap();
        assert!(!is_known(&site, &mut with(&forged), "ada").await, "byte {index}");
    }
    for bad in ["", "x", &cookie[..cookie.len() - 1], &format!("{cookie}A")] {
        assert!(!is_known(&site, &mut with(bad), "ada").await, "{bad}");
    }
    // A session cookie under the name of the device cookie is none.
    let mut logged_in = site.browser("203.0.113.8");
    site.advance(3_600);
    assert_eq!(try_password(&mut logged_in, "ada", PASSWORD).await, StatusCode::OK);
    let session = logged_in.jar.get("__Host-Http-keep").expect("a session cookie").to_owned();
    assert!(!is_known(&site, &mut with(&session), "ada").await);
    // Two cookies of different users: one of them was planted, and none counts.
    let other = site.known_device("203.0.113.2", "bob").await;
    let other = other.jar.get(name).expect("a device cookie").to_owned();
    let mut both = site.browser("203.0.113.9");
    both.set_header(http::header::COOKIE, &format!("{name}={cookie}; {name}={other}"));
    assert!(!is_known(&site, &mut both, "ada").await);
}

#[tokio::test]
async fn a_device_is_known_for_a_year_and_until_the_password_changes() {
    let site = Site::start().await;
    let mut browser = site.browser("203.0.113.1");
    let response = send(&mut browser, "/sign-in", "ada", PASSWORD).await;
    let cookies = response.set_cookies();
    let cookie =
        cookies.iter().find(|cookie| cookie.contains("-device=")).expect("a device cookie");
    assert!(
        cookie.ends_with("; Max-Age=31536000; Path=/; Secure; HttpOnly; SameSite=Lax"),
        "{cookie}"
    );
    let mut other = site.known_device("203.0.113.2", "ada").await;
    // The password changes in one browser, which stays a known device. The other one no longer is.
    let form = [("password", PASSWORD), ("new", "another battery staple")];
    assert_eq!(browser.post("/change", &form).await.text(), "kept: true");
    let mut stranger = site.browser("203.0.113.66");
    while try_password(&mut stranger, "ada", "wrong").await != TOO_MANY {}
    assert_eq!(try_password(&mut other, "ada", "another battery staple").await, TOO_MANY);
    assert_eq!(try_password(&mut browser, "ada", "another battery staple").await, StatusCode::OK);
    site.advance(31_536_000);
    while try_password(&mut stranger, "ada", "wrong").await != TOO_MANY {}
    assert_eq!(try_password(&mut browser, "ada", "another battery staple").await, TOO_MANY);
}

#[tokio::test]
async fn a_login_without_a_checked_password_makes_no_device_known() {
    let site = Site::start().await;
    let mut browser = site.browser("203.0.113.1");
    let ada = site.store.inner().by_login_name("ada").await.unwrap().unwrap();
    browser.log_in(&site.auth_layer, ada).await.unwrap();
    assert_eq!(browser.get("/name").await.text(), "ada");
    assert_eq!(browser.jar.get("__Host-Http-keep-device"), None);
    // Checking the password of one user, and logging in another, makes none either.
    let response = send(&mut browser, "/check-only", "ada", PASSWORD).await;
    assert_eq!((response.text().as_str(), response.set_cookies().len()), ("right", 0));
    // An inactive user is not logged in, whatever the password.
    let response = send(&mut browser, "/sign-in", "inactive", PASSWORD).await;
    assert_eq!((response.status, response.set_cookies().len()), (StatusCode::FORBIDDEN, 0));
}

#[tokio::test]
async fn an_address_that_many_clients_may_share_is_not_counted() {
    let mut limits = SignInLimits::default();
    limits.by_address = CounterRule::window(3, 3_600);
    let site = Site::start_with(|builder| builder, |sign_in| sign_in.with_limits(limits)).await;
    for (address, is_counted) in [
        ("203.0.113.1", true),
        ("2001:db8::1", true),
        ("127.0.0.1", false),
        ("10.0.0.1", false),
        ("fd00::1", false),
    ] {
        let mut browser = site.browser(address);
        for number in 0..3 {
            try_wrong(&mut browser, &format!("{address} {number}"), 1).await;
        }
        let status = try_password(&mut browser, &format!("{address} 3"), "wrong").await;
        assert_eq!(status == TOO_MANY, is_counted, "{address}");
    }
    // One network of IPv6 is one client.
    let mut neighbour = site.browser("2001:db8::ffff:1");
    assert_eq!(try_password(&mut neighbour, "another", "wrong").await, TOO_MANY);
    // A known device of the user does not wait because of its address.
    let known = |sign_in: PasswordSignIn<Account>| sign_in.with_limits(limits);
    let site = Site::start_with(|builder| builder, known).await;
    let mut own = site.known_device("203.0.113.1", "ada").await;
    let mut stranger = site.browser("203.0.113.1");
    for number in 0..3 {
        try_wrong(&mut stranger, &format!("name {number}"), 1).await;
    }
    assert_eq!(try_password(&mut stranger, "bob", PASSWORD).await, TOO_MANY);
    assert_eq!(try_password(&mut own, "ada", PASSWORD).await, StatusCode::OK);
}

#[tokio::test]
async fn private_addresses_are_counted_behind_a_trusted_proxy() {
    let mut limits = SignInLimits::default();
    limits.by_address = CounterRule::window(1, 3_600);
    let site = Site::start_with(
        |builder| builder.with_trusted_proxies(["127.0.0.1"]),
        |sign_in| sign_in.with_limits(limits),
    )
    .await;
    let mut browser = site.browser("127.0.0.1");
    browser.set_header(http::HeaderName::from_static("x-forwarded-for"), "10.1.1.1");
    try_wrong(&mut browser, "one", 1).await;
    assert_eq!(try_password(&mut browser, "two", "wrong").await, TOO_MANY);
    // The proxy says nothing: all clients seem to have its address.
    let mut browser = site.browser("127.0.0.1");
    for name in ["three", "four", "five"] {
        try_wrong(&mut browser, name, 1).await;
    }
}

#[tokio::test]
async fn made_up_names_begin_no_more_counters_than_the_cap_allows() {
    let site = Site::start_with(
        |builder| builder,
        |sign_in| {
            let limiter = sign_in.limiter().with_max_new_counters(30);
            sign_in.with_limiter(limiter)
        },
    )
    .await;
    let mut own = site.known_device("203.0.113.1", "ada").await;
    site.advance(1);
    let mut statuses = Vec::new();
    for number in 0..40 {
        // Each attempt needs three new counters: two for its name, and one for its address.
        let mut browser = site.browser(&format!("203.0.113.{}", number + 100));
        statuses.push(try_password(&mut browser, &format!("name {number}"), "wrong").await);
    }
    let counts = [StatusCode::UNAUTHORIZED, StatusCode::SERVICE_UNAVAILABLE]
        .map(|status| statuses.iter().filter(|other| **other == status).count());
    assert_eq!(counts, [10, 30]);
    assert_eq!(try_password(&mut own, "ada", PASSWORD).await, StatusCode::OK, "a known device");
    site.advance(1);
    try_wrong(&mut site.browser("203.0.113.250"), "another name", 1).await;
}

#[tokio::test]
async fn requests_without_a_password_count_nothing() {
    let site = Site::start().await;
    let mut crawler = site.browser("203.0.113.1");
    for number in 0..50 {
        crawler.get(&format!("/page{number}")).await;
        crawler.get("/name").await;
        crawler.get("/sign-in").await;
    }
    assert_eq!(site.store.take_calls(), []);
}

#[tokio::test]
async fn an_attempt_says_what_an_audit_needs_and_nothing_that_was_typed() {
    let site = Site::start().await;
    let mut browser = site.browser("203.0.113.1");
    for (login, password) in [("ada", "secret guess"), ("correct horse", "ada"), ("ADA", "other")] {
        send(&mut browser, "/sign-in", login, password).await;
    }
    let attempts = site.take_attempts();
    let digests: Vec<_> = attempts.iter().map(|[.., digest]| digest.clone()).collect();
    assert_eq!(digests[0], digests[2], "one name in two spellings");
    assert!(digests[0] != digests[1] && digests.iter().all(|digest| digest.len() == 16));
    // A memory store finds names byte for byte, so `ADA` is nobody.
    let users: Vec<_> = attempts
        .iter()
        .map(|[name, user, address, _]| (name.as_str(), user.as_str(), address.as_str()))
        .collect();
    assert_eq!(
        users[..2],
        [("login_failed", "ada", "203.0.113.1"), ("login_failed", "", "203.0.113.1")]
    );
    let all = format!("{attempts:?}");
    for typed in ["secret guess", "correct horse", "other"] {
        assert!(!all.contains(typed), "{all}");
    }
    try_wrong(&mut browser, "bob", 5).await;
    site.take_attempts();
    try_password(&mut browser, "bob", "wrong").await;
    try_password(&mut browser, "bob", "wrong").await;
    let attempts = site.take_attempts();
    let names: Vec<_> =
        attempts.iter().map(|[name, user, ..]| [name.as_str(), user.as_str()]).collect();
    // The second is refused without looking up the user.
    assert_eq!(names, [["throttled", "bob"], ["throttled", ""]]);
}

#[tokio::test]
async fn a_weak_hash_of_a_right_password_is_replaced_before_the_login() {
    let site = Site::start().await;
    let params = argon2::Params::new(8 * 1_024, 1, 1, None).unwrap();
    let weak = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let hash = weak.hash_password(PASSWORD.as_bytes()).unwrap().to_string();
    site.store.change("1", |ada| ada.set_password_hash(&hash)).await;
    let stored = async || site.store.inner().by_login_name("ada").await.unwrap().unwrap();
    let before = stored().await;
    let mut browser = site.browser("203.0.113.1");
    try_wrong(&mut browser, "ada", 1).await;
    assert_eq!(stored().await.password_hash(), hash, "a wrong password replaces nothing");
    assert_eq!(try_password(&mut browser, "ada", PASSWORD).await, StatusCode::OK);
    let after = stored().await;
    assert!(after.password_hash().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
    assert_eq!(after.security_stamp(), before.security_stamp());
    assert_eq!(browser.get("/name").await.text(), "ada", "the login stays valid");
    assert_eq!(try_password(&mut browser, "ada", PASSWORD).await, StatusCode::OK);
    assert_eq!(stored().await.password_hash(), after.password_hash(), "replaced once");
}

#[tokio::test]
async fn a_password_is_the_same_in_every_unicode_form() {
    let passwords = Passwords::new();
    let (composed, decomposed) = ("caf\u{e9} au lait", "cafe\u{301} au lait");
    let hash = passwords.hash(decomposed).await.unwrap();
    for (typed, is_right) in [(composed, true), (decomposed, true), ("cafe au lait", false)] {
        assert_eq!(passwords.verify(Some(&hash), typed).await.unwrap(), is_right, "{typed}");
    }
    // Another program has hashed the text as it was typed.
    let raw = argon2::Argon2::default().hash_password(decomposed.as_bytes()).unwrap().to_string();
    assert!(passwords.verify(Some(&raw), decomposed).await.unwrap());
    assert!(!passwords.verify(Some(&raw), composed).await.unwrap());
    // Long passwords count whole, and there is an end.
    let long = "é".repeat(2_048);
    let hash = passwords.hash(long.clone()).await.unwrap();
    assert!(passwords.verify(Some(&hash), long.clone()).await.unwrap());
    assert!(!passwords.verify(Some(&hash), format!("{long}x")).await.unwrap());
    let error = passwords.hash(format!("{long}x")).await.unwrap_err();
    assert!(matches!(error, PasswordError::TooLong { bytes: 4_097 }), "{error}");
    assert_eq!(error.status(), StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn a_flood_leaves_room_for_known_devices() {
    let site = Site::start_with(
        |builder| builder,
        |sign_in| sign_in.with_passwords(Passwords::new().with_concurrency(1)),
    )
    .await;
    let own = site.known_device("203.0.113.1", "ada").await;
    let strangers: Vec<_> = (0..60)
        .map(|number| {
            let mut stranger = site.browser(&format!("203.0.113.{}", number + 100));
            tokio::spawn(
                async move { try_password(&mut stranger, &format!("n{number}"), "x").await },
            )
        })
        .collect();
    tokio::task::yield_now().await;
    let owners: Vec<_> = (0..3)
        .map(|_| {
            let mut own = own.clone();
            tokio::spawn(async move { try_password(&mut own, "ada", PASSWORD).await })
        })
        .collect();
    for owner in owners {
        assert_eq!(owner.await.unwrap(), StatusCode::OK);
    }
    let mut busy = 0;
    for stranger in strangers {
        busy += usize::from(stranger.await.unwrap() == StatusCode::SERVICE_UNAVAILABLE);
    }
    assert!(busy > 0, "the flood was larger than the queue");
}

#[tokio::test]
async fn an_application_limits_what_it_likes() {
    const MAILS: Limit = Limit::new("mails", CounterRule::window(2, 3_600));
    const CODES: Limit = Limit::new("codes", CounterRule::growing(1, 10, 60, 5, 600));
    let site = Site::start().await;
    let limiter = site.auth_layer.limiter(site.store.clone());
    let mails = [MAILS.of("ada@example.org")];
    limiter.take(&mails).await.unwrap();
    let second = limiter.take(&mails).await.unwrap();
    let refused = limiter.take(&mails).await.unwrap_err();
    let LimitError::Throttled(throttled) = &refused else { panic!("{refused}") };
    assert_eq!((throttled.limit, throttled.retry_after.as_secs()), ("mails", 3_600));
    assert_eq!(refused.status(), TOO_MANY);
    // Another subject, another limit, and a use that was given back.
    limiter.take(&[MAILS.of("bob@example.org"), CODES.of("ada@example.org")]).await.unwrap();
    second.give_back().await.unwrap();
    limiter.take(&mails).await.unwrap();
    limiter.take(&mails).await.unwrap_err();
    // All or nothing.
    limiter.take(&[CODES.of("bob"), mails[0].clone()]).await.unwrap_err();
    limiter.take(&[CODES.of("bob")]).await.unwrap();
    limiter.reset(&mails).await.unwrap();
    limiter.take(&mails).await.unwrap();
    // Another limiter of the layer has the same counters; one of another area has its own.
    let same = site.auth_layer.limiter(site.store.clone());
    same.take(&mails).await.unwrap();
    same.take(&mails).await.unwrap_err();
    site.store.set(Call::Take, Trouble::Fails(StoreErrorKind::Unavailable));
    site.advance(1);
    let failed = limiter.take(&mails).await.unwrap_err();
    assert!(matches!(failed, LimitError::Store(_)), "{failed}");
    assert_eq!(failed.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn expired_counters_are_removed_while_a_limiter_is_used() {
    const SHORT: Limit = Limit::new("short", CounterRule::window(9, 60));
    let site = Site::start().await;
    let limiter = site.auth_layer.limiter(site.store.clone());
    for number in 0..5 {
        limiter.take(&[SHORT.of(format!("{number}"))]).await.unwrap();
    }
    assert!(!site.store.take_calls().contains(&Call::PurgeCounters));
    site.advance(3_600);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    limiter.take(&[SHORT.of("another")]).await.unwrap();
    site.store.wait_for(Call::PurgeCounters).await;
}

#[tokio::test]
async fn a_new_password_is_checked_by_the_rules_of_the_sign_in() {
    let site = Site::start().await;
    let rejection = async |password: &str| site.sign_in.rejection_of(password).await.unwrap();
    assert_eq!(rejection("short").await, Some(PasswordRejection::TooShort { min: 8 }));
    assert_eq!(rejection("Password1").await, Some(PasswordRejection::Common));
    assert_eq!(rejection(PASSWORD).await, None);
}

// The rules of `routes`.

struct Pages {
    site: Site,
    service: LoginService<Router, Account>,
}

impl Pages {
    async fn start() -> Self {
        Self::start_at("/enter").await
    }

    async fn start_at(login_page: &str) -> Self {
        let site = Site::start_with(
            |builder| {
                builder
                    .with_login_page(login_page)
                    .expect("a valid value")
                    .with_confirm_page("/again")
                    .expect("a valid value")
            },
            |sign_in| sign_in,
        )
        .await;
        let router = Router::new()
            .route("/account", get(name))
            .route_layer(site.auth_layer.require_login())
            .route("/sensitive", get(name).route_layer(site.auth_layer.require_fresh()))
            .merge(site.sign_in.routes());
        let service = site.auth_layer.layer(router);
        Self { site, service }
    }

    fn browser(&self) -> Browser {
        let mut browser = Client::new(self.service.clone()).with_clock(self.site.clock.clone());
        browser.set_address("203.0.113.1".parse().expect("a valid value"));
        browser
    }
}

#[tokio::test]
async fn the_ready_made_routes_log_in_confirm_and_log_out() {
    let pages = Pages::start().await;
    let mut browser = pages.browser();
    let turned_away = browser.get("/account?tab=2").await;
    assert_eq!(turned_away.location(), "/enter?next=%2Faccount%3Ftab%3D2");
    let form = browser.get(&turned_away.location()).await;
    assert_eq!(form.header("content-security-policy"), "frame-ancestors 'none'");
    let html = form.text();
    assert!(html.contains("Please log in") && html.contains(r#"value="/account?tab=2""#), "{html}");
    let next = "/account?tab=2";
    let wrong = [("login", "a<b"), ("password", "wrong"), ("next", next)];
    let again = browser.post("/enter", &wrong).await;
    assert_eq!(again.status, StatusCode::UNPROCESSABLE_ENTITY);
    let html = again.text();
    assert!(html.contains("Wrong login name or password."), "{html}");
    assert!(
        html.contains(r#"value="a&lt;b""#) && html.contains(r#"value="/account?tab=2""#),
        "{html}"
    );
    let right = [("login", "ada"), ("password", PASSWORD), ("next", next), ("remember", "on")];
    let entered = browser.post("/enter", &right).await;
    assert_eq!((entered.status, entered.location().as_str()), (StatusCode::SEE_OTHER, next));
    assert_eq!(browser.get("/account").await.text(), "ada");
    assert_eq!(browser.get("/enter").await.location(), "/", "the user is logged in already");
    // The remember cookie restores the login, which then has to be confirmed.
    browser.close_browser();
    assert_eq!(browser.get("/account").await.text(), "ada");
    let confirm = browser.get("/sensitive").await.location();
    assert_eq!(confirm, "/again?next=%2Fsensitive");
    let html = browser.get(&confirm).await.text();
    assert!(html.contains("Confirm that it is you") && !html.contains("name=\"login\""), "{html}");
    let wrong = browser.post("/again", &[("password", "wrong")]).await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    let right = browser.post("/again", &[("password", PASSWORD), ("next", "/sensitive")]).await;
    assert_eq!(right.location(), "/sensitive");
    assert_eq!(browser.get("/sensitive").await.text(), "ada");
    assert_eq!(browser.get("/logout").await.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(browser.post("/logout", &[]).await.location(), "/enter");
    assert_eq!(browser.get("/account").await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn the_ready_made_routes_throttle_and_refuse_forms_of_other_sites() {
    let pages = Pages::start().await;
    let mut browser = pages.browser();
    for _ in 0..5 {
        browser.post("/enter", &[("login", "ada"), ("password", "wrong")]).await;
    }
    let refused = browser.post("/enter", &[("login", "ada"), ("password", PASSWORD)]).await;
    assert_eq!((refused.status, refused.header("retry-after").as_str()), (TOO_MANY, "30"));
    assert!(refused.text().contains("Try again in 30 seconds."), "{}", refused.text());
    // An empty field is no guess.
    let mut other = pages.browser();
    for _ in 0..6 {
        let empty = other.post("/enter", &[("login", "bob"), ("password", "")]).await;
        assert_eq!(empty.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(empty.text().contains("Enter your login name and your password."));
    }
    let inactive = [("login", "inactive"), ("password", PASSWORD)];
    assert_eq!(browser.post("/enter", &inactive).await.status, StatusCode::FORBIDDEN);
    let too_long = format!("login=ada&password={}", "x".repeat(20_000));
    let refused = browser.send(Method::POST, "/enter", too_long).await;
    assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
    for (name, value, is_own) in [
        ("sec-fetch-site", "cross-site", false),
        ("sec-fetch-site", "same-site", false),
        ("sec-fetch-site", "same-origin", true),
        ("sec-fetch-site", "none", true),
        ("origin", "https://evil.example", false),
        ("origin", "null", false),
    ] {
        let mut browser = pages.browser();
        browser.set_header(http::HeaderName::from_static(name), value);
        let form = [("login", "bob"), ("password", PASSWORD)];
        let response = browser.post("/enter", &form).await;
        let is_in = response.status == StatusCode::SEE_OTHER;
        assert_eq!(is_in, is_own, "{name}: {value}: {}", response.status);
        let status = browser.post("/logout", &[]).await.status;
        assert_eq!(status == StatusCode::SEE_OTHER, is_own, "{name}: {value}");
    }
    // Nobody is logged in: the confirm page leads to the login page.
    let mut visitor = pages.browser();
    let response = visitor.post("/again", &[("password", PASSWORD)]).await;
    assert_eq!((response.status, response.location().as_str()), (StatusCode::SEE_OTHER, "/enter"));
}

#[tokio::test]
async fn a_login_page_that_is_the_home_page_leads_nowhere_for_ever() {
    let pages = Pages::start_at("/").await;
    let mut browser = pages.browser();
    let response = browser.post("/", &[("login", "ada"), ("password", PASSWORD)]).await;
    assert_eq!((response.status, response.location().as_str()), (StatusCode::SEE_OTHER, "/"));
    assert_eq!(browser.get("/").await.status, StatusCode::OK);
    let elsewhere = browser.get("/?next=/account").await;
    assert_eq!(elsewhere.location(), "/account");
}
