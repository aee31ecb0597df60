//! A site of two pages.
use axum::response::{Html, Redirect};
use axum::{Form, Router, routing::get};
use std::{env::args, error::Error, net::SocketAddr};
use tokio::net::TcpListener;
use tower_keep::{Keys, LoginLayer, PasswordSignIn};
use tower_keep_memory::MemoryStore as Store;

const HOME: Html<&str> = Html("<h1>Your account</h1><a href=/address>Change your address</a>");
const ADDRESS: Html<&str> = Html("<form method=post><input name=street><button>Save</button>");

#[derive(serde::Deserialize)]
struct Address {
    street: String,
}

async fn change_address(Form(form): Form<Address>) -> Redirect {
    println!("new address: {}", form.street);
    Redirect::to("/")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let users = Store::new();
    let auth_layer = LoginLayer::builder(users.clone(), Keys::generate()?) // a new key at each start
        .with_login_page("/login")?
        .with_confirm_page("/confirm")?
        .build()?;
    let sign_in = PasswordSignIn::new(&auth_layer, users.clone());
    let passwords = sign_in.passwords();
    passwords.sign_up(&users, 1, "ada", "first bug").await?; // for the demo only
    let site = Router::new()
        .route("/address", get(ADDRESS).post(change_address))
        .route_layer(auth_layer.require_fresh())
        .route("/", get(HOME))
        .route_layer(auth_layer.require_login())
        .merge(sign_in.routes()) // /login, /confirm, /logout
        .layer((auth_layer, tower_http::csrf::CsrfLayer::new()))
        .into_make_service_with_connect_info::<SocketAddr>();

    let address = args().nth(1).unwrap_or("127.0.0.1:3000".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, site).await?;
    Ok(())
}
