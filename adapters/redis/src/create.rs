//! What a login writes: its record, and the ends of the sessions that it replaces.

use std::sync::Arc;

use futures_util::future::{join, try_join3};
use tokio::time::Instant;
use tower_keep_core::{
    AuthUser, Creation, End, EndReason, Ended, MAX_AT_ONCE, NewLogin, Room, SessionKey,
    SessionLimit, SessionRecord, StoreErrorKind,
};

use crate::RedisStore;
use crate::epoch::{StoredEpoch, raise};
use crate::error::Error;
use crate::find::{IndexRange, ListedRecords, Order, StoredRecord};
use crate::keys::{UserKeyNames, member};
use crate::script::{Commit, FailedCondition, Life};
use crate::servers::Access;
use crate::sessions::{OWNER_MARGIN, life_millis, set_record};
use crate::store::contended;

/// The most successors of a session that a login follows.
const LONGEST_CHAIN: usize = 10_000;

/// How many of a user's sessions one command reads.
const READ_AT_ONCE: usize = 1_000;

/// How many of a user's newest logins are searched for those that have not expired.
const MAX_SEARCHED: usize = 2_000;

/// A user's lists drop a session this many seconds after it expired. What is left of its record is
/// deleted with it.
const PRUNED_AFTER: u32 = 24 * 3_600;

/// The stored sessions that a login's `replacing` leads to.
#[derive(Default)]
struct Replaced {
    /// The sessions that this login ends: each is one of `replacing`, or the last of its
    /// successors.
    to_end: Vec<StoredRecord>,
    /// The sessions of `replacing` that an earlier login has replaced. This login becomes their
    /// successor.
    already_replaced: Vec<StoredRecord>,
}

/// The stored sessions that one of a login's `replacing` leads to; see [`Replaced`].
struct Chain {
    to_end: Option<StoredRecord>,
    already_replaced: Option<StoredRecord>,
}

/// The highest-ranked sessions of one of a user's lists, as a limit needs them.
struct Highest {
    stored_epoch: StoredEpoch,
    /// The live sessions that are not being replaced.
    live: Vec<StoredRecord>,
    /// All members that were read. If `is_all` is set, there are no others.
    members: Vec<String>,
    is_all: bool,
    index: String,
    order: Order,
}

impl Highest {
    /// Adds to a commit the condition that these members are unchanged.
    fn require_unchanged(&self, commit: &mut Commit) {
        let count = self.members.len() + usize::from(self.is_all);
        let above = match self.order {
            Order::LastToExpire(by) => Some(by.as_secs()),
            Order::Lowest | Order::Highest => None,
        };
        commit.if_highest(self.index.clone(), count, above, &self.members);
    }
}

/// The change that writes a login, while it is being put together.
struct Draft {
    commit: Commit,
    /// The records that change: as they are stored, and as they will be.
    changes: Vec<(StoredRecord, SessionRecord)>,
    /// The epoch in which the new record is created.
    created_in: u64,
    /// Whether the login raises the user's epoch, because too many sessions have to end.
    is_raised: bool,
    /// The sessions that end because of the limit.
    over_limit: Vec<Arc<SessionRecord>>,
}

impl Draft {
    /// Begins with the conditions of every login: the key is free, and the epoch is unchanged.
    fn new(key: &SessionKey, keys: &UserKeyNames, stored_epoch: &StoredEpoch) -> Self {
        let mut commit = Commit::default();
        // This condition is the first, so that a key that is taken is told apart from all other
        // conflicts.
        commit.if_absent(keys.session(key));
        stored_epoch.require_unchanged(&mut commit, keys);
        let created_in = stored_epoch.epoch.number;
        Self { commit, changes: Vec::new(), created_in, is_raised: false, over_limit: Vec::new() }
    }

    /// Adds a change of a record, if there is one.
    fn change(&mut self, stored: StoredRecord, after: Option<SessionRecord>) {
        self.changes.extend(after.map(|after| (stored, after)));
    }

    /// Ends the sessions that this login replaces.
    fn replace(&mut self, login: &NewLogin<'_>, replaced: Replaced, keys: &UserKeyNames) {
        let NewLogin { record, keep_ended_until, .. } = *login;
        let end = End::new(record.created, EndReason::Replaced, keep_ended_until);
        for stored in replaced.to_end {
            if self.is_raised {
                self.commit.remove(keys.past(self.created_in), member(&stored.record.key));
            }
            let after = end.apply_to(&stored.record, Some(record.key));
            self.change(stored, after);
        }
        for stored in replaced.already_replaced {
            let after = stored.record.followed_by(record.key, keep_ended_until);
            self.change(stored, after);
        }
    }

    /// Marks these replays as notified, and returns them as they were before.
    fn notify(&mut self, listed: ListedRecords, keys: &UserKeyNames) -> Vec<Arc<SessionRecord>> {
        let mut replays = Vec::new();
        for (key, stored) in listed {
            let change =
                stored.and_then(|stored| stored.record.notified().map(|after| (stored, after)));
            let Some((stored, after)) = change else {
                self.commit.remove(keys.to_notify(), member(&key));
                continue;
            };
            replays.push(Arc::new(stored.record.clone()));
            self.changes.push((stored, after));
        }
        replays
    }
}

/// The result of a login, and the sessions of other users that are still to be replaced.
type Created = (Creation, Vec<SessionKey>);

fn key_is_taken() -> Error {
    Error::new(StoreErrorKind::Conflict, "the session's key is taken")
}

impl<U: AuthUser> RedisStore<U> {
    /// Follows the successors of this session to the first one that has not ended, which may be the
    /// session itself. There is no such session if the chain leads to `new_key`, or to a session
    /// that has ended without a successor.
    async fn follow_successors(
        &self,
        key: &SessionKey,
        new_key: &SessionKey,
        deadline: Instant,
    ) -> Result<Chain, Error> {
        let (mut key, mut already_replaced) = (*key, None);
        // There is a limit because two logins that replace each other's sessions form a circle.
        for _ in 0..LONGEST_CHAIN {
            if key == *new_key {
                break;
            }
            let found = self.find(&key, None, Access::ReadLatest, deadline).await?;
            let Some((stored, _)) = found else { break };
            match &stored.record.ended {
                None => return Ok(Chain { to_end: Some(stored), already_replaced }),
                Some(Ended { successor: Some(successor), .. }) => {
                    key = *successor;
                    already_replaced = already_replaced.or(Some(stored));
                }
                Some(_) => break,
            }
        }
        Ok(Chain { to_end: None, already_replaced })
    }

    pub(crate) async fn create_login(&self, login: &NewLogin<'_>) -> Result<Creation, Error> {
        let deadline = self.deadline();
        let mut prune = Some(self.prune(login.record, deadline));
        while Instant::now() < deadline {
            let creating = self.create_once(login, deadline);
            let created = match prune.take() {
                Some(prune) => join(prune, creating).await.1?,
                None => creating.await?,
            };
            if let Some((creation, of_other_users)) = created {
                let replaced = self.replace_of_other_users(login, &of_other_users, deadline).await;
                return replaced.map(|()| creation).map_err(Error::after_writing);
            }
        }
        Err(contended())
    }

    /// Removes sessions that expired long ago. If that fails, the next login does it.
    async fn prune(&self, record: &SessionRecord, deadline: Instant) {
        let keys = self.keys().of(&record.user);
        let before = record.created.minus(PRUNED_AFTER).as_secs();
        let mut commit = Commit::default();
        commit.prune(keys.live(), keys.begun(), before, &keys.sessions());
        let _ = commit.run_unconfirmed(self.servers(), deadline).await;
    }

    /// Returns the newest live sessions except those that are being replaced, as many as the limit
    /// needs.
    ///
    /// The list by expiry is read first, because it skips expired sessions. If it shows that there
    /// are few sessions, they are the result. If there are more, the list by time of login decides.
    /// If too few of the newest logins are live, although very many were read, the result is the
    /// sessions that expire last.
    async fn newest(
        &self,
        record: &SessionRecord,
        limit: SessionLimit,
        replaced: &[StoredRecord],
        deadline: Instant,
    ) -> Result<Highest, Error> {
        let (keys, now) = (self.keys().of(&record.user), record.created);
        let needed = limit.records_to_read();
        let enough = needed.saturating_add(replaced.len());
        let highest = async |index: String, order: Order, max: usize| {
            let mut highest = Highest {
                stored_epoch: StoredEpoch::default(),
                live: Vec::new(),
                members: Vec::new(),
                is_all: false,
                index,
                order,
            };
            while !highest.is_all && highest.live.len() < needed && highest.members.len() < max {
                let (index, first) = (&highest.index, highest.members.len());
                let count = (max - first).min(READ_AT_ONCE);
                let range = IndexRange { index, order, first, count };
                let (listed, stored_epoch) =
                    self.list_records(&record.user, range, deadline).await?;
                highest.stored_epoch = stored_epoch;
                highest.is_all = listed.len() < count;
                highest.members.extend(listed.iter().map(|(key, _)| member(key)));
                let is_counted = |stored: &StoredRecord| {
                    let is_same = |other: &StoredRecord| other.record.key == stored.record.key;
                    stored.record.is_live(now) && !replaced.iter().any(is_same)
                };
                let listed = listed.into_iter().filter_map(|(_, stored)| stored);
                highest.live.extend(listed.filter(is_counted));
            }
            highest.live.truncate(needed);
            Ok::<_, Error>(highest)
        };
        let last_to_expire = highest(keys.live(), Order::LastToExpire(now), enough).await?;
        if last_to_expire.is_all {
            return Ok(last_to_expire);
        }
        let newest = highest(keys.begun(), Order::Highest, enough.max(MAX_SEARCHED)).await?;
        let is_enough = newest.is_all || newest.live.len() >= needed;
        Ok(if is_enough { newest } else { last_to_expire })
    }

    /// Tries once to create the session. Returns `None` if another call has changed something that
    /// this one depends on.
    async fn create_once(
        &self,
        login: &NewLogin<'_>,
        deadline: Instant,
    ) -> Result<Option<Created>, Error> {
        let NewLogin { record, keep_ended_until, limit, .. } = *login;
        let (user, now) = (&record.user, record.created);
        let keys = self.keys().of(user);
        let index = keys.to_notify();
        // These reads run concurrently. What each of them finds is a condition of the change.
        let range =
            IndexRange { index: &index, order: Order::Lowest, first: 0, count: MAX_AT_ONCE };
        let (owner, replaced, (to_notify, stored_epoch)) = try_join3(
            self.write_owner(record, deadline),
            self.replaced(login, deadline),
            self.list_records(user, range, deadline),
        )
        .await?;
        owner.map_err(|_| key_is_taken())?;
        let (replaced, of_other_users) = split_by_user(replaced, record);
        let mut draft = Draft::new(&record.key, &keys, &stored_epoch);
        if let Some(limit) = limit {
            let newest = self.newest(record, limit, &replaced.to_end, deadline).await?;
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
                        raise(&mut draft.commit, &keys, &stored_epoch, &end, stay.iter());
                    draft.is_raised = true;
                }
            }
        }
        set_record(&mut draft.commit, &keys, None, record, draft.created_in, now);
        draft.replace(login, replaced, &keys);
        let replays = draft.notify(to_notify, &keys);
        let Draft { mut commit, changes, created_in, is_raised, over_limit } = draft;
        let records = changes.iter().map(|(stored, after)| (&stored.record, after));
        self.extend_owner_keys(records, now, deadline).await?;
        for (stored, after) in &changes {
            set_record(&mut commit, &keys, Some(stored), after, stored.created_in, now);
        }
        match commit.run(self.servers(), deadline).await? {
            Ok(()) => {
                if is_raised {
                    self.note_past(user, created_in, keep_ended_until, deadline).await;
                }
                Ok(Some((Creation::created(over_limit, replays), of_other_users)))
            }
            Err(FailedCondition(0)) => Err(key_is_taken()),
            Err(_) => Ok(None),
        }
    }

    /// Refuses a login because the user is at the limit. Returns `None` if a condition of the
    /// commit fails, because then the user may have room by now.
    async fn refuse(
        &self,
        record: &SessionRecord,
        conditions: Commit,
        deadline: Instant,
    ) -> Result<Option<Created>, Error> {
        if self.find(&record.key, None, Access::ReadLatest, deadline).await?.is_some() {
            return Err(key_is_taken());
        }
        if conditions.run(self.servers(), deadline).await?.is_err() {
            return Ok(None);
        }
        self.delete_owner(record, deadline).await?;
        Ok(Some((Creation::Full, Vec::new())))
    }

    /// Writes which user this session will belong to, unless it belongs to another user.
    async fn write_owner(
        &self,
        record: &SessionRecord,
        deadline: Instant,
    ) -> Result<Result<(), FailedCondition>, Error> {
        let (name, user) = (self.keys().owner(&record.key), record.user.as_bytes());
        let millis = life_millis(record.expires, record.created) + OWNER_MARGIN;
        let mut commit = Commit::default();
        commit.if_absent_or_is(name.clone(), user);
        commit.set(name, user.to_vec(), Life::Millis(millis));
        commit.run(self.servers(), deadline).await
    }

    /// Deletes what `write_owner` has written.
    async fn delete_owner(&self, record: &SessionRecord, deadline: Instant) -> Result<(), Error> {
        let name = self.keys().owner(&record.key);
        let mut commit = Commit::default();
        commit.if_is(name.clone(), record.user.as_bytes());
        commit.delete(name);
        commit.run(self.servers(), deadline).await.map(drop)
    }

    /// Returns the stored sessions that a login's `replacing` leads to, each of them once. They may
    /// belong to several users.
    async fn replaced(&self, login: &NewLogin<'_>, deadline: Instant) -> Result<Replaced, Error> {
        let mut all = Replaced::default();
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

    /// Ends the sessions of other users that a new login replaces.
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

    /// Tries once to end a session of another user. Returns `false` if another call has changed it.
    async fn replace_once(
        &self,
        login: &NewLogin<'_>,
        key: &SessionKey,
        deadline: Instant,
    ) -> Result<bool, Error> {
        let NewLogin { record, keep_ended_until, .. } = *login;
        let end = End::new(record.created, EndReason::Replaced, keep_ended_until);
        let Chain { to_end, already_replaced } =
            self.follow_successors(key, &record.key, deadline).await?;
        let ended = to_end.and_then(|stored| {
            let after = end.apply_to(&stored.record, Some(record.key))?;
            Some((stored, after))
        });
        let followed = already_replaced.and_then(|stored| {
            let after = stored.record.followed_by(record.key, keep_ended_until)?;
            Some((stored, after))
        });
        let mut is_done = true;
        for (stored, after) in ended.into_iter().chain(followed) {
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

/// Separates the sessions of the user who logs in from those of other users, of which it returns
/// the keys.
fn split_by_user(replaced: Replaced, new: &SessionRecord) -> (Replaced, Vec<SessionKey>) {
    let is_own = |stored: &StoredRecord| stored.record.user == new.user;
    let (to_end, others_to_end): (Vec<_>, Vec<_>) = replaced.to_end.into_iter().partition(is_own);
    let (already_replaced, others_replaced): (Vec<_>, Vec<_>) =
        replaced.already_replaced.into_iter().partition(is_own);
    let others = others_to_end.iter().chain(&others_replaced);
    (Replaced { to_end, already_replaced }, others.map(|stored| stored.record.key).collect())
}
