//! How a store treats a service that fails or does not respond. A proxy makes the calls fail or
//! hang.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{StatusCode, header};
use tower_keep_core::{
    Account, End, EndReason, LoginStore, Rotation, SessionRecord, SessionStore, StoreErrorKind,
    UserDirectory, UserLookup, UserStore,
};
use tower_keep_datastore::DatastoreStore;
use tower_keep_testkit::contract::sessions::new_record;
use tower_keep_tests::{Browser, Http, load};

use crate::proxy::{Proxy, Trouble};
use crate::{builder_in, builder_through, emulator_url, login, message, new_project};

// Status codes of gRPC.
const PERMISSION_DENIED: u16 = 7;
const RESOURCE_EXHAUSTED: u16 = 8;
const ABORTED: u16 = 10;
const UNAVAILABLE: u16 = 14;

/// Returns a proxy in front of the emulator, and a store with one user behind the proxy.
async fn store_behind_proxy(timeout: Duration) -> (Proxy, DatastoreStore) {
    let project = new_project("faults");
    let direct = builder_in(&project).build().await.expect("a store");
    direct.insert(&Account::new(7, "ada", "hash")).await.expect("a new account");
    let proxy = Proxy::start(emulator_url()).await;
    let builder = builder_in(&project).with_emulator(proxy.address.to_string());
    let store = builder.with_timeout(timeout).build().await.expect("a store");
    proxy.take_calls();
    (proxy, store)
}

/// Returns how many calls of this method the proxy has recorded, and removes all recorded calls.
fn take_call_count(proxy: &Proxy, method: &str) -> usize {
    proxy.take_methods().iter().filter(|taken| *taken == method).count()
}

fn rotation(record: &SessionRecord) -> Rotation {
    Rotation::new(record.key, record.generation, record.created.plus(10), record.expires)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_grpc_status_gives_an_error_kind_and_a_number_of_attempts() {
    use StoreErrorKind::{Timeout, Unavailable, Unsupported};
    let (proxy, store) = store_behind_proxy(Duration::from_secs(5)).await;
    for (code, name, read_kind, read_attempts, write_kind) in [
        (UNAVAILABLE, "UNAVAILABLE", Unavailable, 3, Timeout),
        (13, "INTERNAL", Unavailable, 3, Timeout),
        (4, "DEADLINE_EXCEEDED", Timeout, 1, Timeout),
        (RESOURCE_EXHAUSTED, "RESOURCE_EXHAUSTED", Unavailable, 1, Unavailable),
        (PERMISSION_DENIED, "PERMISSION_DENIED", Unsupported, 1, Unsupported),
        (16, "UNAUTHENTICATED", Unsupported, 1, Unsupported),
        (9, "FAILED_PRECONDITION", Unsupported, 1, Unsupported),
    ] {
        proxy.set("Lookup", Trouble::Fails(code));
        let error = store.by_id(&"7".into()).await.unwrap_err();
        assert_eq!(
            (error.kind(), take_call_count(&proxy, "Lookup")),
            (read_kind, read_attempts),
            "{name}"
        );
        proxy.set("Commit", Trouble::Fails(code));
        let error = store.create(&login(&new_record(&"7".into()))).await.unwrap_err();
        // The failed commit may have taken effect, so the store does not retry it.
        assert_eq!((error.kind(), take_call_count(&proxy, "Commit")), (write_kind, 1), "{name}");
        assert!(message(&error).contains("set by the proxy"), "{}", message(&error));
        // If the store retries a read, a single failure does not reach the caller.
        proxy.set_next(1, "Lookup", Trouble::Fails(code));
        assert_eq!(store.by_id(&"7".into()).await.is_ok(), read_attempts > 1, "{name}");
        proxy.heal();
        assert!(store.by_id(&"7".into()).await.expect("no trouble any more").is_some());
        proxy.take_calls();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_change_no_entity_are_retried() {
    let (proxy, store) = store_behind_proxy(Duration::from_secs(5)).await;
    for method in ["RunQuery", "BeginTransaction", "AllocateIds", "Rollback"] {
        proxy.set_next(2, method, Trouble::Fails(UNAVAILABLE));
        let outcome = match method {
            "RunQuery" => store.by_login_name("ada").await.map(drop),
            "BeginTransaction" => store.create(&login(&new_record(&"7".into()))).await.map(drop),
            "AllocateIds" => store.new_user_id().await.map(drop),
            // The session does not exist, so the transaction is rolled back.
            _ => store.rotate(&rotation(&new_record(&"7".into()))).await.map(drop),
        };
        assert!(outcome.is_ok(), "{method}: {outcome:?}");
        assert_eq!(take_call_count(&proxy, method), 3, "{method}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aborted_transactions_are_retried_up_to_20_attempts_and_within_the_time_out() {
    let (proxy, store) = store_behind_proxy(Duration::from_secs(20)).await;
    let record = new_record(&"7".into());
    proxy.set_next(4, "Commit", Trouble::Fails(ABORTED));
    store.create(&login(&record)).await.expect("the fifth attempt succeeds");
    let methods = proxy.take_methods();
    let count = |method: &str| methods.iter().filter(|taken| *taken == method).count();
    assert_eq!((count("BeginTransaction"), count("Commit"), count("Rollback")), (5, 5, 4));
    // A transaction that is aborted while it reads is retried too.
    proxy.set_next(2, "Lookup", Trouble::Fails(ABORTED));
    store.rotate(&rotation(&record)).await.expect("no error").expect("the record");
    assert_eq!(take_call_count(&proxy, "BeginTransaction"), 3);
    proxy.set("Commit", Trouble::Fails(ABORTED));
    let error = store.create(&login(&new_record(&"7".into()))).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert_eq!(take_call_count(&proxy, "Commit"), 20);
    // The attempts end at the time-out of the call.
    let (proxy, store) = store_behind_proxy(Duration::from_secs(2)).await;
    proxy.set("Commit", Trouble::Fails(ABORTED));
    let begun = Instant::now();
    let error = store.create(&login(&new_record(&"7".into()))).await.unwrap_err();
    assert!([StoreErrorKind::Unavailable, StoreErrorKind::Timeout].contains(&error.kind()));
    assert!(begun.elapsed() < Duration::from_secs(8) && take_call_count(&proxy, "Commit") < 20);
}

/// Waits up to 10 seconds for a call of this method, and returns whether the proxy recorded one.
async fn wait_for_call(proxy: &Proxy, method: &str) -> bool {
    for _ in 0..1_000 {
        if take_call_count(proxy, method) > 0 {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_fails_or_is_dropped_is_rolled_back() {
    let (proxy, store) = store_behind_proxy(Duration::from_secs(4)).await;
    let record = new_record(&"7".into());
    store.create(&login(&record)).await.expect("a login");
    for (method, trouble) in [
        ("Lookup", Trouble::Fails(PERMISSION_DENIED)),
        ("Lookup", Trouble::Hangs),
        ("Commit", Trouble::Fails(PERMISSION_DENIED)),
        ("Commit", Trouble::Hangs),
    ] {
        proxy.take_calls();
        proxy.set_next(1, method, trouble);
        assert!(store.rotate(&rotation(&record)).await.is_err(), "{method} {trouble:?}");
        assert!(wait_for_call(&proxy, "Rollback").await, "{method} {trouble:?}");
        // If the caller drops its future, the rollback releases the locks.
        proxy.set_next(1, method, Trouble::Hangs);
        let (store, rotation) = (store.clone(), rotation(&record));
        let dropped = tokio::spawn(async move { store.rotate(&rotation).await.map(drop) });
        assert!(wait_for_call(&proxy, method).await, "{method}");
        dropped.abort();
        assert!(wait_for_call(&proxy, "Rollback").await, "{method}, dropped");
    }
    proxy.take_calls();
    // A transaction that changes nothing is rolled back too.
    let mut wrong_rotation = rotation(&record);
    wrong_rotation.from_generation = 9;
    store.rotate(&wrong_rotation).await.expect("no error");
    let rolled_back_calls = ["BeginTransaction", "Lookup", "Lookup", "Rollback"];
    assert_eq!(proxy.take_methods(), rolled_back_calls);
    // The store retries a failed rollback in the background.
    proxy.set_next(1, "Rollback", Trouble::Fails(RESOURCE_EXHAUSTED));
    store.rotate(&wrong_rotation).await.expect("no error");
    let methods = proxy.take_methods();
    assert_eq!(methods[..4], rolled_back_calls);
    assert!(methods.len() > 4 || wait_for_call(&proxy, "Rollback").await);
    assert_eq!(store.load(&record.key).await.expect("no error").as_deref(), Some(&record));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_without_a_response_fails_at_its_time_out() {
    let (proxy, store) = store_behind_proxy(Duration::from_secs(2)).await;
    for method in ["Lookup", "BeginTransaction", "Commit"] {
        proxy.set(method, Trouble::Hangs);
        let begun = Instant::now();
        let record = new_record(&"7".into());
        let error = match method {
            "Lookup" => store.load_login(&record.key, None).await.map(drop).unwrap_err(),
            _ => store.create(&login(&record)).await.map(drop).unwrap_err(),
        };
        assert_eq!(error.kind(), StoreErrorKind::Timeout, "{method}");
        assert!(begun.elapsed() < Duration::from_secs(8), "{method}: {:?}", begun.elapsed());
        assert!(message(&error).contains("with_timeout"), "{}", message(&error));
    }
    proxy.heal();
    assert!(store.by_id(&"7".into()).await.expect("the service responds again").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_response_is_lost_is_a_timeout_although_it_took_effect() {
    let (proxy, store) = store_behind_proxy(Duration::from_secs(5)).await;
    let record = new_record(&"7".into());
    proxy.set_next(1, "Commit", Trouble::FailsAfterwards(UNAVAILABLE));
    let error = store.create(&login(&record)).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Timeout);
    let stored = store.load(&record.key).await.expect("no error");
    assert_eq!(stored.as_deref(), Some(&record), "the commit took effect");
    let error = store.create(&login(&record)).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Conflict, "the key is taken");
    let end = End::new(record.created, EndReason::LoggedOut, record.expires);
    proxy.set_next(1, "Commit", Trouble::FailsAfterwards(UNAVAILABLE));
    let error = store.revoke(&[record.key], &end).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Timeout);
    assert_eq!(store.revoke(&[record.key], &end).await.expect("the repeated call succeeds"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_beyond_max_waiting_fail_at_once() {
    let proxy = Proxy::start(emulator_url()).await;
    let builder = builder_through(&proxy, "waiting").with_max_waiting(4);
    let store = builder.with_timeout(Duration::from_secs(5)).build().await.expect("a store");
    proxy.set("Lookup", Trouble::Hangs);
    proxy.take_calls();
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.by_id(&"7".into()).await.map(drop) })
        })
        .collect();
    let mut in_progress = 0;
    while in_progress < 4 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        in_progress += take_call_count(&proxy, "Lookup");
    }
    let begun = Instant::now();
    let error = store.by_id(&"7".into()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert!(
        message(&error).contains("with_max_waiting") && begun.elapsed() < Duration::from_secs(2)
    );
    for waiting in waiting {
        let error = waiting.await.expect("no panic").unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Timeout);
    }
}

#[tokio::test]
async fn a_rollback_is_sent_although_max_waiting_calls_are_in_progress() {
    let proxy = Proxy::start(emulator_url()).await;
    let builder = builder_through(&proxy, "rollback").with_max_waiting(1);
    let store = builder.with_timeout(Duration::from_secs(3)).build().await.expect("a store");
    proxy.take_calls();
    // The only call that may be in progress is a lookup in a transaction, which gets no response.
    proxy.set_next(1, "Lookup", Trouble::Hangs);
    let record = new_record(&"7".into());
    let transaction_store = store.clone();
    let transaction =
        tokio::spawn(async move { transaction_store.create(&login(&record)).await.map(drop) });
    while take_call_count(&proxy, "Lookup") == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    proxy.set_next(1, "Lookup", Trouble::Hangs);
    // The test has one thread, so this is the order: the transaction is dropped, the lookup of
    // `by_id` becomes the only call that may be in progress, and the rollback is sent.
    transaction.abort();
    let waiting = tokio::spawn(async move { store.by_id(&"7".into()).await.map(drop) });
    assert!(wait_for_call(&proxy, "Rollback").await);
    let error = waiting.await.expect("no panic").unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Timeout, "the lookup of `by_id` was sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_gets_a_503_and_keeps_its_cookies_while_calls_fail() {
    let (proxy, store) = store_behind_proxy(Duration::from_secs(4)).await;
    let site = load::site(Arc::new(store)).await;
    let mut browser = Browser::new(Http::to(site.address));
    assert_eq!(browser.get("/login?user=ada").await.status, StatusCode::OK);
    for trouble in [
        Trouble::Fails(UNAVAILABLE),
        Trouble::Fails(PERMISSION_DENIED),
        Trouble::Fails(RESOURCE_EXHAUSTED),
        Trouble::Hangs,
    ] {
        proxy.set("Lookup", trouble);
        let response = browser.get("/secret").await;
        assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE, "{trouble:?}");
        assert!(response.headers.contains_key(header::RETRY_AFTER), "{trouble:?}");
        assert!(!response.headers.contains_key(header::SET_COOKIE), "{trouble:?}");
        proxy.heal();
        assert_eq!(browser.get("/secret").await.text(), "ada", "{trouble:?}");
    }
}
