//! A complete store in one file, to begin an adapter with: users, sessions and counters in maps
//! behind one lock. Replace the maps with your database.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tower_keep_core::{
    Account, ChangeUser, CounterKey, CounterPlan, CounterState, CounterStore, CounterUse, Creation,
    End, LoginStore, Modified, NewLogin, Rotated, Rotation, SeenMark, SessionKey, SessionRecord,
    SessionStore, StoreError, StoreErrorKind, StoreResult, TakenUse, Taking, Timestamp, Touch,
    UserDirectory, UserId, UserLookup, UserStore, async_trait, most_recently_used,
};

/// The store's name in errors and in the log.
const NAME: &str = "map";

/// Keeps users, sessions and counters in maps. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct MapStore(Arc<Mutex<Maps>>);

#[derive(Debug, Default)]
struct Maps {
    users: HashMap<UserId, Arc<Account>>,
    sessions: HashMap<SessionKey, Arc<SessionRecord>>,
    counters: HashMap<CounterKey, CounterState>,
}

impl MapStore {
    /// The lock is never held across an await, nor while a function of the application runs.
    fn lock(&self) -> MutexGuard<'_, Maps> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Maps {
    /// Stores a user, unless another user has the login name.
    fn put(&mut self, user: Arc<Account>) -> StoreResult<()> {
        let mut others = self.users.values().filter(|other| other.id() != user.id());
        if others.any(|other| other.login_name() == user.login_name()) {
            return Err(StoreError::new(StoreErrorKind::Conflict, NAME));
        }
        self.users.insert(user.id().clone(), user);
        Ok(())
    }

    fn sessions_of(&self, user: &UserId) -> Vec<Arc<SessionRecord>> {
        self.sessions.values().filter(|record| record.user == *user).cloned().collect()
    }

    /// Changes a record, and returns the changed record as `Won`. If `change` returns `None`, this
    /// function returns the stored record as `Lost`.
    fn update(
        &mut self,
        key: &SessionKey,
        change: impl FnOnce(&SessionRecord) -> Option<SessionRecord>,
    ) -> Option<Rotated> {
        let stored = self.sessions.get_mut(key)?;
        let Some(changed) = change(stored) else { return Some(Rotated::Lost(stored.clone())) };
        *stored = Arc::new(changed);
        Some(Rotated::Won(stored.clone()))
    }
}

// All that the layer needs.
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
        Ok(self.lock().users.values().find(|user| user.login_name() == login_name).cloned())
    }
}

// For sign-up forms, and changes of users.
#[async_trait]
impl UserDirectory for MapStore {
    async fn insert(&self, user: &Account) -> StoreResult<()> {
        let mut maps = self.lock();
        if maps.users.contains_key(user.id()) {
            return Err(StoreError::new(StoreErrorKind::Conflict, NAME));
        }
        maps.put(Arc::new(user.clone()))
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
            if maps.users.get(id).is_some_and(|current| Arc::ptr_eq(current, &stored)) {
                return maps.put(changed.clone()).map(|()| Modified::Changed(changed));
            }
        }
    }

    async fn delete(&self, id: &UserId) -> StoreResult<bool> {
        Ok(self.lock().users.remove(id).is_some())
    }
}

// For server-side sessions. The rules are in core: `plan` for a login, `apply_to` for the rest.
#[async_trait]
impl SessionStore for MapStore {
    async fn create(&self, login: &NewLogin<'_>) -> StoreResult<Creation> {
        let mut maps = self.lock();
        let of_user = maps.sessions_of(&login.record.user);
        let plan = login.plan(NAME, of_user, |key| maps.sessions.get(key).cloned())?;
        maps.sessions.extend(plan.writes.into_iter().map(|record| (record.key, record.into())));
        Ok(plan.creation)
    }

    async fn load(&self, key: &SessionKey) -> StoreResult<Option<Arc<SessionRecord>>> {
        Ok(self.lock().sessions.get(key).cloned())
    }

    async fn rotate(&self, rotation: &Rotation) -> StoreResult<Option<Rotated>> {
        Ok(self.lock().update(&rotation.key, |record| rotation.apply_to(record)))
    }

    async fn mark_seen(&self, marks: &[SeenMark]) -> StoreResult<()> {
        let mut maps = self.lock();
        for mark in marks {
            maps.update(&mark.key, |record| mark.apply_to(record));
        }
        Ok(())
    }

    async fn touch(&self, touches: &[Touch]) -> StoreResult<()> {
        let mut maps = self.lock();
        for touch in touches {
            maps.update(&touch.key, |record| touch.apply_to(record));
        }
        Ok(())
    }

    async fn revoke(&self, keys: &[SessionKey], end: &End) -> StoreResult<usize> {
        let (mut maps, mut live) = (self.lock(), 0);
        for key in keys {
            maps.update(key, |record| {
                live += usize::from(record.is_live(end.at));
                end.apply_to(record, None)
            });
        }
        Ok(live)
    }

    // A database does this with one write, however many sessions there are: see `Epoch`.
    async fn revoke_all(
        &self,
        user: &UserId,
        except: Option<&SessionKey>,
        end: &End,
    ) -> StoreResult<()> {
        let mut maps = self.lock();
        for record in maps.sessions_of(user).iter().filter(|record| Some(&record.key) != except) {
            maps.update(&record.key, |record| end.apply_to(record, None));
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
        Ok(maps.sessions.extract_if(|_, record| record.expires <= before).take(limit).count())
    }
}

// The provided method loads the session, then the user. A database can do both in one round trip.
impl LoginStore for MapStore {}

// For limits on guessing, and tokens that work once. The rules are in core, as for sessions.
#[async_trait]
impl CounterStore for MapStore {
    async fn take(&self, uses: &[CounterUse], now: Timestamp) -> StoreResult<Taking> {
        let mut maps = self.lock();
        let plan = CounterPlan::new(uses, now, |key| maps.counters.get(key).copied());
        maps.counters.extend(plan.writes.iter().map(|write| (write.key, write.after)));
        Ok(plan.taking)
    }

    async fn give_back(&self, taken: &[TakenUse]) -> StoreResult<()> {
        let mut maps = self.lock();
        for taken in taken {
            if let Some(state) = maps.counters.get_mut(&taken.key) {
                *state = state.give_back(taken).unwrap_or(*state);
            }
        }
        Ok(())
    }

    async fn reset_counters(&self, keys: &[CounterKey]) -> StoreResult<()> {
        let mut maps = self.lock();
        for key in keys {
            if let Some(state) = maps.counters.get_mut(key) {
                *state = state.reset();
            }
        }
        Ok(())
    }

    async fn purge_counters(&self, before: Timestamp, limit: usize) -> StoreResult<usize> {
        let mut maps = self.lock();
        let expired = maps.counters.iter().filter(|(_, state)| state.expires <= before);
        let keys: Vec<_> = expired.map(|(key, _)| *key).take(limit).collect();
        for key in &keys {
            maps.counters.remove(key);
        }
        Ok(keys.len())
    }
}
