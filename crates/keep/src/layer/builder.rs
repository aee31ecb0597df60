//! The settings of a layer, with each default and its reason. `build` checks that they agree.

use std::sync::Arc;
use std::time::Duration;

use tower_keep_core::{AuthUser, Clock, SystemClock, UserStore};

use crate::cookie::CookieSettings;
use crate::event::Listener;
use crate::guard::{Answers, Refusal};
use crate::loader::RequestLoader;
use crate::{ClientMatch, Event, Keys, Message, SessionProtection};

const DAY: u64 = 24 * 3_600;

/// The settings of a [`LoginLayer`](crate::LoginLayer).
///
/// | setting | default | because |
/// | --- | --- | --- |
/// | session lasts | until the browser is closed | Flask's default; the remember cookie is for more |
/// | idle limit | 7 days | a forgotten session ends |
/// | absolute limit | 30 days | NIST SP 800-63B: identify again within 30 days |
/// | remember duration | 30 days | as long as the absolute limit; a year, as in Flask-Login, is long for a stolen laptop |
/// | remember refresh | off | a remembered login then ends at the time that was promised |
/// | session protection | basic, exact | Flask-Login's defaults |
/// | login page, confirm page | none: 401 | an API has none |
/// | `next` | in the query, field `next` | works without another cookie |
/// | trusted proxies | none | forwarded headers are forged easily |
/// | `OPTIONS` exempt from guards | no | a handler for any method would run |
#[must_use = "call `build` to get the layer"]
pub struct LoginLayerBuilder<U> {
    pub(super) store: Arc<dyn UserStore<User = U>>,
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
    pub(super) answers: Answers<U>,
    pub(super) login_page: Option<String>,
    pub(super) confirm_page: Option<String>,
    pub(super) logout_path: String,
    pub(super) never_next: Vec<String>,
    pub(super) home: String,
    pub(super) next_field: String,
    pub(super) next_in_session: bool,
    pub(super) public_origin: Option<String>,
    pub(super) exempt_options: bool,
}

impl<U: AuthUser> LoginLayerBuilder<U> {
    pub(super) fn new(store: Arc<dyn UserStore<User = U>>, keys: Keys) -> Self {
        Self {
            store,
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
            answers: Answers {
                login_message: Some("Please log in to see this page.".into()),
                confirm_message: Some("Please confirm that it is you.".into()),
                ..Answers::default()
            },
            login_page: None,
            confirm_page: None,
            logout_path: "/logout".into(),
            never_next: Vec::new(),
            home: "/".into(),
            next_field: "next".into(),
            next_in_session: false,
            public_origin: None,
            exempt_options: false,
        }
    }

    /// Names this login where an application has several, such as a site and its `/admin`. The
    /// area enters the cookies' names and keys, so that a login of one is none of another.
    ///
    /// Two layers with the same keys and the same area accept each other's cookies, whatever their
    /// user types: give each its own area.
    pub fn with_area(mut self, area: impl Into<String>) -> Self {
        self.area = area.into();
        self
    }

    /// The session cookie's name and attributes. The cookie that carries notices gets the same
    /// attributes, and this name with `-visit`.
    pub fn with_session_cookie(mut self, cookie: CookieSettings) -> Self {
        self.session = cookie;
        self
    }

    /// The remember cookie's name and attributes.
    pub fn with_remember_cookie(mut self, cookie: CookieSettings) -> Self {
        self.remember = cookie;
        self
    }

    /// How long the remember cookie counts, unless the login says otherwise. The time is inside the
    /// signed value, and this server's clock decides. Browsers forget a cookie after 400 days.
    pub fn with_remember_duration(mut self, duration: Duration) -> Self {
        self.remember_duration = duration;
        self
    }

    /// Starts the time of the remember cookie anew with each request that looks at the login. It
    /// renews a genuine cookie of the user who is logged in, and never makes one.
    pub fn with_remember_refresh(mut self, refresh: bool) -> Self {
        self.refresh_remember = refresh;
        self
    }

    /// Whether the session outlives the browser's being closed. It then also survives strong
    /// protection, as in Flask-Login; see [`SessionProtection::Strong`].
    pub fn with_persistent_session(mut self, persistent: bool) -> Self {
        self.persistent = persistent;
        self
    }

    /// Ends a session that was not used for this long; `None` for never. Kept to a tenth: a
    /// session is renewed when a tenth of the limit has passed, not with every response.
    pub fn with_idle_limit(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.idle = limit.into();
        self
    }

    /// Ends a session this long after its login, used or not; `None` for never.
    pub fn with_absolute_limit(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.absolute = limit.into();
        self
    }

    /// What happens to a session that comes from another client.
    pub fn with_session_protection(mut self, protection: SessionProtection) -> Self {
        self.protection = protection;
        self
    }

    /// What counts as another client.
    pub fn with_client_match(mut self, matching: ClientMatch) -> Self {
        self.client_match = matching;
        self
    }

    /// Takes the client's address from `X-Forwarded-For` where the connection comes from one of
    /// these addresses or ranges (`10.0.0.0/8`, `::1`). List every proxy on the way, and only
    /// those; calling it again replaces the list.
    ///
    /// The connection's own address must be known: from axum's `ConnectInfo`, or a
    /// [`ClientAddr`](crate::ClientAddr) with the *peer's* address. Without it the header is not
    /// read.
    pub fn with_trusted_proxies<T: Into<String>>(
        mut self,
        networks: impl IntoIterator<Item = T>,
    ) -> Self {
        self.proxies = networks.into_iter().map(Into::into).collect();
        self
    }

    /// Adds a [request loader](RequestLoader), asked after those added before.
    pub fn add_request_loader(mut self, loader: impl RequestLoader<U> + 'static) -> Self {
        self.loaders.push(Arc::new(loader));
        self
    }

    /// Calls the closure with every [`Event`], after the listeners added before.
    pub fn add_listener(mut self, listener: impl Fn(&Event<U>) + Send + Sync + 'static) -> Self {
        self.listeners.push(Arc::new(listener));
        self
    }

    /// Makes the application's own anonymous user, which
    /// [`Login::user_or_anonymous`](crate::Login::user_or_anonymous) answers when nobody is logged
    /// in. To guards such a user is still nobody.
    pub fn with_anonymous_user(
        mut self,
        anonymous: impl Fn() -> Arc<U> + Send + Sync + 'static,
    ) -> Self {
        self.anonymous = Some(Arc::new(anonymous));
        self
    }

    /// Where guards send those who are not logged in: a path of this site, or a URL. Without one
    /// they answer 401.
    pub fn with_login_page(mut self, page: impl Into<String>) -> Self {
        self.login_page = Some(page.into());
        self
    }

    /// Where guards send those whose login is not fresh enough. Without one they answer 401.
    pub fn with_confirm_page(mut self, page: impl Into<String>) -> Self {
        self.confirm_page = Some(page.into());
        self
    }

    /// The path that logs out, `/logout` by default; nobody is sent back there after signing in.
    pub fn with_logout_path(mut self, path: impl Into<String>) -> Self {
        self.logout_path = path.into();
        self
    }

    /// Another path that nobody is sent back to after signing in, besides those of login, logout and
    /// confirm: the login page of a single guard, a sign-up page.
    pub fn add_never_next(mut self, path: impl Into<String>) -> Self {
        self.never_next.push(path.into());
        self
    }

    /// Where [`Login::next_or_home`](crate::Login::next_or_home) leads when there is no `next`;
    /// `/` by default.
    pub fn with_home_page(mut self, path: impl Into<String>) -> Self {
        self.home = path.into();
        self
    }

    /// What the login page tells those who were sent there: a text, or a [`Message`] that is made
    /// for each request.
    pub fn with_login_message(mut self, message: impl Into<Message>) -> Self {
        self.answers.login_message = Some(message.into());
        self
    }

    /// What the confirm page tells those who were sent there.
    pub fn with_confirm_message(mut self, message: impl Into<Message>) -> Self {
        self.answers.confirm_message = Some(message.into());
        self
    }

    /// Sends people to the login page and the confirm page without a message, and so without the
    /// cookie that carries it.
    pub fn without_messages(mut self) -> Self {
        self.answers.login_message = None;
        self.answers.confirm_message = None;
        self
    }

    /// Answers those who are refused, in place of the redirects, 401 and 403 of this crate. The
    /// handler may build any response, and may call [`Refusal::default_response`] for some.
    ///
    /// ```
    /// # use tower_keep::{Account, Keys, LoginLayer};
    /// # use tower_keep_memory::MemoryStore;
    /// # let (store, keys) = (MemoryStore::<Account>::new(), Keys::generate()?);
    /// let auth = LoginLayer::builder(store, keys)
    ///     .with_login_page("/login")
    ///     .with_refusal_handler(|refusal| {
    ///         let wants_json = refusal.request().headers.get("accept")
    ///             .is_some_and(|accept| accept == "application/json");
    ///         if !wants_json {
    ///             return refusal.default_response();
    ///         }
    ///         let mut answer = http::Response::new(r#"{"error":"login required"}"#.into());
    ///         *answer.status_mut() = refusal.rejection().status();
    ///         answer
    ///     })
    ///     .build()?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_refusal_handler(
        mut self,
        handler: impl Fn(&Refusal<'_, U>) -> http::Response<bytes::Bytes> + Send + Sync + 'static,
    ) -> Self {
        self.answers.handler = Some(Arc::new(handler));
        self
    }

    /// The name of the query field that carries `next`.
    pub fn with_next_field(mut self, field: impl Into<String>) -> Self {
        self.next_field = field.into();
        self
    }

    /// Keeps `next` in a signed cookie instead of the query.
    pub fn with_next_in_session(mut self, in_session: bool) -> Self {
        self.next_in_session = in_session;
        self
    }

    /// This site's own origin, `https://example.org`. A login page elsewhere then gets the whole URL
    /// to come back to; it is never made from the request's `Host`.
    pub fn with_public_origin(mut self, origin: impl Into<String>) -> Self {
        self.public_origin = Some(origin.into());
        self
    }

    /// Lets `OPTIONS` through every guard of this layer, for CORS preflights. Safer: put
    /// tower-http's `CorsLayer` outside of the guards, where it answers preflights itself. With
    /// this switched on, a handler that serves any method runs for `OPTIONS` without a login.
    pub fn with_options_exempt(mut self, exempt: bool) -> Self {
        self.exempt_options = exempt;
        self
    }

    /// Another clock, for tests.
    pub fn with_clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }
}

impl<U> std::fmt::Debug for LoginLayerBuilder<U> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginLayerBuilder").finish_non_exhaustive()
    }
}
