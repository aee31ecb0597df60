//! A small site with a login.
//!
//! `cargo run` at the workspace's root, then open the address that it prints. Everything that has
//! to do with logging in is in `site.rs`; `pages.rs` is HTML, and this file reads the command line.

mod pages;
mod site;

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;

use axum::ServiceExt;
use axum::extract::Request;
use tower_keep::{Account, Keys, Passwords, UserDirectory};
use tower_keep_memory::MemoryStore;

const USAGE: &str = "\
usage: cargo run -- [--listen ADDRESS]

  --listen ADDRESS   where to listen; 127.0.0.1:3000 by default, port 0 for any free one

environment:
  KEEP_KEY           the key that cookies are made with, 32 bytes or more; without it a random one
                     is made, and everybody is logged out when this ends
  RUST_LOG           what to log, such as tower_keep=debug";

/// The user who is there when it starts.
const ID: i64 = 1;
const LOGIN: &str = "ada";
const PASSWORD: &str = "analytical engine";

#[tokio::main]
async fn main() -> ExitCode {
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quickstart: {error}");
            ExitCode::from(2)
        }
    }
}

async fn serve() -> Result<(), Box<dyn Error>> {
    let Some(listen) = listen_address()? else {
        println!("{USAGE}");
        return Ok(());
    };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();

    let passwords = Passwords::new();
    let users = MemoryStore::new();
    users.insert(&Account::new(ID, LOGIN, passwords.hash(PASSWORD).await?)).await?;
    let keys =
        std::env::var("KEEP_KEY").map_or_else(|_| Keys::generate(), |key| Ok(Keys::new(key)))?;
    let api_key = random_token()?;
    let app = site::App { users, passwords, api_key: api_key.clone() };
    let auth = site::auth(&app, keys)?;
    let upkeep = tokio::spawn(auth.upkeep());
    let site = site::site(app, &auth);

    let listener = tokio::net::TcpListener::bind(listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    println!("demo login: {LOGIN}");
    println!("demo password: {PASSWORD}");
    println!("demo api key: {api_key}");
    let service = ServiceExt::<Request>::into_make_service_with_connect_info::<SocketAddr>(site);
    let interrupted = async { drop(tokio::signal::ctrl_c().await) };
    axum::serve(listener, service).with_graceful_shutdown(interrupted).await?;
    upkeep.abort();
    let _ = upkeep.await; // it was aborted
    auth.flush().await?;
    Ok(())
}

/// 32 hex digits.
fn random_token() -> Result<String, getrandom::Error> {
    let random = u128::from(getrandom::u64()?) << 64 | u128::from(getrandom::u64()?);
    Ok(format!("{random:032x}"))
}

/// `None` if only help was asked for.
fn listen_address() -> Result<Option<SocketAddr>, Box<dyn Error>> {
    use lexopt::prelude::*;

    let mut listen = SocketAddr::from(([127, 0, 0, 1], 3000));
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("listen") => {
                let address = arguments.value()?.string()?;
                listen = address.parse().map_err(|_| {
                    format!("--listen takes an address and a port, such as 127.0.0.1:3000, not {address:?}")
                })?;
            }
            Short('h') | Long("help") => return Ok(None),
            other => return Err(format!("{}\n\n{USAGE}", other.unexpected()).into()),
        }
    }
    Ok(Some(listen))
}
