//! The handle that handlers use: `AuthSession`.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use http::{Extensions, HeaderValue};
use tokio::sync::Notify;
use tower_keep_core::AuthUser;

use super::resolve::Purpose;
use super::server_side::change::abandon_session;
use super::server_side::resolve::Resolver;
use super::snapshot::{LoginCookies, Snapshot, VerifiedCookies};
use super::state::{BrowserLogin, CookieChange, Identity, Progress, Resolved, State};
use super::stateless;
use crate::client_kind::ClientKind;
use crate::cookie::flash::FlashCookie;
use crate::error::AuthError;
use crate::event::Event;
use crate::layer::config::Config;
use crate::loader::LoaderRequest;

/// A handle to the login of one request: it returns who is logged in, and logs in and out.
///
/// The [layer](crate::LoginLayer) puts an `AuthSession` into the request's extensions; with the
/// feature `axum` it is an extractor. The user is looked up when the first caller asks, and only
/// once per request, even if several callers ask at the same time. A clone is the same handle.
///
/// Once [`log_in`](Self::log_in) has returned `Ok`, the user is logged in, whatever the status of
/// the response is: every response carries the cookies. After the response's head is written, no
/// cookie can be sent, so changing the login is an error. A streamed body, a WebSocket or a spawned
/// task can still ask which user is logged in. It gets the user as of the request, even if the
/// user has logged out since; [`recheck`](Self::recheck) asks the store again. Because of such late
/// calls, a response is `no-store` if an
/// `AuthSession` of its request exists when the head is written: no cache may give one user's
/// stream to another user. If the response is the same for all users, drop the `AuthSession` before
/// the head is written.
///
/// ```
/// use tower_keep::{Account, LoginError};
///
/// type AuthSession = tower_keep::AuthSession<Account>;
///
/// async fn sign_in(auth: AuthSession, account: Account) -> Result<String, LoginError> {
///     auth.log_in(account).with_remember(true).await?;
///     Ok(auth.next_or_home().to_string()) // redirect there, with 303
/// }
///
/// async fn greet(auth: AuthSession) -> Result<String, tower_keep::AuthError> {
///     Ok(match auth.user().await? {
///         Some(user) => format!("Hello, {}", user.login_name()),
///         None => "Hello, stranger".into(),
///     })
/// }
/// ```
pub struct AuthSession<U>(pub(super) Arc<Inner<U>>);

pub(super) struct Inner<U> {
    pub(super) config: Arc<Config<U>>,
    pub(super) snapshot: Snapshot,
    /// The handle of another area's layer, which wraps this handle's layer.
    outer: Option<AuthSession<U>>,
    verified_cookies: OnceLock<VerifiedCookies>,
    pub(super) received_flash: OnceLock<Box<FlashCookie>>,
    state: Mutex<State<U>>,
    /// Wakes the callers that wait until another caller has resolved the login, or has stopped.
    resolved: Notify,
    /// Locked while a call changes the login. Created when the login is changed for the first time.
    change_lock: OnceLock<Box<tokio::sync::Mutex<()>>>,
    /// Whether the response depends on the request's cookies.
    is_cookie_dependent: AtomicBool,
    /// Whether the application has asked for the kind of the client.
    is_kind_dependent: AtomicBool,
}

impl<U> AuthSession<U> {
    pub(crate) fn new(config: Arc<Config<U>>, snapshot: Snapshot, outer: Option<Self>) -> Self {
        Self(Arc::new(Inner {
            config,
            snapshot,
            outer,
            verified_cookies: OnceLock::new(),
            received_flash: OnceLock::new(),
            state: Mutex::new(State::new()),
            resolved: Notify::new(),
            change_lock: OnceLock::new(),
            is_cookie_dependent: AtomicBool::new(false),
            is_kind_dependent: AtomicBool::new(false),
        }))
    }

    pub(crate) fn config(&self) -> &Arc<Config<U>> {
        &self.0.config
    }

    /// Whether the layer with this configuration has created this handle.
    pub(crate) fn belongs_to(&self, config: &Arc<Config<U>>) -> bool {
        Arc::ptr_eq(&self.0.config, config)
    }

    /// Locks the state. The lock is never held across an await. A poisoned lock can be used,
    /// because no code that runs under the lock panics between two changes of the state.
    pub(super) fn state(&self) -> MutexGuard<'_, State<U>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn mark_cookie_dependent(&self) {
        self.0.is_cookie_dependent.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_cookie_dependent(&self) -> bool {
        self.0.is_cookie_dependent.load(Ordering::Relaxed)
    }

    pub(super) fn is_kind_dependent(&self) -> bool {
        self.0.is_kind_dependent.load(Ordering::Relaxed)
    }

    /// Whether the application still holds a clone of this handle when the head is written.
    pub(super) fn has_other_clones(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Whether the request has a login cookie with a valid signature. Returns `false` if no call
    /// has verified the cookies yet.
    pub(super) fn has_valid_login_cookie(&self) -> bool {
        self.0.verified_cookies.get().is_some_and(VerifiedCookies::has_valid_login_cookie)
    }

    /// Returns the request's login cookies. The first call verifies their signatures.
    pub(super) fn verified_cookies(&self) -> &VerifiedCookies {
        self.0
            .verified_cookies
            .get_or_init(|| VerifiedCookies::open(&self.0.snapshot.cookies, &self.0.config))
    }

    /// Unlocks the state, and wakes the callers that wait for its `progress` to change.
    fn wake(&self, mut state: MutexGuard<'_, State<U>>) {
        let is_awaited = std::mem::take(&mut state.is_awaited);
        drop(state);
        if is_awaited {
            self.0.resolved.notify_waiters();
        }
    }

    /// Waits until no other call changes the login, and locks out other changes until the guard is
    /// dropped. A change that writes to a store awaits between its steps, and another change must
    /// not run in between.
    pub(super) async fn lock_changes(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, AuthError> {
        let guard = self.0.change_lock.get_or_init(Box::default).lock().await;
        if self.state().is_head_written { Err(AuthError::TOO_LATE) } else { Ok(guard) }
    }

    /// Seals the handle of a request that gets no response: from now on, changing the login fails.
    /// If the request has begun a login, its session ends, because no browser has its cookies.
    pub(crate) fn abandon(&self) {
        let unsent_sessions = {
            let mut state = self.state();
            state.is_head_written = true;
            std::mem::take(&mut state.unsent_sessions)
        };
        if let Some(sessions) = &self.config().sessions {
            for key in unsent_sessions {
                abandon_session(self.config(), sessions, key);
            }
        }
    }
}

impl<U: AuthUser> AuthSession<U> {
    /// Returns the handle that the layer with this configuration has put into the extensions. The
    /// extensions hold only the innermost layer's handle. Each handle refers to the handle of the
    /// layer around it.
    pub(crate) fn find(extensions: &Extensions, config: &Arc<Config<U>>) -> Option<Self> {
        let mut auth = extensions.get::<Self>();
        while let Some(candidate) = auth {
            if candidate.belongs_to(config) {
                return Some(candidate.clone());
            }
            auth = candidate.0.outer.as_ref();
        }
        None
    }

    /// Returns the user who is logged in, or `None` if no user is logged in.
    ///
    /// The user is looked up once per request, and later calls return the same user. In a WebSocket
    /// or an event stream, use [`recheck`](Self::recheck).
    ///
    /// # Errors
    ///
    /// Returns an error if the store or a request loader fails, and
    /// [`ForeignOrigin`](crate::error::AuthErrorKind::ForeignOrigin) if a page of another site has
    /// opened this WebSocket. It is then unknown who is logged in: respond with an error, never as
    /// for an anonymous user.
    pub async fn user(&self) -> Result<Option<Arc<U>>, AuthError> {
        self.ensure_resolved().await?;
        Ok(self.state().identity.user().cloned())
    }

    /// Returns the user who is logged in, or the application's own anonymous user.
    ///
    /// Returns `None` only if no user is logged in and the layer was built without
    /// [`with_anonymous_user`](crate::LoginLayerBuilder::with_anonymous_user).
    ///
    /// # Errors
    ///
    /// Returns an error in the cases of [`user`](Self::user).
    pub async fn user_or_anonymous(&self) -> Result<Option<Arc<U>>, AuthError> {
        let user = self.user().await?;
        Ok(user.or_else(|| self.0.config.anonymous_user.as_ref().map(|anonymous| anonymous())))
    }

    /// Returns the user of a login that was forced although the user is [not
    /// active](AuthUser::is_active). [`user`](Self::user) returns `None` for such a login, and
    /// guards treat it as no login.
    ///
    /// # Errors
    ///
    /// Returns an error in the cases of [`user`](Self::user).
    pub async fn inactive_user(&self) -> Result<Option<Arc<U>>, AuthError> {
        self.ensure_resolved().await?;
        Ok(match &self.state().identity {
            Identity::Session { user, is_active: false, .. } => Some(Arc::clone(user)),
            _ => None,
        })
    }

    /// Checks whether the login is fresh: the user has logged in here by proving who they are, and
    /// has used the same client since (as far as session protection is on).
    ///
    /// A login is not fresh if the remember cookie has restored it, if a request loader has found
    /// the user, if a bearer token carries it and the user's proof is ten minutes old, or if the
    /// application has set [`with_fresh(false)`][with_fresh].
    ///
    /// [with_fresh]: crate::session::LoginBuilder::with_fresh
    ///
    /// This is also `true` for a forced login of an inactive user, for whom [`user`](Self::user)
    /// returns `None`: check both, or use a guard.
    ///
    /// # Errors
    ///
    /// Returns an error in the cases of [`user`](Self::user).
    pub async fn is_fresh(&self) -> Result<bool, AuthError> {
        Ok(self.fresh_since().await?.is_some())
    }

    /// Checks whether the user has proved who they are at most this long ago.
    ///
    /// # Errors
    ///
    /// Returns an error in the cases of [`user`](Self::user).
    pub async fn is_fresh_within(&self, age: Duration) -> Result<bool, AuthError> {
        let now = self.0.config.now();
        Ok(self.fresh_since().await?.is_some_and(|since| is_recent(since, now, age)))
    }

    async fn fresh_since(&self) -> Result<Option<u32>, AuthError> {
        self.ensure_resolved().await?;
        Ok(self.state().identity.fresh_since())
    }

    /// Checks whether a bearer token carries the login of this request; see
    /// [`with_bearer_sessions`](crate::LoginLayerBuilder::with_bearer_sessions). It is `false` if
    /// the token is not valid.
    ///
    /// # Errors
    ///
    /// Returns an error in the cases of [`user`](Self::user).
    pub async fn is_bearer(&self) -> Result<bool, AuthError> {
        self.ensure_resolved().await?;
        Ok(matches!(self.state().browser_login, BrowserLogin::Bearer(_)))
    }

    /// Checks whether the browser holds a remember cookie: the request sent one that has a valid
    /// signature and has not expired, or this response sets one. The user of the cookie is not
    /// looked up, and may no longer exist.
    pub fn is_remembered(&self) -> bool {
        self.mark_cookie_dependent();
        match self.state().remember_cookie {
            CookieChange::Set(_) => true,
            CookieChange::Clear => false,
            CookieChange::Keep => {
                let expires = self.verified_cookies().remember_expires();
                expires.is_some_and(|expires| self.0.config.now() < expires)
            }
        }
    }

    /// Returns the client's address, or `None` if it is unknown. Behind trusted proxies, this is
    /// the address that the proxies report.
    pub fn client_addr(&self) -> Option<std::net::IpAddr> {
        self.0.snapshot.request.client
    }

    /// Returns what kind of client has sent the request: it decides the form of a response to a
    /// rejected or failed request. The response then has the headers that tell the kind in `Vary`.
    pub fn client_kind(&self) -> ClientKind {
        if !self.0.config.all_are_pages {
            self.0.is_kind_dependent.store(true, Ordering::Relaxed);
        }
        self.kind()
    }

    /// Returns the [`client_kind`](Self::client_kind), for a response that says itself what it
    /// depends on.
    pub(crate) fn kind(&self) -> ClientKind {
        let Snapshot { hints, request, bearer, .. } = &self.0.snapshot;
        match hints.kind(&request.method, self.0.config.all_are_pages) {
            // A program has sent the token, and can't use a login page.
            ClientKind::Page | ClientKind::Htmx if bearer.is_some() => ClientKind::Other,
            kind => kind,
        }
    }

    /// Whether the request has a bearer token of this crate, so that cookies are neither read nor
    /// set.
    pub(crate) fn is_bearer_request(&self) -> bool {
        self.0.snapshot.bearer.is_some()
    }

    /// Returns the parts of the request that loaders can read.
    pub(crate) fn request(&self) -> &LoaderRequest {
        &self.0.snapshot.request
    }

    /// Whether the response is shown as a page in the tab of a browser.
    pub(crate) fn is_navigation(&self) -> bool {
        let Snapshot { hints, request, .. } = &self.0.snapshot;
        hints.is_navigation(&request.method, self.0.config.all_are_pages)
    }

    /// Returns the `Content-Type` of a client of gRPC.
    pub(crate) fn grpc_content_type(&self) -> Option<&HeaderValue> {
        self.0.snapshot.hints.grpc_content_type()
    }

    /// Whether a browser has sent the request, and says so.
    pub(crate) fn has_fetch_metadata(&self) -> bool {
        self.0.snapshot.hints.has_fetch_metadata()
    }

    /// Returns an error if a page of another site has opened a WebSocket with the cookies of this
    /// site.
    pub(super) fn check_origin(&self) -> Result<(), AuthError> {
        if self.0.snapshot.is_foreign_upgrade { Err(AuthError::FOREIGN_ORIGIN) } else { Ok(()) }
    }

    /// Resolves which user is logged in, once per request.
    ///
    /// The first caller resolves the login, and other callers wait for the result. If the first
    /// caller's future is dropped before it has finished, another caller resolves the login.
    ///
    /// This is not an `async fn`: its future would wrap the inner future, and every request that
    /// asks for the user polls it.
    pub(crate) fn ensure_resolved(&self) -> impl Future<Output = Result<(), AuthError>> + Send {
        self.ensure_resolved_for(Purpose::Use)
    }

    pub(super) async fn ensure_resolved_for(&self, purpose: Purpose) -> Result<(), AuthError> {
        self.mark_cookie_dependent();
        self.check_origin()?;
        loop {
            let notified = match &mut *self.state() {
                State { is_decided: true, .. } => return Ok(()),
                State { progress: Progress::Done(outcome), .. } => return outcome.clone(),
                State { progress: progress @ Progress::NotStarted, .. } => {
                    *progress = Progress::Running;
                    None
                }
                State { progress: Progress::Running, is_awaited, .. } => {
                    *is_awaited = true;
                    Some(self.0.resolved.notified())
                }
            };
            match notified {
                Some(notified) => notified.await,
                None => {
                    let turn = ResolvingTurn { auth: self, is_finished: false };
                    let (config, snapshot) = (&*self.0.config, &self.0.snapshot);
                    config.raise(Event::Accessed);
                    // The resolvers are awaited here and not in another `async fn`, because every
                    // request that asks for the user polls this future.
                    if let (Some(token), Some(sessions)) = (&snapshot.bearer, &config.sessions) {
                        let resolver = Resolver { config, sessions, snapshot };
                        return turn.finish(Box::pin(resolver.resolve_bearer(token)).await);
                    }
                    let resolved = match (&self.verified_cookies().cookies, &config.sessions) {
                        (LoginCookies::Stateless { session, remember }, _) => {
                            let cookies = (session.as_ref(), remember.as_ref());
                            stateless::resolve::resolve(config, snapshot, cookies.0, cookies.1)
                                .await
                        }
                        (LoginCookies::ServerSide { session, remember }, Some(sessions)) => {
                            let resolver = Resolver { config, sessions, snapshot };
                            resolver.resolve(session.as_ref(), remember.as_ref(), purpose).await
                        }
                        // This never happens: without server-side sessions, the layer reads the
                        // cookies as stateless cookies.
                        (LoginCookies::ServerSide { .. }, None) => Err(AuthError::NO_SESSIONS),
                    };
                    return turn.finish(resolved);
                }
            }
        }
    }

    /// Calls the closure with the identity. Until the login is resolved, the identity is anonymous.
    pub(crate) fn with_identity<T>(&self, read: impl FnOnce(&Identity<U>) -> T) -> T {
        read(&self.state().identity)
    }
}

/// Held by the caller that resolves the login. If it is dropped before `finish`, another caller
/// resolves the login.
struct ResolvingTurn<'a, U> {
    auth: &'a AuthSession<U>,
    is_finished: bool,
}

impl<U: AuthUser> ResolvingTurn<'_, U> {
    fn finish(mut self, resolved: Result<Resolved<U>, AuthError>) -> Result<(), AuthError> {
        self.is_finished = true;
        let mut state = self.auth.state();
        // If the handler has logged a user in or out in the meantime, `apply_resolved` keeps that
        // identity.
        let outcome = resolved.map(|resolved| state.apply_resolved(resolved));
        state.progress = Progress::Done(outcome.clone());
        self.auth.wake(state);
        outcome
    }
}

impl<U> Drop for ResolvingTurn<'_, U> {
    fn drop(&mut self) {
        if !self.is_finished {
            let mut state = self.auth.state();
            state.progress = Progress::NotStarted;
            self.auth.wake(state);
        }
    }
}

/// Whether `since` is at most `age` ago. A time in the future counts as now.
pub(crate) fn is_recent(since: u32, now: u32, age: Duration) -> bool {
    u64::from(now.saturating_sub(since)) <= age.as_secs()
}

impl<U> Clone for AuthSession<U> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// Shows nothing of the login.
impl<U> fmt::Debug for AuthSession<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthSession").finish_non_exhaustive()
    }
}
