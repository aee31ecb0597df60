//! The calls of a store of users that must succeed, and the accounts that they take.

use tower_keep_core::{
    Account, AuthUser, Modified, StoreErrorKind, StoreResult, UserDirectory, UserId,
};

use crate::contract::values::unique_text;

/// Creates an account with a new id and a new login name.
pub(super) fn new_account() -> Account {
    Account::new(unique_text("id"), unique_text("name"), "a password's hash")
}

pub(super) async fn insert<S: UserDirectory<User = Account>>(store: &S, account: &Account) {
    store.insert(account).await.expect("an account with a new id and a new name is inserted");
}

/// Inserts a [`new_account`] into the store, and returns the account.
pub(crate) async fn insert_new_account<S: UserDirectory<User = Account>>(store: &S) -> Account {
    let account = new_account();
    insert(store, &account).await;
    account
}

pub(super) async fn by_id<S: UserDirectory<User = Account>>(
    store: &S,
    id: &UserId,
) -> Option<Account> {
    let found = store.by_id(id).await.expect("by_id fails only if the store fails");
    found.map(|account| Account::clone(&account))
}

pub(super) async fn by_login_name<S: UserDirectory<User = Account>>(
    store: &S,
    login_name: &str,
) -> Option<Account> {
    let found =
        store.by_login_name(login_name).await.expect("by_login_name fails only if the store fails");
    found.map(|account| Account::clone(&account))
}

pub(super) fn is_conflict<T>(result: &StoreResult<T>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == StoreErrorKind::Conflict)
}

/// The account that `by_id` finds, and the account that `by_login_name` finds.
pub(super) type FoundByIdAndName = (Option<Account>, Option<Account>);

/// Looks up the id and the login name of this account.
pub(super) async fn by_id_and_name<S: UserDirectory<User = Account>>(
    store: &S,
    account: &Account,
) -> FoundByIdAndName {
    (by_id(store, account.id()).await, by_login_name(store, account.login_name()).await)
}

/// Checks that both the id and the login name of this account find the account as it is.
pub(super) async fn assert_is_stored<S: UserDirectory<User = Account>>(
    store: &S,
    account: &Account,
) {
    let expected = (Some(account.clone()), Some(account.clone()));
    assert_eq!(by_id_and_name(store, account).await, expected);
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
pub async fn replace<S>(store: &S, user: &S::User) -> StoreResult<bool>
where
    S: UserDirectory<User: Clone> + ?Sized,
{
    let modified = store.modify(&user.id(), &mut |_| Some(user.clone())).await?;
    Ok(matches!(modified, Modified::Changed(_)))
}
