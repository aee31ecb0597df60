//! Session records.
//!
//! A record is in the slot of its user, so it can be read and written atomically with the user's
//! other keys. A call that knows only the session's key does not know the slot. So each session
//! also has an *owner key*, which holds the id of the session's user. The owner key is written
//! before the record and lives longer.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;
use tower_keep_core::{
    AuthUser, CLOCK_SKEW, Creation, End, NewLogin, Rotated, Rotation, SeenMark, SessionKey,
    SessionRecord, SessionStore, StoreError, Timestamp, Touch, UserId, async_trait,
};

use crate::RedisStore;
use crate::error::Error;
use crate::find::{IndexRange, Order, StoredRecord};
use crate::keys::{UserKeyNames, encode_session_key};
use crate::record::write_record;
use crate::script::{Commit, Life};
use crate::servers::Access;
use crate::store::contended;

/// How many sessions are read or written concurrently, each by a command of its own.
pub(crate) const MAX_CONCURRENT: usize = 64;

/// One command lists at most this many sessions, which takes the server about a millisecond.
const LISTED_AT_ONCE: usize = 1_000;

/// The owner key of a session (`KeyNames::session_owner`) lives this many milliseconds longer than
/// the record.
pub(crate) const OWNER_MARGIN: u64 = 60_000;

/// Returns how long a record with this expiry is kept from now on, in milliseconds: until
/// [`CLOCK_SKEW`] seconds after it expires. Returns 0 if that time has passed.
pub(crate) fn life_millis(expires: Timestamp, now: Timestamp) -> u64 {
    u64::from(expires.plus(CLOCK_SKEW).since(now)) * 1_000
}

/// Adds the write of a record to a commit, and updates the user's indexes to match.
///
/// With `before`, the commit has the condition that the stored record is still `before`; otherwise
/// it has the condition that there is no such record. `created_in` is the epoch in which the record
/// is or was created.
pub(crate) fn set_record(
    commit: &mut Commit,
    keys: &UserKeyNames,
    before: Option<&StoredRecord>,
    record: &SessionRecord,
    created_in: u64,
    now: Timestamp,
) {
    let (name, member, millis) = (
        keys.session(&record.key),
        encode_session_key(&record.key),
        life_millis(record.expires, now),
    );
    match before {
        None => commit.require_absent(name.clone()),
        Some(before) => commit.require_value(name.clone(), before.value.clone()),
    }
    let before = before.map(|before| &before.record);
    let was_listed = before.is_some_and(|before| before.ended.is_none());
    let was_unnotified = before.is_some_and(SessionRecord::must_notify);
    let is_kept = millis > 0;
    let (expires, is_listed) = (record.expires.as_secs(), is_kept && record.ended.is_none());
    for (index, score, was_in, is_in) in [
        (keys.sessions_by_expiry(), expires, was_listed, is_listed),
        (keys.sessions_by_login_time(), record.created.as_secs(), was_listed, is_listed),
        (keys.unnotified_replays(), expires, was_unnotified, is_kept && record.must_notify()),
    ] {
        match (was_in, is_in) {
            (_, true) => commit.add_member(index, member.clone(), score, millis),
            (true, false) => commit.remove_member(index, member.clone()),
            (false, false) => {}
        }
    }
    if is_kept && created_in > 0 {
        // The epoch has to live longer than the record. If the epoch expired first, the user's next
        // epoch could be lower than the record's, and would not end the record.
        commit.extend_life(keys.epoch(), millis + OWNER_MARGIN);
    }
    if is_kept {
        let is_same_expiry = before.is_some_and(|before| before.expires == record.expires);
        let life = if is_same_expiry { Life::AsBefore } else { Life::Millis(millis) };
        commit.set(name, write_record(record, created_in), life);
    } else {
        commit.delete(name);
    }
}

impl<U: AuthUser> RedisStore<U> {
    /// Makes the owner key of each changed record live longer than the record. Each of `changes` is
    /// the record before the change, and the record after it.
    pub(crate) async fn extend_owner_keys(
        &self,
        changes: impl Iterator<Item = (&SessionRecord, &SessionRecord)>,
        now: Timestamp,
        deadline: Instant,
    ) -> Result<(), Error> {
        let extended = changes.filter(|(before, after)| before.expires < after.expires);
        let keys: Vec<_> =
            extended.map(|(_, after)| (after.key, life_millis(after.expires, now))).collect();
        stream::iter(keys)
            .map(|(key, millis)| async move {
                self.session_owner(&key, Some(millis), Access::Write, deadline).await.map(drop)
            })
            .buffer_unordered(MAX_CONCURRENT)
            .try_collect()
            .await
    }

    /// Replaces a record by the record that `change` returns, if the record exists and `change`
    /// returns one. Returns the record as it is after this call, and whether this call changed it.
    ///
    /// `expires` is the expiry that the call asks for, if any. The owner key is kept for longer
    /// than that.
    async fn change_record(
        &self,
        key: &SessionKey,
        now: Timestamp,
        expires: Option<Timestamp>,
        deadline: Instant,
        change: impl Fn(&SessionRecord) -> Option<SessionRecord>,
    ) -> Result<Option<(SessionRecord, bool)>, Error> {
        let record_life = expires.map(|expires| life_millis(expires, now));
        while Instant::now() < deadline {
            let found = self.find_record(key, record_life, Access::ReadLatest, deadline).await?;
            let Some((stored, stored_epoch)) = found else { return Ok(None) };
            let Some(after) = change(&stored.record) else {
                return Ok(Some((stored.record, false)));
            };
            let (mut commit, keys) = (Commit::default(), self.keys().of(&after.user));
            stored_epoch.require_unchanged(&mut commit, &keys);
            set_record(&mut commit, &keys, Some(&stored), &after, stored.created_in, now);
            if commit.run(self.servers(), deadline).await?.is_ok() {
                return Ok(Some((after, true)));
            }
        }
        Err(contended())
    }

    /// Ends these sessions of a user, and returns how many of them were live before this call.
    async fn end_sessions_of(
        &self,
        user: &UserId,
        session_keys: &[SessionKey],
        end: &End,
        deadline: Instant,
    ) -> Result<usize, Error> {
        let keys = self.keys().of(user);
        while Instant::now() < deadline {
            let stored_epoch = self.read_epoch(&keys, Access::ReadLatest, deadline).await?;
            let records =
                self.read_records(user, session_keys, &stored_epoch.epoch, deadline).await?;
            let changes: Vec<_> = records
                .into_iter()
                .filter_map(|(_, stored)| stored)
                .filter_map(|stored| {
                    end.apply_to(&stored.record, None).map(|after| (stored, after))
                })
                .collect();
            let records = changes.iter().map(|(stored, after)| (&stored.record, after));
            self.extend_owner_keys(records, end.at, deadline).await?;
            // There is no condition on the epoch. If another call ends all of the user's sessions
            // in the meantime, these sessions may show either end.
            let mut commit = Commit::default();
            for (stored, after) in &changes {
                set_record(&mut commit, &keys, Some(stored), after, stored.created_in, end.at);
            }
            if changes.is_empty() || commit.run(self.servers(), deadline).await?.is_ok() {
                let live = changes.iter().filter(|(stored, _)| stored.record.is_live(end.at));
                return Ok(live.count());
            }
        }
        Err(contended())
    }

    /// Ends these sessions, which may belong to several users, and returns how many of them were
    /// live before this call.
    async fn end_sessions(&self, keys: &[SessionKey], end: &End) -> Result<usize, Error> {
        let deadline = self.deadline();
        let owners = stream::iter(keys.to_vec()).map(|key| async move {
            let owner = self.session_owner(&key, None, Access::ReadLatest, deadline).await?;
            Ok::<_, Error>(owner.map(|owner| (owner, key)))
        });
        let owners: Vec<_> = owners.buffered(MAX_CONCURRENT).try_collect().await?;
        let mut by_user: HashMap<UserId, Vec<SessionKey>> = HashMap::new();
        for (owner, key) in owners.into_iter().flatten() {
            let keys = by_user.entry(owner).or_default();
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        let ended = stream::iter(by_user).map(|(user, keys)| async move {
            self.end_sessions_of(&user, &keys, end, deadline).await
        });
        let ended: Vec<usize> = ended.buffer_unordered(MAX_CONCURRENT).try_collect().await?;
        Ok(ended.into_iter().sum())
    }

    /// Returns at most `limit` of the user's live sessions, the most recently used first.
    async fn live_sessions(
        &self,
        user: &UserId,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Arc<SessionRecord>>, Error> {
        let (index, deadline) = (self.keys().of(user).sessions_by_expiry(), self.deadline());
        let mut live: Vec<SessionRecord> = Vec::new();
        let (mut first, mut epoch) = (0, None);
        while Instant::now() < deadline {
            // The order is from the latest expiry down to `now`, so expired sessions are not read.
            let (order, count) = (Order::HighestFirstAbove(now), LISTED_AT_ONCE);
            let range = IndexRange { index: &index, order, first, count };
            let (listed, stored_epoch) = self.list_records(user, range, deadline).await?;
            if epoch.get_or_insert_with(|| stored_epoch.epoch.clone()) != &stored_epoch.epoch {
                // Between two commands, another call has ended all sessions. Start again.
                (first, epoch) = (0, None);
                live.clear();
                continue;
            }
            let is_last = listed.len() < count;
            let listed = listed.into_iter().filter_map(|(_, stored)| Some(stored?.record));
            live.extend(listed.filter(|record| record.is_live(now)));
            live.sort_by_key(|record| std::cmp::Reverse((record.last_seen, record.created)));
            // If a session is used between two commands, the order changes, and a session may be
            // listed twice.
            let mut known = HashSet::new();
            live.retain(|record| known.insert(record.key));
            live.truncate(limit);
            if is_last {
                return Ok(live.into_iter().map(Arc::new).collect());
            }
            first += count;
        }
        Err(contended())
    }
}

#[async_trait]
impl<U: AuthUser> SessionStore for RedisStore<U> {
    async fn create(&self, login: &NewLogin<'_>) -> Result<Creation, StoreError> {
        Ok(self.create_login(login).await?)
    }

    async fn load(&self, key: &SessionKey) -> Result<Option<Arc<SessionRecord>>, StoreError> {
        let found = self.find_record(key, None, Access::Read, self.deadline()).await?;
        Ok(found.map(|(stored, _)| Arc::new(stored.record)))
    }

    async fn rotate(&self, rotation: &Rotation) -> Result<Option<Rotated>, StoreError> {
        let Rotation { key, at, expires, .. } = *rotation;
        let change = |record: &SessionRecord| rotation.apply_to(record);
        let after = self.change_record(&key, at, Some(expires), self.deadline(), change).await?;
        Ok(after.map(|(record, is_changed)| match is_changed {
            true => Rotated::Won(Arc::new(record)),
            false => Rotated::Lost(Arc::new(record)),
        }))
    }

    async fn mark_seen(&self, marks: &[SeenMark]) -> Result<(), StoreError> {
        let deadline = self.deadline();
        let marked = stream::iter(marks.to_vec()).map(|mark| async move {
            let change = |record: &SessionRecord| mark.apply_to(record);
            self.change_record(&mark.key, mark.at, None, deadline, change).await.map(drop)
        });
        Ok(marked.buffer_unordered(MAX_CONCURRENT).try_collect::<()>().await?)
    }

    async fn touch(&self, touches: &[Touch]) -> Result<(), StoreError> {
        let deadline = self.deadline();
        let touched = stream::iter(touches.to_vec()).map(|touch| async move {
            let Touch { key, at, expires, .. } = touch;
            let change = |record: &SessionRecord| touch.apply_to(record);
            self.change_record(&key, at, Some(expires), deadline, change).await.map(drop)
        });
        Ok(touched.buffer_unordered(MAX_CONCURRENT).try_collect::<()>().await?)
    }

    async fn revoke(&self, keys: &[SessionKey], end: &End) -> Result<usize, StoreError> {
        Ok(self.end_sessions(keys, end).await?)
    }

    async fn revoke_all(
        &self,
        user: &UserId,
        except: Option<&SessionKey>,
        end: &End,
    ) -> Result<(), StoreError> {
        Ok(self.end_all_sessions(user, except, end, self.deadline()).await?)
    }

    async fn list(
        &self,
        user: &UserId,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Arc<SessionRecord>>, StoreError> {
        Ok(self.live_sessions(user, now, limit).await?)
    }

    /// Removes records that ended because a new epoch began. Redis removes all other records when
    /// they expire.
    async fn purge(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        Ok(self.purge_ended_by_epochs(before, limit).await?)
    }
}
