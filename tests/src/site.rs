//! A site with a route for everything that a login can do.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response, Result};
use axum::routing::{any, get};
use axum::{Extension, Router};
use bytes::Bytes;
use http_body::Frame;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tower_keep::{
    Account, AuthUser, CurrentUser, Event, Fault, FreshUser, Keys, LogInError, LoginLayer,
    LoginLayerBuilder, PasswordChange, PasswordStore, SessionInfo, SessionRecord, UserDirectory,
    UserFinder,
};
use tower_keep_testkit::TestClock;

use crate::serve::{Serving, serve};
use crate::{Browser, Http, Watched, WatchedStore, new_store};

type Login = tower_keep::Login<Account>;
/// The settings of a site.
pub type Builder = LoginLayerBuilder<WatchedStore>;

/// A running site.
pub struct Site {
    /// Its layer.
    pub auth: LoginLayer<Account>,
    /// Its users: notch (1), steve (2), creeper (3, inactive), sato (佐藤).
    pub store: WatchedStore,
    /// Its clock, which stands still until it is moved.
    pub clock: TestClock,
    /// What happened to logins.
    pub events: Events,
    /// Where its slow page waits.
    pub gate: Gate,
    /// Where it listens.
    pub address: SocketAddr,
    /// Ends when the site is dropped, and with it the store's connections.
    _serving: Serving,
}

/// Requests of the slow page: they have looked at the login, and wait to be let go.
#[derive(Clone, Debug)]
pub struct Gate(Arc<(Semaphore, Semaphore)>);

impl Gate {
    fn closed() -> Self {
        Self(Arc::new((Semaphore::new(0), Semaphore::new(0))))
    }

    /// Waits until a request has come to the gate.
    pub async fn reached(&self) {
        self.0.0.acquire().await.expect("it is never closed").forget();
    }

    /// Lets a request go.
    pub fn open(&self) {
        self.0.1.add_permits(1);
    }

    async fn pass(&self) {
        self.0.0.add_permits(1);
        self.0.1.acquire().await.expect("it is never closed").forget();
    }
}

/// What happened to logins, as `name` or `name user`.
#[derive(Clone, Debug, Default)]
pub struct Events(Arc<Mutex<Vec<String>>>);

impl Events {
    /// What happened since the last time this was asked, looks at the login left out.
    pub fn take(&self) -> Vec<String> {
        let mut events = std::mem::take(&mut *self.0.lock().expect("no listener panics"));
        events.retain(|event| event != "accessed");
        events
    }

    /// All that happened since the last time this was asked.
    pub fn take_all(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().expect("no listener panics"))
    }

    fn listen(&self, event: &Event<Account>) {
        let user = event.user().map(|user| format!(" {}", user.login())).unwrap_or_default();
        let of_record = |record: &Arc<SessionRecord>| format!(" of {}", record.user);
        let record = event.record().map(of_record).unwrap_or_default();
        let reason = match event {
            Event::SessionEnded { reason, .. } => format!(": {reason}"),
            _ => String::new(),
        };
        let told = format!("{}{user}{record}{reason}", event.name());
        self.0.lock().expect("no listener panics").push(told);
    }
}

/// The account with this login name.
pub fn account(login: &str) -> Account {
    let (id, active) = match login {
        "notch" => ("1", true),
        "steve" => ("2", true),
        "creeper" => ("3", false),
        "sato" => ("佐藤", true),
        other => (other, true),
    };
    Account::new(id, login, format!("hash of {login}'s first password")).with_active(active)
}

/// Whether all sites have session records: the same tests then hold for logins of that kind.
/// `cargo xtask test` runs them both ways.
pub fn has_records() -> bool {
    std::env::var_os("KEEP_RECORDS").is_some()
}

/// The key that sites are started with, unless a test says otherwise.
pub const KEY: &str = "a key for tests, made of forty-one bytes.";

impl Site {
    /// A site with default settings.
    pub async fn start() -> Self {
        Self::start_with(|builder| builder).await
    }

    /// A site with session records.
    pub async fn with_records() -> Self {
        Self::start_with(Builder::with_sessions).await
    }

    /// A site with these settings.
    pub async fn start_with(configure: impl FnOnce(Builder) -> Builder) -> Self {
        let store = new_store().await;
        Self::start_on(store, TestClock::new(), Keys::new(KEY), has_records(), configure).await
    }

    /// A site beside another one: with its users and its clock, and with these keys.
    pub async fn beside(&self, keys: Keys, configure: impl FnOnce(Builder) -> Builder) -> Self {
        let (store, clock) = (self.store.clone(), self.clock.clone());
        Self::start_on(store, clock, keys, has_records(), configure).await
    }

    /// A site beside another one, without session records whatever the others have.
    pub async fn without_records(&self) -> Self {
        let (store, clock) = (self.store.clone(), self.clock.clone());
        Self::start_on(store, clock, Keys::new(KEY), false, |builder| builder).await
    }

    /// A site beside another one, with users and session records in another store.
    pub async fn with_records_in(&self, store: WatchedStore) -> Self {
        Self::start_on(store, self.clock.clone(), Keys::new(KEY), true, |builder| builder).await
    }

    async fn start_on(
        store: WatchedStore,
        clock: TestClock,
        keys: Keys,
        records: bool,
        configure: impl FnOnce(Builder) -> Builder,
    ) -> Self {
        for login in ["notch", "steve", "creeper", "sato"] {
            // Beside another site they are there already.
            let _ = store.inner().insert(&account(login)).await;
        }
        let events = Events::default();
        let heard = events.clone();
        let builder = LoginLayer::builder(store.clone(), keys)
            .with_clock(clock.clone())
            .add_listener(move |event| heard.listen(event));
        let builder = if records { builder.with_sessions() } else { builder };
        let auth = configure(builder).build().expect("settings that agree");
        let gate = Gate::closed();
        let router = router(&auth, store.clone()).layer(Extension(gate.clone()));
        let serving = serve(auth.layer(router)).await;
        Self { auth, store, clock, events, gate, address: serving.address, _serving: serving }
    }

    /// A browser without cookies.
    pub fn browser(&self) -> Browser {
        Browser::new(Http::to(self.address)).with_clock(self.clock.clone())
    }

    /// A browser that has logged in with this query, such as `user=notch&remember=1`.
    pub async fn logged_in(&self, query: &str) -> Browser {
        let mut browser = self.browser();
        let answer = browser.get(&format!("/login?{query}")).await;
        assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "True"));
        browser
    }

    /// Moves the clock on.
    pub fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

fn router(auth: &LoginLayer<Account>, store: WatchedStore) -> Router {
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
        .route("/username", get(username).options(username))
        .route("/inactive", get(inactive))
        .route("/is-fresh", get(is_fresh))
        .route("/is-remembered", get(is_remembered))
        .route("/twice", get(twice))
        .route("/next", get(next))
        .route("/notice", get(notice))
        .route("/leave-notice", get(leave_notice))
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
        .route("/next-or-home", get(|login: Login| async move { login.next_or_home().to_string() }))
        .route("/extracted", get(extracted))
        .route(
            "/extracted-fresh",
            get(|user: FreshUser<Account>| async move { user.login().to_owned() }),
        )
        .merge(guarded("/secret", auth.require_login()))
        .merge(guarded("/sensitive", auth.require_fresh()))
        .merge(guarded("/recent", auth.require_fresh_within(Duration::from_secs(600))))
        .merge(guarded("/notch-only", auth.require_user(|user| user.login() == "notch")))
        .merge(guarded("/visitors-only", !auth.require_login()))
        .nest(
            "/nested",
            guarded("/secret", auth.require_login()).route("/extracted", get(extracted)),
        )
        .with_state(store)
}

#[derive(Deserialize)]
struct LogIn {
    user: String,
    remember: Option<u8>,
    duration: Option<u64>,
    fresh: Option<u8>,
    force: Option<u8>,
    method: Option<String>,
}

async fn log_in(
    State(store): State<WatchedStore>,
    login: Login,
    Query(query): Query<LogIn>,
) -> Result<Response> {
    let user = store.inner().by_login(&query.user).await.map_err(Fault::from)?;
    let Some(user) = user else { return Ok(StatusCode::NOT_FOUND.into_response()) };
    let mut log_in = login
        .log_in(user)
        .remember(query.remember == Some(1))
        .fresh(query.fresh != Some(0))
        .force(query.force == Some(1))
        .with_method(query.method.unwrap_or_default());
    if let Some(seconds) = query.duration {
        log_in = log_in.remember_for(Duration::from_secs(seconds));
    }
    match log_in.await {
        Ok(()) => Ok("True".into_response()),
        Err(LogInError::Inactive) => Ok("False".into_response()),
        Err(error) => Err(error.into()),
    }
}

async fn log_in_and_fail(login: Login) -> Result<Response> {
    login.log_in(account("notch")).await?;
    Ok((StatusCode::INTERNAL_SERVER_ERROR, "failed after the login").into_response())
}

/// Logs in, and answers when it is let go.
async fn log_in_slowly(Extension(gate): Extension<Gate>, login: Login) -> Result<&'static str> {
    login.log_in(account("notch")).await?;
    gate.pass().await;
    Ok("in")
}

/// Keeps the handle past the response, and tells in a header of the next call what came of it.
async fn log_in_late(State(store): State<WatchedStore>, login: Login) -> &'static str {
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let outcome = login.log_in(account("notch")).await;
        let word = if outcome.is_err() { "refused" } else { "accepted" };
        store.change("2", |steve| steve.set_stamp(word.as_bytes())).await;
    });
    "later"
}

async fn log_out(login: Login) -> Result<String> {
    Ok(login.log_out().await?.map(|user| user.login().to_owned()).unwrap_or_default())
}

async fn confirm(login: Login) -> Result<&'static str> {
    Ok(if login.confirm().await?.is_some() { "confirmed" } else { "nobody" })
}

async fn change_password(State(store): State<WatchedStore>, login: Login) -> Result<&'static str> {
    let Some(user) = login.user().await? else { return Ok("nobody") };
    let hash = format!("{}'", user.password_hash());
    let changed = store.inner().set_password(user.id(), &user.stamp(), &hash).await;
    let PasswordChange::Changed(changed) = changed.map_err(Fault::from)? else {
        return Ok("stale");
    };
    Ok(if login.keep_logged_in(changed).await?.is_some() { "changed" } else { "lost" })
}

async fn username(login: Login) -> Result<String> {
    Ok(login.user().await?.map_or("Anonymous".to_owned(), |user| user.login().to_owned()))
}

/// Looks at the login, and answers when it is let go.
async fn slow(Extension(gate): Extension<Gate>, login: Login) -> Result<String> {
    let name = username(login).await?;
    gate.pass().await;
    Ok(name)
}

async fn inactive(login: Login) -> Result<String> {
    Ok(login.inactive_user().await?.map(|user| user.login().to_owned()).unwrap_or_default())
}

async fn is_fresh(login: Login) -> Result<String> {
    Ok(login.is_fresh().await?.to_string())
}

async fn is_remembered(login: Login) -> String {
    login.is_remembered().to_string()
}

/// Asks often and at the same time.
async fn twice(login: Login) -> Result<String> {
    let again = login.clone();
    let (one, other) = tokio::join!(login.user(), again.user());
    let (one, other) =
        (one?.map(|user| AuthUser::id(&*user)), other?.map(|user| AuthUser::id(&*user)));
    Ok((one == other && login.is_fresh().await?).to_string())
}

async fn next(login: Login) -> String {
    login.next().map(|next| next.to_string()).unwrap_or_default()
}

async fn notice(login: Login) -> String {
    let shown = |notice: tower_keep::Notice| {
        format!("{:?} {} {}", notice.kind(), notice.category(), notice.text())
    };
    login.notice().map(shown).unwrap_or_default()
}

async fn leave_notice(login: Login) -> Result<&'static str> {
    login.leave_notice("success", "Well done.")?;
    Ok("left")
}

async fn cacheable(login: Login) -> Result<Response> {
    let name = username(login).await?;
    Ok(([(header::CACHE_CONTROL, "public, max-age=600")], name).into_response())
}

/// Tells every kind of cache to keep it, and that it varies by something else.
async fn for_caches(login: Login) -> Result<Response> {
    let name = username(login).await?;
    // The first one counts for nginx.
    let headers = [
        ("x-accel-expires", "600"),
        ("cache-control", "public, max-age=600"),
        ("cdn-cache-control", "max-age=600"),
        ("surrogate-control", "max-age=600"),
        ("vary", "Accept-Language"),
    ];
    Ok((headers, name).into_response())
}

async fn broken(login: Login) -> Result<StatusCode> {
    username(login).await?;
    Ok(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Sends its body after its head, and looks at the login before.
async fn streamed(login: Login) -> Result<Body> {
    let name = username(login).await?;
    Ok(Body::new(Later(Box::pin(async move { name }))))
}

/// Looks at the login only after its head was sent.
async fn asked_late(login: Login) -> Body {
    Body::new(Later(Box::pin(async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        username(login).await.unwrap_or_default()
    })))
}

/// A body that is made while it is sent.
struct Later(Pin<Box<dyn Future<Output = String> + Send>>);

impl http_body::Body for Later {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Infallible>>> {
        let text = ready!(self.0.as_mut().poll(cx));
        // Once read there is no more, and an empty text stands for that.
        self.0 = Box::pin(async { String::new() });
        let frame = Some(text).filter(|text| !text.is_empty());
        Poll::Ready(frame.map(|text| Ok(Frame::data(Bytes::from(text)))))
    }
}

/// One line for each: handle, device, and `this` for this one.
async fn sessions(login: Login) -> Result<String> {
    let line = |session: &SessionInfo| {
        let this = if session.is_current() { "this" } else { "other" };
        format!("{} {this} {} {}\n", session.handle(), session.device(), session.method())
    };
    Ok(login.sessions().await?.iter().map(line).collect())
}

#[derive(Deserialize)]
struct Ending {
    session: String,
}

async fn end_session(login: Login, Query(query): Query<Ending>) -> Result<String> {
    Ok(login.end_session(&query.session).await?.to_string())
}

async fn end_others(login: Login) -> Result<String> {
    login.end_other_sessions().await?;
    Ok("ended".to_owned())
}

async fn end_all(login: Login) -> Result<String> {
    Ok(login.end_all_sessions().await?.map(|user| user.login().to_owned()).unwrap_or_default())
}

async fn urls(login: Login) -> String {
    format!("{:?} {:?} {:?}", login.login_url(), login.confirm_url(), login.client())
}

async fn extracted(user: CurrentUser<Account>) -> String {
    user.login().to_owned()
}

/// Behind every guard, for any method.
async fn secret(login: Login) -> Result<String> {
    Ok(format!("secret of {}", username(login).await?))
}
