//! Finds, writes and deletes users. How they claim their login names is in `names.rs`.

use std::ops::ControlFlow;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;
use tower_keep_core::{
    AuthUser, ChangeUser, Modified, StoreError, UserDirectory, UserId, UserLookup, UserStore,
    async_trait,
};

use crate::RedisStore;
use crate::error::{Error, NAME};
use crate::names::{Claim, conflict};
use crate::script::{Commit, Refused};
use crate::servers::Use;
use crate::store::{Found, contended};

/// How many users are read concurrently.
const ASKED_AT_ONCE: usize = 64;

impl<U: AuthUser> RedisStore<U> {
    async fn found(
        &self,
        id: &UserId,
        whose: Use,
        deadline: Instant,
    ) -> Result<Option<Found<U>>, Error> {
        let key = self.keys().of(id).user();
        let value = self.get(&key, whose, deadline).await?;
        value.map(|value| self.shared.users.read(id, &value)).transpose()
    }

    async fn found_by_login(
        &self,
        login: &str,
        deadline: Instant,
    ) -> Result<Option<Found<U>>, Error> {
        let key = self.keys().login(login);
        let mut before = None;
        loop {
            let Some(value) = self.get(&key, Use::ReadLatest, deadline).await? else {
                return Ok(None);
            };
            if before.as_ref() == Some(&value) {
                return Ok(None);
            }
            let claim = Claim::read(&value)?;
            match self.found(&claim.id, Use::ReadLatest, deadline).await? {
                Some(found) if found.claim == claim.token => return Ok(Some(found)),
                // No user has this claim, or the name has passed to another user in between: read
                // again.
                _ => before = Some(value),
            }
        }
    }

    async fn inserted(&self, user: &U) -> Result<(), Error> {
        let deadline = self.deadline();
        let (id, users) = (user.id(), &self.shared.users);
        let login = (users.login_name)(user);
        let keys = self.keys().of(&id);
        while Instant::now() < deadline {
            let claim = Claim::new(&id)?;
            let value = users.write(&claim.token, user)?;
            let mut begin = Commit::default();
            begin.if_absent(keys.user());
            if self.begin_claim(begin, &claim, deadline).await?.is_err() {
                return Err(conflict("id"));
            }
            self.claim(&claim, login, deadline).await?;
            let mut end = Commit::default();
            end.if_absent(keys.user());
            self.end_claim(&mut end, &claim);
            end.set(keys.user(), value, users.life());
            match end.run(self.servers(), deadline).await? {
                Ok(()) => return Ok(()),
                Err(refused) => {
                    self.release(&claim, login, deadline).await?;
                    if refused == Refused(0) {
                        return Err(conflict("id"));
                    }
                }
            }
        }
        Err(contended())
    }

    async fn modified(
        &self,
        id: &UserId,
        change: &mut ChangeUser<'_, U>,
    ) -> Result<Modified<U>, StoreError> {
        let deadline = self.deadline();
        let key = self.keys().of(id).user();
        while Instant::now() < deadline {
            let Some(value) = self.get(&key, Use::ReadLatest, deadline).await? else {
                return Ok(Modified::Missing);
            };
            let Found { user, claim } = self.shared.users.read(id, &value)?;
            let stored = Arc::new(user);
            let after = match Modified::next(&stored, change, NAME)? {
                ControlFlow::Continue(after) => after,
                ControlFlow::Break(done) => return Ok(done),
            };
            let held = Claim { id: id.clone(), token: claim };
            if self.swapped((&stored, value), &after, &held, deadline).await? {
                return Ok(Modified::Changed(after));
            }
        }
        Err(contended().into())
    }

    /// Replaces the user that was read from this value. `held` is that user's claim to their login
    /// name. Returns `false` if the stored value is another one by now.
    async fn swapped(
        &self,
        (before, value): (&U, Vec<u8>),
        after: &U,
        held: &Claim,
        deadline: Instant,
    ) -> Result<bool, Error> {
        let users = &self.shared.users;
        let (earlier, login) = ((users.login_name)(before), (users.login_name)(after));
        let key = self.keys().of(&held.id).user();
        let mut end = Commit::default();
        end.if_is(key.clone(), value);
        if earlier == login && self.keeps_name(held, login, deadline).await? {
            end.set(key, users.write(&held.token, after)?, users.life());
            return Ok(end.run(self.servers(), deadline).await?.is_ok());
        }
        let claim = Claim::new(&held.id)?;
        end.set(key, users.write(&claim.token, after)?, users.life());
        let _ = self.begin_claim(Commit::default(), &claim, deadline).await?;
        self.claim(&claim, login, deadline).await?;
        self.end_claim(&mut end, &claim);
        let is_written = end.run(self.servers(), deadline).await?.is_ok();
        if is_written {
            // The user no longer has the earlier name, even if `release` does not delete its key.
            let _ = self.release(held, earlier, deadline).await;
        } else {
            self.release(&claim, login, deadline).await?;
        }
        Ok(is_written)
    }

    async fn deleted(&self, id: &UserId) -> Result<bool, Error> {
        let deadline = self.deadline();
        let key = self.keys().of(id).user();
        while Instant::now() < deadline {
            let Some(value) = self.get(&key, Use::ReadLatest, deadline).await? else {
                return Ok(false);
            };
            let before = self.shared.users.read(id, &value);
            let mut end = Commit::default();
            end.if_is(key.clone(), value);
            end.delete(key.clone());
            if end.run(self.servers(), deadline).await?.is_ok() {
                // A user who can't be read is deleted as well. No user has their login name then.
                if let Ok(Found { user, claim }) = before {
                    let login = (self.shared.users.login_name)(&user);
                    let claim = Claim { id: id.clone(), token: claim };
                    let _ = self.release(&claim, login, deadline).await;
                }
                return Ok(true);
            }
        }
        Err(contended())
    }
}

#[async_trait]
impl<U: AuthUser> UserStore for RedisStore<U> {
    type User = U;

    async fn by_id(&self, id: &UserId) -> Result<Option<Arc<U>>, StoreError> {
        let found = self.found(id, Use::Read, self.deadline()).await?;
        Ok(found.map(|found| Arc::new(found.user)))
    }
}

#[async_trait]
impl<U: AuthUser> UserLookup for RedisStore<U> {
    async fn by_login_name(&self, login_name: &str) -> Result<Option<Arc<U>>, StoreError> {
        let found = self.found_by_login(login_name, self.deadline()).await?;
        Ok(found.map(|found| Arc::new(found.user)))
    }
}

#[async_trait]
impl<U: AuthUser> UserDirectory for RedisStore<U> {
    async fn by_ids(&self, ids: &[UserId]) -> Result<Vec<Option<Arc<U>>>, StoreError> {
        let deadline = self.deadline();
        let found = stream::iter(ids.to_vec())
            .map(|id| async move { self.found(&id, Use::Read, deadline).await });
        let found: Vec<_> = found.buffered(ASKED_AT_ONCE).try_collect().await?;
        Ok(found.into_iter().map(|found| found.map(|found| Arc::new(found.user))).collect())
    }

    async fn insert(&self, user: &U) -> Result<(), StoreError> {
        Ok(self.inserted(user).await?)
    }

    async fn modify(
        &self,
        id: &UserId,
        change: &mut ChangeUser<'_, U>,
    ) -> Result<Modified<U>, StoreError> {
        self.modified(id, change).await
    }

    async fn delete(&self, id: &UserId) -> Result<bool, StoreError> {
        Ok(self.deleted(id).await?)
    }
}
