//! A proxy in front of a gRPC service. It counts calls, records the tokens that they carry, and
//! makes calls fail.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tower_keep_tests::{Serving, serve};

/// What goes wrong with a call. The numbers are gRPC status codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The proxy responds with this status. The service does not receive the call.
    Fails(u16),
    /// The service carries out the call, and the proxy responds with this status.
    FailsAfterwards(u16),
    /// The service does not receive the call, and the proxy does not respond.
    Hangs,
}

/// A call that reached the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecordedCall {
    /// The method, such as `Lookup`.
    pub(crate) method: String,
    /// The header `authorization`.
    pub(crate) authorization: Option<String>,
    /// The header `x-goog-request-params`, by which Google's front end routes the call.
    pub(crate) routing: Option<String>,
    /// The header `grpc-timeout`: how long the service may work on the call.
    pub(crate) timeout: Option<String>,
}

#[derive(Default)]
struct Shared {
    calls: Vec<RecordedCall>,
    trouble: Option<MethodTrouble>,
}

/// What goes wrong with the next calls of one method.
struct MethodTrouble {
    method: String,
    trouble: Trouble,
    /// How many more calls have the trouble.
    remaining: usize,
}

/// A running proxy. Dropping this stops the proxy.
pub(crate) struct Proxy {
    /// The address where the proxy listens.
    pub(crate) address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    _serving: Serving,
}

#[derive(Clone)]
struct Forwarder {
    shared: Arc<Mutex<Shared>>,
    client: Client<HttpConnector, Body>,
    /// The service, as `http://HOST:PORT`.
    service: String,
}

impl Proxy {
    /// Starts a proxy in front of this service, `http://HOST:PORT`.
    ///
    /// # Panics
    ///
    /// Panics if there is no free port.
    pub(crate) async fn start(service: impl Into<String>) -> Self {
        let shared = Arc::<Mutex<Shared>>::default();
        let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
        let forwarder = Forwarder { shared: shared.clone(), client, service: service.into() };
        let router = Router::new().fallback(forward).with_state(forwarder);
        let serving = serve(router).await;
        Self { address: serving.address, shared, _serving: serving }
    }

    /// Sets what goes wrong with every call of this method from now on. All other methods work.
    pub(crate) fn set(&self, method: &str, trouble: Trouble) {
        self.set_next(usize::MAX, method, trouble);
    }

    /// Sets what goes wrong with the next `count` calls of this method. All other methods work.
    pub(crate) fn set_next(&self, count: usize, method: &str, trouble: Trouble) {
        let method = method.to_owned();
        lock(&self.shared).trouble = Some(MethodTrouble { method, trouble, remaining: count });
    }

    /// Lets all calls pass from now on.
    pub(crate) fn heal(&self) {
        lock(&self.shared).trouble = None;
    }

    /// Returns the calls since the last `take_calls` or `take_methods`, in order, including failed
    /// ones.
    pub(crate) fn take_calls(&self) -> Vec<RecordedCall> {
        std::mem::take(&mut lock(&self.shared).calls)
    }

    /// Returns the methods of the calls that [`take_calls`](Self::take_calls) would return.
    pub(crate) fn take_methods(&self) -> Vec<String> {
        self.take_calls().into_iter().map(|call| call.method).collect()
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Returns what goes wrong with this call of the method, and counts the call.
    fn take_trouble(&mut self, method: &str) -> Option<Trouble> {
        let planned = self.trouble.as_mut()?;
        if planned.method != method || planned.remaining == 0 {
            return None;
        }
        planned.remaining -= 1;
        Some(planned.trouble)
    }
}

async fn forward(State(forwarder): State<Forwarder>, mut request: Request) -> Response {
    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    let authorization = header_text(&request, "authorization");
    let routing = header_text(&request, "x-goog-request-params");
    let timeout = header_text(&request, "grpc-timeout");
    let trouble = {
        let mut shared = lock(&forwarder.shared);
        let trouble = shared.take_trouble(&method);
        shared.calls.push(RecordedCall { method, authorization, routing, timeout });
        trouble
    };
    match trouble {
        Some(Trouble::Fails(code)) => return status_response(code),
        Some(Trouble::Hangs) => std::future::pending().await,
        Some(Trouble::FailsAfterwards(_)) | None => {}
    }
    let uri = format!("{}{}", forwarder.service, request.uri().path());
    *request.uri_mut() = uri.parse::<Uri>().expect("a URI");
    match (forwarder.client.request(request).await, trouble) {
        (Ok(_), Some(Trouble::FailsAfterwards(code))) => status_response(code),
        (Ok(response), _) => response.map(Body::new),
        (Err(error), _) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

fn header_text(request: &Request, name: &str) -> Option<String> {
    request.headers().get(name)?.to_str().ok().map(str::to_owned)
}

/// Returns the response of a gRPC service that has only a status and no message.
fn status_response(code: u16) -> Response {
    let headers = [("content-type", "application/grpc"), ("grpc-message", "set by the proxy")];
    (headers, [("grpc-status", code.to_string())]).into_response()
}
