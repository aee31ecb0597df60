//! Clients of plain HTTP: hyper with HTTP/1.1 and HTTP/2, and reqwest.

use std::net::SocketAddr;

use axum::body::Body;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower_keep_tests::Site;

use crate::cases::{CASES, Case, begin, finish, start_site, start_site_with};

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
const VARY: &str =
    "Cookie, Accept, HX-Request, HX-History-Restore-Request, Sec-Fetch-Mode, Sec-Fetch-Dest";

/// What a client must get, apart from the status.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    /// The status of gRPC, without a body.
    Grpc,
    /// `application/problem+json`.
    Problem,
    /// A page or, in two of the cases, a redirect to one.
    Page,
    /// A page, but the redirect has no `next`, because the user can't return to the request.
    PageWithoutNext,
    /// A paragraph for a part of a page, and in two of the cases `HX-Redirect`.
    Htmx,
    /// The same, and `next` is the target of the request.
    BoostedHtmx,
}

type Headers = &'static [(&'static str, &'static str)];

/// A client: its name, its method, the headers by which it is known, and what it must get.
const CLIENTS: [(&str, Method, Headers, Form); 19] = [
    ("curl", Method::GET, &[("accept", "*/*")], Form::Problem),
    ("a client without Accept", Method::GET, &[], Form::Problem),
    ("an API client", Method::POST, &[("accept", "application/json")], Form::Problem),
    ("DELETE", Method::DELETE, &[("accept", "*/*")], Form::Problem),
    ("a browser without Fetch metadata", Method::GET, &[("accept", BROWSER)], Form::Page),
    (
        "a navigation",
        Method::GET,
        &[
            ("accept", BROWSER),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
            ("sec-fetch-site", "none"),
        ],
        Form::Page,
    ),
    (
        "a form",
        Method::POST,
        &[("accept", BROWSER), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")],
        Form::PageWithoutNext,
    ),
    (
        "an iframe",
        Method::GET,
        &[("accept", BROWSER), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")],
        Form::Page,
    ),
    (
        "fetch",
        Method::GET,
        &[("accept", "*/*"), ("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty")],
        Form::Problem,
    ),
    (
        "fetch that asks for HTML",
        Method::GET,
        &[("accept", "text/html"), ("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty")],
        Form::Problem,
    ),
    (
        "an image",
        Method::GET,
        &[("accept", "image/*"), ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")],
        Form::Problem,
    ),
    (
        "EventSource",
        Method::GET,
        &[("accept", "text/event-stream"), ("sec-fetch-mode", "cors")],
        Form::Problem,
    ),
    ("an upgrade", Method::GET, &[("upgrade", "websocket"), ("accept", BROWSER)], Form::Problem),
    ("htmx", Method::GET, &[("hx-request", "true"), ("accept", "*/*")], Form::Htmx),
    ("a form of htmx", Method::POST, &[("hx-request", "true"), ("accept", "*/*")], Form::Htmx),
    (
        "a boosted link of htmx",
        Method::GET,
        &[("hx-request", "true"), ("hx-boosted", "true")],
        Form::BoostedHtmx,
    ),
    (
        "history of htmx",
        Method::GET,
        &[("hx-request", "true"), ("hx-history-restore-request", "true")],
        Form::Page,
    ),
    ("gRPC", Method::POST, &[("content-type", "application/grpc+proto")], Form::Grpc),
    ("gRPC-Web", Method::POST, &[("content-type", "application/grpc-web-text")], Form::Grpc),
];

struct Received {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Received {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap_or_default())
    }
}

/// Sends a request with hyper.
async fn send(
    site: &Site,
    is_http2: bool,
    method: &Method,
    path: &str,
    headers: &[(&str, &str)],
) -> Received {
    send_to(site.address, is_http2, method, path, headers).await
}

async fn send_to(
    server: SocketAddr,
    is_http2: bool,
    method: &Method,
    path: &str,
    headers: &[(&str, &str)],
) -> Received {
    let client = Client::builder(TokioExecutor::new()).http2_only(is_http2).build_http();
    let mut request = Request::builder().method(method).uri(format!("http://{server}{path}"));
    for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty()).expect("a request");
    let response = client.request(request).await.expect("a response");
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    let body = String::from_utf8_lossy(&body).into_owned();
    Received { status: head.status, headers: head.headers, body }
}

/// Checks one cell of the table. `is_head` says that the body must be missing.
fn check(case: Case, form: Form, path: &str, content_type: &str, got: &Received, is_head: bool) {
    assert_eq!(got.header("cache-control"), "no-store");
    if form == Form::Grpc {
        let grpc_status = match case {
            Case::NotLoggedIn | Case::NotFresh => "16",
            Case::Forbidden => "7",
            Case::StoreFailed => "14",
        };
        assert_eq!((got.status, got.header("grpc-status")), (StatusCode::OK, grpc_status));
        assert_eq!((got.header("content-type"), got.body.as_str()), (content_type, ""));
        let message = got.header("grpc-message");
        assert_eq!(message.contains("re-authenticate"), case == Case::NotFresh, "{message}");
        return;
    }
    assert_eq!(got.header("vary"), VARY);
    assert_eq!(got.header("retry-after") == "1", case == Case::StoreFailed);
    let next = path.replace('/', "%2F");
    let redirect = |next: &str| match (case.page(), next) {
        (None, _) => String::new(),
        (Some(page), "") => page.to_owned(),
        (Some(page), next) => format!("{page}?next={next}"),
    };
    let (location, hx_redirect) = match form {
        Form::Page => (redirect(&next), String::new()),
        Form::PageWithoutNext => (redirect(""), String::new()),
        Form::Htmx => (String::new(), redirect("%2Fboard%3Ftab%3D2")),
        Form::BoostedHtmx => (String::new(), redirect(&next)),
        Form::Problem | Form::Grpc => (String::new(), String::new()),
    };
    assert_eq!((got.header("location"), got.header("hx-redirect")), (&*location, &*hx_redirect));
    let status = if location.is_empty() { case.status() } else { StatusCode::SEE_OTHER };
    assert_eq!(got.status, status);
    let challenge = match (status, case) {
        (StatusCode::UNAUTHORIZED, Case::NotFresh) => {
            r#"Session realm="site", error="insufficient_user_authentication", max_age="600""#
        }
        (StatusCode::UNAUTHORIZED, _) => r#"Session realm="site""#,
        _ => "",
    };
    assert_eq!(got.header("www-authenticate"), challenge);
    if is_head {
        assert_eq!(got.body, "");
        assert_ne!(got.header("content-length"), "0");
        return;
    }
    match form {
        Form::Problem => {
            assert_eq!(got.header("content-type"), "application/problem+json");
            let problem: serde_json::Value = serde_json::from_str(&got.body).expect("JSON");
            assert_eq!(problem["type"], case.problem());
            assert_eq!(problem["status"], case.status().as_u16());
            let max_age = if case == Case::NotFresh { 600.into() } else { serde_json::Value::Null };
            assert_eq!(problem["max_age"], max_age);
        }
        Form::Htmx | Form::BoostedHtmx => {
            assert_eq!(got.header("content-type"), "text/html; charset=utf-8");
            assert!(got.body.starts_with("<p>"), "{}", got.body);
        }
        Form::Page | Form::PageWithoutNext if location.is_empty() => {
            assert_eq!(got.header("content-type"), "text/html; charset=utf-8");
            assert!(got.body.starts_with("<!doctype html>"), "{}", got.body);
            assert!(got.body.contains(&format!("<h1>{}</h1>", case.status())), "{}", got.body);
        }
        Form::Page | Form::PageWithoutNext | Form::Grpc => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_client_gets_its_form_in_every_case_over_http_1_and_2() {
    let site = start_site().await;
    let current_url = format!("http://{}/board?tab=2#top", site.address);
    for case in CASES {
        let cookies = begin(case, &site).await;
        for (client, method, known_by, form) in &CLIENTS {
            for path in case.paths() {
                for is_http2 in [false, true] {
                    let is_upgrade = known_by.iter().any(|(name, _)| *name == "upgrade");
                    if is_http2 && is_upgrade {
                        // HTTP/2 has no such header.
                        continue;
                    }
                    println!("{client}: {method} {path}, {case:?}, HTTP/2: {is_http2}");
                    let mut headers = known_by.to_vec();
                    headers.push(("cookie", &cookies));
                    headers.push(("hx-current-url", &current_url));
                    let got = send(&site, is_http2, method, path, &headers).await;
                    let content_type = known_by.iter().find(|(name, _)| *name == "content-type");
                    let content_type = content_type.map_or("", |(_, value)| value);
                    check(case, *form, path, content_type, &got, false);
                    if method == Method::GET {
                        let got = send(&site, is_http2, &Method::HEAD, path, &headers).await;
                        check(case, *form, path, content_type, &got, true);
                    }
                }
            }
        }
        finish(&site);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reqwest_gets_problems_and_with_html_in_accept_redirects() {
    let site = start_site().await;
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .expect("a client");
    for case in CASES {
        let cookies = begin(case, &site).await;
        for path in case.paths() {
            for (accept, form) in
                [("", Form::Problem), ("application/json", Form::Problem), (BROWSER, Form::Page)]
            {
                println!("reqwest: {path}, {case:?}, Accept: {accept}");
                let mut request = client.get(format!("http://{}{path}", site.address));
                if !accept.is_empty() {
                    request = request.header("accept", accept);
                }
                if !cookies.is_empty() {
                    request = request.header("cookie", &cookies);
                }
                let response = request.send().await.expect("a response");
                let (status, headers) = (response.status(), response.headers().clone());
                let body = response.text().await.expect("a text");
                check(case, form, path, "", &Received { status, headers, body }, false);
            }
        }
        finish(&site);
    }
}

#[tokio::test]
async fn a_challenge_never_makes_a_browser_ask_for_a_password() {
    use tower_keep::loader::{Basic, Bearer};
    let site = start_site_with(|builder| {
        builder
            .with_request_loader(Basic::new(|_, _| async { Ok(None) }).with_realm("members"))
            .with_request_loader(Bearer::new(|_| async { Ok(None) }))
    })
    .await;
    let only_basic = start_site_with(|builder| {
        builder
            .with_realm("the \"club\"")
            .with_request_loader(Basic::new(|_, _| async { Ok(None) }))
    })
    .await;
    let challenges = async |site: &Site, headers: &[(&str, &str)]| {
        let got = send(site, false, &Method::GET, "/secret", headers).await;
        assert_eq!(got.status, StatusCode::UNAUTHORIZED);
        let challenges = got.headers.get_all(header::WWW_AUTHENTICATE).iter();
        challenges.map(|value| value.to_str().expect("text").to_owned()).collect::<Vec<_>>()
    };
    let basic = r#"Basic realm="members", charset="UTF-8""#;
    assert_eq!(challenges(&site, &[]).await, [basic, "Bearer"]);
    for (name, value) in
        [("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty"), ("sec-fetch-site", "same-origin")]
    {
        assert_eq!(challenges(&site, &[(name, value)]).await, ["Bearer"]);
        let session = r#"Session realm="the club""#;
        assert_eq!(challenges(&only_basic, &[(name, value)]).await, [session]);
    }
}

#[tokio::test]
async fn next_of_htmx_is_a_page_of_this_site() {
    let site = start_site().await;
    let behind_proxy =
        start_site_with(|builder| builder.with_public_origin("https://example.org")).await;
    let host = site.address.to_string();
    for (site, current_url, expected) in [
        (&site, format!("http://{host}/a?b=c#d"), "/login?next=%2Fa%3Fb%3Dc"),
        (&site, format!("https://{host}/a"), "/login?next=%2Fa"),
        (&site, "http://evil.example/a".to_owned(), "/login"),
        (&site, format!("http://{host}.evil.example/a"), "/login"),
        (&site, format!("http://{host}@evil.example/a"), "/login"),
        (&site, format!("http://{host}//evil.example/"), "/login"),
        (&site, format!("http://{host}/login"), "/login"),
        (&site, "/a".to_owned(), "/login"),
        (&site, "javascript:alert(1)".to_owned(), "/login"),
        (&site, String::new(), "/login"),
        (&behind_proxy, "https://example.org/a".to_owned(), "/login?next=%2Fa"),
        (&behind_proxy, format!("http://{}/a", behind_proxy.address), "/login"),
    ] {
        let headers = [("hx-request", "true"), ("hx-current-url", &*current_url)];
        let got = send(site, false, &Method::GET, "/secret", &headers).await;
        assert_eq!(got.header("hx-redirect"), expected, "{current_url}");
    }
}

#[tokio::test]
async fn a_setting_treats_every_client_as_a_page_except_for_grpc_and_upgrades() {
    let site = start_site_with(|builder| builder.with_pages_for_every_client(true)).await;
    for (client, method, headers, form) in &CLIENTS {
        let is_upgrade = *client == "an upgrade";
        let got = send(&site, false, method, "/secret", headers).await;
        let expected = match form {
            Form::Grpc => StatusCode::OK,
            _ if is_upgrade => StatusCode::UNAUTHORIZED,
            _ => StatusCode::SEE_OTHER,
        };
        assert_eq!(got.status, expected, "{client}");
        if expected == StatusCode::SEE_OTHER {
            assert_eq!(got.header("vary"), "Cookie", "as Flask-Login");
        }
    }
}

#[tokio::test]
async fn handlers_of_the_layer_and_of_a_guard_replace_each_response() {
    use axum::routing::get;
    use tower_keep::client::ClientKind;
    use tower_keep_tests::serve;
    let text = |text: String| http::Response::new(bytes::Bytes::from(text));
    let site = start_site_with(|builder| {
        builder
            .with_rejection_handler(move |context| {
                text(format!("{:?} {:?}", context.client_kind(), context.rejection()))
            })
            .with_error_handler(move |context| {
                let kind = context.client_kind();
                let mut response =
                    text(format!("{kind:?} {} {}", context.status(), context.path()));
                *response.status_mut() = StatusCode::BAD_GATEWAY;
                if kind == ClientKind::Page { response } else { context.default_response() }
            })
    })
    .await;
    let got = send(&site, false, &Method::GET, "/secret", &[("accept", BROWSER)]).await;
    assert_eq!(got.body, "Page Unauthenticated");
    assert_eq!((got.header("vary"), got.header("cache-control")), (VARY, "no-store"));
    let cookies = begin(Case::StoreFailed, &site).await;
    for path in Case::StoreFailed.paths() {
        let headers = [("cookie", &*cookies), ("accept", BROWSER)];
        let got = send(&site, false, &Method::GET, path, &headers).await;
        let body = format!("Page 503 Service Unavailable {path}");
        assert_eq!((got.status, got.body), (StatusCode::BAD_GATEWAY, body));
        assert_eq!(got.headers.get("cache-control").expect("it is set"), "no-store");
        let got = send(&site, false, &Method::GET, path, &[("cookie", &cookies)]).await;
        assert_eq!(got.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    // A guard's own error handler comes first.
    let guard = site
        .auth_layer
        .require_login()
        .with_error_handler(|_| http::Response::new(bytes::Bytes::from_static(b"of the guard")));
    let router = axum::Router::new().route("/", get(|| async { "in" })).route_layer(guard);
    let other = serve(site.auth_layer.layer(router)).await;
    let url = format!("http://{}/", other.address);
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let response = client.get(url).header("cookie", &cookies).send().await.expect("a response");
    assert_eq!(response.text().await.expect("a text"), "of the guard");
    finish(&site);
}

/// Some clients of gRPC read a status in the headers only if the stream ends with them.
#[tokio::test]
async fn a_status_of_grpc_ends_the_stream() {
    use http_body::Body as _;
    let site = start_site().await;
    for case in CASES {
        let cookies = begin(case, &site).await;
        for path in case.paths() {
            let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
            let mut request = Request::post(format!("http://{}{path}", site.address))
                .header("content-type", "application/grpc");
            if !cookies.is_empty() {
                request = request.header("cookie", &cookies);
            }
            let request = request.body(Body::empty()).expect("a request");
            let response = client.request(request).await.expect("a response");
            assert!(response.headers().contains_key("grpc-status"), "{path}, {case:?}");
            assert!(response.body().is_end_stream(), "{path}, {case:?}");
        }
        finish(&site);
    }
}

/// A proxy that asks whether a request may pass takes every 2xx for "yes".
#[tokio::test]
async fn only_a_post_gets_a_status_of_grpc() {
    let site = start_site().await;
    for case in CASES {
        let cookies = begin(case, &site).await;
        for content_type in ["application/grpc", "application/grpc-web+proto"] {
            for path in case.paths() {
                for method in [Method::GET, Method::PUT] {
                    let headers = [("content-type", content_type), ("cookie", &*cookies)];
                    let got = send(&site, false, &method, path, &headers).await;
                    assert_eq!(got.status, case.status(), "{method} {path}");
                }
            }
        }
        finish(&site);
    }
}

#[tokio::test]
async fn a_response_that_depends_on_the_kind_of_client_says_so() {
    use axum::routing::get;
    use tower_keep_tests::serve;
    type AuthSession = tower_keep::AuthSession<tower_keep::Account>;
    let site = start_site().await;
    let handler = |auth: AuthSession| async move { format!("{:?}", auth.client_kind()) };
    let serving = serve(site.auth_layer.layer(axum::Router::new().route("/", get(handler)))).await;
    let got = send_to(serving.address, false, &Method::GET, "/", &[("hx-request", "true")]).await;
    assert_eq!(got.body, "Htmx");
    assert_eq!(
        got.header("vary"),
        "Accept, HX-Request, HX-History-Restore-Request, Sec-Fetch-Mode, Sec-Fetch-Dest"
    );
}

#[tokio::test]
async fn each_error_that_a_handler_returns_gets_the_form_for_the_client() {
    use axum::routing::any;
    use tower_keep::password::PasswordError;
    use tower_keep::store::{StoreError, StoreErrorKind};
    use tower_keep::{AuthError, LoginError, problem};
    use tower_keep_tests::serve;
    let site = start_site().await;
    let failed = || StoreError::new(StoreErrorKind::Timeout, "users");
    let router = axum::Router::new()
        .route("/inactive", any(|| async { LoginError::Inactive }))
        .route("/sessions", any(|| async { LoginError::TooManySessions { max: 1 } }))
        .route("/large", any(|| async { LoginError::CookieTooLarge { size: 5_000, limit: 4_096 } }))
        .route("/login", any(move || async move { LoginError::Auth(AuthError::from(failed())) }))
        .route("/busy", any(|| async { PasswordError::Busy }))
        .route("/failed", any(|| async { PasswordError::Failed }));
    let serving = serve(site.auth_layer.layer(router)).await;
    for (path, status, grpc_status, problem_type) in [
        ("/inactive", 403, "7", problem::USER_INACTIVE),
        ("/sessions", 409, "8", problem::TOO_MANY_SESSIONS),
        ("/large", 500, "13", problem::INTERNAL),
        ("/login", 503, "14", problem::UNAVAILABLE),
        ("/busy", 503, "14", problem::UNAVAILABLE),
        ("/failed", 500, "13", problem::INTERNAL),
    ] {
        for is_http2 in [false, true] {
            let send = async |method, headers| {
                send_to(serving.address, is_http2, &method, path, headers).await
            };
            let got = send(Method::GET, &[("accept", "*/*")]).await;
            assert_eq!(got.status.as_u16(), status, "{path}");
            let members: serde_json::Value = serde_json::from_str(&got.body).expect("JSON");
            assert_eq!(members["type"], problem_type, "{path}");
            assert_eq!(got.header("retry-after") == "1", status == 503, "{path}");
            let got = send(Method::GET, &[("accept", BROWSER)]).await;
            assert_eq!(got.status.as_u16(), status, "{path}");
            assert!(got.body.starts_with("<!doctype html>"), "{path}: {}", got.body);
            assert_eq!((got.header("vary"), got.header("cache-control")), (VARY, "no-store"));
            let got = send(Method::HEAD, &[("accept", BROWSER)]).await;
            assert_eq!((got.status.as_u16(), got.body.as_str()), (status, ""), "{path}");
            let got = send(Method::GET, &[("hx-request", "true")]).await;
            assert!(got.body.starts_with("<p>"), "{path}: {}", got.body);
            let got = send(Method::POST, &[("content-type", "application/grpc+proto")]).await;
            assert_eq!((got.status.as_u16(), got.header("grpc-status")), (200, grpc_status));
            assert_eq!(got.header("content-type"), "application/grpc+proto");
            assert_eq!(got.body, "");
        }
    }
}

/// A handler, or a layer around it, may change the response of an error. Then it stays as it is.
#[tokio::test]
async fn a_changed_response_of_an_error_stays_as_it_is() {
    use axum::response::{Html, IntoResponse, Response};
    use axum::routing::get;
    use tower_keep_tests::serve;
    type AuthSession = tower_keep::AuthSession<tower_keep::Account>;
    let site = start_site().await;
    let own_page = |auth: AuthSession| async move {
        let error = auth.user().await.expect_err("the store has failed");
        let mut response = error.into_response();
        *response.body_mut() = axum::body::Body::from("<h1>own</h1>");
        response.headers_mut().insert("content-type", "text/html".parse().expect("a value"));
        response
    };
    let own_status = |auth: AuthSession| async move {
        let error = auth.user().await.expect_err("the store has failed");
        (StatusCode::IM_A_TEAPOT, error)
    };
    let plain = |auth: AuthSession| async move { auth.user().await.map(|_| Html("in")) };
    // A layer around a route reads the body, or puts another body into the response.
    let read = axum::middleware::map_response(|response: Response| async {
        let (head, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 10_000).await.expect("a body");
        Response::from_parts(head, axum::body::Body::from(bytes))
    });
    let replace = axum::middleware::map_response(|response: Response| async {
        response.map(|_| axum::body::Body::from("{\"own\":1}"))
    });
    let router = axum::Router::new()
        .route("/page", get(own_page))
        .route("/status", get(own_status))
        .route("/plain", get(plain))
        .route("/read", get(plain).layer(read))
        .route("/replaced", get(plain).layer(replace));
    let other = serve(site.auth_layer.layer(router)).await;
    let cookies = begin(Case::StoreFailed, &site).await;
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    for (path, status, start) in [
        ("/page", 503, "<h1>own"),
        ("/status", 418, "{\"status\":503"),
        ("/plain", 503, "<!doctype html>"),
        ("/read", 503, "{\"status\":503"),
        ("/replaced", 503, "{\"own\":1}"),
    ] {
        let request = client.get(format!("http://{}{path}", other.address));
        let request = request.header("cookie", &cookies).header("accept", BROWSER);
        let response = request.send().await.expect("a response");
        assert_eq!(response.status().as_u16(), status, "{path}");
        let body = response.text().await.expect("a whole body");
        assert!(body.starts_with(start), "{path}: {body}");
    }
    finish(&site);
}
