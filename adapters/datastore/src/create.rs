//! What a login writes in one commit: its record, and the ends of the sessions that it replaces or
//! that make room for it.

use std::sync::Arc;

use gcloud_sdk::google::datastore::v1::Query;
use tower_keep_core::{
    AuthUser, Creation, End, EndReason, Ended, Epoch, MOST_AT_ONCE, NewLogin, Room, SessionKey,
};

use crate::DatastoreStore;
use crate::client::Found;
use crate::error::{Cause, Fault};
use crate::query::{highest_first, limited};
use crate::record::{self, Logins, PLACE, Stored};
use crate::sessions::indexable;
use crate::transaction::{Change, Transaction, insert, transact, unchanged, upsert};

/// So many logins over one session are followed.
const LONGEST_CHAIN: usize = 1_000;

/// So many of a user's sessions are read by one query.
const READ_AT_ONCE: usize = 500;

/// What the sessions that a login shows come to.
#[derive(Default)]
struct Shown {
    /// Those that it takes the place of.
    standing: Vec<Stored>,
    /// Those that an earlier login replaced: this login becomes their successor.
    earlier: Vec<Stored>,
}

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
        let Shown { standing, earlier } =
            self.shown(transaction, &mut found, login, &logins.epoch).await?;
        let mut changed: Vec<Stored> = Vec::new();
        let by_limit = End { at: now, reason: EndReason::Limit, keep_until };
        let ended = match self.room(transaction, login, &standing, &logins.epoch).await? {
            Room::None => return unchanged(Creation::Full),
            Room::After(ends) => {
                let after = |old: &Stored| Some(old.with(by_limit.after(&old.record, None)?));
                changed.extend(ends.iter().filter_map(after));
                ends
            }
            Room::AfterAllBut { stay, ended: some } => {
                logins.raise(&by_limit);
                let created_in = logins.epoch.number;
                changed.extend(stay.into_iter().map(|stored| Stored { created_in, ..stored }));
                some
            }
        };
        let told: Vec<_> = logins.untold.drain(..logins.untold.len().min(MOST_AT_ONCE)).collect();
        let (replays, _) = self.records(transaction, &told).await?;

        let by_login = End { at: now, reason: EndReason::Replaced, keep_until };
        let after = |old: &Stored| Some(old.with(by_login.after(&old.record, Some(record.key))?));
        changed.extend(standing.iter().filter_map(after));
        let after = |old: &Stored| Some(old.with(old.record.followed_by(record.key, keep_until)?));
        changed.extend(earlier.iter().filter_map(after));
        let after = |old: &Stored| Some(old.with(old.record.told()?));
        changed.extend(replays.iter().filter_map(after));
        let mut mutations: Vec<_> =
            changed.iter().map(|stored| upsert(self.entity(stored))).collect();
        logins.expires = logins.expires.max(record.expires).max(keep_until);
        let created = Stored { record: record.clone(), created_in: logins.epoch.number };
        mutations.push(insert(self.entity(&created)));
        mutations.push(upsert(self.logins_entity(&record.user, &logins)));
        let records = |all: Vec<Stored>| all.into_iter().map(|stored| Arc::new(stored.record));
        let replays = records(replays).filter(|replay| replay.is_untold()).collect();
        Ok(Change {
            mutations,
            answer: Creation::Created { ended: records(ended).collect(), replays },
        })
    }

    /// What the sessions that a login shows come to, each once.
    async fn shown(
        &self,
        transaction: &Transaction<'_>,
        found: &mut Found,
        login: &NewLogin<'_>,
        epoch: &Epoch,
    ) -> Result<Shown, Fault> {
        let mut all = Shown::default();
        for key in login.replacing {
            let shown = found.remove(&self.keys().session(key)).map(record::read).transpose()?;
            let Some(shown) = shown else { continue };
            let (mut standing, earlier) =
                self.standing_for(transaction, shown, &login.record.key).await?;
            if let Some(stored) = standing.take() {
                // Another user's may have ended with their epoch.
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
    ) -> Result<Room<Stored>, Fault> {
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
            // There are many that have expired and wait to be purged.
            (from, count) = (end, READ_AT_ONCE);
        }
        newest.truncate(limit.reads());
        // Once more by their keys: a query alone does not hold what it finds.
        let again = async |stored: Vec<Stored>| {
            let keys: Vec<_> = stored.iter().map(|stored| stored.record.key).collect();
            let (stored, _) = self.records(transaction, &keys).await?;
            Ok::<_, Fault>(stored.into_iter().filter(counts).collect::<Vec<_>>())
        };
        Ok(match limit.room(newest) {
            Room::None => Room::None,
            Room::After(ends) => Room::After(again(ends).await?),
            Room::AfterAllBut { stay, ended } => {
                Room::AfterAllBut { stay: again(stay).await?, ended }
            }
        })
    }

    /// The session that stands for this one: itself, or the last of its successors, unless that is
    /// `except` or has ended otherwise. And this one, if another stands for it.
    async fn standing_for(
        &self,
        transaction: &Transaction<'_>,
        shown: Stored,
        except: &SessionKey,
    ) -> Result<(Option<Stored>, Option<Stored>), Fault> {
        let (mut stored, mut earlier) = (shown, None);
        // Two logins that replace each other's sessions would lead around in a circle.
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
