//! A chat over WebSocket. Only users who are logged in can open it, and it closes soon after they
//! have logged out, also in another tab.
//!
//! Run `cargo run -p websocket-example`, then open the address that it prints in two browsers. The
//! optional argument is the address to listen on.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Form, Request, State};
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{Html, IntoResponse, Redirect, Response, Result};
use axum::routing::{any, get, post};
use axum::{Router, ServiceExt};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::time::{MissedTickBehavior, interval};
use tower_http::csrf::CsrfLayer;
use tower_keep::sign_in::PasswordCheck;
use tower_keep::{Account, CurrentUser, Keys, LoginLayer, PasswordSignIn};
use tower_keep_memory::MemoryStore;

type AuthSession = tower_keep::AuthSession<Account>;

/// How often an open chat asks whether its login is still valid.
const RECHECK_INTERVAL: Duration = Duration::from_secs(2);

/// How many lines a slow reader may be behind before it misses some.
const MAX_LINES_BEHIND: usize = 100;

const PASSWORD: &str = "analytical engine";

#[derive(Clone)]
struct App {
    sign_in: PasswordSignIn<Account>,
    lines: broadcast::Sender<String>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let users = MemoryStore::<Account>::new();
    let auth_layer = LoginLayer::builder(users.clone(), Keys::generate()?)
        .with_sessions() // otherwise the chat would not notice a logout
        .with_login_page("/login")?
        .build()?;
    let app = App {
        sign_in: PasswordSignIn::new(&auth_layer, users.clone()),
        lines: broadcast::Sender::new(MAX_LINES_BEHIND),
    };
    for (id, name) in [(1, "ada"), (2, "grace")] {
        app.sign_in.passwords().sign_up(&users, id, name, PASSWORD).await?;
    }
    tokio::spawn(auth_layer.upkeep());
    let router = Router::new()
        .route("/", get(chat_page))
        .route("/chat", any(open_chat))
        .route("/login", get(login_page).post(sign_in))
        .route("/logout", post(sign_out))
        .layer(CsrfLayer::new())
        .with_state(app);
    let site = auth_layer.layer(router);

    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(address.parse::<SocketAddr>()?).await?;
    println!("listening on http://{}", listener.local_addr()?);
    println!("demo logins: ada, grace");
    println!("demo password: {PASSWORD}");
    let service = ServiceExt::<Request>::into_make_service_with_connect_info::<SocketAddr>(site);
    axum::serve(listener, service).await?;
    Ok(())
}

/// Opens the chat. Without a login, the response is a 401. If a page of another site has opened the
/// WebSocket, it is a 403, because the browser sends the cookies of this site along.
async fn open_chat(
    State(app): State<App>,
    user: CurrentUser<Account>,
    auth: AuthSession,
    upgrade: WebSocketUpgrade,
) -> Response {
    let name = user.login_name().to_owned();
    upgrade.on_upgrade(|socket| async move {
        // Sending fails if the browser has disconnected.
        let _ = chat(socket, &app.lines, auth, &name).await;
    })
}

/// Passes lines between this browser and the others, until the login ends or the browser goes.
async fn chat(
    mut socket: WebSocket,
    lines: &broadcast::Sender<String>,
    auth: AuthSession,
    name: &str,
) -> std::result::Result<(), axum::Error> {
    let mut received = lines.subscribe();
    let mut recheck = interval(RECHECK_INTERVAL);
    recheck.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = recheck.tick() => match auth.recheck().await {
                Ok(Some(_)) => {}
                Ok(None) => {
                    socket.send(Message::Text("You are logged out.".into())).await?;
                    return socket.send(Message::Close(None)).await;
                }
                // It is unknown whether the login is still valid. The next tick asks again.
                Err(error) => eprintln!("recheck: {error}"),
            },
            line = received.recv() => {
                if let Ok(line) = line {
                    socket.send(Message::Text(line.into())).await?;
                }
            }
            message = socket.recv() => match message {
                Some(Ok(Message::Text(text))) => {
                    let _ = lines.send(format!("{name}: {text}"));
                }
                Some(Ok(Message::Close(_))) | None => return Ok(()),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
            },
        }
    }
}

async fn chat_page(user: CurrentUser<Account>) -> Html<String> {
    // A login name of this site needs no escaping.
    Html(format!(
        "<!doctype html><meta charset=utf-8><title>Chat</title>
         <p>You are {}.</p><ul id=lines></ul>
         <form id=form><input id=text autofocus autocomplete=off><button>Send</button></form>
         <form method=post action=/logout><button>Log out</button></form>
         <script>
         const socket = new WebSocket(`${{location.protocol.replace('http', 'ws')}}//${{location.host}}/chat`);
         const show = (line) => {{
           const item = document.createElement('li');
           item.textContent = line;
           lines.append(item);
         }};
         socket.onmessage = (message) => show(message.data);
         socket.onclose = () => show('(closed)');
         form.onsubmit = (event) => {{ event.preventDefault(); socket.send(text.value); text.value = ''; }};
         </script>",
        user.login_name()
    ))
}

async fn login_page(auth: AuthSession) -> Html<String> {
    show_form(&auth, None)
}

/// Shows the form. It is sent to the address of this page, which has `next` in its query. If `error`
/// is `None`, the message is that of the extractor, which needs no escaping.
fn show_form(auth: &AuthSession, error: Option<&str>) -> Html<String> {
    let flash = auth.take_flash().map(|flash| flash.text().to_owned());
    let message = error.or(flash.as_deref()).unwrap_or_default();
    Html(format!(
        "<!doctype html><meta charset=utf-8><title>Log in</title><p>{message}</p>
         <form method=post><label>Login <input name=login></label>
         <label>Password <input name=password type=password></label><button>Log in</button></form>"
    ))
}

#[derive(Deserialize)]
struct SignIn {
    login: String,
    password: String,
}

async fn sign_in(
    State(app): State<App>,
    auth: AuthSession,
    Form(form): Form<SignIn>,
) -> Result<Response> {
    let user = match app.sign_in.check(&auth, &form.login, form.password).await? {
        PasswordCheck::Ok(user) => user,
        PasswordCheck::Wrong => {
            return Ok(show_form(&auth, Some("Wrong login name or password.")).into_response());
        }
        PasswordCheck::Throttled(throttled) => {
            let error = format!("Too many attempts. Try again in {}.", throttled.wait());
            let retry_after = [(RETRY_AFTER, throttled.retry_after.as_secs())];
            let page = show_form(&auth, Some(&error));
            return Ok((StatusCode::TOO_MANY_REQUESTS, retry_after, page).into_response());
        }
    };
    auth.log_in(user).await?;
    Ok(auth.next_or_home().into_response())
}

async fn sign_out(auth: AuthSession) -> Result<Redirect> {
    auth.log_out().await?;
    Ok(Redirect::to("/login"))
}
