//! A site under load: clients log in, look at a secret, log out, and note what they saw.

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
use tower_keep::{Account, Fault, Keys, LoginLayer};

use crate::{AnyStore, Browser, Http, KEY, Serving, serve};

type Login = tower_keep::Login<Account>;
type Answer<T> = std::result::Result<T, Response>;

/// A request that was refused is followed by another after this.
const PAUSE: Duration = Duration::from_millis(20);
/// A gap this long means that the machine stood still.
const STALL: Duration = Duration::from_millis(500);
/// So long after it was begun a request may fail because the machine stood still.
const LONGEST: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
struct Who {
    user: String,
}

async fn log_in(
    State(store): State<Arc<dyn AnyStore>>,
    Query(who): Query<Who>,
    login: Login,
) -> Answer<&'static str> {
    let found = store.by_login(&who.user).await.map_err(Fault::from);
    let user = found.map_err(IntoResponse::into_response)?.expect("a user");
    login.log_in(user).remember(true).await.map_err(IntoResponse::into_response)?;
    Ok("in")
}

async fn secret(login: Login) -> Result<String, Fault> {
    Ok(login.user().await?.expect("the guard let them in").login().to_owned())
}

async fn log_out(login: Login) -> Result<&'static str, Fault> {
    login.log_out().await?;
    Ok("out")
}

/// Serves a site with three pages: `/login?user=NAME`, `/secret` and `/logout`.
///
/// # Panics
///
/// If there is no free port.
pub async fn site(store: Arc<dyn AnyStore>) -> Serving {
    let layer = LoginLayer::builder(Arc::clone(&store), Keys::new(KEY)).with_sessions();
    let auth = layer.build().expect("settings that agree");
    let router = Router::new()
        .route("/secret", get(secret))
        .route_layer(auth.require_login())
        .route("/login", get(log_in))
        .route("/logout", get(log_out))
        .with_state(store);
    serve(auth.layer(router)).await
}

/// What a client saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// When requests were begun that were refused for a fault, and to which page.
    pub faults: Vec<(Instant, &'static str)>,
    /// The same while the machine stood still, which is no store's fault.
    pub stalled: Vec<(Instant, &'static str)>,
    /// When requests were begun and answered that showed the secret.
    pub served: Vec<Range<Instant>>,
    /// How many logins and logouts were confirmed.
    pub confirmed: usize,
    /// Answers that don't fit what was answered before.
    pub wrong: Vec<Wrong>,
    /// How long the slowest look at the secret took that was answered with it, but for those while the machine stood
    /// still.
    pub slowest: Duration,
}

/// Somebody who is logged in, or out, after a confirmed word to the contrary.
#[derive(Debug)]
pub struct Wrong {
    /// When that word was given.
    pub confirmed: Instant,
    /// In words.
    pub what: String,
}

/// Logs in, looks at the secret a few times, logs out, and so on; whoever is in only looks.
const WORK: &[&str] = &["/secret", "/login", "/secret", "/secret", "/secret", "/logout", "/secret"];
const LOOK: &[&str] = &["/secret"];

/// A client, before it begins.
struct Client {
    browser: Browser,
    name: String,
    is_in: bool,
}

/// Takes its steps until it is told to stop.
async fn run(client: Client, stop: Arc<AtomicBool>) -> Seen {
    let Client { mut browser, name, mut is_in } = client;
    let steps = if is_in { LOOK } else { WORK };
    let mut seen = Seen::default();
    // After a login or a logout that failed, either is right until the next word is given: what was given up
    // may still be done, behind others that wait.
    let (mut is_sure, mut confirmed) = (true, Instant::now());
    // Whether the word that was given last is still to be looked after.
    let mut is_unchecked = false;
    while !stop.load(Ordering::Relaxed) {
        let mut next = 0;
        while let Some(&step) = steps.get(next) {
            let path = format!("{step}?user={name}");
            let begun = Instant::now();
            let answer = browser.get(&path).await;
            let is_refused = answer.status == StatusCode::SERVICE_UNAVAILABLE;
            // Who was given a word looks again, and sees whether it still counts.
            let looks_again = is_refused && is_unchecked && step == "/secret";
            if !looks_again || stop.load(Ordering::Relaxed) {
                next += 1;
            }
            if is_refused {
                seen.faults.push((begun, step));
                assert!(!answer.headers.contains_key(header::SET_COOKIE), "{name}: {path}");
                assert!(answer.headers.contains_key(header::RETRY_AFTER), "{name}: {path}");
                // A logout may have taken effect before its answer was lost; and so may a login, which ends the
                // session that the browser has, and whose own cookies nobody got.
                is_sure &= step == "/secret";
                is_unchecked &= step == "/secret";
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            let found = match (step, answer.status) {
                ("/login" | "/logout", StatusCode::OK) => {
                    (is_in, is_sure, confirmed) = (step == "/login", true, Instant::now());
                    is_unchecked = true;
                    seen.confirmed += 1;
                    continue;
                }
                ("/secret", StatusCode::OK) => {
                    assert_eq!(answer.text(), name, "somebody else's secret");
                    seen.served.push(begun..Instant::now());
                    true
                }
                ("/secret", StatusCode::UNAUTHORIZED) => false,
                other => panic!("{name}: {other:?}"),
            };
            if is_sure && found != is_in {
                let what = format!("{name} is {}", if found { "still in" } else { "out" });
                seen.wrong.push(Wrong { confirmed, what });
            }
            (is_in, is_unchecked) = (found, false);
        }
    }
    seen
}

/// A site and its clients, before they begin.
pub struct Clients {
    clients: Vec<Client>,
    site: Serving,
}

impl Clients {
    /// Serves a site on this store for so many clients, each with a user of its own: `0`, `1` and so on.
    ///
    /// # Panics
    ///
    /// If the store does not take the users.
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

    /// Logs the first so many in, who only look from then on.
    ///
    /// # Panics
    ///
    /// If they are not let in.
    pub async fn log_in(&mut self, first: usize) {
        for client in self.clients.iter_mut().take(first) {
            let answer = client.browser.get(&format!("/login?user={}", client.name)).await;
            assert_eq!(answer.status, StatusCode::OK);
            client.is_in = true;
        }
    }

    /// Lets them begin.
    pub fn start(self) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let begin = |client| tokio::spawn(run(client, stop.clone()));
        let clients = self.clients.into_iter().map(begin).collect();
        let (done, is_done) = mpsc::channel();
        let stalls = std::thread::spawn(move || stalls(&is_done));
        Load { stop, clients, done, stalls, _site: self.site }
    }
}

/// Clients at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Seen>>,
    done: mpsc::Sender<()>,
    stalls: std::thread::JoinHandle<Vec<Range<Instant>>>,
    _site: Serving,
}

/// When the machine stood still, until nobody asks any more.
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
    /// Starts a site on this store and so many clients: see [`Clients`].
    pub async fn start(store: Arc<dyn AnyStore>, clients: usize) -> Self {
        Clients::new(store, clients).await.start()
    }

    /// Stops the clients; what each saw.
    ///
    /// # Panics
    ///
    /// If a client saw what must never be.
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
        for seen in &mut all {
            let faults = std::mem::take(&mut seen.faults);
            (seen.stalled, seen.faults) = faults.into_iter().partition(|(at, _)| is_stalled(*at));
            let looks = seen.served.iter().filter(|at| !is_stalled(at.start));
            seen.slowest = looks.map(|at| at.end - at.start).max().unwrap_or_default();
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
pub struct Outcome(pub Vec<Seen>);

impl Outcome {
    /// Every client was served before, and again when the server was `back`. Nobody was served while it was
    /// `down`, from when it no longer answered to when it was started again, and nobody was ever wrongly logged in
    /// or out. Answers how late the last request failed.
    ///
    /// # Panics
    ///
    /// If that is not so.
    pub fn served_but_for(&self, down: Range<Instant>, back: Instant) -> Duration {
        let mut late = Duration::ZERO;
        for (number, Seen { wrong, served, faults, stalled, .. }) in self.0.iter().enumerate() {
            assert!(wrong.is_empty(), "{wrong:?}");
            let before = served.iter().any(|at| at.end < down.start);
            assert!(before, "client {number} was served before");
            // What was begun before may still have reached it, and what is answered afterwards have waited for it.
            let by_nobody = |at: &&Range<Instant>| at.start > down.start && at.end < down.end;
            let by_nobody = served.iter().find(by_nobody).map(|at| at.start - down.start);
            assert_eq!(by_nobody, None, "client {number} was served while the server was down");
            let noticed = faults.iter().chain(stalled).any(|(at, _)| down.contains(at));
            assert!(noticed, "client {number} noticed");
            let again = served.iter().any(|at| at.start > back);
            assert!(again, "client {number} was served again");
            let last = faults.last().map(|(at, _)| at.saturating_duration_since(back));
            late = late.max(last.unwrap_or_default());
        }
        println!("the last request that failed was begun {late:?} after the server was back");
        late
    }
}
