//! Which calls a request makes.

use std::sync::Arc;

use http::StatusCode;
use tower_keep_core::{
    Account, End, EndReason, LoginStore, Rotation, SeenMark, SessionStore, Timestamp, Touch,
    UserDirectory, UserLookup,
};
use tower_keep_datastore::{DatastoreStore, UserKeys};
use tower_keep_testkit::contract::sessions::new_record;
use tower_keep_tests::proxy::{Proxy, Seen};
use tower_keep_tests::{Browser, Http, load};

use crate::{emulator, login, through};

async fn counted() -> (Proxy, DatastoreStore) {
    let proxy = Proxy::start(emulator()).await;
    let store = through(&proxy, "calls").build().await.expect("a store");
    store.insert(&Account::new(7, "ada", "hash")).await.expect("a new account");
    proxy.take();
    (proxy, store)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authenticated_request_is_one_call_and_a_login_one_commit() {
    let (proxy, store) = counted().await;
    let site = load::site(Arc::new(store)).await;
    let mut browser = Browser::new(Http::to(site.address));
    assert_eq!(browser.get("/secret?user=ada").await.status, StatusCode::UNAUTHORIZED);
    assert!(proxy.take().is_empty(), "a stranger asks for nothing");

    assert_eq!(browser.get("/login?user=ada").await.status, StatusCode::OK);
    // The handler finds the user; the layer writes the login.
    let login = ["RunQuery", "BeginTransaction", "Lookup", "Commit"];
    assert_eq!(proxy.take_methods(), login);

    for _ in 0..3 {
        assert_eq!(browser.get("/secret?user=ada").await.text(), "ada");
        assert_eq!(proxy.take_methods(), ["Lookup"]);
    }

    assert_eq!(browser.get("/login?user=ada").await.status, StatusCode::OK);
    let again = proxy.take_methods();
    assert_eq!(again.iter().filter(|method| *method == "Commit").count(), 1, "{again:?}");

    assert_eq!(browser.get("/logout").await.status, StatusCode::OK);
    let logout = ["Lookup", "BeginTransaction", "Lookup", "Lookup", "Commit"];
    assert_eq!(proxy.take_methods(), logout);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_is_found_by_a_property_is_asked_for_beside_the_record() {
    let proxy = Proxy::start(emulator()).await;
    let keys = UserKeys::TextProperty("uid".to_owned());
    let store = through(&proxy, "calls").with_user_keys(keys).build().await.expect("a store");
    let account = Account::new("u-7", "ada", "hash");
    store.insert(&account).await.expect("a new account");
    let record = new_record(account.id());
    store.create(&login(&record)).await.expect("a login");
    proxy.take();
    let found = store.load_login(&record.key, Some(account.id())).await.expect("no error");
    assert_eq!(found.and_then(|found| found.user).as_deref(), Some(&account));
    let mut methods = proxy.take_methods();
    methods.sort();
    assert_eq!(methods, ["Lookup", "RunQuery"]);
    // One query is for the name, the other checks whether the id finds the same user.
    assert_eq!(store.by_login_name("ada").await.expect("no error").as_deref(), Some(&account));
    assert_eq!(proxy.take_methods(), ["RunQuery", "RunQuery"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_touches_are_two_transactions() {
    let (proxy, store) = counted().await;
    let mut touches = Vec::new();
    for _ in 0..100 {
        let record = new_record(&"7".into());
        store.create(&login(&record)).await.expect("a login");
        touches.push(Touch::new(record.key, record.created.plus(60), record.expires));
    }
    proxy.take();
    store.touch(&touches).await.expect("used");
    let mut methods = proxy.take_methods();
    methods.sort();
    methods.dedup_by(|one, other| one == other && one != "Commit");
    assert_eq!(methods, ["BeginTransaction", "Commit", "Commit", "Lookup"]);
    for touch in &touches {
        let record = store.load(&touch.key).await.expect("no error").expect("it is there");
        assert_eq!(record.last_seen, touch.at);
    }
}

/// As the requests of one page do, if no upkeep is running.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_touch_or_mark_of_many_requests_is_one_commit() {
    let (proxy, store) = counted().await;
    let record = new_record(&"7".into());
    store.create(&login(&record)).await.expect("a login");
    let (key, at, expires) = (record.key, record.created.plus(60), record.expires);
    let touch = Touch::new(key, at, expires);
    let rotation = Rotation::new(key, 0, record.created.plus(10), expires);
    store.rotate(&rotation).await.expect("the next generation");
    let mark = SeenMark::new(key, 1, at);
    for what in ["touch", "seen"] {
        proxy.take();
        let calls: Vec<_> = (0..10)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move {
                    match what {
                        "touch" => store.touch(&[touch]).await,
                        _ => store.mark_seen(&[mark]).await,
                    }
                })
            })
            .collect();
        for call in calls {
            call.await.expect("no panic").expect("no error");
        }
        let methods = proxy.take_methods();
        let commits = methods.iter().filter(|method| *method == "Commit").count();
        assert_eq!(commits, 1, "{what}: {methods:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_says_where_it_belongs_and_how_long_it_may_take() {
    let proxy = Proxy::start(emulator()).await;
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
        store.rotate(&rotation()).await.expect("no error");
        let seen = proxy.take();
        for method in
            ["Lookup", "RunQuery", "BeginTransaction", "Commit", "Rollback", "AllocateIds"]
        {
            let is_it = |seen: &&Seen| seen.method == method;
            assert!(seen.iter().any(|seen| is_it(&seen)), "{method}");
            for seen in seen.iter().filter(is_it) {
                assert_eq!(seen.routing.as_deref(), Some(routing), "{method}");
                // In microseconds. The call has 5 s, and the service half a second more.
                let timeout = seen.timeout.as_deref().and_then(|text| text.strip_suffix('u'));
                let timeout = timeout.and_then(|number| number.parse::<u64>().ok());
                assert!(timeout.is_some_and(|micros| micros <= 5_500_000), "{method}: {seen:?}");
            }
        }
    }
}

/// A rotation of a session that does not exist.
fn rotation() -> Rotation {
    let record = new_record(&"8".into());
    Rotation::new(record.key, 0, record.created, record.expires)
}

fn end() -> End {
    let at = Timestamp::from_secs(1_800_000_000);
    End::new(at, EndReason::Revoked, at)
}
