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
use crate::script::{Commit, Life, Refused};
use crate::servers::Use;
use crate::store::{contended, millis};

/// A pending claim expires after this time.
const PENDING: Duration = Duration::from_secs(60);

/// A call that finds another pending claim on its name waits this many times for this long, and
/// then cancels that claim. The call that made the claim needs only one more round trip.
const LOOKS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);

/// If users expire, the key of a login name outlives its user by this much.
const MARGIN: Duration = Duration::from_secs(3_600);

/// A user's claim to a login name, as the name's key holds it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Claim {
    pub(crate) id: UserId,
    /// Random, so that no two claims are equal.
    pub(crate) token: String,
}

/// The state of a claim.
#[derive(PartialEq)]
enum State {
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
        let corrupt =
            || Error::corrupt("the key of a login name is not what this store has written");
        let text = std::str::from_utf8(value).map_err(|_| corrupt())?;
        let (token, id) = text.split_once(' ').ok_or_else(corrupt)?;
        Ok(Self { token: token.to_owned(), id: id.into() })
    }
}

impl<U: AuthUser> RedisStore<U> {
    /// Returns the key that says that a claim is pending.
    fn pending(&self, claim: &Claim) -> String {
        self.keys().of(&claim.id).pending(&claim.token)
    }

    /// Writes that a claim is pending, if the conditions of the commit hold.
    pub(crate) async fn begin_claim(
        &self,
        mut begin: Commit,
        claim: &Claim,
        deadline: Instant,
    ) -> Result<Result<(), Refused>, Error> {
        begin.set(self.pending(claim), b"1".to_vec(), Life::Millis(millis(PENDING)));
        begin.run(self.servers(), deadline).await
    }

    /// Adds to a commit the condition that the claim is still pending, and ends that state.
    pub(crate) fn end_claim(&self, commit: &mut Commit, claim: &Claim) {
        commit.if_is(self.pending(claim), "1");
        commit.delete(self.pending(claim));
    }

    /// Writes the claim to the name's key. Returns a conflict if another user has the name.
    pub(crate) async fn claim(
        &self,
        claim: &Claim,
        login: &str,
        deadline: Instant,
    ) -> Result<(), Error> {
        let key = self.keys().login(login);
        let (mut looks, mut looked_at) = (0, None);
        while Instant::now() < deadline {
            let holder = self.get(&key, Use::ReadLatest, deadline).await?;
            if let Some(value) = &holder {
                if looked_at != holder {
                    (looks, looked_at) = (0, holder.clone());
                }
                let holder = Claim::read(value)?;
                match self.state(&holder, deadline).await? {
                    // Another call for the same user took the name. The last step of this call will
                    // notice that.
                    State::Taken if holder.id == claim.id => return Ok(()),
                    State::Taken => {
                        self.break_off(claim, deadline).await?;
                        return Err(conflict("login name"));
                    }
                    State::Pending if looks < LOOKS => {
                        looks += 1;
                        sleep(PAUSE).await;
                        continue;
                    }
                    State::Pending => {
                        self.break_off(&holder, deadline).await?;
                        // Only another read shows whether it was still pending.
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
            take.set(key.clone(), claim.write(), self.name_life());
            if take.run(self.servers(), deadline).await?.is_ok() {
                return Ok(());
            }
        }
        Err(contended())
    }

    async fn state(&self, claim: &Claim, deadline: Instant) -> Result<State, Error> {
        // The order matters: once a claim is no longer pending, its outcome is decided.
        let pending = self.get(&self.pending(claim), Use::ReadLatest, deadline).await?;
        let user = self.keys().of(&claim.id).user();
        let value = self.get(&user, Use::ReadLatest, deadline).await?;
        let user = value.as_deref().map(format::Value::read).transpose()?;
        if user.is_some_and(|user| user.claim == claim.token) {
            return Ok(State::Taken);
        }
        Ok(if pending.is_some() { State::Pending } else { State::Stale })
    }

    /// Cancels a claim: the call that was about to write a user with it will fail.
    async fn break_off(&self, claim: &Claim, deadline: Instant) -> Result<(), Error> {
        let mut delete = Commit::default();
        delete.delete(self.pending(claim));
        delete.run(self.servers(), deadline).await.map(drop)
    }

    /// Frees a name, unless it is held by another claim by now.
    pub(crate) async fn release(
        &self,
        claim: &Claim,
        login: &str,
        deadline: Instant,
    ) -> Result<(), Error> {
        self.break_off(claim, deadline).await?;
        let key = self.keys().login(login);
        let mut free = Commit::default();
        free.if_is(key.clone(), claim.write());
        free.delete(key);
        free.run(self.servers(), deadline).await.map(drop)
    }

    /// Returns whether the name's key still holds this claim, as it does unless a failover has lost
    /// it. If users expire, this also extends the life of the name's key.
    pub(crate) async fn keeps_name(
        &self,
        claim: &Claim,
        login: &str,
        deadline: Instant,
    ) -> Result<bool, Error> {
        let (key, holder) = (self.keys().login(login), claim.write());
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
