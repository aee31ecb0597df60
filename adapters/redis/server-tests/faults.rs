//! Servers that are down, hang, refuse commands or lose data.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tower_keep_core::{
    Account, LoginStore, SessionKey, SessionRecord, SessionStore, StoreError, StoreErrorKind,
    UserDirectory, UserId, UserLookup, UserStore,
};
use tower_keep_redis::RedisStore;
use tower_keep_testkit::contract::sessions::new_record;
use tower_keep_testkit::{FaultyStore, contract};
use tower_keep_tests::AnyStore;
use tower_keep_tests::nodes::Guesses;
use xtask::servers::{Kind, Server};

use crate::load::SLOTS_OF_SECOND_MASTER;
use crate::{
    end, env_variable, error_text, log_in, new_login, open_store, open_with_timeout, rotation,
    run_command, start_server, unused_prefix,
};
use tower_keep_testkit::contract::users::replace;

async fn wait_until_it_recovers(store: &RedisStore, key: &SessionKey) {
    let give_up_at = Instant::now() + Duration::from_secs(20);
    while store.load(key).await.is_err() {
        assert!(Instant::now() < give_up_at, "the store recovers by itself");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_call_succeeds_after_the_server_has_restarted() {
    let mut server = start_server();
    let store = open_store(&server.url()).await;
    let record = log_in(&store, "1").await;
    for round in 0..3 {
        server.kill();
        server.start_and_wait().expect("a restart");
        match round {
            // The restarted server no longer knows the scripts.
            0 => drop(log_in(&store, "1").await),
            1 => assert!(store.load(&record.key).await.expect("the store retries").is_some()),
            _ => assert_eq!(
                store.revoke(&[record.key], &end(&record)).await.expect("the store retries"),
                1
            ),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_survive_a_restart_of_redis_and_show_no_name() {
    let mut server = start_server();
    let watched = |store: RedisStore| FaultyStore::new(Arc::new(store) as Arc<dyn AnyStore>);
    let guesses = Guesses::make(watched(open_store(&server.url()).await)).await;
    server.kill();
    guesses.assert_absent_below(server.directory());
    server.start_and_wait().expect("a restart");
    guesses.assert_still_counted(watched(open_store(&server.url()).await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_restarts_empty_has_no_users_and_accepts_new_ones() {
    let mut server = Server::start_redis(&["--appendonly", "no"]).expect("a server");
    let store = open_store(&server.url()).await;
    store.insert(&Account::new(1, "ada", "")).await.expect("new");
    let record = log_in(&store, "1").await;
    server.kill();
    server.start_and_wait().expect("a restart");
    let user_hint = UserId::from("1");
    assert!(store.load_login(&record.key, Some(&user_hint)).await.expect("no error").is_none());
    assert!(store.by_login_name("ada").await.expect("no error").is_none());
    contract::run_all(|| async { store.clone() }).await;
}

/// Checks that each call fails with an error of one of these kinds.
async fn check_all_calls_fail(
    store: &RedisStore,
    record: &SessionRecord,
    kinds: &[StoreErrorKind],
) {
    let user = record.user.clone();
    let other = new_record(&user);
    let reads = [
        store.load_login(&record.key, Some(&user)).await.map(drop),
        store.load(&record.key).await.map(drop),
        store.by_login_name("ada").await.map(drop),
        store.by_ids(std::slice::from_ref(&user)).await.map(drop),
        store.list(&user, record.created, 10).await.map(drop),
    ];
    for result in reads.into_iter().chain(write_results(store, record, &other).await) {
        let error = result.expect_err("the server can't serve this call");
        assert!(kinds.contains(&error.kind()), "{}", error_text(&error));
    }
}

/// Makes calls that write, and returns their results. `other` is a record to create.
async fn write_results(
    store: &RedisStore,
    record: &SessionRecord,
    other: &SessionRecord,
) -> [Result<(), StoreError>; 4] {
    [
        store.create(&new_login(other)).await.map(drop),
        store.rotate(&rotation(record)).await.map(drop),
        store.revoke(&[record.key], &end(record)).await.map(drop),
        store.insert(&Account::new(7, "seven", "")).await,
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_fail_fast_while_the_server_is_down() {
    let mut server = start_server();
    let store = open_store(&server.url()).await;
    let record = log_in(&store, "1").await;
    server.kill();
    let begun = Instant::now();
    check_all_calls_fail(&store, &record, &[StoreErrorKind::Unavailable]).await;
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    server.start_and_wait().expect("a restart");
    wait_until_it_recovers(&store, &record.key).await;
    log_in(&store, "1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_to_a_hanging_server_time_out_and_their_number_is_limited() {
    let server = start_server();
    let timeout = Duration::from_secs(4);
    let builder = || RedisStore::builder(server.url()).with_max_waiting(10);
    let store = open_with_timeout(builder, timeout).await;
    let record = log_in(&store, "1").await;
    server.suspend();
    let begun = Instant::now();
    let loads: Vec<_> = (0..500)
        .map(|_| {
            let (store, key) = (store.clone(), record.key);
            tokio::spawn(async move {
                let begun = Instant::now();
                let error = store.load(&key).await.expect_err("the server hangs");
                (error.kind(), begun.elapsed())
            })
        })
        .collect();
    let (mut timed_out, mut refused) = (0, 0);
    for load in loads {
        match load.await.expect("no panic") {
            (StoreErrorKind::Timeout, _) => timed_out += 1,
            (StoreErrorKind::Unavailable, took) if took < timeout / 2 => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((timed_out, refused), (10, 490));
    check_all_calls_fail(&store, &record, &[StoreErrorKind::Timeout, StoreErrorKind::Unavailable])
        .await;
    assert!(begun.elapsed() < timeout * 15, "{:?}", begun.elapsed());
    server.resume();
    wait_until_it_recovers(&store, &record.key).await;
    // The writes that timed out may have been done in the meantime. New writes succeed.
    log_in(&store, "1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_unavailable_while_it_loads_its_data() {
    let mut server = Server::start_redis(&["--appendonly", "no"]).expect("a server");
    let store = open_store(&server.url()).await;
    let mut records = Vec::new();
    for _ in 0..100 {
        records.push(log_in(&store, "1").await);
    }
    assert_eq!(run_command(server.port(), "SAVE"), "OK");
    server.kill();
    server.add_arguments(&[
        "--key-load-delay",
        "10000",
        "--loading-process-events-interval-bytes",
        "1024",
    ]);
    server.spawn().expect("a started server");
    let (mut loading_errors, begun) = (0, Instant::now());
    loop {
        match store.load(&records[0].key).await {
            Ok(found) => break assert_eq!(found.as_deref(), Some(&records[0])),
            Err(error) => {
                assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{}", error_text(&error));
                loading_errors += usize::from(error_text(&error).contains("LOADING"));
            }
        }
        assert!(begun.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(loading_errors > 0, "some calls found the server loading");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_server_is_unavailable_for_writes_and_serves_reads() {
    let (server, other) = (start_server(), start_server());
    let store = open_store(&server.url()).await;
    let record = log_in(&store, "1").await;
    // Replication from the other server fails, so this server keeps its data.
    assert_eq!(run_command(server.port(), "CONFIG SET masterauth wrong"), "OK");
    assert_eq!(run_command(server.port(), &format!("REPLICAOF 127.0.0.1 {}", other.port())), "OK");
    for result in write_results(&store, &record, &new_record(&"1".into())).await {
        let error = result.expect_err("the server is read-only");
        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{}", error_text(&error));
        assert!(error_text(&error).contains("READONLY"), "{}", error_text(&error));
    }
    let found = store.load(&record.key).await.expect("the server still serves reads");
    assert_eq!(found.as_deref(), Some(&record));
    assert_eq!(run_command(server.port(), "REPLICAOF NO ONE"), "OK");
    log_in(&store, "1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_memory_refuses_whole_writes_and_serves_reads() {
    let server = start_server();
    let store = open_store(&server.url()).await;
    store.insert(&Account::new(1, "ada", "")).await.expect("new");
    let record = log_in(&store, "1").await;
    assert_eq!(run_command(server.port(), "CONFIG SET maxmemory 1000"), "OK");
    let other = new_record(&"1".into());
    let keys = run_command(server.port(), "KEYS *");
    for result in write_results(&store, &record, &other).await {
        let error = result.expect_err("there is no memory");
        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{}", error_text(&error));
        assert!(error_text(&error).contains("OOM"), "{}", error_text(&error));
    }
    let sorted = |keys: String| {
        let mut keys: Vec<_> = keys.lines().map(str::to_owned).collect();
        keys.sort();
        keys
    };
    assert_eq!(
        sorted(run_command(server.port(), "KEYS *")),
        sorted(keys),
        "no call has written a part"
    );
    let user_hint = UserId::from("1");
    let found = store
        .load_login(&record.key, Some(&user_hint))
        .await
        .expect("the server still serves reads");
    assert_eq!(*found.expect("a login").record, record);
    assert_eq!(run_command(server.port(), "CONFIG SET maxmemory 0"), "OK");
    store.create(&new_login(&other)).await.expect("there is memory again");
    assert_eq!(store.revoke(&[record.key], &end(&record)).await.expect("no error"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_the_store_has_not_written_is_corrupt_and_not_quoted() {
    let server = start_server();
    let store = open_store(&server.url()).await;
    let user = UserId::from("1");
    for command in ["LPUSH", "SET"] {
        for key in ["keep:{1}:user", "record", "keep:login:ada", "keep:{1}:epoch"] {
            // `MGET` returns nil for a list, so calls that read a record together with the epoch
            // find no epoch.
            if (command, key) == ("LPUSH", "keep:{1}:epoch") {
                continue;
            }
            run_command(server.port(), "FLUSHALL");
            store.insert(&Account::new(1, "ada", "")).await.expect("new");
            let record = log_in(&store, "1").await;
            let name = match key {
                "record" => run_command(server.port(), "KEYS keep:{1}:session:*"),
                other => other.to_owned(),
            };
            run_command(server.port(), &format!("DEL {name}"));
            run_command(server.port(), &format!("{command} {name} secret-of-somebody"));
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
                all.expect("this call reads no record");
            }
            if key == "keep:{1}:epoch" {
                results.push(store.create(&new_login(&record)).await.map(drop));
                results.push(store.list(&user, record.created, 10).await.map(drop));
                results.push(store.revoke(&[record.key], &end(&record)).await.map(drop));
                results.push(store.rotate(&rotation(&record)).await.map(drop));
                results.push(store.revoke_all(&user, None, &end(&record)).await.map(drop));
            }
            for (index, result) in results.into_iter().enumerate() {
                let error =
                    result.expect_err(&format!("{command} {key}: call {index} reads the value"));
                assert_eq!(
                    error.kind(),
                    StoreErrorKind::Corrupt,
                    "{command} {key}: {}",
                    error_text(&error)
                );
                assert!(!error_text(&error).contains("somebody"), "{}", error_text(&error));
            }
        }
    }
    // A user who can't be read can still be deleted.
    run_command(server.port(), "FLUSHALL");
    run_command(server.port(), "SET keep:{1}:user nonsense");
    assert!(store.delete(&user).await.expect("no error"));
    assert!(store.by_id(&user).await.expect("no error").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_times_out_if_too_few_replicas_confirm_it() {
    let alone = start_server();
    let builder = |url: String| RedisStore::builder(url).with_replicas_to_wait_for(1);
    // The wait for replicas takes only a part of the time-out. The first login loads the scripts,
    // so the rest of the time is enough for the second login.
    log_in(&open_store(&alone.url()).await, "2").await;
    let store = open_with_timeout(|| builder(alone.url()), Duration::from_secs(8)).await;
    let record = new_record(&"1".into());
    let error = store.create(&new_login(&record)).await.expect_err("there is no replica");
    assert_eq!(error.kind(), StoreErrorKind::Timeout);
    assert!(error_text(&error).contains("0 of 1 replicas"), "{}", error_text(&error));
    for variable in ["REDIS_SENTINEL_URL", "REDIS_CLUSTER_URL"] {
        let builder = builder(env_variable(variable)).with_timeout(Duration::from_secs(10));
        let store = builder.with_key_prefix(unused_prefix()).build().await.expect("a store");
        contract::sessions::run_all(|| async { store.clone() }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_loses_only_unconfirmed_writes_if_writes_wait_for_a_replica() {
    for replicas in [0, 1] {
        let mut cluster = Server::start(Kind::RedisCluster).expect("a cluster");
        let builder = || RedisStore::builder(cluster.url()).with_replicas_to_wait_for(replicas);
        let store = open_with_timeout(builder, Duration::from_secs(2)).await;
        let slot = |id: &u64| -> u16 {
            let words = format!("CLUSTER KEYSLOT {{{id}}}");
            run_command(cluster.port(), &words).parse().expect("a slot")
        };
        let id = (0..)
            .find(|id| SLOTS_OF_SECOND_MASTER.contains(&usize::from(slot(id))))
            .expect("some user");
        let user = UserId::from(id);
        let old = log_in(&store, user.as_str()).await;
        let [master, _, _, replica, _] = cluster.members() else { panic!("six nodes") };
        let offset = |server: &Server| {
            let info = run_command(server.port(), "INFO replication");
            info.lines()
                .find_map(|line| line.strip_prefix("master_repl_offset:"))
                .map(str::to_owned)
        };
        while offset(master) != offset(replica) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        replica.suspend();
        // Without its connection, the suspended replica can't receive the writes in the meantime.
        assert_eq!(run_command(master.port(), "CLIENT KILL TYPE replica"), "1");
        let revoked = store.revoke_all(&user, None, &end(&old)).await;
        let new = new_record(&user);
        let created = store.create(&new_login(&new)).await;
        master.kill();
        replica.resume();
        let give_up_at = Instant::now() + Duration::from_secs(20);
        let old_after = loop {
            match store.load_login(&old.key, Some(&user)).await {
                Ok(found) => break found.expect("the old session's record"),
                Err(error) => assert!(Instant::now() < give_up_at, "{}", error_text(&error)),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        // Both writes are lost: the end of the old session, and the new session.
        assert!(old_after.record.ended.is_none());
        let found = store.load_login(&new.key, Some(&user)).await.expect("no error");
        assert!(found.is_none());
        match replicas {
            0 => assert!(revoked.is_ok() && created.is_ok(), "the lost writes were confirmed"),
            _ => {
                for result in [revoked.map(drop), created.map(drop)] {
                    let error = result.expect_err("no replica has confirmed the write");
                    assert_eq!(error.kind(), StoreErrorKind::Timeout);
                }
            }
        }
    }
}
