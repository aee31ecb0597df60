//! The site of a node: it logs in with a password.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::{Form, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response, Result};
use axum::routing::{get, post};
use axum::{Router, ServiceExt};
use serde::Deserialize;
use tower_keep::layer::LoginService;
use tower_keep::sign_in::{PasswordCheck, SignInLimits};
use tower_keep::store::{UserDirectoryExt, UserLookup};
use tower_keep::throttle::CounterRule;
use tower_keep::{Account, AuthError, Keys, LoginLayer, PasswordSignIn, Passwords};
use tower_keep_testkit::TestClock;

use crate::{KEY, WatchedStore};

type AuthSession = tower_keep::AuthSession<Account>;

/// The password of every user of the site.
pub const PASSWORD: &str = "correct horse battery staple";

/// Returns the login names of the site's users.
pub fn user_names() -> impl Iterator<Item = String> {
    (1..=5).map(|number| format!("user{number}"))
}

/// Returns the address that a client's requests name in `X-Forwarded-For`. It is a public address,
/// and each client has its own.
pub fn address_of_client(number: usize) -> String {
    format!("198.18.{}.{}", number / 250, number % 250 + 1)
}

/// The settings in which a node differs from the defaults.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// How many wrong passwords one address may send in an hour.
    pub by_address: u32,
    /// How many wrong passwords all known devices of a user may send in a day.
    pub by_all_devices: u32,
    /// How many counters a node may begin in a second.
    pub max_new_counters: u32,
    /// By how many seconds the node's clock is ahead; negative if it is behind.
    pub clock_offset: i64,
}

impl Default for NodeSettings {
    fn default() -> Self {
        Self { by_address: 100, by_all_devices: 100, max_new_counters: 1_000, clock_offset: 0 }
    }
}

impl NodeSettings {
    /// Returns the arguments of the program `node`.
    pub fn arguments(&self) -> Vec<String> {
        let Self { by_address, by_all_devices, max_new_counters, clock_offset } = self;
        [*by_address, *by_all_devices, *max_new_counters]
            .map(|number| number.to_string())
            .into_iter()
            .chain([clock_offset.to_string()])
            .collect()
    }

    /// Reads the arguments of the program `node`.
    ///
    /// # Panics
    ///
    /// Panics if there are fewer arguments, or they are not numbers.
    pub fn from_arguments(mut arguments: impl Iterator<Item = String>) -> Self {
        let mut next = || arguments.next().expect("four settings");
        let mut number = || next().parse().expect("a number");
        let (by_address, by_all_devices, max_new_counters) = (number(), number(), number());
        let clock_offset = next().parse().expect("a number");
        Self { by_address, by_all_devices, max_new_counters, clock_offset }
    }
}

#[derive(Clone)]
struct App {
    store: WatchedStore,
    sign_in: PasswordSignIn<Account>,
    clock: TestClock,
}

/// Creates the site of a node. The first node of a store also inserts the users.
///
/// # Panics
///
/// Panics if the store fails.
pub async fn node_site(
    store: WatchedStore,
    clock: TestClock,
    settings: &NodeSettings,
) -> LoginService<Router, Account> {
    move_clock(&clock, settings.clock_offset);
    let passwords = Passwords::new();
    if store.inner().by_login_name("user1").await.expect("the store responds").is_none() {
        let hash = passwords.hash(PASSWORD).await.expect("a hash");
        for (id, name) in (1..).zip(user_names()) {
            let account = Account::new(id, name, hash.clone());
            store.inner().insert_if_absent(&account).await.expect("the store responds");
        }
    }
    let auth_layer = LoginLayer::builder(store.clone(), Keys::new(KEY))
        .with_sessions()
        .with_clock(clock.clone())
        .with_trusted_proxies(["127.0.0.0/8"])
        .build()
        .expect("settings that agree");
    let mut limits = SignInLimits::default();
    limits.by_address = CounterRule::window(settings.by_address, 3_600);
    limits.by_all_devices = CounterRule::window(settings.by_all_devices, 24 * 3_600);
    let limiter = auth_layer.limiter(store.clone());
    let sign_in = PasswordSignIn::new(&auth_layer, store.clone())
        .with_limits(limits)
        .with_limiter(limiter.with_max_new_counters(settings.max_new_counters))
        // More checks may wait than on a real site, so that few attempts are turned away as too
        // many.
        .with_passwords(passwords.with_concurrency(64));
    let router = Router::new()
        .route("/sign-in", post(log_in))
        .route("/confirm", post(confirm))
        .route("/log-out", post(log_out))
        .route("/name", get(name))
        .route("/device", post(make_device_known))
        .route("/clock", post(set_clock))
        .with_state(App { store, sign_in, clock });
    auth_layer.layer(router)
}

/// Serves a site at any port of this machine, and prints where.
///
/// # Errors
///
/// Returns an error if there is no free port.
pub async fn serve_node(site: LoginService<Router, Account>) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
    let service = ServiceExt::<Request>::into_make_service_with_connect_info::<SocketAddr>(site);
    axum::serve(listener, service).await
}

fn move_clock(clock: &TestClock, seconds: i64) {
    let by = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { clock.go_back(by) } else { clock.advance(by) }
}

#[derive(Deserialize)]
struct SignInForm {
    #[serde(default)]
    login: String,
    password: String,
}

/// Returns the response to a password that is not right, or was not checked: 401 or 429.
fn refuse(not_ok: PasswordCheck<Account>) -> Response {
    match not_ok {
        PasswordCheck::Throttled(throttled) => throttled.into_response(),
        _ => (StatusCode::UNAUTHORIZED, "wrong").into_response(),
    }
}

async fn log_in(
    State(app): State<App>,
    auth: AuthSession,
    Form(form): Form<SignInForm>,
) -> Result<Response> {
    match app.sign_in.check(&auth, &form.login, form.password).await? {
        PasswordCheck::Ok(user) => auth.log_in(user).with_remember(true).await?,
        not_ok => return Ok(refuse(not_ok)),
    }
    Ok("in".into_response())
}

async fn confirm(
    State(app): State<App>,
    auth: AuthSession,
    Form(form): Form<SignInForm>,
) -> Result<Response> {
    match app.sign_in.check_again(&auth, form.password).await? {
        PasswordCheck::Ok(_) => Ok(auth.confirm().await?.is_some().to_string().into_response()),
        not_ok => Ok(refuse(not_ok)),
    }
}

async fn log_out(auth: AuthSession) -> Result<&'static str> {
    auth.log_out().await?;
    Ok("out")
}

async fn name(auth: AuthSession) -> Result<String> {
    Ok(auth.user().await?.map_or("nobody".to_owned(), |user| user.login_name().to_owned()))
}

#[derive(Deserialize)]
struct UserQuery {
    user: String,
}

/// Logs in without a password, as a link in a mail does, and makes the browser a known device.
async fn make_device_known(
    State(app): State<App>,
    auth: AuthSession,
    Query(query): Query<UserQuery>,
) -> Result<&'static str> {
    let user = app.store.inner().by_login_name(&query.user).await.map_err(AuthError::from)?;
    auth.log_in(user.expect("a user of the site")).with_known_device(true).await?;
    Ok("known")
}

#[derive(Deserialize)]
struct ClockQuery {
    seconds: i64,
}

async fn set_clock(State(app): State<App>, Query(query): Query<ClockQuery>) {
    move_clock(&app.clock, query.seconds);
}
