//! A site of two pages.
use axum::response::{Html, Redirect, Result};
use axum::routing::{get, post};
use axum::{Form, Router};
use std::{env::args, error::Error, net::SocketAddr};
use tokio::net::TcpListener;

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

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let site = Router::new()
        .route("/address", get(address))
        .route("/address", post(change_address))
        .route("/", get(home))
        .into_make_service_with_connect_info::<SocketAddr>();
    let listener = TcpListener::bind(args().nth(1).unwrap_or("127.0.0.1:3000".into())).await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, site).await?)
}
