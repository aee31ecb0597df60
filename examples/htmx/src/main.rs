//! A list of tasks with htmx. If the login has ended when a button is pressed, the browser goes to
//! the login page, and after the login back to the list.
//!
//! Run `cargo run -p htmx-example`, then open the address that it prints. The optional arguments are
//! the address to listen on, and a file with htmx. Without a file, the browser loads htmx from
//! jsDelivr.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Form, Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::response::{Html, IntoResponse, Redirect, Response, Result};
use axum::routing::{get, post};
use axum::{Router, ServiceExt};
use maud::{DOCTYPE, Markup, html};
use serde::Deserialize;
use tokio::net::TcpListener;
use tower_http::csrf::CsrfLayer;
use tower_keep::sign_in::PasswordCheck;
use tower_keep::throttle::Throttled;
use tower_keep::{Account, CurrentUser, Keys, LoginLayer, PasswordSignIn};
use tower_keep_memory::MemoryStore;

type AuthSession = tower_keep::AuthSession<Account>;

const HTMX_URL: &str = "https://cdn.jsdelivr.net/npm/htmx.org@2.0.11/dist/htmx.min.js";
/// The digest of that file. The browser runs no other script from there.
const HTMX_DIGEST: &str = "sha384-2OatzQy1H+Zd/IIrjr1TcuDGqLXeHhbooAyJY1KdQMKnr4LZ22k31GBLdYKHmVjg";

const PASSWORD: &str = "analytical engine";

#[derive(Clone)]
struct App {
    sign_in: PasswordSignIn<Account>,
    tasks: Arc<Mutex<Vec<String>>>,
    /// Where the pages load htmx from.
    htmx_url: &'static str,
}

impl App {
    /// Changes the tasks, and returns them after the change.
    fn with_tasks(&self, change: impl FnOnce(&mut Vec<String>)) -> Vec<String> {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut tasks);
        tasks.clone()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:3000".into());
    let script = arguments.next().map(std::fs::read_to_string).transpose()?;
    let users = MemoryStore::<Account>::new();
    let auth_layer = LoginLayer::builder(users.clone(), Keys::generate()?)
        .with_sessions()
        .with_login_page("/login")?
        .with_confirm_page("/confirm")?
        .build()?;
    let app = App {
        sign_in: PasswordSignIn::new(&auth_layer, users.clone()),
        tasks: Arc::default(),
        htmx_url: if script.is_some() { "/htmx.js" } else { HTMX_URL },
    };
    app.sign_in.passwords().sign_up(&users, 1, "ada", PASSWORD).await?;
    tokio::spawn(auth_layer.upkeep());
    let script = script.unwrap_or_default();
    let router = Router::new()
        .route("/tasks/clear", post(clear_tasks))
        .route_layer(auth_layer.require_fresh())
        .route("/", get(home))
        .route("/tasks", post(add_task))
        .route("/confirm", get(confirm_page).post(confirm))
        .route_layer(auth_layer.require_login())
        .route("/login", get(login_page).post(sign_in))
        .route("/logout", post(sign_out))
        .route("/htmx.js", get(([(CONTENT_TYPE, "text/javascript")], script)))
        .layer(CsrfLayer::new())
        .with_state(app);
    let site = auth_layer.layer(router);

    let listener = TcpListener::bind(address.parse::<SocketAddr>()?).await?;
    println!("listening on http://{}", listener.local_addr()?);
    println!("demo login: ada");
    println!("demo password: {PASSWORD}");
    let service = ServiceExt::<Request>::into_make_service_with_connect_info::<SocketAddr>(site);
    axum::serve(listener, service).await?;
    Ok(())
}

async fn home(State(app): State<App>, user: CurrentUser<Account>) -> Html<String> {
    let content = html! {
        p { "You are " (user.login_name()) "." }
        (list(&app.with_tasks(|_| {})))
        form hx-post="/tasks" hx-target="#tasks" hx-swap="outerHTML" {
            input name="task" required aria-label="Task";
            button { "Add" }
        }
        button hx-post="/tasks/clear" hx-target="#tasks" hx-swap="outerHTML" { "Clear" }
        form method="post" action="/logout" { button { "Log out" } }
    };
    page(&app, "Tasks", content)
}

#[derive(Deserialize)]
struct NewTask {
    task: String,
}

async fn add_task(State(app): State<App>, Form(form): Form<NewTask>) -> Html<String> {
    Html(list(&app.with_tasks(|tasks| tasks.push(form.task))).into_string())
}

async fn clear_tasks(State(app): State<App>) -> Html<String> {
    Html(list(&app.with_tasks(Vec::clear)).into_string())
}

/// Returns the list, which htmx puts into the page.
fn list(tasks: &[String]) -> Markup {
    html! { ul #tasks { @for task in tasks { li { (task) } } } }
}

async fn login_page(State(app): State<App>, auth: AuthSession) -> Html<String> {
    form_page(&app, &auth, "Log in", true, None)
}

async fn confirm_page(State(app): State<App>, auth: AuthSession) -> Html<String> {
    form_page(&app, &auth, "Confirm", false, None)
}

#[derive(Deserialize)]
struct Typed {
    #[serde(default)]
    login: String,
    password: String,
    remember: Option<String>,
}

// The form is sent to the address of its page, which has `next` in its query.
async fn sign_in(
    State(app): State<App>,
    auth: AuthSession,
    Form(form): Form<Typed>,
) -> Result<Response> {
    let user = match app.sign_in.check(&auth, &form.login, form.password).await? {
        PasswordCheck::Ok(user) => user,
        PasswordCheck::Wrong => {
            let error = Some("Wrong login name or password.");
            return Ok(form_page(&app, &auth, "Log in", true, error).into_response());
        }
        PasswordCheck::Throttled(throttled) => {
            return Ok(throttled_page(&app, &auth, "Log in", true, throttled));
        }
    };
    auth.log_in(user).with_remember(form.remember.is_some()).await?;
    Ok(auth.next_or_home().into_response())
}

async fn confirm(
    State(app): State<App>,
    auth: AuthSession,
    Form(form): Form<Typed>,
) -> Result<Response> {
    match app.sign_in.check_again(&auth, form.password).await? {
        PasswordCheck::Ok(_) => {}
        PasswordCheck::Wrong => {
            let error = Some("This is not your password.");
            return Ok(form_page(&app, &auth, "Confirm", false, error).into_response());
        }
        PasswordCheck::Throttled(throttled) => {
            return Ok(throttled_page(&app, &auth, "Confirm", false, throttled));
        }
    }
    auth.confirm().await?;
    Ok(auth.next_or_home().into_response())
}

async fn sign_out(auth: AuthSession) -> Result<Redirect> {
    auth.log_out().await?;
    Ok(Redirect::to("/login"))
}

fn form_page(
    app: &App,
    auth: &AuthSession,
    title: &str,
    asks_for_name: bool,
    error: Option<&str>,
) -> Html<String> {
    let flash = auth.take_flash().map(|flash| flash.text().to_owned());
    let content = html! {
        @if let Some(message) = error.or(flash.as_deref()) { p role="alert" { (message) } }
        form method="post" {
            @if asks_for_name {
                p { label { "Login " input name="login" autocomplete="username" required; } }
            }
            p {
                label {
                    "Password "
                    input name="password" type="password" autocomplete="current-password" required;
                }
            }
            @if asks_for_name {
                p { label { input name="remember" type="checkbox"; " Remember me" } }
            }
            button { (title) }
        }
    };
    page(app, title, content)
}

fn throttled_page(
    app: &App,
    auth: &AuthSession,
    title: &str,
    asks_for_name: bool,
    throttled: Throttled,
) -> Response {
    let error = format!("Too many attempts. Try again in {}.", throttled.wait());
    let page = form_page(app, auth, title, asks_for_name, Some(&error));
    let retry_after = [(RETRY_AFTER, throttled.retry_after.as_secs())];
    (StatusCode::TOO_MANY_REQUESTS, retry_after, page).into_response()
}

fn page(app: &App, title: &str, content: Markup) -> Html<String> {
    let page = html! {
        (DOCTYPE)
        meta charset="utf-8";
        meta name="viewport" content="width=device-width";
        title { (title) }
        @if app.htmx_url == HTMX_URL {
            script src=(HTMX_URL) integrity=(HTMX_DIGEST) crossorigin="anonymous" {}
        } @else {
            script src=(app.htmx_url) {}
        }
        h1 { (title) }
        (content)
    };
    Html(page.into_string())
}
