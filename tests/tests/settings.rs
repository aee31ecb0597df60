//! Bad settings cause a clear error when the layer is built.

use std::sync::Arc;
use std::time::Duration;

use tower_keep::cookie::{CookieError, CookieSettings};
use tower_keep::error::BuildError;
use tower_keep::{Account, Keys, LoginLayer};
use tower_keep_memory::MemoryStore;
use tower_keep_tests::{Builder, KEY, WatchedStore};

fn builder() -> Builder {
    LoginLayer::builder(WatchedStore::new(Arc::new(MemoryStore::new())), Keys::new(KEY))
}

fn build_error(configure: impl FnOnce(Builder) -> Builder) -> BuildError {
    configure(builder()).build().expect_err("settings that can't work")
}

#[test]
fn a_layer_with_a_bad_key_is_not_built() {
    for key in
        ["", "short", "changeme changeme changeme changeme", "00000000000000000000000000000000000"]
    {
        let store = MemoryStore::<Account>::new();
        let error = LoginLayer::builder(store, Keys::new(key)).build().expect_err(key);
        assert!(error.to_string().contains("openssl rand -base64 48"), "{error}");
    }
}

#[test]
fn time_limits_under_one_second_or_over_68_years_are_errors() {
    let limit_error = |limit| BuildError::Limit { limit };
    let (zero, century) = (Duration::ZERO, Duration::from_secs(100 * 366 * 24 * 3600));
    for bad in [zero, Duration::from_millis(999), century] {
        assert_eq!(build_error(|builder| builder.with_idle_limit(bad)), limit_error("idle limit"));
        assert_eq!(
            build_error(|builder| builder.with_absolute_limit(bad)),
            limit_error("absolute limit")
        );
        assert_eq!(
            build_error(|builder| builder.with_remember_duration(bad)),
            limit_error("remember duration")
        );
    }
}

#[test]
fn settings_that_are_malformed_or_contradict_each_other_are_errors() {
    let cookie = CookieSettings::new;
    assert_eq!(
        build_error(
            |builder| builder.with_session_cookie(cookie().with_name("__Host-a").with_path("/b"))
        ),
        BuildError::Cookie(CookieError::HostPrefix { name: "__Host-a".into() })
    );
    assert_eq!(
        build_error(|builder| builder.with_remember_cookie(cookie().with_name("__Host-Http-keep"))),
        BuildError::SameCookieName { name: "__Host-Http-keep".into() }
    );
    for area in ["a b", "remember", "flash", "a-remember", "é"] {
        let expected = BuildError::Area { area: area.into() };
        assert_eq!(build_error(|builder| builder.with_area(area)), expected);
    }
    assert_eq!(build_error(|builder| builder.with_next_field("")), BuildError::NextField);
    for page in ["login", "//evil", "ftp://a/b", "/a b"] {
        let expected = BuildError::Page { page: page.into() };
        assert_eq!(builder().with_login_page(page).unwrap_err(), expected);
        assert_eq!(builder().with_confirm_page(page).unwrap_err(), expected);
    }
    for path in ["https://elsewhere.example/", "home", "//x"] {
        let expected = BuildError::Path { path: path.into() };
        assert_eq!(builder().with_home_page(path).unwrap_err(), expected);
        assert_eq!(builder().with_logout_page(path).unwrap_err(), expected);
        assert_eq!(builder().with_never_next(path).unwrap_err(), expected);
    }
    for origin in ["example.org", "https://example.org/", "https://example.org/a", "https://a@b"] {
        let expected = BuildError::PublicOrigin { origin: origin.into() };
        assert_eq!(build_error(|builder| builder.with_public_origin(origin)), expected);
        let expected = BuildError::AllowedOrigin { origin: origin.into() };
        let origins = ["https://a.example", origin];
        assert_eq!(build_error(|builder| builder.with_allowed_origins(origins)), expected);
    }
    for realm in ["é", "a\r\nb"] {
        let expected = BuildError::Realm { realm: realm.into() };
        assert_eq!(build_error(|builder| builder.with_realm(realm)), expected);
    }
    assert_eq!(
        build_error(|builder| builder.with_trusted_proxies(["10.0.0.0/8", "my-proxy"])),
        BuildError::TrustedProxy { network: "my-proxy".into() }
    );
    assert_eq!(
        build_error(|builder| builder.with_login_message("x".repeat(257))),
        BuildError::FlashTooLong { length: 257 }
    );
}

#[test]
fn build_errors_say_what_to_do() {
    for (error, fix) in [
        (builder().with_login_page("login").unwrap_err().to_string(), "/login"),
        (build_error(|builder| builder.with_trusted_proxies(["x"])).to_string(), "10.0.0.0/8"),
        (build_error(|builder| builder.with_public_origin("x")).to_string(), "https://example.org"),
        (builder().with_home_page("x").unwrap_err().to_string(), "such as `/`"),
    ] {
        assert!(error.contains(fix), "{error}");
    }
}
