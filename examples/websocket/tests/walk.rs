//! Two users chat, and one of them logs out in another tab.

use futures_util::{SinkExt, StreamExt};
use http::StatusCode;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use tower_keep_tests::{Browser, Process};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

const SESSION: &str = "__Host-Http-keep";

async fn log_in(site: &Process, name: &str) -> Browser {
    let mut browser = site.browser();
    let form = [("login", name), ("password", site.printed("demo password: "))];
    assert_eq!(browser.post("/login", &form).await.location(), "/");
    browser
}

/// Opens the chat as a page of this origin does.
async fn open_chat(site: &Process, browser: &Browser, origin: &str) -> Result<Socket, StatusCode> {
    let url = format!("ws://{}/chat", site.address);
    let mut request = url.into_client_request().expect("a request");
    let headers = request.headers_mut();
    headers.insert("origin", origin.parse().expect("a value"));
    if let Some(cookie) = browser.jar.get(SESSION) {
        let cookie = format!("{SESSION}={cookie}").parse().expect("a value");
        headers.insert("cookie", cookie);
    }
    match connect_async(request).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => Err(response.status()),
        Err(error) => panic!("{error}"),
    }
}

async fn next_line(socket: &mut Socket) -> Option<String> {
    match socket.next().await.expect("the socket is open").expect("a message") {
        Message::Text(text) => Some(text.to_string()),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_users_chat_and_the_chat_closes_after_a_logout() {
    let site = Process::start(env!("CARGO_BIN_EXE_websocket-example"), &["127.0.0.1:0"], 3);
    let own = format!("http://{}", site.address);
    let refused = open_chat(&site, &site.browser(), &own).await.expect_err("no login");
    assert_eq!(refused, StatusCode::UNAUTHORIZED);

    let mut ada = log_in(&site, "ada").await;
    let grace = log_in(&site, "grace").await;
    let foreign = open_chat(&site, &ada, "https://evil.example").await.expect_err("foreign");
    assert_eq!(foreign, StatusCode::FORBIDDEN);

    let mut of_ada = open_chat(&site, &ada, &own).await.expect("a socket");
    let mut of_grace = open_chat(&site, &grace, &own).await.expect("a socket");
    // Until a line has come back, the other side may not have subscribed yet.
    of_ada.send(Message::text("hello")).await.expect("the socket is open");
    assert_eq!(next_line(&mut of_ada).await.as_deref(), Some("ada: hello"));
    of_grace.send(Message::text("hi")).await.expect("the socket is open");
    while next_line(&mut of_grace).await.as_deref() != Some("grace: hi") {}
    assert_eq!(next_line(&mut of_ada).await.as_deref(), Some("grace: hi"));

    assert_eq!(ada.post("/logout", &[]).await.location(), "/login");
    assert_eq!(next_line(&mut of_ada).await.as_deref(), Some("You are logged out."));
    assert_eq!(next_line(&mut of_ada).await, None, "the chat is closed");
    // The other user's chat goes on.
    of_grace.send(Message::text("bye")).await.expect("the socket is open");
    assert_eq!(next_line(&mut of_grace).await.as_deref(), Some("grace: bye"));
}
