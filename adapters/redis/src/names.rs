//! Which user has which login name.
//!
//! A user and their login name are in different slots, so they can't be written atomically.
//! Instead, the user *claims* the name. A claim is the user's id and a random token. The name's key
//! holds the claim, and the user's value holds only the token. A user has a login name if the
//! name's key holds the user's id and the token that is in the user's value.
//!
//! A call claims a name in three steps:
//!
//! 1. `begin_claim` writes the pending key, which is in the user's slot and says that the claim is
//!    pending.
//! 2. `claim_name` writes the claim to the name's key.
//! 3. The caller writes the user with the claim's token, on condition that the pending key still
//!    exists, and deletes the pending key (`complete_claim`).
//!
//! If a call is interrupted after step 2, no user has the token of its claim. The next call that
//! wants the name deletes the pending key, so step 3 of the interrupted call can no longer succeed,
//! and then overwrites the claim. A pending key also expires. If it expires too early, only step 3
//! fails. So a wrong clock never gives a name to two users.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tower_keep_core::{AuthUser, StoreErrorKind, UserId};

use crate::access::Access;
use crate::error::Error;
use crate::format::UserValue;
use crate::life::{Life, millis};
use crate::script::{Commit, FailedCondition};
use crate::store::RedisStore;

/// The key of a pending claim expires after this time.
const PENDING_TTL: Duration = Duration::from_secs(60);

/// A call that finds another call's pending claim to the name waits at most this many times, each
/// time for [`PAUSE`], and then cancels that claim. The other call normally needs only one more
/// round trip to complete its claim.
const MAX_WAITS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);

/// If users expire, the key of a login name expires this much later than the user.
const NAME_MARGIN: Duration = Duration::from_secs(3_600);

/// A user's claim to a login name, as the name's key holds it. The user's value holds only the
/// token.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Claim {
    pub(crate) id: UserId,
    /// Random, so that no two claims are equal.
    pub(crate) token: String,
}

/// The state of a claim.
#[derive(PartialEq)]
enum ClaimState {
    /// The user's value holds the claim's token, so the user has the name.
    Completed,
    /// A call may still write the user with the claim's token.
    Pending,
    /// No user's value holds the claim's token, and no call can write it any more.
    Stale,
}

impl Claim {
    /// Creates a claim of this user, with a new token.
    pub(crate) fn new(id: &UserId) -> Result<Self, Error> {
        let random = getrandom::u64().map_err(|error| {
            let message = format!("the system returned no random numbers: {error}");
            Error::new(StoreErrorKind::Unavailable, message)
        })?;
        Ok(Self { id: id.clone(), token: format!("{random:016x}") })
    }

    fn write(&self) -> Vec<u8> {
        format!("{} {}", self.token, self.id).into_bytes()
    }

    pub(crate) fn read(value: &[u8]) -> Result<Self, Error> {
        let corrupt = || {
            Error::corrupt(
                "the key of a login name, which is the prefix and `login:…`, holds a value that \
                 this store has not written: delete the key, and write its user again with \
                 `modify`",
            )
        };
        let text = std::str::from_utf8(value).map_err(|_| corrupt())?;
        let (token, id) = text.split_once(' ').ok_or_else(corrupt)?;
        Ok(Self { token: token.to_owned(), id: id.into() })
    }
}

impl<U: AuthUser> RedisStore<U> {
    /// Returns the name of the key that exists while this claim is pending.
    fn pending_key(&self, claim: &Claim) -> String {
        self.keys().of(&claim.id).pending_claim(&claim.token)
    }

    /// Writes the pending key of a claim, if the conditions of the commit hold.
    pub(crate) async fn begin_claim(
        &self,
        mut commit: Commit,
        claim: &Claim,
        deadline: Instant,
    ) -> Result<Result<(), FailedCondition>, Error> {
        commit.set(self.pending_key(claim), b"1".to_vec(), Life::Millis(millis(PENDING_TTL)));
        commit.run(self.servers(), deadline).await
    }

    /// Adds two steps to the commit that writes the user: the condition that the claim is still
    /// pending, and the deletion of its pending key.
    pub(crate) fn complete_claim(&self, commit: &mut Commit, claim: &Claim) {
        commit.require_value(self.pending_key(claim), "1");
        commit.delete(self.pending_key(claim));
    }

    /// Writes the claim to the name's key. Returns a conflict if another user has the name.
    ///
    /// If another call has a pending claim to the name, this call first waits, and then cancels the
    /// other call's claim.
    pub(crate) async fn claim_name(
        &self,
        claim: &Claim,
        login_name: &str,
        deadline: Instant,
    ) -> Result<(), Error> {
        let key = self.keys().login_name(login_name);
        let (mut waits, mut value_before) = (0, None);
        while Instant::now() < deadline {
            let value = self.get(&key, Access::ReadLatest, deadline).await?;
            if let Some(stored) = &value {
                if value_before != value {
                    (waits, value_before) = (0, value.clone());
                }
                let stored_claim = Claim::read(stored)?;
                match self.claim_state(&stored_claim, deadline).await? {
                    // Another call for the same user has completed a claim to this name, and so has
                    // changed the user's value. The commit that writes the user will fail.
                    ClaimState::Completed if stored_claim.id == claim.id => return Ok(()),
                    ClaimState::Completed => {
                        self.cancel_claim(claim, deadline).await?;
                        return Err(Error::taken("login name"));
                    }
                    ClaimState::Pending if waits < MAX_WAITS => {
                        waits += 1;
                        sleep(PAUSE).await;
                        continue;
                    }
                    ClaimState::Pending => {
                        self.cancel_claim(&stored_claim, deadline).await?;
                        // The other call may have completed its claim just before. The next pass
                        // reads the claim's state again.
                        continue;
                    }
                    ClaimState::Stale => {}
                }
            }
            let mut commit = Commit::default();
            match value {
                None => commit.require_absent(key.clone()),
                Some(stored) => commit.require_value(key.clone(), stored),
            }
            commit.set(key.clone(), claim.write(), self.name_life());
            if commit.run(self.servers(), deadline).await?.is_ok() {
                return Ok(());
            }
        }
        Err(Error::contended())
    }

    async fn claim_state(&self, claim: &Claim, deadline: Instant) -> Result<ClaimState, Error> {
        // The pending key is read before the user: if the claim is no longer pending, no call
        // completes it between the two reads.
        let pending = self.get(&self.pending_key(claim), Access::ReadLatest, deadline).await?;
        let user_key = self.keys().of(&claim.id).user();
        let value = self.get(&user_key, Access::ReadLatest, deadline).await?;
        let user = value.as_deref().map(UserValue::read).transpose()?;
        if user.is_some_and(|user| user.claim_token == claim.token) {
            return Ok(ClaimState::Completed);
        }
        Ok(if pending.is_some() { ClaimState::Pending } else { ClaimState::Stale })
    }

    /// Cancels a claim if it is pending: no call can complete it from then on.
    async fn cancel_claim(&self, claim: &Claim, deadline: Instant) -> Result<(), Error> {
        let mut commit = Commit::default();
        commit.delete(self.pending_key(claim));
        commit.run(self.servers(), deadline).await.map(drop)
    }

    /// Cancels a claim if it is pending, and deletes the name's key if the key still holds this
    /// claim.
    pub(crate) async fn release_name(
        &self,
        claim: &Claim,
        login_name: &str,
        deadline: Instant,
    ) -> Result<(), Error> {
        self.cancel_claim(claim, deadline).await?;
        let key = self.keys().login_name(login_name);
        let mut commit = Commit::default();
        commit.require_value(key.clone(), claim.write());
        commit.delete(key);
        commit.run(self.servers(), deadline).await.map(drop)
    }

    /// Writes the name's key again, so that it expires later, if users expire at all. Returns
    /// `false` if the key does not hold this claim, for example because a failover has lost the
    /// key.
    pub(crate) async fn renew_name(
        &self,
        claim: &Claim,
        login_name: &str,
        deadline: Instant,
    ) -> Result<bool, Error> {
        let (key, value) = (self.keys().login_name(login_name), claim.write());
        let mut commit = Commit::default();
        commit.require_value(key.clone(), value.clone());
        commit.set(key, value, self.name_life());
        commit.run(self.servers(), deadline).await.map(|done| done.is_ok())
    }

    fn name_life(&self) -> Life {
        let user_ttl = self.shared.users.ttl;
        user_ttl.map_or(Life::Forever, |ttl| Life::Millis(millis(ttl.saturating_add(NAME_MARGIN))))
    }
}
