//! Finds, inserts, changes and deletes users.

use std::ops::ControlFlow;
use std::sync::Arc;

use tower_keep_core::{
    AuthUser, ChangeUser, Modified, StoreResult, UserDirectory, UserId, UserLookup, UserStore,
    async_trait,
};

use crate::error::{NAME, conflict};
use crate::store::MemoryStore;

#[async_trait]
impl<U: AuthUser + Clone> UserStore for MemoryStore<U> {
    type User = U;

    async fn by_id(&self, id: &UserId) -> StoreResult<Option<Arc<U>>> {
        Ok(self.read().by_id.get(id).cloned())
    }
}

#[async_trait]
impl<U: AuthUser + Clone> UserLookup for MemoryStore<U> {
    async fn by_login_name(&self, login_name: &str) -> StoreResult<Option<Arc<U>>> {
        let users = self.read();
        Ok(users.ids_by_login_name.get(login_name).and_then(|id| users.by_id.get(id)).cloned())
    }
}

#[async_trait]
impl<U: AuthUser + Clone> UserDirectory for MemoryStore<U> {
    async fn by_ids(&self, ids: &[UserId]) -> StoreResult<Vec<Option<Arc<U>>>> {
        let users = self.read();
        Ok(ids.iter().map(|id| users.by_id.get(id).cloned()).collect())
    }

    async fn insert(&self, user: &U) -> StoreResult<()> {
        let (id, login_name) = (user.id(), (self.login_name)(user).to_owned());
        let user = Arc::new(user.clone());
        let mut users = self.write();
        if users.by_id.contains_key(&id) || users.ids_by_login_name.contains_key(&login_name) {
            return Err(conflict());
        }
        users.ids_by_login_name.insert(login_name, id.clone());
        users.by_id.insert(id, user);
        Ok(())
    }

    async fn modify(
        &self,
        id: &UserId,
        change: &mut ChangeUser<'_, U>,
    ) -> StoreResult<Modified<U>> {
        loop {
            let Some(stored) = self.read().by_id.get(id).cloned() else {
                return Ok(Modified::Missing);
            };
            let after = match Modified::next(&stored, change, NAME)? {
                ControlFlow::Continue(after) => after,
                ControlFlow::Break(done) => return Ok(done),
            };
            let old_name = (self.login_name)(&stored);
            let new_name = (self.login_name)(&after);
            let mut users = self.write();
            if !users.by_id.get(id).is_some_and(|current| Arc::ptr_eq(current, &stored)) {
                // Another call changed the user first, so `change` runs again on the changed user.
                continue;
            }
            if users.ids_by_login_name.get(new_name).is_some_and(|owner| owner != id) {
                return Err(conflict());
            }
            users.ids_by_login_name.remove(old_name);
            users.ids_by_login_name.insert(new_name.to_owned(), id.clone());
            users.by_id.insert(id.clone(), Arc::clone(&after));
            return Ok(Modified::Changed(after));
        }
    }

    async fn delete(&self, id: &UserId) -> StoreResult<bool> {
        let mut users = self.write();
        let Some(stored) = users.by_id.get(id).cloned() else { return Ok(false) };
        users.ids_by_login_name.remove((self.login_name)(&stored));
        users.by_id.remove(id);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use tower_keep_core::{Account, StoreErrorKind};

    use super::*;

    fn ada() -> Account {
        Account::new(1, "ada", "hash")
    }

    async fn store_with_ada() -> MemoryStore<Account> {
        let store = MemoryStore::new();
        store.insert(&ada()).await.unwrap();
        store
    }

    async fn rename(
        store: &MemoryStore<Account>,
        id: i64,
        login_name: &str,
    ) -> StoreResult<Modified<Account>> {
        let renamed = |_: &Account| Some(Account::new(id, login_name, ""));
        store.modify(&id.into(), &mut { renamed }).await
    }

    fn is_conflict<T>(result: StoreResult<T>) -> bool {
        result.is_err_and(|error| error.kind() == StoreErrorKind::Conflict)
    }

    #[tokio::test]
    async fn users_are_found_by_id_and_by_login_name_byte_for_byte() {
        let store = store_with_ada().await;
        assert_eq!(store.by_id(&"1".into()).await.unwrap().as_deref(), Some(&ada()));
        assert_eq!(store.by_login_name("ada").await.unwrap().as_deref(), Some(&ada()));
        for unknown in ["Ada", "ada ", "", "a\0da", "2"] {
            assert!(store.by_id(&unknown.into()).await.unwrap().is_none());
            assert!(store.by_login_name(unknown).await.unwrap().is_none());
        }
        let ids = ["2", "1", "1"].map(UserId::from);
        let found = store.by_ids(&ids).await.unwrap();
        assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, true]);
    }

    #[tokio::test]
    async fn ids_and_login_names_are_unique() {
        let store = store_with_ada().await;
        assert!(is_conflict(store.insert(&Account::new(1, "other", "")).await));
        assert!(is_conflict(store.insert(&Account::new(2, "ada", "")).await));
        assert!(store.by_id(&"2".into()).await.unwrap().is_none());
        store.insert(&Account::new(2, "grace", "")).await.unwrap();
        assert!(is_conflict(rename(&store, 2, "ada").await));
        assert_eq!(store.by_login_name("grace").await.unwrap().unwrap().id().as_str(), "2");
    }

    #[tokio::test]
    async fn a_renamed_or_deleted_user_frees_the_login_name() {
        let store = store_with_ada().await;
        assert!(matches!(rename(&store, 1, "lovelace").await, Ok(Modified::Changed(_))));
        assert!(store.by_login_name("ada").await.unwrap().is_none());
        store.insert(&Account::new(2, "ada", "")).await.unwrap();
        assert!(store.delete(&"2".into()).await.unwrap());
        assert!(!store.delete(&"2".into()).await.unwrap());
        assert!(store.by_login_name("ada").await.unwrap().is_none());
        assert_eq!(rename(&store, 2, "ada").await.unwrap(), Modified::Missing);
        store.insert(&Account::new(3, "ada", "")).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn only_one_of_many_inserts_of_the_same_login_name_succeeds() {
        let store = MemoryStore::new();
        let inserts: Vec<_> = (0..50)
            .map(|id| {
                let store = store.clone();
                tokio::spawn(async move { store.insert(&Account::new(id, "ada", "")).await })
            })
            .collect();
        let mut succeeded = 0;
        for insert in inserts {
            succeeded += usize::from(insert.await.unwrap().is_ok());
        }
        assert_eq!(succeeded, 1);
    }

    #[tokio::test]
    async fn users_of_any_type_can_be_stored() {
        use std::borrow::Cow;
        #[derive(Clone)]
        struct Employee {
            number: u32,
            email: String,
        }
        impl AuthUser for Employee {
            fn id(&self) -> UserId {
                self.number.into()
            }
            fn security_stamp(&self) -> Cow<'_, [u8]> {
                Cow::Borrowed(b"")
            }
        }
        let store = MemoryStore::with_login_name(|employee: &Employee| &employee.email);
        store.insert(&Employee { number: 7, email: "ada@example.com".into() }).await.unwrap();
        assert_eq!(store.by_login_name("ada@example.com").await.unwrap().unwrap().number, 7);
        // The store also works as a trait object.
        let object: Arc<dyn UserDirectory<User = Employee>> = Arc::new(store);
        assert!(object.by_id(&"7".into()).await.unwrap().is_some());
    }
}
