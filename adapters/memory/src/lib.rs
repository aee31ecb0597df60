//! Stores users and server-side sessions in memory, for tests, examples and small tools.
//!
//! Everything is gone when the process ends, and nothing is shared between processes.
//!
//! ```
//! use tower_keep_core::{Account, UserDirectory, UserLookup};
//! use tower_keep_memory::MemoryStore;
//!
//! # async fn example() -> Result<(), tower_keep_core::StoreError> {
//! let store = MemoryStore::new();
//! store.insert(&Account::new(1, "ada", "$argon2id$…")).await?;
//! assert!(store.by_login_name("ada").await?.is_some());
//! # Ok(()) }
//! ```

mod session_set;
mod sessions;

use std::collections::HashMap;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tower_keep_core::{
    AuthUser, ChangeUser, Creation, End, LoginName, LoginStore, Modified, NewLogin, Rotated,
    Rotation, SeenMark, SessionKey, SessionRecord, SessionStore, StoreError, StoreErrorKind,
    StoredLogin, Timestamp, Touch, UserDirectory, UserId, UserLookup, UserStore, async_trait,
};

pub use sessions::MemorySessions;

/// A store of users, by id and by login name, and of session records, in memory.
///
/// A clone shares the users and records. Reads run concurrently. A write blocks reads only for a
/// few map operations. No lock is held across an await.
pub struct MemoryStore<U> {
    users: Arc<RwLock<Users<U>>>,
    sessions: MemorySessions,
    login_name: fn(&U) -> &str,
}

struct Users<U> {
    by_id: HashMap<UserId, Arc<U>>,
    ids_by_login_name: HashMap<String, UserId>,
}

impl<U: LoginName + Clone> MemoryStore<U> {
    /// Creates an empty store.
    pub fn new() -> Self {
        Self::with_login_name(U::login_name)
    }
}

impl<U: LoginName + Clone> Default for MemoryStore<U> {
    fn default() -> Self {
        Self::new()
    }
}

impl<U: AuthUser + Clone> MemoryStore<U> {
    /// Creates an empty store for a user type that does not implement [`LoginName`].
    ///
    /// ```
    /// # use tower_keep_core::Account as User;
    /// use tower_keep_memory::MemoryStore;
    ///
    /// let store = MemoryStore::with_login_name(|user: &User| user.login_name());
    /// # let _ = store;
    /// ```
    pub fn with_login_name(login_name: fn(&U) -> &str) -> Self {
        let users = Users { by_id: HashMap::new(), ids_by_login_name: HashMap::new() };
        let users = Arc::new(RwLock::new(users));
        Self { users, sessions: MemorySessions::new(), login_name }
    }

    // Only the application's code (`id`, `login_name`, `clone`) can panic under the lock. It runs
    // before either map is changed, so the maps agree even if the lock is poisoned.
    fn read(&self) -> RwLockReadGuard<'_, Users<U>> {
        self.users.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Users<U>> {
        self.users.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl<U: AuthUser + Clone> UserStore for MemoryStore<U> {
    type User = U;

    async fn by_id(&self, id: &UserId) -> Result<Option<Arc<U>>, StoreError> {
        Ok(self.read().by_id.get(id).cloned())
    }
}

#[async_trait]
impl<U: AuthUser + Clone> UserLookup for MemoryStore<U> {
    async fn by_login_name(&self, login_name: &str) -> Result<Option<Arc<U>>, StoreError> {
        let users = self.read();
        Ok(users.ids_by_login_name.get(login_name).and_then(|id| users.by_id.get(id)).cloned())
    }
}

#[async_trait]
impl<U: AuthUser + Clone> UserDirectory for MemoryStore<U> {
    async fn by_ids(&self, ids: &[UserId]) -> Result<Vec<Option<Arc<U>>>, StoreError> {
        let users = self.read();
        Ok(ids.iter().map(|id| users.by_id.get(id).cloned()).collect())
    }

    async fn insert(&self, user: &U) -> Result<(), StoreError> {
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
    ) -> Result<Modified<U>, StoreError> {
        loop {
            let Some(stored) = self.read().by_id.get(id).cloned() else {
                return Ok(Modified::Missing);
            };
            let after = match Modified::next(&stored, change, "memory")? {
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

    async fn delete(&self, id: &UserId) -> Result<bool, StoreError> {
        let mut users = self.write();
        let Some(stored) = users.by_id.get(id).cloned() else { return Ok(false) };
        users.ids_by_login_name.remove((self.login_name)(&stored));
        users.by_id.remove(id);
        Ok(true)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<U: AuthUser + Clone> SessionStore for MemoryStore<U> {
    async fn create(&self, login: &NewLogin<'_>) -> Result<Creation, StoreError> {
        self.sessions.create(login).await
    }

    async fn load(&self, key: &SessionKey) -> Result<Option<Arc<SessionRecord>>, StoreError> {
        self.sessions.load(key).await
    }

    async fn rotate(&self, rotation: &Rotation) -> Result<Option<Rotated>, StoreError> {
        self.sessions.rotate(rotation).await
    }

    async fn mark_seen(&self, marks: &[SeenMark]) -> Result<(), StoreError> {
        self.sessions.mark_seen(marks).await
    }

    async fn touch(&self, touches: &[Touch]) -> Result<(), StoreError> {
        self.sessions.touch(touches).await
    }

    async fn revoke(&self, keys: &[SessionKey], end: &End) -> Result<usize, StoreError> {
        self.sessions.revoke(keys, end).await
    }

    async fn revoke_all(
        &self,
        user: &UserId,
        except: Option<&SessionKey>,
        end: &End,
    ) -> Result<(), StoreError> {
        self.sessions.revoke_all(user, except, end).await
    }

    async fn list(
        &self,
        user: &UserId,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Arc<SessionRecord>>, StoreError> {
        self.sessions.list(user, now, limit).await
    }

    async fn purge(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.sessions.purge(before, limit).await
    }
}

#[async_trait]
impl<U: AuthUser + Clone> LoginStore for MemoryStore<U> {
    async fn load_login(
        &self,
        key: &SessionKey,
        _user_hint: Option<&UserId>,
    ) -> Result<Option<StoredLogin<U>>, StoreError> {
        let Some(record) = self.sessions.find(key) else { return Ok(None) };
        let user = self.read().by_id.get(&record.user).cloned();
        Ok(Some(StoredLogin::new(record, user)))
    }
}

fn conflict() -> StoreError {
    StoreError::new(StoreErrorKind::Conflict, "memory")
}

impl<U> Clone for MemoryStore<U> {
    fn clone(&self) -> Self {
        Self {
            users: Arc::clone(&self.users),
            sessions: self.sessions.clone(),
            login_name: self.login_name,
        }
    }
}

impl<U> fmt::Debug for MemoryStore<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tower_keep_core::Account;

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
    ) -> Result<Modified<Account>, StoreError> {
        let renamed = |_: &Account| Some(Account::new(id, login_name, ""));
        store.modify(&id.into(), &mut { renamed }).await
    }

    fn is_conflict<T>(result: Result<T, StoreError>) -> bool {
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
