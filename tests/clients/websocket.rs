//! WebSockets, over HTTP/1.1 and HTTP/2: which origins may use a login, and what the handle says
//! after the response's head was sent.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::any;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, Method, Request, StatusCode};
use hyper::ext::Protocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message as ClientMessage};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use tower_keep::guard::Guard;
use tower_keep::{Account, AuthError, CurrentUser};
use tower_keep_tests::{Builder, Serving, Site, WatchedStoreExt, serve};

use crate::cases::{CASES, Case, begin, cookies_after_login, finish, start_site, start_site_with};

type AuthSession = tower_keep::AuthSession<Account>;
type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Serves WebSockets with the layer of the site: `/guarded`, `/recent`, `/notch-only`,
/// `/extracted`, `/handler`, and `/late`, where nothing asks who is logged in before the socket is
/// open.
async fn serve_sockets(site: &Site) -> Serving {
    let auth_layer = &site.auth_layer;
    let open = |upgrade: WebSocketUpgrade, auth: AuthSession| async move {
        upgrade.on_upgrade(|socket| converse(socket, auth))
    };
    let extracted = |_: CurrentUser<Account>, upgrade: WebSocketUpgrade, auth: AuthSession| async {
        upgrade.on_upgrade(|socket| converse(socket, auth))
    };
    let guard =
        |path: &str, guard: Guard<Account>| Router::new().route(path, any(open)).route_layer(guard);
    let router = Router::new()
        .route("/late", any(open))
        .route("/extracted", any(extracted))
        .route("/handler", any(ask_first))
        .with_state(())
        .merge(guard("/guarded", auth_layer.require_login()))
        .merge(guard(
            "/recent",
            auth_layer.require_fresh_within(std::time::Duration::from_secs(600)),
        ))
        .merge(guard("/notch-only", auth_layer.require_user(|user| user.login_name() == "notch")));
    serve(auth_layer.layer(router)).await
}

async fn ask_first(
    State(()): State<()>,
    auth: AuthSession,
    upgrade: WebSocketUpgrade,
) -> Result<Response, AuthError> {
    auth.user().await?;
    Ok(upgrade.on_upgrade(|socket| converse(socket, auth)))
}

/// Responds to `user` and `recheck` with the result of the method, and `log in` with the error.
async fn converse(mut socket: WebSocket, auth: AuthSession) {
    while let Some(Ok(Message::Text(question))) = socket.recv().await {
        let user = match question.as_str() {
            "user" => auth.user().await,
            "recheck" => auth.recheck().await,
            _ => match auth.log_in(tower_keep_tests::account("steve")).await {
                Ok(()) => Ok(None),
                Err(error) => {
                    let reply = Message::Text(error.to_string().into());
                    let _ = socket.send(reply).await;
                    continue;
                }
            },
        };
        let reply = match user {
            Ok(Some(user)) => user.login_name().to_owned(),
            Ok(None) => "nobody".to_owned(),
            Err(error) => format!("{:?}", error.kind()),
        };
        if socket.send(Message::Text(reply.into())).await.is_err() {
            break;
        }
    }
}

/// Opens a WebSocket with tungstenite. Returns the status and the headers if the server refuses.
async fn open(
    address: SocketAddr,
    path: &str,
    headers: &[(&'static str, &str)],
) -> Result<Socket, (StatusCode, HeaderMap)> {
    let url = format!("ws://{address}{path}");
    let mut request = url.into_client_request().expect("a request");
    // As the browser that has logged in.
    request.headers_mut().insert("user-agent", "Test/1.0".parse().expect("a value"));
    for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
        request.headers_mut().insert(*name, value.parse().expect("a value"));
    }
    match connect_async(request).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => Err((response.status(), response.headers().clone())),
        Err(error) => panic!("{error}"),
    }
}

/// Opens a WebSocket over HTTP/2 (RFC 8441), and returns the status and the headers of the
/// response.
async fn open_over_http2(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
) -> (StatusCode, HeaderMap) {
    let stream = TcpStream::connect(address).await.expect("the server listens");
    let io = TokioIo::new(stream);
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (mut sender, connection) = builder.handshake(io).await.expect("a connection");
    let connection = tokio::spawn(connection);
    // The server's settings, which allow the protocol, must have arrived.
    let probe = Request::get(format!("http://{address}/nothing")).body(Body::empty());
    let _ = sender.send_request(probe.expect("a request")).await.expect("a response");
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri(format!("http://{address}{path}"))
        .header("sec-websocket-version", "13")
        .header("user-agent", "Test/1.0")
        .extension(Protocol::from_static("websocket"));
    for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty()).expect("a request");
    let response = sender.send_request(request).await.expect("a response");
    connection.abort();
    let head = response.into_parts().0;
    (head.status, head.headers)
}

async fn ask(socket: &mut Socket, question: &str) -> String {
    socket.send(ClientMessage::text(question)).await.expect("the socket is open");
    let reply = socket.next().await.expect("a reply").expect("the socket is open");
    reply.into_text().expect("text").to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_websocket_gets_a_status_in_every_case_over_http_1_and_2() {
    let site = start_site().await;
    let sockets = serve_sockets(&site).await;
    for case in CASES {
        let paths = match case {
            Case::NotLoggedIn => &["/guarded", "/extracted"][..],
            Case::NotFresh => &["/recent"],
            Case::Forbidden => &["/notch-only"],
            Case::StoreFailed => &["/guarded", "/extracted", "/handler"],
        };
        let cookies = begin(case, &site).await;
        for path in paths {
            println!("{path}, {case:?}");
            let headers = [("cookie", cookies.as_str())];
            let http1 = open(sockets.address, path, &headers).await.expect_err("no socket");
            let http2 = open_over_http2(sockets.address, path, &headers).await;
            for (status, headers) in [http1, http2] {
                assert_eq!(status, case.status());
                assert_eq!(headers["content-type"], "application/problem+json");
                assert_eq!(headers["cache-control"], "no-store");
                assert_eq!(headers.contains_key("retry-after"), case == Case::StoreFailed);
                let needs_challenge = status == StatusCode::UNAUTHORIZED;
                assert_eq!(headers.contains_key("www-authenticate"), needs_challenge);
                assert!(!headers.contains_key("location") && !headers.contains_key("set-cookie"));
            }
        }
        finish(&site);
    }
    let cookies = cookies_after_login(&site, "user=notch").await;
    for path in ["/guarded", "/extracted", "/handler", "/late", "/recent", "/notch-only"] {
        let headers = [("cookie", cookies.as_str())];
        let mut socket = open(sockets.address, path, &headers).await.expect("a socket");
        assert_eq!(ask(&mut socket, "user").await, "notch", "{path}");
        let (status, _) = open_over_http2(sockets.address, path, &headers).await;
        assert_eq!(status, StatusCode::OK, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_another_site_cannot_use_the_cookies_of_this_site() {
    let site = start_site().await;
    let listed = start_site_with(|builder| {
        builder
            .with_public_origin("https://example.org")
            .with_allowed_origins(["https://app.example.org", "https://Partner.example"])
    })
    .await;
    for (site, origin, is_allowed) in [
        (&site, String::new(), true),
        (&site, "http://{host}".to_owned(), true),
        (&site, "https://{host}".to_owned(), true),
        (&site, "null".to_owned(), false),
        (&site, "https://evil.example".to_owned(), false),
        (&site, "http://{host}.evil.example".to_owned(), false),
        (&site, "http://127.0.0.1:1".to_owned(), false),
        (&listed, String::new(), true),
        (&listed, "https://example.org".to_owned(), true),
        (&listed, "https://app.example.org".to_owned(), true),
        (&listed, "https://partner.example".to_owned(), true),
        (&listed, "http://app.example.org".to_owned(), false),
        (&listed, "https://app.example.org:8443".to_owned(), false),
        (&listed, "https://sub.app.example.org".to_owned(), false),
        (&site, "http://app.localhost".to_owned(), false),
        // The host is not compared if the public origin is set.
        (&listed, "http://{host}".to_owned(), false),
    ] {
        let sockets = serve_sockets(site).await;
        let cookies = cookies_after_login(site, "user=notch&remember=1").await;
        let origin = origin.replace("{host}", &sockets.address.to_string());
        let session_only = cookies.split("; ").next().expect("a cookie").to_owned();
        let remember_only = cookies.split("; ").nth(1).expect("a cookie").to_owned();
        for cookies in [session_only, remember_only] {
            let headers = [("cookie", cookies.as_str()), ("origin", origin.as_str())];
            for path in ["/guarded", "/extracted", "/handler"] {
                println!("{origin:?} at {path}");
                let opened = open(sockets.address, path, &headers).await;
                let (status, received) = open_over_http2(sockets.address, path, &headers).await;
                if is_allowed {
                    assert_eq!(ask(&mut opened.expect("a socket"), "user").await, "notch");
                    assert_eq!(status, StatusCode::OK);
                } else {
                    let (http1_status, http1_received) = opened.expect_err("no socket");
                    assert_eq!([http1_status, status], [StatusCode::FORBIDDEN; 2]);
                    for headers in [http1_received, received] {
                        assert_eq!(headers["content-type"], "application/problem+json");
                        assert!(!headers.contains_key("set-cookie"), "no cookie is cleared");
                    }
                }
            }
            // Where nothing asks before the socket is open, the cookies log nobody in.
            let mut late = open(sockets.address, "/late", &headers).await.expect("a socket");
            let expected = if is_allowed { "notch" } else { "ForeignOrigin" };
            for question in ["user", "recheck"] {
                assert_eq!(ask(&mut late, question).await, expected);
            }
        }
        // Without our cookies, nothing is refused for the origin.
        let headers = [("cookie", "theme=dark"), ("origin", origin.as_str())];
        let (status, _) = open(sockets.address, "/guarded", &headers).await.expect_err("no socket");
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        let mut late = open(sockets.address, "/late", &headers).await.expect("a socket");
        assert_eq!(ask(&mut late, "user").await, "nobody");
    }
}

#[tokio::test]
async fn an_upgrade_of_another_site_can_neither_use_nor_change_a_login() {
    let site = start_site_with(|builder| builder.with_sessions().with_bearer_sessions(true)).await;
    let mut browser = site.logged_in("user=notch&remember=1").await;
    let before = browser.jar.clone();
    let mut foreign = browser.clone();
    foreign.set_header(http::header::UPGRADE, "websocket");
    foreign.set_header(http::header::ORIGIN, "https://evil.example");
    for path in [
        "/login?user=steve",
        "/token?user=steve",
        "/logout",
        "/confirm",
        "/username",
        "/sessions",
        "/end-all",
        "/secret",
        "/extracted",
        "/maybe",
    ] {
        let response = foreign.get(path).await;
        assert_eq!(response.status, StatusCode::FORBIDDEN, "{path}: {}", response.text());
        assert!(response.set_cookies().is_empty(), "{path}");
    }
    for (path, expected) in
        [("/flash", "set"), ("/take-flash", ""), ("/is-remembered", "false"), ("/next", "")]
    {
        let response = foreign.get(path).await;
        assert_eq!(response.text(), expected, "{path}");
        assert!(response.set_cookies().is_empty(), "{path}");
    }
    assert_eq!(browser.get("/username").await.text(), "notch");
    assert_eq!(browser.jar.names(), before.names());
    assert_eq!(browser.get("/sessions").await.text().lines().count(), 1);
}

/// A request that is no upgrade is not compared: protection against cross-site request forgery does
/// that.
#[tokio::test]
async fn the_origin_of_other_requests_is_not_compared() {
    let site = start_site().await;
    let mut browser = site.logged_in("user=notch").await;
    browser.set_header(http::header::ORIGIN, "https://evil.example");
    assert_eq!(browser.get("/secret").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_socket_keeps_its_user_until_it_asks_again() {
    for configure in [Builder::with_sessions, |builder: Builder| builder] {
        let site = start_site_with(configure).await;
        let sockets = serve_sockets(&site).await;
        let cookies = cookies_after_login(&site, "user=notch").await;
        let headers = [("cookie", cookies.as_str())];
        let mut socket = open(sockets.address, "/guarded", &headers).await.expect("a socket");
        assert_eq!(ask(&mut socket, "recheck").await, "notch");
        // The login ends in another tab.
        site.store.change("1", |notch| notch.set_security_stamp(b"another")).await;
        assert_eq!(ask(&mut socket, "user").await, "notch", "as of the request");
        assert_eq!(ask(&mut socket, "recheck").await, "nobody");
        assert_eq!(ask(&mut socket, "user").await, "notch", "as of the request");
        // No cookie can be set any more.
        let reply = ask(&mut socket, "log in").await;
        assert!(reply.contains("after the head of the response was written"), "{reply}");
        site.store.set_down(true);
        assert_eq!(ask(&mut socket, "recheck").await, "Unavailable");
        site.store.set_down(false);
        // The first question may come late.
        let cookies = cookies_after_login(&site, "user=notch").await;
        let headers = [("cookie", cookies.as_str())];
        let mut late = open(sockets.address, "/late", &headers).await.expect("a socket");
        assert_eq!(ask(&mut late, "user").await, "notch");
    }
}
