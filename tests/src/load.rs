//! A site under load: clients log in, request a secret page, log out, and record the responses.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use serde::Deserialize;
use tokio::task::JoinHandle;
use tower_keep::{Account, AuthError, Keys, LoginLayer};

use crate::{AnyStore, Browser, Http, KEY, Serving, serve};

type AuthSession = tower_keep::AuthSession<Account>;
type HandlerResult<T> = Result<T, Response>;

/// How long a client pauses after a request that failed.
const PAUSE: Duration = Duration::from_millis(20);
/// How often a thread reads the clock, to notice that the machine stands still.
const TICK: Duration = Duration::from_millis(20);
/// If two readings of the clock are further apart than this, the machine stood still.
const STALL: Duration = Duration::from_millis(500);
/// If a request was begun at most this long before a stall, the stall may be why it failed.
const MAX_BEFORE_STALL: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
struct LoginQuery {
    user: String,
}

async fn log_in(
    State(store): State<Arc<dyn AnyStore>>,
    Query(query): Query<LoginQuery>,
    auth: AuthSession,
) -> HandlerResult<&'static str> {
    let found = store.by_login_name(&query.user).await.map_err(AuthError::from);
    let user = found.map_err(IntoResponse::into_response)?.expect("a stored user");
    auth.log_in(user).with_remember(true).await.map_err(IntoResponse::into_response)?;
    Ok("in")
}

async fn secret(auth: AuthSession) -> Result<String, AuthError> {
    Ok(auth.user().await?.expect("the guard requires a login").login_name().to_owned())
}

async fn log_out(auth: AuthSession) -> Result<&'static str, AuthError> {
    auth.log_out().await?;
    Ok("out")
}

/// Serves a site with three pages: `/login?user=NAME`, `/secret` and `/logout`.
///
/// # Panics
///
/// Panics if there is no free port.
pub async fn site(store: Arc<dyn AnyStore>) -> Serving {
    let builder = LoginLayer::builder(Arc::clone(&store), Keys::new(KEY)).with_sessions();
    let auth_layer = builder.build().expect("settings that agree");
    let router = Router::new()
        .route("/secret", get(secret))
        .route_layer(auth_layer.require_login())
        .route("/login", get(log_in))
        .route("/logout", get(log_out))
        .with_state(store);
    serve(auth_layer.layer(router)).await
}

/// The responses that a client got.
#[derive(Debug, Default)]
pub struct ClientLog {
    /// The requests that failed because of the store: when each was begun, and for which page.
    pub store_failures: Vec<(Instant, &'static str)>,
    /// The requests that failed because the machine stood still: when each was begun, and for which
    /// page.
    pub stall_failures: Vec<(Instant, &'static str)>,
    /// The requests that got the secret: when each was begun, and when its response arrived.
    pub served: Vec<Range<Instant>>,
    /// How many logins and logouts the site acknowledged.
    pub acknowledged: usize,
    /// The responses that contradict earlier responses.
    pub contradictions: Vec<Contradiction>,
    /// The longest time that a request in `served` took, except requests while the machine stood
    /// still.
    pub slowest: Duration,
}

/// A response by which a client is logged in after an acknowledged logout, or logged out after an
/// acknowledged login.
#[derive(Debug)]
pub struct Contradiction {
    /// When the site acknowledged that logout or login.
    pub acknowledged_at: Instant,
    /// A text that says which client is wrongly logged in or out.
    pub text: String,
}

/// The pages that a client requests again and again.
const ALL_PAGES: &[&str] =
    &["/secret", "/login", "/secret", "/secret", "/secret", "/logout", "/secret"];
/// The pages of a client that is logged in at the start: such a client neither logs in nor out.
const READ_PAGES: &[&str] = &["/secret"];

/// A client that has not started yet.
struct Client {
    browser: Browser,
    name: String,
    is_logged_in: bool,
}

/// Runs a client until `stop` is set.
async fn run(client: Client, stop: Arc<AtomicBool>) -> ClientLog {
    let Client { mut browser, name, mut is_logged_in } = client;
    let pages = if is_logged_in { READ_PAGES } else { ALL_PAGES };
    let mut log = ClientLog::default();
    // If a login or a logout fails, the client may be logged in or out until the site acknowledges
    // the next login or logout: the store may still carry out the failed call, after other calls
    // that wait.
    let (mut is_state_known, mut acknowledged_at) = (true, Instant::now());
    // Whether no response for the secret has checked the last acknowledgement yet.
    let mut is_unchecked = false;
    while !stop.load(Ordering::Relaxed) {
        let mut next = 0;
        while let Some(&page) = pages.get(next) {
            let path = format!("{page}?user={name}");
            let begun = Instant::now();
            let response = browser.get(&path).await;
            let is_failed = response.status == StatusCode::SERVICE_UNAVAILABLE;
            // The request that checks the last acknowledgement is repeated until it succeeds.
            let is_repeated = is_failed && is_unchecked && page == "/secret";
            if !is_repeated || stop.load(Ordering::Relaxed) {
                next += 1;
            }
            if is_failed {
                log.store_failures.push((begun, page));
                assert!(!response.headers.contains_key(header::SET_COOKIE), "{name}: {path}");
                assert!(response.headers.contains_key(header::RETRY_AFTER), "{name}: {path}");
                // A failed logout may have taken effect. A failed login may have ended the earlier
                // session of the browser, and the cookies of the new session did not arrive.
                is_state_known &= page == "/secret";
                is_unchecked &= page == "/secret";
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            let has_access = match (page, response.status) {
                ("/login" | "/logout", StatusCode::OK) => {
                    (is_logged_in, is_state_known) = (page == "/login", true);
                    (is_unchecked, acknowledged_at) = (true, Instant::now());
                    log.acknowledged += 1;
                    continue;
                }
                ("/secret", StatusCode::OK) => {
                    assert_eq!(response.text(), name, "the secret of another user");
                    log.served.push(begun..Instant::now());
                    true
                }
                ("/secret", StatusCode::UNAUTHORIZED) => false,
                other => panic!("{name}: {other:?}"),
            };
            if is_state_known && has_access != is_logged_in {
                let state = if has_access { "logged in" } else { "logged out" };
                let text = format!("{name} is {state}");
                log.contradictions.push(Contradiction { acknowledged_at, text });
            }
            (is_logged_in, is_unchecked) = (has_access, false);
        }
    }
    log
}

/// A site and its clients, which have not started yet.
pub struct Clients {
    clients: Vec<Client>,
    site: Serving,
}

impl Clients {
    /// Serves a site on this store for `count` clients. Each client has its own user, with the id
    /// `0`, `1` and so on.
    ///
    /// # Panics
    ///
    /// Panics if the store does not insert the users.
    pub async fn new(store: Arc<dyn AnyStore>, count: usize) -> Self {
        for number in 0..count {
            let account = Account::new(number as u64, format!("user{number}"), "hash");
            store.insert(&account).await.expect("a new account");
        }
        let site = site(store).await;
        let client = |number| Client {
            browser: Browser::new(Http::to(site.address)),
            name: format!("user{number}"),
            is_logged_in: false,
        };
        Self { clients: (0..count).map(client).collect(), site }
    }

    /// Logs in the first `count` clients. Once they run, they only request the secret.
    ///
    /// # Panics
    ///
    /// Panics if a login fails.
    pub async fn log_in(&mut self, count: usize) {
        for client in self.clients.iter_mut().take(count) {
            let response = client.browser.get(&format!("/login?user={}", client.name)).await;
            assert_eq!(response.status, StatusCode::OK);
            client.is_logged_in = true;
        }
    }

    /// Starts the clients.
    pub fn start(self) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let spawn = |client| tokio::spawn(run(client, stop.clone()));
        let clients = self.clients.into_iter().map(spawn).collect();
        let (watching, stop_watching) = mpsc::channel();
        let watcher = std::thread::spawn(move || watch_for_stalls(&stop_watching));
        Load { stop, clients, watching, watcher, _site: self.site }
    }
}

/// A site and its running clients.
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<ClientLog>>,
    /// Dropping this stops the watcher.
    watching: mpsc::Sender<()>,
    watcher: std::thread::JoinHandle<Vec<Range<Instant>>>,
    _site: Serving,
}

/// Watches the machine until the sender of the channel is dropped. Returns the periods in which the
/// machine stood still.
fn watch_for_stalls(stop_watching: &mpsc::Receiver<()>) -> Vec<Range<Instant>> {
    let mut stalls = Vec::new();
    let mut last = Instant::now();
    while stop_watching.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
        if last.elapsed() > STALL {
            stalls.push(last..Instant::now());
        }
        last = Instant::now();
    }
    stalls
}

impl Load {
    /// Starts a site on this store with `count` clients: see [`Clients`].
    pub async fn start(store: Arc<dyn AnyStore>, count: usize) -> Self {
        Clients::new(store, count).await.start()
    }

    /// Stops the clients, and returns the responses that each of them got.
    ///
    /// # Panics
    ///
    /// Panics if a client got the secret of another user, a status that no page has, or a 503 that
    /// sets a cookie or has no `retry-after`.
    pub async fn stop(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        let mut logs = Vec::new();
        for client in self.clients {
            logs.push(client.await.expect("no client panics"));
        }
        drop(self.watching);
        let stalls = self.watcher.join().expect("the watcher does not panic");
        let is_stalled = |begun: Instant| {
            stalls.iter().any(|stall| stall.start < begun + MAX_BEFORE_STALL && begun < stall.end)
        };
        for log in &mut logs {
            let failures = std::mem::take(&mut log.store_failures);
            (log.stall_failures, log.store_failures) =
                failures.into_iter().partition(|(at, _)| is_stalled(*at));
            let served = log.served.iter().filter(|request| !is_stalled(request.start));
            log.slowest =
                served.map(|request| request.end - request.start).max().unwrap_or_default();
        }
        if !stalls.is_empty() {
            let lengths: Vec<_> = stalls.iter().map(|stall| stall.end - stall.start).collect();
            println!(
                "the machine stood still for {lengths:?}: requests during these times do not count"
            );
        }
        Outcome { logs }
    }
}

/// The responses that all clients got.
#[derive(Debug)]
pub struct Outcome {
    /// The log of each client, by the client's number.
    pub logs: Vec<ClientLog>,
}

impl Outcome {
    /// Checks that every client was served before the outage, and again after it; that no client
    /// was served while the server was down; and that no client was ever wrongly logged in or out.
    ///
    /// `down` begins when the server no longer responds, and ends when a test begins to start the
    /// server again. `back` is when the server responds again. Returns the time from `back` until
    /// the start of the last failed request.
    ///
    /// # Panics
    ///
    /// Panics if one of these checks fails.
    pub fn check_outage(&self, down: Range<Instant>, back: Instant) -> Duration {
        let mut recovery = Duration::ZERO;
        for (number, log) in self.logs.iter().enumerate() {
            let ClientLog { contradictions, served, store_failures, stall_failures, .. } = log;
            assert!(contradictions.is_empty(), "{contradictions:?}");
            let is_served_before = served.iter().any(|request| request.end < down.start);
            assert!(is_served_before, "client {number} was not served before the outage");
            // A request that was begun before the outage may still have reached the server, and a
            // response that came after the outage may have waited for the server.
            let is_during_outage =
                |request: &&Range<Instant>| request.start > down.start && request.end < down.end;
            let during = served.iter().find(is_during_outage);
            let during = during.map(|request| request.start - down.start);
            assert_eq!(during, None, "client {number} was served while the server was down");
            let mut failures = store_failures.iter().chain(stall_failures);
            let has_failed = failures.any(|(begun, _)| down.contains(begun));
            assert!(has_failed, "no request of client {number} failed during the outage");
            let is_served_after = served.iter().any(|request| request.start > back);
            assert!(is_served_after, "client {number} was not served after the outage");
            let last =
                store_failures.last().map(|(begun, _)| begun.saturating_duration_since(back));
            recovery = recovery.max(last.unwrap_or_default());
        }
        println!("the last request that failed was begun {recovery:?} after the server was back");
        recovery
    }
}
