//! The cases that the benches measure, except for those of axum-login, the crate that tower-keep is
//! compared with. A case is one service and one request to it, without a network.
//!
//! In every case an axum router responds to `GET /` with a few bytes. `bare` is the router alone.
//! The cost of a case is what the case adds to `bare`.
//!
//! This package has few dependencies, so that `cargo xtask instructions`, which counts the CPU
//! instructions of each case, compiles neither a database's driver nor axum-login.

mod keep;
pub mod records;

use std::convert::Infallible;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderValue, Method, Request, Response, Uri, header};
use axum::{Router, routing::get};
use tower::{Service, ServiceExt};

/// A bench, which runs or stores each case that it gets.
pub trait CaseRunner {
    /// Takes one case: its service, its request, and the status that the response must have.
    fn run_case<S, B>(&mut self, name: &str, service: S, request: &RequestTemplate, status: u16)
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + 'static;
}

/// Passes the bare router and the cases of tower-keep to the runner.
pub fn run_cases(runner: &mut impl CaseRunner) {
    let bare = Router::new().route("/", get(|| async { "hello" }));
    runner.run_case("bare", bare, &RequestTemplate::with_cookie("a=b"), 200);
    keep::run_cases(runner);
}

/// Creates the same request many times. The requests share the buffers of the URI and of the header
/// values, as with hyper, so creating a request allocates little.
#[derive(Clone, Debug)]
pub struct RequestTemplate {
    uri: Uri,
    accept: Option<HeaderValue>,
    cookie: Option<HeaderValue>,
}

impl RequestTemplate {
    /// Returns the template of `GET /` without a cookie.
    pub fn without_cookie() -> Self {
        Self { uri: Uri::from_static("/"), accept: None, cookie: None }
    }

    /// Requests a page, as a browser does.
    #[must_use]
    pub fn for_page(self) -> Self {
        Self { accept: Some(HeaderValue::from_static("text/html")), ..self }
    }

    /// Returns the template of `GET /` with this `Cookie` header.
    pub fn with_cookie(cookie: &str) -> Self {
        let cookie = HeaderValue::from_str(cookie).expect("a cookie");
        // The first clone converts the buffer into a shared one, which allocates.
        drop(cookie.clone());
        Self { cookie: Some(cookie), ..Self::without_cookie() }
    }

    /// Creates a new request.
    pub fn request(&self) -> Request<Body> {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.insert(header::HOST, HeaderValue::from_static("example.org"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static("Mozilla/5.0 (X11) Firefox/1"));
        if let Some(accept) = &self.accept {
            headers.insert(header::ACCEPT, accept.clone());
        }
        if let Some(cookie) = &self.cookie {
            headers.insert(header::COOKIE, cookie.clone());
        }
        request
    }
}

/// Polls a future until it is ready. The future must not wait for an external event.
pub fn run<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
}

/// Sends one request through a clone of the service.
pub fn send<S, B>(service: &S, request: Request<Body>) -> Response<B>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone,
{
    match run(service.clone().oneshot(request)) {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// The number of requests that [`time_batch`] sends. It is small, so that the allocator takes their
/// memory from its fastest lists, as in a server that handles one request after the other.
pub const BATCH: u32 = 4;

/// Returns how long [`BATCH`] requests take, one after the other. This time includes dropping each
/// response, as a server does.
pub fn time_batch<S, B>(service: &S, template: &RequestTemplate) -> Duration
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone,
{
    let requests: Vec<_> = (0..BATCH).map(|_| template.request()).collect();
    let start = Instant::now();
    requests.into_iter().for_each(|request| drop(black_box(send(service, request))));
    start.elapsed()
}

/// Returns the cookies that a response sets, in the form of a `Cookie` header.
pub fn cookies_of<B>(response: &Response<B>) -> String {
    let pairs = response
        .headers()
        .get_all(header::SET_COOKIE)
        .iter()
        .filter_map(|cookie| cookie.to_str().ok().and_then(|cookie| cookie.split(';').next()));
    pairs.collect::<Vec<_>>().join("; ")
}
