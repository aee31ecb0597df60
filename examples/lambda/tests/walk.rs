//! The function is invoked as AWS does it: it asks the runtime API for the next event, and sends the
//! response back. The test is the runtime API, and sends the events of an HTTP API with payloads of
//! version 2.0.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{COOKIE, HeaderName};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, mpsc, oneshot};
use tower::Service;
use tower_keep::client::ClientAddr;
use tower_keep_testkit::client::Client;

/// An event, and the channel for its response.
type Invocation = (Value, oneshot::Sender<Value>);

/// The runtime API: the events that wait for the function, and the channels for the responses of
/// those that are being served.
struct Runtime {
    events: Mutex<mpsc::Receiver<Invocation>>,
    served: Mutex<HashMap<u64, oneshot::Sender<Value>>>,
    last_id: AtomicU64,
}

async fn next_event(State(runtime): State<Arc<Runtime>>) -> impl IntoResponse {
    let event = runtime.events.lock().await.recv().await;
    let (event, response) = event.expect("the test is running");
    let id = runtime.last_id.fetch_add(1, Ordering::Relaxed);
    runtime.served.lock().await.insert(id, response);
    let headers = [
        ("lambda-runtime-aws-request-id", id.to_string()),
        ("lambda-runtime-deadline-ms", "4102444800000".to_owned()),
        ("lambda-runtime-invoked-function-arn", "arn:aws:lambda:::function:site".to_owned()),
    ];
    (headers, Json(event))
}

async fn take_response(
    State(runtime): State<Arc<Runtime>>,
    Path(id): Path<u64>,
    response: Bytes,
) -> StatusCode {
    let waiting = runtime.served.lock().await.remove(&id).expect("this event is being served");
    let response = serde_json::from_slice(&response).expect("the response is JSON");
    let _ = waiting.send(response);
    StatusCode::ACCEPTED
}

/// The function says that it has failed, at its start or with an event.
async fn take_error(error: String) {
    panic!("the function has failed: {error}");
}

/// API Gateway: turns each request into an event, and each response of the function into an HTTP
/// response.
#[derive(Clone)]
struct Gateway(mpsc::Sender<Invocation>);

impl Service<Request<String>> for Gateway {
    type Response = Response<Full<Bytes>>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<String>) -> Self::Future {
        let events = self.0.clone();
        Box::pin(async move {
            let (sender, response) = oneshot::channel();
            events.send((event(&request), sender)).await.expect("the runtime API is running");
            let response = tokio::time::timeout(Duration::from_secs(60), response).await;
            let response = response.expect("the function responds within a minute");
            Ok(http_response(&response.expect("the function has not failed")))
        })
    }
}

fn event(request: &Request<String>) -> Value {
    let text = |value: &HeaderValue| value.to_str().expect("ASCII").to_owned();
    let headers = request.headers().iter().filter(|(name, _)| *name != COOKIE);
    let headers: HashMap<&str, String> =
        headers.map(|(name, value)| (name.as_str(), text(value))).collect();
    let cookies = request.headers().get_all(COOKIE).iter().map(text);
    let cookies: Vec<String> =
        cookies.flat_map(|line| line.split("; ").map(str::to_owned).collect::<Vec<_>>()).collect();
    let path = request.uri().path();
    // The address of the browser, which the test sets.
    let ClientAddr(source_ip) = request.extensions().get().expect("an address");
    json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": request.uri().query().unwrap_or_default(),
        "cookies": cookies,
        "headers": headers,
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "site",
            "domainName": "site.example.com",
            "domainPrefix": "site",
            "http": {
                "method": request.method().as_str(),
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": source_ip,
                "userAgent": "test",
            },
            "requestId": "id",
            "routeKey": "$default",
            "stage": "$default",
            "time": "01/Jan/2026:00:00:00 +0000",
            "timeEpoch": 1_767_225_600_000_u64,
        },
        "body": STANDARD.encode(request.body()),
        "isBase64Encoded": true,
    })
}

fn http_response(response: &Value) -> Response<Full<Bytes>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let status = response["statusCode"].as_u64().expect("a status");
    let body = Full::from(text(&response["body"]));
    let mut converted = Response::new(body);
    *converted.status_mut() = StatusCode::from_u16(status as u16).expect("a status");
    let headers = ["headers", "multiValueHeaders"].map(|field| response[field].as_object());
    for (name, values) in headers.into_iter().flatten().flatten() {
        let values = values.as_array().cloned().unwrap_or_else(|| vec![values.clone()]);
        for value in values {
            let name: HeaderName = name.parse().expect("a header's name");
            converted.headers_mut().append(name, text(&value).parse().expect("a header's value"));
        }
    }
    for cookie in response["cookies"].as_array().into_iter().flatten() {
        converted.headers_mut().append("set-cookie", text(cookie).parse().expect("a cookie"));
    }
    converted
}

/// Starts the function, and returns a browser that reaches it through API Gateway.
async fn start() -> (Client<Gateway>, Child) {
    let (sender, events) = mpsc::channel(1);
    let runtime = Runtime {
        events: Mutex::new(events),
        served: Mutex::default(),
        last_id: AtomicU64::default(),
    };
    let api = Router::new()
        .route("/2018-06-01/runtime/invocation/next", get(next_event))
        .route("/2018-06-01/runtime/invocation/{id}/response", post(take_response))
        .route("/2018-06-01/runtime/invocation/{id}/error", post(take_error))
        .route("/2018-06-01/runtime/init/error", post(take_error))
        .with_state(Arc::new(runtime));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(axum::serve(listener, api).into_future());
    let function = Command::new(env!("CARGO_BIN_EXE_lambda-example"))
        .env("KEEP_KEY", "a-key-for-tests-that-is-long-enough-0123456789")
        .env("AWS_LAMBDA_RUNTIME_API", address.to_string())
        .env("AWS_LAMBDA_FUNCTION_NAME", "site")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
        .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
        .kill_on_drop(true)
        .spawn()
        .expect("the function starts");
    (Client::new(Gateway(sender)), function)
}

#[tokio::test]
async fn a_visitor_can_log_in_stay_logged_in_and_log_out() {
    let (mut browser, _function) = start().await;
    assert_eq!(browser.get("/account").await.location(), "/login?next=%2Faccount");
    let wrong = [("login", "ada"), ("password", "wrong")];
    let page = browser.post("/login", &wrong).await.text();
    assert!(page.contains("Remember me"), "the form again: {page}");
    let right = [("login", "ada"), ("password", "analytical engine"), ("remember", "on")];
    assert_eq!(browser.post("/login?next=/notes", &right).await.location(), "/notes");
    let fresh = "You are ada, and your login is fresh.";
    assert_eq!(browser.get("/account").await.text(), fresh);
    // Session protection knows the address from the event.
    let not_fresh = "You are ada, and your login is not fresh.";
    let mut elsewhere = browser.clone();
    elsewhere.set_address("192.0.2.9".parse().expect("an address"));
    assert_eq!(elsewhere.get("/account").await.text(), not_fresh);
    browser.close_browser();
    assert_eq!(browser.get("/account").await.text(), not_fresh);
    assert_eq!(browser.post("/logout", &[]).await.location(), "/login");
    assert_eq!(browser.get("/account").await.location(), "/login?next=%2Faccount");
}
