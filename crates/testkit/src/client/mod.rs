//! A client with a cookie jar, for any service: a router in this process, or a real server.
//!
//! ```toml
//! [dev-dependencies]
//! tower-keep-testkit = { version = "0.1", features = ["client"] }
//! ```
//!
//! Requests have a `String` as their body, which axum's routers accept. For a service that takes
//! another body type, use `tower::ServiceExt::map_request`. The layer and the client each have a
//! clock. Give both the same clock, so that sessions and cookies expire at the same time.
//!
//! ```
//! use std::time::Duration;
//!
//! use http::{Request, Response};
//! use tower::Layer;
//! use tower_keep::{Account, Keys, LoginLayer};
//! use tower_keep::store::UserDirectory;
//! use tower_keep_memory::MemoryStore;
//! use tower_keep_testkit::TestClock;
//! use tower_keep_testkit::client::Client;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = MemoryStore::new();
//! let ada = Account::new(1, "ada", "");
//! store.insert(&ada).await?;
//! let clock = TestClock::new();
//! let auth_layer = LoginLayer::builder(store, Keys::generate()?)
//!     .with_clock(clock.clone())
//!     .with_idle_limit(Duration::from_secs(3600))
//!     .build()?;
//!
//! // Any service works; with axum, it is the router.
//! let page = tower::service_fn(|_: Request<String>| async {
//!     Ok::<_, std::convert::Infallible>(Response::new("members only".to_owned()))
//! });
//! let site = auth_layer.layer(auth_layer.require_login().layer(page));
//!
//! let mut client = Client::new(site).with_clock(clock.clone());
//! assert_eq!(client.get("/").await.status, 401);
//! client.log_in(&auth_layer, ada).await?;
//! assert_eq!(client.get("/").await.text(), "members only");
//! clock.advance(Duration::from_secs(3600));
//! assert_eq!(client.get("/").await.status, 401);
//! # Ok(()) }
//! ```

mod jar;
mod response;

use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body::Body;
use http_body_util::BodyExt;
use tower::{Service, ServiceExt, service_fn};
use tower_keep::client::ClientAddr;
use tower_keep::{AuthUser, LoginError, LoginLayer};
use tower_keep_core::{Clock, SystemClock};

pub use jar::Jar;
pub use response::TestResponse;

/// A simple browser for testing logins. It keeps cookies, has one address, sends one
/// `User-Agent`, and requests pages with `Accept: text/html`. It does not follow redirects.
///
/// Because this type is for tests, its methods panic if the service fails or if a request can't be
/// built.
#[derive(Clone)]
pub struct Client<S> {
    service: S,
    /// The client's cookies. A test can remove some, insert copies, or give them to another client.
    pub jar: Jar,
    headers: HeaderMap,
    address: IpAddr,
    clock: Arc<dyn Clock>,
}

impl<S> Client<S> {
    /// Creates a browser at 127.0.0.1 without cookies.
    pub fn new(service: S) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, HeaderValue::from_static("Test/1.0"));
        let accepts_pages = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        headers.insert(header::ACCEPT, HeaderValue::from_static(accepts_pages));
        Self {
            service,
            jar: Jar::default(),
            headers,
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            clock: Arc::new(SystemClock),
        }
    }

    /// Sets the clock by which cookies expire. The default is the system's clock.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Sends this header with every request from now on, in place of an earlier value.
    pub fn set_header(&mut self, name: HeaderName, value: &str) {
        let value = HeaderValue::try_from(value).expect("`value` is a valid header value");
        self.headers.insert(name, value);
    }

    /// Stops sending this header.
    pub fn remove_header(&mut self, name: HeaderName) {
        self.headers.remove(name);
    }

    /// Sets the client's address from now on. It has an effect only if the service reads the
    /// address from the request's extensions.
    pub fn set_address(&mut self, address: IpAddr) {
        self.address = address;
    }

    /// Removes the cookies that live until the browser is closed.
    pub fn close_browser(&mut self) {
        self.jar.close_browser();
    }

    /// Logs this user in through the layer, without the application's sign-in page. The login is
    /// fresh, as after the user has entered a password, and is not remembered.
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`AuthSession::log_in`](tower_keep::AuthSession::log_in).
    pub async fn log_in<U: AuthUser>(
        &mut self,
        layer: &LoginLayer<U>,
        user: impl Into<Arc<U>>,
    ) -> Result<(), LoginError> {
        self.start_login(layer, user.into(), true).await
    }

    /// Logs this user in like [`log_in`](Self::log_in), but the login is not fresh, as after the
    /// remember cookie has restored a login.
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`AuthSession::log_in`](tower_keep::AuthSession::log_in).
    pub async fn log_in_not_fresh<U: AuthUser>(
        &mut self,
        layer: &LoginLayer<U>,
        user: impl Into<Arc<U>>,
    ) -> Result<(), LoginError> {
        self.start_login(layer, user.into(), false).await
    }

    async fn start_login<U: AuthUser>(
        &mut self,
        layer: &LoginLayer<U>,
        user: Arc<U>,
        is_fresh: bool,
    ) -> Result<(), LoginError> {
        let sign_in = service_fn(|request: Request<String>| {
            let auth =
                layer.auth_session(request.extensions()).expect("the layer wraps this service");
            let user = Arc::clone(&user);
            async move {
                auth.log_in(user).with_fresh(is_fresh).await?;
                Ok::<_, LoginError>(Response::new(String::new()))
            }
        });
        let request = self.request(Method::GET, "/", String::new());
        let response = layer.layer(sign_in).oneshot(request).await?;
        self.keep_cookies(&Uri::from_static("/"), response.headers());
        Ok(())
    }

    fn request<B>(&self, method: Method, target: &str, body: B) -> Request<B> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = target.parse().expect("`target` is a valid request target");
        *request.headers_mut() = self.headers.clone();
        if let Some(cookies) = self.jar.cookie_header(request.uri().path(), self.clock.now()) {
            request.headers_mut().append(header::COOKIE, cookies);
        }
        request.extensions_mut().insert(ClientAddr(self.address));
        request
    }

    fn keep_cookies(&mut self, uri: &Uri, headers: &HeaderMap) {
        for set_cookie in headers.get_all(header::SET_COOKIE) {
            self.jar.receive(set_cookie, uri.path(), self.clock.now());
        }
    }

    /// Sends a GET request.
    pub async fn get<R>(&mut self, target: &str) -> TestResponse
    where
        S: Service<Request<String>, Response = Response<R>> + Clone,
        S::Error: Debug,
        R: Body,
        R::Error: Debug,
    {
        self.send(Method::GET, target, String::new()).await
    }

    /// Sends a POST request with these form fields.
    pub async fn post<R>(&mut self, target: &str, form: &[(&str, &str)]) -> TestResponse
    where
        S: Service<Request<String>, Response = Response<R>> + Clone,
        S::Error: Debug,
        R: Body,
        R::Error: Debug,
    {
        self.try_post(target, form).await.expect("the service returns a response")
    }

    /// Does the same as [`post`](Self::post), for a service that may fail.
    ///
    /// # Errors
    ///
    /// Returns an error if the service fails, or if the body can't be read to its end.
    pub async fn try_post<R>(
        &mut self,
        target: &str,
        form: &[(&str, &str)],
    ) -> Result<TestResponse, String>
    where
        S: Service<Request<String>, Response = Response<R>> + Clone,
        S::Error: Debug,
        R: Body,
        R::Error: Debug,
    {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let content_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        let before = self.headers.insert(header::CONTENT_TYPE, content_type);
        let response = self.try_send(Method::POST, target, body).await;
        match before {
            Some(before) => self.headers.insert(header::CONTENT_TYPE, before),
            None => self.headers.remove(header::CONTENT_TYPE),
        };
        response
    }

    /// Sends a request, keeps the cookies of the response, and reads its body.
    pub async fn send<R>(&mut self, method: Method, target: &str, body: String) -> TestResponse
    where
        S: Service<Request<String>, Response = Response<R>> + Clone,
        S::Error: Debug,
        R: Body,
        R::Error: Debug,
    {
        self.try_send(method, target, body).await.expect("the service returns a response")
    }

    /// Does the same as [`send`](Self::send), for a service that may fail.
    ///
    /// # Errors
    ///
    /// Returns an error if the service fails, or if the body can't be read to its end.
    pub async fn try_send<R>(
        &mut self,
        method: Method,
        target: &str,
        body: String,
    ) -> Result<TestResponse, String>
    where
        S: Service<Request<String>, Response = Response<R>> + Clone,
        S::Error: Debug,
        R: Body,
        R::Error: Debug,
    {
        let request = self.request(method, target, body);
        let uri = request.uri().clone();
        let response = self.service.clone().oneshot(request).await;
        let (head, body) = response.map_err(|error| format!("{error:?}"))?.into_parts();
        self.keep_cookies(&uri, &head.headers);
        let body = body.collect().await.map_err(|error| format!("{error:?}"))?.to_bytes();
        Ok(TestResponse {
            status: head.status,
            headers: head.headers,
            body,
            extensions: head.extensions,
        })
    }
}
