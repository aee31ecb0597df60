//! The parity server: tests send the same requests to it and to real Flask-Login, and compare the
//! responses.
//!
//! The server takes the same options, serves the same routes and prints the same first line as
//! `tests/parity/reference_app.py`. The docstring of that file is the contract.

use std::borrow::Cow;
use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response, Result};
use axum::routing::get;
use axum::{Router, ServiceExt};
use serde::Deserialize;
use tower_keep::client::SessionProtection;
use tower_keep::cookie::CookieSettings;
use tower_keep::error::BuildError;
use tower_keep::loader::{LoaderRequest, RequestLoader};
use tower_keep::store::{StoreError, async_trait};
use tower_keep::{AuthUser, CurrentUser, Keys, LoginError, LoginLayer, UserId, user_loader};
use tower_keep_memory::MemorySessions;

#[derive(Clone, Copy, Debug, PartialEq)]
struct User {
    name: &'static str,
    id: &'static str,
    active: bool,
}

const USERS: [User; 4] = [
    User { name: "notch", id: "1", active: true },
    User { name: "steve", id: "2", active: true },
    User { name: "creeper", id: "3", active: false },
    User { name: "sato", id: "佐藤", active: true },
];

impl AuthUser for User {
    fn id(&self) -> UserId {
        self.id.into()
    }

    fn is_active(&self) -> bool {
        self.active
    }

    fn security_stamp(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(b"")
    }
}

fn find_user(is_match: impl Fn(&User) -> bool) -> Option<Arc<User>> {
    USERS.iter().find(|user| is_match(user)).map(|user| Arc::new(*user))
}

type AuthSession = tower_keep::AuthSession<User>;

#[derive(Deserialize)]
struct LoginQuery {
    #[serde(default)]
    user: String,
    remember: Option<String>,
    duration: Option<String>,
    force: Option<String>,
    fresh: Option<String>,
}

async fn log_in(auth: AuthSession, Query(query): Query<LoginQuery>) -> Result<Response> {
    let is_one = |field: &Option<String>| field.as_deref() == Some("1");
    let Some(user) = find_user(|user| user.name == query.user) else {
        return Ok((StatusCode::NOT_FOUND, "no such user").into_response());
    };
    let mut builder = auth
        .log_in(user)
        .with_remember(is_one(&query.remember))
        .with_fresh(query.fresh.as_deref() != Some("0"))
        .with_force(is_one(&query.force));
    let seconds = query.duration.and_then(|text| text.parse::<i64>().ok());
    if let (true, Some(seconds)) = (is_one(&query.remember), seconds) {
        let seconds = u64::try_from(seconds).unwrap_or(0);
        builder = builder.with_remember_duration(Duration::from_secs(seconds));
    }
    Ok(match builder.await {
        Ok(()) => "True".into_response(),
        Err(LoginError::Inactive) => "False".into_response(),
        Err(error) => error.into_response(),
    })
}

fn python_bool(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

async fn log_out(auth: AuthSession) -> Result<&'static str> {
    auth.log_out().await?;
    Ok("True")
}

async fn confirm(auth: AuthSession) -> Result<&'static str> {
    Ok(if auth.confirm().await?.is_some() { "confirmed" } else { "nobody" })
}

async fn username(auth: AuthSession) -> Result<&'static str> {
    Ok(auth.user().await?.map_or("Anonymous", |user| user.name))
}

async fn is_auth(auth: AuthSession) -> Result<&'static str> {
    Ok(python_bool(auth.user().await?.is_some()))
}

async fn is_fresh(auth: AuthSession) -> Result<&'static str> {
    Ok(python_bool(auth.is_fresh().await?))
}

async fn is_remembered(auth: AuthSession) -> &'static str {
    python_bool(auth.is_remembered())
}

async fn secret(user: Option<CurrentUser<User>>) -> String {
    // The user is missing only if the guard lets an OPTIONS request through.
    format!("secret of {}", user.map_or("Anonymous", |user| user.name))
}

async fn sensitive(user: Option<CurrentUser<User>>) -> String {
    format!("sensitive of {}", user.map_or("Anonymous", |user| user.name))
}

async fn next(auth: AuthSession) -> String {
    auth.next().map(|next| next.to_string()).unwrap_or_default()
}

/// Loads the user with the login name `NAME` if a request of any route has the query
/// `token=NAME-token`.
struct TokenLoader;

#[async_trait]
impl RequestLoader<User> for TokenLoader {
    async fn load(
        &self,
        request: &LoaderRequest,
    ) -> std::result::Result<Option<Arc<User>>, StoreError> {
        let token = request.query("token").unwrap_or_default();
        Ok(token.strip_suffix("-token").and_then(|name| find_user(|user| user.name == name)))
    }
}

fn site(auth_layer: &LoginLayer<User>) -> Router {
    let empty = || async { "" };
    let guarded = Router::new()
        .route("/secret", get(secret).options(empty))
        .route_layer(auth_layer.require_login());
    let fresh = Router::new()
        .route("/sensitive", get(sensitive).options(empty))
        .route_layer(auth_layer.require_fresh());
    Router::new()
        .route("/hello", get(|| async { "hello" }))
        .route("/login", get(log_in))
        .route("/logout", get(log_out))
        .route("/confirm", get(confirm))
        .route("/username", get(username))
        .route("/token", get(username))
        .route("/is-auth", get(is_auth))
        .route("/is-fresh", get(is_fresh))
        .route("/is-remembered", get(is_remembered))
        .route("/next", get(next))
        .merge(guarded)
        .merge(fresh)
}

/// The command line, as `argparse` parses it in the reference application.
struct Options {
    listen: String,
    secret: String,
    protection: SessionProtection,
    login_view: Option<String>,
    refresh_view: Option<String>,
    next_in_cookie: bool,
    permanent_session: bool,
    remember_duration: u64,
    remember_refresh: bool,
    remember_cookie_name: String,
    remember_cookie_path: String,
    /// Whether to use server-side sessions. The reference application has none.
    server_sessions: bool,
}

impl Options {
    fn parse() -> std::result::Result<Self, Box<dyn Error>> {
        use lexopt::prelude::*;

        let mut options = Self {
            listen: "127.0.0.1:0".into(),
            secret: "parity secret, thirty-two bytes long".into(),
            protection: SessionProtection::Basic,
            login_view: None,
            refresh_view: None,
            next_in_cookie: false,
            permanent_session: false,
            remember_duration: 365 * 24 * 3600,
            remember_refresh: false,
            remember_cookie_name: "remember_token".into(),
            remember_cookie_path: "/".into(),
            server_sessions: false,
        };
        let mut arguments = lexopt::Parser::from_env();
        while let Some(argument) = arguments.next()? {
            match argument {
                Long("listen") => options.listen = arguments.value()?.string()?,
                Long("secret") => options.secret = arguments.value()?.string()?,
                Long("session-protection") => {
                    options.protection = match arguments.value()?.string()?.as_str() {
                        "none" => SessionProtection::None,
                        "basic" => SessionProtection::Basic,
                        "strong" => SessionProtection::Strong,
                        other => {
                            let choices = "choose from none, basic, strong";
                            return Err(format!("--session-protection: {other}: {choices}").into());
                        }
                    };
                }
                Long("login-view") => options.login_view = Some(arguments.value()?.string()?),
                Long("refresh-view") => options.refresh_view = Some(arguments.value()?.string()?),
                Long("next-in-session") => options.next_in_cookie = true,
                Long("permanent-session") => options.permanent_session = true,
                Long("remember-duration") => {
                    options.remember_duration = arguments.value()?.parse()?;
                }
                Long("remember-refresh-each-request") => options.remember_refresh = true,
                Long("remember-cookie-name") => {
                    options.remember_cookie_name = arguments.value()?.string()?
                }
                Long("remember-cookie-path") => {
                    options.remember_cookie_path = arguments.value()?.string()?
                }
                Long("server-sessions") => options.server_sessions = true,
                other => return Err(other.unexpected().into()),
            }
        }
        Ok(options)
    }

    fn layer(self, origin: String) -> std::result::Result<LoginLayer<User>, BuildError> {
        let find = |id: UserId| async move { Ok(find_user(|user| user.id == id.as_str())) };
        // The cookies have no name prefix and no `Secure`, because a client that compares responses
        // may treat loopback as insecure.
        let session = CookieSettings::new().with_name("session").insecure_over_http();
        let remember = CookieSettings::new()
            .with_name(self.remember_cookie_name)
            .with_path(self.remember_cookie_path)
            .insecure_over_http();
        let mut builder = LoginLayer::builder(user_loader(find), Keys::new(self.secret))
            .with_session_cookie(session)
            .with_remember_cookie(remember)
            .with_session_protection(self.protection)
            .with_next_in_cookie(self.next_in_cookie)
            .with_pages_for_every_client(true)
            .with_persistent_session(self.permanent_session)
            .with_remember_duration(Duration::from_secs(self.remember_duration))
            .with_remember_refresh(self.remember_refresh)
            .with_public_origin(origin)
            .with_options_exempt(true)
            .with_request_loader(TokenLoader);
        if let Some(page) = self.login_view {
            builder = builder.with_login_page(page)?;
        }
        if let Some(page) = self.refresh_view {
            builder = builder.with_confirm_page(page)?;
        }
        if self.server_sessions {
            builder.with_sessions_in(MemorySessions::new()).build()
        } else {
            builder.build()
        }
    }
}

async fn serve() -> std::result::Result<Infallible, Box<dyn Error>> {
    let options = Options::parse()?;
    let listener = tokio::net::TcpListener::bind(&options.listen).await?;
    let origin = format!("http://{}", listener.local_addr()?);
    let auth_layer = options.layer(origin.clone())?;
    let site = auth_layer.layer(site(&auth_layer));
    println!("listening on {origin}");
    let service = ServiceExt::<Request>::into_make_service_with_connect_info::<SocketAddr>(site);
    axum::serve(listener, service).await?;
    Err("the listener is closed".into())
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let Err(error) = serve().await;
    eprintln!("parity-server: {error}");
    std::process::ExitCode::from(2)
}
