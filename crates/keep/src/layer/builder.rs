//! The settings of a layer, with each default and its reason. `build` checks that they agree.

use std::sync::Arc;
use std::time::Duration;

use tower_keep_core::{
    Apart, Clock, LoginStore, SessionLimit, SessionStore, SystemClock, UserStore, WhenFull,
};

use crate::cookie::CookieSettings;
use crate::event::Listener;
use crate::guard::{Answers, Refusal};
use crate::loader::RequestLoader;
use crate::{ClientMatch, Event, Keys, Message, SessionProtection};

const DAY: u64 = 24 * 3_600;

/// Neither accuses anybody nor calls it a theft: a browser that was set back to a backup of its
/// profile looks the same.
const REPLAYED: &str = "An old copy of one of your remembered logins was used, so that login was \
    ended. If that was not you, change your password.";

/// The settings of a [`LoginLayer`](crate::LoginLayer).
///
/// | setting | default | because |
/// | --- | --- | --- |
/// | session lasts | until the browser is closed | Flask's default; the remember cookie is for more |
/// | idle limit | 7 days | a forgotten session ends |
/// | absolute limit | 30 days | NIST SP 800-63B: identify again within 30 days |
/// | remember duration | 30 days | as long as the absolute limit; a year, as in Flask-Login, is long for a stolen laptop |
/// | session records | none | a store of users is enough to begin with; see [`with_sessions`](Self::with_sessions) |
/// | sessions per user | any number | people have many devices |
/// | rotation grace | 60 s | requests on their way have arrived by then |
/// | touch interval | 5 min | exact enough for people, and few writes |
/// | remember refresh | off | a remembered login then ends at the time that was promised |
/// | session protection | basic, exact | Flask-Login's defaults |
/// | login page, confirm page | none: 401 | an API has none |
/// | `next` | in the query, field `next` | works without another cookie |
/// | trusted proxies | none | forwarded headers are forged easily |
/// | pages for every client | no | a poll must not leave notices, or replace `next` |
/// | `OPTIONS` exempt from guards | no | a handler for any method would run |
#[must_use = "call `build` to get the layer"]
pub struct LoginLayerBuilder<S: UserStore> {
    pub(super) store: S,
    /// Where logins have records.
    pub(super) erase: Option<Erase<S>>,
    pub(super) settings: Settings<S::User>,
}

/// All but the store.
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
    pub(super) all_are_pages: bool,
}

/// Forgets the type of a store that keeps sessions.
pub(super) type Erase<S> = fn(S) -> Arc<dyn LoginStore<User = <S as UserStore>::User>>;

impl<S: UserStore + 'static> LoginLayerBuilder<S> {
    /// Keeps a record of every login in the store that the users are in. So logging out ends all
    /// copies of the cookies, sessions can be listed and ended from elsewhere
    /// ([`Login::sessions`](crate::Login::sessions)), and a stolen remember cookie is noticed.
    ///
    /// An authenticated request is still one call of the store. Spawn
    /// [`upkeep`](crate::LoginLayer::upkeep) too. Cookies of a layer without records are refused, and
    /// the reverse: switching this on or off logs everybody out.
    ///
    /// ```
    /// # use tower_keep::{Account, Keys, LoginLayer};
    /// # use tower_keep_memory::MemoryStore;
    /// # let (store, keys) = (MemoryStore::<Account>::new(), Keys::generate()?);
    /// let auth = LoginLayer::builder(store, keys).with_sessions().build()?;
    /// # let _ = auth;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_sessions(mut self) -> Self
    where
        S: LoginStore,
    {
        self.erase = Some(|store| Arc::new(store));
        self
    }

    /// As [`with_sessions`](Self::with_sessions), with the records in another store than the users;
    /// an authenticated request asks both at once.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use tower_keep::{Account, Keys, LoginLayer, StoreError, UserId, user_loader};
    /// # use tower_keep_memory::MemorySessions;
    /// # let keys = Keys::generate()?;
    /// let users = user_loader(|id: UserId| async move {
    ///     Ok::<_, StoreError>(Some(Arc::new(Account::new(id, "ada", "…"))))
    /// });
    /// let auth = LoginLayer::builder(users, keys).with_sessions_in(MemorySessions::new()).build()?;
    /// # let _ = auth;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_sessions_in<R: SessionStore + 'static>(
        self,
        records: R,
    ) -> LoginLayerBuilder<Apart<S, R>> {
        let Self { store, settings, .. } = self;
        let erase: Erase<Apart<S, R>> = |store| Arc::new(store);
        LoginLayerBuilder { store: Apart(store, records), erase: Some(erase), settings }
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
            all_are_pages: false,
        };
        Self { store, erase: None, settings }
    }

    /// How many sessions a user may have at once, the new one included, at least one; and what happens
    /// at one more. Needs [session records](Self::with_sessions).
    ///
    /// Sessions count until they end or expire, those too that a new password has made useless: with
    /// [`WhenFull::Refuse`], end them where a password is changed
    /// ([`keep_logged_in`](crate::Login::keep_logged_in) does) or reset
    /// ([`end_all_sessions_of`](crate::LoginLayer::end_all_sessions_of)). A session that was never used
    /// since its login makes room, as nobody may have its cookies. Give all layers over one store the
    /// same limit: one without `Refuse` notes a first use only later, with others.
    ///
    /// A refused login is [`LogInError::TooManySessions`](crate::LogInError::TooManySessions), a 409. To
    /// offer "end the others and log in here", check the password, end all sessions of the user, and log
    /// in again. A login over a login of the same browser replaces it, and is never refused for it.
    ///
    /// ```
    /// # use tower_keep::{Account, Keys, LoginLayer, WhenFull};
    /// # use tower_keep_memory::MemoryStore;
    /// # let (store, keys) = (MemoryStore::<Account>::new(), Keys::generate()?);
    /// let auth = LoginLayer::builder(store, keys)
    ///     .with_sessions()
    ///     .with_session_limit(3, WhenFull::EndOldest)
    ///     .build()?;
    /// # let _ = auth;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_session_limit(mut self, most: usize, when_full: WhenFull) -> Self {
        self.settings.limit = Some(SessionLimit { most, when_full });
        self
    }

    /// How long superseded cookies of a session with a record still count after their successors
    /// were seen, for requests that are on their way; at least 2 seconds, and more than the clocks of
    /// the servers differ, lest a request that is on its way look like a replay. Within this time a
    /// browser restores its session without new cookies, and a copy goes unnoticed.
    pub fn with_rotation_grace(mut self, grace: Duration) -> Self {
        self.settings.grace = grace;
        self
    }

    /// How exactly a record tells when its session was last used; never more than a tenth of the
    /// idle limit. At most one write per session in this time.
    pub fn with_touch_interval(mut self, interval: Duration) -> Self {
        self.settings.touch = interval;
        self
    }

    /// What users are told at their next login after a copy of a remember cookie was used; at most
    /// 256 bytes. It is a notice of the kind
    /// [`Replayed`](crate::NoticeKind::Replayed) and the category `warning`.
    pub fn with_replay_message(mut self, message: impl Into<String>) -> Self {
        self.settings.replay_message = Some(message.into());
        self
    }

    /// Names this login where an application has several, such as a site and its `/admin`. The
    /// area enters the cookies' names and keys, so that a login of one is none of another.
    ///
    /// Two layers with the same keys and the same area accept each other's cookies, whatever their
    /// user types: give each its own area.
    pub fn with_area(mut self, area: impl Into<String>) -> Self {
        self.settings.area = area.into();
        self
    }

    /// The session cookie's name and attributes. The cookie that carries notices gets the same
    /// attributes, and this name with `-visit`.
    pub fn with_session_cookie(mut self, cookie: CookieSettings) -> Self {
        self.settings.session = cookie;
        self
    }

    /// The remember cookie's name and attributes.
    pub fn with_remember_cookie(mut self, cookie: CookieSettings) -> Self {
        self.settings.remember = cookie;
        self
    }

    /// How long the remember cookie counts, unless the login says otherwise. The time is inside the
    /// signed value, and this server's clock decides. Browsers forget a cookie after 400 days.
    pub fn with_remember_duration(mut self, duration: Duration) -> Self {
        self.settings.remember_duration = duration;
        self
    }

    /// Starts the time of the remember cookie anew with each request that looks at the login. It
    /// renews a genuine cookie of the user who is logged in, and never makes one.
    pub fn with_remember_refresh(mut self, refresh: bool) -> Self {
        self.settings.refresh_remember = refresh;
        self
    }

    /// Whether the session outlives the browser's being closed. It then also survives strong
    /// protection, as in Flask-Login; see [`SessionProtection::Strong`].
    pub fn with_persistent_session(mut self, persistent: bool) -> Self {
        self.settings.persistent = persistent;
        self
    }

    /// Ends a session that was not used for this long; `None` for never. Kept to a tenth: a
    /// session is renewed when a tenth of the limit has passed, not with every response. Without this
    /// limit and the absolute one a session's record stays until somebody ends it.
    pub fn with_idle_limit(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.settings.idle = limit.into();
        self
    }

    /// Ends a session this long after its login, used or not; `None` for never.
    pub fn with_absolute_limit(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.settings.absolute = limit.into();
        self
    }

    /// What happens to a session that comes from another client.
    pub fn with_session_protection(mut self, protection: SessionProtection) -> Self {
        self.settings.protection = protection;
        self
    }

    /// What counts as another client.
    pub fn with_client_match(mut self, matching: ClientMatch) -> Self {
        self.settings.client_match = matching;
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
        self.settings.proxies = networks.into_iter().map(Into::into).collect();
        self
    }

    /// Adds a [request loader](RequestLoader), asked after those added before.
    pub fn add_request_loader(mut self, loader: impl RequestLoader<S::User> + 'static) -> Self {
        self.settings.loaders.push(Arc::new(loader));
        self
    }

    /// Calls the closure with every [`Event`], after the listeners added before.
    pub fn add_listener(
        mut self,
        listener: impl Fn(&Event<S::User>) + Send + Sync + 'static,
    ) -> Self {
        self.settings.listeners.push(Arc::new(listener));
        self
    }

    /// Makes the application's own anonymous user, which
    /// [`Login::user_or_anonymous`](crate::Login::user_or_anonymous) answers when nobody is logged
    /// in. To guards such a user is still nobody.
    pub fn with_anonymous_user(
        mut self,
        anonymous: impl Fn() -> Arc<S::User> + Send + Sync + 'static,
    ) -> Self {
        self.settings.anonymous = Some(Arc::new(anonymous));
        self
    }

    /// Where guards send those who are not logged in: a path of this site, or a URL. Without one
    /// they answer 401.
    pub fn with_login_page(mut self, page: impl Into<String>) -> Self {
        self.settings.login_page = Some(page.into());
        self
    }

    /// Where guards send those whose login is not fresh enough. Without one they answer 401.
    pub fn with_confirm_page(mut self, page: impl Into<String>) -> Self {
        self.settings.confirm_page = Some(page.into());
        self
    }

    /// The path that logs out, `/logout` by default; nobody is sent back there after signing in.
    pub fn with_logout_path(mut self, path: impl Into<String>) -> Self {
        self.settings.logout_path = path.into();
        self
    }

    /// Another path that nobody is sent back to after signing in, besides those of login, logout and
    /// confirm: the login page of a single guard, a sign-up page.
    pub fn add_never_next(mut self, path: impl Into<String>) -> Self {
        self.settings.never_next.push(path.into());
        self
    }

    /// Where [`Login::next_or_home`](crate::Login::next_or_home) leads when there is no `next`;
    /// `/` by default.
    pub fn with_home_page(mut self, path: impl Into<String>) -> Self {
        self.settings.home = path.into();
        self
    }

    /// What the login page tells those who were sent there: a text, or a [`Message`] that is made
    /// for each request.
    pub fn with_login_message(mut self, message: impl Into<Message>) -> Self {
        self.settings.answers.login_message = Some(message.into());
        self
    }

    /// What the confirm page tells those who were sent there.
    pub fn with_confirm_message(mut self, message: impl Into<Message>) -> Self {
        self.settings.answers.confirm_message = Some(message.into());
        self
    }

    /// Leaves no messages, and so no cookie that carries them: neither to those who are sent to the
    /// login page or the confirm page, nor after a replay.
    pub fn without_messages(mut self) -> Self {
        self.settings.answers.login_message = None;
        self.settings.answers.confirm_message = None;
        self.settings.replay_message = None;
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
        handler: impl Fn(&Refusal<'_, S::User>) -> http::Response<bytes::Bytes> + Send + Sync + 'static,
    ) -> Self {
        self.settings.answers.handler = Some(Arc::new(handler));
        self
    }

    /// The name of the query field that carries `next`.
    pub fn with_next_field(mut self, field: impl Into<String>) -> Self {
        self.settings.next_field = field.into();
        self
    }

    /// Keeps `next` in a signed cookie instead of the query.
    pub fn with_next_in_session(mut self, in_session: bool) -> Self {
        self.settings.next_in_session = in_session;
        self
    }

    /// This site's own origin, `https://example.org`. A login page elsewhere then gets the whole URL
    /// to come back to; it is never made from the request's `Host`.
    pub fn with_public_origin(mut self, origin: impl Into<String>) -> Self {
        self.settings.public_origin = Some(origin.into());
        self
    }

    /// Lets `OPTIONS` through every guard of this layer, for CORS preflights. Safer: put
    /// tower-http's `CorsLayer` outside of the guards, where it answers preflights itself. With
    /// this switched on, a handler that serves any method runs for `OPTIONS` without a login.
    pub fn with_options_exempt(mut self, exempt: bool) -> Self {
        self.settings.exempt_options = exempt;
        self
    }

    /// Whether every request counts as one for a page, as in Flask-Login; no by default.
    ///
    /// Otherwise only the navigation of a browser's tab leaves a notice, or a `next` in the session:
    /// browsers say so by `Sec-Fetch-Dest`, and others by a GET whose `Accept` prefers `text/html`. So
    /// an image or a poll that is turned away does not replace what the page has left.
    pub fn with_pages_for_every_client(mut self, all: bool) -> Self {
        self.settings.all_are_pages = all;
        self
    }

    /// Another clock, for tests.
    pub fn with_clock(mut self, clock: impl Clock + 'static) -> Self {
        self.settings.clock = Arc::new(clock);
        self
    }
}

impl<S: UserStore> std::fmt::Debug for LoginLayerBuilder<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginLayerBuilder").finish_non_exhaustive()
    }
}
