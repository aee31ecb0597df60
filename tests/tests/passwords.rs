//! Checking passwords: in full, off the executor, a bounded number at a time.

use std::sync::Arc;

use tower_keep::{Account, PasswordError, Passwords};

// 30: the same work for known and unknown names is asserted where the hashes are; here the answers.
#[tokio::test]
async fn only_the_right_password_of_a_known_user_is_right() {
    let passwords = Passwords::new();
    let hash = passwords.hash("correct horse").await.unwrap();
    assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
    assert_ne!(hash, passwords.hash("correct horse").await.unwrap());
    for (hash, password, right) in [
        (Some(hash.as_str()), "correct horse", true),
        (Some(&hash), "correct hors", false),
        (Some(&hash), "", false),
        (None, "correct horse", false),
        (None, "", false),
    ] {
        assert_eq!(passwords.verify(hash, password).await, Ok(right), "{password}");
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
async fn passwords_count_in_full() {
    let passwords = Passwords::new();
    let long = "x".repeat(100);
    let hash = passwords.hash(long.clone()).await.unwrap();
    assert_eq!(passwords.verify(Some(&hash), long.clone()).await, Ok(true));
    assert_eq!(passwords.verify(Some(&hash), format!("{}y", &long[..99])).await, Ok(false));
    assert_eq!(passwords.verify(Some(&hash), &long[..72]).await, Ok(false));
}

#[tokio::test]
async fn what_is_no_hash_is_a_fault_and_not_a_wrong_password() {
    let passwords = Passwords::new();
    for stored in ["", "plain text", "$2b$12$abc", "$argon2id$"] {
        assert_eq!(passwords.verify(Some(stored), "p").await, Err(PasswordError::NotAHash));
    }
}

// 31
#[tokio::test]
async fn a_flood_is_refused_beyond_a_bound_and_who_gave_up_makes_room() {
    let passwords = Passwords::with_concurrency(1);
    let mut flood: Vec<_> = (0..40)
        .map(|_| {
            let passwords = passwords.clone();
            tokio::spawn(async move { passwords.verify(None, "p").await })
        })
        .collect();
    let mut busy = 0;
    for task in flood.drain(..17) {
        assert_eq!(task.await.unwrap(), Ok(false));
    }
    for task in flood {
        busy += usize::from(task.await.unwrap() == Err(PasswordError::Busy));
    }
    assert_eq!(busy, 40 - 17);
    assert_eq!(PasswordError::Busy.response().headers()["retry-after"], "1");
    assert_eq!(passwords.verify(None, "p").await, Ok(false));
}
