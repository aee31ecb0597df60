//! What the log says: the mend for wrong wiring, and never a secret.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use http_body_util::Full;
use tower::{Layer, service_fn};
use tower_keep::{Account, CookieSettings, Keys, LoginLayer, UserDirectory, UserId};
use tower_keep_memory::MemoryStore;
use tower_keep_testkit::TestClock;
use tower_keep_testkit::client::Client;
use tower_keep_tests::{KEY, account};

/// Everything that is logged on this thread, at every level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn start() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn take(&self) -> String {
        let bytes = std::mem::take(&mut *self.0.lock().expect("no writer panics"));
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no writer panics").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn layer(area: &str) -> LoginLayer<Account> {
    let builder = LoginLayer::builder(MemoryStore::<Account>::new(), Keys::new(KEY));
    builder.with_area(area).build().expect("settings that agree")
}

async fn page(_: Request<String>) -> Result<Response<Full<bytes::Bytes>>, Infallible> {
    Ok(Response::new(Full::from("page")))
}

#[tokio::test]
async fn wrong_wiring_is_named_with_its_mend() {
    let (log, _guard) = Log::start();
    let (site, admin) = (layer(""), layer("admin"));
    Client::new(site.require_login().layer(service_fn(page))).get("/").await;
    let told = log.take();
    assert!(told.contains("ERROR") && told.contains("auth.layer(router)"), "{told}");
    let wrong = admin.layer(site.require_login().layer(service_fn(page)));
    Client::new(wrong).get("/").await;
    let told = log.take();
    assert!(told.contains("use the guards of the layer that is around the route"), "{told}");
    let router: axum::Router = axum::Router::new()
        .route("/", axum::routing::get(|_: tower_keep::CurrentUser<Account>| async { "never" }));
    Client::new(router).get("/").await;
    let told = log.take();
    assert!(told.contains("the extractor `CurrentUser`"), "{told}");
}

// 38
#[tokio::test]
async fn two_layers_with_one_cookie_are_told_of_once() {
    let (log, _guard) = Log::start();
    let mut client = Client::new(layer("").layer(layer("").layer(service_fn(page))));
    client.get("/").await;
    assert!(log.take().contains("give one of them an area"));
    client.get("/").await;
    assert!(!log.take().contains("give one of them an area"));
    let mut client = Client::new(layer("").layer(layer("admin").layer(service_fn(page))));
    client.get("/").await;
    assert!(!log.take().contains("give one of them an area"));
}

#[test]
fn cookies_over_plain_http_are_warned_of() {
    let (log, _guard) = Log::start();
    let builder = LoginLayer::builder(MemoryStore::<Account>::new(), Keys::new(KEY));
    builder.with_session_cookie(CookieSettings::new().insecure_over_http()).build().unwrap();
    assert!(log.take().contains("cookies without Secure"));
}

#[tokio::test]
async fn no_secret_is_ever_logged_or_shown() {
    for records in [false, true] {
        let (log, _guard) = Log::start();
        let store = MemoryStore::new();
        store.insert(&account("notch")).await.unwrap();
        let builder = LoginLayer::builder(store, Keys::new(KEY)).add_listener(|event| {
            tracing::info!(?event, "heard");
        });
        let auth = if records { builder.with_sessions() } else { builder }.build().unwrap();
        let guarded = auth.layer(auth.require_login().layer(service_fn(page)));
        let mut client = Client::new(guarded);
        client.log_in(&auth, account("notch")).await.unwrap();
        let cookie = client.jar.get("__Host-keep").unwrap().to_owned();
        assert_eq!(client.get("/").await.status, 200);
        let mut shown = format!("{auth:?} {:?} {:?}", auth.require_login(), Keys::new(KEY));
        let mut handle = "no handle without records".to_owned();
        if records {
            let sessions = auth.sessions_of(&UserId::from(1)).await.unwrap();
            shown += &format!("{sessions:?}");
            handle = sessions[0].handle();
        }
        let told = log.take() + &shown;
        assert!(told.contains("logged_in"), "{told}");
        for secret in [&cookie[..20], KEY, "hash of notch", &handle] {
            assert!(!told.contains(secret), "{told}");
        }
    }
}

#[tokio::test]
async fn that_nobody_drives_the_upkeep_is_said_once() {
    let (log, _guard) = Log::start();
    let store = MemoryStore::new();
    store.insert(&account("notch")).await.unwrap();
    let clock = TestClock::new();
    let auth = LoginLayer::builder(store, Keys::new(KEY))
        .with_sessions()
        .with_clock(clock.clone())
        .build()
        .unwrap();
    let site = auth.layer(auth.require_login().layer(service_fn(page)));
    let mut client = Client::new(site).with_clock(clock.clone());
    client.log_in(&auth, account("notch")).await.unwrap();
    for expected in [1, 0] {
        clock.advance(std::time::Duration::from_secs(400));
        assert_eq!(client.get("/").await.status, 200);
        assert_eq!(log.take().matches("spawn `auth.upkeep()`").count(), expected);
    }
}
