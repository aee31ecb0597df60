//! Writing password hashes: clauses of `set_password` and `rehash`.

use std::sync::Arc;

use tower_keep_core::{Account, AuthUser, PasswordChange, PasswordStore, UserDirectory};

use super::calls::{by_id, insert, new_account, replace};

/// `set_password` writes only if the user still has the security stamp that the caller saw. It
/// keeps changes that other calls have made to the other fields in the meantime.
pub async fn set_password_writes_only_if_the_seen_security_stamp_is_still_stored<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    let account = new_account();
    let id = account.id();
    let set_password = async |seen: &Account, hash: &str| {
        store
            .set_password(id, &seen.security_stamp(), hash)
            .await
            .expect("the call fails only if the store fails")
    };
    assert_eq!(set_password(&account, "before the insert").await, PasswordChange::Missing);
    insert(&*store, &account).await;
    // The user was deactivated in the meantime. The password changes, and the user stays inactive.
    replace(&*store, &account.clone().with_active(false))
        .await
        .expect("the call fails only if the store fails");
    let PasswordChange::Changed(first) = set_password(&account, "first").await else {
        panic!("the security stamp is unchanged")
    };
    assert_eq!((first.password_hash(), first.is_active()), ("first", false));
    assert_ne!(first.security_stamp(), account.security_stamp(), "a new stamp ends earlier logins");
    assert_eq!(by_id(&*store, id).await.as_ref(), Some(&*first));
    // The hash of a repeated call is already stored. A call with another hash and the old security
    // stamp is stale.
    assert_eq!(set_password(&account, "first").await, PasswordChange::Changed(Arc::clone(&first)));
    assert_eq!(set_password(&account, "second").await, PasswordChange::Stale(Arc::clone(&first)));
    assert_eq!(by_id(&*store, id).await.as_ref(), Some(&*first), "nothing was written");
}

/// `rehash` replaces the stored hash only if it is the hash that the caller saw. It never changes
/// the security stamp.
pub async fn rehash_writes_only_if_the_seen_hash_is_still_stored<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    let account = new_account();
    let id = account.id();
    let rehash = async |seen_hash: &str, hash: &str| {
        store.rehash(id, seen_hash, hash).await.expect("the call fails only if the store fails")
    };
    assert!(!rehash(account.password_hash(), "stronger").await, "the user is not stored yet");
    insert(&*store, &account).await;
    assert!(!rehash("another hash", "stronger").await, "the stored hash is another one");
    assert!(rehash(account.password_hash(), "stronger").await);
    let after = by_id(&*store, id).await.expect("the user is stored");
    assert_eq!(
        (after.password_hash(), after.security_stamp()),
        ("stronger", account.security_stamp())
    );
    assert!(!rehash(account.password_hash(), "weaker").await, "the seen hash is no longer stored");
    assert_eq!(by_id(&*store, id).await, Some(after));
}
