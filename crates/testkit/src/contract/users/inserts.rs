//! Inserting users: clauses of `insert` and `insert_if_absent`.

use std::sync::Arc;

use tower_keep_core::{Account, UserDirectory, UserDirectoryExt};

use super::calls::{
    assert_is_stored, by_id_and_name, insert_new_account, is_conflict, new_account,
};
use crate::contract::drops::{DROP_STEPS, poll_then_drop, wait_until_settled};
use crate::contract::tasks::{COMPETING_TASKS, run_concurrently};
use crate::contract::values::{unique_text, unusual_texts};

/// A user with an unusual id or name is either stored exactly as given, or `insert` returns
/// an error and writes nothing.
pub async fn users_with_unusual_ids_or_names_are_stored_as_given_or_rejected<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    for text in unusual_texts() {
        for account in [
            Account::new(text.as_str(), unique_text("name"), ""),
            Account::new(unique_text("id"), &*text, ""),
        ] {
            let is_stored = store.insert(&account).await.is_ok();
            let expected = is_stored.then_some(account.clone());
            assert_eq!(
                by_id_and_name(&*store, &account).await,
                (expected.clone(), expected),
                "{text:?}"
            );
        }
    }
}

/// Ids and login names are unique. Inserting a user whose id or name is taken returns a conflict
/// and writes nothing.
pub async fn insert_with_a_taken_id_or_name_conflicts_and_writes_nothing<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    let account = insert_new_account(&*store).await;
    let same_id = Account::new(account.id(), unique_text("name"), "other");
    assert!(is_conflict(&store.insert(&same_id).await), "the id is taken");
    assert_eq!(by_id_and_name(&*store, &same_id).await, (Some(account.clone()), None));
    let same_name = Account::new(unique_text("id"), account.login_name(), "other");
    assert!(is_conflict(&store.insert(&same_name).await), "the name is taken");
    assert_eq!(by_id_and_name(&*store, &same_name).await, (None, Some(account.clone())));
    assert!(is_conflict(&store.insert(&account).await), "both are taken");
}

/// If many tasks concurrently insert users with the same login name or the same id, exactly one
/// insert succeeds. The others return a conflict.
pub async fn exactly_one_concurrent_insert_succeeds<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account> + 'static,
{
    let (id, name) = (unique_text("id"), unique_text("name"));
    for with_same_id in [false, true] {
        let results = run_concurrently(COMPETING_TASKS, |_| {
            let store = Arc::clone(&store);
            let (other_id, other_name) = (unique_text("id"), unique_text("name"));
            let account = if with_same_id {
                Account::new(id.as_str(), other_name, "")
            } else {
                Account::new(other_id, name.as_str(), "")
            };
            async move { store.insert(&account).await }
        })
        .await;
        assert_eq!(
            results.iter().filter(|result| result.is_ok()).count(),
            1,
            "one insert succeeds"
        );
        assert_eq!(results.iter().filter(|result| is_conflict(result)).count(), results.len() - 1);
    }
}

/// `insert_if_absent` inserts a user only once. A taken id or name is not an error.
pub async fn insert_if_absent_can_be_repeated<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    let account = new_account();
    assert!(
        store.insert_if_absent(&account).await.expect("the call fails only if the store fails"),
        "the user was not stored before"
    );
    let later = Account::new(account.id(), account.login_name(), "another hash");
    assert!(
        !store.insert_if_absent(&later).await.expect("the call fails only if the store fails"),
        "the id is taken"
    );
    let namesake = Account::new(unique_text("id"), account.login_name(), "");
    assert!(
        !store.insert_if_absent(&namesake).await.expect("the call fails only if the store fails"),
        "the name is taken"
    );
    assert_is_stored(&*store, &account).await;
}

/// If the future of `insert` is dropped, the user is found by both the id and the login name, or by
/// neither.
pub async fn dropping_the_future_of_insert_leaves_all_or_nothing<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    for step in 0..DROP_STEPS {
        let account = new_account();
        poll_then_drop(step, store.insert(&account)).await;
        let (by_id, by_name) = wait_until_settled(|| by_id_and_name(&*store, &account)).await;
        assert_eq!(by_id, by_name, "found by both id and name, or by neither");
        assert!(by_id.is_none_or(|found| found == account));
    }
}
