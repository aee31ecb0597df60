//! Creates a session. One commit writes the new record, and ends the sessions that the login
//! replaces and those that make room for it.

use std::sync::Arc;

use gcloud_sdk::google::datastore::v1::Query;
use tower_keep_core::{
    AuthUser, Creation, End, EndReason, Ended, Epoch, MAX_PER_CALL, NewLogin, Room, SessionKey,
    SessionRecord,
};

use crate::client::Found;
use crate::error::{Cause, Error};
use crate::find::indexable;
use crate::query::{ordered_by_highest, with_limit};
use crate::record::{self, LoginState, SORT_KEY, StoredRecord};
use crate::store::DatastoreStore;
use crate::transaction::{Change, Transaction, insert, transact, unchanged, upsert};

/// A login follows at most this many successors of a session. The successor of a session is the
/// login that replaced it.
const MAX_SUCCESSORS: usize = 1_000;

/// One query reads at most this many of a user's sessions.
const MAX_QUERIED: usize = 500;

/// The sessions that `NewLogin::replacing` names, and their successors.
#[derive(Default)]
struct ReplacedSessions {
    /// The sessions that this login ends: those in `replacing` that have not ended or, for those
    /// that another login has replaced, their last successors.
    to_end: Vec<StoredRecord>,
    /// The sessions in `replacing` that another login has replaced. The new login becomes their
    /// successor.
    already_replaced: Vec<StoredRecord>,
}

impl<U: AuthUser> DatastoreStore<U> {
    pub(crate) async fn create_session(&self, login: &NewLogin<'_>) -> Result<Creation, Error> {
        if indexable(&login.record.user).is_none() {
            return Err(Error::unsupported(
                "the user's id has more than 1,500 bytes: choose a shorter one",
            ));
        }
        let deadline = self.deadline();
        let _turn = self.shared.write_queues.wait_for_turn(&login.record.user, deadline).await?;
        let creation = transact!(self.client(), deadline, transaction => {
            self.plan_login(transaction, login).await
        });
        creation.await.map_err(|error| match error.cause {
            Cause::AlreadyExists => Error::taken("session's key"),
            _ => error,
        })
    }

    /// Reads the sessions that the login affects, and returns all changes of the login.
    async fn plan_login(
        &self,
        transaction: &Transaction<'_>,
        login: &NewLogin<'_>,
    ) -> Result<Change<Creation>, Error> {
        let NewLogin { record, replacing, keep_ended_until: keep_until, .. } = *login;
        let now = record.created;
        let keys = self.keys();
        // Most logins replace no session, or one without a successor. For such logins, this one
        // lookup reads all replaced sessions.
        let (session_entity_key, login_state_key) =
            (keys.session(&record.key), keys.login_state(&record.user));
        let mut lookup_keys = vec![session_entity_key.clone(), login_state_key.clone()];
        lookup_keys.extend(replacing.iter().map(|key| keys.session(key)));
        let mut found = transaction.lookup(lookup_keys).await?;
        if found.get(&session_entity_key).is_some() {
            return Err(Error::taken("session's key"));
        }
        let mut login_state = LoginState::read(found.remove(&login_state_key))?;
        let replaced =
            self.replaced_sessions(transaction, &mut found, login, &login_state.epoch).await?;
        let room = self.plan_room(transaction, login, &replaced.to_end, &login_state.epoch).await?;
        let mut changed: Vec<StoredRecord> = Vec::new();
        let limit_end = End::new(now, EndReason::Limit, keep_until);
        let ended = match room {
            Room::None => return unchanged(Creation::Full),
            Room::EndEach(ended) => {
                changed.extend(changed_by(&ended, |old| limit_end.apply_to(old, None)));
                ended
            }
            Room::EndAllExcept { stay, ended } => {
                login_state.raise_epoch(&limit_end);
                let created_in = login_state.epoch.number;
                changed
                    .extend(stay.into_iter().map(|stored| StoredRecord { created_in, ..stored }));
                ended
            }
        };
        let max_replays = if login.notifies_user { MAX_PER_CALL } else { 0 };
        let to_notify: Vec<_> =
            login_state.to_notify.drain(..login_state.to_notify.len().min(max_replays)).collect();
        let (replays, _) = self.read_with_login_states(transaction, &to_notify).await?;

        let replaced_end = End::new(now, EndReason::Replaced, keep_until);
        let replace = |old: &SessionRecord| replaced_end.apply_to(old, Some(record.key));
        changed.extend(changed_by(&replaced.to_end, replace));
        let set_successor = |old: &SessionRecord| old.with_successor(record.key, keep_until);
        changed.extend(changed_by(&replaced.already_replaced, set_successor));
        changed.extend(changed_by(&replays, SessionRecord::with_notified_end));
        let mut mutations: Vec<_> =
            changed.iter().map(|stored| upsert(self.session_entity(stored))).collect();
        login_state.expires = login_state.expires.max(record.expires).max(keep_until);
        let created = StoredRecord { record: record.clone(), created_in: login_state.epoch.number };
        mutations.push(insert(self.session_entity(&created)));
        mutations.push(upsert(self.login_state_entity(&record.user, &login_state)));
        let records =
            |stored: Vec<StoredRecord>| stored.into_iter().map(|stored| Arc::new(stored.record));
        let replays = records(replays).filter(|replay| replay.must_notify()).collect();
        Ok(Change { mutations, output: Creation::created(records(ended).collect(), replays) })
    }

    /// Returns the sessions that `login.replacing` names and their last successors, without
    /// duplicates. `found` holds the sessions in `replacing`.
    async fn replaced_sessions(
        &self,
        transaction: &Transaction<'_>,
        found: &mut Found,
        login: &NewLogin<'_>,
        epoch: &Epoch,
    ) -> Result<ReplacedSessions, Error> {
        let mut replaced = ReplacedSessions::default();
        for key in login.replacing {
            let stored = found.remove(&self.keys().session(key)).map(record::read).transpose()?;
            let Some(stored) = stored else { continue };
            let (mut last, already_replaced) =
                self.last_successor(transaction, stored, &login.record.key).await?;
            if let Some(stored) = last.take() {
                // If the session is another user's, that user's epoch decides whether it has ended.
                last = if stored.record.user == login.record.user {
                    Some(stored.apply_epoch(epoch))
                } else {
                    self.read_with_login_states(transaction, &[stored.record.key]).await?.0.pop()
                };
            }
            for (stored, list) in
                [(last, &mut replaced.to_end), (already_replaced, &mut replaced.already_replaced)]
            {
                let is_new = |stored: &StoredRecord| {
                    list.iter().all(|listed: &StoredRecord| listed.record.key != stored.record.key)
                };
                let stored = stored.filter(is_new);
                list.extend(stored);
            }
        }
        Ok(replaced)
    }

    /// Decides which sessions have to end to make room for the login. `replaced` are the sessions
    /// that the login replaces, which do not count towards the limit.
    async fn plan_room(
        &self,
        transaction: &Transaction<'_>,
        login: &NewLogin<'_>,
        replaced: &[StoredRecord],
        epoch: &Epoch,
    ) -> Result<Room<StoredRecord>, Error> {
        let NewLogin { record, limit, .. } = *login;
        let (Some(limit), Some(open)) =
            (limit, self.open_sessions_query(&record.user, epoch.number))
        else {
            return Ok(Room::EndEach(Vec::new()));
        };
        let is_counted = |stored: &StoredRecord| {
            let is_replaced =
                replaced.iter().any(|replaced| replaced.record.key == stored.record.key);
            stored.record.is_live(record.created) && !is_replaced
        };
        let open = ordered_by_highest(open, SORT_KEY);
        // The newest sessions that count towards the limit. `room` needs at most `records_to_read`
        // of them.
        let (mut newest, mut start_cursor) = (Vec::new(), Vec::new());
        let mut query_limit = limit.records_to_read().min(MAX_QUERIED);
        while newest.len() < limit.records_to_read() {
            let query = Query { start_cursor, ..with_limit(open.clone(), query_limit) };
            let (found, end_cursor) = transaction.query_from(query).await?;
            let is_all = found.len() < query_limit;
            for entity in self.with_store_ancestors(found) {
                newest.extend(Some(record::read(entity)?).filter(is_counted));
            }
            if is_all {
                break;
            }
            // Some of the sessions that were found have expired and were not purged yet, or there
            // are more than one query reads.
            (start_cursor, query_limit) = (end_cursor, MAX_QUERIED);
        }
        newest.truncate(limit.records_to_read());
        // The sessions are read again by their keys, because a query alone does not protect them
        // against concurrent changes.
        let reread = async |stored: Vec<StoredRecord>| {
            let keys: Vec<_> = stored.iter().map(|stored| stored.record.key).collect();
            let (stored, _) = self.read_with_login_states(transaction, &keys).await?;
            Ok::<_, Error>(stored.into_iter().filter(is_counted).collect::<Vec<_>>())
        };
        Ok(match limit.room(newest) {
            Room::None => Room::None,
            Room::EndEach(ended) => Room::EndEach(reread(ended).await?),
            Room::EndAllExcept { stay, ended } => {
                Room::EndAllExcept { stay: reread(stay).await?, ended }
            }
        })
    }

    /// Follows the successors of the session `first` until it finds a session that has not ended,
    /// which may be `first` itself.
    ///
    /// The first returned value is that session. It is `None` if the last successor has ended too,
    /// is not stored, or is `except`. The second returned value is `first` if a successor was
    /// followed.
    async fn last_successor(
        &self,
        transaction: &Transaction<'_>,
        first: StoredRecord,
        except: &SessionKey,
    ) -> Result<(Option<StoredRecord>, Option<StoredRecord>), Error> {
        let (mut stored, mut already_replaced) = (first, None);
        // The number of steps is limited, because two sessions may be each other's successors.
        for _ in 0..MAX_SUCCESSORS {
            let successor = match &stored.record.ended {
                None => return Ok((Some(stored), already_replaced)),
                Some(Ended { successor: Some(successor), .. }) if successor != except => *successor,
                Some(_) => break,
            };
            already_replaced = already_replaced.or(Some(stored));
            let key = self.keys().session(&successor);
            let mut found = transaction.lookup(vec![key.clone()]).await?;
            match found.remove(&key) {
                Some(next) => stored = record::read(next)?,
                None => break,
            }
        }
        Ok((None, already_replaced))
    }
}

/// Returns the changed records: those for which `apply` returns a record.
fn changed_by(
    records: &[StoredRecord],
    apply: impl Fn(&SessionRecord) -> Option<SessionRecord>,
) -> impl Iterator<Item = StoredRecord> {
    records.iter().filter_map(move |old| Some(old.with_record(apply(&old.record)?)))
}
