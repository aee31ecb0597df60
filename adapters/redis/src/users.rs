//! Finds, writes and deletes users. `names.rs` claims their login names.

use std::ops::ControlFlow;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;
use tower_keep_core::{
    AuthUser, ChangeUser, Modified, StoreResult, UserDirectory, UserId, UserLookup, UserStore,
    async_trait,
};

use crate::access::Access;
use crate::error::{Error, STORE_NAME};
use crate::names::Claim;
use crate::script::Commit;
use crate::store::{MAX_CONCURRENT, RedisStore, StoredUser};

impl<U: AuthUser> RedisStore<U> {
    async fn find_user(
        &self,
        id: &UserId,
        access: Access,
        deadline: Instant,
    ) -> Result<Option<StoredUser<U>>, Error> {
        let key = self.keys().of(id).user();
        let value = self.get(&key, access, deadline).await?;
        value.map(|value| self.shared.users.read(id, &value)).transpose()
    }

    async fn find_by_login_name(
        &self,
        login_name: &str,
        deadline: Instant,
    ) -> Result<Option<StoredUser<U>>, Error> {
        let key = self.keys().login_name(login_name);
        let mut value_before = None;
        loop {
            let Some(value) = self.get(&key, Access::ReadLatest, deadline).await? else {
                return Ok(None);
            };
            if value_before.as_ref() == Some(&value) {
                return Ok(None);
            }
            let claim = Claim::read(&value)?;
            match self.find_user(&claim.id, Access::ReadLatest, deadline).await? {
                Some(found) if found.claim_token == claim.token => return Ok(Some(found)),
                // Either no user has this claim, or another claim was completed between the two
                // reads. In the second case the name's key has another value when it is read again.
                _ => value_before = Some(value),
            }
        }
    }

    /// Replaces the user `before`, who was read from `value`, by `after`. `claim` is the user's
    /// claim to the login name of `before`. Returns `false` if the stored value has changed since
    /// it was read.
    async fn replace_user(
        &self,
        (before, value): (&U, Vec<u8>),
        after: &U,
        claim: &Claim,
        deadline: Instant,
    ) -> Result<bool, Error> {
        let users = &self.shared.users;
        let (old_name, new_name) = ((users.login_name)(before), (users.login_name)(after));
        let key = self.keys().of(&claim.id).user();
        let mut commit = Commit::default();
        commit.require_value(key.clone(), value);
        if old_name == new_name && self.renew_name(claim, new_name, deadline).await? {
            commit.set(key, users.write(&claim.token, after)?, users.life());
            return Ok(commit.run(self.servers(), deadline).await?.is_ok());
        }
        let new_claim = Claim::new(&claim.id)?;
        commit.set(key, users.write(&new_claim.token, after)?, users.life());
        let _ = self.begin_claim(Commit::default(), &new_claim, deadline).await?;
        self.claim_name(&new_claim, new_name, deadline).await?;
        self.complete_claim(&mut commit, &new_claim);
        let is_written = commit.run(self.servers(), deadline).await?.is_ok();
        if is_written {
            // If the old name's key is not deleted, it holds a claim that no user has, and has no
            // effect. So an error is ignored.
            let _ = self.release_name(claim, old_name, deadline).await;
        } else {
            self.release_name(&new_claim, new_name, deadline).await?;
        }
        Ok(is_written)
    }
}

#[async_trait]
impl<U: AuthUser> UserStore for RedisStore<U> {
    type User = U;

    async fn by_id(&self, id: &UserId) -> StoreResult<Option<Arc<U>>> {
        let found = self.find_user(id, Access::Read, self.deadline()).await?;
        Ok(found.map(|found| Arc::new(found.user)))
    }
}

#[async_trait]
impl<U: AuthUser> UserLookup for RedisStore<U> {
    async fn by_login_name(&self, login_name: &str) -> StoreResult<Option<Arc<U>>> {
        let found = self.find_by_login_name(login_name, self.deadline()).await?;
        Ok(found.map(|found| Arc::new(found.user)))
    }
}

#[async_trait]
impl<U: AuthUser> UserDirectory for RedisStore<U> {
    async fn by_ids(&self, ids: &[UserId]) -> StoreResult<Vec<Option<Arc<U>>>> {
        let deadline = self.deadline();
        let found = stream::iter(ids.to_vec())
            .map(|id| async move { self.find_user(&id, Access::Read, deadline).await });
        let found: Vec<_> = found.buffered(MAX_CONCURRENT).try_collect().await?;
        Ok(found.into_iter().map(|found| found.map(|found| Arc::new(found.user))).collect())
    }

    async fn insert(&self, user: &U) -> StoreResult<()> {
        let deadline = self.deadline();
        let (id, users) = (user.id(), &self.shared.users);
        let login_name = (users.login_name)(user);
        let keys = self.keys().of(&id);
        while Instant::now() < deadline {
            let claim = Claim::new(&id)?;
            let value = users.write(&claim.token, user)?;
            let mut begin = Commit::default();
            begin.require_absent(keys.user());
            if self.begin_claim(begin, &claim, deadline).await?.is_err() {
                return Err(Error::taken("id").into());
            }
            self.claim_name(&claim, login_name, deadline).await?;
            let mut complete = Commit::default();
            // The index of this condition is 0. It fails if the id is taken.
            complete.require_absent(keys.user());
            self.complete_claim(&mut complete, &claim);
            complete.set(keys.user(), value, users.life());
            match complete.run(self.servers(), deadline).await? {
                Ok(()) => return Ok(()),
                Err(failed) => {
                    self.release_name(&claim, login_name, deadline).await?;
                    if failed.index == 0 {
                        return Err(Error::taken("id").into());
                    }
                }
            }
        }
        Err(Error::contended().into())
    }

    async fn modify(
        &self,
        id: &UserId,
        change: &mut ChangeUser<'_, U>,
    ) -> StoreResult<Modified<U>> {
        let deadline = self.deadline();
        let key = self.keys().of(id).user();
        while Instant::now() < deadline {
            let Some(value) = self.get(&key, Access::ReadLatest, deadline).await? else {
                return Ok(Modified::Missing);
            };
            let StoredUser { user, claim_token } = self.shared.users.read(id, &value)?;
            let before = Arc::new(user);
            let after = match Modified::next(&before, change, STORE_NAME)? {
                ControlFlow::Continue(after) => after,
                ControlFlow::Break(done) => return Ok(done),
            };
            let claim = Claim { id: id.clone(), token: claim_token };
            if self.replace_user((&before, value), &after, &claim, deadline).await? {
                return Ok(Modified::Changed(after));
            }
        }
        Err(Error::contended().into())
    }

    async fn delete(&self, id: &UserId) -> StoreResult<bool> {
        let deadline = self.deadline();
        let key = self.keys().of(id).user();
        while Instant::now() < deadline {
            let Some(value) = self.get(&key, Access::ReadLatest, deadline).await? else {
                return Ok(false);
            };
            let stored = self.shared.users.read(id, &value);
            let mut commit = Commit::default();
            commit.require_value(key.clone(), value);
            commit.delete(key.clone());
            if commit.run(self.servers(), deadline).await?.is_ok() {
                // A user who can't be read is deleted, too. Their login name's key stays, and holds
                // a claim that no user has.
                if let Ok(StoredUser { user, claim_token }) = stored {
                    let login_name = (self.shared.users.login_name)(&user);
                    let claim = Claim { id: id.clone(), token: claim_token };
                    let _ = self.release_name(&claim, login_name, deadline).await;
                }
                return Ok(true);
            }
        }
        Err(Error::contended().into())
    }
}
