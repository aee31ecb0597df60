//! Uses the site as a new visitor does, in the way that the README describes.

use std::path::Path;

use http::{StatusCode, header};
use tower_keep_tests::{Browser, Process};

fn start() -> Process {
    start_with(Path::new("."), "memory")
}

/// Starts the site with this store, in a directory that may contain the files of an earlier start.
fn start_with(directory: &Path, store: &str) -> Process {
    let arguments = ["--listen", "127.0.0.1:0", "--store", store];
    Process::start_in(directory, env!("CARGO_BIN_EXE_quickstart"), &arguments, 4)
}

/// Logs in as the demo user, with `more` form fields besides the login name and the password.
/// Returns the page to which the site redirects.
async fn log_in(browser: &mut Browser, site: &Process, more: &[(&str, &str)]) -> String {
    let login =
        [("login", site.printed("demo login: ")), ("password", site.printed("demo password: "))];
    let response = browser.post("/login", &[&login, more].concat()).await;
    assert_eq!(response.status, StatusCode::SEE_OTHER, "{}", response.text());
    response.location()
}

#[tokio::test]
async fn a_visitor_can_log_in_see_the_account_and_log_out() {
    let site = start();
    let mut browser = site.browser();
    assert!(browser.get("/").await.text().contains("Hello, stranger"));
    let login_page = browser.get("/account?tab=2").await.location();
    assert_eq!(login_page, "/login?next=%2Faccount%3Ftab%3D2");
    let page = browser.get(&login_page).await.text();
    assert!(page.contains("Please log in to see this page."), "{page}");
    assert!(page.contains(r#"name="next" value="/account?tab=2""#), "{page}");
    let page = browser.get(&login_page).await.text();
    assert!(!page.contains("Please log in"), "the flash message is shown once");

    let next = [("next", "/account?tab=2")];
    assert_eq!(log_in(&mut browser, &site, &next).await, "/account?tab=2");
    assert!(browser.get("/").await.text().contains("Welcome back, ada"));
    assert!(browser.get("/account").await.text().contains("Fresh login"));
    assert_eq!(browser.get("/login").await.location(), "/account");
    assert_eq!(browser.get("/api/me").await.text(), r#"{"id":"1","login":"ada"}"#);
    assert_eq!(browser.post("/logout", &[]).await.location(), "/login");
    assert_eq!(browser.get("/account").await.location(), "/login?next=%2Faccount");
    assert_eq!(browser.get("/api/me").await.location(), "/login?next=%2Fapi%2Fme");
    // A script of a page is not redirected.
    browser.set_header(header::ACCEPT, "application/json");
    let response = browser.get("/api/me").await;
    assert_eq!(response.status, StatusCode::UNAUTHORIZED);
    assert_eq!(response.header(header::CONTENT_TYPE), "application/problem+json");
}

// No response reveals whether a user exists.
#[tokio::test]
async fn a_wrong_password_and_an_unknown_login_name_get_the_same_response() {
    let site = start();
    let long_password = "x".repeat(100);
    let mut responses = Vec::new();
    for (login, password) in
        [("ada", "wrong"), ("nobody", "wrong"), ("ada", &long_password), ("nobody", &long_password)]
    {
        let mut browser = site.browser();
        let response = browser.post("/login", &[("login", login), ("password", password)]).await;
        assert!(browser.jar.names().is_empty());
        // The form shows the name that was typed.
        let page = response.text().replace(&format!("value=\"{login}\""), "value");
        responses.push((response.status, page, response.set_cookies()));
    }
    assert!(responses.iter().all(|response| response == &responses[0]), "{responses:?}");
    assert_eq!(responses[0].0, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn a_visitor_can_sign_up_and_log_in_with_the_new_account() {
    let site = start();
    let mut browser = site.browser();
    for (login, password, problem) in [
        ("", "difference engine", "A login name has 1 to 100 characters."),
        ("bob", "short", "The password needs at least 8 characters."),
        ("bob", "Password1", "This password is well known."),
        ("ada", "difference engine", "This login name is taken."),
    ] {
        let form = [("login", login), ("password", password)];
        let response = browser.post("/sign-up", &form).await;
        assert_eq!(response.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(response.text().contains(problem), "{login}");
    }
    let form = [("login", "bob"), ("password", "difference engine")];
    assert_eq!(browser.post("/sign-up", &form).await.location(), "/account");
    assert!(browser.get("/").await.text().contains("Welcome back, bob"));
    browser.post("/logout", &[]).await;
    assert_eq!(browser.post("/login", &form).await.location(), "/account");
}

#[tokio::test]
async fn guessing_makes_a_stranger_wait_and_not_the_user() {
    let site = start();
    let mut own = site.browser();
    log_in(&mut own, &site, &[]).await;
    own.post("/logout", &[]).await;
    let mut stranger = site.browser();
    let guess = [("login", "ada"), ("password", "wrong")];
    for _ in 0..5 {
        assert_eq!(stranger.post("/login", &guess).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    let response = stranger.post("/login", &guess).await;
    assert_eq!(response.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.header(header::RETRY_AFTER), "30");
    assert!(response.text().contains("Too many attempts."));
    assert_eq!(log_in(&mut own, &site, &[]).await, "/account");
}

#[tokio::test]
async fn next_never_leaves_the_site() {
    let site = start();
    for next in ["//evil.example", "https://evil.example", "/\\evil.example", "/login", "/logout"] {
        assert_eq!(log_in(&mut site.browser(), &site, &[("next", next)]).await, "/account");
    }
}

#[tokio::test]
async fn changing_a_password_needs_a_fresh_login_and_ends_the_other_logins() {
    let site = start();
    let mut here = site.browser();
    log_in(&mut here, &site, &[("remember", "on")]).await;
    let mut there = site.browser();
    log_in(&mut there, &site, &[("remember", "on")]).await;
    // After the browser is closed, the login is remembered, but not fresh.
    here.close_browser();
    assert!(here.get("/account").await.text().contains("Fresh login"));
    let confirm = here.get("/password").await.location();
    assert_eq!(confirm, "/confirm?next=%2Fpassword");
    assert!(here.get(&confirm).await.text().contains("Please confirm that it is you."));
    let wrong = here.post("/confirm", &[("password", "wrong"), ("next", "/password")]).await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    let right = site.printed("demo password: ");
    let confirmed = here.post("/confirm", &[("password", right), ("next", "/password")]).await;
    assert_eq!(confirmed.location(), "/password");
    let short = here.post("/password", &[("password", "short")]).await;
    assert_eq!(short.status, StatusCode::UNPROCESSABLE_ENTITY);
    let changed = here.post("/password", &[("password", "a much longer password")]).await;
    assert_eq!(changed.location(), "/account");
    assert!(here.get("/account").await.text().contains("Your password is changed."));
    // The other login has ended, and its remember cookie is invalid. This login has not ended.
    assert_eq!(there.get("/account").await.location(), "/login?next=%2Faccount");
    here.close_browser();
    assert_eq!(here.get("/account").await.status, StatusCode::OK);
    let old = [("login", "ada"), ("password", right)];
    assert_eq!(there.post("/login", &old).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    let new = [("login", "ada"), ("password", "a much longer password")];
    assert_eq!(there.post("/login", &new).await.location(), "/account");
}

/// Returns the public ids of the sessions on the devices page. The current session is the first.
fn session_ids(page: &str) -> Vec<String> {
    let field = r#"name="session" value=""#;
    page.split(field).skip(1).filter_map(|rest| Some(rest.split('"').next()?.into())).collect()
}

#[tokio::test]
async fn devices_are_listed_and_ended() {
    let site = start();
    let (mut here, mut phone, mut tablet) = (site.browser(), site.browser(), site.browser());
    phone.set_header(
        header::USER_AGENT,
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) Version/18.1 Safari/604.1",
    );
    for browser in [&mut here, &mut phone, &mut tablet] {
        log_in(browser, &site, &[("remember", "on")]).await;
    }
    let page = here.get("/devices").await.text();
    assert!(page.contains("this device") && page.contains("Safari on iPhone"), "{page}");
    assert_eq!((session_ids(&page).len(), page.matches("this device").count()), (3, 1));
    assert!(page.contains("Active now") && page.contains("Last active just now"), "{page}");
    assert!(page.contains("from 127.0.0.1, remembered"), "{page}");

    let phone_page = phone.get("/devices").await.text();
    let ended = here.post("/devices/end", &[("session", &session_ids(&phone_page)[0])]).await;
    assert_eq!(ended.location(), "/devices");
    assert!(here.get("/devices").await.text().contains("That device is logged out."));
    phone.close_browser();
    assert_eq!(phone.get("/devices").await.location(), "/login?next=%2Fdevices");
    let unknown = here.post("/devices/end", &[("session", "nonsense")]).await;
    assert_eq!(unknown.location(), "/devices");
    assert!(here.get("/devices").await.text().contains("has already ended"));

    assert_eq!(here.post("/devices/end-others", &[]).await.location(), "/devices");
    assert_eq!(session_ids(&here.get("/devices").await.text()).len(), 1);
    assert_eq!(tablet.get("/account").await.status, StatusCode::SEE_OTHER);
    // Ending the current session is a logout.
    let current = session_ids(&here.get("/devices").await.text()).remove(0);
    assert_eq!(here.post("/devices/end", &[("session", &current)]).await.location(), "/");
    assert_eq!(here.get("/devices").await.location(), "/login?next=%2Fdevices");
    assert_eq!(here.post("/devices/end-others", &[]).await.location(), "/login");
}

#[tokio::test]
async fn logging_out_ends_copies_of_the_cookies() {
    let site = start();
    let mut browser = site.browser();
    log_in(&mut browser, &site, &[("remember", "on")]).await;
    let mut copy = browser.clone();
    browser.post("/logout", &[]).await;
    assert_eq!(copy.get("/account").await.location(), "/login?next=%2Faccount");
    assert_eq!(
        [copy.jar.get("__Host-Http-keep"), copy.jar.get("__Host-Http-keep-remember")],
        [None, None]
    );
}

#[tokio::test]
async fn an_api_key_authenticates_a_request_but_is_never_fresh() {
    let site = start();
    let mut api = site.browser();
    api.set_header(header::ACCEPT, "*/*");
    api.set_header(header::AUTHORIZATION, &format!("Bearer {}", site.printed("demo api key: ")));
    let response = api.get("/api/me").await;
    assert_eq!(response.text(), r#"{"id":"1","login":"ada"}"#);
    assert_eq!(api.get("/password").await.status, StatusCode::UNAUTHORIZED);
    api.set_header(header::AUTHORIZATION, "Bearer wrong");
    assert_eq!(api.get("/api/me").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_form_of_another_site_is_rejected() {
    let site = start();
    let mut browser = site.browser();
    log_in(&mut browser, &site, &[]).await;
    browser.set_header("sec-fetch-site".parse().unwrap(), "cross-site");
    for path in
        ["/logout", "/login", "/password", "/confirm", "/devices/end", "/devices/end-others"]
    {
        assert_eq!(browser.post(path, &[("password", "x")]).await.status, StatusCode::FORBIDDEN);
    }
}

#[tokio::test]
async fn an_invalid_form_is_a_client_error() {
    let site = start();
    let mut browser = site.browser();
    for path in ["/login", "/confirm", "/devices/end"] {
        assert!(!browser.post(path, &[("nonsense", "x")]).await.status.is_server_error());
    }
    assert_eq!(browser.post("/login", &[]).await.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[test]
fn the_error_for_an_invalid_argument_or_key_says_what_is_wrong() {
    for (arguments, expected) in [
        (&["--port", "3000"][..], "invalid option '--port'"),
        (&["--listen", "3000"], "--listen takes an address and a port"),
        (&["--listen"], "missing argument for option '--listen'"),
        (&["extra"], "unexpected argument \"extra\""),
        (&["--store", "mongodb://me:hunter2@host"], "unknown store \"mongodb\""),
        (&["--store", "sqlite:/no/such/directory/keep.db"], "unable to open database file"),
    ] {
        let run = std::process::Command::new(env!("CARGO_BIN_EXE_quickstart"))
            .args(arguments)
            .env("KEEP_KEY", "x".repeat(32))
            .output();
        let run = run.unwrap();
        let stderr = String::from_utf8_lossy(&run.stderr).into_owned();
        assert!(!run.status.success() && stderr.contains(expected), "{stderr}");
        assert!(!stderr.contains("hunter2"), "{stderr}");
    }
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_quickstart"));
    let run = command.args(["--store", "memory"]).env("KEEP_KEY", "short").output().unwrap();
    let stderr = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(stderr.contains("a key has 5 bytes and needs at least 32"), "{stderr}");
}

#[tokio::test]
async fn accounts_and_sessions_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let url_from = |variable: &str| {
        std::env::var(variable).unwrap_or_else(|_| {
            panic!("{variable} is not set; `cargo xtask test quickstart` starts a server")
        })
    };
    let variables = [
        "POSTGRES_URL",
        "MARIADB_URL",
        "MYSQL_URL",
        "REDIS_URL",
        "REDIS_SENTINEL_URL",
        "REDIS_CLUSTER_URL",
    ];
    // `start_with` passes the emulator of `DATASTORE_URL` to the site.
    url_from("DATASTORE_URL");
    let other_stores = [
        "sqlite:quickstart.db".to_owned(),
        format!("datastore://walk-{}/shop", std::process::id()),
    ];
    for store in variables.map(url_from).iter().chain(&other_stores) {
        let site = start_with(directory.path(), store);
        let mut browser = site.browser();
        log_in(&mut browser, &site, &[("remember", "on")]).await;
        drop(site);
        let site = start_with(directory.path(), store);
        let mut restarted = site.browser();
        restarted.jar = browser.jar.clone();
        assert!(restarted.get("/account").await.text().contains("ada"), "{store}");
        restarted.close_browser();
        assert!(restarted.get("/account").await.text().contains("ada"), "{store}");
        restarted.post("/logout", &[]).await;
        assert_eq!(restarted.get("/account").await.status, StatusCode::SEE_OTHER, "{store}");
    }
}

// `Process::terminate` sends the signal with which containers are stopped.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_signal_to_stop_the_running_requests_are_served_and_their_logins_stored() {
    let directory = tempfile::tempdir().unwrap();
    let store = "sqlite:quickstart.db";
    let mut site = start_with(directory.path(), store);
    let mut first = site.browser();
    log_in(&mut first, &site, &[("remember", "on")]).await;
    let mut logins = tokio::task::JoinSet::new();
    for number in 0..12 {
        let mut browser = site.browser();
        logins.spawn(async move {
            let name = format!("user{number}");
            let form = [("login", name.as_str()), ("password", "difference engine")];
            (browser.post("/sign-up", &form).await.status, browser)
        });
    }
    // Hashing a password takes tens of milliseconds, so most of these logins are still running when
    // the first has its response.
    let mut done = vec![logins.join_next().await.unwrap().unwrap()];
    site.terminate();
    done.extend(logins.join_all().await);
    let mut browsers = vec![first];
    for (status, browser) in done {
        assert_eq!(status, StatusCode::SEE_OTHER);
        browsers.push(browser);
    }
    assert!(site.wait_for_success(), "the process ends by itself");
    let site = start_with(directory.path(), store);
    for earlier in browsers {
        let mut browser = site.browser();
        browser.jar = earlier.jar.clone();
        assert_eq!(browser.get("/account").await.status, StatusCode::OK, "nobody is logged out");
    }
}

// If a form is submitted twice, both requests succeed. If another password change comes first, the
// form does not undo that change.
#[tokio::test]
async fn a_password_form_does_not_undo_a_change_that_came_first() {
    let site = start();
    let (mut here, mut there) = (site.browser(), site.browser());
    for browser in [&mut here, &mut there] {
        log_in(browser, &site, &[]).await;
    }
    let mut second_tab = here.clone();
    let form = [("password", "a much longer password")];
    let (one, other) =
        tokio::join!(here.post("/password", &form), second_tab.post("/password", &form));
    for (response, browser) in [(one, &mut here), (other, &mut second_tab)] {
        assert_eq!(response.location(), "/account", "submitting the same form twice is no error");
        assert_eq!(browser.get("/account").await.status, StatusCode::OK);
    }
    let another = [("password", "a different, later password")];
    let responses =
        tokio::join!(here.post("/password", &form), second_tab.post("/password", &another));
    let responses = [responses.0.status, responses.1.status];
    assert!(responses.contains(&StatusCode::SEE_OTHER), "{responses:?}");
    assert!(
        responses
            .iter()
            .all(|status| [StatusCode::SEE_OTHER, StatusCode::CONFLICT].contains(status))
    );
    assert_eq!(
        there.get("/account").await.status,
        StatusCode::SEE_OTHER,
        "the other login has ended"
    );
}

#[tokio::test]
async fn without_a_store_option_the_site_stores_its_data_in_the_current_directory() {
    let directory = tempfile::tempdir().unwrap();
    let listen = ["--listen", "127.0.0.1:0"];
    let program = env!("CARGO_BIN_EXE_quickstart");
    let site = Process::start_in(directory.path(), program, &listen, 4);
    log_in(&mut site.browser(), &site, &[]).await;
    assert!(directory.path().join("quickstart.db").is_file());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let key = std::fs::metadata(directory.path().join("quickstart.key")).unwrap();
        assert_eq!(key.permissions().mode() & 0o777, 0o600);
        let database = std::fs::metadata(directory.path().join("quickstart.db")).unwrap();
        assert!(database.len() > 0);
    }
}
