//! How a store is opened, and which errors it returns if it can't be.

use std::time::{Duration, Instant};

use tower_keep_core::StoreErrorKind;
use tower_keep_datastore::{DatastoreStore, PathElement, UserKeys};

use crate::{Client, builder, host, message, project};

#[tokio::test]
async fn settings_that_cannot_be_say_which() {
    let bad = [
        (builder("x").with_kind(""), "with_kind"),
        (builder("x").with_kind("__x__"), "with_kind"),
        (builder("x").with_kind_prefix(""), "with_kind_prefix"),
        (builder("x").with_login_property("a".repeat(251)), "with_login_property"),
        (builder("x").with_user_keys(UserKeys::TextProperty("".into())), "with_user_keys"),
        (builder("x").with_ancestors([PathElement::Id("Tenant".into(), 0)]), "with_ancestors"),
        (
            builder("x").with_ancestors([PathElement::Name("Tenant".into(), "".into())]),
            "with_ancestors",
        ),
        (builder("x").with_id_field("__id__"), "with_id_field"),
        (DatastoreStore::builder("redis://localhost"), "datastore://PROJECT"),
        (builder("x").with_emulator("not an address"), "address"),
    ];
    for (builder, words) in bad {
        let shown = format!("{builder:?}");
        let error = builder.build().await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Unsupported, "{shown}");
        assert!(message(&error).contains(words), "{shown}: {}", message(&error));
    }
    let store = builder("x").build().await.expect("a store");
    assert!(!format!("{store:?}").contains("127.0.0.1"));
}

#[tokio::test]
async fn an_emulator_that_is_not_there_is_unavailable_at_once() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr());
    let begun = Instant::now();
    let builder =
        DatastoreStore::builder("datastore://x").with_emulator(nobody.unwrap().to_string());
    let error = builder.with_timeout(Duration::from_secs(20)).build().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn the_environment_is_honoured_as_by_googles_own_libraries() {
    let (host, project) = (host(), project("environment"));
    let emulator = ("DATASTORE_EMULATOR_HOST", host.as_str());
    for (url, variables, expected) in [
        ("datastore://", vec![emulator, ("DATASTORE_PROJECT_ID", &project)], Some(&*project)),
        ("datastore://", vec![emulator, ("GOOGLE_CLOUD_PROJECT", &project)], Some(&*project)),
        ("datastore://named", vec![emulator, ("DATASTORE_PROJECT_ID", &project)], Some("named")),
        ("datastore://", vec![emulator], None),
    ] {
        let line = Client::start(&[url], &variables).line();
        match expected {
            Some(project) => assert!(line.contains(&format!("project: {project:?}")), "{line}"),
            None => assert!(line.contains("DATASTORE_PROJECT_ID"), "{line}"),
        }
    }
}
