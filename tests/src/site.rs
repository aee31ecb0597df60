//! A site whose routes call the methods of `AuthSession`, or are behind guards.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, Query, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response, Result};
use axum::routing::{any, get};
use axum::{Extension, Router};
use bytes::Bytes;
use http_body::Frame;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tower_keep::event::Event;
use tower_keep::guard::{AuthRejection, Rejection};
use tower_keep::password::{PasswordChange, PasswordStore};
use tower_keep::session::{SessionInfo, SessionRecord};
use tower_keep::store::{UserDirectory, UserLookup};
use tower_keep::{
    Account, AuthError, AuthUser, CurrentUser, FreshUser, Keys, LoginError, LoginLayer,
    LoginLayerBuilder,
};
use tower_keep_testkit::TestClock;

use crate::serve::{Serving, serve};
use crate::{Browser, Http, WatchedStore, WatchedStoreExt, new_store};

type AuthSession = tower_keep::AuthSession<Account>;
/// The builder of a site's layer.
pub type Builder = LoginLayerBuilder<WatchedStore>;

/// A running site.
pub struct Site {
    /// The site's layer.
    pub auth_layer: LoginLayer<Account>,
    /// The store. Its users, by login name and id: notch (1), steve (2), creeper (3, inactive),
    /// sato (佐藤).
    pub store: WatchedStore,
    /// The layer's clock, which stands still until a test advances it.
    pub clock: TestClock,
    /// The events of the layer.
    pub events: Events,
    /// The gate where requests for the slow pages wait.
    pub gate: Gate,
    /// The address where the site listens.
    pub address: SocketAddr,
    /// Dropping this stops the server, which also closes the store's connections.
    _serving: Serving,
}

/// Stops each request for a slow page after its handler has used its `AuthSession`, until a test
/// lets the request pass.
#[derive(Clone, Debug)]
pub struct Gate {
    /// Has a permit for each request that has arrived.
    arrived: Arc<Semaphore>,
    /// Has a permit for each request that may pass.
    passes: Arc<Semaphore>,
}

impl Gate {
    fn closed() -> Self {
        Self { arrived: Arc::new(Semaphore::new(0)), passes: Arc::new(Semaphore::new(0)) }
    }

    /// Waits until a request has reached the gate.
    pub async fn wait_for_request(&self) {
        self.arrived.acquire().await.expect("the semaphore is never closed").forget();
    }

    /// Lets one request pass.
    pub fn let_one_pass(&self) {
        self.passes.add_permits(1);
    }

    /// Waits, in a handler, until a test lets this request pass.
    async fn pass(&self) {
        self.arrived.add_permits(1);
        self.passes.acquire().await.expect("the semaphore is never closed").forget();
    }
}

/// The recorded events of a layer, as `EVENT`, `EVENT LOGIN_NAME`, `EVENT of USER_ID` or, if a
/// session ended, `EVENT of USER_ID: REASON`.
#[derive(Clone, Debug, Default)]
pub struct Events(Arc<Mutex<Vec<String>>>);

impl Events {
    /// Returns the events since the last `take` or `take_all`, except `accessed`.
    pub fn take(&self) -> Vec<String> {
        let mut events = std::mem::take(&mut *self.0.lock().expect("no listener panics"));
        events.retain(|event| event != "accessed");
        events
    }

    /// Returns all events since the last `take` or `take_all`.
    pub fn take_all(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().expect("no listener panics"))
    }

    fn record(&self, event: &Event<Account>) {
        let user = event.user().map(|user| format!(" {}", user.login_name())).unwrap_or_default();
        let of_user = |record: &Arc<SessionRecord>| format!(" of {}", record.user);
        let owner = event.record().map(of_user).unwrap_or_default();
        let reason = match event {
            Event::SessionEnded { reason, .. } => format!(": {reason}"),
            _ => String::new(),
        };
        let line = format!("{}{user}{owner}{reason}", event.name());
        self.0.lock().expect("no listener panics").push(line);
    }
}

/// Returns the account with this login name.
pub fn account(login_name: &str) -> Account {
    let (id, active) = match login_name {
        "notch" => ("1", true),
        "steve" => ("2", true),
        "creeper" => ("3", false),
        "sato" => ("佐藤", true),
        other => (other, true),
    };
    Account::new(id, login_name, format!("hash of {login_name}'s first password"))
        .with_active(active)
}

/// Returns whether the variable `KEEP_SERVER_SESSIONS` is set. If it is set, all sites use
/// server-side sessions. `cargo xtask test` runs the same tests with and without this variable.
pub fn has_server_sessions() -> bool {
    std::env::var_os("KEEP_SERVER_SESSIONS").is_some()
}

/// The default key of a site.
pub const KEY: &str = "a key for tests, made of forty-one bytes.";

impl Site {
    /// Starts a site with default settings.
    pub async fn start() -> Self {
        Self::start_with(|builder| builder).await
    }

    /// Starts a site with server-side sessions.
    pub async fn with_server_sessions() -> Self {
        Self::start_with(Builder::with_sessions).await
    }

    /// Starts a site with these settings.
    pub async fn start_with(configure: impl FnOnce(Builder) -> Builder) -> Self {
        let store = new_store().await;
        Self::start_on(store, TestClock::new(), Keys::new(KEY), has_server_sessions(), configure)
            .await
    }

    /// Starts another site with the store and the clock of this one, and with these keys.
    pub async fn start_another(
        &self,
        keys: Keys,
        configure: impl FnOnce(Builder) -> Builder,
    ) -> Self {
        let (store, clock) = (self.store.clone(), self.clock.clone());
        Self::start_on(store, clock, keys, has_server_sessions(), configure).await
    }

    /// Starts another site with the store, the clock and the key of this one, but without
    /// server-side sessions, even if this one has them.
    pub async fn start_another_without_server_sessions(&self) -> Self {
        let (store, clock) = (self.store.clone(), self.clock.clone());
        Self::start_on(store, clock, Keys::new(KEY), false, |builder| builder).await
    }

    /// Starts another site with the clock and the key of this one, and with server-side sessions in
    /// another store.
    pub async fn start_another_with_server_sessions(&self, store: WatchedStore) -> Self {
        Self::start_on(store, self.clock.clone(), Keys::new(KEY), true, |builder| builder).await
    }

    async fn start_on(
        store: WatchedStore,
        clock: TestClock,
        keys: Keys,
        with_sessions: bool,
        configure: impl FnOnce(Builder) -> Builder,
    ) -> Self {
        for login_name in ["notch", "steve", "creeper", "sato"] {
            // If another site uses the same store, the users exist already.
            let _ = store.inner().insert(&account(login_name)).await;
        }
        let events = Events::default();
        let recorder = events.clone();
        let builder = LoginLayer::builder(store.clone(), keys)
            .with_clock(clock.clone())
            .with_listener(move |event| recorder.record(event));
        let builder = if with_sessions { builder.with_sessions() } else { builder };
        let auth_layer = configure(builder).build().expect("settings that agree");
        let gate = Gate::closed();
        let router = router(&auth_layer, store.clone()).layer(Extension(gate.clone()));
        let serving = serve(auth_layer.layer(router)).await;
        Self { auth_layer, store, clock, events, gate, address: serving.address, _serving: serving }
    }

    /// Returns a browser without cookies.
    pub fn browser(&self) -> Browser {
        Browser::new(Http::to(self.address)).with_clock(self.clock.clone())
    }

    /// Returns a browser that has logged in with this query of `/login`, such as
    /// `user=notch&remember=1`.
    pub async fn logged_in(&self, query: &str) -> Browser {
        let mut browser = self.browser();
        let response = browser.get(&format!("/login?{query}")).await;
        assert_eq!((response.status, response.text().as_str()), (StatusCode::OK, "True"));
        browser
    }

    /// Moves the clock forward.
    pub fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

fn router(auth_layer: &LoginLayer<Account>, store: WatchedStore) -> Router {
    let guarded = |path: &str, guard| Router::new().route(path, any(secret)).route_layer(guard);
    Router::new()
        .route("/hello", get(|| async { "hello" }))
        .route("/login", get(log_in).post(log_in))
        .route("/log-in-and-fail", get(log_in_and_fail))
        .route("/log-in-late", get(log_in_late))
        .route("/log-in-slowly", get(log_in_slowly))
        .route("/logout", get(log_out).post(log_out))
        .route("/confirm", get(confirm))
        .route("/change-password", get(change_password))
        .route("/slow", get(slow))
        .route("/username", any(username))
        .route("/inactive", get(inactive))
        .route("/is-fresh", get(is_fresh))
        .route("/is-remembered", get(is_remembered))
        .route("/twice", get(twice))
        .route("/recheck", get(recheck))
        .route("/token", get(token).post(token))
        .route("/token-slowly", get(token_slowly))
        .route("/is-bearer", get(is_bearer))
        .route("/extracted-notch", any(extracted_notch))
        .route("/extracted-recent", any(extracted_recent))
        .route("/maybe", get(maybe))
        .route("/next", get(next))
        .route("/take-flash", get(take_flash))
        .route("/flash", get(flash))
        .route("/cacheable", get(cacheable))
        .route("/for-caches", get(for_caches))
        .route("/broken", get(broken))
        .route("/streamed", get(streamed))
        .route("/asked-late", get(asked_late))
        .route("/sessions", get(sessions))
        .route("/end-session", get(end_session))
        .route("/end-others", get(end_others))
        .route("/end-all", get(end_all))
        .route("/urls", get(urls))
        .route(
            "/next-or-home",
            get(|auth: AuthSession| async move { auth.next_or_home().to_string() }),
        )
        .route("/extracted", any(extracted))
        .route(
            "/extracted-fresh",
            get(|user: FreshUser<Account>| async move { user.login_name().to_owned() }),
        )
        .merge(guarded("/secret", auth_layer.require_login()))
        .merge(guarded("/sensitive", auth_layer.require_fresh()))
        .merge(guarded("/recent", auth_layer.require_fresh_within(Duration::from_secs(600))))
        .merge(guarded("/notch-only", auth_layer.require_user(|user| user.login_name() == "notch")))
        .merge(guarded("/visitors-only", !auth_layer.require_login()))
        .nest(
            "/nested",
            guarded("/secret", auth_layer.require_login()).route("/extracted", get(extracted)),
        )
        .with_state(store)
}

#[derive(Deserialize)]
struct LoginQuery {
    user: String,
    remember: Option<u8>,
    duration: Option<u64>,
    fresh: Option<u8>,
    force: Option<u8>,
    method: Option<String>,
    label: Option<String>,
}

async fn log_in(
    State(store): State<WatchedStore>,
    auth: AuthSession,
    Query(query): Query<LoginQuery>,
) -> Result<Response> {
    let user = store.inner().by_login_name(&query.user).await.map_err(AuthError::from)?;
    let Some(user) = user else { return Ok(StatusCode::NOT_FOUND.into_response()) };
    let mut builder = auth
        .log_in(user)
        .with_remember(query.remember == Some(1))
        .with_fresh(query.fresh != Some(0))
        .with_force(query.force == Some(1))
        .with_method(query.method.unwrap_or_default());
    if let Some(seconds) = query.duration {
        builder = builder.with_remember(true).with_remember_duration(Duration::from_secs(seconds));
    }
    match builder.await {
        Ok(()) => Ok("True".into_response()),
        Err(LoginError::Inactive) => Ok("False".into_response()),
        Err(error) => Err(error.into()),
    }
}

async fn log_in_and_fail(auth: AuthSession) -> Result<Response> {
    auth.log_in(account("notch")).await?;
    Ok((StatusCode::INTERNAL_SERVER_ERROR, "failed after the login").into_response())
}

/// Logs in, and responds once the gate lets the request pass.
async fn log_in_slowly(
    Extension(gate): Extension<Gate>,
    auth: AuthSession,
) -> Result<&'static str> {
    auth.log_in(account("notch")).await?;
    gate.pass().await;
    Ok("in")
}

/// Logs in only after the response was sent. Stores the outcome, `refused` or `accepted`, as
/// steve's security stamp, where the test reads it.
async fn log_in_late(State(store): State<WatchedStore>, auth: AuthSession) -> &'static str {
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let outcome = auth.log_in(account("notch")).await;
        let word = if outcome.is_err() { "refused" } else { "accepted" };
        store.change("2", |steve| steve.set_security_stamp(word.as_bytes())).await;
    });
    "later"
}

async fn log_out(auth: AuthSession) -> Result<String> {
    Ok(auth.log_out().await?.map(|user| user.login_name().to_owned()).unwrap_or_default())
}

async fn confirm(auth: AuthSession) -> Result<&'static str> {
    Ok(if auth.confirm().await?.is_some() { "confirmed" } else { "nobody" })
}

async fn change_password(
    State(store): State<WatchedStore>,
    auth: AuthSession,
) -> Result<&'static str> {
    let Some(user) = auth.user().await? else { return Ok("nobody") };
    let hash = format!("{}'", user.password_hash());
    let changed = store.inner().set_password(user.id(), &user.security_stamp(), &hash).await;
    let PasswordChange::Changed(changed) = changed.map_err(AuthError::from)? else {
        return Ok("stale");
    };
    Ok(if auth.keep_logged_in(changed).await?.is_some() { "changed" } else { "lost" })
}

async fn username(auth: AuthSession) -> Result<String> {
    Ok(auth.user().await?.map_or("Anonymous".to_owned(), |user| user.login_name().to_owned()))
}

/// Asks for the user, and responds once the gate lets the request pass.
async fn slow(Extension(gate): Extension<Gate>, auth: AuthSession) -> Result<String> {
    let name = username(auth).await?;
    gate.pass().await;
    Ok(name)
}

async fn inactive(auth: AuthSession) -> Result<String> {
    Ok(auth.inactive_user().await?.map(|user| user.login_name().to_owned()).unwrap_or_default())
}

async fn is_fresh(auth: AuthSession) -> Result<String> {
    Ok(auth.is_fresh().await?.to_string())
}

async fn is_remembered(auth: AuthSession) -> String {
    auth.is_remembered().to_string()
}

/// Asks for the user, and asks again whether the login stands once the gate lets the request pass.
/// Returns both names.
async fn recheck(Extension(gate): Extension<Gate>, auth: AuthSession) -> Result<String> {
    let before = username(auth.clone()).await?;
    gate.pass().await;
    let after = auth.recheck().await?;
    let after = after.map_or("Anonymous".to_owned(), |user| user.login_name().to_owned());
    assert_eq!(username(auth).await?, before, "the handle keeps the user of the request");
    Ok(format!("{before}, then {after}"))
}

/// Logs in with a bearer token, and returns the token.
async fn token(
    State(store): State<WatchedStore>,
    auth: AuthSession,
    Query(query): Query<LoginQuery>,
) -> Result<String> {
    let user = store.inner().by_login_name(&query.user).await.map_err(AuthError::from)?;
    let Some(user) = user else { return Ok(String::new()) };
    let mut login = auth.log_in(user).with_method(query.method.unwrap_or_default());
    if let Some(fresh) = query.fresh {
        login = login.with_fresh(fresh == 1);
    }
    let mut builder = login.as_bearer().with_label(query.label.unwrap_or_default());
    if let Some(seconds) = query.duration {
        builder = builder.with_lifetime(Duration::from_secs(seconds));
    }
    Ok(builder.await?.as_str().to_owned())
}

/// Logs in with a bearer token, and responds once the gate lets the request pass.
async fn token_slowly(Extension(gate): Extension<Gate>, auth: AuthSession) -> Result<String> {
    let token = auth.log_in(account("notch")).as_bearer().await?;
    gate.pass().await;
    Ok(token.as_str().to_owned())
}

async fn is_bearer(auth: AuthSession) -> Result<String> {
    Ok(auth.is_bearer().await?.to_string())
}

/// An extractor of the application, which lets only notch in.
struct Notch;

impl<S: Send + Sync> FromRequestParts<S> for Notch {
    type Rejection = AuthRejection;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &S,
    ) -> std::result::Result<Self, AuthRejection> {
        let user = CurrentUser::<Account>::from_request_parts(parts, state).await?;
        let auth = AuthSession::from_request_parts(parts, state).await?;
        match user.login_name() {
            "notch" => Ok(Self),
            _ => Err(auth.reject(Rejection::Forbidden, parts)),
        }
    }
}

async fn extracted_notch(_: Notch) -> &'static str {
    "notch"
}

async fn extracted_recent(user: FreshUser<Account, 600>) -> String {
    user.login_name().to_owned()
}

/// Says which of the optional extractors have found something.
async fn maybe(
    auth: Option<AuthSession>,
    user: Option<CurrentUser<Account>>,
    fresh: Option<FreshUser<Account>>,
    recent: Option<FreshUser<Account, 600>>,
) -> String {
    let found = [auth.is_some(), user.is_some(), fresh.is_some(), recent.is_some()];
    found.map(|is_found| if is_found { "yes" } else { "no" }).join(" ")
}

/// Asks for the user twice at the same time, and then whether the login is fresh.
async fn twice(auth: AuthSession) -> Result<String> {
    let again = auth.clone();
    let (one, other) = tokio::join!(auth.user(), again.user());
    let (one, other) =
        (one?.map(|user| AuthUser::id(&*user)), other?.map(|user| AuthUser::id(&*user)));
    Ok((one == other && auth.is_fresh().await?).to_string())
}

async fn next(auth: AuthSession) -> String {
    auth.next().map(|next| next.to_string()).unwrap_or_default()
}

async fn take_flash(auth: AuthSession) -> String {
    let shown = |flash: tower_keep::flash::Flash| {
        format!("{:?} {} {}", flash.kind(), flash.category(), flash.text())
    };
    auth.take_flash().map(shown).unwrap_or_default()
}

async fn flash(auth: AuthSession) -> Result<&'static str> {
    auth.flash("success", "Well done.")?;
    Ok("set")
}

async fn cacheable(auth: AuthSession) -> Result<Response> {
    let name = username(auth).await?;
    Ok(([(header::CACHE_CONTROL, "public, max-age=600")], name).into_response())
}

/// Tells every kind of cache to store the response, and sends a `vary` without `Cookie`.
async fn for_caches(auth: AuthSession) -> Result<Response> {
    let name = username(auth).await?;
    // nginx obeys `x-accel-expires` and ignores the other times.
    let headers = [
        ("x-accel-expires", "600"),
        ("cache-control", "public, max-age=600"),
        ("cdn-cache-control", "max-age=600"),
        ("surrogate-control", "max-age=600"),
        ("vary", "Accept-Language"),
    ];
    Ok((headers, name).into_response())
}

async fn broken(auth: AuthSession) -> Result<StatusCode> {
    username(auth).await?;
    Ok(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Asks for the user before the response's head is sent, and sends the body afterwards.
async fn streamed(auth: AuthSession) -> Result<Body> {
    let name = username(auth).await?;
    Ok(Body::new(LazyBody(Box::pin(async move { name }))))
}

/// Asks for the user only after the response's head was sent.
async fn asked_late(auth: AuthSession) -> Body {
    Body::new(LazyBody(Box::pin(async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        username(auth).await.unwrap_or_default()
    })))
}

/// A body of one text, which is computed after the response's head was sent.
struct LazyBody(Pin<Box<dyn Future<Output = String> + Send>>);

impl http_body::Body for LazyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Infallible>>> {
        let text = ready!(self.0.as_mut().poll(cx));
        // The text is sent once. An empty text ends the body.
        self.0 = Box::pin(async { String::new() });
        let frame = Some(text).filter(|text| !text.is_empty());
        Poll::Ready(frame.map(|text| Ok(Frame::data(Bytes::from(text)))))
    }
}

/// Returns one line for each session: its public id, `this` for the current session or `other`, its
/// device and its method.
async fn sessions(auth: AuthSession) -> Result<String> {
    let line = |session: &SessionInfo| {
        let this = if session.is_current() { "this" } else { "other" };
        let carrier = if session.is_bearer() { " bearer" } else { "" };
        let label = session.label().map(|label| format!(" {label}")).unwrap_or_default();
        let method = session.method().unwrap_or_default();
        format!("{} {this} {} {method}{carrier}{label}\n", session.public_id(), session.device())
    };
    Ok(auth.sessions().await?.iter().map(line).collect())
}

#[derive(Deserialize)]
struct EndQuery {
    session: String,
}

async fn end_session(auth: AuthSession, Query(query): Query<EndQuery>) -> Result<String> {
    Ok(auth.end_session(&query.session).await?.to_string())
}

async fn end_others(auth: AuthSession) -> Result<String> {
    auth.end_other_sessions().await?;
    Ok("ended".to_owned())
}

async fn end_all(auth: AuthSession) -> Result<String> {
    Ok(auth.end_all_sessions().await?.map(|user| user.login_name().to_owned()).unwrap_or_default())
}

async fn urls(auth: AuthSession) -> String {
    format!("{:?} {:?} {:?}", auth.login_url(), auth.confirm_url(), auth.client_addr())
}

async fn extracted(user: CurrentUser<Account>) -> String {
    user.login_name().to_owned()
}

/// The page that the guards protect, for any method.
async fn secret(auth: AuthSession) -> Result<String> {
    Ok(format!("secret of {}", username(auth).await?))
}
