//! What a login writes in one commit: its record, and the ends of the sessions that it replaces or
//! that make room for it.

use std::sync::Arc;

use gcloud_sdk::google::datastore::v1::Query;
use tower_keep_core::{
    AuthUser, Creation, End, EndReason, Ended, Epoch, MAX_AT_ONCE, NewLogin, Room, SessionKey,
    SessionRecord,
};

use crate::DatastoreStore;
use crate::client::Found;
use crate::error::{Cause, Error};
use crate::query::{highest_first, limited};
use crate::record::{self, Logins, SORT_KEY, Stored};
use crate::sessions::indexable;
use crate::transaction::{Change, Transaction, insert, transact, unchanged, upsert};

/// The maximum number of successors of a session that a login follows.
const MAX_SUCCESSORS: usize = 1_000;

/// The maximum number of a user's sessions that one query reads.
const MAX_QUERIED: usize = 500;

/// The stored sessions that a login's `replacing` leads to.
#[derive(Default)]
struct Replaced {
    /// The sessions that this login replaces: the last successors.
    latest: Vec<Stored>,
    /// The sessions that an earlier login replaced. This login becomes their successor.
    earlier: Vec<Stored>,
}

impl<U: AuthUser> DatastoreStore<U> {
    pub(crate) async fn create_session(&self, login: &NewLogin<'_>) -> Result<Creation, Error> {
        if indexable(&login.record.user).is_none() {
            return Err(Error::unsupported("a user's id has at most 1,500 bytes"));
        }
        let deadline = self.deadline();
        let _turn = self.shared.turns.wait(&login.record.user, deadline).await?;
        let creation = transact!(self.client(), deadline, transaction => {
            self.plan_login(transaction, login).await
        });
        creation.await.map_err(|error| match error.cause {
            Cause::AlreadyExists => Error::taken("session's key"),
            _ => error,
        })
    }

    async fn plan_login(
        &self,
        transaction: &Transaction<'_>,
        login: &NewLogin<'_>,
    ) -> Result<Change<Creation>, Error> {
        let NewLogin { record, replacing, keep_ended_until: keep_until, .. } = *login;
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
        let replaced =
            self.replaced_sessions(transaction, &mut found, login, &logins.epoch).await?;
        let room = self.plan_room(transaction, login, &replaced.latest, &logins.epoch).await?;
        let mut changed: Vec<Stored> = Vec::new();
        let limit_end = End::new(now, EndReason::Limit, keep_until);
        let ended = match room {
            Room::None => return unchanged(Creation::Full),
            Room::EndEach(ends) => {
                changed.extend(changed_by(&ends, |old| limit_end.apply_to(old, None)));
                ends
            }
            Room::EndAllExcept { stay, ended: some } => {
                logins.raise_epoch(&limit_end);
                let created_in = logins.epoch.number;
                changed.extend(stay.into_iter().map(|stored| Stored { created_in, ..stored }));
                some
            }
        };
        let to_notify: Vec<_> =
            logins.to_notify.drain(..logins.to_notify.len().min(MAX_AT_ONCE)).collect();
        let (replays, _) = self.read_with_logins(transaction, &to_notify).await?;

        let replaced_end = End::new(now, EndReason::Replaced, keep_until);
        let replace = |old: &SessionRecord| replaced_end.apply_to(old, Some(record.key));
        changed.extend(changed_by(&replaced.latest, replace));
        let follow = |old: &SessionRecord| old.followed_by(record.key, keep_until);
        changed.extend(changed_by(&replaced.earlier, follow));
        changed.extend(changed_by(&replays, SessionRecord::notified));
        let mut mutations: Vec<_> =
            changed.iter().map(|stored| upsert(self.session_entity(stored))).collect();
        logins.expires = logins.expires.max(record.expires).max(keep_until);
        let created = Stored { record: record.clone(), created_in: logins.epoch.number };
        mutations.push(insert(self.session_entity(&created)));
        mutations.push(upsert(self.logins_entity(&record.user, &logins)));
        let records = |all: Vec<Stored>| all.into_iter().map(|stored| Arc::new(stored.record));
        let replays = records(replays).filter(|replay| replay.must_notify()).collect();
        Ok(Change { mutations, output: Creation::created(records(ended).collect(), replays) })
    }

    /// Returns the stored sessions that a login's `replacing` leads to, each of them once.
    async fn replaced_sessions(
        &self,
        transaction: &Transaction<'_>,
        found: &mut Found,
        login: &NewLogin<'_>,
        epoch: &Epoch,
    ) -> Result<Replaced, Error> {
        let mut all = Replaced::default();
        for key in login.replacing {
            let stored = found.remove(&self.keys().session(key)).map(record::read).transpose()?;
            let Some(stored) = stored else { continue };
            let (mut last, earlier) =
                self.last_successor(transaction, stored, &login.record.key).await?;
            if let Some(stored) = last.take() {
                // A session of another user may have ended with that user's epoch.
                last = if stored.record.user == login.record.user {
                    Some(stored.apply_epoch(epoch))
                } else {
                    self.read_with_logins(transaction, &[stored.record.key]).await?.0.pop()
                };
            }
            for (stored, known) in [(last, &mut all.latest), (earlier, &mut all.earlier)] {
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
    async fn plan_room(
        &self,
        transaction: &Transaction<'_>,
        login: &NewLogin<'_>,
        replaced: &[Stored],
        epoch: &Epoch,
    ) -> Result<Room<Stored>, Error> {
        let NewLogin { record, limit, .. } = *login;
        let (Some(limit), Some(open)) = (limit, self.open_sessions(&record.user, epoch.number))
        else {
            return Ok(Room::EndEach(Vec::new()));
        };
        let counts = |stored: &Stored| {
            let is_replaced =
                replaced.iter().any(|replaced| replaced.record.key == stored.record.key);
            stored.record.is_live(record.created) && !is_replaced
        };
        let open = highest_first(open, SORT_KEY);
        let (mut newest, mut from) = (Vec::new(), Vec::new());
        let mut count = limit.records_to_read().min(MAX_QUERIED);
        while newest.len() < limit.records_to_read() {
            let query = Query { start_cursor: from, ..limited(open.clone(), count) };
            let (found, end) = transaction.query_from(query).await?;
            let is_all = found.len() < count;
            for entity in self.below_ancestors(found) {
                newest.extend(Some(record::read(entity)?).filter(counts));
            }
            if is_all {
                break;
            }
            // Many sessions have expired and wait to be purged.
            (from, count) = (end, MAX_QUERIED);
        }
        newest.truncate(limit.records_to_read());
        // Read them again by their keys: a query alone does not guard what it finds against
        // changes.
        let reread = async |stored: Vec<Stored>| {
            let keys: Vec<_> = stored.iter().map(|stored| stored.record.key).collect();
            let (stored, _) = self.read_with_logins(transaction, &keys).await?;
            Ok::<_, Error>(stored.into_iter().filter(counts).collect::<Vec<_>>())
        };
        Ok(match limit.room(newest) {
            Room::None => Room::None,
            Room::EndEach(ends) => Room::EndEach(reread(ends).await?),
            Room::EndAllExcept { stay, ended } => {
                Room::EndAllExcept { stay: reread(stay).await?, ended }
            }
        })
    }

    /// Follows the successors of a session up to one that has not ended, which may be the session
    /// itself. Returns that one, or `None` if the chain reaches `except` or if its last session has
    /// ended. Also returns the session itself, if a successor was followed.
    async fn last_successor(
        &self,
        transaction: &Transaction<'_>,
        first: Stored,
        except: &SessionKey,
    ) -> Result<(Option<Stored>, Option<Stored>), Error> {
        let (mut stored, mut earlier) = (first, None);
        // The limit is needed because two logins that replace each other's sessions would lead
        // around in a circle.
        for _ in 0..MAX_SUCCESSORS {
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

/// Returns the records that `apply` changes, after the change.
fn changed_by(
    records: &[Stored],
    apply: impl Fn(&SessionRecord) -> Option<SessionRecord>,
) -> impl Iterator<Item = Stored> {
    records.iter().filter_map(move |old| Some(old.with_record(apply(&old.record)?)))
}
