//! A small site with a login.
//!
//! Run `cargo run` in the root of the workspace, then open the address that it prints. All code for
//! logging in is in `site.rs`. `store.rs` opens the store of accounts and sessions, `pages.rs` has
//! the HTML, and this file reads the command line and runs the server.

mod pages;
mod site;
mod store;

use std::error::Error;
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::ServiceExt;
use axum::extract::Request;
use axum::http::StatusCode;
use tower_keep::store::UserDirectoryExt;
use tower_keep::{Account, Keys, PasswordSignIn, Passwords};

const USAGE: &str = "\
usage: cargo run -- [--listen ADDRESS] [--store STORE]

  --listen ADDRESS   the address to listen on; the default is 127.0.0.1:3000, and port 0 means any
                     free port
  --store STORE      the store of accounts and sessions; the default is sqlite:quickstart.db.
                     Other stores: memory, sqlite:PATH, postgres://… (with --features postgres),
                     mysql://… (with --features mysql), redis://…, redis+sentinel://… and
                     redis+cluster://… (with --features redis), datastore://PROJECT/NAMESPACE
                     (with --features datastore)

environment:
  KEEP_KEY           the key that signs the cookies, 32 bytes or more. If it is not set, the first
                     start creates a key and writes it to the file quickstart.key. With
                     --store memory, each start creates a key and writes no file
  RUST_LOG           the filter of the log, such as tower_keep=debug";

/// The file with the key, in the directory where the program is started.
const KEY_FILE: &str = "quickstart.key";

/// The id of the demo user. If there is no such user, the program creates one at its start.
const DEMO_ID: i64 = 1;
const DEMO_LOGIN: &str = "ada";
const DEMO_PASSWORD: &str = "analytical engine";

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
    let Some(Options { listen, store }) = options()? else {
        println!("{USAGE}");
        return Ok(());
    };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();

    let passwords = Passwords::new();
    let keys = keys(store == "memory")?;
    let store = store::open(&store).await?;
    // Does nothing if the demo user exists from an earlier start.
    let hash = passwords.hash(DEMO_PASSWORD).await?;
    store.insert_if_absent(&Account::new(DEMO_ID, DEMO_LOGIN, hash)).await?;
    let demo_user = store
        .by_login_name(DEMO_LOGIN)
        .await?
        .ok_or("another user in the store has the id of the demo user: use another store")?;
    let has_demo_password =
        passwords.verify(Some(demo_user.password_hash()), DEMO_PASSWORD).await?;
    let password = if has_demo_password { DEMO_PASSWORD } else { "(changed on an earlier run)" };
    let api_key = random_token()?;
    let auth_layer = site::auth_layer(&store, api_key.clone(), keys)?;
    let upkeep = tokio::spawn(auth_layer.upkeep());
    let sign_in = PasswordSignIn::new(&auth_layer, Arc::clone(&store))
        .with_passwords(passwords)
        .with_page(pages::sign_in);
    let site = site::site(site::App { store, sign_in }, &auth_layer);

    let listener = tokio::net::TcpListener::bind(listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    println!("demo login: {DEMO_LOGIN}");
    println!("demo password: {password}");
    println!("demo api key: {api_key}");
    let service = ServiceExt::<Request>::into_make_service_with_connect_info::<SocketAddr>(site);
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let signal = stop_signal()?;
    let shutdown = async {
        signal.await;
        let _ = sender.send(()); // fails only if the receiver is gone
    };
    let shutdown_timeout = async {
        let _ = receiver.await; // fails only if the sender is gone
        tokio::time::sleep(SHUTDOWN_TIMEOUT).await;
    };
    let server = axum::serve(listener, service).with_graceful_shutdown(shutdown);
    // After the signal, the running requests are served. Then `flush` writes the notes about used
    // sessions that wait for the upkeep, even if a request hangs.
    let served = tokio::select! {
        served = server.into_future() => served,
        () = shutdown_timeout => Ok(()),
    };
    upkeep.abort();
    let _ = upkeep.await; // an error, because the task was aborted
    auth_layer.flush().await?;
    Ok(served?)
}

/// The maximum time that requests may still run after the signal to stop. Containers are killed ten
/// seconds after that signal.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(7);

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

/// Returns a random id for a new account.
fn random_id() -> Result<i64, StatusCode> {
    // The id is positive.
    let random = getrandom::u64().map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok((random >> 1) as i64)
}

/// Returns 32 random hex digits.
fn random_token() -> Result<String, getrandom::Error> {
    let random = u128::from(getrandom::u64()?) << 64 | u128::from(getrandom::u64()?);
    Ok(format!("{random:032x}"))
}

/// Returns the key from the environment variable, or else the key in the file, which the first
/// start creates. If `is_temporary` is true, returns a new key instead of the key in the file.
fn keys(is_temporary: bool) -> Result<Keys, Box<dyn Error>> {
    if let Ok(key) = std::env::var("KEEP_KEY") {
        return Ok(Keys::new(key));
    }
    if is_temporary {
        return Ok(Keys::generate()?);
    }
    let key = match std::fs::read_to_string(KEY_FILE) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let key = random_token()? + &random_token()?;
            options.open(KEY_FILE)?.write_all(key.as_bytes())?;
            key
        }
        key => key?,
    };
    Ok(Keys::new(key))
}

struct Options {
    listen: SocketAddr,
    store: String,
}

/// Parses the command line. Returns `None` if the user only asked for help.
fn options() -> Result<Option<Options>, Box<dyn Error>> {
    use lexopt::prelude::*;

    let mut listen = SocketAddr::from(([127, 0, 0, 1], 3000));
    let mut store = "sqlite:quickstart.db".to_owned();
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("listen") => {
                let address = arguments.value()?.string()?;
                listen = address.parse().map_err(|_| {
                    format!("--listen takes an address and a port, such as 127.0.0.1:3000, not {address:?}")
                })?;
            }
            Long("store") => store = arguments.value()?.string()?,
            Short('h') | Long("help") => return Ok(None),
            other => return Err(format!("{}\n\n{USAGE}", other.unexpected()).into()),
        }
    }
    Ok(Some(Options { listen, store }))
}
