//! What the store does about a service that fails, hangs or does not respond. A proxy injects these
//! faults.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{StatusCode, header};
use tower_keep_core::{
    Account, End, EndReason, LoginStore, Rotation, SessionRecord, SessionStore, StoreErrorKind,
    UserDirectory, UserLookup, UserStore,
};
use tower_keep_datastore::DatastoreStore;
use tower_keep_testkit::contract::sessions::new_record;
use tower_keep_tests::proxy::{Fate, Proxy};
use tower_keep_tests::{Browser, Http, load};

use crate::{emulator, in_project, login, message, project, through};

const ABORTED: u16 = 10;
const ALWAYS: usize = usize::MAX;

async fn troubled(timeout: Duration) -> (Proxy, DatastoreStore) {
    let project = project("faults");
    let patient = in_project(&project).build().await.expect("a store");
    patient.insert(&Account::new(7, "ada", "hash")).await.expect("a new account");
    let proxy = Proxy::start(emulator()).await;
    let builder = in_project(&project).with_emulator(proxy.address.to_string());
    let store = builder.with_timeout(timeout).build().await.expect("a store");
    proxy.take();
    (proxy, store)
}

fn calls(proxy: &Proxy, method: &str) -> usize {
    proxy.take_methods().iter().filter(|seen| *seen == method).count()
}

fn rotation(record: &SessionRecord) -> Rotation {
    Rotation::new(record.key, record.generation, record.created.plus(10), record.expires)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_status_has_its_kind_and_its_number_of_tries() {
    use StoreErrorKind::{Timeout, Unavailable, Unsupported};
    let (proxy, store) = troubled(Duration::from_secs(5)).await;
    for (code, name, reading, tries, writing) in [
        (14, "UNAVAILABLE", Unavailable, 3, Timeout),
        (13, "INTERNAL", Unavailable, 3, Timeout),
        (4, "DEADLINE_EXCEEDED", Timeout, 1, Timeout),
        (8, "RESOURCE_EXHAUSTED", Unavailable, 1, Unavailable),
        (7, "PERMISSION_DENIED", Unsupported, 1, Unsupported),
        (16, "UNAUTHENTICATED", Unsupported, 1, Unsupported),
        (9, "FAILED_PRECONDITION", Unsupported, 1, Unsupported),
    ] {
        proxy.trouble("Lookup", Fate::Refused(code), ALWAYS, 0);
        let error = store.by_id(&"7".into()).await.unwrap_err();
        assert_eq!((error.kind(), calls(&proxy, "Lookup")), (reading, tries), "{name}");
        proxy.trouble("Commit", Fate::Refused(code), ALWAYS, 0);
        let error = store.create(&login(&new_record(&"7".into()))).await.unwrap_err();
        // A commit may have been made, so it is not tried again.
        assert_eq!((error.kind(), calls(&proxy, "Commit")), (writing, 1), "{name}");
        assert!(message(&error).contains("as planned"), "{}", message(&error));
        // A single failure is not noticed, if the call only reads and is tried again.
        proxy.trouble("Lookup", Fate::Refused(code), 1, 0);
        assert_eq!(store.by_id(&"7".into()).await.is_ok(), tries > 1, "{name}");
        proxy.heal();
        assert!(store.by_id(&"7".into()).await.expect("healed").is_some());
        proxy.take();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_changes_no_entity_is_asked_again() {
    let (proxy, store) = troubled(Duration::from_secs(5)).await;
    for method in ["RunQuery", "BeginTransaction", "AllocateIds", "Rollback"] {
        proxy.trouble(method, Fate::Refused(14), 2, 0);
        let outcome = match method {
            "RunQuery" => store.by_login_name("ada").await.map(drop),
            "BeginTransaction" => store.create(&login(&new_record(&"7".into()))).await.map(drop),
            "AllocateIds" => store.new_user_id().await.map(drop),
            // The session does not exist, so the transaction is rolled back.
            _ => store.rotate(&rotation(&new_record(&"7".into()))).await.map(drop),
        };
        assert!(outcome.is_ok(), "{method}: {outcome:?}");
        assert_eq!(calls(&proxy, method), 3, "{method}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_aborted_transactions_is_weathered_or_given_up() {
    let (proxy, store) = troubled(Duration::from_secs(20)).await;
    let record = new_record(&"7".into());
    proxy.trouble("Commit", Fate::Refused(ABORTED), 4, 0);
    store.create(&login(&record)).await.expect("the fifth succeeds");
    let methods = proxy.take_methods();
    let count = |method: &str| methods.iter().filter(|seen| *seen == method).count();
    assert_eq!((count("BeginTransaction"), count("Commit"), count("Rollback")), (5, 5, 4));
    // A transaction that is aborted while it reads is tried again, too.
    proxy.trouble("Lookup", Fate::Refused(ABORTED), 2, 0);
    store.rotate(&rotation(&record)).await.expect("no error").expect("it is there");
    assert_eq!(calls(&proxy, "BeginTransaction"), 3);
    proxy.trouble("Commit", Fate::Refused(ABORTED), ALWAYS, 0);
    let error = store.create(&login(&new_record(&"7".into()))).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert_eq!(calls(&proxy, "Commit"), 20);
    // The tries end when the time of the call is up.
    let (proxy, store) = troubled(Duration::from_secs(2)).await;
    proxy.trouble("Commit", Fate::Refused(ABORTED), ALWAYS, 0);
    let begun = Instant::now();
    let error = store.create(&login(&new_record(&"7".into()))).await.unwrap_err();
    assert!([StoreErrorKind::Unavailable, StoreErrorKind::Timeout].contains(&error.kind()));
    assert!(begun.elapsed() < Duration::from_secs(8) && calls(&proxy, "Commit") < 20);
}

/// Waits until the proxy has seen a method.
async fn seen(proxy: &Proxy, method: &str) -> bool {
    for _ in 0..1_000 {
        if calls(proxy, method) > 0 {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_goes_wrong_a_transaction_is_rolled_back() {
    let (proxy, store) = troubled(Duration::from_secs(4)).await;
    let record = new_record(&"7".into());
    store.create(&login(&record)).await.expect("a login");
    for (method, fate) in [
        ("Lookup", Fate::Refused(7)),
        ("Lookup", Fate::Silent),
        ("Commit", Fate::Refused(7)),
        ("Commit", Fate::Silent),
    ] {
        proxy.take();
        proxy.trouble(method, fate, 1, 0);
        assert!(store.rotate(&rotation(&record)).await.is_err(), "{method} {fate:?}");
        assert!(seen(&proxy, "Rollback").await, "{method} {fate:?}");
        // A caller that goes away leaves nothing locked.
        proxy.trouble(method, Fate::Silent, 1, 0);
        let (store, rotation) = (store.clone(), rotation(&record));
        let gone = tokio::spawn(async move { store.rotate(&rotation).await.map(drop) });
        assert!(seen(&proxy, method).await, "{method}");
        gone.abort();
        assert!(seen(&proxy, "Rollback").await, "{method} and gone");
    }
    proxy.take();
    // A transaction that changes nothing ends, too.
    let mut other = rotation(&record);
    other.from_generation = 9;
    store.rotate(&other).await.expect("no error");
    let ended = ["BeginTransaction", "Lookup", "Lookup", "Rollback"];
    assert_eq!(proxy.take_methods(), ended);
    // A rollback that did not reach the service is made again in the background.
    proxy.trouble("Rollback", Fate::Refused(8), 1, 0);
    store.rotate(&other).await.expect("no error");
    let methods = proxy.take_methods();
    assert_eq!(methods[..4], ended);
    assert!(methods.len() > 4 || seen(&proxy, "Rollback").await);
    assert_eq!(store.load(&record.key).await.expect("no error").as_deref(), Some(&record));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_silent_is_waited_for_and_no_longer() {
    let (proxy, store) = troubled(Duration::from_secs(2)).await;
    for method in ["Lookup", "BeginTransaction", "Commit"] {
        proxy.trouble(method, Fate::Silent, ALWAYS, 0);
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
    assert!(store.by_id(&"7".into()).await.expect("it goes on").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_a_timeout_and_can_be_repeated() {
    let (proxy, store) = troubled(Duration::from_secs(5)).await;
    let record = new_record(&"7".into());
    proxy.trouble("Commit", Fate::Done(14), 1, 0);
    let error = store.create(&login(&record)).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Timeout);
    let stored = store.load(&record.key).await.expect("no error");
    assert_eq!(stored.as_deref(), Some(&record), "it was written");
    let error = store.create(&login(&record)).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Conflict, "a session is made once");
    let end = End::new(record.created, EndReason::LoggedOut, record.expires);
    proxy.trouble("Commit", Fate::Done(14), 1, 0);
    let error = store.revoke(&[record.key], &end).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Timeout);
    assert_eq!(store.revoke(&[record.key], &end).await.expect("repeated"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_calls_than_may_wait_are_refused_at_once() {
    let proxy = Proxy::start(emulator()).await;
    let builder = through(&proxy, "crowd").with_max_waiting(4);
    let store = builder.with_timeout(Duration::from_secs(5)).build().await.expect("a store");
    proxy.trouble("Lookup", Fate::Silent, ALWAYS, 0);
    proxy.take();
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.by_id(&"7".into()).await.map(drop) })
        })
        .collect();
    let mut under_way = 0;
    while under_way < 4 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        under_way += calls(&proxy, "Lookup");
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
async fn a_transaction_is_rolled_back_where_there_is_no_room_for_calls() {
    let proxy = Proxy::start(emulator()).await;
    let builder = through(&proxy, "room").with_max_waiting(1);
    let store = builder.with_timeout(Duration::from_secs(3)).build().await.expect("a store");
    proxy.take();
    // One call is in progress and gets no response. Its transaction has to be rolled back although
    // there is no room for calls.
    proxy.trouble("Lookup", Fate::Silent, 1, 0);
    let record = new_record(&"7".into());
    let store_of_other = store.clone();
    let other = tokio::spawn(async move { store_of_other.create(&login(&record)).await.map(drop) });
    while calls(&proxy, "Lookup") == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    proxy.trouble("Lookup", Fate::Silent, 1, 0);
    // With one thread, this is the order: the transaction is dropped, this call takes the room, and
    // the rollback follows.
    other.abort();
    let waiting = tokio::spawn(async move { store.by_id(&"7".into()).await.map(drop) });
    assert!(seen(&proxy, "Rollback").await);
    let error = waiting.await.expect("no panic").unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Timeout, "it had the room");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_visitor_gets_a_503_and_keeps_the_cookies() {
    let (proxy, store) = troubled(Duration::from_secs(4)).await;
    let site = load::site(Arc::new(store)).await;
    let mut browser = Browser::new(Http::to(site.address));
    assert_eq!(browser.get("/login?user=ada").await.status, StatusCode::OK);
    for fate in [Fate::Refused(14), Fate::Refused(7), Fate::Refused(8), Fate::Silent] {
        proxy.trouble("Lookup", fate, ALWAYS, 0);
        let response = browser.get("/secret").await;
        assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE, "{fate:?}");
        assert!(response.headers.contains_key(header::RETRY_AFTER), "{fate:?}");
        assert!(!response.headers.contains_key(header::SET_COOKIE), "{fate:?}");
        proxy.heal();
        assert_eq!(browser.get("/secret").await.text(), "ada", "{fate:?}");
    }
}
