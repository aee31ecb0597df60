//! The contract of [`LoginStore`].

use std::sync::Arc;

use tower_keep_core::{
    Account, LoginStore, SeenMark, SessionDetails, SessionKey, StoredLogin, Touch, UserDirectory,
    UserId,
};

use super::sessions::{
    begin, begin_with, end, mark_seen, revoke, revoke_all, rotate, rotation, stored, touch,
};
use super::users::replace;
use super::{now, odd_details, unique};

clauses! {
    UserDirectory<User = Account>, LoginStore;
    a_login_is_its_record_and_its_user
    a_login_has_every_field_of_its_record
    the_record_says_whose_login_it_is
    a_login_of_a_deleted_user_has_no_user
    an_unknown_key_is_no_login
}

async fn new_user<S: UserDirectory<User = Account>>(store: &S) -> Account {
    let account = Account::new(unique("id"), unique("name"), "hash");
    store.insert(&account).await.expect("a new account is inserted");
    account
}

async fn load<S: LoginStore<User = Account>>(
    store: &S,
    key: &SessionKey,
    user_hint: Option<&UserId>,
) -> Option<StoredLogin<Account>> {
    store.load_login(key, user_hint).await.expect("load_login fails only if the store fails")
}

/// Checks that a login has its record as [`load`](tower_keep_core::SessionStore::load) returns it.
async fn assert_same_record<S: LoginStore<User = Account>>(store: &S, key: &SessionKey) {
    let login = load(store, key, None).await.expect("a login");
    assert_eq!(*login.record, stored(store, key).await);
}

/// A login is loaded as its record and its user, both as they are stored now.
pub async fn a_login_is_its_record_and_its_user<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account> + LoginStore,
{
    let mut account = new_user(&*store).await;
    let record = begin(&*store, account.id()).await;
    for user_hint in [None, Some(account.id())] {
        let found = load(&*store, &record.key, user_hint).await.expect("a login");
        assert_eq!(*found.record, record);
        assert_eq!(found.user.as_deref(), Some(&account));
    }
    account.set_password_hash("another hash");
    assert!(replace(&*store, &account).await.expect("no error"));
    let found = load(&*store, &record.key, Some(account.id())).await.expect("a login");
    assert_eq!(found.user.as_deref(), Some(&account), "as stored now");
}

/// A login has every field of its record, however the session was used and ended.
pub async fn a_login_has_every_field_of_its_record<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account> + LoginStore,
{
    let (account, other) = (new_user(&*store).await, new_user(&*store).await);
    let unknown = end("of_a_newer_node".parse().expect("a reason may have this word"));
    for details in odd_details() {
        let record = begin_with(&*store, account.id(), |record| {
            record.acting_user = Some(other.id().clone());
            record.remember = None;
            record.details = SessionDetails::new(details);
        })
        .await;
        let key = record.key;
        assert_same_record(&*store, &key).await;
        rotate(&*store, &rotation(&record, now())).await;
        mark_seen(&*store, &[SeenMark::new(key, 1, now())]).await;
        touch(&*store, &[Touch::new(key, now().plus(9), now().plus(1_000_000))]).await;
        assert_same_record(&*store, &key).await;
        revoke(&*store, &key, &unknown).await;
        assert_same_record(&*store, &key).await;
    }
    let key = begin(&*store, account.id()).await.key;
    revoke_all(&*store, account.id(), None, &unknown).await;
    assert_same_record(&*store, &key).await;
}

/// A wrong `user_hint` changes nothing.
pub async fn the_record_says_whose_login_it_is<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account> + LoginStore,
{
    let (account, other) = (new_user(&*store).await, new_user(&*store).await);
    let record = begin(&*store, account.id()).await;
    let unknown = UserId::from(unique("id"));
    for user_hint in [other.id(), &unknown, &"a\0b".into(), &"".into()] {
        let found = load(&*store, &record.key, Some(user_hint)).await.expect("a login");
        assert_eq!(*found.record, record);
        assert_eq!(found.user.as_deref(), Some(&account), "user_hint {user_hint:?}");
    }
}

/// The record stays, but it has no user.
pub async fn a_login_of_a_deleted_user_has_no_user<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account> + LoginStore,
{
    let account = new_user(&*store).await;
    let record = begin(&*store, account.id()).await;
    assert!(store.delete(account.id()).await.expect("no error"));
    for user_hint in [None, Some(account.id())] {
        let found = load(&*store, &record.key, user_hint).await.expect("the record");
        assert_eq!((&*found.record, found.user), (&record, None));
    }
}

/// A key without a record is no login, whatever the `user_hint` is.
pub async fn an_unknown_key_is_no_login<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account> + LoginStore,
{
    let account = new_user(&*store).await;
    for user_hint in [None, Some(account.id())] {
        assert!(load(&*store, &SessionKey::new([7; 32]), user_hint).await.is_none());
    }
}
