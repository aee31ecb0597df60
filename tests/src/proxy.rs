//! A proxy in front of a gRPC service: it counts calls, sees with which token they come, and makes
//! trouble.

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

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// This status is answered, and nothing is done.
    Refused(u16),
    /// It is done, and this status is answered.
    Done(u16),
    /// It is not done, and nothing is answered.
    Silent,
}

/// A call that came by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The method, such as `Lookup`.
    pub method: String,
    /// The `authorization` that it came with.
    pub authorization: Option<String>,
    /// Its `x-goog-request-params`, by which Google's front end knows where it belongs.
    pub routing: Option<String>,
    /// Its `grpc-timeout`: how long the service may work on it.
    pub timeout: Option<String>,
}

#[derive(Default)]
struct Plan {
    seen: Vec<Seen>,
    /// The method that is troubled, how, how often, and after how many that are not.
    trouble: Option<(String, Fate, usize, usize)>,
}

/// A running proxy; it ends when this is dropped.
pub struct Proxy {
    /// Where it listens.
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
    /// If there is no free port.
    pub async fn start(target: impl Into<String>) -> Self {
        let plan = Arc::<Mutex<Plan>>::default();
        let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
        let behind = Behind { plan: plan.clone(), client, target: target.into() };
        let router = Router::new().fallback(pass).with_state(behind);
        let serving = serve(router).await;
        Self { address: serving.address, plan, _serving: serving }
    }

    /// Lets this method meet its fate so often from now on, after it went well so many times.
    pub fn trouble(&self, method: &str, fate: Fate, times: usize, after: usize) {
        self.plan().trouble = Some((method.to_owned(), fate, times, after));
    }

    /// No more trouble.
    pub fn heal(&self) {
        self.plan().trouble = None;
    }

    /// The calls since they were last taken.
    pub fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.plan().seen)
    }

    /// Their methods.
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
        (Ok(answer), _) => answer.map(Body::new),
        (Err(error), _) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

fn header(request: &Request, name: &str) -> Option<String> {
    request.headers().get(name)?.to_str().ok().map(str::to_owned)
}

/// An answer of a gRPC service that is only a status.
fn status(code: u16) -> Response {
    let headers = [("content-type", "application/grpc"), ("grpc-message", "as planned")];
    (headers, [("grpc-status", code.to_string())]).into_response()
}
