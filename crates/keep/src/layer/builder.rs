//! The settings of a layer, with each default and its reason. `build` checks whether they agree.

use std::sync::Arc;
use std::time::Duration;

use tower_keep_core::{
    Clock, LoginStore, SessionLimit, SessionStore, SplitStore, SystemClock, UserStore, WhenFull,
};

use crate::Keys;
use crate::client::{ClientMatch, SessionProtection};
use crate::cookie::CookieSettings;
use crate::error::BuildError;
use crate::event::{Event, Listener};
use crate::flash::Message;
use crate::guard::{RejectionContext, Responses};
use crate::loader::RequestLoader;
use crate::page::Page;
use crate::target::LocalTarget;

const DAY: u64 = 24 * 3_600;

/// The text neither accuses anyone nor speaks of theft: a browser whose profile was restored from a
/// backup looks the same.
const REPLAYED: &str = "An old copy of one of your remembered logins was used, so that login \
    was ended. If that was not you, change your password.";

/// The settings of a [`LoginLayer`](crate::LoginLayer).
///
/// | setting | default | because |
/// | --- | --- | --- |
/// | session lifetime | until the browser is closed | Flask's default; for longer logins there is the remember cookie |
/// | idle limit | 7 days | a forgotten session ends |
/// | absolute limit | 30 days | NIST SP 800-63B: reauthenticate within 30 days |
/// | remember duration | 30 days | as long as the absolute limit; a year, as in Flask-Login, is long for a stolen laptop |
/// | server-side sessions | off | a store of users is enough to begin with; see [`with_sessions`](Self::with_sessions) |
/// | sessions per user | unlimited | people have many devices |
/// | rotation grace | 60 s | requests that were in flight have arrived by then |
/// | touch interval | 5 min | precise enough for people, and few writes |
/// | remember refresh | off | a remembered login ends at the time that was set when the user logged in |
/// | session protection | basic, exact | Flask-Login's defaults |
/// | login page, confirm page | none: 401 | an API has none |
/// | `next` | in the query, field `next` | works without another cookie |
/// | trusted proxies | none | forwarded headers are easy to forge |
/// | pages for every client | off | a polling request must not leave flash messages, or replace `next` |
/// | `OPTIONS` exempt from guards | off | a handler that serves any method would run without a login |
#[must_use = "call `build` to get the layer"]
pub struct LoginLayerBuilder<S: UserStore> {
    pub(super) store: S,
    /// Set if the layer keeps server-side sessions.
    pub(super) erase: Option<Erase<S>>,
    pub(super) settings: Settings<S::User>,
}

/// All settings except the store.
pub(super) struct Settings<U> {
    pub(super) limit: Option<SessionLimit>,
    pub(super) grace: Duration,
    pub(super) touch: Duration,
    pub(super) replay_message: Option<String>,
    pub(super) keys: Keys,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) area: String,
    pub(super) session: CookieSettings,
    pub(super) remember: CookieSettings,
    pub(super) remember_duration: Duration,
    pub(super) refresh_remember: bool,
    pub(super) persistent: bool,
    pub(super) idle: Option<Duration>,
    pub(super) absolute: Option<Duration>,
    pub(super) protection: SessionProtection,
    pub(super) client_match: ClientMatch,
    pub(super) proxies: Vec<String>,
    pub(super) loaders: Vec<Arc<dyn RequestLoader<U>>>,
    pub(super) listeners: Vec<Listener<U>>,
    pub(super) anonymous: Option<Arc<dyn Fn() -> Arc<U> + Send + Sync>>,
    pub(super) messages: bool,
    pub(super) responses: Responses<U>,
    pub(super) logout_page: LocalTarget,
    pub(super) never_next: Vec<LocalTarget>,
    pub(super) home: LocalTarget,
    pub(super) next_field: String,
    pub(super) next_in_cookie: bool,
    pub(super) public_origin: Option<String>,
    pub(super) exempts_options_method: bool,
    pub(super) all_are_pages: bool,
}

/// Erases the type of a store that keeps sessions.
pub(super) type Erase<S> = fn(S) -> Arc<dyn LoginStore<User = <S as UserStore>::User>>;

impl<S: UserStore + 'static> LoginLayerBuilder<S> {
    /// Turns on server-side sessions: the layer keeps a record of every login in the store that
    /// holds the users.
    ///
    /// Then logging out ends all copies of the cookies, sessions can be listed and ended from
    /// elsewhere ([`AuthSession::sessions`](crate::AuthSession::sessions)), and the use of a stolen
    /// remember cookie is noticed. An authenticated request is still one call to the store. Spawn
    /// [`upkeep`](crate::LoginLayer::upkeep) too.
    ///
    /// A layer with server-side sessions rejects the cookies of a layer without them, and the
    /// reverse: turning this on or off logs out all users.
    ///
    /// ```
    /// # use tower_keep::{Account, Keys, LoginLayer};
    /// # use tower_keep_memory::MemoryStore;
    /// # let (store, keys) = (MemoryStore::<Account>::new(), Keys::generate()?);
    /// let auth_layer = LoginLayer::builder(store, keys).with_sessions().build()?;
    /// # let _ = auth_layer;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_sessions(mut self) -> Self
    where
        S: LoginStore,
    {
        self.erase = Some(|store| Arc::new(store));
        self
    }

    /// Like [`with_sessions`](Self::with_sessions), but keeps the records in another store than the
    /// users. An authenticated request calls both stores concurrently.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use tower_keep::{Account, Keys, LoginLayer, UserId, user_loader};
    /// # use tower_keep::store::StoreError;
    /// # use tower_keep_memory::MemorySessions;
    /// # let keys = Keys::generate()?;
    /// let users = user_loader(|id: UserId| async move {
    ///     Ok::<_, StoreError>(Some(Arc::new(Account::new(id, "ada", "…"))))
    /// });
    /// let auth_layer = LoginLayer::builder(users, keys).with_sessions_in(MemorySessions::new()).build()?;
    /// # let _ = auth_layer;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_sessions_in<R: SessionStore + 'static>(
        self,
        records: R,
    ) -> LoginLayerBuilder<SplitStore<S, R>> {
        let Self { store, settings, .. } = self;
        let erase: Erase<SplitStore<S, R>> = |store| Arc::new(store);
        LoginLayerBuilder { store: SplitStore(store, records), erase: Some(erase), settings }
    }

    pub(super) fn new(store: S, keys: Keys) -> Self {
        let settings = Settings {
            limit: None,
            grace: Duration::from_secs(60),
            touch: Duration::from_secs(5 * 60),
            replay_message: Some(REPLAYED.into()),
            keys,
            clock: Arc::new(SystemClock),
            area: String::new(),
            session: CookieSettings::new(),
            remember: CookieSettings::new(),
            remember_duration: Duration::from_secs(30 * DAY),
            refresh_remember: false,
            persistent: false,
            idle: Some(Duration::from_secs(7 * DAY)),
            absolute: Some(Duration::from_secs(30 * DAY)),
            protection: SessionProtection::default(),
            client_match: ClientMatch::default(),
            proxies: Vec::new(),
            loaders: Vec::new(),
            listeners: Vec::new(),
            anonymous: None,
            messages: true,
            responses: Responses {
                login_message: Some("Please log in to see this page.".into()),
                confirm_message: Some("Please confirm that it is you.".into()),
                ..Responses::default()
            },
            logout_page: LocalTarget::constant("/logout"),
            never_next: Vec::new(),
            home: LocalTarget::constant("/"),
            next_field: "next".into(),
            next_in_cookie: false,
            public_origin: None,
            exempts_options_method: false,
            all_are_pages: false,
        };
        Self { store, erase: None, settings }
    }

    /// Limits how many sessions a user may have at the same time, and sets what happens when a user
    /// at the limit logs in again. The new session counts, so `max` must be at least 1. Requires
    /// [server-side sessions](Self::with_sessions).
    ///
    /// A session counts until it ends or expires, even if a new password has made it useless. So
    /// with [`WhenFull::Refuse`], end the user's sessions where a password is changed
    /// ([`keep_logged_in`](crate::AuthSession::keep_logged_in) does) or reset
    /// ([`end_all_sessions_of`](crate::LoginLayer::end_all_sessions_of)). A session that was never
    /// used since its login makes room, because its cookies may have reached no browser. Give all
    /// layers that share a store the same limit: a layer without `Refuse` writes the first use of a
    /// session only later, together with other notes.
    ///
    /// A refused login returns [`LoginError::TooManySessions`](crate::LoginError::TooManySessions),
    /// which becomes a 409 response. To offer "end the others and log in here", check the password,
    /// end all sessions of the user, and log in again. A login in a browser that has a session
    /// replaces that session, which then does not count against the limit.
    ///
    /// ```
    /// # use tower_keep::{Account, Keys, LoginLayer};
    /// # use tower_keep::session::WhenFull;
    /// # use tower_keep_memory::MemoryStore;
    /// # let (store, keys) = (MemoryStore::<Account>::new(), Keys::generate()?);
    /// let auth_layer = LoginLayer::builder(store, keys)
    ///     .with_sessions()
    ///     .with_session_limit(3, WhenFull::EndOldest)
    ///     .build()?;
    /// # let _ = auth_layer;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_session_limit(mut self, max: usize, when_full: WhenFull) -> Self {
        self.settings.limit = Some(SessionLimit::new(max, when_full));
        self
    }

    /// Sets how long the superseded cookies of a server-side session are still valid after their
    /// successors were seen. This is for requests that are in flight.
    ///
    /// The grace is at least 2 seconds. Make it longer than the clocks of the servers differ, or a
    /// request that is in flight may look like a replay. Within the grace, a browser restores its
    /// session without new cookies, and the use of a copied cookie is not noticed.
    pub fn with_rotation_grace(mut self, grace: Duration) -> Self {
        self.settings.grace = grace;
        self
    }

    /// Sets how precisely a session record says when its session was last used. The interval is
    /// never more than a tenth of the idle limit. There is at most one write per session and
    /// interval.
    pub fn with_touch_interval(mut self, interval: Duration) -> Self {
        self.settings.touch = interval;
        self
    }

    /// Sets the message that users see at their next login after a copy of a remember cookie was
    /// used; at most 256 bytes. It is a flash message of the kind
    /// [`Replayed`](crate::flash::FlashKind::Replayed) and the category `warning`.
    pub fn with_replay_message(mut self, message: impl Into<String>) -> Self {
        self.settings.replay_message = Some(message.into());
        self
    }

    /// Sets this layer's area: a name for its logins in an application that has several kinds of
    /// login, such as those of a site and those of its `/admin`. The area is part of the cookies'
    /// names and keys, so a login in one area is not valid in another.
    ///
    /// Two layers with the same keys and the same area accept each other's cookies, even if their
    /// user types differ: give each layer its own area.
    pub fn with_area(mut self, area: impl Into<String>) -> Self {
        self.settings.area = area.into();
        self
    }

    /// Sets the session cookie's name and attributes. The cookie that carries flash messages gets
    /// the same attributes, and this name followed by `-flash`.
    pub fn with_session_cookie(mut self, cookie: CookieSettings) -> Self {
        self.settings.session = cookie;
        self
    }

    /// Sets the remember cookie's name and attributes.
    pub fn with_remember_cookie(mut self, cookie: CookieSettings) -> Self {
        self.settings.remember = cookie;
        self
    }

    /// Sets how long a remember cookie is valid, unless the login sets its own duration. The expiry
    /// time is inside the signed value, and is compared with this server's clock. Browsers delete a
    /// cookie after 400 days.
    pub fn with_remember_duration(mut self, duration: Duration) -> Self {
        self.settings.remember_duration = duration;
        self
    }

    /// Sets whether each request that asks for the login restarts the remember cookie's duration.
    /// This only renews a genuine cookie of the user who is logged in. It never creates one.
    pub fn with_remember_refresh(mut self, refresh: bool) -> Self {
        self.settings.refresh_remember = refresh;
        self
    }

    /// Sets whether the session continues after the browser is closed. It then also survives strong
    /// protection, as in Flask-Login; see [`SessionProtection::Strong`].
    pub fn with_persistent_session(mut self, persistent: bool) -> Self {
        self.settings.persistent = persistent;
        self
    }

    /// Sets after how long without use a session ends; `None` for never. The precision is a tenth
    /// of the limit: a session is renewed when a tenth of the limit has passed, not with every
    /// response. If neither this limit nor the absolute limit is set, a session's record stays
    /// until the session is ended.
    pub fn with_idle_limit(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.settings.idle = limit.into();
        self
    }

    /// Sets how long after its login a session ends, even if it is in use; `None` for never.
    pub fn with_absolute_limit(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.settings.absolute = limit.into();
        self
    }

    /// Sets what happens to a session that comes from another client.
    pub fn with_session_protection(mut self, protection: SessionProtection) -> Self {
        self.settings.protection = protection;
        self
    }

    /// Sets what counts as another client.
    pub fn with_client_match(mut self, matching: ClientMatch) -> Self {
        self.settings.client_match = matching;
        self
    }

    /// Takes the client's address from `X-Forwarded-For` if the connection comes from one of these
    /// addresses or ranges (`10.0.0.0/8`, `::1`). List every proxy between the client and this
    /// server, and only those. Calling this method again replaces the list.
    ///
    /// The connection's own address must be known: from axum's `ConnectInfo`, or from a
    /// [`ClientAddr`](crate::client::ClientAddr) with the *peer's* address. Without it the header
    /// is not read.
    pub fn with_trusted_proxies<T: Into<String>>(
        mut self,
        networks: impl IntoIterator<Item = T>,
    ) -> Self {
        self.settings.proxies = networks.into_iter().map(Into::into).collect();
        self
    }

    /// Adds a [request loader](RequestLoader), which is asked after those of earlier calls.
    pub fn with_request_loader(mut self, loader: impl RequestLoader<S::User> + 'static) -> Self {
        self.settings.loaders.push(Arc::new(loader));
        self
    }

    /// Adds a closure that is called with every [`Event`], after those of earlier calls.
    pub fn with_listener(
        mut self,
        listener: impl Fn(&Event<S::User>) + Send + Sync + 'static,
    ) -> Self {
        self.settings.listeners.push(Arc::new(listener));
        self
    }

    /// Sets a closure that returns the application's own anonymous user.
    /// [`AuthSession::user_or_anonymous`](crate::AuthSession::user_or_anonymous) returns this user
    /// if no user is logged in. Guards still treat the request as not logged in.
    pub fn with_anonymous_user(
        mut self,
        anonymous: impl Fn() -> Arc<S::User> + Send + Sync + 'static,
    ) -> Self {
        self.settings.anonymous = Some(Arc::new(anonymous));
        self
    }

    /// Sets where guards redirect users who are not logged in: a path on this site, or a URL.
    /// Without a login page, guards respond with 401.
    ///
    /// # Errors
    ///
    /// Returns an error if the page is neither a path on this site nor a URL.
    pub fn with_login_page(mut self, page: impl Into<String>) -> Result<Self, BuildError> {
        self.settings.responses.login_page = Some(Page::parse(page.into())?);
        Ok(self)
    }

    /// Sets where guards redirect users whose login is not fresh enough. Without a confirm page,
    /// guards respond with 401.
    ///
    /// # Errors
    ///
    /// Returns an error if the page is neither a path on this site nor a URL.
    pub fn with_confirm_page(mut self, page: impl Into<String>) -> Result<Self, BuildError> {
        self.settings.responses.confirm_page = Some(Page::parse(page.into())?);
        Ok(self)
    }

    /// Sets where [`AuthSession::next_or_home`](crate::AuthSession::next_or_home) leads if there is
    /// no `next`; `/` by default.
    ///
    /// # Errors
    ///
    /// Returns an error if the page is not a path on this site.
    pub fn with_home_page(mut self, page: impl Into<String>) -> Result<Self, BuildError> {
        self.settings.home = local(page.into())?;
        Ok(self)
    }

    /// Sets the page that logs out, `/logout` by default. No user is redirected there after signing
    /// in.
    ///
    /// # Errors
    ///
    /// Returns an error if the page is not a path on this site.
    pub fn with_logout_page(mut self, page: impl Into<String>) -> Result<Self, BuildError> {
        self.settings.logout_page = local(page.into())?;
        Ok(self)
    }

    /// Adds a page to which no user is redirected after signing in, like the pages for login,
    /// logout and confirming. Examples are the login page of a single guard, or a sign-up page.
    /// Each call adds one.
    ///
    /// # Errors
    ///
    /// Returns an error if the page is not a path on this site.
    pub fn with_never_next(mut self, page: impl Into<String>) -> Result<Self, BuildError> {
        self.settings.never_next.push(local(page.into())?);
        Ok(self)
    }

    /// Sets the flash message for users who are redirected to the login page: a text, or a
    /// [`Message`] that is made for each request.
    pub fn with_login_message(mut self, message: impl Into<Message>) -> Self {
        self.settings.responses.login_message = Some(message.into());
        self
    }

    /// Sets the flash message for users who are redirected to the confirm page.
    pub fn with_confirm_message(mut self, message: impl Into<Message>) -> Self {
        self.settings.responses.confirm_message = Some(message.into());
        self
    }

    /// Sets whether users get a flash message when they are redirected to the login page or the
    /// confirm page, and after a replay; `true` by default. Without messages, no cookie is set for
    /// them either.
    pub fn with_messages(mut self, messages: bool) -> Self {
        self.settings.messages = messages;
        self
    }

    /// Sets a handler that builds the responses to rejected requests, instead of this crate's
    /// redirects, 401 and 403. The handler may build any response, and may call
    /// [`RejectionContext::default_response`] for some requests.
    ///
    /// ```
    /// # use tower_keep::{Account, Keys, LoginLayer};
    /// # use tower_keep_memory::MemoryStore;
    /// # let (store, keys) = (MemoryStore::<Account>::new(), Keys::generate()?);
    /// let auth_layer = LoginLayer::builder(store, keys)
    ///     .with_login_page("/login")?
    ///     .with_rejection_handler(|context| {
    ///         let wants_json = context.request().headers.get("accept")
    ///             .is_some_and(|accept| accept == "application/json");
    ///         if !wants_json {
    ///             return context.default_response();
    ///         }
    ///         let mut response = http::Response::new(r#"{"error":"login required"}"#.into());
    ///         *response.status_mut() = context.rejection().status();
    ///         response
    ///     })
    ///     .build()?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_rejection_handler(
        mut self,
        handler: impl Fn(&RejectionContext<'_, S::User>) -> http::Response<bytes::Bytes>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        self.settings.responses.handler = Some(Arc::new(handler));
        self
    }

    /// Sets the name of the query field that carries `next`.
    pub fn with_next_field(mut self, field: impl Into<String>) -> Self {
        self.settings.next_field = field.into();
        self
    }

    /// Sets whether `next` is kept in a signed cookie instead of the query.
    pub fn with_next_in_cookie(mut self, in_cookie: bool) -> Self {
        self.settings.next_in_cookie = in_cookie;
        self
    }

    /// Sets this site's own origin, such as `https://example.org`. A login page on another site
    /// then gets the whole URL to come back to. That URL is never made from the request's `Host`.
    pub fn with_public_origin(mut self, origin: impl Into<String>) -> Self {
        self.settings.public_origin = Some(origin.into());
        self
    }

    /// Sets whether every guard of this layer lets `OPTIONS` requests through, for CORS preflights.
    /// It is safer to put tower-http's `CorsLayer` outside of the guards, where it responds to
    /// preflights itself. With this setting on, a handler that serves any method runs for `OPTIONS`
    /// without a login.
    pub fn with_options_exempt(mut self, exempt: bool) -> Self {
        self.settings.exempts_options_method = exempt;
        self
    }

    /// Sets whether every request counts as a request for a page, as in Flask-Login. The default is
    /// `false`.
    ///
    /// By default, only the navigation of a browser's tab leaves a flash message, or a `next` in
    /// a cookie. Browsers mark a navigation with `Sec-Fetch-Dest`. From other clients, a GET
    /// request counts as one if its `Accept` prefers `text/html`. So a rejected request for an
    /// image, or a rejected poll, does not replace what the request for the page has left.
    pub fn with_pages_for_every_client(mut self, all: bool) -> Self {
        self.settings.all_are_pages = all;
        self
    }

    /// Sets another clock, for tests.
    pub fn with_clock(mut self, clock: impl Clock + 'static) -> Self {
        self.settings.clock = Arc::new(clock);
        self
    }
}

fn local(path: String) -> Result<LocalTarget, BuildError> {
    path.parse().map_err(|_| BuildError::Path { path })
}

impl<S: UserStore> std::fmt::Debug for LoginLayerBuilder<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginLayerBuilder").finish_non_exhaustive()
    }
}
