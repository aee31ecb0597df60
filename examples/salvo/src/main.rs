//! A site with a login on salvo, whose `compat()` turns tower layers into handlers.
//!
//! Run `cargo run` in this directory, then open the address that it prints. The optional argument is
//! the address to listen on.

use std::error::Error;

use salvo::http::header::RETRY_AFTER;
use salvo::http::{StatusCode, StatusError};
use salvo::prelude::*;
use serde::Deserialize;
use tower_http::csrf::CsrfLayer;
use tower_keep::client::ClientAddr;
use tower_keep::sign_in::PasswordCheck;
use tower_keep::{Account, Keys, LoginLayer, PasswordSignIn};
use tower_keep_memory::MemoryStore;

type AuthSession = tower_keep::AuthSession<Account>;

const PASSWORD: &str = "analytical engine";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let users = MemoryStore::<Account>::new();
    let auth_layer = LoginLayer::builder(users.clone(), Keys::generate()?)
        .with_login_page("/login")?
        .with_home_page("/account")?
        .build()?;
    let sign_in = PasswordSignIn::new(&auth_layer, users.clone());
    sign_in.passwords().sign_up(&users, 1, "ada", PASSWORD).await?;
    let router = Router::new()
        .hoop(add_client_address)
        .hoop(auth_layer.clone().compat())
        .hoop(CsrfLayer::new().compat())
        .push(Router::with_path("login").get(login_page).post(SignIn(sign_in)))
        .push(Router::with_path("logout").post(sign_out))
        .push(Router::with_path("account").hoop(auth_layer.require_login().compat()).get(account));

    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".into());
    let acceptor = TcpListener::new(address).try_bind().await?;
    println!("listening on http://{}", acceptor.local_addr()?);
    println!("demo login: ada");
    println!("demo password: {PASSWORD}");
    Server::new(acceptor).serve(router).await;
    Ok(())
}

/// Session protection compares the addresses of clients.
#[handler]
async fn add_client_address(request: &mut Request) {
    if let Some(address) = request.remote_addr().ip() {
        request.extensions_mut().insert(ClientAddr(address));
    }
}

/// Returns the handle that the layer has put into the request.
fn auth_of(request: &Request) -> Result<AuthSession, StatusError> {
    let auth = request.extensions().get::<AuthSession>();
    auth.cloned().ok_or_else(StatusError::internal_server_error)
}

/// Returns the response for an error. It is salvo's own page for the status.
fn failed(status: StatusCode) -> StatusError {
    StatusError::from_code(status).unwrap_or_else(StatusError::internal_server_error)
}

/// Shows the form. It is sent to the address of this page, which has `next` in its query. If `error`
/// is `None`, the message is that of the guard, which needs no escaping.
fn show_form(auth: &AuthSession, error: Option<&str>) -> Text<String> {
    let flash = auth.take_flash().map(|flash| flash.text().to_owned());
    let message = error.or(flash.as_deref()).unwrap_or_default();
    Text::Html(format!(
        "<!doctype html><meta charset=utf-8><title>Log in</title><p>{message}</p>
         <form method=post><label>Login <input name=login></label>
         <label>Password <input name=password type=password></label><button>Log in</button></form>"
    ))
}

#[handler]
async fn login_page(request: &mut Request) -> Result<Text<String>, StatusError> {
    Ok(show_form(&auth_of(request)?, None))
}

#[derive(Deserialize)]
struct Typed {
    login: String,
    password: String,
}

struct SignIn(PasswordSignIn<Account>);

#[handler]
impl SignIn {
    async fn handle(
        &self,
        request: &mut Request,
        response: &mut Response,
    ) -> Result<(), StatusError> {
        let auth = auth_of(request)?;
        let typed = request.parse_form::<Typed>().await.map_err(|_| StatusError::bad_request())?;
        let checked = self.0.check(&auth, &typed.login, typed.password).await;
        match checked.map_err(|error| failed(error.status()))? {
            PasswordCheck::Ok(user) => {
                auth.log_in(user).await.map_err(|error| failed(error.status()))?;
                response.render(Redirect::other(auth.next_or_home().as_str()));
            }
            PasswordCheck::Wrong => {
                response.render(show_form(&auth, Some("Wrong login name or password.")));
            }
            PasswordCheck::Throttled(throttled) => {
                let error = format!("Too many attempts. Try again in {}.", throttled.wait());
                let seconds = throttled.retry_after.as_secs();
                response.headers_mut().insert(RETRY_AFTER, seconds.into());
                response.render_with_status(throttled.status(), show_form(&auth, Some(&error)));
            }
        }
        Ok(())
    }
}

#[handler]
async fn sign_out(request: &mut Request) -> Result<Redirect, StatusError> {
    auth_of(request)?.log_out().await.map_err(|error| failed(error.status()))?;
    Ok(Redirect::other("/login"))
}

#[handler]
async fn account(request: &mut Request) -> Result<String, StatusError> {
    let user = auth_of(request)?.user().await.map_err(|error| failed(error.status()))?;
    let user = user.ok_or_else(StatusError::unauthorized)?;
    Ok(format!("You are {}.", user.login_name()))
}
