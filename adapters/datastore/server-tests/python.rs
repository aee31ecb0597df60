//! A Python application with Flask-Login and `datastore-entity` reads and writes the same users.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::process::Command;
use std::time::SystemTime;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::task::spawn_blocking;
use tower_keep::{AuthError, Keys, LoginLayer};
use tower_keep_core::{AuthUser, StoreErrorKind, UserDirectory, UserId, UserLookup, UserStore};
use tower_keep_datastore::{DatastoreStore, EntityKey, LatLng};
use tower_keep_tests::{Browser, Http, KEY, Serving, serve};

use crate::{emulator_host, emulator_url, env_variable, message, new_project, werkzeug};
use tower_keep_testkit::contract::users::replace;

/// The properties of a user that this application knows. Python stores more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct User {
    id: String,
    username: String,
    password_hash: String,
    /// Python writes `true` as the number 1.
    status: bool,
    #[serde(default, with = "tower_keep_datastore::timestamp")]
    joined: Option<SystemTime>,
    #[serde(default, with = "serde_bytes")]
    avatar: Option<Vec<u8>>,
    /// Python writes an empty value as null.
    #[serde(default, deserialize_with = "tower_keep_datastore::null_as_default")]
    tags: Vec<String>,
    #[serde(default)]
    home: Option<LatLng>,
    #[serde(default)]
    team: Option<EntityKey>,
    #[serde(default)]
    prefs: Option<Prefs>,
}

/// The properties of the embedded entity that this application knows. Python stores more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Prefs {
    theme: String,
}

impl AuthUser for User {
    fn id(&self) -> UserId {
        self.id.as_str().into()
    }
    fn is_active(&self) -> bool {
        self.status
    }
    fn security_stamp(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.password_hash.as_bytes())
    }
}

struct Python {
    project: String,
    namespace: String,
}

impl Python {
    fn call(&self, command: &str, arguments: &[&str]) -> Value {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/datastore_users.py");
        let mut python = Command::new(env_variable("KEEP_PYTHON"));
        python.args([script, command, &self.namespace]).args(arguments);
        python.env("DATASTORE_EMULATOR_HOST", emulator_host());
        python.env("DATASTORE_PROJECT_ID", &self.project).env("PYTHONIOENCODING", "utf-8");
        let output = python.output().expect("Python runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }
}

/// Returns a hash as Werkzeug writes it.
fn hash(password: &str) -> String {
    let hash = werkzeug::hash_with("scrypt:32768:8:1", "sixteen letters!", password);
    hash.expect("the method is supported")
}

type Store = DatastoreStore<User>;
type AuthSession = tower_keep::AuthSession<User>;

#[derive(Deserialize)]
struct SignIn {
    user: String,
    password: String,
}

async fn sign_in(
    State(store): State<Store>,
    Query(form): Query<SignIn>,
    auth: AuthSession,
) -> Result<&'static str, Response> {
    let found = store.by_login_name(&form.user).await.map_err(AuthError::from);
    let found = found.map_err(IntoResponse::into_response)?;
    let user = found.ok_or_else(|| StatusCode::UNPROCESSABLE_ENTITY.into_response())?;
    let hash = user.password_hash.clone();
    let is_match = spawn_blocking(move || werkzeug::is_match(&hash, &form.password)).await;
    if !is_match.expect("no panic") {
        return Err(StatusCode::UNPROCESSABLE_ENTITY.into_response());
    }
    auth.log_in(user).await.map_err(IntoResponse::into_response)?;
    Ok("in")
}

async fn account(auth: AuthSession) -> Result<String, AuthError> {
    let user = auth.user().await?.expect("the guard requires a login");
    Ok(format!("{} {}", user.username, user.id))
}

async fn site(store: Store) -> Serving {
    let builder = LoginLayer::builder(store.clone(), Keys::new(KEY)).with_sessions();
    let auth_layer = builder.build().expect("settings that agree");
    let router = Router::new()
        .route("/account", get(account))
        .route_layer(auth_layer.require_login())
        .route("/login", get(sign_in))
        .with_state(store);
    serve(auth_layer.layer(router)).await
}

async fn log_in(browser: &mut Browser, user: &str, password: &str) -> StatusCode {
    let form = [("user", user), ("password", password)];
    let query: Vec<_> = form
        .map(|(name, value)| {
            let value: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
            format!("{name}={value}")
        })
        .into();
    browser.get(&format!("/login?{}", query.join("&"))).await.status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn python_and_rust_log_in_the_same_users_and_keep_each_others_properties() {
    let python = Python { project: new_project("python"), namespace: "shop".to_owned() };
    let created_ids: BTreeMap<String, String> =
        serde_json::from_value(python.call("create", &[])).expect("names and ids");
    let url = format!("datastore://{}/{}", python.project, python.namespace);
    let store = DatastoreStore::builder(url)
        .with_emulator(emulator_url())
        .with_kind("user")
        .with_users(|user: &User| &user.username)
        .build()
        .await
        .expect("a store");

    // Rust logs in all users that Python has created, whether their keys have ids or names.
    let site = site(store.clone()).await;
    for (name, id) in &created_ids {
        let mut browser = Browser::new(Http::to(site.address));
        assert_eq!(log_in(&mut browser, name, "wrong").await, StatusCode::UNPROCESSABLE_ENTITY);
        let password = format!("password of {name}");
        assert_eq!(log_in(&mut browser, name, &password).await, StatusCode::OK, "{name}");
        assert_eq!(browser.get("/account").await.text(), format!("{name} {id}"));
    }
    assert!(created_ids["ada"].parse::<i64>().is_ok(), "{created_ids:?}");
    assert_eq!(created_ids["grace"], "grace-hopper");

    // Rust changes the password.
    let mut browser = Browser::new(Http::to(site.address));
    assert_eq!(log_in(&mut browser, "ada", "password of ada").await, StatusCode::OK);
    let before = python.call("show", &["ada"]);
    let mut ada =
        User::clone(&*store.by_login_name("ada").await.expect("no error").expect("there"));
    assert_eq!(ada.home, Some(LatLng { latitude: 52.5, longitude: 13.25 }));
    assert_eq!(ada.team.as_ref().map(ToString::to_string).as_deref(), Some("team 3"));
    ada.password_hash = hash("changed");
    ada.prefs = Some(Prefs { theme: "light".to_owned() });
    assert!(replace(&store, &ada).await.expect("no error"));
    assert_eq!(browser.get("/account").await.status, StatusCode::UNAUTHORIZED, "logged out");
    assert_eq!(log_in(&mut browser, "ada", "changed").await, StatusCode::OK);

    // Python reads the change. All other types and values, and the properties that are not indexed,
    // are as before.
    let mut expected = before.clone();
    expected["properties"]["password_hash"][1] = ada.password_hash.clone().into();
    expected["properties"]["prefs"][1]["properties"]["theme"][1] = "light".into();
    let after = python.call("show", &["ada"]);
    assert_eq!(after, expected);
    assert_eq!(after["properties"]["joined"][0], "DatetimeWithNanoseconds");
    assert_eq!(after["properties"]["avatar"], serde_json::json!(["bytes", "00ff"]));
    assert_eq!(after["properties"]["added_by_the_admin_tool"][1], 7);
    assert_eq!(after["properties"]["home"], serde_json::json!(["GeoPoint", [52.5, 13.25]]));
    assert_eq!(after["properties"]["team"], serde_json::json!(["Key", ["team", 3]]));
    let prefs = &after["properties"]["prefs"][1];
    assert_eq!(prefs["properties"]["level"], serde_json::json!(["int", 3]));
    assert_eq!(prefs["unindexed"], serde_json::json!(["secret"]));
    let unindexed = serde_json::json!(["bio", "nothing", "password_hash", "settings"]);
    assert_eq!(after["unindexed"], unindexed);
    let response = python.call("login", &["ada", "changed"]);
    assert_eq!(response["text"], format!("ada {}", created_ids["ada"]), "{response}");
    assert_eq!(python.call("login", &["ada", "password of ada"])["status"], 401);

    // Login names are unique in both applications, and Rust finds a user by the new login name
    // after Python has changed it.
    assert_eq!(store.index_users(None, 400).await.expect("indexed").written, 3);
    python.call("rename", &["佐藤", "sato"]);
    assert!(store.by_login_name("佐藤").await.expect("no error").is_none());
    let sato = store.by_login_name("sato").await.expect("no error").expect("there");
    assert_eq!(sato.id, created_ids["佐藤"]);
    let new_id = store.new_user_id().await.expect("an id").to_string();
    let new_user =
        User { id: new_id.clone(), username: "sato".into(), password_hash: hash("p"), ..ada };
    let error = store.insert(&new_user).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Conflict, "{}", message(&error));
    // Python logs in a user whom Rust has created.
    let new_user = User { username: "佐藤".into(), ..new_user };
    store.insert(&new_user).await.expect("the name is free");
    let shown = python.call("show", &["佐藤"]);
    for (property, kind) in [
        ("username", "str"),
        ("status", "bool"),
        ("joined", "DatetimeWithNanoseconds"),
        ("avatar", "bytes"),
        ("tags", "list"),
        ("home", "GeoPoint"),
        ("team", "Key"),
        ("prefs", "Entity"),
    ] {
        assert_eq!(shown["properties"][property][0], kind, "{property}");
    }
    assert_eq!(
        shown["properties"].as_object().map(serde_json::Map::len),
        Some(9),
        "the id is only in the key"
    );
    assert_eq!(shown["unindexed"], serde_json::json!(["password_hash"]));
    assert_eq!(python.call("login", &["佐藤", "p"])["text"], format!("佐藤 {new_id}"));
    assert!(store.by_id(&new_id.as_str().into()).await.expect("no error").is_some());
}
