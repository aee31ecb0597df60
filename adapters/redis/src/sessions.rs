//! Session records.
//!
//! A record is in the slot of its user, where it can be read and written atomically with the user's
//! other keys. The session's key alone does not say which user that is. So another key, which is
//! written before the record and lives longer, says which user the session belongs to.

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
use crate::keys::{UserKeyNames, member};
use crate::record::write;
use crate::script::{Commit, Life};
use crate::servers::Access;
use crate::store::contended;

/// How many sessions are read or written concurrently, each by a command of its own.
pub(crate) const MAX_CONCURRENT: usize = 64;

/// How many sessions one command lists. Such a command occupies the server for a millisecond.
const LISTED_AT_ONCE: usize = 1_000;

/// The key that says which user a session belongs to (`KeyNames::owner`) lives this many
/// milliseconds longer than the session.
pub(crate) const OWNER_MARGIN: u64 = 60_000;

/// Returns how long a record with this expiry is kept from now on, in milliseconds; 0 if it is not
/// kept.
pub(crate) fn life_millis(expires: Timestamp, now: Timestamp) -> u64 {
    u64::from(expires.plus(CLOCK_SKEW).since(now)) * 1_000
}

/// Adds to a commit the write of a record of this epoch, as a new one or in place of `before`, and
/// updates the user's lists to match.
pub(crate) fn set_record(
    commit: &mut Commit,
    keys: &UserKeyNames,
    before: Option<&StoredRecord>,
    record: &SessionRecord,
    created_in: u64,
    now: Timestamp,
) {
    let (name, member, millis) =
        (keys.session(&record.key), member(&record.key), life_millis(record.expires, now));
    match before {
        None => commit.if_absent(name.clone()),
        Some(before) => commit.if_is(name.clone(), before.value.clone()),
    }
    let before = before.map(|before| &before.record);
    let was_live = before.is_some_and(|before| before.ended.is_none());
    let had_to_notify = before.is_some_and(SessionRecord::must_notify);
    let is_kept = millis > 0;
    let (expires, is_live) = (record.expires.as_secs(), is_kept && record.ended.is_none());
    for (index, score, was_in, is_in) in [
        (keys.live(), expires, was_live, is_live),
        (keys.begun(), record.created.as_secs(), was_live, is_live),
        (keys.to_notify(), expires, had_to_notify, is_kept && record.must_notify()),
    ] {
        match (was_in, is_in) {
            (_, true) => commit.add(index, member.clone(), score, millis),
            (true, false) => commit.remove(index, member.clone()),
            (false, false) => {}
        }
    }
    if is_kept && created_in > 0 {
        // Without this key the user's next epoch would be earlier than that of this record.
        commit.extend_life(keys.epoch(), millis + OWNER_MARGIN);
    }
    if is_kept {
        let is_as_long = before.is_some_and(|before| before.expires == record.expires);
        let life = if is_as_long { Life::AsBefore } else { Life::Millis(millis) };
        commit.set(name, write(record, created_in), life);
    } else {
        commit.delete(name);
    }
}

impl<U: AuthUser> RedisStore<U> {
    /// Extends the life of these sessions' owner keys (`KeyNames::owner`) to that of the new
    /// records.
    pub(crate) async fn extend_owner_keys(
        &self,
        records: impl Iterator<Item = (&SessionRecord, &SessionRecord)>,
        now: Timestamp,
        deadline: Instant,
    ) -> Result<(), Error> {
        let longer = records.filter(|(before, after)| before.expires < after.expires);
        let keys: Vec<_> =
            longer.map(|(_, after)| (after.key, life_millis(after.expires, now))).collect();
        stream::iter(keys)
            .map(|(key, millis)| async move {
                self.owner(&key, Some(millis), Access::Write, deadline).await.map(drop)
            })
            .buffer_unordered(MAX_CONCURRENT)
            .try_collect()
            .await
    }

    /// Changes a record, if it exists and `next` returns a change. Returns the record as it is
    /// afterwards, and whether this call changed it.
    async fn change_record(
        &self,
        key: &SessionKey,
        now: Timestamp,
        expires: Option<Timestamp>,
        deadline: Instant,
        next: impl Fn(&SessionRecord) -> Option<SessionRecord>,
    ) -> Result<Option<(SessionRecord, bool)>, Error> {
        let at_least = expires.map(|expires| life_millis(expires, now));
        while Instant::now() < deadline {
            let found = self.find(key, at_least, Access::ReadLatest, deadline).await?;
            let Some((stored, stored_epoch)) = found else { return Ok(None) };
            let Some(after) = next(&stored.record) else {
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
            let stored_epoch = self.epoch(&keys, Access::ReadLatest, deadline).await?;
            let records = self.records(user, session_keys, &stored_epoch.epoch, deadline).await?;
            let changes: Vec<_> = records
                .into_iter()
                .filter_map(|(_, stored)| stored)
                .filter_map(|stored| {
                    end.apply_to(&stored.record, None).map(|after| (stored, after))
                })
                .collect();
            let records = changes.iter().map(|(stored, after)| (&stored.record, after));
            self.extend_owner_keys(records, end.at, deadline).await?;
            // There is no condition on the epoch: if all sessions end in the meantime, these may
            // still end in their own way.
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
            let owner = self.owner(&key, None, Access::ReadLatest, deadline).await?;
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
        let (index, deadline) = (self.keys().of(user).live(), self.deadline());
        let mut live: Vec<SessionRecord> = Vec::new();
        let (mut first, mut epoch) = (0, None);
        while Instant::now() < deadline {
            // The sessions that expire last come first. Expired ones are at the end and are not
            // read.
            let (order, count) = (Order::LastToExpire(now), LISTED_AT_ONCE);
            let range = IndexRange { index: &index, order, first, count };
            let (listed, stored_epoch) = self.list_records(user, range, deadline).await?;
            if epoch.get_or_insert_with(|| stored_epoch.epoch.clone()) != &stored_epoch.epoch {
                // All sessions were ended in between.
                (first, epoch) = (0, None);
                live.clear();
                continue;
            }
            let is_last = listed.len() < count;
            let listed = listed.into_iter().filter_map(|(_, stored)| Some(stored?.record));
            live.extend(listed.filter(|record| record.is_live(now)));
            live.sort_by_key(|record| std::cmp::Reverse((record.last_seen, record.created)));
            // When a session is used in between, the order changes, and a session may be listed
            // twice.
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
        let found = self.find(key, None, Access::Read, self.deadline()).await?;
        Ok(found.map(|(stored, _)| Arc::new(stored.record)))
    }

    async fn rotate(&self, rotation: &Rotation) -> Result<Option<Rotated>, StoreError> {
        let Rotation { key, at, expires, .. } = *rotation;
        let next = |record: &SessionRecord| rotation.apply_to(record);
        let changed = self.change_record(&key, at, Some(expires), self.deadline(), next).await?;
        Ok(changed.map(|(record, is_ours)| match is_ours {
            true => Rotated::Won(Arc::new(record)),
            false => Rotated::Lost(Arc::new(record)),
        }))
    }

    async fn mark_seen(&self, marks: &[SeenMark]) -> Result<(), StoreError> {
        let deadline = self.deadline();
        let marked = stream::iter(marks.to_vec()).map(|mark| async move {
            let next = |record: &SessionRecord| mark.apply_to(record);
            self.change_record(&mark.key, mark.at, None, deadline, next).await.map(drop)
        });
        Ok(marked.buffer_unordered(MAX_CONCURRENT).try_collect::<()>().await?)
    }

    async fn touch(&self, touches: &[Touch]) -> Result<(), StoreError> {
        let deadline = self.deadline();
        let touched = stream::iter(touches.to_vec()).map(|touch| async move {
            let Touch { key, at, expires, .. } = touch;
            let next = |record: &SessionRecord| touch.apply_to(record);
            self.change_record(&key, at, Some(expires), deadline, next).await.map(drop)
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

    /// Redis removes expired records by itself. This removes the records that ended with an epoch,
    /// before they expire.
    async fn purge(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        Ok(self.purge_past(before, limit).await?)
    }
}
