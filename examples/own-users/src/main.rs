//! A site whose users are in tables of the application's own, with roles. `member.rs` reads the
//! users, and `schema.sql` has the tables.
//!
//! Run `DATABASE_URL=mysql://… cargo run -p own-users-example`, with the URL of an empty database in
//! MySQL or MariaDB. The optional argument is the address to listen on.

mod member;

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Form, Request, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response, Result};
use axum::routing::{get, post};
use axum::{Router, ServiceExt};
use serde::Deserialize;
use sqlx::MySqlPool;
use tokio::net::TcpListener;
use tower_http::csrf::CsrfLayer;
use tower_keep::password::{PasswordChange, PasswordStore};
use tower_keep::sign_in::PasswordCheck;
use tower_keep::{Keys, LoginLayer, PasswordSignIn};

use member::{Member, Role};

type AuthSession = tower_keep::AuthSession<Member>;
type CurrentUser = tower_keep::CurrentUser<Member>;
type FreshUser = tower_keep::FreshUser<Member>;

// A form is sent to the address of its page, which has `next` in its query.
const LOGIN_PAGE: Html<&str> = Html(
    "<form method=post><input name=email type=email><input name=password type=password>
     <label><input name=remember type=checkbox> Stay logged in</label><button>Log in</button>
     <button formaction=/sign-up>Sign up</button></form>",
);
const CONFIRM_PAGE: Html<&str> =
    Html("<form method=post><input name=password type=password><button>Confirm</button></form>");

#[derive(Clone)]
struct App {
    pool: MySqlPool,
    password_store: Arc<dyn PasswordStore<User = Member>>,
    sign_in: PasswordSignIn<Member>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let pool = MySqlPool::connect(&std::env::var("DATABASE_URL")?).await?;
    sqlx::raw_sql(include_str!("schema.sql")).execute(&pool).await?;
    let members = member::open(pool.clone()).await?;
    let auth_layer = LoginLayer::builder(members.clone(), Keys::generate()?)
        .with_sessions()
        .with_login_page("/login")?
        .with_confirm_page("/confirm")?
        .build()?;
    let app = App {
        password_store: Arc::new(member::password_store(members.clone(), pool.clone())),
        sign_in: PasswordSignIn::with_counters_in(&auth_layer, members.clone(), members),
        pool,
    };
    tokio::spawn(auth_layer.upkeep());
    let authors = Router::new()
        .route("/articles", get(|| async { "Write an article." }))
        .route_layer(auth_layer.require_any_role([Role::Author, Role::Admin]));
    let admins = Router::new()
        .route("/members", get(members_page))
        .route_layer(auth_layer.require_any_role([Role::Admin]));
    let members = Router::new()
        .route("/", get(home))
        .route("/confirm", get(CONFIRM_PAGE).post(confirm))
        .route_layer(auth_layer.require_login());
    let router = Router::new()
        .route("/sign-up", post(sign_up))
        .route("/login", get(LOGIN_PAGE).post(sign_in))
        .route("/logout", post(sign_out))
        .route("/password", post(change_password))
        .merge(members)
        .merge(authors)
        .merge(admins)
        .layer(CsrfLayer::new())
        .with_state(app);
    let site = auth_layer.layer(router);

    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(address.parse::<SocketAddr>()?).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let service = ServiceExt::<Request>::into_make_service_with_connect_info::<SocketAddr>(site);
    axum::serve(listener, service).await?;
    Ok(())
}

async fn home(user: CurrentUser) -> Html<String> {
    let email = user.email.replace('&', "&amp;").replace('<', "&lt;");
    Html(format!(
        "<p>You are {email}.</p>
         <form method=post action=/password><input name=password type=password minlength=8>
         <button>Change the password</button></form>
         <form method=post action=/logout><button>Log out</button></form>"
    ))
}

#[derive(Deserialize)]
struct Typed {
    email: String,
    password: String,
    remember: Option<String>,
}

/// The application writes its tables itself. The response says whether an address has an account; if
/// nobody may know, send a mail to the address instead.
async fn sign_up(State(app): State<App>, Form(form): Form<Typed>) -> Result<StatusCode> {
    if is_too_short(&form.password) {
        return Ok(StatusCode::UNPROCESSABLE_ENTITY);
    }
    let hash = app.sign_in.passwords().hash(form.password).await?;
    let insert = sqlx::query("INSERT INTO member (email, password_hash) VALUES (?, ?)");
    let done = insert.bind(form.email.to_lowercase()).bind(hash).execute(&app.pool).await;
    match done {
        Ok(_) => Ok(StatusCode::CREATED),
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
            Ok(StatusCode::CONFLICT)
        }
        Err(error) => {
            eprintln!("sign-up: {error}");
            Ok(StatusCode::SERVICE_UNAVAILABLE)
        }
    }
}

async fn sign_in(
    State(app): State<App>,
    auth: AuthSession,
    Form(form): Form<Typed>,
) -> Result<Response> {
    let email = form.email.to_lowercase();
    let member = match app.sign_in.check(&auth, &email, form.password).await? {
        PasswordCheck::Ok(member) => member,
        PasswordCheck::Wrong => return Ok(LOGIN_PAGE.into_response()),
        PasswordCheck::Throttled(throttled) => return Ok(throttled.into_response()),
    };
    auth.log_in(member).with_remember(form.remember.is_some()).await?;
    Ok(auth.next_or_home().into_response())
}

async fn sign_out(auth: AuthSession) -> Result<Redirect> {
    auth.log_out().await?;
    Ok(Redirect::to("/login"))
}

#[derive(Deserialize)]
struct Password {
    password: String,
}

/// Makes the login fresh again, for example after the remember cookie has restored it.
async fn confirm(
    State(app): State<App>,
    auth: AuthSession,
    Form(form): Form<Password>,
) -> Result<Response> {
    match app.sign_in.check_again(&auth, form.password).await? {
        PasswordCheck::Ok(_) => {}
        PasswordCheck::Wrong => return Ok(CONFIRM_PAGE.into_response()),
        PasswordCheck::Throttled(throttled) => return Ok(throttled.into_response()),
    }
    auth.confirm().await?;
    Ok(auth.next_or_home().into_response())
}

async fn change_password(
    State(app): State<App>,
    user: FreshUser,
    auth: AuthSession,
    Form(form): Form<Password>,
) -> Result<Response> {
    if is_too_short(&form.password) {
        return Ok(StatusCode::UNPROCESSABLE_ENTITY.into_response());
    }
    let passwords = app.sign_in.passwords();
    let changed = passwords.change(&*app.password_store, &user, form.password).await?;
    let PasswordChange::Changed(member) = changed else {
        return Ok(StatusCode::CONFLICT.into_response());
    };
    auth.keep_logged_in(member).await?;
    Ok(Redirect::to("/").into_response())
}

/// A password needs 8 characters (ASVS 5.0, 6.2.1).
fn is_too_short(password: &str) -> bool {
    password.chars().count() < 8
}

async fn members_page() -> &'static str {
    "All members."
}
