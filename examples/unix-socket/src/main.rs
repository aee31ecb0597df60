//! A site on a Unix socket, behind a proxy such as nginx.
//!
//! Run `cargo run -p unix-socket-example -- /tmp/site.sock`, and let the proxy send
//! `X-Forwarded-For`:
//!
//! ```text
//! location / {
//!     proxy_pass http://unix:/tmp/site.sock;
//!     proxy_set_header Host $http_host;
//!     proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
//! }
//! ```

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr};

use axum::extract::{Form, Request, State};
use axum::response::{Html, IntoResponse, Redirect, Response, Result};
use axum::routing::{get, post};
use axum::{Router, ServiceExt};
use serde::Deserialize;
use tokio::net::UnixListener;
use tower::{Layer, util::MapRequestLayer};
use tower_http::csrf::CsrfLayer;
use tower_keep::client::ClientAddr;
use tower_keep::sign_in::PasswordCheck;
use tower_keep::{Account, CurrentUser, Keys, LoginLayer, PasswordSignIn};
use tower_keep_memory::MemoryStore;

type AuthSession = tower_keep::AuthSession<Account>;

/// A made-up address for the proxy, because the other side of a Unix socket has none.
const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The form is sent to the address of its page, which has `next` in its query.
const LOGIN_PAGE: Html<&str> = Html(
    "<form method=post><label>Login <input name=login></label>
     <label>Password <input name=password type=password></label><button>Log in</button></form>",
);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: unix-socket-example PATH")?;
    let users = MemoryStore::<Account>::new();
    let auth_layer = LoginLayer::builder(users.clone(), Keys::generate()?)
        .with_login_page("/login")?
        .with_trusted_proxies([PROXY.to_string()])
        .build()?;
    let password_sign_in = PasswordSignIn::new(&auth_layer, users.clone());
    password_sign_in.passwords().sign_up(&users, 1, "ada", "analytical engine").await?;
    let router = Router::new()
        .route("/", get(account))
        .route("/login", get(LOGIN_PAGE).post(sign_in))
        .route("/logout", post(sign_out))
        .layer(CsrfLayer::new())
        .with_state(password_sign_in);
    // Let only the proxy open the socket, by the permissions of the file. So each request comes from
    // the proxy, and the layer reads the client's address from `X-Forwarded-For`.
    let from_proxy = MapRequestLayer::new(|mut request: Request| {
        request.extensions_mut().insert(ClientAddr(PROXY));
        request
    });
    let site = from_proxy.layer(auth_layer.layer(router));

    // `bind` fails if an earlier run has left its socket.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path)?;
    println!("listening on {path}");
    axum::serve(listener, ServiceExt::<Request>::into_make_service(site)).await?;
    Ok(())
}

async fn account(user: CurrentUser<Account>, auth: AuthSession) -> String {
    let address = auth.client_addr().map(|address| address.to_string());
    format!("You are {}, at {}.", user.login_name(), address.as_deref().unwrap_or("?"))
}

#[derive(Deserialize)]
struct SignIn {
    login: String,
    password: String,
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
    auth.log_in(user).await?;
    Ok(auth.next_or_home().into_response())
}

async fn sign_out(auth: AuthSession) -> Result<Redirect> {
    auth.log_out().await?;
    Ok(Redirect::to("/login"))
}
