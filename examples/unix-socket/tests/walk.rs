//! Sends requests through the Unix socket, as a proxy does.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// A running site, which is killed at the end of the test.
struct Site(Child);

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(socket: &Path) -> Site {
    let mut site = Command::new(env!("CARGO_BIN_EXE_unix-socket-example"))
        .arg(socket)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the site starts");
    let mut line = String::new();
    let output = site.stdout.take().expect("the output is piped");
    BufReader::new(output).read_line(&mut line).expect("a line");
    assert!(line.starts_with("listening on "), "{line}");
    Site(site)
}

/// Sends a request for a client at this address.
async fn send(
    socket: &Path,
    client: &str,
    cookie: &str,
    (method, path, body): (&str, &str, &str),
) -> Response<Incoming> {
    let stream = UnixStream::connect(socket).await.expect("the site listens");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a connection");
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "example.org")
        .header("accept", "text/html")
        .header("x-forwarded-for", client)
        .header("cookie", cookie)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(body.to_owned())
        .expect("a request");
    sender.send_request(request).await.expect("a response")
}

async fn text(response: Response<Incoming>) -> String {
    let body = response.into_body().collect().await.expect("a whole body").to_bytes();
    String::from_utf8(body.to_vec()).expect("UTF-8")
}

#[tokio::test]
async fn a_proxy_says_who_the_client_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("site.sock");
    let _site = start(&socket);
    let response = send(&socket, "192.0.2.7", "", ("GET", "/", "")).await;
    assert_eq!(response.status(), StatusCode::SEE_OTHER);

    let wrong = "login=ada&password=wrong";
    let response = send(&socket, "192.0.2.7", "", ("POST", "/login", wrong)).await;
    assert!(text(response).await.contains("Password"), "the form again");
    let form = "login=ada&password=analytical+engine";
    let response = send(&socket, "192.0.2.7", "", ("POST", "/login", form)).await;
    assert_eq!(response.headers()["location"], "/");
    let cookie = response.headers()["set-cookie"].to_str().expect("text");
    let cookie = cookie.split(';').next().expect("a pair").to_owned();
    let response = send(&socket, "192.0.2.7", &cookie, ("GET", "/", "")).await;
    assert_eq!(text(response).await, "You are ada, at 192.0.2.7.");
}
