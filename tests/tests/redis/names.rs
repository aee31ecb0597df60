//! Login names and limits, after other calls were interrupted halfway.

use std::time::Duration;

use tower_keep_core::{
    Account, SessionLimit, SessionStore, UserDirectory, UserId, UserLookup, WhenFull,
};
use tower_keep_testkit::contract::sessions::new_record;

use crate::{ask, begin, login, open, server};
use tower_keep_testkit::contract::users::replace;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_broken_off_leaves_a_name_free() {
    let server = server();
    let store = open(&server.url()).await;
    // What an interrupted insert leaves: a claim that is not pending any more, and one that still
    // is.
    ask(server.port(), "SET keep:login:ada \"00000000000000aa 1\"");
    ask(server.port(), "SET keep:login:grace \"00000000000000bb 2\"");
    ask(server.port(), "SET keep:{2}:pending:00000000000000bb 1 EX 60");
    for (id, name) in [(3, "ada"), (4, "grace")] {
        assert!(store.by_login_name(name).await.expect("no error").is_none());
        store.insert(&Account::new(id, name, "")).await.expect("nobody has it");
        let found = store.by_login_name(name).await.expect("no error").expect("theirs");
        assert_eq!(found.id(), &UserId::from(id));
    }
    // The interrupted insert would find its claim cancelled.
    assert_eq!(ask(server.port(), "EXISTS keep:{2}:pending:00000000000000bb"), "0");
    // A name that a failover has lost is restored when the user is next written.
    ask(server.port(), "DEL keep:login:grace");
    assert!(store.by_login_name("grace").await.expect("no error").is_none());
    assert!(replace(&store, &Account::new(4, "grace", "")).await.expect("no error"));
    assert!(store.by_login_name("grace").await.expect("no error").is_some());
    // A renamed user does not have their old name any more, even if its key was not deleted.
    assert!(replace(&store, &Account::new(3, "lovelace", "")).await.expect("no error"));
    ask(server.port(), "SET keep:login:ada \"00000000000000cc 3\"");
    assert!(store.by_login_name("ada").await.expect("no error").is_none());
    store.insert(&Account::new(5, "ada", "")).await.expect("nobody has it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_name_finds_it_taken_when_it_is() {
    let server = server();
    let store = open(&server.url()).await;
    for round in 0..10 {
        ask(server.port(), "FLUSHALL");
        ask(server.port(), "SET keep:login:ada \"00000000000000aa 1\"");
        ask(server.port(), "SET keep:{1}:pending:00000000000000aa 1 EX 60");
        let waiting = store.clone();
        let insert = tokio::spawn(async move { waiting.insert(&Account::new(2, "ada", "")).await });
        // Around the moment at which the waiting insert cancels the other's claim.
        tokio::time::sleep(Duration::from_millis(195 + round * 5)).await;
        let port = server.port();
        // This does the same as the last step of the first insert.
        let done = ask(
            port,
            "EVAL \"if redis.call('DEL', KEYS[1]) == 1 then redis.call('SET', KEYS[2], ARGV[1]) \
             return 1 end return 0\" 2 keep:{1}:pending:00000000000000aa keep:{1}:user \
             '1 00000000000000aa {\\\"id\\\":\\\"1\\\",\\\"login_name\\\":\\\"ada\\\",\\\"password_hash\\\":\\\"\\\"}'"
                .replace("\\\"", "\"")
                .as_str(),
        );
        let second = insert.await.expect("no panic");
        assert_eq!(second.is_ok(), done == "0", "round {round}: {done}, {second:?}");
        let holder = store.by_login_name("ada").await.expect("no error").expect("one has it");
        assert_eq!(holder.id().as_str(), if second.is_ok() { "2" } else { "1" });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_expired_in_a_list_lets_no_session_too_many_in() {
    let server = server();
    let store = open(&server.url()).await;
    for round in 0..40_u64 {
        let user = UserId::from(round);
        // The list still has a session whose record has expired.
        let gone = begin(&store, user.as_str()).await;
        let record = ask(server.port(), &format!("KEYS keep:{{{round}}}:session:*"));
        ask(server.port(), &format!("DEL {record}"));
        assert!(store.list(&user, gone.created, 10).await.expect("no error").is_empty());
        let when_full = if round % 2 == 0 { WhenFull::Refuse } else { WhenFull::EndOldest };
        let limit = Some(SessionLimit::new(1, when_full));
        let logins: Vec<_> = (0..4)
            .map(|_| {
                let (store, record) = (store.clone(), new_record(&user));
                tokio::spawn(async move {
                    let mut login = login(&record);
                    login.limit = limit;
                    store.create(&login).await.expect("no error")
                })
            })
            .collect();
        for login in logins {
            login.await.expect("no panic");
        }
        assert_eq!(store.list(&user, gone.created, 10).await.expect("no error").len(), 1);
    }
}
