//! Deleting users: clauses of `delete`.

use std::sync::Arc;

use tower_keep_core::{Account, UserDirectory, UserId};

use super::calls::{by_id_and_name, insert, insert_new_account};
use crate::contract::drops::{DROP_STEPS, poll_then_drop, wait_until_settled};
use crate::contract::values::{unique_text, unusual_texts};

/// `delete` removes the user and frees the login name. It can be repeated.
pub async fn delete_removes_the_user_and_frees_the_name<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    let account = insert_new_account(&*store).await;
    assert!(
        store.delete(account.id()).await.expect("the call fails only if the store fails"),
        "the user was stored"
    );
    assert_eq!(by_id_and_name(&*store, &account).await, (None, None));
    assert!(
        !store.delete(account.id()).await.expect("the call fails only if the store fails"),
        "the user is already deleted"
    );
    let new_owner = Account::new(unique_text("id"), account.login_name(), "");
    insert(&*store, &new_owner).await;
    for text in unusual_texts() {
        assert!(!store.delete(&UserId::from(text)).await.expect("unusual ids are not an error"));
    }
}

/// If the future of `delete` is dropped, the user is found by both the id and the login name, or by
/// neither.
pub async fn dropping_the_future_of_delete_leaves_all_or_nothing<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    for step in 0..DROP_STEPS {
        let account = insert_new_account(&*store).await;
        poll_then_drop(step, store.delete(account.id())).await;
        let (by_id, by_name) = wait_until_settled(|| by_id_and_name(&*store, &account)).await;
        assert_eq!(by_id, by_name, "found by both id and name, or by neither");
    }
}
