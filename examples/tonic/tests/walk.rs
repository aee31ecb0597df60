//! Calls the service as a client of tonic does.

mod proto {
    #![allow(missing_docs, clippy::missing_errors_doc, unreachable_pub)]
    tonic::include_proto!("notes");
}

use proto::notes_client::NotesClient;
use proto::{AddRequest, ClearRequest, LogInRequest, LogOutRequest};
use tonic::transport::Channel;
use tonic::{Code, Request};
use tower_keep_tests::Process;

/// Returns a request with this token.
fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    let authorization = format!("Bearer {token}").parse().expect("a token is ASCII");
    request.metadata_mut().insert("authorization", authorization);
    request
}

fn log_in(login: &str, password: &str) -> LogInRequest {
    LogInRequest { login: login.to_owned(), password: password.to_owned() }
}

fn add(note: &str) -> AddRequest {
    AddRequest { note: note.to_owned() }
}

#[tokio::test]
async fn a_client_logs_in_with_a_password_and_calls_with_its_token() {
    let server = Process::start(env!("CARGO_BIN_EXE_tonic-example"), &["127.0.0.1:0"], 3);
    let url = format!("http://{}", server.address);
    let mut client: NotesClient<Channel> = NotesClient::connect(url).await.unwrap();

    let status = client.add(add("one")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    for wrong in [log_in("ada", "wrong"), log_in("nobody", "wrong")] {
        let status = client.log_in(wrong).await.unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (Code::Unauthenticated, "wrong login name or password")
        );
    }
    let right = log_in("ada", server.printed("demo password: "));
    let reply = client.log_in(right).await.unwrap().into_inner();
    let token = reply.token;
    assert_eq!(reply.expires_in, 30 * 24 * 3_600);

    for (note, expected) in [("one", &["one"][..]), ("two", &["one", "two"])] {
        let reply = client.add(with_token(add(note), &token)).await.unwrap();
        assert_eq!(reply.into_inner().notes, expected);
    }
    let reply = client.clear(with_token(ClearRequest {}, &token)).await.unwrap();
    assert!(reply.into_inner().notes.is_empty());

    client.log_out(with_token(LogOutRequest {}, &token)).await.unwrap();
    let status = client.add(with_token(add("three"), &token)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn the_client_program_adds_a_note() {
    let server = Process::start(env!("CARGO_BIN_EXE_tonic-example"), &["127.0.0.1:0"], 3);
    let mut client = tokio::process::Command::new(env!("CARGO_BIN_EXE_client"));
    let output = client.arg(format!("http://{}", server.address)).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    let expected = "[\"buy punch cards\"]\nLog in, then try again.: ";
    assert_eq!(printed.trim_end(), format!("{expected}{}", tower_keep::problem::LOGIN_REQUIRED));
}
