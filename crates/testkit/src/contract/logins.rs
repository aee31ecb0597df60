//! The contract of [`LoginStore`].

use std::sync::Arc;

use tower_keep_core::{
    Account, LoginStore, SeenMark, SessionDetails, SessionKey, StoredLogin, Touch, UserDirectory,
    UserId,
};

use super::clauses::clauses;
use super::sessions::calls::{
    create_session, create_session_with, mark_seen, new_end, new_rotation, revoke, revoke_all,
    rotate, stored_record, touch,
};
use super::users::calls::{insert_new_account, replace};
use super::values::{now, unique_text, unusual_details};

clauses! {
    UserDirectory<User = Account>, LoginStore;
    load_login_returns_the_record_and_its_user_as_stored_now
    load_login_returns_every_field_of_the_record
    load_login_ignores_a_wrong_user_hint
    load_login_returns_no_user_if_the_user_was_deleted
    load_login_returns_none_for_an_unknown_key
}

async fn load_login<S: LoginStore<User = Account>>(
    store: &S,
    key: &SessionKey,
    user_hint: Option<&UserId>,
) -> Option<StoredLogin<Account>> {
    store.load_login(key, user_hint).await.expect("load_login fails only if the store fails")
}

/// Checks that `load_login` returns the same record as `load`.
async fn assert_loads_same_record<S: LoginStore<User = Account>>(store: &S, key: &SessionKey) {
    let login = load_login(store, key, None).await.expect("the login is found");
    assert_eq!(*login.record, stored_record(store, key).await);
}

/// `load_login` returns the record and its user, both as they are stored now.
pub async fn load_login_returns_the_record_and_its_user_as_stored_now<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account> + LoginStore,
{
    let mut account = insert_new_account(&*store).await;
    let record = create_session(&*store, account.id()).await;
    for user_hint in [None, Some(account.id())] {
        let found = load_login(&*store, &record.key, user_hint).await.expect("the login is found");
        assert_eq!(*found.record, record);
        assert_eq!(found.user.as_deref(), Some(&account));
    }
    account.set_password_hash("another hash");
    assert!(replace(&*store, &account).await.expect("the call fails only if the store fails"));
    let found =
        load_login(&*store, &record.key, Some(account.id())).await.expect("the login is found");
    assert_eq!(found.user.as_deref(), Some(&account), "the user is returned as stored now");
}

/// `load_login` returns every field of the record, even after the session was used or ended.
pub async fn load_login_returns_every_field_of_the_record<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account> + LoginStore,
{
    let (account, other_account) =
        (insert_new_account(&*store).await, insert_new_account(&*store).await);
    let end = new_end("of_a_newer_node".parse().expect("this text is a valid end reason"));
    for details in unusual_details() {
        let record = create_session_with(&*store, account.id(), |record| {
            record.acting_user = Some(other_account.id().clone());
            record.remember = None;
            record.details = SessionDetails::new(details);
        })
        .await;
        let key = record.key;
        assert_loads_same_record(&*store, &key).await;
        rotate(&*store, &new_rotation(&record, now())).await;
        mark_seen(&*store, &[SeenMark::new(key, 1, now())]).await;
        touch(&*store, &[Touch::new(key, now().plus(9), now().plus(1_000_000))]).await;
        assert_loads_same_record(&*store, &key).await;
        revoke(&*store, &key, &end).await;
        assert_loads_same_record(&*store, &key).await;
    }
    let key = create_session(&*store, account.id()).await.key;
    revoke_all(&*store, account.id(), None, &end).await;
    assert_loads_same_record(&*store, &key).await;
}

/// If `user_hint` is not the user of the record, `load_login` ignores it.
pub async fn load_login_ignores_a_wrong_user_hint<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account> + LoginStore,
{
    let (account, other_account) =
        (insert_new_account(&*store).await, insert_new_account(&*store).await);
    let record = create_session(&*store, account.id()).await;
    let unknown_id = UserId::from(unique_text("id"));
    for user_hint in [other_account.id(), &unknown_id, &"a\0b".into(), &"".into()] {
        let found =
            load_login(&*store, &record.key, Some(user_hint)).await.expect("the login is found");
        assert_eq!(*found.record, record);
        assert_eq!(found.user.as_deref(), Some(&account), "user_hint {user_hint:?}");
    }
}

/// If the user of a record was deleted, `load_login` returns the record without a user.
pub async fn load_login_returns_no_user_if_the_user_was_deleted<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account> + LoginStore,
{
    let account = insert_new_account(&*store).await;
    let record = create_session(&*store, account.id()).await;
    assert!(store.delete(account.id()).await.expect("the call fails only if the store fails"));
    for user_hint in [None, Some(account.id())] {
        let found = load_login(&*store, &record.key, user_hint).await.expect("the record is found");
        assert_eq!((&*found.record, found.user), (&record, None));
    }
}

/// `load_login` returns `None` for an unknown key, with or without a `user_hint`.
pub async fn load_login_returns_none_for_an_unknown_key<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account> + LoginStore,
{
    let account = insert_new_account(&*store).await;
    for user_hint in [None, Some(account.id())] {
        assert!(load_login(&*store, &SessionKey::new([7; 32]), user_hint).await.is_none());
    }
}
