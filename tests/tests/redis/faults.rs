//! Servers that are down, hang, refuse commands or lose data.

use std::time::{Duration, Instant};

use tower_keep_core::{
    Account, LoginStore, SessionRecord, SessionStore, StoreError, StoreErrorKind, UserDirectory,
    UserId, UserLookup, UserStore,
};
use tower_keep_redis::RedisStore;
use tower_keep_testkit::contract;
use tower_keep_testkit::contract::sessions::new_record;
use xtask::servers::{Kind, Server};

use crate::load::SECOND;
use crate::{
    ask, begin, end, env, error_text, login, open, open_with_timeout, prefix, rotation, server,
};
use tower_keep_testkit::contract::users::replace;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_died_while_idle_are_not_noticed() {
    let mut server = server();
    let store = open(&server.url()).await;
    let record = begin(&store, "1").await;
    for round in 0..3 {
        server.kill();
        server.start_again().expect("it comes back");
        match round {
            // The restarted server knows no scripts any more, either.
            0 => drop(begin(&store, "1").await),
            1 => assert!(store.load(&record.key).await.expect("asked again").is_some()),
            _ => assert_eq!(store.revoke(&[record.key], &end(&record)).await.expect("again"), 1),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_back_empty_knows_nobody_and_takes_new_logins() {
    let mut server = Server::start_redis(&["--appendonly", "no"]).expect("a server");
    let store = open(&server.url()).await;
    store.insert(&Account::new(1, "ada", "")).await.expect("new");
    let record = begin(&store, "1").await;
    server.kill();
    server.start_again().expect("it comes back");
    let user_hint = UserId::from("1");
    assert!(store.load_login(&record.key, Some(&user_hint)).await.expect("no error").is_none());
    assert!(store.by_login_name("ada").await.expect("no error").is_none());
    contract::run_all(|| async { store.clone() }).await;
}

/// Checks that every call that a request can lead to fails with one of these kinds, in time.
async fn all_fail(store: &RedisStore, record: &SessionRecord, kinds: &[StoreErrorKind]) {
    let user = record.user.clone();
    let other = new_record(&user);
    let errors = [
        store.load_login(&record.key, Some(&user)).await.map(drop),
        store.load(&record.key).await.map(drop),
        store.by_login_name("ada").await.map(drop),
        store.by_ids(std::slice::from_ref(&user)).await.map(drop),
        store.list(&user, record.created, 10).await.map(drop),
    ];
    for result in errors.into_iter().chain(writes(store, record, &other).await) {
        let error = result.expect_err("it can't");
        assert!(kinds.contains(&error.kind()), "{}", error_text(&error));
    }
}

/// Returns the results of the calls that write.
async fn writes(
    store: &RedisStore,
    record: &SessionRecord,
    other: &SessionRecord,
) -> [Result<(), StoreError>; 4] {
    [
        store.create(&login(other)).await.map(drop),
        store.rotate(&rotation(record)).await.map(drop),
        store.revoke(&[record.key], &end(record)).await.map(drop),
        store.insert(&Account::new(7, "seven", "")).await,
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_gone_is_unavailable_at_once() {
    let mut server = server();
    let store = open(&server.url()).await;
    let record = begin(&store, "1").await;
    server.kill();
    let begun = Instant::now();
    all_fail(&store, &record, &[StoreErrorKind::Unavailable]).await;
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    server.start_again().expect("it comes back");
    let patience = Instant::now() + Duration::from_secs(20);
    while store.load(&record.key).await.is_err() {
        assert!(Instant::now() < patience, "it recovers by itself");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    begin(&store, "1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_is_given_up_in_time_and_no_queue_grows() {
    let server = server();
    let timeout = Duration::from_secs(4);
    let builder = || RedisStore::builder(server.url()).with_max_waiting(10);
    let store = open_with_timeout(builder, timeout).await;
    let record = begin(&store, "1").await;
    server.suspend();
    let begun = Instant::now();
    let loads: Vec<_> = (0..500)
        .map(|_| {
            let (store, key) = (store.clone(), record.key);
            tokio::spawn(async move {
                let begun = Instant::now();
                let error = store.load(&key).await.expect_err("it hangs");
                (error.kind(), begun.elapsed())
            })
        })
        .collect();
    let (mut timed_out, mut turned_away) = (0, 0);
    for load in loads {
        match load.await.expect("no panic") {
            (StoreErrorKind::Timeout, _) => timed_out += 1,
            (StoreErrorKind::Unavailable, took) if took < timeout / 2 => turned_away += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((timed_out, turned_away), (10, 490));
    all_fail(&store, &record, &[StoreErrorKind::Timeout, StoreErrorKind::Unavailable]).await;
    assert!(begun.elapsed() < timeout * 15, "{:?}", begun.elapsed());
    server.resume();
    let patience = Instant::now() + Duration::from_secs(20);
    while store.load(&record.key).await.is_err() {
        assert!(Instant::now() < patience, "it recovers by itself");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Writes that timed out may have been done by now. New writes succeed.
    begin(&store, "1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_loads_its_data_is_unavailable_until_it_has() {
    let mut server = Server::start_redis(&["--appendonly", "no"]).expect("a server");
    let store = open(&server.url()).await;
    let mut records = Vec::new();
    for _ in 0..100 {
        records.push(begin(&store, "1").await);
    }
    assert_eq!(ask(server.port(), "SAVE"), "OK");
    server.kill();
    server.add_arguments(&[
        "--key-load-delay",
        "10000",
        "--loading-process-events-interval-bytes",
        "1024",
    ]);
    server.spawn().expect("it starts");
    let (mut loading, begun) = (0, Instant::now());
    loop {
        match store.load(&records[0].key).await {
            Ok(found) => break assert_eq!(found.as_deref(), Some(&records[0])),
            Err(error) => {
                assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{}", error_text(&error));
                loading += usize::from(error_text(&error).contains("LOADING"));
            }
        }
        assert!(begun.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(loading > 0, "it was seen loading");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_only_reads_is_unavailable_for_logins() {
    let (server, other) = (server(), server());
    let store = open(&server.url()).await;
    let record = begin(&store, "1").await;
    // The server can't replicate from the other one, so it keeps its data.
    assert_eq!(ask(server.port(), "CONFIG SET masterauth wrong"), "OK");
    assert_eq!(ask(server.port(), &format!("REPLICAOF 127.0.0.1 {}", other.port())), "OK");
    for result in writes(&store, &record, &new_record(&"1".into())).await {
        let error = result.expect_err("it only reads");
        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{}", error_text(&error));
        assert!(error_text(&error).contains("READONLY"), "{}", error_text(&error));
    }
    let found = store.load(&record.key).await.expect("it still reads");
    assert_eq!(found.as_deref(), Some(&record));
    assert_eq!(ask(server.port(), "REPLICAOF NO ONE"), "OK");
    begin(&store, "1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_memory_is_unavailable_for_logins_and_loses_nothing() {
    let server = server();
    let store = open(&server.url()).await;
    store.insert(&Account::new(1, "ada", "")).await.expect("new");
    let record = begin(&store, "1").await;
    assert_eq!(ask(server.port(), "CONFIG SET maxmemory 1000"), "OK");
    let other = new_record(&"1".into());
    let keys = ask(server.port(), "KEYS *");
    for result in writes(&store, &record, &other).await {
        let error = result.expect_err("there is no memory");
        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{}", error_text(&error));
        assert!(error_text(&error).contains("OOM"), "{}", error_text(&error));
    }
    let sorted = |keys: String| {
        let mut keys: Vec<_> = keys.lines().map(str::to_owned).collect();
        keys.sort();
        keys
    };
    assert_eq!(sorted(ask(server.port(), "KEYS *")), sorted(keys), "nothing half-written");
    let user_hint = UserId::from("1");
    let found = store.load_login(&record.key, Some(&user_hint)).await.expect("it still reads");
    assert_eq!(*found.expect("a login").record, record);
    assert_eq!(ask(server.port(), "CONFIG SET maxmemory 0"), "OK");
    store.create(&login(&other)).await.expect("there is memory again");
    assert_eq!(store.revoke(&[record.key], &end(&record)).await.expect("no error"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_value_of_ours_is_corrupt_and_not_quoted() {
    let server = server();
    let store = open(&server.url()).await;
    let user = UserId::from("1");
    for write in ["LPUSH", "SET"] {
        for key in ["keep:{1}:user", "record", "keep:login:ada", "keep:{1}:epoch"] {
            // If a list is in place of an epoch, calls that read a record with it find no epoch.
            if (write, key) == ("LPUSH", "keep:{1}:epoch") {
                continue;
            }
            ask(server.port(), "FLUSHALL");
            store.insert(&Account::new(1, "ada", "")).await.expect("new");
            let record = begin(&store, "1").await;
            let name = match key {
                "record" => ask(server.port(), "KEYS keep:{1}:session:*"),
                other => other.to_owned(),
            };
            ask(server.port(), &format!("DEL {name}"));
            ask(server.port(), &format!("{write} {name} secret-of-somebody"));
            let mut results = vec![];
            if key == "keep:login:ada" {
                results.push(store.by_login_name("ada").await.map(drop));
            } else {
                results.push(store.load_login(&record.key, Some(&user)).await.map(drop));
                results.push(store.load_login(&record.key, None).await.map(drop));
            }
            if key == "keep:{1}:user" {
                results.push(store.by_id(&user).await.map(drop));
                results.push(store.by_login_name("ada").await.map(drop));
                results.push(replace(&store, &Account::new(1, "ada", "")).await.map(drop));
            }
            if key == "record" {
                results.push(store.list(&user, record.created, 10).await.map(drop));
                results.push(store.revoke(&[record.key], &end(&record)).await.map(drop));
                results.push(store.rotate(&rotation(&record)).await.map(drop));
                let all = store.revoke_all(&user, None, &end(&record)).await;
                all.expect("all end, and none is read");
            }
            if key == "keep:{1}:epoch" {
                results.push(store.create(&login(&record)).await.map(drop));
                results.push(store.list(&user, record.created, 10).await.map(drop));
                results.push(store.revoke(&[record.key], &end(&record)).await.map(drop));
                results.push(store.rotate(&rotation(&record)).await.map(drop));
                results.push(store.revoke_all(&user, None, &end(&record)).await.map(drop));
            }
            for (index, result) in results.into_iter().enumerate() {
                let error = result.expect_err(&format!("{write} {key}, call {index}, is read"));
                assert_eq!(
                    error.kind(),
                    StoreErrorKind::Corrupt,
                    "{write} {key}: {}",
                    error_text(&error)
                );
                assert!(!error_text(&error).contains("somebody"), "{}", error_text(&error));
            }
        }
    }
    // A user who can't be read can still be deleted.
    ask(server.port(), "FLUSHALL");
    ask(server.port(), "SET keep:{1}:user nonsense");
    assert!(store.delete(&user).await.expect("no error"));
    assert!(store.by_id(&user).await.expect("no error").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_waits_for_replicas_says_when_they_do_not_have_it() {
    let alone = server();
    let builder = |url: String| RedisStore::builder(url).with_replicas_to_wait_for(1);
    // Only a part of the time-out is for waiting for replicas. The rest has to suffice for
    // everything else.
    begin(&open(&alone.url()).await, "2").await;
    let store = open_with_timeout(|| builder(alone.url()), Duration::from_secs(8)).await;
    let record = new_record(&"1".into());
    let error = store.create(&login(&record)).await.expect_err("there is no replica");
    assert_eq!(error.kind(), StoreErrorKind::Timeout);
    assert!(error_text(&error).contains("0 of 1 replicas"), "{}", error_text(&error));
    for variable in ["REDIS_SENTINEL_URL", "REDIS_CLUSTER_URL"] {
        let builder = builder(env(variable)).with_timeout(Duration::from_secs(10));
        let store = builder.with_key_prefix(prefix()).build().await.expect("a store");
        contract::sessions::run_all(|| async { store.clone() }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_replica_does_not_have_is_lost_with_the_master_unless_it_was_waited_for() {
    for replicas in [0, 1] {
        let mut cluster = Server::start(Kind::RedisCluster).expect("a cluster");
        let builder = || RedisStore::builder(cluster.url()).with_replicas_to_wait_for(replicas);
        let store = open_with_timeout(builder, Duration::from_secs(2)).await;
        let slot = |id: &u64| -> u16 {
            let words = format!("CLUSTER KEYSLOT {{{id}}}");
            ask(cluster.port(), &words).parse().expect("a slot")
        };
        let id = (0..).find(|id| SECOND.contains(&usize::from(slot(id)))).expect("some user");
        let user = UserId::from(id);
        let old = begin(&store, user.as_str()).await;
        let [master, _, _, replica, _] = cluster.members() else { panic!("six nodes") };
        let offset = |server: &Server| {
            let info = ask(server.port(), "INFO replication");
            info.lines()
                .find_map(|line| line.strip_prefix("master_repl_offset:"))
                .map(str::to_owned)
        };
        while offset(master) != offset(replica) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        replica.suspend();
        // Otherwise the frozen replica's socket would accept what is sent to it in the meantime.
        assert_eq!(ask(master.port(), "CLIENT KILL TYPE replica"), "1");
        let ended = store.revoke_all(&user, None, &end(&old)).await;
        let new = new_record(&user);
        let created = store.create(&login(&new)).await;
        master.kill();
        replica.resume();
        let patience = Instant::now() + Duration::from_secs(20);
        let kept = loop {
            match store.load_login(&old.key, Some(&user)).await {
                Ok(found) => break found.expect("it was there before"),
                Err(error) => assert!(Instant::now() < patience, "{}", error_text(&error)),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        // The end of the old session and the new session are both lost.
        assert!(kept.record.ended.is_none());
        let found = store.load_login(&new.key, Some(&user)).await.expect("no error");
        assert!(found.is_none());
        match replicas {
            0 => assert!(ended.is_ok() && created.is_ok(), "and nobody was told"),
            _ => {
                for kind in [ended.map(drop), created.map(drop)] {
                    let kind = kind.expect_err("it was not confirmed").kind();
                    assert_eq!(kind, StoreErrorKind::Timeout);
                }
            }
        }
    }
}
