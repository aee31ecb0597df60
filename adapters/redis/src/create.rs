//! What a login writes: its record, and the ends of the sessions that it replaces.

use std::sync::Arc;

use futures_util::future::{join, try_join3};
use tokio::time::Instant;
use tower_keep_core::{
    AuthUser, Creation, End, EndReason, Ended, MAX_PER_CALL, NewLogin, Room, SessionKey,
    SessionLimit, SessionRecord, StoreErrorKind,
};

use crate::access::Access;
use crate::epoch::{StoredEpoch, raise_epoch};
use crate::error::Error;
use crate::find::{IndexRange, ListedRecords, Order};
use crate::keys::{UserKeyNames, encode_session_key};
use crate::life::{Life, OWNER_MARGIN, life_millis};
use crate::script::{Commit, FailedCondition};
use crate::store::RedisStore;
use crate::write_session::{StoredRecord, set_record};

/// A login follows at most this many successors of a session.
const MAX_SUCCESSORS: usize = 10_000;

/// One command reads at most this many of a user's sessions.
const READ_AT_ONCE: usize = 1_000;

/// A login with a limit searches this many of the user's newest logins for live sessions, or more
/// if the limit itself is higher.
const LOGINS_TO_SEARCH: usize = 2_000;

/// A login removes the user's sessions that expired longer ago than this, in seconds, from the
/// user's indexes, and deletes their records if these still exist.
const PRUNED_AFTER: u32 = 24 * 3_600;

/// The stored sessions that a login replaces.
#[derive(Default)]
struct SessionsToReplace {
    /// The sessions that this login ends. Each is a session of the login's `replacing`, or the last
    /// successor of such a session.
    to_end: Vec<StoredRecord>,
    /// The sessions of `replacing` that an earlier login has replaced. This login becomes their
    /// successor.
    already_replaced: Vec<StoredRecord>,
}

/// A session of the login's `replacing`, its successor, the successor's successor, and so on.
struct SuccessorChain {
    /// The last session of the chain, if it has not ended.
    to_end: Option<StoredRecord>,
    /// The first session of the chain, if an earlier login has replaced it.
    already_replaced: Option<StoredRecord>,
}

/// The first sessions of an index of the user, from the highest score down. A login with a limit
/// reads them to find the sessions that may have to end.
struct TopSessions {
    stored_epoch: StoredEpoch,
    /// The live sessions that this login does not replace.
    live: Vec<StoredRecord>,
    /// All members that were read.
    members: Vec<String>,
    /// Whether the index has no members after these.
    is_all: bool,
    index: String,
    order: Order,
}

impl TopSessions {
    /// Adds to a commit the condition that the index still begins with these members.
    fn require_unchanged(&self, commit: &mut Commit) {
        // If these are all members, the condition also reads one more, which must not exist.
        let count = self.members.len() + usize::from(self.is_all);
        let above = match self.order {
            Order::HighestFirstAbove(time) => Some(time.as_secs()),
            Order::LowestFirst | Order::HighestFirst => None,
        };
        commit.require_highest(self.index.clone(), count, above, &self.members);
    }
}

/// The change that writes a login. It is built step by step.
struct Draft {
    commit: Commit,
    /// The records that change: each as it is stored, and as it will be.
    changes: Vec<(StoredRecord, SessionRecord)>,
    /// The epoch in which the new record is created.
    created_in: u64,
    /// Whether the login raises the user's epoch, because too many sessions have to end.
    raises_epoch: bool,
    /// The sessions that end because of the limit.
    over_limit: Vec<Arc<SessionRecord>>,
}

impl Draft {
    /// Creates a draft with the conditions of every login: no record has the new key, and the epoch
    /// is unchanged.
    fn new(key: &SessionKey, keys: &UserKeyNames, stored_epoch: &StoredEpoch) -> Self {
        let mut commit = Commit::default();
        // This condition is the first, so its index is 0. If it fails, the call returns an error.
        // If one of the later conditions fails, the call starts again.
        commit.require_absent(keys.session(key));
        stored_epoch.require_unchanged(&mut commit, keys);
        let created_in = stored_epoch.epoch.number;
        Self {
            commit,
            changes: Vec::new(),
            created_in,
            raises_epoch: false,
            over_limit: Vec::new(),
        }
    }

    /// Adds the change from a stored record to `after`, unless `after` is `None`.
    fn add_change(&mut self, stored: StoredRecord, after: Option<SessionRecord>) {
        self.changes.extend(after.map(|after| (stored, after)));
    }

    /// Ends the sessions that this login replaces.
    fn replace_sessions(
        &mut self,
        login: &NewLogin<'_>,
        sessions: SessionsToReplace,
        keys: &UserKeyNames,
    ) {
        let NewLogin { record, keep_ended_until, .. } = *login;
        let end = End::new(record.created, EndReason::Replaced, keep_ended_until);
        for stored in sessions.to_end {
            if self.raises_epoch {
                // This session ends with a reason of its own, so `upkeep` must not purge it
                // together with the sessions that end with the epoch.
                self.commit.remove_member(
                    keys.ended_by_epoch(self.created_in),
                    encode_session_key(&stored.record.key),
                );
            }
            let after = end.apply_to(&stored.record, Some(record.key));
            self.add_change(stored, after);
        }
        for stored in sessions.already_replaced {
            let after = stored.record.with_successor(record.key, keep_ended_until);
            self.add_change(stored, after);
        }
    }

    /// Marks these sessions, which ended because of a replay, as notified. Returns their records as
    /// they were before. If a record no longer exists, only removes its key from the index.
    fn mark_notified(
        &mut self,
        listed: ListedRecords,
        keys: &UserKeyNames,
    ) -> Vec<Arc<SessionRecord>> {
        let mut replays = Vec::new();
        for (key, stored) in listed {
            let change = stored
                .and_then(|stored| stored.record.with_notified_end().map(|after| (stored, after)));
            let Some((stored, after)) = change else {
                self.commit.remove_member(keys.unnotified_replays(), encode_session_key(&key));
                continue;
            };
            replays.push(Arc::new(stored.record.clone()));
            self.changes.push((stored, after));
        }
        replays
    }
}

/// The result of an attempt that wrote a login or refused it.
struct LoginOutcome {
    creation: Creation,
    /// The keys of the sessions of other users that the login replaces. They are in other slots, so
    /// the call changes them afterwards.
    of_other_users: Vec<SessionKey>,
}

fn key_is_taken() -> Error {
    Error::new(StoreErrorKind::Conflict, "another session has this key")
}

impl<U: AuthUser> RedisStore<U> {
    /// Looks at the session with this key, at its successor, at the successor's successor, and so
    /// on, until a session has not ended.
    ///
    /// `to_end` is `None` if this search comes to `new_key`, to a session that has ended without a
    /// successor, or to a key without a record.
    async fn follow_successors(
        &self,
        key: &SessionKey,
        new_key: &SessionKey,
        deadline: Instant,
    ) -> Result<SuccessorChain, Error> {
        let (mut key, mut already_replaced) = (*key, None);
        // There is a limit, because two sessions may be successors of each other, if two logins
        // replace each other's sessions.
        for _ in 0..MAX_SUCCESSORS {
            if key == *new_key {
                break;
            }
            let found = self.find_record(&key, None, Access::ReadLatest, deadline).await?;
            let Some((stored, _)) = found else { break };
            match &stored.record.ended {
                None => return Ok(SuccessorChain { to_end: Some(stored), already_replaced }),
                Some(Ended { successor: Some(successor), .. }) => {
                    key = *successor;
                    already_replaced = already_replaced.or(Some(stored));
                }
                Some(_) => break,
            }
        }
        Ok(SuccessorChain { to_end: None, already_replaced })
    }

    /// Writes a login; see [`SessionStore::create`](tower_keep_core::SessionStore::create).
    pub(crate) async fn create_login(&self, login: &NewLogin<'_>) -> Result<Creation, Error> {
        let deadline = self.deadline();
        let mut prune = Some(self.prune(login.record, deadline));
        while Instant::now() < deadline {
            let creating = self.create_once(login, deadline);
            let outcome = match prune.take() {
                Some(prune) => join(prune, creating).await.1?,
                None => creating.await?,
            };
            if let Some(LoginOutcome { creation, of_other_users }) = outcome {
                let replaced = self.replace_of_other_users(login, &of_other_users, deadline).await;
                return replaced.map(|()| creation).map_err(Error::after_writing);
            }
        }
        Err(Error::contended())
    }

    /// Removes the user's sessions that expired more than [`PRUNED_AFTER`] seconds ago. An error is
    /// ignored, because the next login tries again.
    async fn prune(&self, record: &SessionRecord, deadline: Instant) {
        let keys = self.keys().of(&record.user);
        let before = record.created.minus(PRUNED_AFTER).as_secs();
        let mut commit = Commit::default();
        commit.prune(
            keys.sessions_by_expiry(),
            keys.sessions_by_login_time(),
            before,
            &keys.session_prefix(),
        );
        let _ = commit.run_unconfirmed(self.servers(), deadline).await;
    }

    /// Returns the user's newest live sessions, as many as the limit needs, without those that the
    /// login replaces.
    ///
    /// 1. Reads the index by expiry, from the latest expiry down to the current time. If the read
    ///    comes to the end, these are all of the user's live sessions, and they are the result.
    /// 2. Otherwise reads the index by login time, from the newest login down, until enough live
    ///    sessions are found. They are the result.
    /// 3. If [`LOGINS_TO_SEARCH`] logins were read and too few of them are live, the sessions that
    ///    step 1 has read are the result: those that expire last.
    async fn newest_sessions(
        &self,
        record: &SessionRecord,
        limit: SessionLimit,
        to_replace: &[StoredRecord],
        deadline: Instant,
    ) -> Result<TopSessions, Error> {
        let (keys, now) = (self.keys().of(&record.user), record.created);
        let needed = limit.records_to_read();
        // If this many members are live, `needed` of them are not being replaced.
        let enough = needed.saturating_add(to_replace.len());
        let read_top = async |index: String, order: Order, max_members: usize| {
            let mut top = TopSessions {
                stored_epoch: StoredEpoch::default(),
                live: Vec::new(),
                members: Vec::new(),
                is_all: false,
                index,
                order,
            };
            while !top.is_all && top.live.len() < needed && top.members.len() < max_members {
                let (index, first) = (&top.index, top.members.len());
                let count = (max_members - first).min(READ_AT_ONCE);
                let range = IndexRange { index, order, first, count };
                let (listed, stored_epoch) =
                    self.list_records(&record.user, range, deadline).await?;
                top.stored_epoch = stored_epoch;
                top.is_all = listed.len() < count;
                top.members.extend(listed.iter().map(|(key, _)| encode_session_key(key)));
                let is_counted = |stored: &StoredRecord| {
                    let is_same = |other: &StoredRecord| other.record.key == stored.record.key;
                    stored.record.is_live(now) && !to_replace.iter().any(is_same)
                };
                let listed = listed.into_iter().filter_map(|(_, stored)| stored);
                top.live.extend(listed.filter(is_counted));
            }
            top.live.truncate(needed);
            Ok::<_, Error>(top)
        };
        let index = keys.sessions_by_expiry();
        let last_to_expire = read_top(index, Order::HighestFirstAbove(now), enough).await?;
        if last_to_expire.is_all {
            return Ok(last_to_expire);
        }
        let (index, max_members) = (keys.sessions_by_login_time(), enough.max(LOGINS_TO_SEARCH));
        let newest = read_top(index, Order::HighestFirst, max_members).await?;
        let is_enough = newest.is_all || newest.live.len() >= needed;
        Ok(if is_enough { newest } else { last_to_expire })
    }

    /// Tries once to write the login. Returns `None` if another call has changed something that
    /// this attempt has read.
    async fn create_once(
        &self,
        login: &NewLogin<'_>,
        deadline: Instant,
    ) -> Result<Option<LoginOutcome>, Error> {
        let NewLogin { record, keep_ended_until, limit, .. } = *login;
        let (user, now) = (&record.user, record.created);
        let keys = self.keys().of(user);
        let index = keys.unnotified_replays();
        let range =
            IndexRange { index: &index, order: Order::LowestFirst, first: 0, count: MAX_PER_CALL };
        // One write and two reads, concurrently. The commit below fails if a value that was read
        // here has changed.
        let (owner_written, to_replace, (unnotified, stored_epoch)) = try_join3(
            self.write_owner(record, deadline),
            self.sessions_to_replace(login, deadline),
            self.list_records(user, range, deadline),
        )
        .await?;
        owner_written.map_err(|_| key_is_taken())?;
        let (to_replace, of_other_users) = split_by_user(to_replace, record);
        let mut draft = Draft::new(&record.key, &keys, &stored_epoch);
        if let Some(limit) = limit {
            let newest = self.newest_sessions(record, limit, &to_replace.to_end, deadline).await?;
            if newest.stored_epoch.epoch != stored_epoch.epoch {
                return Ok(None);
            }
            newest.require_unchanged(&mut draft.commit);
            let end = End::new(now, EndReason::Limit, keep_ended_until);
            match limit.room(newest.live) {
                Room::None => return self.refuse(record, draft.commit, deadline).await,
                Room::EndEach(surplus) => {
                    for stored in surplus {
                        let Some(after) = end.apply_to(&stored.record, None) else { continue };
                        draft.over_limit.push(Arc::new(stored.record.clone()));
                        draft.changes.push((stored, after));
                    }
                }
                Room::EndAllExcept { stay, ended } => {
                    let ended = ended.into_iter().map(|stored| Arc::new(stored.record));
                    draft.over_limit = ended.collect();
                    draft.created_in =
                        raise_epoch(&mut draft.commit, &keys, &stored_epoch, &end, stay.iter());
                    draft.raises_epoch = true;
                }
            }
        }
        set_record(&mut draft.commit, &keys, None, record, draft.created_in, now);
        draft.replace_sessions(login, to_replace, &keys);
        let replays = match login.notifies_user {
            true => draft.mark_notified(unnotified, &keys),
            false => Vec::new(),
        };
        let Draft { mut commit, changes, created_in, raises_epoch, over_limit } = draft;
        let records = changes.iter().map(|(stored, after)| (&stored.record, after));
        self.extend_owner_keys(records, now, deadline).await?;
        for (stored, after) in &changes {
            set_record(&mut commit, &keys, Some(stored), after, stored.created_in, now);
        }
        match commit.run(self.servers(), deadline).await? {
            Ok(()) => {
                if raises_epoch {
                    self.queue_for_purge(user, created_in, keep_ended_until, deadline).await;
                }
                let creation = Creation::created(over_limit, replays);
                Ok(Some(LoginOutcome { creation, of_other_users }))
            }
            Err(FailedCondition { index: 0 }) => Err(key_is_taken()),
            Err(_) => Ok(None),
        }
    }

    /// Refuses a login because the user is at the limit. Returns `None` if one of the conditions
    /// fails: another call has changed the sessions, so the user may have room for one more.
    async fn refuse(
        &self,
        record: &SessionRecord,
        conditions: Commit,
        deadline: Instant,
    ) -> Result<Option<LoginOutcome>, Error> {
        if self.find_record(&record.key, None, Access::ReadLatest, deadline).await?.is_some() {
            return Err(key_is_taken());
        }
        if conditions.run(self.servers(), deadline).await?.is_err() {
            return Ok(None);
        }
        self.delete_owner(record, deadline).await?;
        Ok(Some(LoginOutcome { creation: Creation::Full, of_other_users: Vec::new() }))
    }

    /// Writes the owner key of the new session: the key that holds the id of its user. Returns
    /// `FailedCondition` if the key holds another user's id.
    async fn write_owner(
        &self,
        record: &SessionRecord,
        deadline: Instant,
    ) -> Result<Result<(), FailedCondition>, Error> {
        let (name, user) = (self.keys().session_owner(&record.key), record.user.as_bytes());
        let millis = life_millis(record.expires, record.created) + OWNER_MARGIN;
        let mut commit = Commit::default();
        commit.require_absent_or_value(name.clone(), user);
        commit.set(name, user.to_vec(), Life::Millis(millis));
        commit.run(self.servers(), deadline).await
    }

    /// Deletes the key that `write_owner` has written.
    async fn delete_owner(&self, record: &SessionRecord, deadline: Instant) -> Result<(), Error> {
        let name = self.keys().session_owner(&record.key);
        let mut commit = Commit::default();
        commit.require_value(name.clone(), record.user.as_bytes());
        commit.delete(name);
        commit.run(self.servers(), deadline).await.map(drop)
    }

    /// Returns the stored sessions that a login replaces, each of them once. They may belong to
    /// several users.
    async fn sessions_to_replace(
        &self,
        login: &NewLogin<'_>,
        deadline: Instant,
    ) -> Result<SessionsToReplace, Error> {
        let mut all = SessionsToReplace::default();
        for key in login.replacing {
            let chain = self.follow_successors(key, &login.record.key, deadline).await?;
            for (stored, known) in [
                (chain.to_end, &mut all.to_end),
                (chain.already_replaced, &mut all.already_replaced),
            ] {
                let is_new = |stored: &StoredRecord| {
                    known.iter().all(|known: &StoredRecord| known.record.key != stored.record.key)
                };
                let stored = stored.filter(is_new);
                known.extend(stored);
            }
        }
        Ok(all)
    }

    /// Ends the sessions of other users that a login replaces.
    async fn replace_of_other_users(
        &self,
        login: &NewLogin<'_>,
        session_keys: &[SessionKey],
        deadline: Instant,
    ) -> Result<(), Error> {
        for key in session_keys {
            while !self.replace_once(login, key, deadline).await? {}
        }
        Ok(())
    }

    /// Tries once to replace one session of another user. Returns `false` if another call has
    /// changed a record that this attempt has read.
    async fn replace_once(
        &self,
        login: &NewLogin<'_>,
        key: &SessionKey,
        deadline: Instant,
    ) -> Result<bool, Error> {
        let NewLogin { record, keep_ended_until, .. } = *login;
        let end = End::new(record.created, EndReason::Replaced, keep_ended_until);
        let SuccessorChain { to_end, already_replaced } =
            self.follow_successors(key, &record.key, deadline).await?;
        let ended = to_end.and_then(|stored| {
            let after = end.apply_to(&stored.record, Some(record.key))?;
            Some((stored, after))
        });
        let with_new_successor = already_replaced.and_then(|stored| {
            let after = stored.record.with_successor(record.key, keep_ended_until)?;
            Some((stored, after))
        });
        let mut is_done = true;
        for (stored, after) in ended.into_iter().chain(with_new_successor) {
            let change = std::iter::once((&stored.record, &after));
            self.extend_owner_keys(change, record.created, deadline).await?;
            let (mut commit, keys) = (Commit::default(), self.keys().of(&after.user));
            let (before, created_in) = (Some(&stored), stored.created_in);
            set_record(&mut commit, &keys, before, &after, created_in, record.created);
            is_done &= commit.run(self.servers(), deadline).await?.is_ok();
        }
        Ok(is_done)
    }
}

/// Returns the sessions of the user who logs in, and the keys of the sessions of other users.
fn split_by_user(
    to_replace: SessionsToReplace,
    new: &SessionRecord,
) -> (SessionsToReplace, Vec<SessionKey>) {
    let is_own = |stored: &StoredRecord| stored.record.user == new.user;
    let (to_end, others_to_end): (Vec<_>, Vec<_>) = to_replace.to_end.into_iter().partition(is_own);
    let (already_replaced, others_replaced): (Vec<_>, Vec<_>) =
        to_replace.already_replaced.into_iter().partition(is_own);
    let others = others_to_end.iter().chain(&others_replaced);
    let other_keys = others.map(|stored| stored.record.key).collect();
    (SessionsToReplace { to_end, already_replaced }, other_keys)
}
