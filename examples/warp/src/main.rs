//! A site with a login on warp. The layer is around all filters, and a guard around those that need
//! a login.
//!
//! Run `cargo run -p warp-example`, then open the address that it prints. The optional argument is
//! the address to listen on.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{Request, StatusCode};
use http_body::Body;
use http_body_util::BodyExt;
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use serde::Deserialize;
use tokio::net::TcpListener;
use tower::{Layer, ServiceExt, service_fn};
use tower_http::csrf::CsrfLayer;
use tower_keep::client::ClientAddr;
use tower_keep::sign_in::PasswordCheck;
use tower_keep::{Account, Keys, LoginLayer, PasswordSignIn};
use tower_keep_memory::MemoryStore;
use warp::Filter;
use warp::http::Uri;
use warp::reply::{Reply, Response};

type AuthSession = tower_keep::AuthSession<Account>;
type BoxError = Box<dyn Error + Send + Sync>;

const PASSWORD: &str = "analytical engine";

/// A larger form is rejected, because warp would read all of it.
const MAX_FORM_BYTES: u64 = 16 * 1024;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let users = MemoryStore::<Account>::new();
    let auth_layer = LoginLayer::builder(users.clone(), Keys::generate()?)
        .with_login_page("/login")?
        .with_home_page("/members/account")?
        .build()?;
    let password_sign_in = PasswordSignIn::new(&auth_layer, users.clone());
    password_sign_in.passwords().sign_up(&users, 1, "ada", PASSWORD).await?;

    // The layer puts the handle into the request's extensions.
    let auth = warp::ext::get::<AuthSession>();
    let login_page = warp::path!("login").and(warp::get()).and(auth);
    let login_page = login_page.map(|auth| crate::login_page(&auth, None));
    let sign_in = warp::path!("login")
        .and(warp::post())
        .and(warp::any().map(move || password_sign_in.clone()))
        .and(auth)
        .and(warp::body::content_length_limit(MAX_FORM_BYTES))
        .and(warp::body::form())
        .then(sign_in);
    let sign_out = warp::path!("logout").and(warp::post()).and(auth).then(sign_out);
    let account = warp::path!("members" / "account").and(auth).then(account);

    let members = auth_layer.require_login().layer(warp::service(account));
    let others = warp::service(login_page.or(sign_in).or(sign_out));
    let site = service_fn(move |request: Request<Incoming>| {
        let (members, others) = (members.clone(), others.clone());
        async move {
            match request.uri().path().starts_with("/members/") {
                true => members.oneshot(request).await.map(boxed),
                false => others.oneshot(request).await.map(boxed),
            }
        }
    });
    let site = CsrfLayer::new().layer(auth_layer.layer(site));

    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(address.parse::<SocketAddr>()?).await?;
    println!("listening on http://{}", listener.local_addr()?);
    println!("demo login: ada");
    println!("demo password: {PASSWORD}");
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // The client has gone already, or too many files are open.
                eprintln!("accept: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Session protection compares addresses, so each request needs its client's address.
        let site = site.clone().map_request(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ClientAddr(peer.ip()));
            request
        });
        tokio::spawn(async move {
            let server = auto::Builder::new(TokioExecutor::new());
            let service = TowerToHyperService::new(site);
            if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                eprintln!("connection: {error}");
            }
        });
    }
}

/// Shows the form. It is sent to the address of this page, which has `next` in its query. If `error`
/// is `None`, the message is that of the guard, which needs no escaping.
fn login_page(auth: &AuthSession, error: Option<&str>) -> Response {
    let flash = auth.take_flash().map(|flash| flash.text().to_owned());
    let message = error.or(flash.as_deref()).unwrap_or_default();
    let page = format!(
        "<!doctype html><meta charset=utf-8><title>Log in</title><p>{message}</p>
         <form method=post><label>Login <input name=login></label>
         <label>Password <input name=password type=password></label><button>Log in</button></form>"
    );
    warp::reply::html(page).into_response()
}

#[derive(Deserialize)]
struct SignIn {
    login: String,
    password: String,
}

async fn sign_in(
    password_sign_in: PasswordSignIn<Account>,
    auth: AuthSession,
    form: SignIn,
) -> Response {
    match password_sign_in.check(&auth, &form.login, form.password).await {
        Ok(PasswordCheck::Ok(user)) => match auth.log_in(user).await {
            Ok(()) => see_other(auth.next_or_home().as_str()),
            Err(error) => failed(error.status()),
        },
        Ok(PasswordCheck::Wrong) => login_page(&auth, Some("Wrong login name or password.")),
        Ok(PasswordCheck::Throttled(throttled)) => {
            let error = format!("Too many attempts. Try again in {}.", throttled.wait());
            let mut page = login_page(&auth, Some(&error));
            *page.status_mut() = throttled.status();
            let seconds = throttled.retry_after.as_secs();
            page.headers_mut().insert(RETRY_AFTER, seconds.into());
            page
        }
        Err(error) => failed(error.status()),
    }
}

async fn sign_out(auth: AuthSession) -> Response {
    match auth.log_out().await {
        Ok(_) => see_other("/login"),
        Err(error) => failed(error.status()),
    }
}

async fn account(auth: AuthSession) -> Response {
    match auth.user().await {
        // The guard has let in nobody else.
        Ok(Some(user)) => format!("You are {}.", user.login_name()).into_response(),
        Ok(None) => failed(StatusCode::UNAUTHORIZED),
        Err(error) => failed(error.status()),
    }
}

/// Returns the response for an error. It is a text for every client, because warp makes its bodies
/// itself, and can't send the body of `AuthError::response`.
fn failed(status: StatusCode) -> Response {
    warp::reply::with_status(status.to_string(), status).into_response()
}

fn see_other(target: &str) -> Response {
    match target.parse::<Uri>() {
        Ok(target) => warp::redirect::see_other(target).into_response(),
        Err(_) => failed(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// Boxes the body, because the bodies of a guard and of warp have different types.
fn boxed<B>(response: http::Response<B>) -> http::Response<BoxBody<Bytes, BoxError>>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Sync + 'static,
{
    response.map(|body| body.map_err(Into::into).boxed())
}
