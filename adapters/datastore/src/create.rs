//! What a login writes: its record, and the ends of those that it takes the place of, in one commit.

use std::sync::Arc;

use tower_keep_core::{
    AuthUser, Creation, End, EndReason, Ended, NewLogin, SessionKey, SessionRecord,
};

use crate::DatastoreStore;
use crate::client::Found;
use crate::error::{Cause, Fault};
use crate::record::{self, Logins};
use crate::sessions::indexable;
use crate::transaction::{Change, Transaction, insert, transact, unchanged, upsert};

/// So many logins in one browser at once are followed.
const LONGEST_CHAIN: usize = 100;

impl<U: AuthUser> DatastoreStore<U> {
    pub(crate) async fn created(&self, login: &NewLogin<'_>) -> Result<Creation, Fault> {
        if indexable(&login.record.user).is_none() {
            return Err(Fault::unsupported("a user's id has at most 1,500 bytes"));
        }
        let deadline = self.deadline();
        let _turn = self.shared.turns.wait(&login.record.user, deadline).await?;
        let created = transact!(self.client(), deadline, transaction => {
            self.create(transaction, login).await
        });
        created.await.map_err(|fault| match fault.cause {
            Cause::Taken => Fault::taken("session's key"),
            _ => fault,
        })
    }

    async fn create(
        &self,
        transaction: &Transaction<'_>,
        login: &NewLogin<'_>,
    ) -> Result<Change<Creation>, Fault> {
        let NewLogin { record, replacing, ended_until: keep_until, .. } = *login;
        let now = record.created;
        let keys = self.keys();
        // Most logins replace nothing, or one that has no successor: this is all that they read.
        let (own, logins_key) = (keys.session(&record.key), keys.logins(&record.user));
        let mut first = vec![own.clone(), logins_key.clone()];
        first.extend(replacing.iter().map(|key| keys.session(key)));
        let mut found = transaction.lookup(first).await?;
        if found.get(&own).is_some() {
            return Err(Fault::taken("session's key"));
        }
        let mut logins = Logins::read(found.remove(&logins_key))?;
        let replaced = self.replaced(transaction, &mut found, login).await?;
        let Some(surplus) = self.surplus(transaction, login, &replaced).await? else {
            return unchanged(Creation::Full);
        };
        let untold = std::mem::take(&mut logins.untold);
        let replays = self.records(transaction, &untold).await?;
        let replays: Vec<_> = replays.into_iter().map(Arc::new).collect();

        let by_limit = End { at: now, reason: EndReason::Limit, keep_until };
        let by_login = End { at: now, reason: EndReason::Replaced, keep_until };
        let changed = surplus.iter().filter_map(|old| by_limit.after(old, None));
        let changed =
            changed.chain(replaced.iter().filter_map(|old| by_login.after(old, Some(record.key))));
        let changed = changed.chain(replays.iter().filter_map(|replay| replay.told()));
        let mut mutations: Vec<_> = changed.map(|after| upsert(self.entity(&after))).collect();
        logins.expires = logins.expires.max(record.expires).max(keep_until);
        mutations.push(insert(self.entity(record)));
        mutations.push(upsert(logins.write(keys, self.shared.expiry, &record.user)));
        let replays = replays.into_iter().filter(|replay| replay.is_untold()).collect();
        Ok(Change { mutations, answer: Creation::Created { ended: surplus, replays } })
    }

    /// The sessions that a login takes the place of, each once.
    async fn replaced(
        &self,
        transaction: &Transaction<'_>,
        found: &mut Found,
        login: &NewLogin<'_>,
    ) -> Result<Vec<SessionRecord>, Fault> {
        let mut replaced: Vec<SessionRecord> = Vec::new();
        for key in login.replacing {
            let before = found.remove(&self.keys().session(key)).map(record::read).transpose()?;
            let Some(before) = before else { continue };
            let standing = self.standing_for(transaction, before, &login.record.key).await?;
            let is_new =
                |standing: &SessionRecord| replaced.iter().all(|known| known.key != standing.key);
            replaced.extend(standing.filter(is_new));
        }
        Ok(replaced)
    }

    /// The sessions that end so that there are not too many; `None` if there is no room for another.
    async fn surplus(
        &self,
        transaction: &Transaction<'_>,
        login: &NewLogin<'_>,
        replaced: &[SessionRecord],
    ) -> Result<Option<Vec<Arc<SessionRecord>>>, Fault> {
        let NewLogin { record, limit, .. } = *login;
        let (Some(limit), Some(query)) = (limit, self.open_sessions(&record.user)) else {
            return Ok(Some(Vec::new()));
        };
        let now = record.created;
        let mut live = Vec::new();
        for entity in self.in_place(transaction.query(query).await?) {
            let other = record::read(entity)?;
            let is_replaced = replaced.iter().any(|replaced| replaced.key == other.key);
            if other.is_live(now) && !is_replaced {
                live.push(Arc::new(other));
            }
        }
        let Some(oldest) = limit.surplus(live) else { return Ok(None) };
        // Once more by their keys: a query alone does not hold what it finds.
        let keys: Vec<_> = oldest.iter().map(|old| old.key).collect();
        let oldest = self.records(transaction, &keys).await?.into_iter();
        Ok(Some(oldest.filter(|old| old.is_live(now)).map(Arc::new).collect()))
    }

    /// The session that stands for this one: itself, or the last of its successors, unless that is
    /// `except` or has ended otherwise.
    async fn standing_for(
        &self,
        transaction: &Transaction<'_>,
        mut record: SessionRecord,
        except: &SessionKey,
    ) -> Result<Option<SessionRecord>, Fault> {
        // Two logins that replace each other's sessions would lead around in a circle.
        for _ in 0..LONGEST_CHAIN {
            let successor = match &record.ended {
                None => return Ok(Some(record)),
                Some(Ended { successor: Some(successor), .. }) if successor != except => *successor,
                Some(_) => return Ok(None),
            };
            match self.records(transaction, &[successor]).await?.pop() {
                Some(next) => record = next,
                None => return Ok(None),
            }
        }
        Ok(None)
    }
}
