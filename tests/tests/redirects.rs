//! The targets of redirects, the values of `next`, and the flash messages of guards.

use std::collections::HashMap;
use std::time::Duration;

use axum::{Form, Router};
use http::{Method, StatusCode, header};
use tower_keep::{Account, AuthSession, Keys, LoginLayer};
use tower_keep_memory::MemoryStore;
use tower_keep_tests::{Browser, Http, KEY, Serving, Site, send_raw, serve};

async fn site() -> Site {
    Site::start_with(|builder| {
        builder
            .with_login_page("/login")
            .expect("a page")
            .with_confirm_page("/confirm?x=1")
            .expect("a page")
            .with_home_page("/home")
            .expect("a page")
    })
    .await
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        encoded += &format!("%{byte:02X}");
    }
    encoded
}

#[tokio::test]
async fn next_never_leaves_the_site() {
    let site = site().await;
    let mut browser = site.browser();
    let long = format!("/{}", "a".repeat(10_000));
    for next in [
        "//evil",
        "///evil",
        "/\\evil",
        "\\\\evil",
        "http:/\\evil",
        "http:evil",
        "https://host@evil",
        "javascript:alert(1)",
        "/%09//evil",
        "/\t/evil",
        "\u{1}/evil",
        " /evil",
        "/\u{FF0E}\u{FF0E}/evil",
        "http://[::1",
        "/a\r\nSet-Cookie: x=y",
        "/a\nb",
        "/%2Fevil",
        "/..;/evil",
        "/login",
        "/login?next=/login",
        "/logout",
        "/confirm",
        long.as_str(),
        "",
    ] {
        let response = browser.get(&format!("/next?next={}", percent_encoded(next))).await;
        assert_eq!((response.status, response.text().as_str()), (StatusCode::OK, ""), "{next:?}");
        assert!(response.set_cookies().is_empty());
    }
    for next in ["/", "/account?tab=2", "/x?u=https://evil/", "/a%ff", "/@evil"] {
        let response = browser.get(&format!("/next?next={}", percent_encoded(next))).await;
        assert_eq!(response.text(), next);
    }
    // The first `next` counts, and it is decoded once.
    assert_eq!(browser.get("/next?next=/a&next=//evil").await.text(), "/a");
    assert_eq!(browser.get("/next?next=//evil&next=/a").await.text(), "");
    assert_eq!(browser.get("/next?next=%252Fevil").await.text(), "");
    assert_eq!(browser.get("/next?next=%2F%252Fevil").await.text(), "");
    assert_eq!(browser.get("/next?next=%2F%25252Fevil").await.text(), "/%252Fevil");
}

#[tokio::test]
async fn a_redirect_has_a_next_with_the_path_and_the_query_and_nothing_else() {
    let site = site().await;
    let mut browser = site.browser();
    for (target, expected) in [
        ("/secret", "/login?next=%2Fsecret"),
        ("/secret?a=b&c=%C3%A9", "/login?next=%2Fsecret%3Fa%3Db%26c%3D%25C3%25A9"),
        ("/secret?u=//evil", "/login?next=%2Fsecret%3Fu%3D%2F%2Fevil"),
        ("/nested/secret", "/login?next=%2Fnested%2Fsecret"),
    ] {
        let response = browser.get(target).await;
        assert_eq!(
            (response.status, response.location().as_str()),
            (StatusCode::SEE_OTHER, expected)
        );
    }
    let mut not_fresh = site.logged_in("user=notch&fresh=0").await;
    let response = not_fresh.get("/sensitive").await;
    assert_eq!(response.status, StatusCode::SEE_OTHER);
    assert_eq!(response.location(), "/confirm?x=1&next=%2Fsensitive");
}

#[tokio::test]
async fn a_foreign_host_in_the_request_never_gets_into_the_location_header() {
    let site = site().await;
    for request in [
        "GET //evil.example/secret HTTP/1.1\r\nHost: x\r\n",
        "GET http://evil.example/secret HTTP/1.1\r\nHost: x\r\n",
        "GET http://evil.example//secret HTTP/1.1\r\nHost: x\r\n",
        "GET /secret HTTP/1.1\r\nHost: evil.example\r\n",
        "GET /secret HTTP/1.1\r\nHost: x\r\nX-Forwarded-Host: evil.example\r\n",
        "GET /secret HTTP/1.1\r\nHost: x\r\nForwarded: host=evil.example\r\n",
        "GET /secret?x=/../..//evil.example HTTP/1.1\r\nHost: x\r\n",
        "GET /nested//secret HTTP/1.1\r\nHost: x\r\n",
    ] {
        let response =
            send_raw(site.address, format!("{request}Connection: close\r\n\r\n").as_bytes()).await;
        let location = response.lines().find_map(|line| line.strip_prefix("location: "));
        if let Some(location) = location {
            assert!(location.starts_with("/login"), "{request}: {location}");
            assert!(
                !location.contains("next=%2F%2F") && !location.contains("next=http"),
                "{location}"
            );
        }
        assert!(!response.starts_with("HTTP/1.1 5"), "{response}");
    }
}

/// Serves a router with a layer that has a login page. The layer is also given to `router`.
async fn serve_with_layer(router: impl FnOnce(&LoginLayer<Account>) -> Router) -> Serving {
    let auth_layer = LoginLayer::builder(MemoryStore::<Account>::new(), Keys::new(KEY))
        .with_login_page("/login")
        .expect("a page")
        .build()
        .expect("settings that agree");
    let router = router(&auth_layer);
    serve(auth_layer.layer(router)).await
}

// The guard is around the whole router, so it rejects these targets although no route has them.
#[tokio::test]
async fn a_request_target_that_names_another_host_makes_no_next_that_leaves_the_site() {
    let serving = serve_with_layer(|auth_layer| {
        Router::new().fallback(|| async { "secret" }).layer(auth_layer.require_login())
    })
    .await;
    for (target, expected) in [
        ("/p", "/login?next=%2Fp"),
        ("http://evil.example/p", "/login?next=%2Fp"),
        ("//evil.example/p", "/login"),
        ("///evil.example/p", "/login"),
        ("http://evil.example//p", "/login"),
    ] {
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: x\r\nAccept: text/html\r\nConnection: close\r\n\r\n"
        );
        let response = send_raw(serving.address, request.as_bytes()).await;
        let location = response.lines().find_map(|line| line.strip_prefix("location: "));
        assert_eq!(location, Some(expected), "{target}");
    }
}

#[tokio::test]
async fn a_next_in_the_form_takes_precedence_over_one_in_the_query() {
    let next = async |auth: AuthSession<Account>, Form(form): Form<HashMap<String, String>>| {
        let next = auth.next_from_form(form.get("next").map(String::as_str));
        next.map(|target| target.to_string()).unwrap_or_default()
    };
    let serving = serve_with_layer(|_| Router::new().route("/", axum::routing::post(next))).await;
    let mut browser = Browser::new(Http::to(serving.address));
    for (query, form, expected) in [
        ("/?next=/query", &[("next", "/form")][..], "/form"),
        ("/?next=/query", &[("next", "//evil")], ""),
        ("/?next=/query", &[], "/query"),
        ("/?next=//evil", &[("next", "/form")], "/form"),
    ] {
        assert_eq!(browser.post(query, form).await.text(), expected, "{query} {form:?}");
    }
}

#[tokio::test]
async fn a_rejected_request_that_is_not_get_or_head_is_redirected_with_303_and_without_next() {
    let site = site().await;
    let mut browser = site.browser();
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
        let response = browser.send(method, "/secret", String::new()).await;
        assert_eq!(
            (response.status, response.location().as_str()),
            (StatusCode::SEE_OTHER, "/login")
        );
    }
    let response = browser.send(Method::HEAD, "/secret", String::new()).await;
    assert_eq!(response.location(), "/login?next=%2Fsecret");
}

#[tokio::test]
async fn without_a_login_page_the_response_is_401_with_the_loaders_challenges() {
    use tower_keep::loader::{ApiKey, Basic, Bearer};
    let find_none = || async { Ok(None) };
    let site = Site::start_with(|builder| {
        builder
            .with_request_loader(Bearer::new(move |_| find_none()))
            .with_request_loader(Basic::new(move |_, _| find_none()).with_realm("members"))
            .with_request_loader(ApiKey::new("x-api-key".parse().unwrap(), move |_| find_none()))
    })
    .await;
    let response = site.browser().get("/secret").await;
    assert_eq!(response.status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        response.header("www-authenticate"),
        r#"Bearer, Basic realm="members", charset="UTF-8""#
    );
    assert_eq!(response.location(), "");
    assert_eq!(
        response.header(header::VARY),
        "Cookie, Accept, HX-Request, HX-History-Restore-Request, Sec-Fetch-Mode, Sec-Fetch-Dest, authorization, x-api-key"
    );
}

#[tokio::test]
async fn next_in_a_cookie_is_read_once_and_outlasts_the_flash_message() {
    let site = Site::start_with(|builder| {
        builder.with_login_page("/login").expect("a page").with_next_in_cookie(true)
    })
    .await;
    let mut browser = site.browser();
    assert_eq!(browser.get("/secret?a=b").await.location(), "/login");
    assert_eq!(
        browser.get("/take-flash").await.text(),
        "LoginRequired message Please log in to see this page."
    );
    assert_eq!(browser.get("/take-flash").await.text(), "");
    assert_eq!(browser.get("/next").await.text(), "/secret?a=b");
    assert_eq!(browser.get("/next").await.text(), "");
    assert!(browser.jar.names().is_empty());
    // The cookie with `next` is valid for ten minutes by the server's clock, even if the browser
    // keeps it for longer.
    browser.get("/secret").await;
    browser.jar.ignore_expiry();
    site.advance(599);
    assert_eq!(browser.clone().get("/next").await.text(), "/secret");
    site.advance(1);
    assert_eq!(browser.get("/next").await.text(), "");
}

#[tokio::test]
async fn only_the_navigation_of_a_tab_sets_a_next_and_a_flash_message() {
    let site = Site::start_with(|builder| {
        builder.with_login_page("/login").expect("a page").with_next_in_cookie(true)
    })
    .await;
    let mut browser = site.browser();
    assert_eq!(browser.get("/secret?tab=2").await.location(), "/login");
    let kept = browser.jar.get("__Host-Http-keep-flash").map(str::to_owned);
    let header_name = |name: &'static str| name.parse::<header::HeaderName>().unwrap();
    for (name, value, location) in [
        ("sec-fetch-mode", "no-cors", ""),
        ("sec-fetch-mode", "cors", ""),
        ("sec-purpose", "prefetch;prerender", "/login"),
        ("accept", "*/*", ""),
        ("accept", "application/json", ""),
    ] {
        let mut other = browser.clone();
        other.set_header(header_name(name), value);
        let response = other.get("/secret?other=1").await;
        assert_eq!(
            (response.location().as_str(), response.set_cookies().len()),
            (location, 0),
            "{value}"
        );
    }
    let response = browser.send(Method::HEAD, "/secret?other=1", String::new()).await;
    assert!(response.set_cookies().is_empty());
    assert_eq!(browser.jar.get("__Host-Http-keep-flash").map(str::to_owned), kept);
    assert_eq!(browser.get("/next").await.text(), "/secret?tab=2");
    // With `with_pages_for_every_client`, every client gets a `next` and a flash message, as in
    // Flask-Login.
    let site = Site::start_with(|builder| {
        builder
            .with_login_page("/login")
            .expect("a page")
            .with_next_in_cookie(true)
            .with_pages_for_every_client(true)
    })
    .await;
    let mut api_client = site.browser();
    api_client.set_header(header::ACCEPT, "*/*");
    api_client.get("/secret?other=1").await;
    assert_eq!(api_client.get("/next").await.text(), "/secret?other=1");
}

#[tokio::test]
async fn a_login_or_confirmation_drops_the_flash_message_that_asks_for_it() {
    for next_in_cookie in [false, true] {
        let site = Site::start_with(|builder| {
            let builder = builder
                .with_login_page("/login")
                .expect("a page")
                .with_confirm_page("/confirm")
                .expect("a page");
            builder.with_next_in_cookie(next_in_cookie)
        })
        .await;
        let mut browser = site.browser();
        browser.get("/secret").await;
        assert!(browser.get("/take-flash").await.text().starts_with("LoginRequired"));
        // While the login page is open, a guard rejects a request of another tab.
        browser.get("/secret").await;
        browser.get("/login?user=notch&fresh=0").await;
        assert_eq!(browser.get("/take-flash").await.text(), "");
        browser.get("/sensitive").await;
        browser.get("/confirm").await;
        assert_eq!(browser.get("/take-flash").await.text(), "");
        // A flash message that the application has set is not lost.
        browser.get("/flash").await;
        browser.get("/login?user=notch").await;
        assert_eq!(browser.get("/take-flash").await.text(), "Application success Well done.");
    }
}

#[tokio::test]
async fn a_redirect_with_its_cookies_fits_into_the_buffers_of_a_proxy() {
    const BUFFER: usize = 3 * 1_024;
    let long = "x".repeat(256);
    for next_in_cookie in [false, true] {
        let site = Site::start_with(|builder| {
            let message =
                tower_keep::flash::Message::from(long.clone()).with_category(long.clone());
            builder
                .with_login_page("/login")
                .expect("a page")
                .with_confirm_page("/confirm")
                .expect("a page")
                .with_login_message(message.clone())
                .with_confirm_message(message)
                .with_next_in_cookie(next_in_cookie)
                .with_idle_limit(Duration::from_secs(10))
                .with_remember_refresh(true)
        })
        .await;
        let visitor = site.browser();
        let user = site.logged_in("user=notch&remember=1&fresh=0").await;
        for (mut browser, path, page) in
            [(visitor, "/secret", "/login"), (user, "/sensitive", "/confirm")]
        {
            for length in [0, 300, 332, 333, 505, 600, 1_010, 1_020, 1_900] {
                for byte in ["a", "="] {
                    site.advance(2);
                    let response = browser.get(&format!("{path}?{}", byte.repeat(length))).await;
                    assert!(response.location().starts_with(page), "{}", response.location());
                    let cookies = response.set_cookies();
                    let sent =
                        response.location().len() + cookies.iter().map(String::len).sum::<usize>();
                    assert!(sent <= BUFFER, "{sent} bytes for a query of {length}");
                    let held: usize = browser
                        .jar
                        .names()
                        .iter()
                        .map(|name| name.len() + browser.jar.get(name).map_or(0, str::len) + 3)
                        .sum();
                    assert!(held <= 2 * BUFFER, "{held} bytes of cookies");
                }
            }
        }
        let response = site.browser().get(&format!("/secret?{}", "=".repeat(1_900))).await;
        assert_eq!(response.location(), "/login", "a `next` that is too long is left out");
    }
}

#[tokio::test]
async fn a_flash_message_is_read_once_and_cannot_be_forged() {
    let site = site().await;
    let mut browser = site.logged_in("user=notch&fresh=0").await;
    browser.get("/sensitive").await;
    assert_eq!(
        browser.get("/take-flash").await.text(),
        "ConfirmRequired message Please confirm that it is you."
    );
    assert_eq!(browser.get("/take-flash").await.text(), "");
    assert_eq!(browser.get("/flash").await.text(), "set");
    assert_eq!(browser.get("/take-flash").await.text(), "Application success Well done.");
    let mut forger = site.browser();
    browser.get("/flash").await;
    let value = browser.jar.get("__Host-Http-keep-flash").unwrap().to_owned();
    for forged in [value.to_uppercase(), value[1..].to_owned(), String::new()] {
        forger.jar.insert("__Host-Http-keep-flash", &forged);
        assert_eq!(forger.get("/take-flash").await.text(), "");
    }
}

#[tokio::test]
async fn a_flash_message_can_depend_on_the_request_or_be_left_out() {
    use tower_keep::flash::Message;
    let translated = Message::per_request(|request| {
        let language = request.headers.get(header::ACCEPT_LANGUAGE);
        if language.is_some_and(|language| language == "de") {
            "ä".repeat(200)
        } else {
            "Hello".to_owned()
        }
    });
    let site = Site::start_with(|builder| {
        builder
            .with_login_page("/login")
            .expect("a page")
            .with_login_message(translated.with_category("warning"))
    })
    .await;
    let message_for = async |language: &str| {
        let mut browser: Browser = site.browser();
        browser.set_header(header::ACCEPT_LANGUAGE, language);
        browser.get("/secret").await;
        browser.get("/take-flash").await.text()
    };
    assert_eq!(message_for("en").await, "LoginRequired warning Hello");
    assert_eq!(message_for("de").await, format!("LoginRequired warning {}", "ä".repeat(128)));
    let site = Site::start_with(|builder| {
        builder.with_login_page("/login").expect("a page").with_messages(false)
    })
    .await;
    let response = site.browser().get("/secret").await;
    assert_eq!(response.location(), "/login?next=%2Fsecret");
    assert!(response.set_cookies().is_empty());
}

#[tokio::test]
async fn a_login_page_on_another_site_gets_an_absolute_next_only_with_a_public_origin() {
    for (origin, expected) in [
        (None, "https://id.example/in?next=%2Fsecret"),
        (
            Some("https://site.example"),
            "https://id.example/in?next=https%3A%2F%2Fsite.example%2Fsecret",
        ),
        (Some("https://id.example"), "https://id.example/in?next=%2Fsecret"),
    ] {
        let site = Site::start_with(|builder| {
            let builder = builder.with_login_page("https://id.example/in").expect("a page");
            match origin {
                Some(origin) => builder.with_public_origin(origin),
                None => builder,
            }
        })
        .await;
        assert_eq!(site.browser().get("/secret").await.location(), expected);
    }
}

#[tokio::test]
async fn the_query_field_of_next_can_be_renamed() {
    let site = Site::start_with(|builder| {
        builder.with_login_page("/login").expect("a page").with_next_field("to")
    })
    .await;
    let mut browser = site.browser();
    assert_eq!(browser.get("/secret").await.location(), "/login?to=%2Fsecret");
    assert_eq!(browser.get("/next?to=/secret&next=/other").await.text(), "/secret");
}

#[tokio::test]
async fn handlers_can_build_the_urls_of_the_redirects() {
    let site = site().await;
    let mut browser = site.browser();
    assert_eq!(
        browser.get("/urls?a").await.text(),
        r#"Some("/login?next=%2Furls%3Fa") Some("/confirm?x=1&next=%2Furls%3Fa") Some(127.0.0.1)"#
    );
    assert_eq!(browser.get("/next-or-home").await.text(), "/home");
    assert_eq!(browser.get("/next-or-home?next=/x").await.text(), "/x");
    assert_eq!(browser.get("/next-or-home?next=//x").await.text(), "/home");
}

#[tokio::test]
async fn next_never_leads_to_a_page_that_changes_the_login() {
    let site = Site::start_with(|builder| {
        builder
            .with_login_page("/in")
            .expect("a page")
            .with_confirm_page("/again")
            .expect("a page")
            .with_logout_page("/out")
            .expect("a page")
            .with_never_next("/admin/login")
            .expect("a page")
    })
    .await;
    let mut browser = site.browser();
    for path in ["/in", "/again", "/out", "/out?x", "/%6Fut", "/admin/login", "/admin/login?next=/"]
    {
        assert_eq!(
            browser.get(&format!("/next?next={}", percent_encoded(path))).await.text(),
            "",
            "{path}"
        );
    }
    assert_eq!(browser.get("/next?next=/logout").await.text(), "/logout");
}
