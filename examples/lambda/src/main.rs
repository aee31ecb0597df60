//! A site with a login on AWS Lambda, behind an HTTP API of API Gateway or a function URL.
//!
//! Each instance of a function has its own memory, so use a database for the users and for the
//! counters of the sign-in, and one key for all instances. This example keeps the demo user and the
//! counters in memory, and reads the key from the variable `KEEP_KEY`.
//!
//! A login is nothing but its cookies here. With `with_sessions()`, don't spawn `upkeep` in a function,
//! which is frozen between requests: call `auth_layer.flush()` after a request, and `purge` in a
//! scheduled function. If the API has a named stage, such as `prod`, paths begin with it.

use axum::Router;
use axum::extract::{Form, State};
use axum::response::{Html, IntoResponse, Redirect, Response, Result};
use axum::routing::{get, post};
use lambda_http::request::RequestContext;
use lambda_http::{Request, RequestExt};
use serde::Deserialize;
use tower::ServiceExt;
use tower_http::csrf::CsrfLayer;
use tower_keep::client::ClientAddr;
use tower_keep::sign_in::PasswordCheck;
use tower_keep::{Account, CurrentUser, Keys, LoginLayer, PasswordSignIn};
use tower_keep_memory::MemoryStore;

type AuthSession = tower_keep::AuthSession<Account>;

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    let users = MemoryStore::<Account>::new();
    let keys = Keys::new(std::env::var("KEEP_KEY")?); // openssl rand -base64 48
    let auth_layer = LoginLayer::builder(users.clone(), keys)
        .with_login_page("/login")?
        .with_home_page("/account")?
        .build()?;
    let password_sign_in = PasswordSignIn::new(&auth_layer, users.clone());
    password_sign_in.passwords().sign_up(&users, 1, "ada", "analytical engine").await?;
    let router = Router::new()
        .route("/account", get(account))
        .route_layer(auth_layer.require_login())
        .route("/login", get(login_page).post(sign_in))
        .route("/logout", post(sign_out))
        .layer(CsrfLayer::new())
        .with_state(password_sign_in);
    lambda_http::run(auth_layer.layer(router).map_request(with_client_address)).await
}

/// Session protection compares the addresses of clients. Lambda has no connection; the event has the
/// address.
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

/// The form is sent to the address of its page, which has `next` in its query.
const LOGIN_PAGE: Html<&str> = Html(
    "<form method=post><input name=login><input name=password type=password>
     <label><input name=remember type=checkbox> Remember me</label><button>Log in</button></form>",
);

async fn login_page() -> Html<&'static str> {
    LOGIN_PAGE
}

#[derive(Deserialize)]
struct SignIn {
    login: String,
    password: String,
    remember: Option<String>,
}

async fn sign_in(
    State(sign_in): State<PasswordSignIn<Account>>,
    auth: AuthSession,
    Form(form): Form<SignIn>,
) -> Result<Response> {
    let user = match sign_in.check(&auth, &form.login, form.password).await? {
        PasswordCheck::Ok(user) => user,
        PasswordCheck::Wrong => return Ok(LOGIN_PAGE.into_response()),
        PasswordCheck::Throttled(throttled) => return Ok(throttled.into_response()),
    };
    auth.log_in(user).with_remember(form.remember.is_some()).await?;
    Ok(auth.next_or_home().into_response())
}

async fn sign_out(auth: AuthSession) -> Result<Redirect> {
    auth.log_out().await?;
    Ok(Redirect::to("/login"))
}

async fn account(user: CurrentUser<Account>, auth: AuthSession) -> Result<String> {
    let fresh = if auth.is_fresh().await? { "fresh" } else { "not fresh" };
    Ok(format!("You are {}, and your login is {fresh}.", user.login_name()))
}
