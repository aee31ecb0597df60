//! The contracts of [`UserStore`](tower_keep_core::UserStore),
//! [`UserLookup`](tower_keep_core::UserLookup) and [`UserDirectory`].

use std::sync::Arc;

use tower_keep_core::{
    Account, AuthUser, Modified, PasswordChange, PasswordStore, StoreError, StoreErrorKind,
    UserDirectory, UserDirectoryExt, UserId,
};

use super::{
    COMPETING_TASKS, DROP_STEPS, allowed_tasks, poll_then_drop, run_concurrently, unique_text,
    unusual_texts, wait_until_settled,
};

clauses! {
    UserDirectory<User = Account>;
    by_id_returns_the_user_as_stored
    by_login_name_compares_names_byte_for_byte
    unknown_and_unusual_ids_and_names_find_no_user
    users_with_unusual_ids_or_names_are_stored_as_given_or_rejected
    by_ids_returns_one_entry_for_each_id_in_order
    insert_with_a_taken_id_or_name_conflicts_and_writes_nothing
    exactly_one_concurrent_insert_succeeds
    insert_if_absent_can_be_repeated
    modify_replaces_the_user_and_frees_the_old_name
    modify_passes_the_stored_user_and_writes_nothing_if_the_change_returns_none
    modify_rejects_a_change_of_the_id
    modify_to_a_taken_name_conflicts_and_writes_nothing
    exactly_one_concurrent_rename_to_the_same_name_succeeds
    modify_of_an_unknown_id_inserts_nothing
    no_concurrent_change_is_lost
    set_password_writes_only_if_the_seen_security_stamp_is_still_stored
    rehash_writes_only_if_the_seen_hash_is_still_stored
    delete_removes_the_user_and_frees_the_name
    dropping_the_future_of_insert_leaves_all_or_nothing
    dropping_the_future_of_modify_leaves_the_old_or_the_new_user
    dropping_the_future_of_delete_leaves_all_or_nothing
}

/// Creates an account with a new id and a new login name.
fn new_account() -> Account {
    Account::new(unique_text("id"), unique_text("name"), "a password's hash")
}

async fn insert<S: UserDirectory<User = Account>>(store: &S, account: &Account) {
    store.insert(account).await.expect("an account with a new id and a new name is inserted");
}

async fn by_id<S: UserDirectory<User = Account>>(store: &S, id: &UserId) -> Option<Account> {
    let found = store.by_id(id).await.expect("by_id fails only if the store fails");
    found.map(|account| Account::clone(&account))
}

async fn by_login_name<S: UserDirectory<User = Account>>(
    store: &S,
    login_name: &str,
) -> Option<Account> {
    let found =
        store.by_login_name(login_name).await.expect("by_login_name fails only if the store fails");
    found.map(|account| Account::clone(&account))
}

fn is_conflict<T>(result: &Result<T, StoreError>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == StoreErrorKind::Conflict)
}

/// The account that `by_id` finds, and the account that `by_login_name` finds.
type FoundByIdAndName = (Option<Account>, Option<Account>);

/// Looks up the id and the login name of this account.
async fn by_id_and_name<S: UserDirectory<User = Account>>(
    store: &S,
    account: &Account,
) -> FoundByIdAndName {
    (by_id(store, account.id()).await, by_login_name(store, account.login_name()).await)
}

/// `by_id` returns an inserted user, with every field as it was inserted.
pub async fn by_id_returns_the_user_as_stored<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    let with_stamp = new_account().with_security_stamp([0, 0xFF, b'\n']);
    for account in [new_account(), new_account().with_active(false), with_stamp] {
        insert(&*store, &account).await;
        assert_eq!(by_id(&*store, account.id()).await, Some(account));
    }
}

/// Login names are compared byte for byte: names that differ in case, spaces or Unicode
/// normalization are different names.
pub async fn by_login_name_compares_names_byte_for_byte<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    let name = unique_text("Ada\u{e9}");
    let account = Account::new(unique_text("id"), name.clone(), "hash");
    insert(&*store, &account).await;
    assert_eq!(by_login_name(&*store, &name).await, Some(account));
    let similar_names = [
        name.to_lowercase(),
        name.to_uppercase(),
        format!("{name} "),
        format!(" {name}"),
        name.replace('\u{e9}', "e\u{301}"),
        name.replace('\u{e9}', "e"),
        name[..name.len() - 1].to_owned(),
    ];
    for similar in similar_names {
        assert_eq!(by_login_name(&*store, &similar).await, None, "{similar:?}");
    }
}

/// If an id or a name is unknown, or can't exist in this store, no user is found. This is not an
/// error.
pub async fn unknown_and_unusual_ids_and_names_find_no_user<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    for text in unusual_texts().into_iter().chain([String::new(), "x".repeat(70_000)]) {
        let id = UserId::from(text.as_str());
        assert_eq!(by_id(&*store, &id).await, None, "{text:?}");
        assert_eq!(by_login_name(&*store, &text).await, None, "{text:?}");
        let found = store.by_ids(&[id.clone(), id]).await.expect("unusual ids are not an error");
        assert!(found.len() == 2 && found.iter().all(Option::is_none), "{text:?}");
    }
}

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

/// `by_ids` returns one entry for each id, in order, even if ids are unknown or occur twice.
pub async fn by_ids_returns_one_entry_for_each_id_in_order<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    let (first, second) = (new_account(), new_account());
    insert(&*store, &first).await;
    insert(&*store, &second).await;
    let unknown = UserId::from(unique_text("id"));
    let ids = [second.id(), &unknown, first.id(), second.id(), first.id()];
    let ids = ids.map(UserId::from);
    let found = store.by_ids(&ids).await.expect("the call fails only if the store fails");
    let found: Vec<_> = found.iter().map(Option::as_deref).collect();
    assert_eq!(found, [Some(&second), None, Some(&first), Some(&second), Some(&first)]);
    assert!(store.by_ids(&[]).await.expect("the call fails only if the store fails").is_empty());
}

/// Ids and login names are unique. Inserting a user whose id or name is taken returns a conflict
/// and writes nothing.
pub async fn insert_with_a_taken_id_or_name_conflicts_and_writes_nothing<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    let account = new_account();
    insert(&*store, &account).await;
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

/// Replaces the stored user that has the id of `user` with `user`. Returns whether such a user was
/// stored.
///
/// This is for tests, in which no other task writes the user. An application that replaced the
/// whole user would undo concurrent changes. It should pass a change of the stored user to
/// [`modify`](UserDirectory::modify).
///
/// # Errors
///
/// Returns the same errors as [`modify`](UserDirectory::modify).
pub async fn replace<S>(store: &S, user: &S::User) -> Result<bool, StoreError>
where
    S: UserDirectory<User: Clone> + ?Sized,
{
    let modified = store.modify(&user.id(), &mut |_| Some(user.clone())).await?;
    Ok(matches!(modified, Modified::Changed(_)))
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
    assert_eq!(by_id_and_name(&*store, &account).await, (Some(account.clone()), Some(account)));
}

/// `modify` replaces the whole user. If the login name changes, the old name becomes free.
pub async fn modify_replaces_the_user_and_frees_the_old_name<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    let before = new_account();
    insert(&*store, &before).await;
    let after = Account::new(before.id(), unique_text("name"), "another hash").with_active(false);
    let modified = store.modify(before.id(), &mut |_| Some(after.clone())).await;
    assert_eq!(
        modified.expect("the call fails only if the store fails"),
        Modified::Changed(Arc::new(after.clone()))
    );
    assert_eq!(by_id_and_name(&*store, &after).await, (Some(after.clone()), Some(after.clone())));
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
    assert_eq!(by_id_and_name(&*store, &account).await, (Some(account.clone()), Some(account)));
}

/// If the change function returns a user with another id, `modify` returns an error and writes
/// nothing.
pub async fn modify_rejects_a_change_of_the_id<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    let account = new_account();
    insert(&*store, &account).await;
    let other = Account::new(unique_text("id"), account.login_name(), "");
    let result = store.modify(account.id(), &mut |_| Some(other.clone())).await;
    assert_eq!(result.map_err(|error| error.kind()), Err(StoreErrorKind::Unsupported));
    assert_eq!(by_id_and_name(&*store, &account).await, (Some(account.clone()), Some(account)));
    assert_eq!(by_id(&*store, other.id()).await, None);
}

/// If the new login name is another user's, `modify` returns a conflict and writes nothing.
pub async fn modify_to_a_taken_name_conflicts_and_writes_nothing<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    let (first, second) = (new_account(), new_account());
    insert(&*store, &first).await;
    insert(&*store, &second).await;
    let renamed = Account::new(first.id(), second.login_name(), "changed");
    assert!(is_conflict(&replace(&*store, &renamed).await), "the name is taken");
    assert_eq!(by_id_and_name(&*store, &first).await, (Some(first.clone()), Some(first)));
    assert_eq!(by_id_and_name(&*store, &second).await, (Some(second.clone()), Some(second)));
}

/// If many users are renamed to the same free name concurrently, exactly one of them gets the name.
pub async fn exactly_one_concurrent_rename_to_the_same_name_succeeds<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account> + 'static,
{
    let (new_name, tasks) = (unique_text("name"), allowed_tasks(10));
    let mut accounts = Vec::new();
    for _ in 0..tasks {
        let account = new_account();
        insert(&*store, &account).await;
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
    let account = new_account();
    insert(&*store, &account).await;
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

/// `delete` removes the user and frees the login name. It can be repeated.
pub async fn delete_removes_the_user_and_frees_the_name<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    let account = new_account();
    insert(&*store, &account).await;
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

/// If the future of `modify` is dropped, the user is stored either as before or as changed, never
/// as a mixture.
pub async fn dropping_the_future_of_modify_leaves_the_old_or_the_new_user<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    for step in 0..DROP_STEPS {
        let before = new_account();
        insert(&*store, &before).await;
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

/// If the future of `delete` is dropped, the user is found by both the id and the login name, or by
/// neither.
pub async fn dropping_the_future_of_delete_leaves_all_or_nothing<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    for step in 0..DROP_STEPS {
        let account = new_account();
        insert(&*store, &account).await;
        poll_then_drop(step, store.delete(account.id())).await;
        let (by_id, by_name) = wait_until_settled(|| by_id_and_name(&*store, &account)).await;
        assert_eq!(by_id, by_name, "found by both id and name, or by neither");
    }
}
