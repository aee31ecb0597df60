//! Changing users: clauses of `modify`.

use std::sync::Arc;

use tower_keep_core::{Account, Modified, StoreErrorKind, UserDirectory};

use super::calls::{
    assert_is_stored, by_id, by_id_and_name, by_login_name, insert, insert_new_account,
    is_conflict, new_account, replace,
};
use crate::contract::drops::{DROP_STEPS, poll_then_drop, wait_until_settled};
use crate::contract::tasks::{COMPETING_TASKS, allowed_tasks, run_concurrently};
use crate::contract::values::{unique_text, unusual_texts};

/// `modify` replaces the whole user. If the login name changes, the old name becomes free.
pub async fn modify_replaces_the_user_and_frees_the_old_name<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    let before = insert_new_account(&*store).await;
    let after = Account::new(before.id(), unique_text("name"), "another hash").with_active(false);
    let modified = store.modify(before.id(), &mut |_| Some(after.clone())).await;
    assert_eq!(
        modified.expect("the call fails only if the store fails"),
        Modified::Changed(Arc::new(after.clone()))
    );
    assert_is_stored(&*store, &after).await;
    assert_eq!(by_login_name(&*store, before.login_name()).await, None, "no user has the old name");
    let new_owner = Account::new(unique_text("id"), before.login_name(), "");
    insert(&*store, &new_owner).await;
    assert_eq!(by_login_name(&*store, before.login_name()).await, Some(new_owner));
    assert!(
        replace(&*store, &after).await.expect("the call fails only if the store fails"),
        "writing the stored user again counts as a change"
    );
}

/// `modify` passes the stored user to the change function. If the function returns `None`, nothing
/// is written.
pub async fn modify_passes_the_stored_user_and_writes_nothing_if_the_change_returns_none<S>(
    store: Arc<S>,
) where
    S: UserDirectory<User = Account>,
{
    let account = new_account().with_security_stamp([0, 0xFF]);
    insert(&*store, &account).await;
    let mut passed = Vec::new();
    let result = store
        .modify(account.id(), &mut |stored| {
            passed.push(stored.clone());
            None
        })
        .await;
    assert_eq!(
        result.expect("the call fails only if the store fails"),
        Modified::Unchanged(Arc::new(account.clone()))
    );
    assert!(!passed.is_empty() && passed.iter().all(|user| *user == account), "{passed:?}");
    assert_is_stored(&*store, &account).await;
}

/// If the change function returns a user with another id, `modify` returns an error and writes
/// nothing.
pub async fn modify_rejects_a_change_of_the_id<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    let account = insert_new_account(&*store).await;
    let other = Account::new(unique_text("id"), account.login_name(), "");
    let result = store.modify(account.id(), &mut |_| Some(other.clone())).await;
    assert_eq!(result.map_err(|error| error.kind()), Err(StoreErrorKind::Unsupported));
    assert_is_stored(&*store, &account).await;
    assert_eq!(by_id(&*store, other.id()).await, None);
}

/// If the new login name is another user's, `modify` returns a conflict and writes nothing.
pub async fn modify_to_a_taken_name_conflicts_and_writes_nothing<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    let (first, second) = (insert_new_account(&*store).await, insert_new_account(&*store).await);
    let renamed = Account::new(first.id(), second.login_name(), "changed");
    assert!(is_conflict(&replace(&*store, &renamed).await), "the name is taken");
    assert_is_stored(&*store, &first).await;
    assert_is_stored(&*store, &second).await;
}

/// If many users are renamed to the same free name concurrently, exactly one of them gets the name.
pub async fn exactly_one_concurrent_rename_to_the_same_name_succeeds<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account> + 'static,
{
    let (new_name, tasks) = (unique_text("name"), allowed_tasks(10));
    let mut accounts = Vec::new();
    for _ in 0..tasks {
        let account = insert_new_account(&*store).await;
        accounts.push(account);
    }
    let results = run_concurrently(tasks, |index| {
        let store = Arc::clone(&store);
        let account = Account::new(accounts[index].id(), new_name.as_str(), "");
        async move { replace(&*store, &account).await }
    })
    .await;
    assert_eq!(results.iter().filter(|result| matches!(result, Ok(true))).count(), 1);
    assert_eq!(results.iter().filter(|result| is_conflict(result)).count(), tasks - 1);
    let winner = by_login_name(&*store, &new_name).await.expect("one user has the name");
    assert_eq!(by_id(&*store, winner.id()).await, Some(winner));
}

/// If no user has the id, `modify` inserts nothing. An unusual id is not an error.
pub async fn modify_of_an_unknown_id_inserts_nothing<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    let account = new_account();
    assert!(!replace(&*store, &account).await.expect("the call fails only if the store fails"));
    assert_eq!(by_id_and_name(&*store, &account).await, (None, None));
    for text in unusual_texts() {
        let unknown = Account::new(text.as_str(), unique_text("name"), "");
        assert!(
            !replace(&*store, &unknown).await.expect("unusual ids are not an error"),
            "{text:?}"
        );
    }
}

/// If many tasks change the same user concurrently, no change is lost: each task changes the user
/// that the earlier tasks have written.
pub async fn no_concurrent_change_is_lost<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account> + 'static,
{
    let account = insert_new_account(&*store).await;
    let results = run_concurrently(COMPETING_TASKS, |index| {
        let (store, id) = (Arc::clone(&store), account.id().clone());
        async move {
            let mut append = |stored: &Account| {
                let mut after = stored.clone();
                after.set_login_name(format!("{}.{index}", stored.login_name()));
                Some(after)
            };
            store.modify(&id, &mut append).await
        }
    })
    .await;
    for result in &results {
        assert!(matches!(result, Ok(Modified::Changed(_))), "{result:?}");
    }
    let after = by_id(&*store, account.id()).await.expect("the user is stored");
    let suffix = after.login_name().strip_prefix(account.login_name());
    let appended = suffix.expect("the tasks only append to the name").split('.').skip(1);
    let mut appended: Vec<usize> =
        appended.map(|index| index.parse().expect("each task appends its index")).collect();
    appended.sort_unstable();
    assert_eq!(appended, Vec::from_iter(0..results.len()), "the name has the index of every task");
}

/// If the future of `modify` is dropped, the user is stored either as before or as changed, never
/// as a mixture.
pub async fn dropping_the_future_of_modify_leaves_the_old_or_the_new_user<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    for step in 0..DROP_STEPS {
        let before = insert_new_account(&*store).await;
        let after = Account::new(before.id(), unique_text("name"), "another hash");
        poll_then_drop(step, replace(&*store, &after)).await;
        let read = || async {
            let by_old_name = by_login_name(&*store, before.login_name()).await;
            (by_id_and_name(&*store, &after).await, by_old_name)
        };
        let found = wait_until_settled(read).await;
        let as_before = ((Some(before.clone()), None), Some(before.clone()));
        let as_after = ((Some(after.clone()), Some(after.clone())), None);
        assert!(found == as_before || found == as_after, "{found:?}");
    }
}
