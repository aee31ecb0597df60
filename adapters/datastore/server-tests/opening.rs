//! Opening a store: settings, environment variables, and errors.

use std::time::{Duration, Instant};

use tower_keep_core::StoreErrorKind;
use tower_keep_datastore::{DatastoreStore, PathElement, UserKeys};

use crate::{ClientProcess, builder, emulator_host, message, new_project};

#[tokio::test]
async fn the_error_of_a_bad_setting_names_the_setting() {
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
async fn without_an_emulator_opening_fails_as_unavailable_before_the_time_out() {
    let unused_address =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr());
    let begun = Instant::now();
    let builder =
        DatastoreStore::builder("datastore://x").with_emulator(unused_address.unwrap().to_string());
    let error = builder.with_timeout(Duration::from_secs(20)).build().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_store_reads_the_environment_variables_of_googles_libraries() {
    let (host, project) = (emulator_host(), new_project("environment"));
    let emulator = ("DATASTORE_EMULATOR_HOST", host.as_str());
    for (url, variables, expected) in [
        ("datastore://", vec![emulator, ("DATASTORE_PROJECT_ID", &project)], Some(&*project)),
        ("datastore://", vec![emulator, ("GOOGLE_CLOUD_PROJECT", &project)], Some(&*project)),
        ("datastore://named", vec![emulator, ("DATASTORE_PROJECT_ID", &project)], Some("named")),
        ("datastore://", vec![emulator], None),
    ] {
        let line = ClientProcess::start(&[url], &variables).next_line();
        match expected {
            Some(project) => assert!(line.contains(&format!("project: {project:?}")), "{line}"),
            None => assert!(line.contains("DATASTORE_PROJECT_ID"), "{line}"),
        }
    }
}
