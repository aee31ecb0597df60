//! The times at which keys expire.

use std::time::Duration;

use tower_keep_core::{
    Account, SessionLimit, SessionStore, Touch, UserDirectory, UserLookup, UserStore, WhenFull,
};
use tower_keep_redis::RedisStore;
use tower_keep_testkit::contract::sessions::new_record;

use crate::{
    end, log_in, new_login, new_record_at, open_store, rotation, run_command, start_server,
};
use tower_keep_testkit::contract::users::replace;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_expire_by_themselves_and_their_owner_keys_live_longer() {
    let server = start_server();
    let store = open_store(&server.url()).await;
    let ttl = |pattern: &str| -> i64 {
        let key = run_command(server.port(), &format!("KEYS {pattern}"));
        assert_eq!(key.lines().count(), 1, "{pattern}: {key}");
        run_command(server.port(), &format!("TTL {key}")).parse().expect("a number")
    };
    let check_ttls = |expected: i64| {
        let record_ttl = ttl("keep:{1}:session:*");
        assert!(
            (expected - 5..=expected + 5).contains(&record_ttl),
            "{record_ttl}, not {expected}"
        );
        assert!(ttl("keep:session:*") > record_ttl, "the owner key");
        assert!(ttl("keep:{1}:live") >= record_ttl, "the index");
    };
    let mut record = new_record(&"1".into());
    record.expires = record.created.plus(1_000);
    store.create(&new_login(&record)).await.expect("new");
    check_ttls(1_300);
    for expires in [5_000, 10] {
        let touch = Touch::new(record.key, record.created, record.created.plus(expires));
        store.touch(&[touch]).await.expect("no error");
        check_ttls(5_300);
    }
    let mut longer = rotation(&record);
    longer.expires = record.created.plus(9_000);
    store.rotate(&longer).await.expect("no error");
    check_ttls(9_300 - 10);
    // An end may keep the record for a longer or for a shorter time.
    let ended = log_in(&store, "2").await;
    for (hours, ends_all) in [(99, false), (1, true)] {
        let record = if ends_all { log_in(&store, "3").await } else { ended.clone() };
        let mut end = end(&record);
        end.keep_until = record.created.plus(hours * 3_600);
        let user = &record.user;
        if ends_all {
            // The record itself is unchanged, but now belongs to an earlier epoch. A purge finds it
            // in the index of the sessions that this epoch ended.
            store.revoke_all(user, None, &end).await.expect("no error");
            assert_eq!(
                run_command(
                    server.port(),
                    &format!("ZCARD keep:{{{user}}}:past:{}", end.at.as_secs())
                ),
                "1"
            );
        } else {
            assert_eq!(store.revoke(&[record.key], &end).await.expect("no error"), 1);
            let record_ttl = ttl(&format!("keep:{{{user}}}:session:*"));
            let expected = i64::from(hours) * 3_600 + 300;
            assert!(
                (expected - 5..=expected).contains(&record_ttl),
                "{record_ttl}, not {expected}"
            );
        }
        // The session is no longer in the index, but `load` still finds the record.
        assert_eq!(run_command(server.port(), &format!("EXISTS keep:{{{user}}}:live")), "0");
        assert!(
            store.load(&record.key).await.expect("no error").expect("a record").ended.is_some()
        );
    }
    let found = store.load(&ended.key).await.expect("no error");
    assert!(found.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_removes_sessions_that_expired_more_than_a_day_ago() {
    let server = start_server();
    let store = open_store(&server.url()).await;
    let first = log_in(&store, "1").await;
    // By the clock of the second login, the first session expired more than a day ago.
    let (created, expires) =
        (first.created.plus(5 * 24 * 3_600), first.created.plus(9 * 24 * 3_600));
    let later = new_record_at("1", created, expires);
    store.create(&new_login(&later)).await.expect("new");
    assert_eq!(run_command(server.port(), "ZCARD keep:{1}:live"), "1");
    assert!(store.load(&first.key).await.expect("no error").is_none(), "its record is deleted");
}

/// The index keeps an expired session for a day, so that a wrong clock removes no live session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_with_a_limit_does_not_read_all_expired_sessions() {
    let server = start_server();
    let store = open_store(&server.url()).await;
    let now = new_record(&"1".into()).created;
    let log_in = |created, expires| {
        let store = store.clone();
        tokio::spawn(async move {
            let record = new_record_at("1", created, expires);
            store.create(&new_login(&record)).await.expect("new");
        })
    };
    for age in 1..=110 {
        log_in(now.minus(9_000 + age), now.plus(9_000 - age)).await.expect("no panic");
    }
    for _ in 0..30 {
        let logins: Vec<_> = (0..100).map(|age| log_in(now.minus(age), now)).collect();
        for login in logins {
            login.await.expect("no panic");
        }
    }
    let count_of_gets = || -> u64 {
        let stats = run_command(server.port(), "INFO commandstats");
        let gets = stats.lines().find_map(|line| line.strip_prefix("cmdstat_get:calls="));
        let gets = gets.and_then(|gets| gets.split(',').next()).expect("a count of GET commands");
        gets.parse().expect("a number")
    };
    let before = count_of_gets();
    let mut record = new_record(&"1".into());
    record.created = now;
    let mut limited = new_login(&record);
    limited.limit = Some(SessionLimit::new(5, WhenFull::EndOldest));
    store.create(&limited).await.expect("new");
    let read = count_of_gets() - before;
    assert!((100..3_000).contains(&read), "the login read {read} of 3,110 records");
    let listed = store.list(&"1".into(), now, 100).await.expect("no error");
    let mut ages: Vec<_> = listed.iter().map(|record| now.since(record.created)).collect();
    ages.sort_unstable();
    let expected = [0, 9_001, 9_002, 9_003, 9_004];
    assert_eq!(ages, expected, "the new session, and the four that expire last");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_expire_after_the_configured_time() {
    let server = start_server();
    let builder = RedisStore::builder(server.url()).with_user_ttl(Duration::from_secs(5));
    let store = builder.build().await.expect("a store");
    let account = Account::new(1, "ada", "hash");
    store.insert(&account).await.expect("new");
    let ttl_millis = |key: &str| -> i64 {
        run_command(server.port(), &format!("PTTL {key}")).parse().expect("a number")
    };
    assert!((1..=5_000).contains(&ttl_millis("keep:{1}:user")));
    assert!(ttl_millis("keep:login:ada") > 5_000, "the name's key expires after the user");
    assert_eq!(run_command(server.port(), "PEXPIRE keep:login:ada 9000"), "1");
    assert!(replace(&store, &account).await.expect("no error"));
    assert!(ttl_millis("keep:login:ada") > 9_000, "writing the user extends the name's key");
    while store.by_id(account.id()).await.expect("no error").is_some() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(store.by_login_name("ada").await.expect("no error").is_none());
    store.insert(&Account::new(2, "ada", "hash")).await.expect("the name is free");
}
