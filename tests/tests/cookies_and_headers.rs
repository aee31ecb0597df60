//! Cookies and headers, tested only through HTTP.

use http::{Method, StatusCode, header};
use tower_keep::Keys;
use tower_keep::client::{ClientMatch, SessionProtection};
use tower_keep::cookie::CookieSettings;
use tower_keep_tests::{KEY, Site, WatchedStoreExt, send_raw};

const SESSION: &str = "__Host-Http-keep";
const REMEMBER: &str = "__Host-Http-keep-remember";

#[tokio::test]
async fn a_changed_or_truncated_cookie_is_rejected_without_an_error() {
    let site = Site::start().await;
    let genuine = site.logged_in("user=notch&remember=1").await.jar;
    for name in [SESSION, REMEMBER] {
        let value = genuine.get(name).unwrap();
        let mut browser = site.browser();
        for position in 0..value.len() {
            let letter = if &value[position..=position] == "x" { "y" } else { "x" };
            let changed = format!("{}{letter}{}", &value[..position], &value[position + 1..]);
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
async fn a_cookie_is_valid_only_for_its_own_purpose_and_under_its_own_name() {
    let site = Site::start_with(|builder| builder.with_login_page("/login").expect("a page")).await;
    let mut browser = site.logged_in("user=notch&remember=1").await;
    browser.get("/flash").await;
    let names = [SESSION, REMEMBER, "__Host-Http-keep-flash"];
    let values = names.map(|name| browser.jar.get(name).unwrap().to_owned());
    for (index, name) in names.iter().enumerate() {
        for (other, value) in values.iter().enumerate() {
            let mut thief = site.browser();
            thief.jar.insert(name, value);
            let user = thief.get("/username").await.text();
            // The flash cookie, which is the last one, logs nobody in.
            let expected = if index == other && index < 2 { "notch" } else { "Anonymous" };
            assert_eq!(user, expected, "{name}");
        }
    }
    let renamed = site
        .start_another(Keys::new(KEY), |builder| {
            builder.with_session_cookie(CookieSettings::new().with_name("__Host-other"))
        })
        .await;
    let mut thief = renamed.browser();
    thief.jar.insert("__Host-other", &values[0]);
    assert_eq!(thief.get("/username").await.text(), "Anonymous");
}

// One user's cookie must not become another user's by an exchange of bytes (CVE-2019-10911).
#[tokio::test]
async fn a_cookie_made_of_parts_of_two_cookies_is_rejected() {
    use base64::Engine;
    let base64 = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let site = Site::start().await;
    let notch = site.logged_in("user=notch&remember=1").await.jar;
    let steve = site.logged_in("user=steve&remember=1").await.jar;
    for name in [SESSION, REMEMBER] {
        let [ours, theirs] =
            [&notch, &steve].map(|jar| base64.decode(jar.get(name).unwrap()).unwrap());
        assert_eq!(ours.len(), theirs.len());
        // The first bytes are from one cookie, and the others are from the other cookie. This
        // includes the body of one cookie with the tag of the other.
        for cut in 1..ours.len() {
            let joined = [&ours[..cut], &theirs[cut..]].concat();
            if joined == ours || joined == theirs {
                continue;
            }
            let mut browser = site.browser();
            browser.jar.insert(name, &base64.encode(&joined));
            assert_eq!(browser.get("/username").await.text(), "Anonymous", "{name} at {cut}");
        }
        // A byte moves across the border of two fields.
        for position in 1..ours.len() {
            let mut moved = ours.clone();
            moved.swap(position - 1, position);
            if moved == ours {
                continue;
            }
            let mut browser = site.browser();
            browser.jar.insert(name, &base64.encode(&moved));
            assert_eq!(browser.get("/username").await.text(), "Anonymous", "{name} at {position}");
        }
    }
}

// If the texts were joined without their lengths, both sites would derive the same key
// (CVE-2026-6873).
#[tokio::test]
async fn a_cookie_is_rejected_if_only_the_joined_area_and_name_are_equal() {
    let site = Site::start().await;
    let site_named = |area: &str, name: &str| {
        let (area, cookie) = (area.to_owned(), CookieSettings::new().with_name(name.to_owned()));
        site.start_another(Keys::new(KEY), |builder| {
            builder.with_area(area).with_session_cookie(cookie)
        })
    };
    let (one, other) = (site_named("shop", "admin").await, site_named("shopad", "min").await);
    let value = one.logged_in("user=notch").await.jar.get("admin").unwrap().to_owned();
    for (site, name, user) in [(&one, "admin", "notch"), (&other, "min", "Anonymous")] {
        let mut browser = site.browser();
        browser.jar.insert(name, &value);
        assert_eq!(browser.get("/username").await.text(), user, "{name}");
    }
}

#[tokio::test]
async fn the_order_of_two_cookies_with_the_same_name_makes_no_difference() {
    let site = Site::start().await;
    let session_of = |jar: &tower_keep_testkit::client::Jar| jar.get(SESSION).unwrap().to_owned();
    let notch = session_of(&site.logged_in("user=notch").await.jar);
    let steve = session_of(&site.logged_in("user=steve").await.jar);
    site.advance(10);
    let later = session_of(&site.logged_in("user=notch&fresh=0").await.jar);
    let text_of = async |path: &str, first: &str, second: &str, name: &str| {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nUser-Agent: Test/1.0\r\n\
             Cookie: {SESSION}={first}; {name}={second}\r\nConnection: close\r\n\r\n"
        );
        let response = send_raw(site.address, request.as_bytes()).await;
        response.lines().last().unwrap_or_default().to_owned()
    };
    for (one, other, user) in [
        (&notch, &steve, "Anonymous"),
        (&notch, &notch, "notch"),
        (&notch, &later, "notch"),
        (&notch, &"garbage".to_owned(), "notch"),
    ] {
        assert_eq!(text_of("/username", one, other, SESSION).await, user);
        assert_eq!(text_of("/username", other, one, SESSION).await, user);
    }
    // Of two cookies from the same second, the same one counts in both orders.
    let stale = session_of(&site.logged_in("user=notch&fresh=0").await.jar);
    let fresh = session_of(&site.logged_in("user=notch").await.jar);
    let is_fresh = text_of("/is-fresh", &stale, &fresh, SESSION).await;
    assert_eq!(is_fresh, text_of("/is-fresh", &fresh, &stale, SESSION).await);
    // Of two cookies from different seconds, the later one counts in both orders.
    assert_eq!(text_of("/is-fresh", &notch, &later, SESSION).await, "false");
    assert_eq!(text_of("/is-fresh", &later, &notch, SESSION).await, "false");
    // A sibling domain can plant a cookie with any name that does not begin with `__Host-`.
    for planted in ["keep", "__Secure-keep", "__host-keep", "__HOST-KEEP", "__Host-Http-keep "] {
        assert_eq!(text_of("/username", &notch, &steve, planted).await, "notch", "{planted}");
    }
}

#[tokio::test]
async fn a_thousand_invalid_cookies_cause_no_lookup() {
    let site = Site::start().await;
    let genuine = site.logged_in("user=notch").await.jar.get(SESSION).unwrap().to_owned();
    site.store.take_load_count();
    let cookies_named = |name: &str, count: usize| {
        let pairs: Vec<String> = (0..count).map(|n| format!("{name}={genuine}{n}")).collect();
        pairs.join("; ")
    };
    let large = format!("{SESSION}={}", "A".repeat(64 * 1024));
    for cookies in [
        cookies_named(SESSION, 1_000),
        cookies_named(REMEMBER, 1_000),
        cookies_named("x", 1_000),
        large,
    ] {
        let request = format!(
            "GET /username HTTP/1.1\r\nHost: x\r\nCookie: {cookies}\r\nConnection: close\r\n\r\n"
        );
        let response = send_raw(site.address, request.as_bytes()).await;
        assert!(response.ends_with("Anonymous"), "{response}");
    }
    assert_eq!(site.store.take_load_count(), 0);
}

// HTTP/2 clients may split the header `Cookie` into several (RFC 9113, section 8.2.3).
#[tokio::test]
async fn a_cookie_in_a_second_cookie_header_is_read() {
    let site = Site::start().await;
    let genuine = site.logged_in("user=notch").await.jar.get(SESSION).unwrap().to_owned();
    let request = format!(
        "GET /username HTTP/1.1\r\nHost: x\r\nCookie: a=b\r\nCookie: {SESSION}={genuine}\r\n\
         Connection: close\r\n\r\n"
    );
    assert!(send_raw(site.address, request.as_bytes()).await.ends_with("notch"));
}

#[tokio::test]
async fn a_response_that_depends_on_the_login_varies_and_is_not_cached_for_users() {
    let site = Site::start_with(|builder| builder.with_login_page("/login").expect("a page")).await;
    let mut nobody = site.browser();
    let mut user = site.logged_in("user=notch").await;
    const VARY_OF_REJECTION: &str =
        "Cookie, Accept, HX-Request, HX-History-Restore-Request, Sec-Fetch-Mode, Sec-Fetch-Dest";
    // For each path: `Vary` and `Cache-Control` for an anonymous visitor, and for a user.
    for (path, for_nobody, for_user) in [
        ("/hello", ("", ""), ("", "")),
        ("/username", ("Cookie", ""), ("Cookie", "no-store")),
        ("/is-remembered", ("Cookie", ""), ("Cookie", "no-store")),
        ("/streamed", ("Cookie", ""), ("Cookie", "no-store")),
        ("/broken", ("Cookie", ""), ("Cookie", "no-store")),
        // The body may ask for the user after the headers were sent.
        ("/asked-late", ("Cookie", "no-store"), ("Cookie", "no-store")),
        ("/cacheable", ("Cookie", "public, max-age=600"), ("Cookie", "no-store")),
        ("/secret", (VARY_OF_REJECTION, "no-store"), ("Cookie", "no-store")),
        ("/take-flash", ("Cookie", "no-store"), ("Cookie", "")),
        ("/does-not-exist", ("", ""), ("", "")),
    ] {
        for (browser, expected) in [(&mut nobody, for_nobody), (&mut user, for_user)] {
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
async fn a_route_that_never_asks_for_the_user_causes_no_lookup_and_no_header() {
    let site = Site::start().await;
    let mut user = site.logged_in("user=notch&remember=1").await;
    site.events.take_all();
    let response = user.get("/hello").await;
    assert_eq!((site.store.take_load_count(), response.header(header::VARY).as_str()), (0, ""));
    assert!(site.events.take_all().is_empty());
    user.get("/username").await;
    assert_eq!(site.store.take_load_count(), 1);
    assert_eq!(user.get("/twice").await.text(), "true");
    assert_eq!(site.store.take_load_count(), 1);
    assert_eq!(site.events.take_all(), ["accessed", "accessed"]);
    user.close_browser();
    user.get("/username").await;
    assert_eq!(site.store.take_load_count(), 1);
    site.browser().get("/username").await;
    assert_eq!(site.store.take_load_count(), 0);
}

#[tokio::test]
async fn a_forwarded_address_counts_only_if_a_trusted_proxy_sends_it() {
    for (trusted, is_logged_in) in
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
        let user = browser.get("/username").await.text();
        assert_eq!(user == "notch", is_logged_in, "{trusted:?}");
    }
}

#[tokio::test]
async fn a_tolerant_match_accepts_a_browser_update_and_an_address_nearby() {
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
async fn no_method_and_no_spelling_of_a_path_bypasses_a_guard() {
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
        let response = send_raw(site.address, request.as_bytes()).await;
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
async fn a_cookie_is_cleared_with_the_attributes_that_it_was_set_with() {
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
            let name_of = |cookie: &str| cookie.split('=').next().map(str::to_owned);
            assert_eq!(name_of(set), name_of(cleared));
            let attributes_of = |cookie: &str| {
                let attributes = cookie.split("; ").skip(1).map(str::to_owned);
                let without_expiry = attributes
                    .filter(|part| !part.starts_with("Max-Age") && !part.starts_with("Expires"));
                without_expiry.collect::<Vec<_>>()
            };
            assert_eq!(attributes_of(set), attributes_of(cleared));
        }
    }
}

#[tokio::test]
async fn a_cookie_of_another_area_is_rejected_even_if_it_has_the_same_name() {
    let site = Site::start().await;
    let name = CookieSettings::new().with_name("__Host-same");
    let site_of_area = |area: &str| {
        let (area, name) = (area.to_owned(), name.clone());
        site.start_another(Keys::new(KEY), |builder| {
            builder.with_area(area).with_session_cookie(name)
        })
    };
    let (public, admin) = (site_of_area("").await, site_of_area("admin").await);
    let on_public = public.logged_in("user=notch").await;
    let mut on_admin = admin.browser();
    on_admin.jar = on_public.jar;
    assert_eq!(on_admin.get("/secret").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_layer_with_other_keys_rejects_the_cookies() {
    let site = Site::start().await;
    let other_keys = Keys::new("another key for tests, also long enough");
    let other_site = site.start_another(other_keys, |builder| builder).await;
    let mut browser = site.browser();
    browser.jar = other_site.logged_in("user=notch").await.jar;
    assert_eq!(browser.get("/secret").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn anonymous_requests_call_no_store_and_set_only_the_flash_cookie() {
    let site = Site::start_with(|builder| builder.with_login_page("/login").expect("a page")).await;
    let mut nobody = site.browser();
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
        nobody.get(path).await;
    }
    assert_eq!(site.store.take_load_count(), 0);
    assert_eq!(nobody.jar.names(), ["__Host-Http-keep-flash"]);
}

#[tokio::test]
async fn strong_protection_compares_the_address_of_the_connection() {
    let site =
        Site::start_with(|builder| builder.with_session_protection(SessionProtection::Strong))
            .await;
    let genuine = site.logged_in("user=notch").await.jar.get(SESSION).unwrap().to_owned();
    let request = format!(
        "GET /username HTTP/1.1\r\nHost: x\r\nUser-Agent: Test/1.0\r\nCookie: {SESSION}={genuine}\r\n\
         Connection: close\r\n\r\n"
    );
    for (from, user) in [("127.0.0.1", "notch"), ("127.0.0.2", "Anonymous")] {
        let response = tower_keep_tests::send_raw_from(
            from.parse().unwrap(),
            site.address,
            request.as_bytes(),
        );
        assert!(response.await.ends_with(user), "{from}");
    }
}

#[tokio::test]
async fn the_default_cookies_have_the_strictest_attributes() {
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
