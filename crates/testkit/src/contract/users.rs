//! The contracts of [`UserStore`](tower_keep_core::UserStore) and [`UserDirectory`].

use std::sync::Arc;

use tower_keep_core::{
    Account, AuthUser, Modified, PasswordChange, PasswordStore, StoreError, StoreErrorKind,
    UserDirectory, UserDirectoryExt, UserId,
};

use super::{STEPS, TASKS, compete, interrupted, odd_texts, settled, tasks, unique};

clauses! {
    UserDirectory<User = Account>;
    a_user_is_found_by_id_as_stored
    a_user_is_found_by_login_name_byte_for_byte
    unknown_and_odd_ids_and_names_find_nobody
    odd_ids_and_names_are_kept_or_refused
    by_ids_returns_one_entry_for_each_id_in_order
    a_taken_id_or_name_conflicts_and_nothing_is_written
    of_concurrent_inserts_one_succeeds
    insert_if_absent_can_be_repeated
    a_change_replaces_the_user_and_frees_the_name
    a_change_sees_the_stored_user_and_may_leave_it
    a_change_of_the_id_is_refused
    a_change_to_a_taken_name_conflicts_and_nothing_is_written
    of_concurrent_renames_to_one_name_one_succeeds
    a_change_of_nobody_inserts_nothing
    no_change_is_lost
    a_password_is_set_only_over_the_stamp_that_was_seen
    a_rehash_is_written_only_over_the_hash_that_was_seen
    a_deleted_user_is_gone_and_the_name_is_free
    an_interrupted_insert_leaves_all_or_nothing
    an_interrupted_change_leaves_the_old_or_the_new
    an_interrupted_delete_leaves_all_or_nothing
}

/// Creates an account with an id and a login name of its own.
fn new_account() -> Account {
    Account::new(unique("id"), unique("name"), "a password's hash")
}

async fn insert<S: UserDirectory<User = Account>>(store: &S, account: &Account) {
    store.insert(account).await.expect("a new account is inserted");
}

async fn by_id<S: UserDirectory<User = Account>>(store: &S, id: &UserId) -> Option<Account> {
    let found = store.by_id(id).await.expect("by_id fails only if the store fails");
    found.map(|account| Account::clone(&account))
}

async fn by_login_name<S: UserDirectory<User = Account>>(
    store: &S,
    login: &str,
) -> Option<Account> {
    let found =
        store.by_login_name(login).await.expect("by_login_name fails only if the store fails");
    found.map(|account| Account::clone(&account))
}

fn is_conflict<T>(result: &Result<T, StoreError>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == StoreErrorKind::Conflict)
}

/// What is stored for an account, found by its id and by its login name.
type Found = (Option<Account>, Option<Account>);

async fn by_id_and_name<S: UserDirectory<User = Account>>(store: &S, account: &Account) -> Found {
    (by_id(store, account.id()).await, by_login_name(store, account.login_name()).await)
}

/// An inserted user is found by id, with every field as it was stored.
pub async fn a_user_is_found_by_id_as_stored<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    let stamped = new_account().with_security_stamp([0, 0xFF, b'\n']);
    for account in [new_account(), new_account().with_active(false), stamped] {
        insert(&*store, &account).await;
        assert_eq!(by_id(&*store, account.id()).await, Some(account));
    }
}

/// A login name is compared byte for byte: case, spaces and Unicode forms count.
pub async fn a_user_is_found_by_login_name_byte_for_byte<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    let name = unique("Ada\u{e9}");
    let account = Account::new(unique("id"), name.clone(), "hash");
    insert(&*store, &account).await;
    assert_eq!(by_login_name(&*store, &name).await, Some(account));
    let others = [
        name.to_lowercase(),
        name.to_uppercase(),
        format!("{name} "),
        format!(" {name}"),
        name.replace('\u{e9}', "e\u{301}"),
        name.replace('\u{e9}', "e"),
        name[..name.len() - 1].to_owned(),
    ];
    for other in others {
        assert_eq!(by_login_name(&*store, &other).await, None, "{other:?}");
    }
}

/// An id or name that is unknown, or can't be one of this store's, finds no user. It is not an
/// error.
pub async fn unknown_and_odd_ids_and_names_find_nobody<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    for odd in odd_texts().into_iter().chain([String::new(), "x".repeat(70_000)]) {
        let id = UserId::from(odd.as_str());
        assert_eq!(by_id(&*store, &id).await, None, "{odd:?}");
        assert_eq!(by_login_name(&*store, &odd).await, None, "{odd:?}");
        let many = store.by_ids(&[id.clone(), id]).await.expect("odd ids are not an error");
        assert!(many.len() == 2 && many.iter().all(Option::is_none), "{odd:?}");
    }
}

/// A user with an odd id or name is either stored exactly as given, or rejected and not written.
pub async fn odd_ids_and_names_are_kept_or_refused<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    for odd in odd_texts() {
        for account in
            [Account::new(odd.as_str(), unique("name"), ""), Account::new(unique("id"), &*odd, "")]
        {
            let is_kept = store.insert(&account).await.is_ok();
            let kept = is_kept.then_some(account.clone());
            assert_eq!(by_id_and_name(&*store, &account).await, (kept.clone(), kept), "{odd:?}");
        }
    }
}

/// `by_ids` returns one entry for each id, in order, even if ids are unknown or occur twice.
pub async fn by_ids_returns_one_entry_for_each_id_in_order<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    let (one, other) = (new_account(), new_account());
    insert(&*store, &one).await;
    insert(&*store, &other).await;
    let unknown = UserId::from(unique("id"));
    let ids = [other.id(), &unknown, one.id(), other.id(), one.id()];
    let ids = ids.map(UserId::from);
    let found = store.by_ids(&ids).await.expect("no error");
    let found: Vec<_> = found.iter().map(Option::as_deref).collect();
    assert_eq!(found, [Some(&other), None, Some(&one), Some(&other), Some(&one)]);
    assert!(store.by_ids(&[]).await.expect("no error").is_empty());
}

/// Ids and login names are unique. Inserting a taken one is a conflict and writes nothing.
pub async fn a_taken_id_or_name_conflicts_and_nothing_is_written<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    let account = new_account();
    insert(&*store, &account).await;
    let same_id = Account::new(account.id(), unique("name"), "other");
    assert!(is_conflict(&store.insert(&same_id).await), "the id is taken");
    assert_eq!(by_id_and_name(&*store, &same_id).await, (Some(account.clone()), None));
    let same_name = Account::new(unique("id"), account.login_name(), "other");
    assert!(is_conflict(&store.insert(&same_name).await), "the name is taken");
    assert_eq!(by_id_and_name(&*store, &same_name).await, (None, Some(account.clone())));
    assert!(is_conflict(&store.insert(&account).await), "both are taken");
}

/// If many tasks insert one login name or one id concurrently, one succeeds and the others
/// conflict.
pub async fn of_concurrent_inserts_one_succeeds<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account> + 'static,
{
    let (id, name) = (unique("id"), unique("name"));
    for same_id in [false, true] {
        let results = compete(TASKS, |_| {
            let store = Arc::clone(&store);
            let (other_id, other_name) = (unique("id"), unique("name"));
            let account = if same_id {
                Account::new(id.as_str(), other_name, "")
            } else {
                Account::new(other_id, name.as_str(), "")
            };
            async move { store.insert(&account).await }
        })
        .await;
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "one is inserted");
        assert_eq!(results.iter().filter(|result| is_conflict(result)).count(), results.len() - 1);
    }
}

/// Replaces the stored user by this one. Returns whether there was a stored user.
///
/// This is for tests that know everything about the user. An application would lose what others
/// wrote in the meantime, so it should change the user that it reads instead.
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

/// A user who has to exist at every start is inserted once, and a taken id or name is not an error.
pub async fn insert_if_absent_can_be_repeated<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    let account = new_account();
    assert!(store.insert_if_absent(&account).await.expect("no error"), "it was not there");
    let later = Account::new(account.id(), account.login_name(), "another hash");
    assert!(!store.insert_if_absent(&later).await.expect("no error"), "it is there");
    let namesake = Account::new(unique("id"), account.login_name(), "");
    assert!(!store.insert_if_absent(&namesake).await.expect("no error"), "the name is taken");
    assert_eq!(by_id_and_name(&*store, &account).await, (Some(account.clone()), Some(account)));
}

/// A change replaces the whole user, and the earlier login name becomes free for others.
pub async fn a_change_replaces_the_user_and_frees_the_name<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    let before = new_account();
    insert(&*store, &before).await;
    let after = Account::new(before.id(), unique("name"), "another hash").with_active(false);
    let changed = store.modify(before.id(), &mut |_| Some(after.clone())).await;
    assert_eq!(changed.expect("no error"), Modified::Changed(Arc::new(after.clone())));
    assert_eq!(by_id_and_name(&*store, &after).await, (Some(after.clone()), Some(after.clone())));
    assert_eq!(
        by_login_name(&*store, before.login_name()).await,
        None,
        "no user has the earlier name"
    );
    let new_owner = Account::new(unique("id"), before.login_name(), "");
    insert(&*store, &new_owner).await;
    assert_eq!(by_login_name(&*store, before.login_name()).await, Some(new_owner));
    assert!(
        replace(&*store, &after).await.expect("no error"),
        "the same once more is a change too"
    );
}

/// The change function gets the user as stored now, and may decide to write nothing.
pub async fn a_change_sees_the_stored_user_and_may_leave_it<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    let account = new_account().with_security_stamp([0, 0xFF]);
    insert(&*store, &account).await;
    let mut seen = Vec::new();
    let result = store
        .modify(account.id(), &mut |stored| {
            seen.push(stored.clone());
            None
        })
        .await;
    assert_eq!(result.expect("no error"), Modified::Unchanged(Arc::new(account.clone())));
    assert!(!seen.is_empty() && seen.iter().all(|seen| *seen == account), "{seen:?}");
    assert_eq!(by_id_and_name(&*store, &account).await, (Some(account.clone()), Some(account)));
}

/// An id never changes: a change that returns another id is an error.
pub async fn a_change_of_the_id_is_refused<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    let account = new_account();
    insert(&*store, &account).await;
    let other = Account::new(unique("id"), account.login_name(), "");
    let refused = store.modify(account.id(), &mut |_| Some(other.clone())).await;
    let kind = refused.map_err(|error| error.kind());
    assert_eq!(kind, Err(StoreErrorKind::Unsupported));
    assert_eq!(by_id_and_name(&*store, &account).await, (Some(account.clone()), Some(account)));
    assert_eq!(by_id(&*store, other.id()).await, None);
}

/// A user can't take another user's login name.
pub async fn a_change_to_a_taken_name_conflicts_and_nothing_is_written<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    let (one, other) = (new_account(), new_account());
    insert(&*store, &one).await;
    insert(&*store, &other).await;
    let renamed = Account::new(one.id(), other.login_name(), "changed");
    assert!(is_conflict(&replace(&*store, &renamed).await), "the name is the other's");
    assert_eq!(by_id_and_name(&*store, &one).await, (Some(one.clone()), Some(one)));
    assert_eq!(by_id_and_name(&*store, &other).await, (Some(other.clone()), Some(other)));
}

/// If many users take one free name concurrently, one gets it.
pub async fn of_concurrent_renames_to_one_name_one_succeeds<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account> + 'static,
{
    let (wanted, tasks) = (unique("name"), tasks(10));
    let mut accounts = Vec::new();
    for _ in 0..tasks {
        let account = new_account();
        insert(&*store, &account).await;
        accounts.push(account);
    }
    let results = compete(tasks, |index| {
        let store = Arc::clone(&store);
        let account = Account::new(accounts[index].id(), wanted.as_str(), "");
        async move { replace(&*store, &account).await }
    })
    .await;
    assert_eq!(results.iter().filter(|result| matches!(result, Ok(true))).count(), 1);
    assert_eq!(results.iter().filter(|result| is_conflict(result)).count(), tasks - 1);
    let winner = by_login_name(&*store, &wanted).await.expect("one has the name");
    assert_eq!(by_id(&*store, winner.id()).await, Some(winner));
}

/// If there is no such user, the change function is not called and nothing is written.
pub async fn a_change_of_nobody_inserts_nothing<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    let account = new_account();
    assert!(!replace(&*store, &account).await.expect("no error"));
    assert_eq!(by_id_and_name(&*store, &account).await, (None, None));
    for odd in odd_texts() {
        let nobody = Account::new(odd.as_str(), unique("name"), "");
        assert!(!replace(&*store, &nobody).await.expect("odd ids are not an error"), "{odd:?}");
    }
}

/// If many tasks change one user concurrently, each starts from what the others wrote.
pub async fn no_change_is_lost<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account> + 'static,
{
    let account = new_account();
    insert(&*store, &account).await;
    let results = compete(TASKS, |index| {
        let (store, id) = (Arc::clone(&store), account.id().clone());
        async move {
            let mut append = |stored: &Account| {
                let mut marked = stored.clone();
                marked.set_login_name(format!("{}.{index}", stored.login_name()));
                Some(marked)
            };
            store.modify(&id, &mut append).await
        }
    })
    .await;
    for result in &results {
        assert!(matches!(result, Ok(Modified::Changed(_))), "{result:?}");
    }
    let name = by_id(&*store, account.id()).await.expect("it is there").login_name().to_owned();
    let marks = name.strip_prefix(account.login_name()).expect("the name begins as it did");
    let mut marks: Vec<usize> =
        marks.split('.').skip(1).map(|mark| mark.parse().expect("a mark")).collect();
    marks.sort_unstable();
    assert_eq!(marks, Vec::from_iter(0..results.len()), "all marks are there");
}

/// A new password never undoes what others have written since the request began.
pub async fn a_password_is_set_only_over_the_stamp_that_was_seen<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    let account = new_account();
    let id = account.id();
    let set = async |seen: &Account, hash: &str| {
        store.set_password(id, &seen.security_stamp(), hash).await.expect("no error")
    };
    assert_eq!(set(&account, "too early").await, PasswordChange::Missing);
    insert(&*store, &account).await;
    // The user was deactivated in the meantime. They stay inactive, and the password changes.
    replace(&*store, &account.clone().with_active(false)).await.expect("no error");
    let PasswordChange::Changed(first) = set(&account, "first").await else {
        panic!("the stamp is the one that was seen")
    };
    assert_eq!((first.password_hash(), first.is_active()), ("first", false));
    assert_ne!(first.security_stamp(), account.security_stamp(), "earlier logins end");
    assert_eq!(by_id(&*store, id).await.as_ref(), Some(&*first));
    // The same call again finds its hash stored. A call with another hash came too late.
    assert_eq!(set(&account, "first").await, PasswordChange::Changed(Arc::clone(&first)));
    assert_eq!(set(&account, "second").await, PasswordChange::Stale(Arc::clone(&first)));
    assert_eq!(by_id(&*store, id).await.as_ref(), Some(&*first), "nothing was written");
}

/// A rehash replaces only the hash that was verified, and never changes the security stamp.
pub async fn a_rehash_is_written_only_over_the_hash_that_was_seen<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    let account = new_account();
    let id = account.id();
    let rehash =
        async |seen: &str, hash: &str| store.rehash(id, seen, hash).await.expect("no error");
    assert!(!rehash(account.password_hash(), "stronger").await, "nobody is there");
    insert(&*store, &account).await;
    assert!(!rehash("another hash", "stronger").await, "it is not the stored one");
    assert!(rehash(account.password_hash(), "stronger").await);
    let after = by_id(&*store, id).await.expect("it is there");
    assert_eq!(
        (after.password_hash(), after.security_stamp()),
        ("stronger", account.security_stamp())
    );
    assert!(!rehash(account.password_hash(), "weaker").await, "that one is not stored any more");
    assert_eq!(by_id(&*store, id).await, Some(after));
}

/// Deleting a user frees the login name, and can be repeated.
pub async fn a_deleted_user_is_gone_and_the_name_is_free<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    let account = new_account();
    insert(&*store, &account).await;
    assert!(store.delete(account.id()).await.expect("no error"), "there was one");
    assert_eq!(by_id_and_name(&*store, &account).await, (None, None));
    assert!(!store.delete(account.id()).await.expect("no error"), "there is none any more");
    let new_owner = Account::new(unique("id"), account.login_name(), "");
    insert(&*store, &new_owner).await;
    for odd in odd_texts() {
        assert!(!store.delete(&UserId::from(odd)).await.expect("odd ids are not an error"));
    }
}

/// A dropped insert has inserted the user under both the id and the login name, or not at all.
pub async fn an_interrupted_insert_leaves_all_or_nothing<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    for step in 0..STEPS {
        let account = new_account();
        interrupted(step, store.insert(&account)).await;
        let (id, login) = settled(|| by_id_and_name(&*store, &account)).await;
        assert_eq!(id, login, "found by id and by name, or by neither");
        assert!(id.is_none_or(|found| found == account));
    }
}

/// A dropped change leaves the user either as before or as changed, never a mixture.
pub async fn an_interrupted_change_leaves_the_old_or_the_new<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    for step in 0..STEPS {
        let before = new_account();
        insert(&*store, &before).await;
        let after = Account::new(before.id(), unique("name"), "another hash");
        interrupted(step, replace(&*store, &after)).await;
        let read = || async {
            let by_old_name = by_login_name(&*store, before.login_name()).await;
            (by_id_and_name(&*store, &after).await, by_old_name)
        };
        let found = settled(read).await;
        let as_before = ((Some(before.clone()), None), Some(before.clone()));
        let as_after = ((Some(after.clone()), Some(after.clone())), None);
        assert!(found == as_before || found == as_after, "{found:?}");
    }
}

/// A dropped delete has removed the user under both the id and the login name, or not at all.
pub async fn an_interrupted_delete_leaves_all_or_nothing<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    for step in 0..STEPS {
        let account = new_account();
        insert(&*store, &account).await;
        interrupted(step, store.delete(account.id())).await;
        let (id, login) = settled(|| by_id_and_name(&*store, &account)).await;
        assert_eq!(id, login, "found by id and by name, or by neither");
    }
}
