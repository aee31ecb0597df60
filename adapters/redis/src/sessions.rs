//! Session records.
//!
//! A record is in the slot of its user, so it can be read and written atomically with the user's
//! other keys. A call that knows only the session's key does not know the slot. So each session
//! also has an *owner key*, which holds the id of the session's user. The owner key is written
//! before the record and lives longer.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use redis::Value;
use tokio::time::Instant;
use tower_keep_core::{
    AuthUser, Creation, End, NewLogin, Rotated, Rotation, SeenMark, SessionKey, SessionRecord,
    SessionStore, StoreResult, Timestamp, Touch, UserId, async_trait, most_recently_used,
};

use crate::access::Access;
use crate::epoch::raise_epoch;
use crate::error::Error;
use crate::find::{IndexRange, Order};
use crate::life::life_millis;
use crate::script::Commit;
use crate::store::{MAX_CONCURRENT, RedisStore};
use crate::write_session::set_record;

/// One command lists at most this many sessions, which takes the server about a millisecond.
const LISTED_AT_ONCE: usize = 1_000;

#[async_trait]
impl<U: AuthUser> SessionStore for RedisStore<U> {
    async fn create(&self, login: &NewLogin<'_>) -> StoreResult<Creation> {
        Ok(self.create_login(login).await?)
    }

    async fn load(&self, key: &SessionKey) -> StoreResult<Option<Arc<SessionRecord>>> {
        let found = self.find_record(key, None, Access::Read, self.deadline()).await?;
        Ok(found.map(|(stored, _)| Arc::new(stored.record)))
    }

    async fn rotate(&self, rotation: &Rotation) -> StoreResult<Option<Rotated>> {
        let Rotation { key, at, expires, .. } = *rotation;
        let change = |record: &SessionRecord| rotation.apply_to(record);
        let after = self.change_record(&key, at, Some(expires), self.deadline(), change).await?;
        Ok(after.map(|(record, is_changed)| match is_changed {
            true => Rotated::Won(Arc::new(record)),
            false => Rotated::Lost(Arc::new(record)),
        }))
    }

    async fn mark_seen(&self, marks: &[SeenMark]) -> StoreResult<()> {
        let deadline = self.deadline();
        let marked = stream::iter(marks.to_vec()).map(|mark| async move {
            let change = |record: &SessionRecord| mark.apply_to(record);
            self.change_record(&mark.key, mark.at, None, deadline, change).await.map(drop)
        });
        Ok(marked.buffer_unordered(MAX_CONCURRENT).try_collect::<()>().await?)
    }

    async fn touch(&self, touches: &[Touch]) -> StoreResult<()> {
        let deadline = self.deadline();
        let touched = stream::iter(touches.to_vec()).map(|touch| async move {
            let Touch { key, at, expires, .. } = touch;
            let change = |record: &SessionRecord| touch.apply_to(record);
            self.change_record(&key, at, Some(expires), deadline, change).await.map(drop)
        });
        Ok(touched.buffer_unordered(MAX_CONCURRENT).try_collect::<()>().await?)
    }

    async fn revoke(&self, keys: &[SessionKey], end: &End) -> StoreResult<usize> {
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

    async fn revoke_all(
        &self,
        user: &UserId,
        except: Option<&SessionKey>,
        end: &End,
    ) -> StoreResult<()> {
        let (keys, deadline) = (self.keys().of(user), self.deadline());
        while Instant::now() < deadline {
            let stored_epoch = self.read_epoch(&keys, Access::ReadLatest, deadline).await?;
            let mut count = redis::cmd("ZCARD");
            count.arg(keys.sessions_by_login_time());
            let count = self
                .servers()
                .call(&keys.sessions_by_login_time(), Access::ReadLatest, &count, deadline)
                .await?;
            if count == Value::Int(0) {
                return Ok(());
            }
            let except = except.map_or(&[][..], std::slice::from_ref);
            let stay = self.read_records(user, except, &stored_epoch.epoch, deadline).await?;
            let stay: Vec<_> = stay.into_iter().filter_map(|(_, stored)| stored).collect();
            let stay = stay.iter().filter(|stored| stored.record.ended.is_none());
            let mut commit = Commit::default();
            stored_epoch.require_unchanged(&mut commit, &keys);
            let number = raise_epoch(&mut commit, &keys, &stored_epoch, end, stay);
            if commit.run(self.servers(), deadline).await?.is_ok() {
                self.queue_for_purge(user, number, end.keep_until, deadline).await;
                return Ok(());
            }
        }
        Err(Error::contended().into())
    }

    async fn list(
        &self,
        user: &UserId,
        now: Timestamp,
        limit: usize,
    ) -> StoreResult<Vec<Arc<SessionRecord>>> {
        let (index, deadline) = (self.keys().of(user).sessions_by_expiry(), self.deadline());
        let mut live: Vec<Arc<SessionRecord>> = Vec::new();
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
            let listed: Vec<_> = listed.map(Arc::new).collect();
            // If a session is used between two commands, the order changes, and a session may be
            // listed twice. The later of its records stays.
            let keys: HashSet<_> = listed.iter().map(|record| record.key).collect();
            live.retain(|record| !keys.contains(&record.key));
            live.extend(listed);
            live = most_recently_used(live, now, limit);
            if is_last {
                return Ok(live);
            }
            first += count;
        }
        Err(Error::contended().into())
    }

    /// Removes records that ended because a new epoch began. Redis removes all other records when
    /// they expire.
    async fn purge(&self, before: Timestamp, limit: usize) -> StoreResult<usize> {
        Ok(self.purge_ended_by_epochs(before, limit).await?)
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
        Err(Error::contended())
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
        Err(Error::contended())
    }
}
