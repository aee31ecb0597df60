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
use crate::find::{Order, Slice, Stored};
use crate::keys::{UserKeyNames, member};
use crate::record::write;
use crate::script::{Commit, Life};
use crate::servers::Use;
use crate::store::contended;

/// How many sessions are read or written concurrently, each by a command of its own.
pub(crate) const AT_ONCE: usize = 64;

/// How many sessions one command lists. Such a command occupies the server for a millisecond.
const LISTED_AT_ONCE: usize = 1_000;

/// The key that says which user a session belongs to (`KeyNames::owner`) lives this many
/// milliseconds longer than the session.
pub(crate) const MARGIN: u64 = 60_000;

/// Returns how long a record with this expiry is kept from now on, in milliseconds; 0 if it is not
/// kept.
pub(crate) fn life(expires: Timestamp, now: Timestamp) -> u64 {
    u64::from(expires.plus(CLOCK_SKEW).since(now)) * 1_000
}

/// Writes a record of this epoch, as a new one or in place of `before`, and updates the user's
/// lists to match.
pub(crate) fn put(
    commit: &mut Commit,
    keys: &UserKeyNames,
    before: Option<&Stored>,
    record: &SessionRecord,
    created_in: u64,
    now: Timestamp,
) {
    let (name, member, millis) =
        (keys.session(&record.key), member(&record.key), life(record.expires, now));
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
        commit.keep(keys.epoch(), millis + MARGIN);
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
    pub(crate) async fn keep_owners(
        &self,
        records: impl Iterator<Item = (&SessionRecord, &SessionRecord)>,
        now: Timestamp,
        deadline: Instant,
    ) -> Result<(), Error> {
        let longer = records.filter(|(before, after)| before.expires < after.expires);
        let keys: Vec<_> = longer.map(|(_, after)| (after.key, life(after.expires, now))).collect();
        stream::iter(keys)
            .map(|(key, millis)| async move {
                self.owner(&key, Some(millis), Use::Write, deadline).await.map(drop)
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    /// Changes a record, if it exists and `next` returns a change. Returns the record as it is
    /// afterwards, and whether this call changed it.
    async fn changed(
        &self,
        key: &SessionKey,
        now: Timestamp,
        expires: Option<Timestamp>,
        deadline: Instant,
        next: impl Fn(&SessionRecord) -> Option<SessionRecord>,
    ) -> Result<Option<(SessionRecord, bool)>, Error> {
        let at_least = expires.map(|expires| life(expires, now));
        while Instant::now() < deadline {
            let found = self.find(key, at_least, Use::ReadLatest, deadline).await?;
            let Some((stored, of_user)) = found else { return Ok(None) };
            let Some(after) = next(&stored.record) else {
                return Ok(Some((stored.record, false)));
            };
            let (mut commit, keys) = (Commit::default(), self.keys().of(&after.user));
            of_user.hold(&mut commit, &keys);
            put(&mut commit, &keys, Some(&stored), &after, stored.created_in, now);
            if commit.run(self.servers(), deadline).await?.is_ok() {
                return Ok(Some((after, true)));
            }
        }
        Err(contended())
    }

    /// Ends these sessions of a user, and returns how many of them were live before this call.
    async fn end(
        &self,
        user: &UserId,
        these: &[SessionKey],
        end: &End,
        deadline: Instant,
    ) -> Result<usize, Error> {
        let keys = self.keys().of(user);
        while Instant::now() < deadline {
            let of_user = self.epoch(&keys, Use::ReadLatest, deadline).await?;
            let named = self.named(user, these, &of_user.epoch, deadline).await?;
            let changes: Vec<_> = named
                .into_iter()
                .filter_map(|(_, stored)| stored)
                .filter_map(|stored| end.after(&stored.record, None).map(|after| (stored, after)))
                .collect();
            let records = changes.iter().map(|(stored, after)| (&stored.record, after));
            self.keep_owners(records, end.at, deadline).await?;
            // There is no condition on the epoch: if all sessions end in the meantime, these may
            // still end in their own way.
            let mut commit = Commit::default();
            for (stored, after) in &changes {
                put(&mut commit, &keys, Some(stored), after, stored.created_in, end.at);
            }
            if changes.is_empty() || commit.run(self.servers(), deadline).await?.is_ok() {
                let lived = changes.iter().filter(|(stored, _)| stored.record.is_live(end.at));
                return Ok(lived.count());
            }
        }
        Err(contended())
    }

    async fn revoked(&self, keys: &[SessionKey], end: &End) -> Result<usize, Error> {
        let deadline = self.deadline();
        let owners = stream::iter(keys.to_vec()).map(|key| async move {
            let owner = self.owner(&key, None, Use::ReadLatest, deadline).await?;
            Ok::<_, Error>(owner.map(|owner| (owner, key)))
        });
        let owners: Vec<_> = owners.buffered(AT_ONCE).try_collect().await?;
        let mut of_users: HashMap<UserId, Vec<SessionKey>> = HashMap::new();
        for (owner, key) in owners.into_iter().flatten() {
            let of_user = of_users.entry(owner).or_default();
            if !of_user.contains(&key) {
                of_user.push(key);
            }
        }
        let ended = stream::iter(of_users)
            .map(|(user, keys)| async move { self.end(&user, &keys, end, deadline).await });
        let ended: Vec<usize> = ended.buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(ended.into_iter().sum())
    }

    async fn live(
        &self,
        user: &UserId,
        now: Timestamp,
        most: usize,
    ) -> Result<Vec<Arc<SessionRecord>>, Error> {
        let (index, deadline) = (self.keys().of(user).live(), self.deadline());
        let mut live: Vec<SessionRecord> = Vec::new();
        let (mut first, mut began) = (0, None);
        while Instant::now() < deadline {
            // The sessions that expire last come first. Expired ones are at the end and are not
            // read.
            let (order, count) = (Order::LastToExpire(now), LISTED_AT_ONCE);
            let slice = Slice { index: &index, order, first, count };
            let (listed, of_user) = self.listed(user, slice, deadline).await?;
            if began.get_or_insert_with(|| of_user.epoch.clone()) != &of_user.epoch {
                // All sessions were ended in between.
                (first, began) = (0, None);
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
            live.truncate(most);
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
        Ok(self.created(login).await?)
    }

    async fn load(&self, key: &SessionKey) -> Result<Option<Arc<SessionRecord>>, StoreError> {
        let found = self.find(key, None, Use::Read, self.deadline()).await?;
        Ok(found.map(|(stored, _)| Arc::new(stored.record)))
    }

    async fn rotate(&self, rotation: &Rotation) -> Result<Option<Rotated>, StoreError> {
        let Rotation { key, at, expires, .. } = *rotation;
        let next = |record: &SessionRecord| rotation.after(record);
        let changed = self.changed(&key, at, Some(expires), self.deadline(), next).await?;
        Ok(changed.map(|(record, is_ours)| match is_ours {
            true => Rotated::Won(Arc::new(record)),
            false => Rotated::Lost(Arc::new(record)),
        }))
    }

    async fn seen(&self, marks: &[SeenMark]) -> Result<(), StoreError> {
        let deadline = self.deadline();
        let marked = stream::iter(marks.to_vec()).map(|mark| async move {
            let next = |record: &SessionRecord| mark.after(record);
            self.changed(&mark.key, mark.at, None, deadline, next).await.map(drop)
        });
        Ok(marked.buffer_unordered(AT_ONCE).try_collect::<()>().await?)
    }

    async fn touch(&self, touches: &[Touch]) -> Result<(), StoreError> {
        let deadline = self.deadline();
        let touched = stream::iter(touches.to_vec()).map(|touch| async move {
            let Touch { key, at, expires, .. } = touch;
            let next = |record: &SessionRecord| touch.after(record);
            self.changed(&key, at, Some(expires), deadline, next).await.map(drop)
        });
        Ok(touched.buffer_unordered(AT_ONCE).try_collect::<()>().await?)
    }

    async fn revoke(&self, keys: &[SessionKey], end: &End) -> Result<usize, StoreError> {
        Ok(self.revoked(keys, end).await?)
    }

    async fn revoke_all(
        &self,
        user: &UserId,
        but: Option<&SessionKey>,
        end: &End,
    ) -> Result<(), StoreError> {
        Ok(self.ended_all(user, but, end, self.deadline()).await?)
    }

    async fn list(
        &self,
        user: &UserId,
        now: Timestamp,
        most: usize,
    ) -> Result<Vec<Arc<SessionRecord>>, StoreError> {
        Ok(self.live(user, now, most).await?)
    }

    /// Redis removes expired records by itself. This removes the records that ended with an epoch,
    /// before they expire.
    async fn purge(&self, before: Timestamp, most: usize) -> Result<usize, StoreError> {
        Ok(self.purged_past(before, most).await?)
    }
}
