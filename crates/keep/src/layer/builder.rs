//! The settings of a layer, each with its default and the reason for it. `build` checks whether the
//! settings agree.

use std::sync::Arc;
use std::time::Duration;

use tower_keep_core::{
    Clock, LoginStore, SessionLimit, SessionStore, SplitStore, SystemClock, UserStore, WhenFull,
};

use crate::client::{ClientMatch, SessionProtection};
use crate::cookie::settings::CookieSettings;
use crate::error::BuildError;
use crate::event::{Event, Listener};
use crate::flash::Message;
use crate::guard::rejection::{RejectionContext, handler_from};
use crate::keys::Keys;
use crate::layer::config::Responses;
use crate::loader::RequestLoader;
use crate::page::Page;
use crate::response::ErrorContext;
use crate::target::LocalTarget;

const DAY: u64 = 24 * 3_600;

/// The message after a replay. It does not mention theft, because the cause may also be a browser
/// profile that was restored from a backup.
const REPLAY_MESSAGE: &str = "An old copy of one of your remembered logins was used, so that login \
    was ended. If that was not you, change your password.";

/// The settings of a [`LoginLayer`](crate::LoginLayer).
///
/// | setting | default | because |
/// | --- | --- | --- |
/// | session lifetime | until the browser is closed | Flask's default; the remember cookie is for longer logins |
/// | idle limit | 7 days | a forgotten session ends |
/// | absolute limit | 30 days | NIST SP 800-63B: reauthenticate within 30 days |
/// | remember duration | 30 days | the same as the absolute limit; Flask-Login's default of a year is too long if a laptop is stolen |
/// | server-side sessions | off | they need a store of sessions; see [`with_sessions`](Self::with_sessions) |
/// | bearer tokens | off | with them, every response that depends on the login varies by `Authorization`; see [`with_bearer_sessions`](Self::with_bearer_sessions) |
/// | sessions per user | unlimited | people have many devices |
/// | rotation grace | 60 s | a request that is in flight arrives within this time |
/// | touch interval | 5 min | precise enough for people, and few writes |
/// | remember refresh | off | a remembered login ends when the duration that began at the login is over |
/// | session protection | basic, exact | Flask-Login's defaults |
/// | login page, confirm page | none: the response is 401 | an API has no such pages |
/// | origins that may open a WebSocket | this site's | other sites must not act with the cookies of this site |
/// | `next` | in the query, field `next` | needs no additional cookie |
/// | trusted proxies | none | forwarded headers are easy to forge |
/// | pages for every client | off | a polling request must not leave flash messages, or replace `next` |
/// | `OPTIONS` exempt from guards | off | if it is on, a handler that serves any method runs without a login |
#[must_use = "call `build` to get the layer"]
pub struct LoginLayerBuilder<S: UserStore> {
    pub(super) store: S,
    /// `None` if the layer keeps no server-side sessions.
    pub(super) into_login_store: Option<IntoLoginStore<S>>,
    pub(super) settings: Settings<S::User>,
}

/// All settings except the store.
pub(super) struct Settings<U> {
    pub(super) session_limit: Option<SessionLimit>,
    pub(super) grace: Duration,
    pub(super) touch_interval: Duration,
    pub(super) replay_message: Option<String>,
    pub(super) keys: Keys,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) area: String,
    pub(super) session_cookie: CookieSettings,
    pub(super) remember_cookie: CookieSettings,
    pub(super) remember_duration: Duration,
    pub(super) refreshes_remember: bool,
    pub(super) is_persistent: bool,
    pub(super) idle_limit: Option<Duration>,
    pub(super) absolute_limit: Option<Duration>,
    pub(super) protection: SessionProtection,
    pub(super) client_match: ClientMatch,
    pub(super) trusted_proxies: Vec<String>,
    pub(super) loaders: Vec<Arc<dyn RequestLoader<U>>>,
    pub(super) listeners: Vec<Listener<U>>,
    pub(super) anonymous_user: Option<Arc<dyn Fn() -> Arc<U> + Send + Sync>>,
    pub(super) leaves_messages: bool,
    pub(super) responses: Responses<U>,
    pub(super) logout_page: LocalTarget,
    pub(super) never_next: Vec<LocalTarget>,
    pub(super) home_page: LocalTarget,
    pub(super) next_field: String,
    pub(super) next_in_cookie: bool,
    pub(super) public_origin: Option<String>,
    pub(super) allowed_origins: Vec<String>,
    pub(super) realm: Option<String>,
    pub(super) accepts_bearer: bool,
    pub(super) exempts_options_method: bool,
    pub(super) all_are_pages: bool,
}

/// Erases the type of a store that keeps sessions, so that the layer has no parameter for it.
pub(super) type IntoLoginStore<S> = fn(S) -> Arc<dyn LoginStore<User = <S as UserStore>::User>>;

impl<S: UserStore + 'static> LoginLayerBuilder<S> {
    /// Turns on server-side sessions: the layer keeps a record of every login in the store that
    /// holds the users.
    ///
    /// With server-side sessions, a logout makes all copies of the cookies invalid, sessions can be
    /// listed and ended from other devices
    /// ([`AuthSession::sessions`](crate::AuthSession::sessions)), and the use of a stolen remember
    /// cookie is detected. An authenticated request still makes one call to the store. Also spawn
    /// [`upkeep`](crate::LoginLayer::upkeep).
    ///
    /// A layer with server-side sessions does not accept the cookies of a layer without them, and
    /// vice versa: turning this on or off logs out all users.
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
        self.into_login_store = Some(|store| Arc::new(store));
        self
    }

    /// Like [`with_sessions`](Self::with_sessions), but `records` is a separate store that keeps
    /// the session records. An authenticated request calls both stores concurrently.
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
        let into_login_store: IntoLoginStore<SplitStore<S, R>> = |store| Arc::new(store);
        LoginLayerBuilder {
            store: SplitStore(store, records),
            into_login_store: Some(into_login_store),
            settings,
        }
    }

    pub(super) fn new(store: S, keys: Keys) -> Self {
        let settings = Settings {
            session_limit: None,
            grace: Duration::from_secs(60),
            touch_interval: Duration::from_secs(5 * 60),
            replay_message: Some(REPLAY_MESSAGE.into()),
            keys,
            clock: Arc::new(SystemClock),
            area: String::new(),
            session_cookie: CookieSettings::new(),
            remember_cookie: CookieSettings::new(),
            remember_duration: Duration::from_secs(30 * DAY),
            refreshes_remember: false,
            is_persistent: false,
            idle_limit: Some(Duration::from_secs(7 * DAY)),
            absolute_limit: Some(Duration::from_secs(30 * DAY)),
            protection: SessionProtection::default(),
            client_match: ClientMatch::default(),
            trusted_proxies: Vec::new(),
            loaders: Vec::new(),
            listeners: Vec::new(),
            anonymous_user: None,
            leaves_messages: true,
            responses: Responses {
                login_message: Some("Please log in to see this page.".into()),
                confirm_message: Some("Please confirm that it is you.".into()),
                ..Responses::default()
            },
            logout_page: LocalTarget::constant("/logout"),
            never_next: Vec::new(),
            home_page: LocalTarget::constant("/"),
            next_field: "next".into(),
            next_in_cookie: false,
            public_origin: None,
            allowed_origins: Vec::new(),
            realm: None,
            accepts_bearer: false,
            exempts_options_method: false,
            all_are_pages: false,
        };
        Self { store, into_login_store: None, settings }
    }

    /// Sets whether a bearer token can carry a login in place of cookies, for clients that keep no
    /// cookies, such as apps and command-line tools. The default is `false`. Requires
    /// [server-side sessions](Self::with_sessions).
    ///
    /// [`LoginBuilder::as_bearer`](crate::session::LoginBuilder::as_bearer) makes the token. A
    /// client sends it in `Authorization: Bearer TOKEN`; a token in a URL is not read. The session
    /// is listed and ended like any other. It ends when the token expires: the idle limit and the
    /// absolute limit don't apply, and neither does session protection. The login is fresh until
    /// ten minutes after the user has proved who they are. It can't be confirmed; to be fresh
    /// again, the client logs in again.
    ///
    /// If a request has a token of this crate (it begins with `tkb_`), the token decides alone: no
    /// cookie is read or set, even if the token is not valid or is of another area. So a request
    /// that other middleware lets through because of its `Authorization`, such as protection
    /// against cross-site request forgery, never acts with cookies. If the token is not valid,
    /// nobody is logged in, and guards respond with 401. If a route is inside layers of several
    /// areas, set this for all of them: a layer without it would still read the cookies of such a
    /// request.
    pub fn with_bearer_sessions(mut self, bearer: bool) -> Self {
        self.settings.accepts_bearer = bearer;
        self
    }

    /// Limits how many sessions a user may have at the same time, and sets what happens when a user
    /// at the limit logs in again. The new session counts, so `max` must be at least 1. Requires
    /// [server-side sessions](Self::with_sessions).
    ///
    /// A session counts until it ends or expires, even if its cookies are invalid because of a new
    /// password. So with [`WhenFull::Refuse`], end the user's sessions when a password is changed
    /// ([`keep_logged_in`](crate::AuthSession::keep_logged_in) does so) or reset (call
    /// [`end_all_sessions_of`](crate::LoginLayer::end_all_sessions_of)). With `Refuse`, sessions
    /// that no request has used since their login end to make room, because their cookies may never
    /// have reached a browser. Give all layers that share a store the same limit: only a layer with
    /// `Refuse` writes the first use of a session immediately.
    ///
    /// A refused login returns [`LoginError::TooManySessions`](crate::LoginError::TooManySessions),
    /// whose response is 409. To let the user end the other sessions and log in, check the
    /// password, end all sessions of the user, and log in again. A login replaces an earlier
    /// session of the same browser, and that session does not count against the limit.
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
        self.settings.session_limit = Some(SessionLimit::new(max, when_full));
        self
    }

    /// Sets the rotation grace: how long the previous cookies of a server-side session stay valid
    /// after a request has used the new cookies. Requests that are in flight need this time.
    ///
    /// The grace is at least 2 seconds. It must be longer than the difference between the servers'
    /// clocks, or a request that is in flight may look like a replay. Within the grace, a request
    /// with the previous remember cookie is logged in but gets no new cookies, and the use of a
    /// copied cookie is not detected.
    pub fn with_rotation_grace(mut self, grace: Duration) -> Self {
        self.settings.grace = grace;
        self
    }

    /// Sets the touch interval: the time of last use in a session record is written at most once
    /// per interval. The interval is never more than a tenth of the idle limit.
    pub fn with_touch_interval(mut self, interval: Duration) -> Self {
        self.settings.touch_interval = interval;
        self
    }

    /// Sets the text, of at most 256 bytes, that a user gets at the next login after a copy of one
    /// of the user's remember cookies was used. It is a flash message of the kind
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
        self.settings.session_cookie = cookie;
        self
    }

    /// Sets the remember cookie's name and attributes.
    pub fn with_remember_cookie(mut self, cookie: CookieSettings) -> Self {
        self.settings.remember_cookie = cookie;
        self
    }

    /// Sets how long a remember cookie is valid, unless the login sets its own duration. The expiry
    /// time is inside the signed value, and is compared with this server's clock. Browsers delete a
    /// cookie after 400 days.
    pub fn with_remember_duration(mut self, duration: Duration) -> Self {
        self.settings.remember_duration = duration;
        self
    }

    /// Sets whether the use of a login restarts the remember cookie's duration. This only reissues
    /// a valid remember cookie of the user who is logged in. It never creates one.
    ///
    /// With server-side sessions, the duration restarts at most once per touch interval, or once
    /// per tenth of the remember duration if that is shorter. Without them, it restarts with every
    /// request that asks for the login.
    pub fn with_remember_refresh(mut self, refresh: bool) -> Self {
        self.settings.refreshes_remember = refresh;
        self
    }

    /// Sets whether the session continues after the browser is closed. A persistent session does
    /// not end because of strong protection, as in Flask-Login; see [`SessionProtection::Strong`].
    pub fn with_persistent_session(mut self, persistent: bool) -> Self {
        self.settings.is_persistent = persistent;
        self
    }

    /// Sets how long a session may be unused before it ends; `None` for no limit. The precision is
    /// a tenth of the limit: the time of last use is updated when a tenth of the limit has passed,
    /// not with every response. If neither this limit nor the absolute limit is set, a session's
    /// record never expires.
    pub fn with_idle_limit(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.settings.idle_limit = limit.into();
        self
    }

    /// Sets how long a session may last, even if it is in use; `None` for no limit. The session
    /// starts at the login. It starts again when the remember cookie restores the login or the user
    /// confirms it.
    pub fn with_absolute_limit(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.settings.absolute_limit = limit.into();
        self
    }

    /// Sets what happens to a session that another client uses.
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
        self.settings.trusted_proxies = networks.into_iter().map(Into::into).collect();
        self
    }

    /// Adds a [request loader](RequestLoader), which is asked after the loaders that were added
    /// before.
    pub fn with_request_loader(mut self, loader: impl RequestLoader<S::User> + 'static) -> Self {
        self.settings.loaders.push(Arc::new(loader));
        self
    }

    /// Adds a closure that is called with every [`Event`], after the listeners that were added
    /// before.
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
        self.settings.anonymous_user = Some(Arc::new(anonymous));
        self
    }

    /// Sets where guards redirect users who are not logged in: a path on this site, or a URL.
    /// Without a login page, guards respond with 401. Clients that show no pages always get a 401;
    /// see [`Guard`](crate::guard::Guard).
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

    /// Sets the target that [`AuthSession::next_or_home`](crate::AuthSession::next_or_home) returns
    /// if the request has no `next`; `/` by default.
    ///
    /// # Errors
    ///
    /// Returns an error if the page is not a path on this site.
    pub fn with_home_page(mut self, page: impl Into<String>) -> Result<Self, BuildError> {
        self.settings.home_page = parse_local_page(page.into())?;
        Ok(self)
    }

    /// Sets the page that logs out, `/logout` by default. No user is redirected to this page after
    /// signing in.
    ///
    /// # Errors
    ///
    /// Returns an error if the page is not a path on this site.
    pub fn with_logout_page(mut self, page: impl Into<String>) -> Result<Self, BuildError> {
        self.settings.logout_page = parse_local_page(page.into())?;
        Ok(self)
    }

    /// Adds a page to which no user is redirected after signing in, such as a sign-up page, or the
    /// login page of a single guard. The layer's login, logout and confirm pages need not be added.
    ///
    /// # Errors
    ///
    /// Returns an error if the page is not a path on this site.
    pub fn with_never_next(mut self, page: impl Into<String>) -> Result<Self, BuildError> {
        self.settings.never_next.push(parse_local_page(page.into())?);
        Ok(self)
    }

    /// Sets the flash message for users who are redirected to the login page: a text, or a
    /// [`Message`] whose text is made for each request.
    pub fn with_login_message(mut self, message: impl Into<Message>) -> Self {
        self.settings.responses.login_message = Some(message.into());
        self
    }

    /// Sets the flash message for users who are redirected to the confirm page.
    pub fn with_confirm_message(mut self, message: impl Into<Message>) -> Self {
        self.settings.responses.confirm_message = Some(message.into());
        self
    }

    /// Sets whether the layer leaves flash messages when a guard redirects a user to the login page
    /// or the confirm page, and after a replay; `true` by default. If `false`, no cookie is set for
    /// these messages.
    pub fn with_messages(mut self, messages: bool) -> Self {
        self.settings.leaves_messages = messages;
        self
    }

    /// Sets a handler that builds the responses to the requests that guards, extractors and
    /// [`AuthSession::reject`](crate::AuthSession::reject) reject, instead of those in the table of
    /// [`Guard`](crate::guard::Guard). For requests that need no special response, the handler can
    /// return [`RejectionContext::default_response`].
    ///
    /// ```
    /// # use tower_keep::client::ClientKind;
    /// # use tower_keep::{Account, Keys, LoginLayer};
    /// # use tower_keep_memory::MemoryStore;
    /// # let (store, keys) = (MemoryStore::<Account>::new(), Keys::generate()?);
    /// let auth_layer = LoginLayer::builder(store, keys)
    ///     .with_login_page("/login")?
    ///     .with_rejection_handler(|context| {
    ///         let mut response = context.default_response();
    ///         if context.client_kind() == ClientKind::Other {
    ///             // Status, challenge and the headers for caches stay.
    ///             response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    ///             *response.body_mut() = r#"{"error":"log in first"}"#.into();
    ///         }
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
        self.settings.responses.handler = Some(handler_from(handler));
        self
    }

    /// Sets a handler that builds the responses to failed requests, instead of this crate's. It is
    /// called if a store fails for a guard or an extractor, and for the response of an error of
    /// this crate that a handler returns, such as
    /// [`AuthError::response`](crate::AuthError::response).
    ///
    /// A failure is no rejection: often it is not known whether a user is logged in. So never
    /// redirect to the login page here.
    ///
    /// ```
    /// # use tower_keep::client::ClientKind;
    /// # use tower_keep::{Account, Keys, LoginLayer};
    /// # use tower_keep_memory::MemoryStore;
    /// # let (store, keys) = (MemoryStore::<Account>::new(), Keys::generate()?);
    /// let auth_layer = LoginLayer::builder(store, keys)
    ///     .with_error_handler(|context| {
    ///         let mut response = context.default_response();
    ///         if context.client_kind() == ClientKind::Page {
    ///             *response.body_mut() = "<h1>We will be back in a minute.</h1>".into();
    ///         }
    ///         response
    ///     })
    ///     .build()?;
    /// # let _ = auth_layer;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_error_handler(
        mut self,
        handler: impl Fn(&ErrorContext<'_>) -> http::Response<bytes::Bytes> + Send + Sync + 'static,
    ) -> Self {
        self.settings.responses.error_handler = Some(Arc::new(handler));
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
    /// needs it: its `next` is the whole URL of the requested page. That URL is never made from the
    /// request's `Host`.
    pub fn with_public_origin(mut self, origin: impl Into<String>) -> Self {
        self.settings.public_origin = Some(origin.into());
        self
    }

    /// Lists the origins of other sites, such as `https://app.example.org`, whose pages may open a
    /// WebSocket with the logins of this site. Calling this method again replaces the list.
    ///
    /// A browser opens a WebSocket for any page, and needs no permission from the server. So if the
    /// `Origin` of an upgrade is neither this site's nor in this list, its login cookies log nobody
    /// in, and every guard, extractor or handler that asks for the login gets a 403
    /// ([`ForeignOrigin`](crate::error::AuthErrorKind::ForeignOrigin)). This site's own origin is
    /// the [public origin](Self::with_public_origin) or, if it is not set, the host that the
    /// request was sent to. If the cookies are `Secure`, an `http` origin counts as this site's
    /// only on this machine, such as `localhost`.
    ///
    /// With the default cookies (`SameSite=Lax`), browsers send the cookies along only for pages of
    /// the same site, such as those of another subdomain. To log in users of a page of another
    /// site, such as `https://partner.example`, list its origin and also make the cookies
    /// [cross-site](crate::cookie::CookieSettings::insecure_cross_site). Browsers that block
    /// third-party cookies send none even then.
    ///
    /// ```
    /// # use tower_keep::cookie::CookieSettings;
    /// # use tower_keep::{Account, Keys, LoginLayer};
    /// # use tower_keep_memory::MemoryStore;
    /// # let (store, keys) = (MemoryStore::<Account>::new(), Keys::generate()?);
    /// let auth_layer = LoginLayer::builder(store, keys)
    ///     .with_allowed_origins(["https://partner.example"])
    ///     .with_session_cookie(CookieSettings::new().insecure_cross_site())
    ///     .with_remember_cookie(CookieSettings::new().insecure_cross_site())
    ///     .build()?;
    /// # let _ = auth_layer;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_allowed_origins<T: Into<String>>(
        mut self,
        origins: impl IntoIterator<Item = T>,
    ) -> Self {
        self.settings.allowed_origins = origins.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the realm, which names what a login of this layer is for (RFC 9110 §11.5). A 401 names
    /// it in its challenge: `Session realm="…"`, or `Bearer realm="…"` if the layer accepts bearer
    /// tokens. If request loaders have challenges, those are sent instead, except if the login is
    /// not fresh. The default is the [area](Self::with_area) or, without one, `site`.
    ///
    /// The realm must be printable ASCII, or [`build`](Self::build) returns an error. Quotes and
    /// backslashes are removed.
    pub fn with_realm(mut self, realm: impl Into<String>) -> Self {
        self.settings.realm = Some(realm.into().replace(['"', '\\'], ""));
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

    /// Sets whether every request counts as a request for a page, as in Flask-Login, except for
    /// gRPC and upgrades to WebSocket. The default is `false`.
    ///
    /// By default, only clients that show pages are redirected to the login page; see
    /// [`ClientKind`](crate::client::ClientKind). And a guard leaves a flash message, or a `next`
    /// in a cookie, only if the request is the navigation of a browser's tab. Browsers mark a
    /// navigation with `Sec-Fetch-Dest`. From other clients, a GET request counts as a navigation
    /// if its `Accept` prefers `text/html`. So a rejected request for an image, or a rejected poll,
    /// does not replace the message and the `next` of the page.
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

fn parse_local_page(path: String) -> Result<LocalTarget, BuildError> {
    path.parse().map_err(|_| BuildError::Path { path })
}

impl<S: UserStore> std::fmt::Debug for LoginLayerBuilder<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginLayerBuilder").finish_non_exhaustive()
    }
}
