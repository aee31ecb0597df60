//! How tokens are fetched, sent and renewed. The tests' own metadata server on loopback replaces
//! Google's.

use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde_json::json;
use tower_keep_tests::{Serving, serve};

use crate::proxy::Proxy;
use crate::{ClientProcess, emulator_url, new_project};

/// A metadata server like Google's, which gives tokens to the programs of one machine.
#[derive(Clone, Default)]
struct Metadata {
    issued_tokens: Arc<AtomicU32>,
    requested_paths: Arc<Mutex<Vec<String>>>,
    /// If set, the server responds to every request with only this status.
    error_status: Option<StatusCode>,
}

impl Metadata {
    async fn serve(self) -> Serving {
        serve(Router::new().fallback(respond).with_state(self)).await
    }
}

async fn respond(State(metadata): State<Metadata>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    metadata.requested_paths.lock().expect("no panic").push(path.clone());
    if let Some(status) = metadata.error_status {
        return status.into_response();
    }
    if request.headers().get("metadata-flavor").is_none_or(|flavor| flavor != "Google") {
        return StatusCode::FORBIDDEN.into_response();
    }
    let flavor = [("metadata-flavor", "Google")];
    if path.ends_with("/token") {
        let number = metadata.issued_tokens.fetch_add(1, Ordering::Relaxed) + 1;
        // The token expires so soon that it has to be renewed while the test waits.
        let token = json!({
            "access_token": format!("token-{number}"),
            "expires_in": 3,
            "token_type": "Bearer",
        });
        return ([("content-type", "application/json"), flavor[0]], token.to_string())
            .into_response();
    }
    if path.ends_with("/project-id") {
        return (flavor, "from-metadata").into_response();
    }
    StatusCode::NOT_FOUND.into_response()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_token_of_the_metadata_server_is_fetched_sent_and_renewed() {
    let metadata = Metadata::default();
    let serving = metadata.clone().serve().await;
    let host = serving.address.to_string();
    let proxy = Proxy::start(emulator_url()).await;
    let endpoint = format!("http://{}", proxy.address);
    let mut client =
        ClientProcess::start(&["datastore://", &endpoint], &[("GCE_METADATA_HOST", &host)]);
    let opened = client.next_line();
    assert!(opened.starts_with("opened") && opened.contains("from-metadata"), "{opened}");
    let begun = Instant::now();
    let mut tokens: Vec<String> = Vec::new();
    while tokens.len() < 2 && begun.elapsed() < Duration::from_secs(40) {
        assert_eq!(
            client.next_line(),
            "found: false",
            "lookups succeed while the token is renewed"
        );
        for call in proxy.take_calls() {
            let token = call.authorization.expect("every call has a token");
            if tokens.last() != Some(&token) {
                tokens.push(token);
            }
        }
    }
    assert_eq!(tokens[..2], ["Bearer token-1", "Bearer token-2"], "{tokens:?}");
    let paths = metadata.requested_paths.lock().expect("no panic").clone();
    assert!(
        paths.iter().any(|path| path.ends_with("/service-accounts/default/token")),
        "{paths:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_a_token_no_call_is_sent_and_the_error_says_what_to_do() {
    let proxy = Proxy::start(emulator_url()).await;
    let endpoint = format!("http://{}", proxy.address);
    let url = format!("datastore://{}", new_project("tokens"));
    // A later request may succeed after a 503, but not after a 404.
    for (status, kind) in
        [(StatusCode::SERVICE_UNAVAILABLE, "Unavailable"), (StatusCode::NOT_FOUND, "Unsupported")]
    {
        let metadata = Metadata { error_status: Some(status), ..Metadata::default() }.serve().await;
        let host = metadata.address.to_string();
        let line =
            ClientProcess::start(&[&url, &endpoint], &[("GCE_METADATA_HOST", &host)]).next_line();
        assert!(line.starts_with(&format!("not opened: {kind}")), "{line}");
    }
    let missing = [("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent/key.json")];
    let line = ClientProcess::start(&[&url, &endpoint], &missing).next_line();
    assert!(line.starts_with("not opened: Unsupported"), "{line}");
    assert!(line.contains("gcloud auth application-default login"), "{line}");
    assert!(proxy.take_calls().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_store_signs_the_tokens_of_a_service_account_itself() {
    let proxy = Proxy::start(emulator_url()).await;
    let endpoint = format!("http://{}", proxy.address);
    let url = format!("datastore://{}", new_project("account"));
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::File::create(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .expect("written");
        path.display().to_string()
    };
    let pair = KeyPair::generate(KeySize::Rsa2048).expect("a key");
    let der: Pkcs8V1Der = pair.as_der().expect("the bytes of the key");
    let pem = STANDARD.encode(der.as_ref());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{pem}\n-----END PRIVATE KEY-----\n");
    let account = json!({
        "type": "service_account",
        "project_id": "of-the-file",
        "private_key_id": "key-7",
        "private_key": pem,
        "client_email": "keep@of-the-file.iam.gserviceaccount.com",
        "client_id": "7",
        "token_uri": "https://oauth2.googleapis.com/token",
    });
    let good = write("key.json", &account.to_string());

    // The project comes from the URL if the URL names one, else from the service account in the
    // settings, else from the environment.
    let other_projects = [("GOOGLE_CLOUD_PROJECT", "another"), ("DATASTORE_PROJECT_ID", "another")];
    let json = account.to_string();
    for key in [&good, &json] {
        let by_setting =
            ClientProcess::start(&["datastore://", &endpoint, key], &other_projects).next_line();
        assert!(
            by_setting.starts_with("opened") && by_setting.contains("of-the-file"),
            "{by_setting}"
        );
    }
    let by_url = ClientProcess::start(&[&url, &endpoint, &good], &[]).next_line();
    assert!(by_url.starts_with("opened") && !by_url.contains("of-the-file"), "{by_url}");
    let variable = [("GOOGLE_APPLICATION_CREDENTIALS", &*good)];
    let by_variable = ClientProcess::start(&["datastore://", &endpoint], &variable).next_line();
    assert!(
        by_variable.starts_with("opened") && by_variable.contains("of-the-file"),
        "{by_variable}"
    );
    let calls = proxy.take_calls();
    assert!(calls.len() >= 2);
    for call in calls {
        let token = call.authorization.expect("every call has a token");
        assert_eq!(token.strip_prefix("Bearer ").map(|token| token.split('.').count()), Some(3));
    }

    let mut bad_key = account.clone();
    bad_key["private_key"] = "secret".into();
    let secret = write("bad.json", r#"{"private_key": "secret"#);
    for (file, words) in [
        (&*write("bad_key.json", &bad_key.to_string()), ""),
        (&*write("text.json", r#""secret""#), "not JSON"),
        (&*secret, "not JSON"),
        (&*write("empty.json", "{}"), "credentials"),
        ("/nonexistent/key.json", "/nonexistent/key.json: No such file"),
    ] {
        let line = ClientProcess::start(&[&url, &endpoint, file], &[]).next_line();
        assert!(line.starts_with("not opened: Unsupported") && line.contains(words), "{line}");
        assert!(!line.contains("secret"), "{line}");
    }
    assert!(proxy.take_calls().is_empty());
}
