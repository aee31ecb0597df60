//! A site with a login on AWS Lambda, behind an HTTP API of API Gateway or a function URL.
//!
//! Each instance of a function has its own memory, so use a database for the users, and one key for
//! all instances. This example keeps the demo user in memory, and reads the key from the variable
//! `KEEP_KEY`.

use axum::Router;
use axum::extract::{Form, State};
use axum::response::{IntoResponse, Redirect, Response, Result};
use axum::routing::{get, post};
use lambda_http::request::RequestContext;
use lambda_http::{Request, RequestExt};
use serde::Deserialize;
use tower::ServiceExt;
use tower_http::csrf::CsrfLayer;
use tower_keep::client::ClientAddr;
use tower_keep::store::UserDirectory;
use tower_keep::{Account, CurrentUser, Keys, LoginLayer, Passwords};
use tower_keep_memory::MemoryStore;

type AuthSession = tower_keep::AuthSession<Account>;

#[derive(Clone)]
struct App {
    users: MemoryStore<Account>,
    passwords: Passwords,
}

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    let app = App { users: MemoryStore::new(), passwords: Passwords::new() };
    let hash = app.passwords.hash("analytical engine").await?;
    app.users.insert(&Account::new(1, "ada", hash)).await?;
    let keys = Keys::new(std::env::var("KEEP_KEY")?); // openssl rand -base64 48
    let auth_layer = LoginLayer::builder(app.users.clone(), keys)
        .with_login_page("/login")?
        .with_home_page("/account")?
        .build()?;
    let router = Router::new()
        .route("/account", get(account))
        .route_layer(auth_layer.require_login())
        .route("/login", get(|| async { "Log in" }).post(sign_in))
        .route("/logout", post(sign_out))
        .layer(CsrfLayer::new())
        .with_state(app);
    lambda_http::run(auth_layer.layer(router).map_request(with_client_address)).await
}

/// Session protection compares the addresses of clients. No connection says them here: the event
/// does.
fn with_client_address(mut request: Request) -> Request {
    let address = match request.request_context_ref() {
        Some(RequestContext::ApiGatewayV2(context)) => context.http.source_ip.as_deref(),
        _ => None,
    };
    if let Some(address) = address.and_then(|address| address.parse().ok()) {
        request.extensions_mut().insert(ClientAddr(address));
    }
    request
}

#[derive(Deserialize)]
struct SignIn {
    login: String,
    password: String,
    remember: Option<String>,
}

async fn sign_in(
    State(app): State<App>,
    auth: AuthSession,
    Form(form): Form<SignIn>,
) -> Result<Response> {
    let checked = app.passwords.check_login(&app.users, &form.login, form.password).await?;
    let Some(user) = checked else { return Ok(Redirect::to("/login").into_response()) };
    auth.log_in(user).with_remember(form.remember.is_some()).await?;
    Ok(auth.next_or_home().into_response())
}

async fn sign_out(auth: AuthSession) -> Result<Redirect> {
    auth.log_out().await?;
    Ok(Redirect::to("/login"))
}

async fn account(user: CurrentUser<Account>) -> String {
    format!("You are {}.", user.login_name())
}
