//! Whose each login name is.
//!
//! A user and their login name are in different slots, so they can't be written at one moment. The
//! user's value decides: a login name is theirs if its key names them and the claim that their value
//! holds. A name is taken in three steps: a key beside the user says that a claim is pending, the name's
//! key gets the claim, and then the user is written with it, on condition that it is still pending. What
//! was broken off in between leaves a claim that nobody has, which the next who wants the name takes
//! over. No clock decides anything.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tower_keep_core::{AuthUser, StoreErrorKind, UserId};

use crate::RedisStore;
use crate::error::Fault;
use crate::format;
use crate::script::{Commit, Life, Refused};
use crate::servers::Use;
use crate::store::{contended, millis};

/// A pending claim is over by itself after that long.
const PENDING: Duration = Duration::from_secs(60);

/// Who finds a name's claim pending waits so often and so long, and then breaks it off: who is at it
/// needs a round trip more.
const LOOKS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);

/// A name outlives its user by that much, where users expire.
const MARGIN: Duration = Duration::from_secs(3_600);

/// A user's claim of a login name, as the name's key holds it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Claim {
    pub(crate) id: UserId,
    /// Random, so that no two are alike.
    pub(crate) token: String,
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

pub(crate) fn conflict(what: &str) -> Fault {
    Fault::new(StoreErrorKind::Conflict, format!("the {what} is taken"))
}

impl Claim {
    /// A new one.
    pub(crate) fn new(id: &UserId) -> Result<Self, Fault> {
        let random = getrandom::u64().map_err(|error| {
            Fault::new(StoreErrorKind::Unavailable, format!("no random numbers: {error}"))
        })?;
        Ok(Self { id: id.clone(), token: format!("{random:016x}") })
    }

    fn write(&self) -> Vec<u8> {
        format!("{} {}", self.token, self.id).into_bytes()
    }

    pub(crate) fn read(value: &[u8]) -> Result<Self, Fault> {
        let corrupt =
            || Fault::corrupt("the key of a login name is not what this store has written");
        let text = std::str::from_utf8(value).map_err(|_| corrupt())?;
        let (token, id) = text.split_once(' ').ok_or_else(corrupt)?;
        Ok(Self { token: token.to_owned(), id: id.into() })
    }
}

impl<U: AuthUser> RedisStore<U> {
    /// The key that says that a claim is pending.
    fn pending(&self, claim: &Claim) -> String {
        self.keys().of(&claim.id).pending(&claim.token)
    }

    /// Says that a claim is pending, where the rest of the commit allows it.
    pub(crate) async fn begin_claim(
        &self,
        mut begin: Commit,
        claim: &Claim,
        deadline: Instant,
    ) -> Result<Result<(), Refused>, Fault> {
        begin.set(self.pending(claim), b"1".to_vec(), Life::Millis(millis(PENDING)));
        begin.run(self.servers(), deadline).await
    }

    /// Lets a commit depend on that the claim is still pending, and ends that.
    pub(crate) fn end_claim(&self, commit: &mut Commit, claim: &Claim) {
        commit.if_is(self.pending(claim), "1");
        commit.delete(self.pending(claim));
    }

    /// Writes to a name's key that this user claims it, or finds that it is taken.
    pub(crate) async fn claim(
        &self,
        claim: &Claim,
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
                let holder = Claim::read(value)?;
                match self.state(&holder, deadline).await? {
                    // By another call for the same user, which this one's last step will notice.
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
            take.set(key.clone(), claim.write(), self.name_life());
            if take.run(self.servers(), deadline).await?.is_ok() {
                return Ok(());
            }
        }
        Err(contended())
    }

    async fn state(&self, claim: &Claim, deadline: Instant) -> Result<State, Fault> {
        // In this order: what is not pending any more has been decided.
        let pending = self.get(&self.pending(claim), Use::ReadLatest, deadline).await?;
        let user = self.keys().of(&claim.id).user();
        let value = self.get(&user, Use::ReadLatest, deadline).await?;
        let user = value.as_deref().map(format::Value::read).transpose()?;
        if user.is_some_and(|user| user.claim == claim.token) {
            return Ok(State::Taken);
        }
        Ok(if pending.is_some() { State::Pending } else { State::Stale })
    }

    /// Whoever was about to write with this claim won't.
    async fn break_off(&self, claim: &Claim, deadline: Instant) -> Result<(), Fault> {
        let mut delete = Commit::default();
        delete.delete(self.pending(claim));
        delete.run(self.servers(), deadline).await.map(drop)
    }

    /// Frees a name, unless it is another's by now.
    pub(crate) async fn release(
        &self,
        claim: &Claim,
        login: &str,
        deadline: Instant,
    ) -> Result<(), Fault> {
        self.break_off(claim, deadline).await?;
        let key = self.keys().login(login);
        let mut free = Commit::default();
        free.if_is(key.clone(), claim.write());
        free.delete(key);
        free.run(self.servers(), deadline).await.map(drop)
    }

    /// Whether the name's key says that it is this user's, as it does unless a failover has lost it; and
    /// where users expire, names do so later.
    pub(crate) async fn keeps_name(
        &self,
        claim: &Claim,
        login: &str,
        deadline: Instant,
    ) -> Result<bool, Fault> {
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
