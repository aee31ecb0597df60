//! Cookies and headers, as a black-box tester would try them.

use http::{Method, StatusCode, header};
use tower_keep::Keys;
use tower_keep::client::{ClientMatch, SessionProtection};
use tower_keep::cookie::CookieSettings;
use tower_keep_tests::{KEY, Site, Watched, raw};

const SESSION: &str = "__Host-Http-keep";
const REMEMBER: &str = "__Host-Http-keep-remember";

#[tokio::test]
async fn a_changed_cookie_is_refused_and_nothing_panics() {
    let site = Site::start().await;
    let genuine = site.logged_in("user=notch&remember=1").await.jar;
    for name in [SESSION, REMEMBER] {
        let value = genuine.get(name).unwrap();
        let mut browser = site.browser();
        for position in 0..value.len() {
            let other = if &value[position..=position] == "x" { "y" } else { "x" };
            let changed = format!("{}{other}{}", &value[..position], &value[position + 1..]);
            browser.jar.insert(name, &changed);
            let response = browser.get("/username").await;
            assert_eq!((response.status, response.text().as_str()), (StatusCode::OK, "Anonymous"));
        }
        for length in 0..value.len() {
            browser.jar.insert(name, &value[..length]);
            assert_eq!(browser.get("/username").await.text(), "Anonymous");
        }
    }
}

#[tokio::test]
async fn a_cookie_of_one_purpose_or_name_is_none_of_another() {
    let site = Site::start_with(|builder| builder.with_login_page("/login").expect("a page")).await;
    let mut browser = site.logged_in("user=notch&remember=1").await;
    browser.get("/flash").await;
    let names = [SESSION, REMEMBER, "__Host-Http-keep-flash"];
    let values = names.map(|name| browser.jar.get(name).unwrap().to_owned());
    for (index, name) in names.iter().enumerate() {
        for (other, value) in values.iter().enumerate() {
            let mut thief = site.browser();
            thief.jar.insert(name, value);
            let who = thief.get("/username").await.text();
            let expected = if index == other && index < 2 { "notch" } else { "Anonymous" };
            assert_eq!(who, expected, "{name}");
        }
    }
    let renamed = site
        .beside(Keys::new(KEY), |builder| {
            builder.with_session_cookie(CookieSettings::new().with_name("__Host-other"))
        })
        .await;
    let mut thief = renamed.browser();
    thief.jar.insert("__Host-other", &values[0]);
    assert_eq!(thief.get("/username").await.text(), "Anonymous");
}

#[tokio::test]
async fn two_cookies_of_one_name_are_decided_alike_in_both_orders() {
    let site = Site::start().await;
    let value = |jar: &tower_keep_testkit::client::Jar| jar.get(SESSION).unwrap().to_owned();
    let notch = value(&site.logged_in("user=notch").await.jar);
    let steve = value(&site.logged_in("user=steve").await.jar);
    site.advance(10);
    let later = value(&site.logged_in("user=notch&fresh=0").await.jar);
    let ask = async |path: &str, first: &str, second: &str, name: &str| {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nUser-Agent: Test/1.0\r\n\
             Cookie: {SESSION}={first}; {name}={second}\r\nConnection: close\r\n\r\n"
        );
        let response = raw(site.address, request.as_bytes()).await;
        response.lines().last().unwrap_or_default().to_owned()
    };
    for (one, other, who) in [
        (&notch, &steve, "Anonymous"),
        (&notch, &notch, "notch"),
        (&notch, &later, "notch"),
        (&notch, &"garbage".to_owned(), "notch"),
    ] {
        assert_eq!(ask("/username", one, other, SESSION).await, who);
        assert_eq!(ask("/username", other, one, SESSION).await, who);
    }
    // Of two cookies of the same second, the same one counts in both orders.
    let stale = value(&site.logged_in("user=notch&fresh=0").await.jar);
    let fresh = value(&site.logged_in("user=notch").await.jar);
    let one_way = ask("/is-fresh", &stale, &fresh, SESSION).await;
    assert_eq!(one_way, ask("/is-fresh", &fresh, &stale, SESSION).await);
    // The later one counts, in both orders.
    assert_eq!(ask("/is-fresh", &notch, &later, SESSION).await, "false");
    assert_eq!(ask("/is-fresh", &later, &notch, SESSION).await, "false");
    // A sibling domain can plant any name but a `__Host-` one.
    for planted in ["keep", "__Secure-keep", "__host-keep", "__HOST-KEEP", "__Host-Http-keep "] {
        assert_eq!(ask("/username", &notch, &steve, planted).await, "notch", "{planted}");
    }
}

#[tokio::test]
async fn a_thousand_cookies_are_bounded_work() {
    let site = Site::start().await;
    let genuine = site.logged_in("user=notch").await.jar.get(SESSION).unwrap().to_owned();
    site.store.loads();
    let many = |name: &str, count: usize| {
        let pairs: Vec<String> = (0..count).map(|n| format!("{name}={genuine}{n}")).collect();
        pairs.join("; ")
    };
    let large = format!("{SESSION}={}", "A".repeat(64 * 1024));
    for cookies in [many(SESSION, 1_000), many(REMEMBER, 1_000), many("x", 1_000), large] {
        let request = format!(
            "GET /username HTTP/1.1\r\nHost: x\r\nCookie: {cookies}\r\nConnection: close\r\n\r\n"
        );
        let response = raw(site.address, request.as_bytes()).await;
        assert!(response.ends_with("Anonymous"), "{response}");
    }
    assert_eq!(site.store.loads(), 0);
}

#[tokio::test]
async fn cookie_fields_that_http_2_has_split_are_all_read() {
    let site = Site::start().await;
    let genuine = site.logged_in("user=notch").await.jar.get(SESSION).unwrap().to_owned();
    let request = format!(
        "GET /username HTTP/1.1\r\nHost: x\r\nCookie: a=b\r\nCookie: {SESSION}={genuine}\r\n\
         Connection: close\r\n\r\n"
    );
    assert!(raw(site.address, request.as_bytes()).await.ends_with("notch"));
}

#[tokio::test]
async fn whoever_looked_at_the_login_varies_and_users_are_never_cached() {
    let site = Site::start_with(|builder| builder.with_login_page("/login").expect("a page")).await;
    let mut nobody = site.browser();
    let mut user = site.logged_in("user=notch").await;
    for (path, by_nobody, by_user) in [
        ("/hello", ("", ""), ("", "")),
        ("/username", ("Cookie", ""), ("Cookie", "no-store")),
        ("/is-remembered", ("Cookie", ""), ("Cookie", "no-store")),
        ("/streamed", ("Cookie", ""), ("Cookie", "no-store")),
        ("/broken", ("Cookie", ""), ("Cookie", "no-store")),
        // The body may still ask who is logged in, when no header can follow.
        ("/asked-late", ("Cookie", "no-store"), ("Cookie", "no-store")),
        ("/cacheable", ("Cookie", "public, max-age=600"), ("Cookie", "no-store")),
        ("/secret", ("Cookie", "no-store"), ("Cookie", "no-store")),
        ("/take-flash", ("Cookie", "no-store"), ("Cookie", "")),
        ("/does-not-exist", ("", ""), ("", "")),
    ] {
        for (browser, expected) in [(&mut nobody, by_nobody), (&mut user, by_user)] {
            let response = browser.get(path).await;
            let headers = (response.header(header::VARY), response.header(header::CACHE_CONTROL));
            assert_eq!((headers.0.as_str(), headers.1.as_str()), expected, "{path}");
        }
    }
    let response = site.browser().get("/login?user=notch").await;
    assert_eq!(response.header(header::CACHE_CONTROL), "no-store");
    assert_eq!(user.get("/logout").await.header(header::CACHE_CONTROL), "no-store");
}

#[tokio::test]
async fn a_route_that_never_asks_costs_no_look_up_and_no_header() {
    let site = Site::start().await;
    let mut user = site.logged_in("user=notch&remember=1").await;
    site.events.take_all();
    let response = user.get("/hello").await;
    assert_eq!((site.store.loads(), response.header(header::VARY).as_str()), (0, ""));
    assert!(site.events.take_all().is_empty());
    user.get("/username").await;
    assert_eq!(site.store.loads(), 1);
    assert_eq!(user.get("/twice").await.text(), "true");
    assert_eq!(site.store.loads(), 1);
    assert_eq!(site.events.take_all(), ["accessed", "accessed"]);
    user.close_browser();
    user.get("/username").await;
    assert_eq!(site.store.loads(), 1);
    site.browser().get("/username").await;
    assert_eq!(site.store.loads(), 0);
}

#[tokio::test]
async fn a_forwarded_address_counts_only_from_a_trusted_peer() {
    for (trusted, same_after_forging) in
        [(&[][..], true), (&["127.0.0.1"], false), (&["10.0.0.0/8"], true)]
    {
        let site = Site::start_with(|builder| {
            builder
                .with_session_protection(SessionProtection::Strong)
                .with_trusted_proxies(trusted.iter().copied())
        })
        .await;
        let mut browser = site.logged_in("user=notch").await;
        browser.set_header("x-forwarded-for".parse().unwrap(), "198.51.100.7");
        let who = browser.get("/username").await.text();
        assert_eq!(who == "notch", same_after_forging, "{trusted:?}");
    }
}

#[tokio::test]
async fn a_tolerant_match_forgives_an_update_and_a_new_lease() {
    for (matching, expected) in [(ClientMatch::Exact, "false"), (ClientMatch::Tolerant, "true")] {
        let site = Site::start_with(|builder| {
            builder.with_client_match(matching).with_trusted_proxies(["127.0.0.1"])
        })
        .await;
        let mut browser = site.browser();
        browser.set_header("x-forwarded-for".parse().unwrap(), "192.0.2.1");
        browser.get("/login?user=notch").await;
        browser.set_header("x-forwarded-for".parse().unwrap(), "192.0.2.2");
        browser.set_header(header::USER_AGENT, "Test/1.1");
        assert_eq!(browser.get("/is-fresh").await.text(), expected);
        browser.get("/login?user=notch").await;
        browser.set_header("x-forwarded-for".parse().unwrap(), "198.51.100.1");
        assert_eq!(browser.get("/is-fresh").await.text(), "false");
    }
}

#[tokio::test]
async fn no_method_and_no_path_goes_round_a_guard() {
    let site = Site::start().await;
    let mut browser = site.browser();
    for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let response = browser.send(method.clone(), "/secret", String::new()).await;
        assert_eq!(response.status, StatusCode::UNAUTHORIZED, "{method}");
    }
    browser.set_header("x-http-method-override".parse().unwrap(), "OPTIONS");
    assert_eq!(
        browser.post("/secret?_method=OPTIONS", &[("_method", "OPTIONS")]).await.status,
        401
    );
    for path in
        ["//secret", "/./secret", "/x/../secret", "/%73ecret", "/secret/", "/secret;x", "/SECRET"]
    {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let response = raw(site.address, request.as_bytes()).await;
        assert!(!response.contains("secret of"), "{path}: {response}");
        assert!(!response.starts_with("HTTP/1.1 200"), "{path}: {response}");
    }
    let site = Site::start_with(|builder| builder.with_options_exempt(true)).await;
    let mut browser = site.browser();
    let response = browser.send(Method::OPTIONS, "/secret", String::new()).await;
    assert_eq!(response.text(), "secret of Anonymous");
    assert_eq!(browser.get("/secret").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn clearing_uses_the_attributes_of_setting() {
    let settings = [
        CookieSettings::new(),
        CookieSettings::new().with_domain_and_subdomains("example.org").with_partitioned(),
        CookieSettings::new().with_path("/logout").insecure_cross_site(),
        CookieSettings::new().insecure_over_http().insecure_readable_by_scripts(),
    ];
    for settings in settings {
        let site = Site::start_with(|builder| {
            builder.with_session_cookie(settings.clone()).with_remember_cookie(settings.clone())
        })
        .await;
        let mut browser = site.browser();
        let set = browser.get("/login?user=notch&remember=1").await.set_cookies();
        let cleared = browser.get("/logout").await.set_cookies();
        assert_eq!((set.len(), cleared.len()), (2, 2));
        for (set, cleared) in set.iter().zip(&cleared) {
            let name = |cookie: &str| cookie.split('=').next().map(str::to_owned);
            assert_eq!(name(set), name(cleared));
            let attributes = |cookie: &str| {
                let parts = cookie.split("; ").skip(1).map(str::to_owned);
                let kept = parts
                    .filter(|part| !part.starts_with("Max-Age") && !part.starts_with("Expires"));
                kept.collect::<Vec<_>>()
            };
            assert_eq!(attributes(set), attributes(cleared));
        }
    }
}

#[tokio::test]
async fn another_areas_cookie_is_refused_even_under_its_own_name() {
    let site = Site::start().await;
    let name = CookieSettings::new().with_name("__Host-same");
    let area = |area: &str| {
        let (area, name) = (area.to_owned(), name.clone());
        site.beside(Keys::new(KEY), |builder| builder.with_area(area).with_session_cookie(name))
    };
    let (public, admin) = (area("").await, area("admin").await);
    let guest = public.logged_in("user=notch").await;
    let mut at_admin = admin.browser();
    at_admin.jar = guest.jar;
    assert_eq!(at_admin.get("/secret").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn layers_with_other_keys_are_strangers() {
    let outer = Site::start().await;
    let inner =
        outer.beside(Keys::new("another key for tests, also long enough"), |builder| builder).await;
    let mut browser = outer.browser();
    browser.jar = inner.logged_in("user=notch").await.jar;
    assert_eq!(browser.get("/secret").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn an_anonymous_crawl_asks_no_store_and_keeps_nothing_but_notices() {
    let site = Site::start_with(|builder| builder.with_login_page("/login").expect("a page")).await;
    let mut crawler = site.browser();
    for path in [
        "/hello",
        "/username",
        "/secret",
        "/sensitive",
        "/notch-only",
        "/is-fresh",
        "/is-remembered",
        "/next",
        "/take-flash",
        "/logout",
        "/confirm",
        "/extracted",
        "/does-not-exist",
        "/twice",
    ] {
        crawler.get(path).await;
    }
    assert_eq!(site.store.loads(), 0);
    assert_eq!(crawler.jar.names(), ["__Host-Http-keep-flash"]);
}

#[tokio::test]
async fn the_connections_own_address_counts_too() {
    let site =
        Site::start_with(|builder| builder.with_session_protection(SessionProtection::Strong))
            .await;
    let genuine = site.logged_in("user=notch").await.jar.get(SESSION).unwrap().to_owned();
    let request = format!(
        "GET /username HTTP/1.1\r\nHost: x\r\nUser-Agent: Test/1.0\r\nCookie: {SESSION}={genuine}\r\n\
         Connection: close\r\n\r\n"
    );
    for (from, who) in [("127.0.0.1", "notch"), ("127.0.0.2", "Anonymous")] {
        let response =
            tower_keep_tests::raw_from(from.parse().unwrap(), site.address, request.as_bytes());
        assert!(response.await.ends_with(who), "{from}");
    }
}

#[tokio::test]
async fn the_default_cookies_are_the_strictest() {
    let site = Site::start().await;
    let cookies = site.browser().get("/login?user=notch&remember=1").await.set_cookies();
    let attributes = "Path=/; Secure; HttpOnly; SameSite=Lax";
    assert!(cookies[0].starts_with("__Host-Http-keep=") && cookies[0].ends_with(attributes));
    assert!(!cookies[0].contains("Max-Age"), "{}", cookies[0]);
    assert!(
        cookies[1].starts_with("__Host-Http-keep-remember=") && cookies[1].ends_with(attributes)
    );
    assert!(cookies[1].contains("; Max-Age=2592000; "), "{}", cookies[1]);
}
