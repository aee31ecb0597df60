//! What a login writes in one commit: its record, and the ends of the sessions that it replaces or
//! that make room for it.

use std::sync::Arc;

use gcloud_sdk::google::datastore::v1::Query;
use tower_keep_core::{
    AuthUser, Creation, End, EndReason, Ended, Epoch, MOST_AT_ONCE, NewLogin, Room, SessionKey,
};

use crate::DatastoreStore;
use crate::client::Found;
use crate::error::{Cause, Error};
use crate::query::{highest_first, limited};
use crate::record::{self, Logins, PLACE, Stored};
use crate::sessions::indexable;
use crate::transaction::{Change, Transaction, insert, transact, unchanged, upsert};

/// The most successors of a session that a login follows.
const LONGEST_CHAIN: usize = 1_000;

/// The most sessions of a user that one query reads.
const READ_AT_ONCE: usize = 500;

/// The stored sessions that a login's `replacing` leads to.
#[derive(Default)]
struct Shown {
    /// The sessions that this login replaces.
    standing: Vec<Stored>,
    /// The sessions that an earlier login replaced. This login becomes their successor.
    earlier: Vec<Stored>,
}

impl<U: AuthUser> DatastoreStore<U> {
    pub(crate) async fn created(&self, login: &NewLogin<'_>) -> Result<Creation, Error> {
        if indexable(&login.record.user).is_none() {
            return Err(Error::unsupported("a user's id has at most 1,500 bytes"));
        }
        let deadline = self.deadline();
        let _turn = self.shared.turns.wait(&login.record.user, deadline).await?;
        let created = transact!(self.client(), deadline, transaction => {
            self.create(transaction, login).await
        });
        created.await.map_err(|error| match error.cause {
            Cause::Taken => Error::taken("session's key"),
            _ => error,
        })
    }

    async fn create(
        &self,
        transaction: &Transaction<'_>,
        login: &NewLogin<'_>,
    ) -> Result<Change<Creation>, Error> {
        let NewLogin { record, replacing, ended_until: keep_until, .. } = *login;
        let now = record.created;
        let keys = self.keys();
        // Most logins replace no session, or one that has no successor. They read nothing more than
        // this.
        let (own, logins_key) = (keys.session(&record.key), keys.logins(&record.user));
        let mut first = vec![own.clone(), logins_key.clone()];
        first.extend(replacing.iter().map(|key| keys.session(key)));
        let mut found = transaction.lookup(first).await?;
        if found.get(&own).is_some() {
            return Err(Error::taken("session's key"));
        }
        let mut logins = Logins::read(found.remove(&logins_key))?;
        let Shown { standing, earlier } =
            self.shown(transaction, &mut found, login, &logins.epoch).await?;
        let mut changed: Vec<Stored> = Vec::new();
        let limit_end = End { at: now, reason: EndReason::Limit, keep_until };
        let ended = match self.room(transaction, login, &standing, &logins.epoch).await? {
            Room::None => return unchanged(Creation::Full),
            Room::After(ends) => {
                let after = |old: &Stored| Some(old.with(limit_end.after(&old.record, None)?));
                changed.extend(ends.iter().filter_map(after));
                ends
            }
            Room::AfterAllBut { stay, ended: some } => {
                logins.raise(&limit_end);
                let created_in = logins.epoch.number;
                changed.extend(stay.into_iter().map(|stored| Stored { created_in, ..stored }));
                some
            }
        };
        let to_notify: Vec<_> =
            logins.to_notify.drain(..logins.to_notify.len().min(MOST_AT_ONCE)).collect();
        let (replays, _) = self.records(transaction, &to_notify).await?;

        let replaced_end = End { at: now, reason: EndReason::Replaced, keep_until };
        let after =
            |old: &Stored| Some(old.with(replaced_end.after(&old.record, Some(record.key))?));
        changed.extend(standing.iter().filter_map(after));
        let after = |old: &Stored| Some(old.with(old.record.followed_by(record.key, keep_until)?));
        changed.extend(earlier.iter().filter_map(after));
        let after = |old: &Stored| Some(old.with(old.record.notified()?));
        changed.extend(replays.iter().filter_map(after));
        let mut mutations: Vec<_> =
            changed.iter().map(|stored| upsert(self.entity(stored))).collect();
        logins.expires = logins.expires.max(record.expires).max(keep_until);
        let created = Stored { record: record.clone(), created_in: logins.epoch.number };
        mutations.push(insert(self.entity(&created)));
        mutations.push(upsert(self.logins_entity(&record.user, &logins)));
        let records = |all: Vec<Stored>| all.into_iter().map(|stored| Arc::new(stored.record));
        let replays = records(replays).filter(|replay| replay.must_notify()).collect();
        Ok(Change {
            mutations,
            output: Creation::Created { ended: records(ended).collect(), replays },
        })
    }

    /// Returns the stored sessions that a login's `replacing` leads to, each of them once.
    async fn shown(
        &self,
        transaction: &Transaction<'_>,
        found: &mut Found,
        login: &NewLogin<'_>,
        epoch: &Epoch,
    ) -> Result<Shown, Error> {
        let mut all = Shown::default();
        for key in login.replacing {
            let shown = found.remove(&self.keys().session(key)).map(record::read).transpose()?;
            let Some(shown) = shown else { continue };
            let (mut standing, earlier) =
                self.standing_for(transaction, shown, &login.record.key).await?;
            if let Some(stored) = standing.take() {
                // A session of another user may have ended with that user's epoch.
                standing = if stored.record.user == login.record.user {
                    Some(stored.applied(epoch))
                } else {
                    self.records(transaction, &[stored.record.key]).await?.0.pop()
                };
            }
            for (stored, known) in [(standing, &mut all.standing), (earlier, &mut all.earlier)] {
                let is_new = |stored: &Stored| {
                    known.iter().all(|known: &Stored| known.record.key != stored.record.key)
                };
                let stored = stored.filter(is_new);
                known.extend(stored);
            }
        }
        Ok(all)
    }

    /// Decides which sessions have to make room.
    async fn room(
        &self,
        transaction: &Transaction<'_>,
        login: &NewLogin<'_>,
        replaced: &[Stored],
        epoch: &Epoch,
    ) -> Result<Room<Stored>, Error> {
        let NewLogin { record, limit, .. } = *login;
        let (Some(limit), Some(open)) = (limit, self.open_sessions(&record.user, epoch.number))
        else {
            return Ok(Room::After(Vec::new()));
        };
        let counts = |stored: &Stored| {
            let is_replaced =
                replaced.iter().any(|replaced| replaced.record.key == stored.record.key);
            stored.record.is_live(record.created) && !is_replaced
        };
        let open = highest_first(open, PLACE);
        let (mut newest, mut from) = (Vec::new(), Vec::new());
        let mut count = limit.reads().min(READ_AT_ONCE);
        while newest.len() < limit.reads() {
            let query = Query { start_cursor: from, ..limited(open.clone(), count) };
            let (found, end) = transaction.query_from(query).await?;
            let is_all = found.len() < count;
            for entity in self.in_place(found) {
                newest.extend(Some(record::read(entity)?).filter(counts));
            }
            if is_all {
                break;
            }
            // Many sessions have expired and wait to be purged.
            (from, count) = (end, READ_AT_ONCE);
        }
        newest.truncate(limit.reads());
        // Read them again by their keys: a query alone does not guard what it finds against
        // changes.
        let again = async |stored: Vec<Stored>| {
            let keys: Vec<_> = stored.iter().map(|stored| stored.record.key).collect();
            let (stored, _) = self.records(transaction, &keys).await?;
            Ok::<_, Error>(stored.into_iter().filter(counts).collect::<Vec<_>>())
        };
        Ok(match limit.room(newest) {
            Room::None => Room::None,
            Room::After(ends) => Room::After(again(ends).await?),
            Room::AfterAllBut { stay, ended } => {
                Room::AfterAllBut { stay: again(stay).await?, ended }
            }
        })
    }

    /// Follows the successors of a session up to an open one, which may be the session itself.
    /// Returns `None` instead if the chain reaches `except`, or if its last session has ended. Also
    /// returns the session itself, if a successor was followed.
    async fn standing_for(
        &self,
        transaction: &Transaction<'_>,
        shown: Stored,
        except: &SessionKey,
    ) -> Result<(Option<Stored>, Option<Stored>), Error> {
        let (mut stored, mut earlier) = (shown, None);
        // The limit is needed because two logins that replace each other's sessions would lead
        // around in a circle.
        for _ in 0..LONGEST_CHAIN {
            let successor = match &stored.record.ended {
                None => return Ok((Some(stored), earlier)),
                Some(Ended { successor: Some(successor), .. }) if successor != except => *successor,
                Some(_) => break,
            };
            earlier = earlier.or(Some(stored));
            let key = self.keys().session(&successor);
            let mut found = transaction.lookup(vec![key.clone()]).await?;
            match found.remove(&key) {
                Some(next) => stored = record::read(next)?,
                None => break,
            }
        }
        Ok((None, earlier))
    }
}
