//! The slots of keys, and the servers that commands are sent to.

use std::time::Duration;

use tower_keep_core::{
    Account, LoginStore, SessionStore, UserDirectory, UserId, UserLookup, UserStore,
};
use tower_keep_redis::RedisStore;
use tower_keep_testkit::contract;
use xtask::servers::{Kind, Server};

use crate::{end, env_variable, error_text, log_in, open_with_timeout, run_command, unused_prefix};

/// Returns the ports of a cluster's masters.
fn master_ports(url: &str) -> Vec<u16> {
    let first = url.rsplit_once('@').and_then(|(_, hosts)| hosts.split(',').next());
    let port = first.and_then(|host| host.rsplit_once(':')?.1.parse().ok()).expect("a port");
    let slots = run_command(port, "CLUSTER SLOTS");
    let mut lines = slots.lines().peekable();
    let mut masters = Vec::new();
    // The reply is one value a line. For each range of slots: the first and the last slot, and then
    // the host, the port and the id of the master and of each replica.
    while let Some(line) = lines.next() {
        if line == "127.0.0.1" && masters.len() < 3 {
            let port: u16 = lines.next().and_then(|port| port.parse().ok()).expect("a port");
            masters.push(port);
            // Skip the master's replica.
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
async fn a_user_can_be_read_and_written_while_their_slot_moves() {
    let mut cluster = Server::start(Kind::RedisCluster).expect("a cluster");
    let store =
        open_with_timeout(|| RedisStore::builder(cluster.url()), Duration::from_secs(5)).await;
    let mut records = Vec::new();
    for id in 0..60_u64 {
        store.insert(&Account::new(id, format!("user{id}"), "")).await.expect("new");
        records.push(log_in(&store, &id.to_string()).await);
    }
    let from = cluster.port();
    let to = cluster.members()[0].port();
    let (from_id, to_id) = (run_command(from, "CLUSTER MYID"), run_command(to, "CLUSTER MYID"));
    let slot = |key: &str| -> u16 {
        run_command(from, &format!("CLUSTER KEYSLOT {key}")).parse().expect("a slot")
    };
    // A user whose slot is on the first node.
    let is_on_first = |id: &u64| slot(&format!("{{{id}}}")) < 16_384 / 3;
    let id = (0..60_u64).find(is_on_first).expect("some user");
    let moving = slot(&format!("{{{id}}}"));
    let record = &records[id as usize];
    let second = log_in(&store, &id.to_string()).await;
    let check_reads = async |when: &str| {
        let user = UserId::from(id);
        let found = store.load_login(&second.key, Some(&user)).await;
        let found = found.unwrap_or_else(|error| panic!("{when}: {}", error_text(&error)));
        let found = found.unwrap_or_else(|| panic!("{when}: the record is gone"));
        assert!(found.user.is_some(), "{when}: the user is gone");
        let found = store.by_id(&user).await.expect(when);
        assert!(found.is_some(), "{when}: the user is gone");
        let listed = store.list(&user, record.created, 10).await.expect(when);
        assert!(listed.iter().any(|listed| listed.key == second.key), "{when}: {listed:?}");
    };
    check_reads("before").await;
    assert_eq!(run_command(to, &format!("CLUSTER SETSLOT {moving} IMPORTING {from_id}")), "OK");
    assert_eq!(run_command(from, &format!("CLUSTER SETSLOT {moving} MIGRATING {to_id}")), "OK");
    check_reads("nothing has moved yet").await;
    let keys = run_command(from, &format!("CLUSTER GETKEYSINSLOT {moving} 100"));
    let keys: Vec<&str> = keys.lines().collect();
    assert!(keys.len() >= 3, "{keys:?}");
    let migrate = |key: &str| {
        let words = format!("MIGRATE 127.0.0.1 {to} {key} 0 4000 AUTH secret");
        assert!(["OK", "NOKEY"].contains(&run_command(from, &words).as_str()), "{key}");
    };
    // Move only the index of the user's sessions. Calls that read have to find the index on the new
    // node, and the records on the old node.
    let (index_keys, other_keys): (Vec<_>, Vec<_>) =
        keys.iter().partition(|key| key.ends_with(":live"));
    assert_eq!(index_keys.len(), 1);
    migrate(index_keys[0]);
    check_reads("only the index has moved").await;
    // End a session of this user and a session of another user. The call waits until all keys of
    // this user are on one node.
    let record_of_other_user = log_in(&store, &format!("{id}-other")).await;
    let (store_of_task, end_of_both) = (store.clone(), end(record));
    let session_keys = [record.key, record_of_other_user.key];
    let revoke =
        tokio::spawn(async move { store_of_task.revoke(&session_keys, &end_of_both).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!revoke.is_finished());
    other_keys.iter().for_each(|key| migrate(key));
    assert_eq!(revoke.await.expect("no panic").expect("no error"), 2);
    assert_eq!(store.list(&id.into(), record.created, 10).await.expect("no error").len(), 1);
    check_reads("all keys have moved, but the slot has not").await;
    for port in [to, from] {
        assert_eq!(run_command(port, &format!("CLUSTER SETSLOT {moving} NODE {to_id}")), "OK");
    }
    check_reads("the slot has moved").await;
    log_in(&store, &id.to_string()).await;
    assert_eq!(store.revoke(&[second.key], &end(record)).await.expect("no error"), 1);
    assert_eq!(store.list(&id.into(), record.created, 10).await.expect("no error").len(), 1);
}

#[tokio::test]
async fn the_store_computes_the_same_slots_as_the_cluster() {
    let url = env_variable("REDIS_CLUSTER_URL");
    assert_eq!(master_ports(&url).len(), 3);
    let store =
        RedisStore::builder(&url).with_key_prefix(unused_prefix()).build().await.expect("a store");
    for odd in ["", "{", "}", "{}", "}{", "{a}b", "a}b{c}", "%", "%7D", "佐藤", "a b"] {
        let (id, login_name) = (format!("{odd}id"), format!("{odd}login"));
        store.insert(&Account::new(id.as_str(), login_name.as_str(), "")).await.expect("new");
        assert!(store.by_login_name(&login_name).await.expect("no error").is_some(), "{odd:?}");
        let record = log_in(&store, &id).await;
        let user = UserId::from(id);
        let found = store.load_login(&record.key, Some(&user)).await.expect("no error");
        assert!(found.expect("the record").user.is_some(), "{odd:?}");
        store.revoke_all(&user, None, &end(&record)).await.expect("no error");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_serve_reads_and_the_master_serves_keys_that_a_replica_lacks() {
    for variable in ["REDIS_SENTINEL_URL", "REDIS_CLUSTER_URL"] {
        let builder = RedisStore::builder(env_variable(variable)).with_key_prefix(unused_prefix());
        let store = builder.with_reads_from_replicas().build().await.expect("a store");
        for id in 0..50_u64 {
            let account = Account::new(id, format!("user{id}"), "");
            store.insert(&account).await.expect("new");
            assert!(store.by_id(account.id()).await.expect("no error").is_some(), "{variable}");
            let record = log_in(&store, &id.to_string()).await;
            // The replicas may not have these keys yet.
            for user_hint in [None, Some(account.id())] {
                let found = store.load_login(&record.key, user_hint).await.expect("no error");
                assert!(found.expect("a record").user.is_some(), "{variable}");
            }
        }
        contract::users::run_all(|| async { store.clone() }).await;
    }
}
