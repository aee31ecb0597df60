//! Guards: layers that let a request through or answer it.
//!
//! | look for | in |
//! | --- | --- |
//! | who passes | `requirement` |
//! | what the others are told | `refusal` |
//! | the decision about one request | `gate` |
//! | the layer around a service | `service`, `future` |
//! | a body for any answer | `body` |

mod body;
mod future;
mod gate;
mod refusal;
mod requirement;
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
pub(crate) use gate::Gate;
#[cfg(feature = "axum")]
pub(crate) use gate::{answer_fault, missing_layer, refuse};
pub(crate) use refusal::Answers;
pub use refusal::Refusal;
pub use requirement::Rejection;
pub(crate) use requirement::Requirement;
pub use service::GuardService;

use crate::layer::Config;
use crate::{BuildError, Message};

/// Lets some requests through and answers the others; a layer for a route or a whole service. With
/// axum, use it as `Router::route_layer` or `Router::layer`.
///
/// Made by a [`LoginLayer`](crate::LoginLayer), which must be around it: without it every request
/// is answered with 500, and the log says what to do.
///
/// | who comes | is told |
/// | --- | --- |
/// | nobody is logged in | 303 to the login page with `next`, or 401 without a login page |
/// | the login is not fresh enough | 303 to the confirm page with `next`, or 401 without one |
/// | the user fails the test | 403 |
/// | a store failed | 503 with `Retry-After` |
///
/// Why somebody was refused is in the response's extensions as a [`Rejection`].
///
/// ```
/// # use std::time::Duration;
/// # use tower_keep::{Account, LoginLayer};
/// # fn example(auth: &LoginLayer<Account>) -> Result<(), tower_keep::BuildError> {
/// let members = auth.require_login();
/// let owner = auth.require_user(|user| user.login() == "ada");
/// let danger_zone = owner.and(auth.require_fresh_within(Duration::from_secs(600)));
/// let visitors_only = !auth.require_login();
/// let admins = auth.require_login().with_login_page("/admin/login")?;
/// # let _ = (members, danger_zone, visitors_only, admins); Ok(()) }
/// ```
///
/// **Every method is guarded**, `OPTIONS` too, unless the layer was built with
/// [`with_options_exempt`](crate::LoginLayerBuilder::with_options_exempt). For cross-origin
/// requests put tower-http's `CorsLayer` outside of the guard; it answers preflights itself.
#[must_use = "a guard does nothing until it is layered around a service"]
pub struct Guard<U> {
    config: Arc<Config<U>>,
    requirement: Requirement<U>,
    answers: Answers<U>,
    /// Joined with a guard of another layer, whose login is another one.
    is_mixed: bool,
}

impl<U: AuthUser> Guard<U> {
    pub(crate) fn new(config: Arc<Config<U>>, requirement: Requirement<U>) -> Self {
        Self { config, requirement, answers: Answers::default(), is_mixed: false }
    }

    /// Lets through who passes both. The answers are this guard's.
    ///
    /// Both must be of one layer; a guard joined of two layers' answers every request with 500.
    /// Layer one around the other instead.
    pub fn and(mut self, other: Self) -> Self {
        self.is_mixed |= self.is_mixed_with(&other);
        self.requirement = Requirement::All(vec![self.requirement, other.requirement]);
        self
    }

    /// Lets through who passes either. The answers are this guard's; both must be of one layer.
    pub fn or(mut self, other: Self) -> Self {
        self.is_mixed |= self.is_mixed_with(&other);
        self.requirement = Requirement::Any(vec![self.requirement, other.requirement]);
        self
    }

    fn is_mixed_with(&self, other: &Self) -> bool {
        other.is_mixed || !Arc::ptr_eq(&self.config, &other.config)
    }

    /// Sends those who are not logged in here, instead of to the layer's login page. Tell the layer
    /// too, with [`add_never_next`](crate::LoginLayerBuilder::add_never_next), that nobody is to be
    /// sent back to this page.
    ///
    /// # Errors
    ///
    /// The page is neither a path on this site nor a URL.
    pub fn with_login_page(mut self, page: &str) -> Result<Self, BuildError> {
        self.answers.set_pages(Some(page.into()), None, &self.config.next_field)?;
        Ok(self)
    }

    /// Sends those whose login is not fresh enough here, instead of to the layer's confirm page.
    ///
    /// # Errors
    ///
    /// The page is neither a path on this site nor a URL.
    pub fn with_confirm_page(mut self, page: &str) -> Result<Self, BuildError> {
        self.answers.set_pages(None, Some(page.into()), &self.config.next_field)?;
        Ok(self)
    }

    /// What the login page tells those whom this guard sends there; cut after 256 bytes.
    pub fn with_login_message(mut self, message: impl Into<Message>) -> Self {
        self.answers.login_message = Some(message.into());
        self
    }

    /// What the confirm page tells those whom this guard sends there; cut after 256 bytes.
    pub fn with_confirm_message(mut self, message: impl Into<Message>) -> Self {
        self.answers.confirm_message = Some(message.into());
        self
    }

    /// Answers those whom this guard refuses, in place of the layer's answers.
    pub fn with_refusal_handler(
        mut self,
        handler: impl Fn(&Refusal<'_, U>) -> Response<Bytes> + Send + Sync + 'static,
    ) -> Self {
        self.answers.handler = Some(Arc::new(handler));
        self
    }
}

/// Lets through whom the guard would refuse, and refuses the others with 403.
///
/// Nobody is let through too where the guard would refuse them: to keep out the banned, write
/// `auth.require_login().and(!auth.require_user(|user| user.is_banned()))`.
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
            answers: self.answers.clone(),
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
            answers: self.answers.clone(),
            is_mixed: self.is_mixed,
        }
    }
}

impl<U> fmt::Debug for Guard<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("requirement", &self.requirement).finish_non_exhaustive()
    }
}
