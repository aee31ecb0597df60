//! Users, and whose each login name is.
//!
//! A user and their login name are in different slots, so they can't be written at one moment. The
//! user's value decides: a login name is theirs if its key names them and the claim that their value
//! holds. A name is taken in three steps: a key beside the user says that a claim is pending, the name's
//! key gets the claim, and then the user is written with it, on condition that it is still pending. What
//! was broken off in between leaves a claim that nobody has, which the next who wants the name takes
//! over. No clock decides anything.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::{Instant, sleep};
use tower_keep_core::{
    AuthUser, StoreError, StoreErrorKind, UserDirectory, UserFinder, UserId, UserStore, async_trait,
};

use crate::RedisStore;
use crate::error::Fault;
use crate::format;
use crate::script::{Commit, Life, Refused};
use crate::servers::Use;
use crate::store::{Found, contended, millis};

/// How many users are asked for at once.
const ASKED_AT_ONCE: usize = 64;

/// A pending claim is over by itself after that long.
const PENDING: Duration = Duration::from_secs(60);

/// Who finds a name's claim pending waits so often and so long, and then breaks it off: who is at it
/// needs a round trip more.
const LOOKS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);

/// A name outlives its user by that much, where users expire.
const MARGIN: Duration = Duration::from_secs(3_600);

/// Whose a login name is, as its key says.
struct Holder {
    claim: String,
    id: UserId,
}

/// What has become of a claim.
#[derive(PartialEq)]
enum State {
    /// The user has the name by it.
    Taken,
    /// It is about to be that.
    Pending,
    /// Nobody has it, and nobody will.
    Stale,
}

fn conflict(what: &str) -> Fault {
    Fault::new(StoreErrorKind::Conflict, format!("the {what} is taken"))
}

/// Random, so that no two are alike.
fn new_claim() -> Result<String, Fault> {
    let random = getrandom::u64().map_err(|error| {
        Fault::new(StoreErrorKind::Unavailable, format!("no random numbers: {error}"))
    })?;
    Ok(format!("{random:016x}"))
}

impl Holder {
    fn write(claim: &str, id: &UserId) -> Vec<u8> {
        format!("{claim} {id}").into_bytes()
    }

    fn read(value: &[u8]) -> Result<Self, Fault> {
        let corrupt =
            || Fault::corrupt("the key of a login name is not what this store has written");
        let text = std::str::from_utf8(value).map_err(|_| corrupt())?;
        let (claim, id) = text.split_once(' ').ok_or_else(corrupt)?;
        Ok(Self { claim: claim.to_owned(), id: id.into() })
    }
}

impl<U: AuthUser> RedisStore<U> {
    async fn found(
        &self,
        id: &UserId,
        whose: Use,
        deadline: Instant,
    ) -> Result<Option<Found<U>>, Fault> {
        let key = self.keys().of(id).user();
        let value = self.get(&key, whose, deadline).await?;
        value.map(|value| self.shared.users.read(id, &value)).transpose()
    }

    async fn found_by_login(
        &self,
        login: &str,
        deadline: Instant,
    ) -> Result<Option<Found<U>>, Fault> {
        let key = self.keys().login(login);
        let mut before = None;
        loop {
            let Some(value) = self.get(&key, Use::ReadLatest, deadline).await? else {
                return Ok(None);
            };
            if before.as_ref() == Some(&value) {
                return Ok(None);
            }
            let Holder { claim, id } = Holder::read(&value)?;
            match self.found(&id, Use::ReadLatest, deadline).await? {
                Some(found) if found.claim == claim => return Ok(Some(found)),
                // Nobody's; or it has changed hands in between, so look again.
                _ => before = Some(value),
            }
        }
    }

    async fn inserted(&self, user: &U) -> Result<(), Fault> {
        let deadline = self.deadline();
        let (id, users) = (user.id(), &self.shared.users);
        let keys = self.keys().of(&id);
        while Instant::now() < deadline {
            let claim = new_claim()?;
            let value = users.write(&claim, user)?;
            let mut begin = Commit::default();
            begin.if_absent(keys.user());
            begin.set(keys.pending(&claim), b"1".to_vec(), Life::Millis(millis(PENDING)));
            if begin.run(self.servers(), deadline).await?.is_err() {
                return Err(conflict("id"));
            }
            self.claim(&id, &claim, (users.login_name)(user), deadline).await?;
            let mut end = Commit::default();
            end.if_absent(keys.user());
            end.if_is(keys.pending(&claim), "1");
            end.set(keys.user(), value, users.life());
            end.delete(keys.pending(&claim));
            match end.run(self.servers(), deadline).await? {
                Ok(()) => return Ok(()),
                Err(refused) => {
                    self.release(&id, &claim, (users.login_name)(user), deadline).await?;
                    if refused == Refused(0) {
                        return Err(conflict("id"));
                    }
                }
            }
        }
        Err(contended())
    }

    async fn updated(&self, user: &U) -> Result<bool, Fault> {
        let deadline = self.deadline();
        let (id, users) = (user.id(), &self.shared.users);
        let login = (users.login_name)(user);
        let keys = self.keys().of(&id);
        while Instant::now() < deadline {
            let Some(value) = self.get(&keys.user(), Use::ReadLatest, deadline).await? else {
                return Ok(false);
            };
            let before = users.read(&id, &value)?;
            let earlier = (users.login_name)(&before.user);
            if earlier == login && self.keeps_name(&id, &before.claim, login, deadline).await? {
                let mut end = Commit::default();
                end.if_is(keys.user(), value);
                end.set(keys.user(), users.write(&before.claim, user)?, users.life());
                match end.run(self.servers(), deadline).await? {
                    Ok(()) => return Ok(true),
                    Err(_) => continue,
                }
            }
            let claim = new_claim()?;
            let after = users.write(&claim, user)?;
            let mut begin = Commit::default();
            begin.set(keys.pending(&claim), b"1".to_vec(), Life::Millis(millis(PENDING)));
            let _ = begin.run(self.servers(), deadline).await?;
            self.claim(&id, &claim, login, deadline).await?;
            let mut end = Commit::default();
            end.if_is(keys.user(), value);
            end.if_is(keys.pending(&claim), "1");
            end.set(keys.user(), after, users.life());
            end.delete(keys.pending(&claim));
            match end.run(self.servers(), deadline).await? {
                Ok(()) => {
                    // The user has it no more, whether its key is gone or not.
                    let _ = self.release(&id, &before.claim, earlier, deadline).await;
                    return Ok(true);
                }
                Err(_) => self.release(&id, &claim, login, deadline).await?,
            }
        }
        Err(contended())
    }

    async fn deleted(&self, id: &UserId) -> Result<bool, Fault> {
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
                // One who can't be read goes as well; nobody has their name then.
                if let Ok(Found { user, claim }) = before {
                    let login = (self.shared.users.login_name)(&user);
                    let _ = self.release(id, &claim, login, deadline).await;
                }
                return Ok(true);
            }
        }
        Err(contended())
    }

    /// Writes to a name's key that this user claims it, or finds that it is taken.
    async fn claim(
        &self,
        id: &UserId,
        claim: &str,
        login: &str,
        deadline: Instant,
    ) -> Result<(), Fault> {
        let key = self.keys().login(login);
        let (mut looks, mut looked_at) = (0, None);
        while Instant::now() < deadline {
            let holder = self.get(&key, Use::ReadLatest, deadline).await?;
            if let Some(value) = &holder {
                if looked_at != holder {
                    (looks, looked_at) = (0, holder.clone());
                }
                let holder = Holder::read(value)?;
                match self.state(&holder, deadline).await? {
                    // By another call for the same user, which this one's last step will notice.
                    State::Taken if holder.id == *id => return Ok(()),
                    State::Taken => {
                        self.break_off(id, claim, deadline).await?;
                        return Err(conflict("login name"));
                    }
                    State::Pending if looks < LOOKS => {
                        looks += 1;
                        sleep(PAUSE).await;
                        continue;
                    }
                    State::Pending => {
                        self.break_off(&holder.id, &holder.claim, deadline).await?;
                        // Only another look tells whether it was still pending.
                        continue;
                    }
                    State::Stale => {}
                }
            }
            let mut take = Commit::default();
            match holder {
                None => take.if_absent(key.clone()),
                Some(value) => take.if_is(key.clone(), value),
            }
            take.set(key.clone(), Holder::write(claim, id), self.name_life());
            if take.run(self.servers(), deadline).await?.is_ok() {
                return Ok(());
            }
        }
        Err(contended())
    }

    async fn state(&self, holder: &Holder, deadline: Instant) -> Result<State, Fault> {
        let keys = self.keys().of(&holder.id);
        // In this order: what is not pending any more has been decided.
        let pending = self.get(&keys.pending(&holder.claim), Use::ReadLatest, deadline).await?;
        let value = self.get(&keys.user(), Use::ReadLatest, deadline).await?;
        let user = value.as_deref().map(format::Value::read).transpose()?;
        if user.is_some_and(|user| user.claim == holder.claim) {
            return Ok(State::Taken);
        }
        Ok(if pending.is_some() { State::Pending } else { State::Stale })
    }

    /// Whoever was about to write with this claim won't.
    async fn break_off(&self, id: &UserId, claim: &str, deadline: Instant) -> Result<(), Fault> {
        let mut delete = Commit::default();
        delete.delete(self.keys().of(id).pending(claim));
        delete.run(self.servers(), deadline).await.map(drop)
    }

    /// Frees a name, unless it is another's by now.
    async fn release(
        &self,
        id: &UserId,
        claim: &str,
        login: &str,
        deadline: Instant,
    ) -> Result<(), Fault> {
        self.break_off(id, claim, deadline).await?;
        let key = self.keys().login(login);
        let mut free = Commit::default();
        free.if_is(key.clone(), Holder::write(claim, id));
        free.delete(key);
        free.run(self.servers(), deadline).await.map(drop)
    }

    /// Whether the name's key says that it is this user's, as it does unless a failover has lost it; and
    /// where users expire, names do so later.
    async fn keeps_name(
        &self,
        id: &UserId,
        claim: &str,
        login: &str,
        deadline: Instant,
    ) -> Result<bool, Fault> {
        let (key, holder) = (self.keys().login(login), Holder::write(claim, id));
        let mut keep = Commit::default();
        keep.if_is(key.clone(), holder.clone());
        keep.set(key, holder, self.name_life());
        keep.run(self.servers(), deadline).await.map(|kept| kept.is_ok())
    }

    fn name_life(&self) -> Life {
        let life = self.shared.users.life;
        life.map_or(Life::Forever, |life| Life::Millis(millis(life.saturating_add(MARGIN))))
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
impl<U: AuthUser> UserFinder for RedisStore<U> {
    async fn by_login(&self, login: &str) -> Result<Option<Arc<U>>, StoreError> {
        let found = self.found_by_login(login, self.deadline()).await?;
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

    async fn update(&self, user: &U) -> Result<bool, StoreError> {
        Ok(self.updated(user).await?)
    }

    async fn delete(&self, id: &UserId) -> Result<bool, StoreError> {
        Ok(self.deleted(id).await?)
    }
}
