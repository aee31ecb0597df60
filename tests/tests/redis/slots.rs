//! Which slot and which server a command goes to.

use std::time::Duration;

use tower_keep_core::{
    Account, LoginStore, SessionStore, UserDirectory, UserId, UserLookup, UserStore,
};
use tower_keep_redis::RedisStore;
use tower_keep_testkit::contract;
use xtask::servers::{Kind, Server};

use crate::{ask, begin, end, env, error_text, open_with_timeout, prefix};

/// Returns the ports of a cluster's masters.
fn ports(url: &str) -> Vec<u16> {
    let first = url.rsplit_once('@').and_then(|(_, hosts)| hosts.split(',').next());
    let port = first.and_then(|host| host.rsplit_once(':')?.1.parse().ok()).expect("a port");
    let slots = ask(port, "CLUSTER SLOTS");
    let mut lines = slots.lines().peekable();
    let mut masters = Vec::new();
    // First and last slot, then host, port and id of the master, and of each replica.
    while let Some(line) = lines.next() {
        if line == "127.0.0.1" && masters.len() < 3 {
            let port: u16 = lines.next().and_then(|port| port.parse().ok()).expect("a port");
            masters.push(port);
            // Skip its replica.
            while lines.peek().is_some_and(|line| line.parse::<u16>().is_err() || line.len() > 5) {
                if lines.next() == Some("127.0.0.1") {
                    lines.next();
                }
            }
        }
    }
    masters
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moves_is_followed() {
    let mut cluster = Server::start(Kind::RedisCluster).expect("a cluster");
    let store =
        open_with_timeout(|| RedisStore::builder(cluster.url()), Duration::from_secs(5)).await;
    let mut kept = Vec::new();
    for id in 0..60_u64 {
        store.insert(&Account::new(id, format!("user{id}"), "")).await.expect("new");
        kept.push(begin(&store, &id.to_string()).await);
    }
    let from = cluster.port();
    let to = cluster.members()[0].port();
    let (from_id, to_id) = (ask(from, "CLUSTER MYID"), ask(to, "CLUSTER MYID"));
    let slot = |key: &str| -> u16 {
        ask(from, &format!("CLUSTER KEYSLOT {key}")).parse().expect("a slot")
    };
    // A user whose slot is on the first node.
    let of_first = |id: &u64| slot(&format!("{{{id}}}")) < 16_384 / 3;
    let id = (0..60_u64).find(of_first).expect("some user");
    let moving = slot(&format!("{{{id}}}"));
    let record = &kept[id as usize];
    let stays = begin(&store, &id.to_string()).await;
    let is_whole = async |when: &str| {
        let user = UserId::from(id);
        let found = store.load_login(&stays.key, Some(&user)).await;
        let found = found.unwrap_or_else(|error| panic!("{when}: {}", error_text(&error)));
        let found = found.unwrap_or_else(|| panic!("{when}: the record is gone"));
        assert!(found.user.is_some(), "{when}: the user is gone");
        let found = store.by_id(&user).await.expect(when);
        assert!(found.is_some(), "{when}: the user is gone");
        let listed = store.list(&user, record.created, 10).await.expect(when);
        assert!(listed.iter().any(|listed| listed.key == stays.key), "{when}: {listed:?}");
    };
    is_whole("before").await;
    assert_eq!(ask(to, &format!("CLUSTER SETSLOT {moving} IMPORTING {from_id}")), "OK");
    assert_eq!(ask(from, &format!("CLUSTER SETSLOT {moving} MIGRATING {to_id}")), "OK");
    is_whole("nothing has moved yet").await;
    let keys = ask(from, &format!("CLUSTER GETKEYSINSLOT {moving} 100"));
    let keys: Vec<&str> = keys.lines().collect();
    assert!(keys.len() >= 3, "{keys:?}");
    let migrate = |key: &str| {
        let words = format!("MIGRATE 127.0.0.1 {to} {key} 0 4000 AUTH secret");
        assert!(["OK", "NOKEY"].contains(&ask(from, &words).as_str()), "{key}");
    };
    // The user's list is on the new node and their session on the old one. A read finds both.
    let (list, rest): (Vec<_>, Vec<_>) = keys.iter().partition(|key| key.ends_with(":live"));
    assert_eq!(list.len(), 1);
    migrate(list[0]);
    is_whole("half has moved").await;
    // A write waits until all its keys are on one node.
    let other = begin(&store, &format!("{id}-elsewhere")).await;
    let (waiting, how) = (store.clone(), end(record));
    let keys = [record.key, other.key];
    let revoke = tokio::spawn(async move { waiting.revoke(&keys, &how).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!revoke.is_finished());
    rest.iter().for_each(|key| migrate(key));
    assert_eq!(revoke.await.expect("no panic").expect("it was asked again"), 2);
    assert_eq!(store.list(&id.into(), record.created, 10).await.expect("no error").len(), 1);
    is_whole("all has moved, and the slot not yet").await;
    for port in [to, from] {
        assert_eq!(ask(port, &format!("CLUSTER SETSLOT {moving} NODE {to_id}")), "OK");
    }
    is_whole("the slot has moved").await;
    begin(&store, &id.to_string()).await;
    assert_eq!(store.revoke(&[stays.key], &end(record)).await.expect("no error"), 1);
    assert_eq!(store.list(&id.into(), record.created, 10).await.expect("no error").len(), 1);
}

#[tokio::test]
async fn keys_are_in_the_slots_where_the_store_looks() {
    let url = env("REDIS_CLUSTER_URL");
    assert_eq!(ports(&url).len(), 3);
    let store = RedisStore::builder(&url).with_key_prefix(prefix()).build().await.expect("a store");
    for odd in ["", "{", "}", "{}", "}{", "{a}b", "a}b{c}", "%", "%7D", "佐藤", "a b"] {
        let (id, login) = (format!("{odd}id"), format!("{odd}login"));
        store.insert(&Account::new(id.as_str(), login.as_str(), "")).await.expect("new");
        assert!(store.by_login_name(&login).await.expect("no error").is_some(), "{odd:?}");
        let record = begin(&store, &id).await;
        let user = UserId::from(id);
        let found = store.load_login(&record.key, Some(&user)).await.expect("no error");
        assert!(found.expect("the record").user.is_some(), "{odd:?}");
        store.revoke_all(&user, None, &end(&record)).await.expect("no error");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_answer_where_they_may_and_the_master_where_they_cannot() {
    for variable in ["REDIS_SENTINEL_URL", "REDIS_CLUSTER_URL"] {
        let builder = RedisStore::builder(env(variable)).with_key_prefix(prefix());
        let store = builder.with_reads_from_replicas().build().await.expect("a store");
        for id in 0..50_u64 {
            let account = Account::new(id, format!("user{id}"), "");
            store.insert(&account).await.expect("new");
            assert!(store.by_id(account.id()).await.expect("no error").is_some(), "{variable}");
            let record = begin(&store, &id.to_string()).await;
            // This is sooner than any replica can have the keys.
            for user_hint in [None, Some(account.id())] {
                let found = store.load_login(&record.key, user_hint).await.expect("no error");
                assert!(found.expect("a record").user.is_some(), "{variable}");
            }
        }
        contract::users::run_all(|| async { store.clone() }).await;
    }
}
