//! A site under load: clients log in, look at a secret, log out, and record what they saw.

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
type Handled<T> = Result<T, Response>;

/// The pause of a client after a request that failed.
const PAUSE: Duration = Duration::from_millis(20);
/// A gap of this length means that the machine stood still.
const STALL: Duration = Duration::from_millis(500);
/// How long after its start a request may still fail because the machine stood still.
const LONGEST: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
struct Who {
    user: String,
}

async fn log_in(
    State(store): State<Arc<dyn AnyStore>>,
    Query(who): Query<Who>,
    auth: AuthSession,
) -> Handled<&'static str> {
    let found = store.by_login_name(&who.user).await.map_err(AuthError::from);
    let user = found.map_err(IntoResponse::into_response)?.expect("a user");
    auth.log_in(user).with_remember(true).await.map_err(IntoResponse::into_response)?;
    Ok("in")
}

async fn secret(auth: AuthSession) -> Result<String, AuthError> {
    Ok(auth.user().await?.expect("the guard let them in").login_name().to_owned())
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
    let layer = LoginLayer::builder(Arc::clone(&store), Keys::new(KEY)).with_sessions();
    let auth_layer = layer.build().expect("settings that agree");
    let router = Router::new()
        .route("/secret", get(secret))
        .route_layer(auth_layer.require_login())
        .route("/login", get(log_in))
        .route("/logout", get(log_out))
        .with_state(store);
    serve(auth_layer.layer(router)).await
}

/// What a client saw.
#[derive(Debug, Default)]
pub struct ClientLog {
    /// The requests that failed because of the store: when each was begun, and for which page.
    pub store_failures: Vec<(Instant, &'static str)>,
    /// The same for requests that failed while the machine stood still, which is not because of the
    /// store.
    pub stalled: Vec<(Instant, &'static str)>,
    /// The requests that showed the secret: when each was begun, and when its response arrived.
    pub served: Vec<Range<Instant>>,
    /// How many logins and logouts the site confirmed.
    pub confirmed: usize,
    /// The responses that contradict earlier ones.
    pub contradictions: Vec<Contradiction>,
    /// How long the slowest request took that showed the secret. Requests while the machine stood
    /// still do not count.
    pub slowest: Duration,
}

/// A client that is logged in after a confirmed logout, or logged out after a confirmed login.
#[derive(Debug)]
pub struct Contradiction {
    /// When that logout or login was confirmed.
    pub confirmed: Instant,
    /// What was wrong, as text.
    pub what: String,
}

/// The steps of a client, which it repeats. A client that is logged in at the start only looks at
/// the secret.
const WORK: &[&str] = &["/secret", "/login", "/secret", "/secret", "/secret", "/logout", "/secret"];
const LOOK: &[&str] = &["/secret"];

/// A client that has not started yet.
struct Client {
    browser: Browser,
    name: String,
    is_in: bool,
}

/// Repeats the steps of a client until `stop` is set.
async fn run(client: Client, stop: Arc<AtomicBool>) -> ClientLog {
    let Client { mut browser, name, mut is_in } = client;
    let steps = if is_in { LOOK } else { WORK };
    let mut log = ClientLog::default();
    // After a login or a logout that failed, both states are right until the next one is confirmed:
    // the store may still carry out a call that was given up, after other calls that wait.
    let (mut is_sure, mut confirmed) = (true, Instant::now());
    // Whether no request has verified the last confirmation yet.
    let mut is_unchecked = false;
    while !stop.load(Ordering::Relaxed) {
        let mut next = 0;
        while let Some(&step) = steps.get(next) {
            let path = format!("{step}?user={name}");
            let begun = Instant::now();
            let response = browser.get(&path).await;
            let is_refused = response.status == StatusCode::SERVICE_UNAVAILABLE;
            // A request that was to verify the last confirmation is repeated until the site
            // responds.
            let looks_again = is_refused && is_unchecked && step == "/secret";
            if !looks_again || stop.load(Ordering::Relaxed) {
                next += 1;
            }
            if is_refused {
                log.store_failures.push((begun, step));
                assert!(!response.headers.contains_key(header::SET_COOKIE), "{name}: {path}");
                assert!(response.headers.contains_key(header::RETRY_AFTER), "{name}: {path}");
                // A logout may have taken effect before its response was lost. So may a login: it
                // ends the browser's session, and its own cookies did not arrive.
                is_sure &= step == "/secret";
                is_unchecked &= step == "/secret";
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            let found = match (step, response.status) {
                ("/login" | "/logout", StatusCode::OK) => {
                    (is_in, is_sure, confirmed) = (step == "/login", true, Instant::now());
                    is_unchecked = true;
                    log.confirmed += 1;
                    continue;
                }
                ("/secret", StatusCode::OK) => {
                    assert_eq!(response.text(), name, "somebody else's secret");
                    log.served.push(begun..Instant::now());
                    true
                }
                ("/secret", StatusCode::UNAUTHORIZED) => false,
                other => panic!("{name}: {other:?}"),
            };
            if is_sure && found != is_in {
                let what = format!("{name} is {}", if found { "still in" } else { "out" });
                log.contradictions.push(Contradiction { confirmed, what });
            }
            (is_in, is_unchecked) = (found, false);
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
    /// Serves a site on this store for this many clients, each with a user of its own: `0`, `1` and
    /// so on.
    ///
    /// # Panics
    ///
    /// Panics if the store does not insert the users.
    pub async fn new(store: Arc<dyn AnyStore>, clients: usize) -> Self {
        for number in 0..clients {
            let account = Account::new(number as u64, format!("user{number}"), "hash");
            store.insert(&account).await.expect("a new account");
        }
        let site = site(store).await;
        let client = |number| Client {
            browser: Browser::new(Http::to(site.address)),
            name: format!("user{number}"),
            is_in: false,
        };
        Self { clients: (0..clients).map(client).collect(), site }
    }

    /// Logs in this many clients, the first ones. From then on they only look at the secret.
    ///
    /// # Panics
    ///
    /// Panics if one of them is not logged in.
    pub async fn log_in(&mut self, first: usize) {
        for client in self.clients.iter_mut().take(first) {
            let response = client.browser.get(&format!("/login?user={}", client.name)).await;
            assert_eq!(response.status, StatusCode::OK);
            client.is_in = true;
        }
    }

    /// Starts the clients.
    pub fn start(self) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let begin = |client| tokio::spawn(run(client, stop.clone()));
        let clients = self.clients.into_iter().map(begin).collect();
        let (done, is_done) = mpsc::channel();
        let stalls = std::thread::spawn(move || stalls(&is_done));
        Load { stop, clients, done, stalls, _site: self.site }
    }
}

/// A site and its running clients.
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<ClientLog>>,
    done: mpsc::Sender<()>,
    stalls: std::thread::JoinHandle<Vec<Range<Instant>>>,
    _site: Serving,
}

/// Watches the machine until the other end of the channel is dropped, and returns when it stood
/// still.
fn stalls(is_done: &mpsc::Receiver<()>) -> Vec<Range<Instant>> {
    let mut stalls = Vec::new();
    let mut last = Instant::now();
    while is_done.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
        if last.elapsed() > STALL {
            stalls.push(last..Instant::now());
        }
        last = Instant::now();
    }
    stalls
}

impl Load {
    /// Starts a site on this store with this many clients: see [`Clients`].
    pub async fn start(store: Arc<dyn AnyStore>, clients: usize) -> Self {
        Clients::new(store, clients).await.start()
    }

    /// Stops the clients, and returns what each of them saw.
    ///
    /// # Panics
    ///
    /// Panics if a client saw what must never happen.
    pub async fn stop(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for client in self.clients {
            all.push(client.await.expect("what a client saw"));
        }
        drop(self.done);
        let stalls = self.stalls.join().expect("when the machine stood still");
        let is_stalled =
            |begun: Instant| stalls.iter().any(|at| at.start < begun + LONGEST && begun < at.end);
        for log in &mut all {
            let store_failures = std::mem::take(&mut log.store_failures);
            (log.stalled, log.store_failures) =
                store_failures.into_iter().partition(|(at, _)| is_stalled(*at));
            let looks = log.served.iter().filter(|at| !is_stalled(at.start));
            log.slowest = looks.map(|at| at.end - at.start).max().unwrap_or_default();
        }
        if !stalls.is_empty() {
            let lengths: Vec<_> = stalls.iter().map(|at| at.end - at.start).collect();
            println!("the machine stood still for {lengths:?}: what failed then is not counted");
        }
        Outcome(all)
    }
}

/// What each client saw.
#[derive(Debug)]
pub struct Outcome(pub Vec<ClientLog>);

impl Outcome {
    /// Checks that every client was served before the outage, and again after the server was
    /// `back`; that no client was served while the server was `down`; and that no client was ever
    /// wrongly logged in or out. `down` lasts from when the server no longer responded until it was
    /// started again. Returns how long after `back` the last failed request was begun.
    ///
    /// # Panics
    ///
    /// Panics if one of these checks fails.
    pub fn served_but_for(&self, down: Range<Instant>, back: Instant) -> Duration {
        let mut late = Duration::ZERO;
        for (number, ClientLog { contradictions, served, store_failures, stalled, .. }) in
            self.0.iter().enumerate()
        {
            assert!(contradictions.is_empty(), "{contradictions:?}");
            let before = served.iter().any(|at| at.end < down.start);
            assert!(before, "client {number} was served before");
            // A request that was begun before the outage may still have reached the server, and one
            // whose response came afterwards may have waited for the server.
            let by_nobody = |at: &&Range<Instant>| at.start > down.start && at.end < down.end;
            let by_nobody = served.iter().find(by_nobody).map(|at| at.start - down.start);
            assert_eq!(by_nobody, None, "client {number} was served while the server was down");
            let noticed = store_failures.iter().chain(stalled).any(|(at, _)| down.contains(at));
            assert!(noticed, "client {number} noticed");
            let again = served.iter().any(|at| at.start > back);
            assert!(again, "client {number} was served again");
            let last = store_failures.last().map(|(at, _)| at.saturating_duration_since(back));
            late = late.max(last.unwrap_or_default());
        }
        println!("the last request that failed was begun {late:?} after the server was back");
        late
    }
}
