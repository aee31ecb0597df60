//! Random input of a client never causes a panic, a login, or a redirect to another site.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use tower_keep::target::LocalTarget;
use tower_keep_tests::{Site, send_raw};

proptest! {
    #[test]
    fn a_local_target_stays_on_the_site_for_a_browser(text in ".{0,40}") {
        check_target(&text);
    }

    #[test]
    fn a_local_target_of_confusing_characters_stays_on_the_site_too(
        text in r"[/\\.%;:@?#a-f0-9\x00-\x20]{0,12}",
    ) {
        check_target(&text);
        check_target(&format!("/{text}"));
    }
}

/// If the text parses as a target, checks that the target is the same text, and that neither a
/// browser nor a proxy can read another host or a header in the target.
fn check_target(text: &str) {
    let Ok(target) = text.parse::<LocalTarget>() else { return };
    let target = target.as_str();
    assert_eq!(target, text);
    assert!(target.starts_with('/') && !target.starts_with("//") && !target.starts_with("/\\"));
    assert!(target.bytes().all(|byte| matches!(byte, 0x21..=0x7E)), "{target:?}");
    let uri: http::Uri = format!("https://here.example{target}").parse().expect("a URI");
    assert_eq!(uri.host(), Some("here.example"));
}

#[tokio::test]
async fn random_cookies_never_log_a_user_in_and_never_cause_an_error() {
    let site = Site::start().await;
    let genuine = site.logged_in("user=notch").await;
    let genuine = genuine.jar.get("__Host-Http-keep").expect("a session").to_owned();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(200));
    let values = proptest::collection::vec(r"[ -~]{0,120}", 200);
    let values = values.new_tree(&mut runner).expect("values").current();
    for (number, value) in values.into_iter().enumerate() {
        let name =
            ["__Host-Http-keep", "__Host-Http-keep-remember", "__Host-Http-keep-flash"][number % 3];
        // Every second value is a genuine cookie with the random text inserted.
        let cut = number % genuine.len();
        let value = if number % 2 == 0 {
            value
        } else {
            format!("{}{value}{}", &genuine[..cut], &genuine[cut..])
        };
        if value == genuine || value.contains(';') {
            continue;
        }
        let request = format!(
            "GET /username HTTP/1.1\r\nHost: x\r\nCookie: {name}={value}\r\nConnection: close\r\n\r\n"
        );
        let response = send_raw(site.address, request.as_bytes()).await;
        assert!(
            response.starts_with("HTTP/1.1 200") && response.ends_with("Anonymous"),
            "{value:?}: {response}"
        );
    }
}

#[tokio::test]
async fn a_query_that_cannot_be_parsed_gets_400() {
    let site = Site::start().await;
    for target in ["/login", "/login?user=notch&remember=yes", "/login?user=%FF&duration=-1"] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let response = send_raw(site.address, request.as_bytes()).await;
        assert!(response.starts_with("HTTP/1.1 400"), "{target}: {response}");
    }
}
