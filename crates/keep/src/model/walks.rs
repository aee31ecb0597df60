//! Random walks of the model, repeated with the real layer and a real store. The results must be
//! the same at every step.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, Request, Response, header};
use tower::ServiceExt;
use tower_keep_core::{Account, Clock, EndReason, UserDirectory, UserId};
use tower_keep_memory::MemoryStore;

use super::{GRACE, Holder, Kind, MAX_TRANSIT, REMEMBER_SECONDS, START, Set, World};
use crate::client::SessionProtection;
use crate::event::Event;
use crate::keys::Keys;
use crate::layer::LoginLayer;
use crate::login::handle::AuthSession;

const WALKS: u64 = 1_000;
const STEPS: usize = 60;

#[derive(Clone)]
struct SharedClock(Arc<AtomicU32>);

impl Clock for SharedClock {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.0.load(Ordering::SeqCst).into())
    }
}

/// The two cookies, as a browser holds them: session, remember.
type Cookies = [Option<String>; 2];
const NAMES: [&str; 2] = ["__Host-Http-keep", "__Host-Http-keep-remember"];

/// The real layer next to the model.
struct Real {
    auth_layer: LoginLayer<Account>,
    clock: SharedClock,
    replays: Arc<AtomicUsize>,
    browser: Cookies,
    thief: Cookies,
    /// The client of each response, and the change of each cookie: `None` keeps the cookie,
    /// `Some(None)` clears it, `Some(Some(value))` sets it.
    responses: Vec<(Holder, [Option<Option<String>>; 2])>,
}

impl Real {
    async fn new() -> Self {
        let clock = SharedClock(Arc::new(AtomicU32::new(START)));
        let replays = Arc::new(AtomicUsize::new(0));
        let replay_counter = Arc::clone(&replays);
        let store = MemoryStore::new();
        store.insert(&Account::new(1, "ada", "")).await.unwrap();
        let auth_layer =
            LoginLayer::builder(store, Keys::new("a key for the model, long enough to be one"))
                .with_sessions()
                .with_clock(clock.clone())
                .with_session_protection(SessionProtection::None)
                .with_rotation_grace(Duration::from_secs(GRACE.into()))
                .with_remember_duration(Duration::from_secs(REMEMBER_SECONDS.into()))
                .with_idle_limit(None)
                .with_absolute_limit(None)
                .with_listener(move |event| {
                    if matches!(event, Event::SessionEnded { reason: EndReason::Replay, .. }) {
                        replay_counter.fetch_add(1, Ordering::SeqCst);
                    }
                })
                .build()
                .unwrap();
        let (browser, thief, responses) = Default::default();
        Self { auth_layer, clock, replays, browser, thief, responses }
    }

    fn jar(&mut self, holder: Holder) -> &mut Cookies {
        match holder {
            Holder::Browser => &mut self.browser,
            Holder::Thief => &mut self.thief,
        }
    }

    /// Sends a request and returns whether a user was logged in.
    async fn send(&mut self, from: Holder, kind: Kind) -> bool {
        let cookies: Vec<_> = NAMES
            .iter()
            .zip(self.jar(from).iter())
            .filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?)))
            .collect();
        let mut request = Request::new(());
        if !cookies.is_empty() {
            request.headers_mut().insert(header::COOKIE, cookies.join("; ").parse().unwrap());
        }
        let is_user = Arc::new(AtomicBool::new(false));
        let result = Arc::clone(&is_user);
        let handler = tower::service_fn(move |request: Request<()>| {
            let auth = request.extensions().get::<AuthSession<Account>>().cloned().unwrap();
            let result = Arc::clone(&result);
            async move {
                result.store(handle(&auth, kind).await, Ordering::SeqCst);
                Ok::<_, Infallible>(Response::new(()))
            }
        });
        let response = self.auth_layer.layer(handler).oneshot(request).await.unwrap();
        self.responses.push((from, NAMES.map(|name| set_cookie(response.headers(), name))));
        is_user.load(Ordering::SeqCst)
    }

    fn deliver(&mut self, index: usize) {
        let (to, set) = self.responses.remove(index);
        for (cookie, set) in self.jar(to).iter_mut().zip(set) {
            if let Some(value) = set {
                *cookie = value;
            }
        }
    }
}

/// Handles a request. Returns whether a user was logged in.
async fn handle(auth: &AuthSession<Account>, kind: Kind) -> bool {
    match kind {
        Kind::Visit => auth.user().await.unwrap().is_some(),
        Kind::Confirm => {
            let is_user = auth.user().await.unwrap().is_some();
            auth.confirm().await.unwrap();
            is_user
        }
        Kind::LogOut => auth.log_out().await.unwrap().is_some(),
        Kind::LogIn => {
            auth.log_in(Account::new(1, "ada", "")).with_remember(true).await.unwrap();
            true
        }
    }
}

/// Returns the change of this cookie in the response, as in [`Real::responses`].
fn set_cookie(headers: &HeaderMap, name: &str) -> Option<Option<String>> {
    let set = headers.get_all(header::SET_COOKIE).iter().find_map(|cookie| {
        cookie.to_str().unwrap().strip_prefix(name)?.strip_prefix('=')?.split(';').next()
    })?;
    Some(Some(set.to_owned()).filter(|value| !value.is_empty()))
}

/// Returns the change of a cookie in the model as a word.
fn word<T>(set: Set<T>) -> &'static str {
    match set {
        Set::Keep => "keep",
        Set::Clear => "clear",
        Set::To(_) => "set",
    }
}

/// Returns the change of a cookie in the real response as a word.
fn real_word(set: Option<&Option<String>>) -> &'static str {
    match set {
        None => "keep",
        Some(None) => "clear",
        Some(Some(_)) => "set",
    }
}

/// A generator of pseudo-random numbers, which are the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % sides as u64) as usize
    }
}

/// Makes one random walk. Returns the number of requests, and whether a replay was found.
async fn walk(seed: u64) -> (usize, bool) {
    let (mut dice, mut model, mut real) = (Dice(seed), World::new(false), Real::new().await);
    assert!(real.send(Holder::Browser, Kind::LogIn).await);
    real.deliver(0);
    let (mut trace, mut requests) = (Vec::new(), 0);
    for _ in 0..STEPS {
        match dice.roll(14) {
            0 => {
                trace.push("close".to_owned());
                model.browser.session = None;
                real.browser[0] = None;
            }
            1 => {
                trace.push("steal".to_owned());
                model.thief = model.browser;
                real.thief = real.browser.clone();
            }
            2 | 3 => {
                let time = [MAX_TRANSIT, GRACE, GRACE + 1][dice.roll(3)];
                while !model.may_wait(time) {
                    trace.push("deliver the first".to_owned());
                    model.deliver(0);
                    real.deliver(0);
                }
                trace.push(format!("wait {time}"));
                model.now += time;
                real.clock.0.store(model.now, Ordering::SeqCst);
            }
            4 if dice.roll(4) == 0 => {
                trace.push("revoke".to_owned());
                let now = model.now;
                for id in 0..model.records.len() as u8 {
                    model.end(id, now, EndReason::Revoked, None);
                }
                real.auth_layer.end_all_sessions_of(&UserId::from(1)).await.unwrap();
            }
            5..=7 if !model.responses.is_empty() => {
                let index = dice.roll(model.responses.len());
                if dice.roll(3) == 0 {
                    trace.push(format!("lose {index}"));
                    model.responses.remove(index);
                    real.responses.remove(index);
                } else {
                    trace.push(format!("deliver {index}"));
                    model.deliver(index);
                    real.deliver(index);
                }
            }
            _ => {
                let from = if dice.roll(4) == 0 { Holder::Thief } else { Holder::Browser };
                let kind = match (from, dice.roll(12)) {
                    (Holder::Browser, 0) => Kind::LogIn,
                    (Holder::Browser, 1) => Kind::LogOut,
                    (Holder::Browser, 2 | 3) => Kind::Confirm,
                    _ => Kind::Visit,
                };
                trace.push(format!("{from:?} {kind:?}"));
                requests += 1;
                let held = *model.jar(from);
                model.send(from, kind);
                while !model.requests.is_empty() {
                    model.serve(0);
                }
                let index = model.responses.len() - 1;
                model.write(index);
                let expected = &model.responses[index];
                let is_user = real.send(from, kind).await;
                let (_, set) = &real.responses[index];
                let actual = [
                    if is_user { "user" } else { "nobody" },
                    real_word(set[0].as_ref()),
                    real_word(set[1].as_ref()),
                ];
                let words = [
                    if expected.is_user { "user" } else { "nobody" },
                    word(expected.cookies.session),
                    word(expected.cookies.remember),
                ];
                let context =
                    format!("seed {seed}, holding {held:?}, {:?}, after {trace:?}", model.records);
                assert_eq!(words, actual, "left: the model, right: the layer; {context}");
                let replays = real.replays.load(Ordering::SeqCst);
                assert_eq!(model.has_found_replay, replays > 0, "{context}");
            }
        }
    }
    (requests, model.has_found_replay)
}

#[tokio::test]
async fn the_layer_and_the_model_agree_at_every_step() {
    let (mut requests, mut replays) = (0, 0);
    for seed in 0..WALKS {
        let (requests_of_walk, has_found_replay) = walk(seed).await;
        requests += requests_of_walk;
        replays += usize::from(has_found_replay);
    }
    println!("{requests} requests in {WALKS} walks, {replays} with a replay");
    assert!(replays > 10, "only {replays} walks with a replay");
}
