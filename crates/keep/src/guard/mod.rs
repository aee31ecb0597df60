//! Guards: layers that pass a request on or respond themselves.
//!
//! [`Guard`] has the settings and an example. [`LoginLayer::require_login`] and the methods beside
//! it create guards.
//!
//! [`LoginLayer::require_login`]: crate::LoginLayer::require_login

// To read about …                        open …
// the requests that pass                 requirement.rs; why others don't: reason.rs
// the response to a rejected request     rejection.rs
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
use tower_keep_core::AuthUser;
use tower_layer::Layer;

pub use body::GuardBody;
pub use future::GuardFuture;
pub use reason::Rejection;
pub use rejection::RejectionContext;
pub use service::GuardService;

use self::gate::Gate;
use self::rejection::handler_from;
use self::requirement::Requirement;
use crate::error::BuildError;
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
/// | if | the response is |
/// | --- | --- |
/// | no user is logged in | 303 to the login page with `next`, or 401 without a login page |
/// | the login is not fresh enough | 303 to the confirm page with `next`, or 401 without one |
/// | the user fails the test of [`require_user`](crate::LoginLayer::require_user) | 403 |
/// | a store failed | 503 with `Retry-After` |
///
/// A login is *fresh* if the user has logged in or confirmed the login in the current session. A
/// login that a remember cookie has restored is not fresh.
///
/// The extensions of the response to a rejected request contain the reason as a [`Rejection`].
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
/// **Every method is guarded**, including `OPTIONS`, unless the layer was built with
/// [`with_options_exempt`](crate::LoginLayerBuilder::with_options_exempt). For cross-origin
/// requests, put tower-http's `CorsLayer` outside the guard; it responds to preflights itself.
#[must_use = "a guard does nothing until it is layered around a service"]
pub struct Guard<U> {
    config: Arc<Config<U>>,
    requirement: Requirement<U>,
    responses: Responses<U>,
    /// Whether this guard was joined with a guard of another layer. The two layers have different
    /// logins.
    is_mixed: bool,
}

impl<U: AuthUser> Guard<U> {
    pub(crate) fn new(config: Arc<Config<U>>, requirement: Requirement<U>) -> Self {
        Self { config, requirement, responses: Responses::default(), is_mixed: false }
    }

    /// Returns a guard that passes a request only if both guards pass it. The responses to rejected
    /// requests are those of this guard, not of `other`.
    ///
    /// Both guards must be of the same layer. If they are of two layers, the response to every
    /// request is 500. Wrap the service in one guard and then in the other instead.
    pub fn and(mut self, other: Self) -> Self {
        self.is_mixed |= self.is_mixed_with(&other);
        self.requirement = Requirement::All(vec![self.requirement, other.requirement]);
        self
    }

    /// Returns a guard that passes a request if at least one of the two guards passes it. The
    /// responses to rejected requests are those of this guard, not of `other`. Both guards must be
    /// of the same layer.
    pub fn or(mut self, other: Self) -> Self {
        self.is_mixed |= self.is_mixed_with(&other);
        self.requirement = Requirement::Any(vec![self.requirement, other.requirement]);
        self
    }

    fn is_mixed_with(&self, other: &Self) -> bool {
        other.is_mixed || !Arc::ptr_eq(&self.config, &other.config)
    }

    /// Sets the page to which this guard redirects if no user is logged in, in place of the layer's
    /// login page. Pass this page to [`with_never_next`](crate::LoginLayerBuilder::with_never_next)
    /// of the layer too, so that no user is sent back to it after a login.
    ///
    /// # Errors
    ///
    /// Returns an error if the page is neither a path on this site nor a URL.
    pub fn with_login_page(mut self, page: impl Into<String>) -> Result<Self, BuildError> {
        self.responses.login_page = Some(self.parse_page(page.into())?);
        Ok(self)
    }

    /// Sets the page to which this guard redirects if the login is not fresh enough, in place of
    /// the layer's confirm page.
    ///
    /// # Errors
    ///
    /// Returns an error if the page is neither a path on this site nor a URL.
    pub fn with_confirm_page(mut self, page: impl Into<String>) -> Result<Self, BuildError> {
        self.responses.confirm_page = Some(self.parse_page(page.into())?);
        Ok(self)
    }

    fn parse_page(&self, page: String) -> Result<Page, BuildError> {
        Ok(Page::parse(page)?.without_field(&self.config.next_field))
    }

    /// Sets the flash message for this guard's redirects to the login page. The message is cut after
    /// 256 bytes.
    pub fn with_login_message(mut self, message: impl Into<Message>) -> Self {
        self.responses.login_message = Some(message.into());
        self
    }

    /// Sets the flash message for this guard's redirects to the confirm page. The message is cut
    /// after 256 bytes.
    pub fn with_confirm_message(mut self, message: impl Into<Message>) -> Self {
        self.responses.confirm_message = Some(message.into());
        self
    }

    /// Sets a function that builds the response to each request that this guard rejects, in place
    /// of the layer's responses.
    pub fn with_rejection_handler(
        mut self,
        handler: impl Fn(&RejectionContext<'_, U>) -> Response<Bytes> + Send + Sync + 'static,
    ) -> Self {
        self.responses.handler = Some(handler_from(handler));
        self
    }
}

/// Passes the requests that the guard would reject, and rejects the others with 403.
///
/// The requests that pass include those without a logged-in user, if the guard would reject them.
/// So to reject banned users, write
/// `auth_layer.require_login().and(!auth_layer.require_user(|user| user.is_banned()))`.
impl<U> Not for Guard<U> {
    type Output = Self;

    fn not(mut self) -> Self {
        self.requirement = Requirement::Not(Box::new(self.requirement));
        self
    }
}

impl<S, U: AuthUser> Layer<S> for Guard<U> {
    type Service = GuardService<S, U>;

    fn layer(&self, inner: S) -> Self::Service {
        let gate = Gate {
            config: Arc::clone(&self.config),
            requirement: self.requirement.clone(),
            responses: self.responses.clone(),
            is_mixed: self.is_mixed,
        };
        GuardService::new(inner, Arc::new(gate))
    }
}

impl<U> Clone for Guard<U> {
    fn clone(&self) -> Self {
        Self {
            config: Arc::clone(&self.config),
            requirement: self.requirement.clone(),
            responses: self.responses.clone(),
            is_mixed: self.is_mixed,
        }
    }
}

impl<U> fmt::Debug for Guard<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("requirement", &self.requirement).finish_non_exhaustive()
    }
}
