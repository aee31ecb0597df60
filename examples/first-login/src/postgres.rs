//! A site of two pages.
use axum::extract::State;
use axum::response::{Html, Redirect, Result};
use axum::routing::{get, post};
use axum::{Form, Router};
use std::{env::args, error::Error, net::SocketAddr};
use tokio::net::TcpListener;
use tower_keep::{Account, AuthSession, Keys, LoginLayer, Passwords, store::UserDirectoryExt};
use tower_keep_postgres::PostgresStore as Store;

async fn home() -> Html<&'static str> {
    Html("<h1>Your account</h1><a href=/address>Change your address</a>")
}

async fn address() -> Html<&'static str> {
    Html("<form method=post><input name=street><button>Save</button></form>")
}

async fn change_address(Form(fields): Form<Vec<(String, String)>>) -> Result<Redirect> {
    println!("new address: {fields:?}");
    Ok(Redirect::to("/"))
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
) -> Result<Redirect> {
    let checked = passwords.check_login(&users, &form.login, form.password);
    let user = checked.await?.ok_or(Redirect::to("/login"))?;
    auth.log_in(user).with_remember(form.stay.is_some()).await?;
    Ok(Redirect::to(auth.next_or_home().as_str()))
}

async fn sign_out(auth: AuthSession<Account>) -> Result<Redirect> {
    Ok(auth.log_out().await.map(|_| Redirect::to("/login"))?)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::var("DATABASE_URL")?;
    let users = Store::builder(url).migrate().build().await?;
    let passwords = Passwords::new();
    let ada = Account::new(1, "ada", passwords.hash("analytical engine").await?);
    users.insert_if_absent(&ada).await?;
    let auth_layer = LoginLayer::builder(users.clone(), Keys::generate()?)
        .with_login_page("/login")?
        .with_confirm_page("/login")?
        .build()?;
    let site = Router::new()
        .route("/address", get(address))
        .route("/address", post(change_address))
        .route_layer(auth_layer.require_fresh())
        .route("/", get(home))
        .route_layer(auth_layer.require_login())
        .route("/login", get(Html(include_str!("login.html"))))
        .route("/login", post(sign_in))
        .route("/logout", post(sign_out))
        .layer((auth_layer, tower_http::csrf::CsrfLayer::new()))
        .with_state((users, passwords))
        .into_make_service_with_connect_info::<SocketAddr>();
    let listener = TcpListener::bind(args().nth(1).unwrap_or("127.0.0.1:3000".into())).await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, site).await?)
}
