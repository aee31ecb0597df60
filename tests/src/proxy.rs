//! A proxy in front of a gRPC service. It counts calls, records the tokens that they carry, and
//! makes calls fail.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::{Serving, serve};

/// What the proxy does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The proxy responds with this status. The service does not receive the call.
    Refused(u16),
    /// The service carries out the call, and the proxy responds with this status.
    Done(u16),
    /// The service does not receive the call, and the proxy does not respond.
    Silent,
}

/// A call that reached the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The method, such as `Lookup`.
    pub method: String,
    /// Its `authorization` header.
    pub authorization: Option<String>,
    /// Its `x-goog-request-params`, by which Google's front end routes it.
    pub routing: Option<String>,
    /// Its `grpc-timeout`: how long the service may work on it.
    pub timeout: Option<String>,
}

#[derive(Default)]
struct Plan {
    seen: Vec<Seen>,
    /// The method whose calls fail, how they fail, how many of them, and after how many that pass.
    trouble: Option<(String, Fate, usize, usize)>,
}

/// A running proxy. It ends when this is dropped.
pub struct Proxy {
    /// The address where it listens.
    pub address: SocketAddr,
    plan: Arc<Mutex<Plan>>,
    _serving: Serving,
}

#[derive(Clone)]
struct Behind {
    plan: Arc<Mutex<Plan>>,
    client: Client<HttpConnector, Body>,
    target: String,
}

impl Proxy {
    /// Starts a proxy in front of this service, `http://HOST:PORT`.
    ///
    /// # Panics
    ///
    /// Panics if there is no free port.
    pub async fn start(target: impl Into<String>) -> Self {
        let plan = Arc::<Mutex<Plan>>::default();
        let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
        let behind = Behind { plan: plan.clone(), client, target: target.into() };
        let router = Router::new().fallback(pass).with_state(behind);
        let serving = serve(router).await;
        Self { address: serving.address, plan, _serving: serving }
    }

    /// Applies this fate to the next `times` calls of this method, after `after` calls that pass.
    pub fn trouble(&self, method: &str, fate: Fate, times: usize, after: usize) {
        self.plan().trouble = Some((method.to_owned(), fate, times, after));
    }

    /// Lets all calls pass from now on.
    pub fn heal(&self) {
        self.plan().trouble = None;
    }

    /// Takes the calls that were recorded since the last time.
    pub fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.plan().seen)
    }

    /// Takes the recorded calls, and returns their methods.
    pub fn take_methods(&self) -> Vec<String> {
        self.take().into_iter().map(|seen| seen.method).collect()
    }

    fn plan(&self) -> std::sync::MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Plan {
    fn fate(&mut self, method: &str) -> Option<Fate> {
        let (troubled, fate, times, after) = self.trouble.as_mut()?;
        if troubled != method || *times == 0 {
            return None;
        }
        if *after > 0 {
            *after -= 1;
            return None;
        }
        *times = times.saturating_sub(1);
        Some(*fate)
    }
}

async fn pass(State(behind): State<Behind>, mut request: Request) -> Response {
    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    let authorization = header(&request, "authorization");
    let routing = header(&request, "x-goog-request-params");
    let timeout = header(&request, "grpc-timeout");
    let fate = {
        let mut plan = behind.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let fate = plan.fate(&method);
        plan.seen.push(Seen { method, authorization, routing, timeout });
        fate
    };
    match fate {
        Some(Fate::Refused(code)) => return status(code),
        Some(Fate::Silent) => std::future::pending().await,
        Some(Fate::Done(_)) | None => {}
    }
    let target = format!("{}{}", behind.target, request.uri().path());
    *request.uri_mut() = target.parse::<Uri>().expect("an address");
    match (behind.client.request(request).await, fate) {
        (Ok(_), Some(Fate::Done(code))) => status(code),
        (Ok(response), _) => response.map(Body::new),
        (Err(error), _) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

fn header(request: &Request, name: &str) -> Option<String> {
    request.headers().get(name)?.to_str().ok().map(str::to_owned)
}

/// Returns a response of a gRPC service that is only a status.
fn status(code: u16) -> Response {
    let headers = [("content-type", "application/grpc"), ("grpc-message", "as planned")];
    (headers, [("grpc-status", code.to_string())]).into_response()
}
