//! Checking and changing passwords.

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use http::StatusCode;
use tokio::task::JoinSet;
use tower_keep::password::{
    PasswordChange, PasswordError, PasswordStore, PasswordUser, PasswordWrite, Passwords,
    own_passwords,
};
use tower_keep::store::{Modified, StoreErrorKind, UserDirectory, UserStore};
use tower_keep::{Account, AuthUser};
use tower_keep_memory::MemoryStore;
use tower_keep_tests::{Browser, Http, WatchedStoreExt, new_store, serve};

// This test checks the results. A unit test of `Passwords` checks that known and unknown login
// names take the same work.
#[tokio::test]
async fn only_the_password_of_a_known_user_is_accepted() {
    let passwords = Passwords::new();
    let hash = passwords.hash("correct horse").await.unwrap();
    assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
    assert_ne!(hash, passwords.hash("correct horse").await.unwrap());
    for (hash, password, is_match) in [
        (Some(hash.as_str()), "correct horse", true),
        (Some(&hash), "correct hors", false),
        (Some(&hash), "", false),
        (None, "correct horse", false),
        (None, "", false),
    ] {
        assert_eq!(passwords.verify(hash, password).await.unwrap(), is_match, "{password}");
    }
    let ada = Arc::new(Account::new(1, "ada", hash));
    let found = passwords.check(Some(ada.clone()), Account::password_hash, "correct horse").await;
    assert_eq!(found.unwrap(), Some(ada.clone()));
    let found = passwords.check(Some(ada), Account::password_hash, "wrong").await;
    assert_eq!(found.unwrap(), None);
    let nobody = passwords.check(None::<Arc<Account>>, Account::password_hash, "any").await;
    assert_eq!(nobody.unwrap(), None);
}

#[tokio::test]
async fn a_login_is_checked_in_one_call() {
    let (store, passwords) = (new_store().await, Passwords::new());
    assert!(passwords.sign_up(&store, 1, "ada", "correct horse").await.unwrap());
    for (id, login) in [(1, "eve"), (2, "ada")] {
        assert!(!passwords.sign_up(&store, id, login, "taken").await.unwrap(), "{login}");
    }
    for (login, password, is_match) in [
        ("ada", "correct horse", true),
        ("ada", "wrong", false),
        ("ada", "", false),
        ("eve", "correct horse", false),
        ("", "correct horse", false),
    ] {
        let user = passwords.check_login(&store, login, password).await.unwrap();
        assert_eq!(
            user.map(|user| user.login_name() == "ada"),
            is_match.then_some(true),
            "{login}"
        );
    }
    store.set_down(true);
    let failed = passwords.check_login(&store, "ada", "correct horse").await;
    assert!(matches!(failed, Err(PasswordError::Store(_))));
}

#[tokio::test]
async fn every_byte_of_a_long_password_counts() {
    let passwords = Passwords::new();
    let long = "x".repeat(100);
    let hash = passwords.hash(long.clone()).await.unwrap();
    assert!(passwords.verify(Some(&hash), long.clone()).await.unwrap());
    assert!(!passwords.verify(Some(&hash), format!("{}y", &long[..99])).await.unwrap());
    assert!(!passwords.verify(Some(&hash), &long[..72]).await.unwrap());
}

// An application may store a text like `!` as the hash of an account without a password.
#[tokio::test]
async fn a_stored_text_that_is_no_argon2_hash_matches_no_password() {
    let passwords = Passwords::new();
    let hash = passwords.hash("p").await.unwrap();
    let cut = &hash[..hash.rfind('$').unwrap()];
    for stored in
        ["", "!", "plain text", "$2b$12$abc", "$argon2id$", "$scrypt$ln=1$c2FsdHNhbHQ$aGFzaA", cut]
    {
        assert!(!passwords.verify(Some(stored), "p").await.unwrap(), "{stored}");
        let user = Arc::new(Account::new(1, "ada", stored));
        let found = passwords.check(Some(user), Account::password_hash, "p").await;
        assert_eq!(found.unwrap(), None, "{stored}");
    }
}

// If a form is submitted twice, the second submission finds that its password is stored already.
#[tokio::test]
async fn a_form_submitted_twice_succeeds_twice_and_another_new_password_is_stale() {
    let (passwords, store) = (Passwords::new(), MemoryStore::<Account>::new());
    let seen = Account::new(1, "ada", passwords.hash("old").await.unwrap());
    store.insert(&seen).await.unwrap();
    let change = async |new_password| passwords.change(&store, &seen, new_password).await.unwrap();
    let PasswordChange::Changed(first) = change("new").await else { panic!("not changed") };
    assert_eq!(change("new").await, PasswordChange::Changed(Arc::clone(&first)));
    assert_eq!(change("newer").await, PasswordChange::Stale(Arc::clone(&first)));
    assert_eq!(store.by_id(&1.into()).await.unwrap(), Some(first));
    store.delete(&1.into()).await.unwrap();
    assert_eq!(change("new").await, PasswordChange::Missing);
}

#[tokio::test]
async fn own_passwords_writes_a_hash_only_over_the_expected_hash() {
    let users = MemoryStore::<Account>::new();
    let seen = Account::new(1, "ada", "first");
    users.insert(&seen).await.unwrap();
    let table = users.clone();
    let own = own_passwords(users.clone(), move |write: PasswordWrite| {
        let table = table.clone();
        async move {
            let mut update = |row: &Account| {
                let has_expected_hash = row.password_hash() == write.expected;
                has_expected_hash.then(|| match write.is_new_password {
                    true => row.with_password_hash(write.new.clone()),
                    false => row.with_rehash(write.new.clone()),
                })
            };
            Ok(matches!(table.modify(&write.id, &mut update).await?, Modified::Changed(_)))
        }
    });
    let id = seen.id();
    let set = async |hash| own.set_password(id, &seen.security_stamp(), hash).await.unwrap();
    assert!(own.rehash(id, "first", "stronger").await.unwrap());
    assert!(!own.rehash(id, "first", "weaker").await.unwrap());
    assert!(
        matches!(set("second").await, PasswordChange::Changed(user) if user.password_hash() == "second")
    );
    assert!(matches!(set("second").await, PasswordChange::Changed(_)), "the same form again");
    assert!(matches!(set("third").await, PasswordChange::Stale(_)));
    users.delete(id).await.unwrap();
    assert_eq!(set("third").await, PasswordChange::Missing);
    assert!(!own.rehash(id, "second", "third").await.unwrap());
    // A statement that never writes is not retried forever.
    users.insert(&seen).await.unwrap();
    let broken = own_passwords(users, |_| async { Ok(false) });
    let error = broken.set_password(id, &seen.security_stamp(), "other").await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
}

#[tokio::test]
async fn calls_beyond_the_bound_are_busy_errors_and_later_calls_succeed() {
    let passwords = Passwords::new().with_concurrency(1);
    let mut calls: Vec<_> = (0..40)
        .map(|_| {
            let passwords = passwords.clone();
            tokio::spawn(async move { passwords.verify(None, "p").await })
        })
        .collect();
    let mut busy = 0;
    // With a concurrency of 1, at most 17 calls run or wait.
    for task in calls.drain(..17) {
        assert!(!task.await.unwrap().unwrap());
    }
    for task in calls {
        busy += usize::from(matches!(task.await.unwrap(), Err(PasswordError::Busy)));
    }
    assert_eq!(busy, 40 - 17);
    assert_eq!(PasswordError::Busy.response().headers()["retry-after"], "1");
    assert!(!passwords.verify(None, "p").await.unwrap());
}

#[tokio::test]
async fn a_flood_of_password_checks_gets_503_and_delays_no_other_page() {
    let passwords = Passwords::new().with_concurrency(1);
    let check = move || {
        let passwords = passwords.clone();
        async move { passwords.verify(None, "p").await.map(|is_right| is_right.to_string()) }
    };
    let router =
        Router::new().route("/check", get(check)).route("/hello", get(|| async { "hello" }));
    let serving = serve(router).await;
    let address = serving.address;
    let mut flood = JoinSet::new();
    for _ in 0..100 {
        flood.spawn(async move { Browser::new(Http::to(address)).get("/check").await });
    }
    let mut responses = Vec::new();
    while let Some(response) = flood.join_next().await {
        responses.push(response.unwrap());
        if responses.last().unwrap().status == StatusCode::SERVICE_UNAVAILABLE {
            break;
        }
    }
    assert_eq!(Browser::new(Http::to(address)).get("/hello").await.text(), "hello");
    while let Some(response) = flood.try_join_next() {
        responses.push(response.unwrap());
    }
    assert!(!flood.is_empty(), "the page was served only after all checks");
    while let Some(response) = flood.join_next().await {
        responses.push(response.unwrap());
    }
    let (busy, checked): (Vec<_>, Vec<_>) =
        responses.iter().partition(|response| response.status == StatusCode::SERVICE_UNAVAILABLE);
    assert!(!busy.is_empty());
    assert!(busy.iter().all(|response| response.header("retry-after") == "1"));
    // With a concurrency of 1, 17 checks run or wait.
    assert!(checked.len() >= 17, "{}", checked.len());
    assert!(checked.iter().all(|response| response.text() == "false"));
}
