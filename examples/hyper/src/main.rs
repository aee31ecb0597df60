//! A site with a login on plain hyper, without a framework. A `match` expression routes the
//! requests.
//!
//! Run `cargo run -p hyper-example`, then open the address that it prints. The optional argument is
//! the address to listen on.

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tower::{ServiceExt, service_fn};
use tower_keep::client::ClientAddr;
use tower_keep::password::PasswordError;
use tower_keep::sign_in::PasswordCheck;
use tower_keep::target::LocalTarget;
use tower_keep::{Account, AuthError, Keys, LoginError, LoginLayer, PasswordSignIn};
use tower_keep_memory::MemoryStore;

type Page = Response<BoxBody<Bytes, Infallible>>;
type HandlerResult = Result<Page, Failure>;
type AuthSession = tower_keep::AuthSession<Account>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let users = MemoryStore::<Account>::new();
    let auth_layer =
        LoginLayer::builder(users.clone(), Keys::generate()?).with_login_page("/login")?.build()?;
    let password_sign_in = PasswordSignIn::new(&auth_layer, users.clone());
    password_sign_in.passwords().sign_up(&users, 1, "ada", "analytical engine").await?;
    // A guard is a layer. This guard protects only the service `account`.
    let account = auth_layer.require_login().layer(service_fn(account));
    let site = auth_layer.layer(service_fn(move |request: Request<Incoming>| {
        let (password_sign_in, account) = (password_sign_in.clone(), account.clone());
        async move {
            let response = match (request.method(), request.uri().path()) {
                (_, "/account") => return account.oneshot(request).await.map(boxed),
                (&Method::GET, "/") => Ok(page("<a href=/account>Your account</a>")),
                (&Method::GET, "/login") => {
                    auth_of(&request).map(|auth| login_page(&auth, None, auth.next()))
                }
                (&Method::POST, "/login") => sign_in(request, &password_sign_in).await,
                (&Method::POST, "/logout") => sign_out(&request).await,
                _ => Ok(status(StatusCode::NOT_FOUND)),
            };
            Ok::<_, Infallible>(response.unwrap_or_else(|failure| *failure.0))
        }
    }));

    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".into());
    let listener = tokio::net::TcpListener::bind(address.parse::<SocketAddr>()?).await?;
    println!("listening on http://{}", listener.local_addr()?);
    println!("demo login: ada");
    println!("demo password: analytical engine");
    let connections = GracefulShutdown::new();
    let mut stop_signal = pin!(stop_signal()?);
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // The client has gone already, or too many files are open.
                    eprintln!("accept: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = &mut stop_signal => break,
        };
        // Session protection compares addresses, so each request needs its client's address.
        let site = site.clone().map_request(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ClientAddr(peer.ip()));
            request
        });
        // Clients speak HTTP/1 or HTTP/2.
        let server = auto::Builder::new(TokioExecutor::new());
        let connection =
            server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(site));
        let connection = connections.watch(connection.into_owned());
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                eprintln!("connection: {error}");
            }
        });
    }
    // Waits until the running requests are served, at most seven seconds: containers are killed ten
    // seconds after the signal.
    let _ = tokio::time::timeout(Duration::from_secs(7), connections.shutdown()).await;
    Ok(())
}

/// Returns a future that resolves on Ctrl-C, or on the signal that stops containers and services.
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    Ok(async move {
        #[cfg(unix)]
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminated.recv() => {}
        }
        #[cfg(not(unix))]
        drop(tokio::signal::ctrl_c().await);
    })
}

/// The response for an error. The layer gives it the form that the client reads.
struct Failure(Box<Page>);

macro_rules! failures {
    ($($error:ty)*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                eprintln!("{error}");
                Self(Box::new(boxed(error.response())))
            }
        }
    )*};
}

failures!(AuthError LoginError PasswordError);

/// Returns the handle that the login layer has put into the request. Every request has a handle,
/// because the layer is around the whole site.
fn auth_of<B>(request: &Request<B>) -> Result<AuthSession, Failure> {
    let auth = request.extensions().get::<AuthSession>();
    auth.cloned().ok_or_else(|| Failure(Box::new(status(StatusCode::INTERNAL_SERVER_ERROR))))
}

async fn sign_in(
    request: Request<Incoming>,
    password_sign_in: &PasswordSignIn<Account>,
) -> HandlerResult {
    let auth = auth_of(&request)?;
    // Rejects requests from other sites. Browsers send the header `Sec-Fetch-Site`. With a
    // framework, use tower-http's `csrf` layer for this.
    let fetch_site = request.headers().get("sec-fetch-site").map(|value| value.as_bytes());
    if !matches!(fetch_site, None | Some(b"same-origin" | b"none")) {
        return Ok(status(StatusCode::FORBIDDEN));
    }
    let Ok(body) = Limited::new(request.into_body(), 16 * 1024).collect().await else {
        return Ok(status(StatusCode::BAD_REQUEST));
    };
    let body = body.to_bytes();
    let form_field = |name: &str| {
        let found = form_urlencoded::parse(&body).find(|(key, _)| key == name);
        found.map(|(_, value)| value.into_owned())
    };
    let (Some(name), Some(password)) = (form_field("login"), form_field("password")) else {
        return Ok(status(StatusCode::UNPROCESSABLE_ENTITY));
    };
    let checked = password_sign_in.check(&auth, &name, password).await?;
    let next = auth.next_from_form(form_field("next").as_deref());
    let user = match checked {
        PasswordCheck::Ok(user) => user,
        PasswordCheck::Wrong => {
            return Ok(login_page(&auth, Some("Wrong login name or password."), next));
        }
        PasswordCheck::Throttled(throttled) => {
            let error = format!("Too many attempts. Try again in {}.", throttled.wait());
            let mut page = login_page(&auth, Some(&error), next);
            *page.status_mut() = throttled.status();
            let seconds = throttled.retry_after.as_secs();
            page.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            return Ok(page);
        }
    };
    auth.log_in(user).with_remember(form_field("remember").is_some()).await?;
    Ok(see_other(next.as_ref().map_or("/account", |next| next.as_str())))
}

async fn sign_out(request: &Request<Incoming>) -> HandlerResult {
    auth_of(request)?.log_out().await?;
    Ok(see_other("/"))
}

async fn account(request: Request<Incoming>) -> Result<Page, Infallible> {
    Ok(greeting(&request).await.unwrap_or_else(|failure| *failure.0))
}

async fn greeting(request: &Request<Incoming>) -> HandlerResult {
    let user = auth_of(request)?.user().await?;
    let name = user.map(|user| escape(user.login_name())).unwrap_or_default();
    Ok(page(&format!(
        "You are {name}. <form method=post action=/logout><button>Log out</button></form>"
    )))
}

fn login_page(auth: &AuthSession, error: Option<&str>, next: Option<LocalTarget>) -> Page {
    let flash = auth.take_flash().map(|flash| escape(flash.text()));
    let message = error.or(flash.as_deref()).unwrap_or_default();
    let next = next.map(|next| escape(next.as_str())).unwrap_or_default();
    page(&format!(
        "<p>{message}</p><form method=post action=/login>
         <input type=hidden name=next value=\"{next}\">
         <label>Login <input name=login></label>
         <label>Password <input name=password type=password></label>
         <label><input name=remember type=checkbox> Remember me</label>
         <button>Log in</button></form>"
    ))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

fn page(content: &str) -> Page {
    let page = format!("<!doctype html><meta charset=utf-8><title>tower-keep</title>{content}");
    let mut response = boxed(Response::new(Full::from(page)));
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, html);
    response
}

fn see_other(target: &str) -> Page {
    let mut response = status(StatusCode::SEE_OTHER);
    if let Ok(target) = HeaderValue::from_str(target) {
        response.headers_mut().insert(header::LOCATION, target);
    }
    response
}

fn status(status: StatusCode) -> Page {
    let mut response = boxed(Response::new(Full::from(status.to_string())));
    *response.status_mut() = status;
    response
}

/// Boxes the body. The bodies of pages, of errors and of a guard have different types before they
/// are boxed.
fn boxed<B>(response: Response<B>) -> Page
where
    B: Body<Data = Bytes, Error = Infallible> + Send + Sync + 'static,
{
    response.map(BodyExt::boxed)
}
