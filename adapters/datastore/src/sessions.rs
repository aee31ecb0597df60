//! Session records: how they are found, changed and ended.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use gcloud_sdk::google::datastore::v1::{Entity, Key, Mutation, Query};
use tokio::time::Instant;
use tower_keep_core::{
    AuthUser, Creation, End, EndReason, Epoch, NewLogin, Rotated, Rotation, SeenMark, SessionKey,
    SessionRecord, SessionStore, StoreError, Timestamp, Touch, UserId, async_trait,
};

use crate::DatastoreStore;
use crate::error::Error;
use crate::keys::MAX_INDEXED;
use crate::properties::{text, time};
use crate::query::{self, Operator, compare, of_kind};
use crate::record::{self, EXPIRE_AT, Expiry, Logins, PURGE_AT, SORT_KEY, Stored, deletable_at};
use crate::transaction::{
    Change, Transaction, collect_into, delete, read_all, transact, unchanged, upsert,
};

/// The maximum number of sessions that one transaction changes, if they need not change at one
/// moment.
const MAX_CHANGED: usize = 50;
/// How many such transactions run concurrently.
const CONCURRENT_TRANSACTIONS: usize = 8;
/// The maximum number of sessions that one transaction ends or deletes. Each takes about 2 KB of a
/// transaction's 10 MiB, with its index entries, and more with long details or a long id.
const MAX_ENDED: usize = 1_000;
/// How many batches of `Logins` are purged in one call.
const LOGINS_BATCHES: usize = 10;

/// The changes that end sessions.
struct Ends {
    mutations: Vec<Mutation>,
    /// How many of the sessions were live before.
    live: usize,
    /// The sessions that end because of a replay. Their users have to be notified.
    replayed: HashMap<UserId, Vec<SessionKey>>,
}

/// The data of several users' logins.
pub(crate) type LoginsByUser = HashMap<UserId, Logins>;

impl<U: AuthUser> DatastoreStore<U> {
    pub(crate) fn session_entity(&self, stored: &Stored) -> Entity {
        record::write(self.keys(), self.shared.expiry, stored)
    }

    pub(crate) fn logins_entity(&self, user: &UserId, logins: &Logins) -> Entity {
        logins.write(self.keys(), self.shared.expiry, user)
    }

    /// Reads the records with these keys as they are now, and the data of their users' logins. Both
    /// are read in the transaction.
    pub(crate) async fn read_with_logins(
        &self,
        transaction: &Transaction<'_>,
        keys: &[SessionKey],
    ) -> Result<(Vec<Stored>, LoginsByUser), Error> {
        self.read_records_and_logins(transaction, keys, true).await
    }

    /// Reads the records with these keys as they are now. Only the records are read in the
    /// transaction, so it does not wait for other changes to the users' logins. A session that ends
    /// with all others in the meantime has ended, whatever is written to its record.
    async fn read_records(
        &self,
        transaction: &Transaction<'_>,
        keys: &[SessionKey],
    ) -> Result<Vec<Stored>, Error> {
        Ok(self.read_records_and_logins(transaction, keys, false).await?.0)
    }

    async fn read_records_and_logins(
        &self,
        transaction: &Transaction<'_>,
        session_keys: &[SessionKey],
        logins_in_transaction: bool,
    ) -> Result<(Vec<Stored>, LoginsByUser), Error> {
        let keys: Vec<_> = session_keys.iter().map(|key| self.keys().session(key)).collect();
        if keys.is_empty() {
            return Ok((Vec::new(), LoginsByUser::new()));
        }
        let mut found = transaction.lookup(keys.clone()).await?;
        let stored = keys.iter().filter_map(|key| found.remove(key)).map(record::read);
        let stored: Vec<Stored> = stored.collect::<Result<_, _>>()?;
        let users: HashSet<&UserId> = stored.iter().map(|stored| &stored.record.user).collect();
        let logins_keys: Vec<_> = users.iter().map(|user| self.keys().logins(user)).collect();
        let mut found = match logins_keys[..] {
            [] => return Ok((stored, LoginsByUser::new())),
            _ if logins_in_transaction => transaction.lookup(logins_keys).await?,
            _ => self.client().lookup(logins_keys, None, transaction.deadline()).await?,
        };
        let mut logins = LoginsByUser::new();
        for user in users {
            let logins_of_user = Logins::read(found.remove(&self.keys().logins(user)))?;
            logins.insert(user.clone(), logins_of_user);
        }
        let is_past = |stored: &Stored| {
            logins.get(&stored.record.user).is_some_and(|logins| stored.is_past(&logins.epoch))
        };
        if !logins_in_transaction && stored.iter().any(is_past) {
            // All other sessions may have ended in between.
            let again = self.read_records_and_logins(transaction, session_keys, true);
            return Box::pin(again).await;
        }
        let now = |stored: Stored| match logins.get(&stored.record.user) {
            Some(logins) => stored.apply_epoch(&logins.epoch),
            None => stored,
        };
        Ok((stored.into_iter().map(now).collect(), logins))
    }

    /// Returns the query for a user's sessions of this epoch that have not ended.
    pub(crate) fn open_sessions(&self, user: &UserId, epoch: u64) -> Option<Query> {
        // No user has an id that can't be indexed.
        indexable(user)?;
        let [_, end] = self.keys().sort_key_range(user);
        Some(self.sort_key_query(self.keys().epoch_sort_key(user, epoch), end))
    }

    /// Returns the query for the sessions with a sort key from `from` up to, but not including,
    /// `before`.
    fn sort_key_query(&self, from: String, before: String) -> Query {
        let at_least = Operator::GreaterThanOrEqual;
        let filters = vec![
            compare(SORT_KEY, at_least, text(&from)),
            compare(SORT_KEY, Operator::LessThan, text(&before)),
        ];
        of_kind(&self.keys().session_kind(), filters)
    }

    /// Changes a record, if it exists and there is something to change. Returns the record after
    /// that, and whether this call changed it.
    async fn change_record(
        &self,
        key: &SessionKey,
        apply: impl Fn(&SessionRecord) -> Option<SessionRecord>,
    ) -> Result<Option<(SessionRecord, bool)>, Error> {
        let deadline = self.deadline();
        let turn = self.shared.turns.wait(key, deadline).await?;
        if turn.has_waited {
            // The requests of one page often make the same change, so the call before has probably
            // done it.
            let found = self.find(key, deadline).await?;
            if found.as_ref().is_none_or(|stored| apply(&stored.record).is_none()) {
                return Ok(found.map(|stored| (stored.record, false)));
            }
        }
        transact!(self.client(), deadline, transaction => {
            let found = self.read_records(transaction, std::slice::from_ref(key)).await?;
            let Some(stored) = found.into_iter().next() else { return unchanged(None) };
            let Some(after) = apply(&stored.record) else {
                return unchanged(Some((stored.record, false)));
            };
            let mutations = vec![upsert(self.session_entity(&stored.with_record(after.clone())))];
            Ok(Change { mutations, output: Some((after, true)) })
        })
        .await
    }

    /// Changes many records, independently of each other.
    async fn change_records<C: Clone + Send + Sync>(
        &self,
        changes: &[C],
        key: impl Fn(&C) -> SessionKey + Sync,
        apply: impl Fn(&C, &SessionRecord) -> Option<SessionRecord> + Sync,
    ) -> Result<(), Error> {
        if let [change] = changes {
            self.change_record(&key(change), |record| apply(change, record)).await?;
            return Ok(());
        }
        let deadline = self.deadline();
        let (key, apply) = (&key, &apply);
        let chunks = changes.chunks(MAX_CHANGED).map(<[C]>::to_vec).collect::<Vec<_>>();
        stream::iter(chunks)
            .map(|chunk| async move {
                transact!(self.client(), deadline, transaction => {
                    let mut keys: Vec<_> = chunk.iter().map(key).collect();
                    keys.sort_unstable();
                    keys.dedup();
                    let mut records = HashMap::new();
                    for stored in self.read_records(transaction, &keys).await? {
                        records.insert(stored.record.key, (stored, false));
                    }
                    for change in &chunk {
                        let Some((stored, is_changed)) = records.get_mut(&key(change)) else { continue };
                        if let Some(after) = apply(change, &stored.record) {
                            (stored.record, *is_changed) = (after, true);
                        }
                    }
                    let changed = records.values().filter(|(_, is_changed)| *is_changed);
                    let mutations = changed.map(|(stored, _)| upsert(self.session_entity(stored)));
                    Ok(Change { mutations: mutations.collect(), output: () })
                })
                .await
            })
            .buffer_unordered(CONCURRENT_TRANSACTIONS)
            .try_collect()
            .await
    }

    /// Returns the changes that end these records.
    fn end_records(&self, records: Vec<Stored>, end: &End) -> Ends {
        let mut ends = Ends { mutations: Vec::new(), live: 0, replayed: HashMap::new() };
        for stored in records {
            let Some(after) = end.apply_to(&stored.record, None) else { continue };
            ends.live += usize::from(stored.record.is_live(end.at));
            ends.mutations.push(upsert(self.session_entity(&stored.with_record(after))));
            if end.reason == EndReason::Replay {
                let Stored { record, .. } = stored;
                ends.replayed.entry(record.user).or_default().push(record.key);
            }
        }
        ends
    }

    async fn revoke_sessions(&self, keys: &[SessionKey], end: &End) -> Result<usize, Error> {
        let deadline = self.deadline();
        let mut keys = keys.to_vec();
        keys.sort_unstable();
        keys.dedup();
        // Calls with several keys have no common order in which to wait. If they conflict, the
        // service decides.
        let _turn = match keys.as_slice() {
            [key] => Some(self.shared.turns.wait(key, deadline).await?),
            _ => None,
        };
        let mut live = 0;
        for keys in keys.chunks(MAX_ENDED) {
            live += transact!(self.client(), deadline, transaction => {
                let (records, mut logins) = self.read_with_logins(transaction, keys).await?;
                let Ends { mut mutations, live, replayed } = self.end_records(records, end);
                for (user, keys) in replayed {
                    let mut logins = logins.remove(&user).unwrap_or_default();
                    logins.add_to_notify(keys);
                    logins.expires = logins.expires.max(end.keep_until);
                    mutations.push(upsert(self.logins_entity(&user, &logins)));
                }
                Ok(Change { mutations, output: live })
            })
            .await?;
        }
        Ok(live)
    }

    async fn revoke_all_sessions(
        &self,
        user: &UserId,
        except: Option<&SessionKey>,
        end: &End,
    ) -> Result<(), Error> {
        let deadline = self.deadline();
        let _turn = self.shared.turns.wait(user, deadline).await?;
        let logins_key = self.keys().logins(user);
        let stays_key = except.map(|key| self.keys().session(key));
        transact!(self.client(), deadline, transaction => {
            let wanted = stays_key.iter().chain([&logins_key]).cloned().collect();
            let mut found = transaction.lookup(wanted).await?;
            let mut logins = match found.remove(&logins_key) {
                Some(logins) => Logins::read(Some(logins))?,
                // A session that stays in use outlives the `Logins` that its login wrote.
                None if self.has_open_session(transaction, user).await? => Logins::default(),
                None => return unchanged(()),
            };
            let stays = stays_key.as_ref().and_then(|key| found.remove(key));
            let stays = stays.map(record::read).transpose()?;
            let stays = stays.map(|stored| stored.apply_epoch(&logins.epoch));
            let is_open =
                |stored: &Stored| stored.record.user == *user && stored.record.ended.is_none();
            logins.raise_epoch(end);
            let mut mutations = vec![upsert(self.logins_entity(user, &logins))];
            if let Some(stored) = stays.filter(is_open) {
                let carried = Stored { created_in: logins.epoch.number, ..stored };
                mutations.push(upsert(self.session_entity(&carried)));
            }
            Ok(Change { mutations, output: () })
        })
        .await
    }

    /// Checks whether a user who never ended all sessions has one that has not ended.
    async fn has_open_session(
        &self,
        transaction: &Transaction<'_>,
        user: &UserId,
    ) -> Result<bool, Error> {
        let Some(query) = self.open_sessions(user, 0) else { return Ok(false) };
        let one = Query { limit: Some(1), ..query };
        Ok(!transaction.query(one).await?.is_empty())
    }

    /// Returns a user's epoch.
    async fn user_epoch(&self, user: &UserId, deadline: Instant) -> Result<Epoch, Error> {
        let key = self.keys().logins(user);
        let mut found = self.client().lookup(vec![key.clone()], None, deadline).await?;
        Ok(Logins::read(found.remove(&key))?.epoch)
    }

    async fn list_live(
        &self,
        user: &UserId,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Arc<SessionRecord>>, Error> {
        let deadline = self.deadline();
        let mut epoch = self.user_epoch(user, deadline).await?;
        loop {
            let Some(query) = self.open_sessions(user, epoch.number) else { return Ok(Vec::new()) };
            let mut live: Vec<Arc<SessionRecord>> = Vec::new();
            read_all(self.client(), query, deadline, |found| {
                for entity in self.below_ancestors(found) {
                    let Stored { record, .. } = record::read(entity)?;
                    live.extend(Some(record).filter(|record| record.is_live(now)).map(Arc::new));
                }
                live.sort_by_key(|record| std::cmp::Reverse((record.last_seen, record.created)));
                live.truncate(limit);
                Ok(())
            })
            .await?;
            let after = self.user_epoch(user, deadline).await?;
            if after == epoch {
                return Ok(live);
            }
            // All sessions were ended in between.
            epoch = after;
        }
    }

    /// Deletes sessions that ended with their epoch and need not be kept any longer. Returns how
    /// many.
    async fn purge_earlier_epochs(&self, before: Timestamp, limit: usize) -> Result<usize, Error> {
        let (limit, mut purged) = (limit.min(MAX_ENDED), 0);
        while purged < limit {
            let deadline = self.deadline();
            let is_due = compare(PURGE_AT, Operator::LessThanOrEqual, time(before));
            let due = query::limited(of_kind(&self.keys().logins_kind(), vec![is_due]), 1);
            let mut found = Vec::new();
            read_all(self.client(), due, deadline, collect_into(&mut found)).await?;
            let Some(found) = found.pop() else { break };
            let number = Logins::read(Some(found.clone()))?.epoch.number;
            let Some(prefix) = record::sort_key_prefix(&found) else { break };
            let earlier =
                self.sort_key_query(format!("{prefix}:"), format!("{prefix}:{number:016x}"));
            let earlier = query::limited(query::keys_only(earlier), limit - purged);
            let mut sessions = Vec::new();
            read_all(self.client(), earlier, deadline, collect_into(&mut sessions)).await?;
            let count = sessions.len();
            let keys: Vec<_> = sessions.into_iter().filter_map(|entity| entity.key).collect();
            let is_all = count < limit - purged;
            let logins_key = found.key.unwrap_or_default();
            purged += transact!(self.client(), deadline, transaction => {
                let mut found = transaction.lookup(vec![logins_key.clone()]).await?;
                let Some(mut entity) = found.remove(&logins_key) else { return unchanged(0) };
                let mut mutations: Vec<_> = keys.iter().cloned().map(delete).collect();
                let is_same = Logins::read(Some(entity.clone()))?.epoch.number == number;
                if is_all && is_same {
                    record::mark_purged(&mut entity);
                    mutations.push(upsert(entity));
                }
                Ok(Change { mutations, output: count })
            })
            .await?;
        }
        Ok(purged)
    }

    /// Deletes expired entities of a kind, below any ancestors. Each is read again in the
    /// transaction, as it may have been used since the query.
    async fn purge_expired(
        &self,
        kind: &str,
        before: Timestamp,
        limit: usize,
    ) -> Result<usize, Error> {
        let deadline = self.deadline();
        let limit = limit.min(MAX_ENDED);
        let is_expired = compare(EXPIRE_AT, Operator::LessThanOrEqual, time(deletable_at(before)));
        let query = query::limited(query::keys_only(of_kind(kind, vec![is_expired])), limit);
        loop {
            let mut found = Vec::new();
            read_all(self.client(), query.clone(), deadline, collect_into(&mut found)).await?;
            let keys: Vec<_> = found.into_iter().filter_map(|entity| entity.key).collect();
            if keys.is_empty() {
                return Ok(0);
            }
            let is_all = keys.len() < limit;
            let purged = transact!(self.client(), deadline, transaction => {
                let found = transaction.lookup(keys.clone()).await?;
                let is_expired = |key: &&Key| {
                    let expire_at = found.get(key).and_then(record::expire_at);
                    expire_at.is_some_and(|expire_at| expire_at <= deletable_at(before))
                };
                let mutations: Vec<_> = keys.iter().filter(is_expired).cloned().map(delete).collect();
                let output = mutations.len();
                Ok(Change { mutations, output })
            })
            .await?;
            // The others may have been used, or purged, in between.
            if purged > 0 || is_all {
                return Ok(purged);
            }
        }
    }

    async fn find(&self, key: &SessionKey, deadline: Instant) -> Result<Option<Stored>, Error> {
        let key = self.keys().session(key);
        let mut found = self.client().lookup(vec![key.clone()], None, deadline).await?;
        let Some(stored) = found.remove(&key).map(record::read).transpose()? else {
            return Ok(None);
        };
        let epoch = self.user_epoch(&stored.record.user, deadline).await?;
        if stored.is_past(&epoch) {
            return self.reread_with_epoch(&stored, deadline).await;
        }
        Ok(Some(stored))
    }

    /// Reads the same session again, together with its user's epoch. If all other sessions ended
    /// between two calls, this one may still be open.
    pub(crate) async fn reread_with_epoch(
        &self,
        stored: &Stored,
        deadline: Instant,
    ) -> Result<Option<Stored>, Error> {
        let Stored { record, .. } = stored;
        let [key, logins] = [self.keys().session(&record.key), self.keys().logins(&record.user)];
        let both = vec![key.clone(), logins.clone()];
        let mut found = self.client().lookup(both, None, deadline).await?;
        let epoch = Logins::read(found.remove(&logins))?.epoch;
        let stored = found.remove(&key).map(record::read).transpose()?;
        Ok(stored.map(|stored| stored.apply_epoch(&epoch)))
    }
}

/// Returns a user's id, if it can be indexed.
pub(crate) fn indexable(user: &UserId) -> Option<&str> {
    Some(user.as_str()).filter(|user| user.len() <= MAX_INDEXED)
}

#[async_trait]
impl<U: AuthUser> SessionStore for DatastoreStore<U> {
    async fn create(&self, login: &NewLogin<'_>) -> Result<Creation, StoreError> {
        Ok(self.create_session(login).await?)
    }

    async fn load(&self, key: &SessionKey) -> Result<Option<Arc<SessionRecord>>, StoreError> {
        let found = self.find(key, self.deadline()).await?;
        Ok(found.map(|stored| Arc::new(stored.record)))
    }

    async fn rotate(&self, rotation: &Rotation) -> Result<Option<Rotated>, StoreError> {
        let changed = self.change_record(&rotation.key, |record| rotation.apply_to(record)).await?;
        Ok(changed.map(|(record, is_ours)| match is_ours {
            true => Rotated::Won(Arc::new(record)),
            false => Rotated::Lost(Arc::new(record)),
        }))
    }

    async fn mark_seen(&self, marks: &[SeenMark]) -> Result<(), StoreError> {
        Ok(self.change_records(marks, |mark| mark.key, SeenMark::apply_to).await?)
    }

    async fn touch(&self, touches: &[Touch]) -> Result<(), StoreError> {
        Ok(self.change_records(touches, |touch| touch.key, Touch::apply_to).await?)
    }

    async fn revoke(&self, keys: &[SessionKey], end: &End) -> Result<usize, StoreError> {
        Ok(self.revoke_sessions(keys, end).await?)
    }

    async fn revoke_all(
        &self,
        user: &UserId,
        except: Option<&SessionKey>,
        end: &End,
    ) -> Result<(), StoreError> {
        Ok(self.revoke_all_sessions(user, except, end).await?)
    }

    async fn list(
        &self,
        user: &UserId,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Arc<SessionRecord>>, StoreError> {
        Ok(self.list_live(user, now, limit).await?)
    }

    async fn purge(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        if limit == 0 {
            return Ok(0);
        }
        let purged = self.purge_earlier_epochs(before, limit).await?;
        if self.shared.expiry == Expiry::ByPolicy || purged == limit {
            return Ok(purged);
        }
        let (sessions, logins) = (self.keys().session_kind(), self.keys().logins_kind());
        let expired = self.purge_expired(&sessions, before, limit - purged).await?;
        if expired == 0 {
            // The data of users' logins is purged after the sessions. It is not counted, so one
            // call purges several batches of it.
            for _ in 0..LOGINS_BATCHES {
                let expired = self.purge_expired(&logins, before, limit).await?;
                if expired < limit.min(MAX_ENDED) {
                    break;
                }
            }
        }
        Ok(purged + expired)
    }
}
