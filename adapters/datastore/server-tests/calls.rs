//! Which calls of Datastore a request to a site causes, and which ones a method of the store
//! causes.

use std::sync::Arc;

use http::StatusCode;
use tower_keep_core::{
    Account, End, EndReason, LoginStore, Rotation, SeenMark, SessionStore, Timestamp, Touch,
    UserDirectory, UserLookup,
};
use tower_keep_datastore::{DatastoreStore, UserKeys};
use tower_keep_testkit::contract::sessions::new_record;
use tower_keep_tests::{Browser, Http, load};

use crate::proxy::{Proxy, RecordedCall};
use crate::{builder_through, emulator_url, login};

/// Returns a proxy that records calls, and a store with one user behind the proxy.
async fn store_behind_proxy() -> (Proxy, DatastoreStore) {
    let proxy = Proxy::start(emulator_url()).await;
    let store = builder_through(&proxy, "calls").build().await.expect("a store");
    store.insert(&Account::new(7, "ada", "hash")).await.expect("a new account");
    proxy.take_calls();
    (proxy, store)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authenticated_request_makes_one_call_and_a_login_makes_one_commit() {
    let (proxy, store) = store_behind_proxy().await;
    let site = load::site(Arc::new(store)).await;
    let mut browser = Browser::new(Http::to(site.address));
    assert_eq!(browser.get("/secret?user=ada").await.status, StatusCode::UNAUTHORIZED);
    assert!(proxy.take_calls().is_empty(), "an anonymous request makes no call");

    assert_eq!(browser.get("/login?user=ada").await.status, StatusCode::OK);
    // The handler queries the user, and the layer makes the other calls to write the login.
    let login_calls = ["RunQuery", "BeginTransaction", "Lookup", "Commit"];
    assert_eq!(proxy.take_methods(), login_calls);

    for _ in 0..3 {
        assert_eq!(browser.get("/secret?user=ada").await.text(), "ada");
        assert_eq!(proxy.take_methods(), ["Lookup"]);
    }

    assert_eq!(browser.get("/login?user=ada").await.status, StatusCode::OK);
    let again = proxy.take_methods();
    assert_eq!(again.iter().filter(|method| *method == "Commit").count(), 1, "{again:?}");

    assert_eq!(browser.get("/logout").await.status, StatusCode::OK);
    let logout_calls = ["Lookup", "BeginTransaction", "Lookup", "Lookup", "Commit"];
    assert_eq!(proxy.take_methods(), logout_calls);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_login_looks_up_the_record_and_queries_the_user_by_a_property() {
    let proxy = Proxy::start(emulator_url()).await;
    let keys = UserKeys::TextProperty("uid".to_owned());
    let store =
        builder_through(&proxy, "calls").with_user_keys(keys).build().await.expect("a store");
    let account = Account::new("u-7", "ada", "hash");
    store.insert(&account).await.expect("a new account");
    let record = new_record(account.id());
    store.create(&login(&record)).await.expect("a login");
    proxy.take_calls();
    let found = store.load_login(&record.key, Some(account.id())).await.expect("no error");
    assert_eq!(found.and_then(|found| found.user).as_deref(), Some(&account));
    let mut methods = proxy.take_methods();
    methods.sort();
    assert_eq!(methods, ["Lookup", "RunQuery"]);
    // The first query finds the user by login name. The second query checks that the user's id
    // finds the same user.
    assert_eq!(store.by_login_name("ada").await.expect("no error").as_deref(), Some(&account));
    assert_eq!(proxy.take_methods(), ["RunQuery", "RunQuery"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_touches_take_two_transactions() {
    let (proxy, store) = store_behind_proxy().await;
    let mut touches = Vec::new();
    for _ in 0..100 {
        let record = new_record(&"7".into());
        store.create(&login(&record)).await.expect("a login");
        touches.push(Touch::new(record.key, record.created.plus(60), record.expires));
    }
    proxy.take_calls();
    store.touch(&touches).await.expect("no error");
    let mut methods = proxy.take_methods();
    methods.sort();
    methods.dedup_by(|one, other| one == other && one != "Commit");
    assert_eq!(methods, ["BeginTransaction", "Commit", "Commit", "Lookup"]);
    for touch in &touches {
        let record = store.load(&touch.key).await.expect("no error").expect("the record");
        assert_eq!(record.last_seen, touch.at);
    }
}

/// If no upkeep is running, a browser that loads one page with several requests causes such equal
/// calls of the store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_touches_or_seen_marks_at_the_same_time_make_one_commit() {
    let (proxy, store) = store_behind_proxy().await;
    let record = new_record(&"7".into());
    store.create(&login(&record)).await.expect("a login");
    let (key, at, expires) = (record.key, record.created.plus(60), record.expires);
    let touch = Touch::new(key, at, expires);
    let rotation = Rotation::new(key, 0, record.created.plus(10), expires);
    store.rotate(&rotation).await.expect("the next generation");
    let mark = SeenMark::new(key, 1, at);
    for call in ["touch", "mark_seen"] {
        proxy.take_calls();
        let tasks: Vec<_> = (0..10)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move {
                    match call {
                        "touch" => store.touch(&[touch]).await,
                        _ => store.mark_seen(&[mark]).await,
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("no panic").expect("no error");
        }
        let methods = proxy.take_methods();
        let commits = methods.iter().filter(|method| *method == "Commit").count();
        assert_eq!(commits, 1, "{call}: {methods:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_has_a_routing_header_and_a_time_out() {
    let proxy = Proxy::start(emulator_url()).await;
    for (url, routing) in [
        ("datastore://a-b", "project_id=a%2Db"),
        (
            "datastore://example.com:a/ns?database=users",
            "project_id=example%2Ecom%3Aa&database_id=users",
        ),
    ] {
        let builder = DatastoreStore::builder(url).with_emulator(proxy.address.to_string());
        let store = builder.build().await.expect("a store");
        store.by_login_name("ada").await.expect("no error");
        store.new_user_id().await.expect("an id");
        store.create(&login(&new_record(&"7".into()))).await.expect("a login");
        store.revoke_all(&"7".into(), None, &end()).await.expect("no error");
        store.rotate(&rotation_of_unknown_session()).await.expect("no error");
        let calls = proxy.take_calls();
        for method in
            ["Lookup", "RunQuery", "BeginTransaction", "Commit", "Rollback", "AllocateIds"]
        {
            let is_of_method = |call: &&RecordedCall| call.method == method;
            assert!(calls.iter().any(|call| is_of_method(&call)), "{method}");
            for call in calls.iter().filter(is_of_method) {
                assert_eq!(call.routing.as_deref(), Some(routing), "{method}");
                // The header's time-out is in microseconds: at most the 5 s of the store's call and
                // half a second more.
                let timeout = call.timeout.as_deref().and_then(|text| text.strip_suffix('u'));
                let timeout = timeout.and_then(|number| number.parse::<u64>().ok());
                assert!(timeout.is_some_and(|micros| micros <= 5_500_000), "{method}: {call:?}");
            }
        }
    }
}

fn rotation_of_unknown_session() -> Rotation {
    let record = new_record(&"8".into());
    Rotation::new(record.key, 0, record.created, record.expires)
}

fn end() -> End {
    let at = Timestamp::from_secs(1_800_000_000);
    End::new(at, EndReason::Revoked, at)
}
