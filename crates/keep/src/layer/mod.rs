//! The layer: it puts an [`AuthSession`] into each request, and writes the cookies that the request
//! changes into the response.

mod build;
pub(crate) mod builder;
pub(crate) mod config;
mod future;
mod service;
mod sessions;
mod upkeep;

use std::fmt;
use std::sync::Arc;

use tower_keep_core::{AuthUser, CounterStore, StoreError, UserRoles, UserStore};
use tower_layer::Layer;

use self::config::Config;
use crate::guard::Guard;
use crate::guard::requirement::Requirement;
use crate::keys::Keys;
use crate::login::handle::AuthSession;
use crate::throttle::limiter::Limiter;

pub use builder::LoginLayerBuilder;
pub use future::LoginFuture;
pub use service::LoginService;

/// A [`Layer`] that provides the login of each request to the service that it wraps.
///
/// The layer also creates the [guards](Guard). A clone is the same layer. See the [crate's
/// docs](crate) for an example, and [`LoginLayerBuilder`] for the settings.
///
/// Put the layer *outside* of everything that asks for the login, guards included. If nothing asks
/// for the login of a request, the layer only makes a few cheap clones: no cookie is verified, no
/// user is loaded, and no header is set.
pub struct LoginLayer<U> {
    pub(crate) config: Arc<Config<U>>,
}

impl<U: AuthUser> LoginLayer<U> {
    /// Creates a builder for a layer with these keys, which loads users from this store.
    ///
    /// The store's type is a parameter of the builder, because only some stores [keep
    /// sessions](LoginLayerBuilder::with_sessions). It is not a parameter of the layer.
    pub fn builder<S: UserStore<User = U> + 'static>(store: S, keys: Keys) -> LoginLayerBuilder<S> {
        LoginLayerBuilder::new(store, keys)
    }

    /// Wraps a service, as [`Layer::layer`] does. Callers need not import the trait.
    pub fn layer<S>(&self, inner: S) -> LoginService<S, U> {
        LoginService::new(inner, Arc::clone(&self.config))
    }

    /// Returns a guard that requires a user to be logged in.
    pub fn require_login(&self) -> Guard<U> {
        self.guard(Requirement::LoggedIn)
    }

    /// Returns a guard that requires a fresh login: the user has logged in here by proving who they
    /// are, and has used the same client since (as far as session protection is on). The guard
    /// rejects a login that the remember cookie has restored, a user whom a request loader has
    /// found, and a login with a bearer token, once the user's proof is ten minutes old.
    pub fn require_fresh(&self) -> Guard<U> {
        self.guard(Requirement::Fresh { within: None })
    }

    /// Returns a guard that requires a login whose user has proved who they are at most this long
    /// ago.
    pub fn require_fresh_within(&self, age: std::time::Duration) -> Guard<U> {
        self.guard(Requirement::Fresh { within: Some(age) })
    }

    /// Returns a guard that requires a user who is logged in, and for whom the closure returns
    /// `true`. If it returns `false`, the response is 403, never a redirect.
    ///
    /// ```
    /// # use tower_keep::{Account, LoginLayer};
    /// # fn example(auth_layer: &LoginLayer<Account>) {
    /// let admins = auth_layer.require_user(|user| user.login_name() == "admin");
    /// let guard = admins.and(auth_layer.require_fresh());
    /// # let _ = guard; }
    /// ```
    pub fn require_user(&self, test: impl Fn(&U) -> bool + Send + Sync + 'static) -> Guard<U> {
        self.guard(Requirement::User(Arc::new(test)))
    }

    /// Like [`require_user`](Self::require_user), but the test asks a store. If it returns an error
    /// of any kind, the response is 503, and an error line in the log names the store and the
    /// cause. The layer sets no time limit; the test should.
    ///
    /// Joined guards run their tests in order, and only while the result matters. So put a test
    /// that asks no store first.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use tower_keep::store::{StoreError, StoreErrorKind};
    /// use tower_keep::{Account, LoginLayer};
    /// # #[derive(Clone)] struct Bans;
    /// # impl Bans { async fn contains(&self, _: &str) -> std::io::Result<bool> { Ok(false) } }
    ///
    /// # fn example(auth_layer: &LoginLayer<Account>, bans: Bans) {
    /// let not_banned = auth_layer.require_user_async(move |user: Arc<Account>| {
    ///     let bans = bans.clone();
    ///     async move {
    ///         let is_banned = bans.contains(user.login_name()).await;
    ///         is_banned.map(|is_banned| !is_banned).map_err(|error| {
    ///             StoreError::new(StoreErrorKind::Unavailable, "bans").with_source(error)
    ///         })
    ///     }
    /// });
    /// # let _ = not_banned; }
    /// ```
    pub fn require_user_async<F, Fut>(&self, test: F) -> Guard<U>
    where
        F: Fn(Arc<U>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<bool, StoreError>> + Send + 'static,
    {
        self.guard(Requirement::UserAsync(Arc::new(move |user| Box::pin(test(user)))))
    }

    /// Returns a guard that requires a user who is logged in, and has at least one of these roles.
    /// If no user is logged in, the response is that of [`require_login`](Self::require_login), and
    /// otherwise 403. If there are no roles in `roles`, no user passes.
    ///
    /// ```
    /// use tower_keep::{LoginLayer, UserRoles};
    /// # use std::borrow::Cow;
    /// # use tower_keep::{AuthUser, UserId};
    ///
    /// #[derive(Clone, Copy, PartialEq)]
    /// enum Role { Admin, Editor }
    /// struct Member { roles: Vec<Role> }
    /// # impl AuthUser for Member {
    /// #     fn id(&self) -> UserId { 1.into() }
    /// #     fn security_stamp(&self) -> Cow<'_, [u8]> { Cow::Borrowed(b"") }
    /// # }
    ///
    /// impl UserRoles for Member {
    ///     type Role = Role;
    ///     fn has_role(&self, role: &Role) -> bool { self.roles.contains(role) }
    /// }
    /// # fn example(auth_layer: &LoginLayer<Member>) {
    /// let staff = auth_layer.require_any_role([Role::Admin, Role::Editor]);
    /// # let _ = staff; }
    /// ```
    pub fn require_any_role<R: Into<U::Role>>(&self, roles: impl IntoIterator<Item = R>) -> Guard<U>
    where
        U: UserRoles,
    {
        let roles: Vec<U::Role> = roles.into_iter().map(Into::into).collect();
        self.require_user(move |user| roles.iter().any(|role| user.has_role(role)))
    }

    /// Creates a [`Limiter`] whose counters are in this store.
    ///
    /// ```
    /// use tower_keep::throttle::Limiter;
    /// use tower_keep::{Account, LoginLayer};
    /// use tower_keep_memory::MemoryStore;
    ///
    /// fn limiter(auth_layer: &LoginLayer<Account>, store: MemoryStore<Account>) -> Limiter {
    ///     auth_layer.limiter(store)
    /// }
    /// ```
    pub fn limiter(&self, store: impl CounterStore + 'static) -> Limiter {
        let Config { keyring, clock, .. } = &*self.config;
        Limiter::new(Arc::new(store), keyring.counters.clone(), Arc::clone(clock))
    }

    /// Returns the `AuthSession` that this layer has put into the extensions of a request, even if
    /// layers of other areas wrap the same handler.
    pub fn auth_session(&self, extensions: &http::Extensions) -> Option<AuthSession<U>> {
        AuthSession::find(extensions, &self.config)
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
            .field("session_cookie", &self.config.session_cookie.name())
            .field("remember_cookie", &self.config.remember_cookie.name())
            .finish_non_exhaustive()
    }
}
