//! Which user has which login name.
//!
//! A user and their login name are in different slots, so they can't be written atomically. The
//! user's value decides: a user has a login name if the name's key holds the user's id and the
//! claim that is in the user's value. A name is claimed in three steps. First, a key beside the
//! user says that a claim is pending. Then the name's key gets the claim. Then the user is written
//! with the claim, on condition that it is still pending. An interrupted call leaves a claim that
//! no user has, and the next call that wants the name takes it over. Nothing depends on a clock.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tower_keep_core::{AuthUser, StoreErrorKind, UserId};

use crate::RedisStore;
use crate::error::Error;
use crate::format;
use crate::script::{Commit, FailedCondition, Life};
use crate::servers::Access;
use crate::store::{contended, millis};

/// A pending claim expires after this time.
const PENDING_LIFE: Duration = Duration::from_secs(60);

/// A call that finds another pending claim on its name waits this many times for this long, and
/// then cancels that claim. The call that made the claim needs only one more round trip.
const MAX_WAITS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);

/// If users expire, the key of a login name outlives its user by this much.
const NAME_MARGIN: Duration = Duration::from_secs(3_600);

/// A user's claim to a login name, as the name's key holds it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Claim {
    pub(crate) id: UserId,
    /// Random, so that no two claims are equal.
    pub(crate) token: String,
}

/// The state of a claim.
#[derive(PartialEq)]
enum ClaimState {
    /// The user has the name by this claim.
    Taken,
    /// A call is about to write the user with this claim.
    Pending,
    /// No user has this claim, and no call will write one with it.
    Stale,
}

pub(crate) fn conflict(what: &str) -> Error {
    Error::new(StoreErrorKind::Conflict, format!("the {what} is taken"))
}

impl Claim {
    /// Creates a new claim.
    pub(crate) fn new(id: &UserId) -> Result<Self, Error> {
        let random = getrandom::u64().map_err(|error| {
            Error::new(StoreErrorKind::Unavailable, format!("no random numbers: {error}"))
        })?;
        Ok(Self { id: id.clone(), token: format!("{random:016x}") })
    }

    fn write(&self) -> Vec<u8> {
        format!("{} {}", self.token, self.id).into_bytes()
    }

    pub(crate) fn read(value: &[u8]) -> Result<Self, Error> {
        let corrupt = || {
            Error::corrupt(
                "the key of a login name (`login:…`) is not what this store has written: delete \
                 it, and write its user again with `modify`",
            )
        };
        let text = std::str::from_utf8(value).map_err(|_| corrupt())?;
        let (token, id) = text.split_once(' ').ok_or_else(corrupt)?;
        Ok(Self { token: token.to_owned(), id: id.into() })
    }
}

impl<U: AuthUser> RedisStore<U> {
    /// Returns the key that says that a claim is pending.
    fn pending_key(&self, claim: &Claim) -> String {
        self.keys().of(&claim.id).pending(&claim.token)
    }

    /// Writes that a claim is pending, if the conditions of the commit hold.
    pub(crate) async fn begin_claim(
        &self,
        mut commit: Commit,
        claim: &Claim,
        deadline: Instant,
    ) -> Result<Result<(), FailedCondition>, Error> {
        commit.set(self.pending_key(claim), b"1".to_vec(), Life::Millis(millis(PENDING_LIFE)));
        commit.run(self.servers(), deadline).await
    }

    /// Adds to the commit that writes the user the condition that the claim is still pending. After
    /// that commit the claim is no longer pending.
    pub(crate) fn complete_claim(&self, commit: &mut Commit, claim: &Claim) {
        commit.if_is(self.pending_key(claim), "1");
        commit.delete(self.pending_key(claim));
    }

    /// Writes the claim to the name's key. Returns a conflict if another user has the name.
    pub(crate) async fn claim_name(
        &self,
        claim: &Claim,
        login_name: &str,
        deadline: Instant,
    ) -> Result<(), Error> {
        let key = self.keys().login_name(login_name);
        let (mut waits, mut waited_for) = (0, None);
        while Instant::now() < deadline {
            let holder = self.get(&key, Access::ReadLatest, deadline).await?;
            if let Some(value) = &holder {
                if waited_for != holder {
                    (waits, waited_for) = (0, holder.clone());
                }
                let holder = Claim::read(value)?;
                match self.claim_state(&holder, deadline).await? {
                    // Another call for the same user took the name. The last step of this call will
                    // notice that.
                    ClaimState::Taken if holder.id == claim.id => return Ok(()),
                    ClaimState::Taken => {
                        self.cancel_claim(claim, deadline).await?;
                        return Err(conflict("login name"));
                    }
                    ClaimState::Pending if waits < MAX_WAITS => {
                        waits += 1;
                        sleep(PAUSE).await;
                        continue;
                    }
                    ClaimState::Pending => {
                        self.cancel_claim(&holder, deadline).await?;
                        // Only another read shows whether it was still pending.
                        continue;
                    }
                    ClaimState::Stale => {}
                }
            }
            let mut commit = Commit::default();
            match holder {
                None => commit.if_absent(key.clone()),
                Some(value) => commit.if_is(key.clone(), value),
            }
            commit.set(key.clone(), claim.write(), self.name_life());
            if commit.run(self.servers(), deadline).await?.is_ok() {
                return Ok(());
            }
        }
        Err(contended())
    }

    async fn claim_state(&self, claim: &Claim, deadline: Instant) -> Result<ClaimState, Error> {
        // The order matters: once a claim is no longer pending, its outcome is decided.
        let pending = self.get(&self.pending_key(claim), Access::ReadLatest, deadline).await?;
        let user = self.keys().of(&claim.id).user();
        let value = self.get(&user, Access::ReadLatest, deadline).await?;
        let user = value.as_deref().map(format::Value::read).transpose()?;
        if user.is_some_and(|user| user.claim == claim.token) {
            return Ok(ClaimState::Taken);
        }
        Ok(if pending.is_some() { ClaimState::Pending } else { ClaimState::Stale })
    }

    /// Cancels a claim: the call that was about to write a user with it will fail.
    async fn cancel_claim(&self, claim: &Claim, deadline: Instant) -> Result<(), Error> {
        let mut commit = Commit::default();
        commit.delete(self.pending_key(claim));
        commit.run(self.servers(), deadline).await.map(drop)
    }

    /// Frees a name, unless it is held by another claim by now.
    pub(crate) async fn release_name(
        &self,
        claim: &Claim,
        login_name: &str,
        deadline: Instant,
    ) -> Result<(), Error> {
        self.cancel_claim(claim, deadline).await?;
        let key = self.keys().login_name(login_name);
        let mut commit = Commit::default();
        commit.if_is(key.clone(), claim.write());
        commit.delete(key);
        commit.run(self.servers(), deadline).await.map(drop)
    }

    /// Writes the name's key again, which extends its life if users expire. Returns `false` if the
    /// key no longer holds this claim, because a failover has lost it.
    pub(crate) async fn renew_name(
        &self,
        claim: &Claim,
        login_name: &str,
        deadline: Instant,
    ) -> Result<bool, Error> {
        let (key, holder) = (self.keys().login_name(login_name), claim.write());
        let mut commit = Commit::default();
        commit.if_is(key.clone(), holder.clone());
        commit.set(key, holder, self.name_life());
        commit.run(self.servers(), deadline).await.map(|done| done.is_ok())
    }

    fn name_life(&self) -> Life {
        let life = self.shared.users.life;
        life.map_or(Life::Forever, |life| Life::Millis(millis(life.saturating_add(NAME_MARGIN))))
    }
}
