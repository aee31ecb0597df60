//! A site of two pages.
use axum::response::{Html, Redirect};
use axum::{Form, Router, extract::State, routing::get, routing::post};
use std::{env::args, error::Error};
use tokio::net::TcpListener;
use tower_keep::{Account, AuthSession, Keys, LoginLayer, Passwords};
use tower_keep_postgres::PostgresStore as Store;

const HOME: Html<&str> = Html("<h1>Your account</h1><a href=/address>Change your address</a>");
const ADDRESS: Html<&str> = Html("<form method=post><input name=street><button>Save</button>");
const LOGIN: Html<&str> = Html(include_str!("login.html"));

#[derive(serde::Deserialize)]
struct Address {
    street: String,
}

async fn change_address(Form(form): Form<Address>) -> Redirect {
    println!("new address: {}", form.street);
    Redirect::to("/")
}

#[derive(serde::Deserialize)]
struct SignIn {
    login: String,
    password: String,
    stay: Option<String>,
}

async fn sign_in(
    State((users, passwords)): State<(Store<Account>, Passwords)>,
    auth: AuthSession<Account>,
    Form(form): Form<SignIn>,
) -> axum::response::Result<Redirect> {
    let checked = passwords.check_login(&users, &form.login, form.password);
    let user = checked.await?.ok_or(LOGIN)?; // shows the form again
    auth.log_in(user).with_remember(form.stay.is_some()).await?;
    Ok(Redirect::to(auth.next_or_home().as_str()))
}

async fn sign_out(auth: AuthSession<Account>) -> axum::response::Result<Redirect> {
    Ok(auth.log_out().await.map(|_| Redirect::to("/login"))?)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::var("DATABASE_URL")?;
    let users = Store::builder(url).migrate().build().await?;
    let passwords = Passwords::new();
    passwords.sign_up(&users, 1, "ada", "first bug").await?; // for the demo only
    let auth_layer = LoginLayer::builder(users.clone(), Keys::generate()?) // a new key at each start
        .with_login_page("/login")?
        .with_confirm_page("/login")?
        .build()?;
    let site = Router::new()
        .route("/address", get(ADDRESS).post(change_address))
        .route_layer(auth_layer.require_fresh())
        .route("/", get(HOME))
        .route_layer(auth_layer.require_login())
        .route("/login", get(LOGIN).post(sign_in))
        .route("/logout", post(sign_out))
        .layer((auth_layer, tower_http::csrf::CsrfLayer::new()))
        .with_state((users, passwords));

    let address = args().nth(1).unwrap_or("127.0.0.1:3000".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, site).await?;
    Ok(())
}
