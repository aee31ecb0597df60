//! A client of the server in `main.rs`: logs in, adds a note, logs out, and is rejected then.
//!
//! Run `cargo run -p tonic-example --bin client`. The optional argument is the server's URL.

mod proto {
    #![allow(missing_docs, unreachable_pub, clippy::missing_errors_doc)]
    tonic::include_proto!("notes");
}

use std::error::Error;

use tonic::Request;

use proto::notes_client::NotesClient;
use proto::{AddRequest, LogInRequest, LogOutRequest};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:3000".into());
    let mut client = NotesClient::connect(url).await?;
    let login = LogInRequest { login: "ada".into(), password: "analytical engine".into() };
    let token = client.log_in(login).await?.into_inner().token;

    let note = AddRequest { note: "buy punch cards".into() };
    let notes = client.add(with_token(note, &token)?).await?.into_inner().notes;
    println!("{notes:?}");
    client.log_out(with_token(LogOutRequest {}, &token)?).await?;

    let note = AddRequest { note: "oil the engine".into() };
    if let Err(status) = client.add(with_token(note, &token)?).await {
        // Says whether to log in or to confirm, which are one status.
        let problem = status.metadata().get("problem-type").map(|uri| uri.to_str()).transpose()?;
        println!("{}: {}", status.message(), problem.unwrap_or_default());
    }
    Ok(())
}

/// Sends the token with a request. Keep it as you would keep a password.
fn with_token<T>(message: T, token: &str) -> Result<Request<T>, Box<dyn Error>> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
    Ok(request)
}
