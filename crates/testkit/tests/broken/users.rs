//! The calls about users, each wrong for the clauses that it breaks.

use std::sync::Arc;

use tokio::task::yield_now;
use tower_keep_core::{
    Account, ChangeUser, Modified, StoreResult, UserDirectory, UserId, UserLookup, UserStore,
    async_trait,
};
use tower_keep_testkit::contract::users::replace;

use crate::store::{BrokenStore, error, has_nul, lock};

#[async_trait]
impl UserStore for BrokenStore {
    type User = Account;

    async fn by_id(&self, id: &UserId) -> StoreResult<Option<Arc<Account>>> {
        if self.breaks("unknown_and_unusual_ids_and_names_find_no_user") && has_nul(id.as_str()) {
            return Err(error());
        }
        let found = self.inner.by_id(id).await?;
        if self.breaks("by_id_returns_the_user_as_stored") {
            return Ok(found.map(|account| Arc::new(Account::clone(&account).with_active(true))));
        }
        Ok(found)
    }
}

#[async_trait]
impl UserLookup for BrokenStore {
    async fn by_login_name(&self, login_name: &str) -> StoreResult<Option<Arc<Account>>> {
        let found = self.inner.by_login_name(login_name).await?;
        if found.is_none() && self.breaks("by_login_name_compares_names_byte_for_byte") {
            return self.inner.by_login_name(login_name.trim()).await;
        }
        Ok(found)
    }
}

#[async_trait]
impl UserDirectory for BrokenStore {
    async fn by_ids(&self, ids: &[UserId]) -> StoreResult<Vec<Option<Arc<Account>>>> {
        let mut found = self.inner.by_ids(ids).await?;
        if self.breaks("by_ids_returns_one_entry_for_each_id_in_order") {
            found.sort_by_key(|account| account.as_ref().map(|account| account.id().clone()));
        }
        Ok(found)
    }

    async fn insert(&self, user: &Account) -> StoreResult<()> {
        match self.clause {
            "users_with_unusual_ids_or_names_are_stored_as_given_or_rejected"
                if has_nul(user.login_name()) =>
            {
                return Ok(());
            }
            "insert_with_a_taken_id_or_name_conflicts_and_writes_nothing"
            | "insert_if_absent_can_be_repeated" => {
                self.inner.delete(user.id()).await?;
            }
            "set_password_writes_only_if_the_seen_security_stamp_is_still_stored" => {
                lock(&self.outdated_users).insert(user.id().clone(), Arc::new(user.clone()));
            }
            "exactly_one_concurrent_insert_succeeds" => {
                let _ = self.inner.insert(user).await;
                return Ok(());
            }
            "dropping_the_future_of_insert_leaves_all_or_nothing" => {
                let mut with_temporary_name = user.clone();
                with_temporary_name.set_login_name(format!("{} (temporary)", user.login_name()));
                self.inner.insert(&with_temporary_name).await?;
                yield_now().await;
                replace(&self.inner, user).await?;
                return Ok(());
            }
            _ => {}
        }
        self.inner.insert(user).await
    }

    async fn modify(
        &self,
        id: &UserId,
        change: &mut ChangeUser<'_, Account>,
    ) -> StoreResult<Modified<Account>> {
        let before = self.inner.by_id(id).await?;
        match (self.clause, before) {
            ("modify_of_an_unknown_id_inserts_nothing", None) if !has_nul(id.as_str()) => {
                let user = change(&Account::new(id, "", "")).ok_or_else(error)?;
                self.inner.insert(&user).await?;
                Ok(Modified::Missing)
            }
            ("modify_replaces_the_user_and_frees_the_old_name", Some(before)) => {
                Ok(Modified::Changed(before))
            }
            (
                "modify_passes_the_stored_user_and_writes_nothing_if_the_change_returns_none",
                Some(before),
            ) => {
                let _ = change(&before.as_ref().clone().with_security_stamp([]));
                Ok(Modified::Unchanged(before))
            }
            ("modify_rejects_a_change_of_the_id", Some(before)) => {
                let _ = change(&before);
                Ok(Modified::Changed(before))
            }
            ("modify_to_a_taken_name_conflicts_and_writes_nothing", Some(before)) => {
                let after = change(&before).ok_or_else(error)?;
                if let Some(other) = self.inner.by_login_name(after.login_name()).await? {
                    self.inner.delete(other.id()).await?;
                }
                self.inner.modify(id, change).await
            }
            ("exactly_one_concurrent_rename_to_the_same_name_succeeds", Some(before)) => {
                let modified = self.inner.modify(id, change).await;
                Ok(modified.unwrap_or(Modified::Changed(before)))
            }
            // Behaves like an application that loads the whole user, and writes the whole user back
            // later.
            ("no_concurrent_change_is_lost", Some(before)) => {
                let after = change(&before).ok_or_else(error)?;
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                self.inner.modify(id, &mut |_| Some(after.clone())).await
            }
            ("set_password_writes_only_if_the_seen_security_stamp_is_still_stored", Some(_)) => {
                let outdated = lock(&self.outdated_users).get(id).cloned();
                match outdated {
                    Some(user) => {
                        let after = change(&user).unwrap_or_else(|| Account::clone(&user));
                        self.inner.modify(id, &mut |_| Some(after.clone())).await
                    }
                    None => self.inner.modify(id, change).await,
                }
            }
            ("rehash_writes_only_if_the_seen_hash_is_still_stored", Some(before)) => {
                let after = change(&before).unwrap_or_else(|| {
                    let mut after = Account::clone(&before);
                    after.rehash("a hash that must not be written");
                    after
                });
                self.inner.modify(id, &mut |_| Some(after.clone())).await
            }
            ("dropping_the_future_of_modify_leaves_the_old_or_the_new_user", Some(before)) => {
                let mut half_changed = change(&before).ok_or_else(error)?;
                half_changed.set_login_name(before.login_name());
                replace(&self.inner, &half_changed).await?;
                yield_now().await;
                self.inner.modify(id, change).await
            }
            _ => self.inner.modify(id, change).await,
        }
    }

    async fn delete(&self, id: &UserId) -> StoreResult<bool> {
        if self.breaks("dropping_the_future_of_delete_leaves_all_or_nothing")
            && let Some(before) = self.inner.by_id(id).await?
        {
            let mut half_deleted = Account::clone(&before);
            half_deleted.set_login_name(format!("{} (deleted)", before.login_name()));
            replace(&self.inner, &half_deleted).await?;
            yield_now().await;
        }
        let deleted = self.inner.delete(id).await?;
        Ok(deleted || self.breaks("delete_removes_the_user_and_frees_the_name"))
    }
}
