//! The layer: it puts a [`Login`](crate::Login) into each request, and writes what became of it into
//! the response.

mod build;
mod builder;
mod config;
mod future;
mod service;

use std::fmt;
use std::sync::Arc;

use tower_keep_core::{AuthUser, UserStore};
use tower_layer::Layer;

use crate::guard::{Guard, Requirement};
use crate::{Keys, Login};

pub use builder::LoginLayerBuilder;
pub(crate) use config::Config;
pub use future::LoginFuture;
pub use service::LoginService;

/// Knows who is logged in, for every service it is wrapped around.
///
/// One value does it all: it is the layer, it makes the [guards](Guard), and a clone is the same
/// layer again. See the [crate's docs](crate) for an example, and [`LoginLayerBuilder`] for the
/// settings.
///
/// Put it *outside* of everything that asks for the login, guards too. A request that never asks
/// costs a few cheap clones; no cookie is verified, no user loaded, no header set.
pub struct LoginLayer<U> {
    pub(crate) config: Arc<Config<U>>,
}

impl<U: AuthUser> LoginLayer<U> {
    /// Starts a layer whose users are in this store and whose cookies are made with these keys.
    ///
    /// The builder knows the store's type, since only some stores [keep
    /// sessions](LoginLayerBuilder::with_sessions); the layer does not.
    pub fn builder<S: UserStore<User = U> + 'static>(store: S, keys: Keys) -> LoginLayerBuilder<S> {
        LoginLayerBuilder::new(store, keys)
    }

    /// Wraps a service; the same as [`Layer::layer`], without the trait in scope.
    pub fn layer<S>(&self, inner: S) -> LoginService<S, U> {
        LoginService::new(inner, Arc::clone(&self.config))
    }

    /// Lets through who is logged in.
    pub fn require_login(&self) -> Guard<U> {
        self.guard(Requirement::LoggedIn)
    }

    /// Lets through who has logged in here by proving who they are, not by the remember cookie or a
    /// request loader, and from the same client since (as session protection is set).
    pub fn require_fresh(&self) -> Guard<U> {
        self.guard(Requirement::Fresh { within: None })
    }

    /// Lets through who has proved who they are at most this long ago.
    pub fn require_fresh_within(&self, age: std::time::Duration) -> Guard<U> {
        self.guard(Requirement::Fresh { within: Some(age) })
    }

    /// Lets through whoever is logged in and passes the test. Who is logged in and fails it gets
    /// 403, never a redirect.
    ///
    /// ```
    /// # use tower_keep::{Account, LoginLayer};
    /// # fn example(auth: &LoginLayer<Account>) {
    /// let admins = auth.require_user(|user| user.login() == "admin");
    /// let guard = admins.and(auth.require_fresh());
    /// # let _ = guard; }
    /// ```
    pub fn require_user(&self, test: impl Fn(&U) -> bool + Send + Sync + 'static) -> Guard<U> {
        self.guard(Requirement::User(Arc::new(test)))
    }

    /// The handle that this layer has put into a request: the right one also where layers of
    /// several areas are around the same handler.
    pub fn login(&self, extensions: &http::Extensions) -> Option<Login<U>> {
        Login::find(extensions, &self.config)
    }

    fn guard(&self, requirement: Requirement<U>) -> Guard<U> {
        Guard::new(Arc::clone(&self.config), requirement)
    }
}

impl<S, U: AuthUser> Layer<S> for LoginLayer<U> {
    type Service = LoginService<S, U>;

    fn layer(&self, inner: S) -> Self::Service {
        Self::layer(self, inner)
    }
}

impl<U> Clone for LoginLayer<U> {
    fn clone(&self) -> Self {
        Self { config: Arc::clone(&self.config) }
    }
}

impl<U> fmt::Debug for LoginLayer<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginLayer")
            .field("session_cookie", &self.config.session.name())
            .field("remember_cookie", &self.config.remember.name())
            .finish_non_exhaustive()
    }
}
