//! A site of two pages.
use axum::response::{Html, Redirect};
use axum::{Form, Router, routing::get};
use std::{env::args, error::Error};
use tokio::net::TcpListener;

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
    let site = Router::new()
        .route("/address", get(ADDRESS).post(change_address))
        .route("/", get(HOME));

    let address = args().nth(1).unwrap_or("127.0.0.1:3000".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, site).await?;
    Ok(())
}
