//! How long keys live.

use std::time::Duration;

use tower_keep_core::{
    Account, SessionLimit, SessionStore, Touch, UserDirectory, UserLookup, UserStore, WhenFull,
};
use tower_keep_redis::RedisStore;
use tower_keep_testkit::contract::sessions::new_record;

use crate::{ask, begin, end, login, new_record_at, open, rotation, server};
use tower_keep_testkit::contract::users::replace;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_expire_by_themselves_and_whose_they_are_is_known_longer() {
    let server = server();
    let store = open(&server.url()).await;
    let seconds = |pattern: &str| -> i64 {
        let key = ask(server.port(), &format!("KEYS {pattern}"));
        assert_eq!(key.lines().count(), 1, "{pattern}: {key}");
        ask(server.port(), &format!("TTL {key}")).parse().expect("a number")
    };
    let all = |at_least: i64| {
        let record = seconds("keep:{1}:session:*");
        assert!((at_least - 5..=at_least + 5).contains(&record), "{record} is not {at_least}");
        assert!(seconds("keep:session:*") > record, "whose it is");
        assert!(seconds("keep:{1}:live") >= record, "the user's list");
    };
    let mut record = new_record(&"1".into());
    record.expires = record.created.plus(1_000);
    store.create(&login(&record)).await.expect("new");
    all(1_300);
    for expires in [5_000, 10] {
        let touch = Touch::new(record.key, record.created, record.created.plus(expires));
        store.touch(&[touch]).await.expect("no error");
        all(5_300);
    }
    let mut longer = rotation(&record);
    longer.expires = record.created.plus(9_000);
    store.rotate(&longer).await.expect("no error");
    all(9_300 - 10);
    // An end may keep the record for a longer or for a shorter time.
    let ended = begin(&store, "2").await;
    for (hours, all_of) in [(99, false), (1, true)] {
        let record = if all_of { begin(&store, "3").await } else { ended.clone() };
        let mut end = end(&record);
        end.keep_until = record.created.plus(hours * 3_600);
        let user = &record.user;
        if all_of {
            // Each record is unchanged, but of an earlier epoch. A purge removes it in time.
            store.revoke_all(user, None, &end).await.expect("no error");
            assert_eq!(
                ask(server.port(), &format!("ZCARD keep:{{{user}}}:past:{}", end.at.as_secs())),
                "1"
            );
        } else {
            assert_eq!(store.revoke(&[record.key], &end).await.expect("no error"), 1);
            let kept = seconds(&format!("keep:{{{user}}}:session:*"));
            let expected = i64::from(hours) * 3_600 + 300;
            assert!((expected - 5..=expected).contains(&kept), "{kept} is not {expected}");
        }
        // The record is in no list any more, but it is still found by its key.
        assert_eq!(ask(server.port(), &format!("EXISTS keep:{{{user}}}:live")), "0");
        assert!(store.load(&record.key).await.expect("no error").expect("kept").ended.is_some());
    }
    let found = store.load(&ended.key).await.expect("no error");
    assert!(found.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_forgets_what_has_long_expired() {
    let server = server();
    let store = open(&server.url()).await;
    let first = begin(&store, "1").await;
    // By the application's clock the session expired three days ago, and no call has read the list.
    let (created, expires) =
        (first.created.plus(5 * 24 * 3_600), first.created.plus(9 * 24 * 3_600));
    let later = new_record_at("1", created, expires);
    store.create(&login(&later)).await.expect("new");
    assert_eq!(ask(server.port(), "ZCARD keep:{1}:live"), "1");
    assert!(store.load(&first.key).await.expect("no error").is_none(), "with the record");
}

/// A user's list keeps an expired session for a day, so that a wrong clock removes no live session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_with_a_limit_reads_a_bounded_part_of_what_has_expired() {
    let server = server();
    let store = open(&server.url()).await;
    let now = new_record(&"1".into()).created;
    let begin = |created, expires| {
        let store = store.clone();
        tokio::spawn(async move {
            let record = new_record_at("1", created, expires);
            store.create(&login(&record)).await.expect("new");
        })
    };
    for age in 1..=110 {
        begin(now.minus(9_000 + age), now.plus(9_000 - age)).await.expect("no panic");
    }
    for _ in 0..30 {
        let some: Vec<_> = (0..100).map(|age| begin(now.minus(age), now)).collect();
        for begun in some {
            begun.await.expect("no panic");
        }
    }
    let commands = || -> u64 {
        let stats = ask(server.port(), "INFO commandstats");
        let gets = stats.lines().find_map(|line| line.strip_prefix("cmdstat_get:calls="));
        let gets = gets.and_then(|gets| gets.split(',').next()).expect("it counts them");
        gets.parse().expect("a number")
    };
    let before = commands();
    let mut record = new_record(&"1".into());
    record.created = now;
    let mut limited = login(&record);
    limited.limit = Some(SessionLimit::new(5, WhenFull::EndOldest));
    store.create(&limited).await.expect("new");
    let read = commands() - before;
    assert!((100..3_000).contains(&read), "{read} of 3,110 were read");
    let listed = store.list(&"1".into(), now, 100).await.expect("no error");
    let mut left: Vec<_> = listed.iter().map(|record| now.since(record.created)).collect();
    left.sort_unstable();
    assert_eq!(left, [0, 9_001, 9_002, 9_003, 9_004], "the others are the last to expire");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_are_gone_after_the_time_that_was_asked_for() {
    let server = server();
    let builder = RedisStore::builder(server.url()).with_user_ttl(Duration::from_secs(5));
    let store = builder.build().await.expect("a store");
    let account = Account::new(1, "ada", "hash");
    store.insert(&account).await.expect("new");
    let life = |key: &str| -> i64 {
        ask(server.port(), &format!("PTTL {key}")).parse().expect("a number")
    };
    assert!((1..=5_000).contains(&life("keep:{1}:user")));
    assert!(life("keep:login:ada") > 5_000, "the name is theirs for longer");
    assert_eq!(ask(server.port(), "PEXPIRE keep:login:ada 9000"), "1");
    assert!(replace(&store, &account).await.expect("no error"));
    assert!(life("keep:login:ada") > 9_000, "and gets longer with them");
    while store.by_id(account.id()).await.expect("no error").is_some() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(store.by_login_name("ada").await.expect("no error").is_none());
    store.insert(&Account::new(2, "ada", "hash")).await.expect("the name is free");
}
