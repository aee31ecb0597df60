//! Login names and limits, if another call was interrupted or runs at the same time.

use std::time::Duration;

use tower_keep_core::{
    Account, SessionLimit, SessionStore, UserDirectory, UserId, UserLookup, WhenFull,
};
use tower_keep_testkit::contract::sessions::new_record;

use crate::{log_in, new_login, open_store, run_command, start_server};
use tower_keep_testkit::contract::users::replace;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_insert_leaves_the_login_name_free() {
    let server = start_server();
    let store = open_store(&server.url()).await;
    // Two inserts were interrupted. The claim to "ada" has expired: it has no pending key. The
    // claim to "grace" is still pending.
    run_command(server.port(), "SET keep:login:ada \"00000000000000aa 1\"");
    run_command(server.port(), "SET keep:login:grace \"00000000000000bb 2\"");
    run_command(server.port(), "SET keep:{2}:pending:00000000000000bb 1 EX 60");
    for (id, name) in [(3, "ada"), (4, "grace")] {
        assert!(store.by_login_name(name).await.expect("no error").is_none());
        store.insert(&Account::new(id, name, "")).await.expect("a free name");
        let found = store.by_login_name(name).await.expect("no error").expect("a user");
        assert_eq!(found.id(), &UserId::from(id));
    }
    // The interrupted insert can't complete its claim any more.
    assert_eq!(run_command(server.port(), "EXISTS keep:{2}:pending:00000000000000bb"), "0");
    // If a failover has lost a name's key, the next write of the user restores it.
    run_command(server.port(), "DEL keep:login:grace");
    assert!(store.by_login_name("grace").await.expect("no error").is_none());
    assert!(replace(&store, &Account::new(4, "grace", "")).await.expect("no error"));
    assert!(store.by_login_name("grace").await.expect("no error").is_some());
    // A renamed user no longer has their old name, even if the old name's key still exists.
    assert!(replace(&store, &Account::new(3, "lovelace", "")).await.expect("no error"));
    run_command(server.port(), "SET keep:login:ada \"00000000000000cc 3\"");
    assert!(store.by_login_name("ada").await.expect("no error").is_none());
    store.insert(&Account::new(5, "ada", "")).await.expect("a free name");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_one_of_two_concurrent_inserts_gets_the_login_name() {
    let server = start_server();
    let store = open_store(&server.url()).await;
    for round in 0..10 {
        run_command(server.port(), "FLUSHALL");
        run_command(server.port(), "SET keep:login:ada \"00000000000000aa 1\"");
        run_command(server.port(), "SET keep:{1}:pending:00000000000000aa 1 EX 60");
        // The two keys are what the first insert, of user 1, has written before its last step. The
        // second insert, of user 2, waits for this pending claim.
        let store_of_task = store.clone();
        let second =
            tokio::spawn(async move { store_of_task.insert(&Account::new(2, "ada", "")).await });
        // The second insert waits for about 200 ms, and then cancels the claim of the first insert.
        // The last step of the first insert follows shortly before or after that, depending on
        // the round.
        tokio::time::sleep(Duration::from_millis(195 + round * 5)).await;
        let port = server.port();
        // This script does the last step of the first insert. It returns 1 if the claim was still
        // pending.
        let reply_to_first = run_command(
            port,
            "EVAL \"if redis.call('DEL', KEYS[1]) == 1 then redis.call('SET', KEYS[2], ARGV[1]) \
             return 1 end return 0\" 2 keep:{1}:pending:00000000000000aa keep:{1}:user \
             '1 00000000000000aa {\\\"id\\\":\\\"1\\\",\\\"login_name\\\":\\\"ada\\\",\\\"password_hash\\\":\\\"\\\"}'"
                .replace("\\\"", "\"")
                .as_str(),
        );
        let second = second.await.expect("no panic");
        let is_first_refused = reply_to_first == "0";
        assert_eq!(second.is_ok(), is_first_refused, "round {round}: {reply_to_first}, {second:?}");
        let user = store.by_login_name("ada").await.expect("no error").expect("a user");
        assert_eq!(user.id().as_str(), if second.is_ok() { "2" } else { "1" });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_member_without_a_record_does_not_break_the_limit() {
    let server = start_server();
    let store = open_store(&server.url()).await;
    for round in 0..40_u64 {
        let user = UserId::from(round);
        // The index still lists a session whose record no longer exists.
        let expired = log_in(&store, user.as_str()).await;
        let record_key = run_command(server.port(), &format!("KEYS keep:{{{round}}}:session:*"));
        run_command(server.port(), &format!("DEL {record_key}"));
        assert!(store.list(&user, expired.created, 10).await.expect("no error").is_empty());
        let when_full = if round % 2 == 0 { WhenFull::Refuse } else { WhenFull::EndOldest };
        let limit = Some(SessionLimit::new(1, when_full));
        let logins: Vec<_> = (0..4)
            .map(|_| {
                let (store, record) = (store.clone(), new_record(&user));
                tokio::spawn(async move {
                    let mut login = new_login(&record);
                    login.limit = limit;
                    store.create(&login).await.expect("no error")
                })
            })
            .collect();
        for login in logins {
            login.await.expect("no panic");
        }
        assert_eq!(store.list(&user, expired.created, 10).await.expect("no error").len(), 1);
    }
}
