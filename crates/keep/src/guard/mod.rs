//! Guards: layers that pass a request on or respond themselves.
//!
//! [`Guard`] has the settings and an example. [`LoginLayer::require_login`] and the methods beside
//! it create guards.
//!
//! [`LoginLayer::require_login`]: crate::LoginLayer::require_login

// To read about …                        open …
// the requests that pass                 requirement.rs; why others don't: reason.rs
// the response to a rejected request     rejection.rs; its form: crate::response
// the decision about one request         gate.rs
// the layer around a service             service.rs, future.rs
// a body for every response              body.rs

mod body;
mod future;
pub(crate) mod gate;
pub(crate) mod reason;
pub(crate) mod rejection;
pub(crate) mod requirement;
mod service;

use std::fmt;
use std::ops::Not;
use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http::request::Parts;
use tower_keep_core::AuthUser;
use tower_layer::Layer;

pub use body::GuardBody;
pub use future::GuardFuture;
pub use reason::Rejection;
pub use rejection::{AuthRejection, RejectionContext};
pub use service::GuardService;

use self::gate::{Gate, check, fail, missing_layer, reject};
use self::rejection::handler_from;
use self::requirement::Requirement;
use crate::error::{BuildError, ErrorContext};
use crate::flash::Message;
use crate::layer::config::{Config, Responses};
use crate::page::Page;

/// A layer that passes only some requests to a route or a whole service, and rejects the others.
///
/// With axum, use it as `Router::route_layer` or `Router::layer`.
///
/// A [`LoginLayer`](crate::LoginLayer) creates guards, and must be around them. Otherwise the
/// response to every request is 500, and the log says what to do.
///
/// A login is *fresh* if the user has logged in or confirmed the login in the current session. A
/// login that a remember cookie has restored is not fresh.
///
/// # Responses
///
/// Each [kind of client](crate::client::ClientKind) gets a response that it can read:
///
/// | client | no user is logged in | the login is not fresh enough | the user is not allowed in | a store has failed |
/// | --- | --- | --- | --- | --- |
/// | gRPC, gRPC-Web | `grpc-status` 16 | 16 | 7 | 14 |
/// | WebSocket, server-sent events | 401 | 401 | 403 | 503 |
/// | htmx | 401, `HX-Redirect` to the login page with `next` | 401, `HX-Redirect` to the confirm page | 403 | 503 |
/// | page | 303 to the login page with `next`, and a flash message | 303 to the confirm page | 403 page | 503 page |
/// | any other | 401 | 401, with the allowed age | 403 | 503 |
///
/// Without a login page or confirm page, the response is a 401. A 401 has a challenge. A 503 has
/// `Retry-After`. WebSockets, event streams and all other clients get a problem (RFC 9457) of one
/// of the [types](crate::problem) of this crate; htmx gets a paragraph of HTML; gRPC gets no body.
/// No cache may store these responses, and `Vary` names the headers that they depend on.
///
/// For htmx, `next` is the page in `HX-Current-URL`, if it has this site's origin: the [public
/// origin](crate::LoginLayerBuilder::with_public_origin) or, without one, the request's host. For a
/// boosted link, `next` is the link's target.
///
/// To send something else, set a page, a message, a [rejection
/// handler](Self::with_rejection_handler) or an [error handler](Self::with_error_handler) of this
/// guard or of the layer. The extensions of the response to a rejected request contain the reason
/// as a [`Rejection`].
///
/// Whatever the table says, a WebSocket that a page of another site has opened with the cookies of
/// this site gets a 403; see
/// [`with_allowed_origins`](crate::LoginLayerBuilder::with_allowed_origins).
///
/// For cross-origin requests, let tower-http's `CorsLayer` expose the headers `grpc-status`,
/// `grpc-message`, `problem-type`, `problem-max-age`, `retry-after` and `www-authenticate`.
///
/// # Examples
///
/// ```
/// # use std::time::Duration;
/// # use tower_keep::{Account, LoginLayer};
/// # fn example(auth_layer: &LoginLayer<Account>) -> Result<(), tower_keep::error::BuildError> {
/// let members = auth_layer.require_login();
/// let owner = auth_layer.require_user(|user| user.login_name() == "ada");
/// let danger_zone = owner.and(auth_layer.require_fresh_within(Duration::from_secs(600)));
/// let visitors_only = !auth_layer.require_login();
/// let admins = auth_layer.require_login().with_login_page("/admin/login")?;
/// # let _ = (members, danger_zone, visitors_only, admins); Ok(()) }
/// ```
///
/// A guard can also be used inside a handler; see [`check`](Self::check).
///
/// # Every method is guarded
///
/// This includes `OPTIONS`, unless the layer was built with
/// [`with_options_exempt`](crate::LoginLayerBuilder::with_options_exempt). For cross-origin
/// requests, put tower-http's `CorsLayer` outside the guard; it responds to preflights itself.
#[must_use = "a guard does nothing until it wraps a service or checks a request"]
pub struct Guard<U>(Arc<Gate<U>>);

impl<U: AuthUser> Guard<U> {
    pub(crate) fn new(config: Arc<Config<U>>, requirement: Requirement<U>) -> Self {
        Self(Arc::new(Gate {
            config,
            requirement,
            responses: Responses::default(),
            is_mixed: false,
        }))
    }

    /// Returns a guard that passes a request only if both guards pass it. The responses to rejected
    /// requests are those of this guard, not of `other`.
    ///
    /// This guard is checked first. `other` is not checked if no user is logged in, or if this
    /// guard forbids the request. If the login is only not fresh, `other` is checked too, so that
    /// no user is asked to confirm a login for a page that the user may not see anyway. If the
    /// store of a test fails, the response is 503.
    ///
    /// Both guards must be of the same layer. If they are of two layers, the response to every
    /// request is 500. Wrap the service in one guard and then in the other instead.
    pub fn and(self, other: Self) -> Self {
        self.joined(other, Requirement::All)
    }

    /// Returns a guard that passes a request if at least one of the two guards passes it. The
    /// responses to rejected requests are those of this guard, not of `other`. Both guards must be
    /// of the same layer.
    ///
    /// This guard is checked first, and `other` only if this one does not pass. If the store of a
    /// test fails, the request passes only if the other guard passes it; otherwise the response is
    /// 503.
    pub fn or(self, other: Self) -> Self {
        self.joined(other, Requirement::Any)
    }

    fn joined(self, other: Self, join: fn(Vec<Requirement<U>>) -> Requirement<U>) -> Self {
        let is_mixed = other.0.is_mixed || !Arc::ptr_eq(&self.0.config, &other.0.config);
        let other = other.0.requirement.clone();
        self.changed(|gate| {
            gate.is_mixed |= is_mixed;
            gate.requirement = join(vec![gate.requirement.clone(), other]);
        })
    }

    #[cfg(feature = "tonic")]
    pub(crate) fn gate(&self) -> &Arc<Gate<U>> {
        &self.0
    }

    fn changed(mut self, change: impl FnOnce(&mut Gate<U>)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// Sets the page to which this guard redirects if no user is logged in, in place of the layer's
    /// login page. Pass this page to [`with_never_next`](crate::LoginLayerBuilder::with_never_next)
    /// of the layer too, so that no user is sent back to it after a login.
    ///
    /// # Errors
    ///
    /// Returns an error if the page is neither a path on this site nor a URL.
    pub fn with_login_page(self, page: impl Into<String>) -> Result<Self, BuildError> {
        let page = self.parse_page(page.into())?;
        Ok(self.changed(|gate| gate.responses.login_page = Some(page)))
    }

    /// Sets the page to which this guard redirects if the login is not fresh enough, in place of
    /// the layer's confirm page.
    ///
    /// # Errors
    ///
    /// Returns an error if the page is neither a path on this site nor a URL.
    pub fn with_confirm_page(self, page: impl Into<String>) -> Result<Self, BuildError> {
        let page = self.parse_page(page.into())?;
        Ok(self.changed(|gate| gate.responses.confirm_page = Some(page)))
    }

    fn parse_page(&self, page: String) -> Result<Page, BuildError> {
        Ok(Page::parse(page)?.without_field(&self.0.config.next_field))
    }

    /// Sets the flash message for this guard's redirects to the login page. The message is cut
    /// after 256 bytes.
    pub fn with_login_message(self, message: impl Into<Message>) -> Self {
        self.changed(|gate| gate.responses.login_message = Some(message.into()))
    }

    /// Sets the flash message for this guard's redirects to the confirm page. The message is cut
    /// after 256 bytes.
    pub fn with_confirm_message(self, message: impl Into<Message>) -> Self {
        self.changed(|gate| gate.responses.confirm_message = Some(message.into()))
    }

    /// Sets a function that builds the response to each request that this guard rejects, in place
    /// of the layer's responses.
    pub fn with_rejection_handler(
        self,
        handler: impl Fn(&RejectionContext<'_, U>) -> Response<Bytes> + Send + Sync + 'static,
    ) -> Self {
        self.changed(|gate| gate.responses.handler = Some(handler_from(handler)))
    }

    /// Sets a function that builds the response to each request that fails at this guard, in place
    /// of the layer's; see
    /// [`LoginLayerBuilder::with_error_handler`](crate::LoginLayerBuilder::with_error_handler).
    pub fn with_error_handler(
        self,
        handler: impl Fn(&ErrorContext<'_>) -> Response<Bytes> + Send + Sync + 'static,
    ) -> Self {
        self.changed(|gate| gate.responses.error_handler = Some(Arc::new(handler)))
    }

    /// Lets every request with one of these paths pass, such as `/users.Users/LogIn`. Write the
    /// whole path; a wrong one opens nothing. With tonic, the generated constant `SERVICE_NAME` has
    /// the name of the service: `format!("/{}/LogIn", users_server::SERVICE_NAME)`. Calling this
    /// method again adds paths.
    ///
    /// A guard that is joined later with [`and`](Self::and) still guards these methods.
    pub fn with_exempt_grpc_methods<T: Into<String>>(
        self,
        paths: impl IntoIterator<Item = T>,
    ) -> Self {
        let paths = Requirement::GrpcMethod(paths.into_iter().map(Into::into).collect());
        self.changed(|gate| {
            gate.requirement = Requirement::Any(vec![paths, gate.requirement.clone()]);
        })
    }

    /// Wraps a service, as [`Layer::layer`] does. Callers need not import the trait.
    pub fn layer<S>(&self, inner: S) -> GuardService<S, U> {
        GuardService::new(inner, Arc::clone(&self.0))
    }

    /// Checks a request inside a handler, with the head of the request.
    ///
    /// ```
    /// use http::request::Parts;
    /// use tower_keep::Account;
    /// use tower_keep::guard::{AuthRejection, Guard};
    ///
    /// /// The state of the application.
    /// struct App { owners: Guard<Account> }
    ///
    /// // With axum: `async fn publish(State(app): State<App>, head: Parts) -> …`
    /// async fn publish(app: &App, head: &Parts) -> Result<&'static str, AuthRejection> {
    ///     app.owners.check(head).await?;
    ///     Ok("published")
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the response to send if this guard would not pass the request to a service that it
    /// is around.
    pub async fn check(&self, request: &Parts) -> Result<(), AuthRejection> {
        let Parts { method, headers, extensions, .. } = request;
        if self.0.exempts(method) {
            return Ok(());
        }
        let Some(auth) = self.0.auth_session(extensions) else {
            let response = missing_layer::<U>("a guard", method, headers, extensions);
            return Err(AuthRejection::new(response));
        };
        let checked = check(Arc::clone(&self.0), auth).await;
        let (auth, responses) = (&checked.auth, &self.0.responses);
        let response = match checked.outcome {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(rejection)) => reject(rejection, request.clone(), auth, responses),
            Err(error) => fail(&error, auth, responses),
        };
        Err(AuthRejection::new(response))
    }
}

/// Passes the requests that the guard would reject, and rejects the others with 403.
///
/// The requests that pass include those without a logged-in user, if the guard would reject them.
/// So to reject banned users, write `auth_layer.require_login().and(!auth_layer.require_user(|user|
/// user.is_banned()))`. If the guard asks a store that fails, the response is 503.
impl<U> Not for Guard<U> {
    type Output = Self;

    fn not(mut self) -> Self {
        let gate = Arc::make_mut(&mut self.0);
        gate.requirement = Requirement::Not(Box::new(gate.requirement.clone()));
        self
    }
}

impl<S, U: AuthUser> Layer<S> for Guard<U> {
    type Service = GuardService<S, U>;

    fn layer(&self, inner: S) -> Self::Service {
        Self::layer(self, inner)
    }
}

impl<U> Clone for Guard<U> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<U> fmt::Debug for Guard<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("requirement", &self.0.requirement).finish_non_exhaustive()
    }
}
