//! Finding users: clauses of `by_id`, `by_ids` and `by_login_name`.

use std::sync::Arc;

use tower_keep_core::{Account, UserDirectory, UserId};

use super::calls::{by_id, by_login_name, insert, insert_new_account, new_account};
use crate::contract::values::{unique_text, unusual_texts};

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

/// `by_ids` returns one entry for each id, in order, even if ids are unknown or occur twice.
pub async fn by_ids_returns_one_entry_for_each_id_in_order<S>(store: Arc<S>)
where
    S: UserDirectory<User = Account>,
{
    let (first, second) = (insert_new_account(&*store).await, insert_new_account(&*store).await);
    let unknown = UserId::from(unique_text("id"));
    let ids = [second.id(), &unknown, first.id(), second.id(), first.id()];
    let ids = ids.map(UserId::from);
    let found = store.by_ids(&ids).await.expect("the call fails only if the store fails");
    let found: Vec<_> = found.iter().map(Option::as_deref).collect();
    assert_eq!(found, [Some(&second), None, Some(&first), Some(&second), Some(&first)]);
    assert!(store.by_ids(&[]).await.expect("the call fails only if the store fails").is_empty());
}
