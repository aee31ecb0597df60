//! A single page whose script logs in and calls an API with `fetch`. `page.html` has the script.
//!
//! The server redirects nobody. If a call needs a login, the response is a 401 with a problem
//! (RFC 9457), and the script asks for the password and calls again.
//!
//! Run `cargo run -p spa-example`, then open the address that it prints. The optional argument is
//! the address to listen on.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Json, Request, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response, Result};
use axum::routing::{delete, get, post};
use axum::{Router, ServiceExt};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tower_http::csrf::CsrfLayer;
use tower_keep::sign_in::PasswordCheck;
use tower_keep::{Account, CurrentUser, Keys, LoginLayer, PasswordSignIn};
use tower_keep_memory::MemoryStore;

type AuthSession = tower_keep::AuthSession<Account>;

/// Notes can be deleted for this long after the password was entered.
const FRESH_FOR: Duration = Duration::from_secs(600);

const PASSWORD: &str = "analytical engine";

#[derive(Clone)]
struct App {
    sign_in: PasswordSignIn<Account>,
    notes: Arc<Mutex<Vec<String>>>,
}

impl App {
    /// Changes the notes, and returns them after the change.
    fn with_notes(&self, change: impl FnOnce(&mut Vec<String>)) -> Json<Vec<String>> {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut notes);
        Json(notes.clone())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let users = MemoryStore::<Account>::new();
    let auth_layer = LoginLayer::builder(users.clone(), Keys::generate()?)
        .with_sessions() // so that a logout ends every copy of the cookies
        .build()?;
    let app =
        App { sign_in: PasswordSignIn::new(&auth_layer, users.clone()), notes: Arc::default() };
    app.sign_in.passwords().sign_up(&users, 1, "ada", PASSWORD).await?;
    tokio::spawn(auth_layer.upkeep());
    let router = Router::new()
        .route("/api/notes", delete(delete_notes))
        .route_layer(auth_layer.require_fresh_within(FRESH_FOR))
        .route("/api/notes", get(notes).post(add_note))
        .route("/api/me", get(me))
        .route("/api/confirm", post(confirm))
        .route_layer(auth_layer.require_login())
        .route("/api/login", post(sign_in))
        .route("/api/logout", post(sign_out))
        .route("/", get(Html(include_str!("page.html"))))
        .layer(CsrfLayer::new()) // no page of another site can change anything
        .with_state(app);
    let site = auth_layer.layer(router);

    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(address.parse::<SocketAddr>()?).await?;
    println!("listening on http://{}", listener.local_addr()?);
    println!("demo login: ada");
    println!("demo password: {PASSWORD}");
    let service = ServiceExt::<Request>::into_make_service_with_connect_info::<SocketAddr>(site);
    axum::serve(listener, service).await?;
    Ok(())
}

#[derive(Serialize)]
struct Me {
    login: String,
}

async fn me(user: CurrentUser<Account>) -> Json<Me> {
    Json(Me { login: user.login_name().to_owned() })
}

#[derive(Deserialize)]
struct SignIn {
    login: String,
    password: String,
    #[serde(default)]
    remember: bool,
}

async fn sign_in(
    State(app): State<App>,
    auth: AuthSession,
    Json(form): Json<SignIn>,
) -> Result<Response> {
    let user = match app.sign_in.check(&auth, &form.login, form.password).await? {
        PasswordCheck::Ok(user) => user,
        // A wrong password is not a 401, which would mean that the call needs a login.
        PasswordCheck::Wrong => return Ok(wrong("Wrong login name or password.")),
        PasswordCheck::Throttled(throttled) => return Ok(throttled.into_response()),
    };
    auth.log_in(user).with_remember(form.remember).with_method("password").await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[derive(Deserialize)]
struct Confirm {
    password: String,
}

async fn confirm(
    State(app): State<App>,
    auth: AuthSession,
    Json(form): Json<Confirm>,
) -> Result<Response> {
    match app.sign_in.check_again(&auth, form.password).await? {
        PasswordCheck::Ok(_) => {}
        PasswordCheck::Wrong => return Ok(wrong("This is not your password.")),
        PasswordCheck::Throttled(throttled) => return Ok(throttled.into_response()),
    }
    auth.confirm().await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn sign_out(auth: AuthSession) -> Result<StatusCode> {
    auth.log_out().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn notes(State(app): State<App>) -> Json<Vec<String>> {
    app.with_notes(|_| {})
}

async fn add_note(State(app): State<App>, Json(note): Json<String>) -> Json<Vec<String>> {
    app.with_notes(|notes| notes.push(note))
}

async fn delete_notes(State(app): State<App>) -> Json<Vec<String>> {
    app.with_notes(Vec::clear)
}

fn wrong(message: &'static str) -> Response {
    (StatusCode::UNPROCESSABLE_ENTITY, message).into_response()
}
