//! A complete store in one file, to begin an adapter with: users and sessions in maps behind one
//! lock. Replace the maps by your database.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tower_keep_core::{
    Account, ChangeUser, Creation, End, LoginStore, Modified, NewLogin, Rotated, Rotation,
    SeenMark, SessionKey, SessionRecord, SessionStore, StoreError, StoreErrorKind, StoreResult,
    Timestamp, Touch, UserDirectory, UserId, UserLookup, UserStore, async_trait,
    most_recently_used,
};

/// The store's name in errors and in the log.
const NAME: &str = "map";

/// Keeps users and sessions in maps. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct MapStore(Arc<Mutex<Maps>>);

#[derive(Debug, Default)]
struct Maps {
    users: HashMap<UserId, Arc<Account>>,
    sessions: HashMap<SessionKey, Arc<SessionRecord>>,
}

impl MapStore {
    /// No lock is held across an await, and none while a function of the application runs.
    fn lock(&self) -> MutexGuard<'_, Maps> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Maps {
    fn is_name_taken(&self, login_name: &str, except: Option<&UserId>) -> bool {
        let has_name = |user: &&Arc<Account>| user.login_name() == login_name;
        self.users.values().filter(has_name).any(|user| Some(user.id()) != except)
    }

    /// Writes what `change` returns for this record, if it returns a record.
    fn change(
        &mut self,
        key: &SessionKey,
        change: impl FnOnce(&SessionRecord) -> Option<SessionRecord>,
    ) -> bool {
        let changed = self.sessions.get(key).and_then(|record| change(record));
        let is_changed = changed.is_some();
        self.sessions.extend(changed.map(|record| (*key, Arc::new(record))));
        is_changed
    }

    fn sessions_of(&self, user: &UserId) -> Vec<Arc<SessionRecord>> {
        self.sessions.values().filter(|record| record.user == *user).cloned().collect()
    }
}

fn conflict(message: &'static str) -> StoreError {
    StoreError::new(StoreErrorKind::Conflict, NAME).with_message(message)
}

// The layer needs this trait only.
#[async_trait]
impl UserStore for MapStore {
    type User = Account;

    async fn by_id(&self, id: &UserId) -> StoreResult<Option<Arc<Account>>> {
        Ok(self.lock().users.get(id).cloned())
    }
}

// For sign-in forms.
#[async_trait]
impl UserLookup for MapStore {
    async fn by_login_name(&self, login_name: &str) -> StoreResult<Option<Arc<Account>>> {
        let maps = self.lock();
        Ok(maps.users.values().find(|user| user.login_name() == login_name).cloned())
    }
}

// For sign-up forms and changes.
#[async_trait]
impl UserDirectory for MapStore {
    async fn insert(&self, user: &Account) -> StoreResult<()> {
        let mut maps = self.lock();
        if maps.users.contains_key(user.id()) || maps.is_name_taken(user.login_name(), None) {
            return Err(conflict("the id or the login name is taken"));
        }
        maps.users.insert(user.id().clone(), Arc::new(user.clone()));
        Ok(())
    }

    async fn modify(
        &self,
        id: &UserId,
        change: &mut ChangeUser<'_, Account>,
    ) -> StoreResult<Modified<Account>> {
        loop {
            let Some(stored) = self.by_id(id).await? else { return Ok(Modified::Missing) };
            let changed = match Modified::next(&stored, change, NAME)? {
                ControlFlow::Continue(changed) => changed,
                ControlFlow::Break(result) => return Ok(result),
            };
            let mut maps = self.lock();
            // A compare-and-swap: if another call has written the user, `change` runs again.
            if !maps.users.get(id).is_some_and(|current| Arc::ptr_eq(current, &stored)) {
                continue;
            }
            if maps.is_name_taken(changed.login_name(), Some(id)) {
                return Err(conflict("the login name is taken"));
            }
            maps.users.insert(id.clone(), Arc::clone(&changed));
            return Ok(Modified::Changed(changed));
        }
    }

    async fn delete(&self, id: &UserId) -> StoreResult<bool> {
        Ok(self.lock().users.remove(id).is_some())
    }
}

// For server-side sessions. The rules are in core: `plan` for a login, and `apply_to` for the rest.
#[async_trait]
impl SessionStore for MapStore {
    async fn create(&self, login: &NewLogin<'_>) -> StoreResult<Creation> {
        let mut maps = self.lock();
        let of_user = maps.sessions_of(&login.record.user);
        let plan = login.plan(NAME, of_user, |key| maps.sessions.get(key).cloned())?;
        maps.sessions.extend(plan.writes.into_iter().map(|record| (record.key, Arc::new(record))));
        Ok(plan.creation)
    }

    async fn load(&self, key: &SessionKey) -> StoreResult<Option<Arc<SessionRecord>>> {
        Ok(self.lock().sessions.get(key).cloned())
    }

    async fn rotate(&self, rotation: &Rotation) -> StoreResult<Option<Rotated>> {
        let mut maps = self.lock();
        let has_won = maps.change(&rotation.key, |record| rotation.apply_to(record));
        let record = maps.sessions.get(&rotation.key).cloned();
        Ok(record.map(if has_won { Rotated::Won } else { Rotated::Lost }))
    }

    async fn mark_seen(&self, marks: &[SeenMark]) -> StoreResult<()> {
        let mut maps = self.lock();
        for mark in marks {
            maps.change(&mark.key, |record| mark.apply_to(record));
        }
        Ok(())
    }

    async fn touch(&self, touches: &[Touch]) -> StoreResult<()> {
        let mut maps = self.lock();
        for touch in touches {
            maps.change(&touch.key, |record| touch.apply_to(record));
        }
        Ok(())
    }

    async fn revoke(&self, keys: &[SessionKey], end: &End) -> StoreResult<usize> {
        let mut maps = self.lock();
        let mut live_count = 0;
        for key in keys {
            let is_live = maps.sessions.get(key).is_some_and(|record| record.is_live(end.at));
            live_count += usize::from(is_live);
            maps.change(key, |record| end.apply_to(record, None));
        }
        Ok(live_count)
    }

    // A database does this with one write, however many sessions there are: see `Epoch`.
    async fn revoke_all(
        &self,
        user: &UserId,
        except: Option<&SessionKey>,
        end: &End,
    ) -> StoreResult<()> {
        let mut maps = self.lock();
        for record in maps.sessions_of(user) {
            if Some(&record.key) != except {
                maps.change(&record.key, |record| end.apply_to(record, None));
            }
        }
        Ok(())
    }

    async fn list(
        &self,
        user: &UserId,
        now: Timestamp,
        limit: usize,
    ) -> StoreResult<Vec<Arc<SessionRecord>>> {
        Ok(most_recently_used(self.lock().sessions_of(user), now, limit))
    }

    async fn purge(&self, before: Timestamp, limit: usize) -> StoreResult<usize> {
        let mut maps = self.lock();
        let expired = maps.sessions.values().filter(|record| record.expires <= before);
        let keys: Vec<_> = expired.map(|record| record.key).take(limit).collect();
        keys.iter().for_each(|key| drop(maps.sessions.remove(key)));
        Ok(keys.len())
    }
}

// The provided method loads the session, then the user. A database can do both in one round trip.
impl LoginStore for MapStore {}
