//! The log says how to fix wrong wiring, and never contains a secret.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use http_body_util::Full;
use tower::{ServiceExt, service_fn};
use tower_keep::client::SessionProtection;
use tower_keep::cookie::CookieSettings;
use tower_keep::password::Passwords;
use tower_keep::store::{StoreError, StoreErrorKind, UserDirectory, UserLookup};
use tower_keep::{Account, Keys, LoginLayer, PasswordSignIn, UserId};
use tower_keep_memory::MemoryStore;
use tower_keep_testkit::client::Client;
use tower_keep_testkit::{FaultyStore, TestClock, Trouble};
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
async fn the_log_says_how_to_fix_wrong_wiring() {
    let (log, _guard) = Log::start();
    let (site, admin) = (layer(""), layer("admin"));
    Client::new(site.require_login().layer(service_fn(page))).get("/").await;
    let lines = log.take();
    assert!(lines.contains("ERROR") && lines.contains("auth_layer.layer(router)"), "{lines}");
    let wrong = admin.layer(site.require_login().layer(service_fn(page)));
    // A debug build says the same in the body, because the log may have no subscriber.
    let body = Client::new(wrong).get("/").await.text();
    for lines in [log.take(), body] {
        assert!(lines.contains("use the guards of the layer that is around the route"), "{lines}");
    }
    let router: axum::Router = axum::Router::new()
        .route("/", axum::routing::get(|_: tower_keep::CurrentUser<Account>| async { "never" }));
    let body = Client::new(router).get("/").await.text();
    for lines in [log.take(), body] {
        assert!(lines.contains("the extractor `CurrentUser`"), "{lines}");
    }
    // The layer has no server-side sessions.
    let router: axum::Router = axum::Router::new().route("/", axum::routing::get(devices));
    let body = Client::new(site.layer(router)).get("/").await.text();
    for lines in [log.take(), body] {
        assert!(lines.contains("`with_sessions`"), "{lines}");
    }
}

/// A handler that needs server-side sessions.
async fn devices(auth: tower_keep::AuthSession<Account>) -> Result<String, tower_keep::AuthError> {
    Ok(auth.sessions().await?.len().to_string())
}

#[tokio::test]
async fn a_store_error_is_one_error_line_with_the_store_and_the_cause() {
    let (log, _guard) = Log::start();
    let store = FaultyStore::new(MemoryStore::<Account>::new());
    store.insert(&account("notch")).await.unwrap();
    let auth_layer =
        LoginLayer::builder(store.clone(), Keys::new(KEY)).with_sessions().build().unwrap();
    let log_in = async |auth: tower_keep::AuthSession<Account>| {
        auth.log_in(account("notch")).await?;
        Ok::<_, tower_keep::LoginError>("in")
    };
    let log_out = async |auth: tower_keep::AuthSession<Account>| {
        auth.log_out().await?;
        Ok::<_, tower_keep::AuthError>("out")
    };
    let find = async |axum::extract::State(store): axum::extract::State<Faulty>| {
        store.by_login_name("notch").await.map_err(tower_keep::AuthError::from)?;
        Ok::<_, tower_keep::AuthError>("found")
    };
    let change = async |axum::extract::State(store): axum::extract::State<Faulty>| {
        Passwords::new().change(&store, &account("notch"), "new password").await?;
        Ok::<_, tower_keep::password::PasswordError>("changed")
    };
    let guarded = axum::Router::new()
        .route("/guarded", axum::routing::get(|| async { "never" }))
        .route_layer(auth_layer.require_login());
    let router = axum::Router::new()
        .route("/in", axum::routing::get(log_in))
        .route("/out", axum::routing::get(log_out))
        .route("/devices", axum::routing::get(devices))
        .route("/find", axum::routing::get(find))
        .route("/change", axum::routing::get(change))
        .merge(guarded)
        .with_state(store.clone());
    let mut client = Client::new(auth_layer.layer(router));
    client.get("/in").await;
    for path in ["/in", "/out", "/devices", "/guarded", "/find", "/change"] {
        store.set_all(Trouble::Fails(StoreErrorKind::Unavailable));
        log.take();
        let response = client.get(path).await;
        assert_eq!(response.status, 503, "{path}");
        let lines = log.take();
        assert_eq!(lines.matches("ERROR").count(), 1, "{path}: {lines}");
        assert!(lines.contains(r#"store="faulty""#) && lines.contains("unavailable"), "{lines}");
        store.heal();
    }
    let error = StoreError::new(StoreErrorKind::Unsupported, "mine").with_message("run `mine up`");
    let text = tower_keep::AuthError::from(error).to_string();
    assert!(text.contains("mine store: not supported: run `mine up`"), "{text}");
}

type Faulty = FaultyStore<MemoryStore<Account>>;

#[tokio::test]
async fn a_malformed_stored_hash_is_one_error_line_without_the_hash() {
    let passwords = Passwords::new();
    let hash = passwords.hash("p").await.expect("a hash");
    let without_output = &hash[..hash.rfind('$').expect("a hash has parts")];
    let without_salt = &without_output[..without_output.rfind('$').expect("a hash has parts")];
    let (log, _guard) = Log::start();
    for stored in ["", "!", "plain text", "$2b$12$abc", without_output, without_salt] {
        assert!(!passwords.verify(Some(stored), "p").await.expect("no error"), "{stored}");
        let lines = log.take();
        assert_eq!(lines.matches("ERROR").count(), 1, "{stored}: {lines}");
        assert!(stored.len() < 2 || !lines.contains(stored), "{lines}");
    }
    // A valid hash, and no hash at all, cause no error line.
    assert!(passwords.verify(Some(&hash), "p").await.expect("no error"));
    assert!(!passwords.verify(None, "p").await.expect("no error"));
    assert_eq!(log.take().matches("ERROR").count(), 0);
}

#[tokio::test]
async fn an_unknown_client_address_is_logged_once() {
    let (log, _guard) = Log::start();
    for (protection, expected) in [(SessionProtection::Basic, 1), (SessionProtection::None, 0)] {
        let auth_layer = LoginLayer::builder(MemoryStore::<Account>::new(), Keys::new(KEY))
            .with_session_protection(protection)
            .build()
            .unwrap();
        let service = auth_layer.layer(service_fn(async |request: Request<String>| {
            let auth = request.extensions().get::<tower_keep::AuthSession<Account>>().unwrap();
            auth.log_in(account("notch")).await.unwrap();
            Ok::<_, Infallible>(Response::new(Full::<bytes::Bytes>::from("in")))
        }));
        for _ in 0..2 {
            service.clone().oneshot(Request::new(String::new())).await.unwrap();
        }
        assert_eq!(log.take().matches("the client's address is unknown").count(), expected);
    }
}

#[tokio::test]
async fn two_layers_with_the_same_cookie_name_are_logged_once() {
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
fn cookies_without_secure_are_logged() {
    let (log, _guard) = Log::start();
    let builder = LoginLayer::builder(MemoryStore::<Account>::new(), Keys::new(KEY));
    builder.with_session_cookie(CookieSettings::new().insecure_over_http()).build().unwrap();
    assert!(log.take().contains("cookies are set without Secure"));
}

#[tokio::test]
async fn no_secret_is_logged_or_shown() {
    for has_server_sessions in [false, true] {
        let (log, _guard) = Log::start();
        let store = MemoryStore::new();
        store.insert(&account("notch")).await.unwrap();
        let builder = LoginLayer::builder(store, Keys::new(KEY)).with_listener(|event| {
            tracing::info!(?event, "an event");
        });
        let auth_layer =
            if has_server_sessions { builder.with_sessions() } else { builder }.build().unwrap();
        let guarded = auth_layer.layer(auth_layer.require_login().layer(service_fn(page)));
        let mut client = Client::new(guarded);
        client.log_in(&auth_layer, account("notch")).await.unwrap();
        let cookie = client.jar.get("__Host-Http-keep").unwrap().to_owned();
        assert_eq!(client.get("/").await.status, 200);
        let mut shown =
            format!("{auth_layer:?} {:?} {:?}", auth_layer.require_login(), Keys::new(KEY));
        let mut public_id = "no public id without server-side sessions".to_owned();
        if has_server_sessions {
            let sessions = auth_layer.sessions_of(&UserId::from(1)).await.unwrap();
            shown += &format!("{sessions:?}");
            public_id = sessions[0].public_id();
        }
        let lines = log.take() + &shown;
        assert!(lines.contains("logged_in"), "{lines}");
        for secret in [&cookie[..20], KEY, "hash of notch", &public_id] {
            assert!(!lines.contains(secret), "{lines}");
        }
    }
}

#[tokio::test]
async fn a_missing_upkeep_task_is_logged_once() {
    let (log, _guard) = Log::start();
    let store = MemoryStore::new();
    store.insert(&account("notch")).await.unwrap();
    let clock = TestClock::new();
    let auth_layer = LoginLayer::builder(store, Keys::new(KEY))
        .with_sessions()
        .with_clock(clock.clone())
        .build()
        .unwrap();
    let site = auth_layer.layer(auth_layer.require_login().layer(service_fn(page)));
    let mut client = Client::new(site).with_clock(clock.clone());
    client.log_in(&auth_layer, account("notch")).await.unwrap();
    for expected in [1, 0] {
        clock.advance(std::time::Duration::from_secs(400));
        assert_eq!(client.get("/").await.status, 200);
        assert_eq!(log.take().matches("spawn `auth_layer.upkeep()`").count(), expected);
    }
}

#[tokio::test]
async fn an_address_that_limits_nothing_is_logged_once() {
    let (log, _guard) = Log::start();
    let store = MemoryStore::<Account>::new();
    let auth_layer = LoginLayer::builder(store.clone(), Keys::new(KEY)).build().unwrap();
    let sign_in = PasswordSignIn::new(&auth_layer, store);
    let router: axum::Router = axum::Router::new().merge(sign_in.routes());
    let mut client = Client::new(auth_layer.layer(router)); // at 127.0.0.1
    for _ in 0..2 {
        client.post("/login", &[("login", "secret name"), ("password", "secret guess")]).await;
    }
    let lines = log.take();
    assert_eq!(lines.matches("nothing is limited by address").count(), 1, "{lines}");
    assert!(lines.contains("`with_trusted_proxies`"), "{lines}");
    assert!(!lines.contains("secret"), "{lines}");
}
