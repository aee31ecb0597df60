//! Session records: how they are found, changed and ended.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use gcloud_sdk::google::datastore::v1::value::ValueType;
use gcloud_sdk::google::datastore::v1::{Entity, Key, Mutation, Query};
use tokio::time::Instant;
use tower_keep_core::{
    AuthUser, CLOCK_SKEW, Creation, End, EndReason, Epoch, NewLogin, Rotated, Rotation, SeenMark,
    SessionKey, SessionRecord, SessionStore, StoreError, Timestamp, Touch, UserId, async_trait,
};

use crate::DatastoreStore;
use crate::error::Error;
use crate::keys::LONGEST_INDEXED;
use crate::query::{self, Operator, compare, of_kind};
use crate::record::{self, EXPIRE_AT, Expiry, Logins, PLACE, Stored, UNTIDY};
use crate::transaction::{
    Change, Transaction, delete, into, read_all, transact, unchanged, upsert,
};

/// The most sessions that one transaction changes, if they need not change at one moment.
const CHANGED_AT_ONCE: usize = 50;
/// How many such transactions run concurrently.
const AT_ONCE: usize = 8;
/// The most sessions that one transaction ends. Each takes about 2 KB of a transaction's 10 MiB,
/// with its index entries, and more with a long id.
const ENDED_AT_ONCE: usize = 1_000;
/// How many batches of `Logins` are purged in one call.
const LOGINS_PURGED: usize = 10;

/// The changes that end sessions.
struct Ends {
    mutations: Vec<Mutation>,
    /// How many of the sessions were live before.
    lived: usize,
    /// The sessions that end because of a replay. Their users have to be notified.
    replayed: HashMap<UserId, Vec<SessionKey>>,
}

/// The data of several users' logins.
pub(crate) type LoginsOf = HashMap<UserId, Logins>;

impl<U: AuthUser> DatastoreStore<U> {
    pub(crate) fn entity(&self, stored: &Stored) -> Entity {
        record::write(self.keys(), self.shared.expiry, stored)
    }

    pub(crate) fn logins_entity(&self, user: &UserId, logins: &Logins) -> Entity {
        logins.write(self.keys(), self.shared.expiry, user)
    }

    /// Reads the records with these keys as they are now, and the data of their users' logins. Both
    /// are read in the transaction.
    pub(crate) async fn records(
        &self,
        transaction: &Transaction<'_>,
        keys: &[SessionKey],
    ) -> Result<(Vec<Stored>, LoginsOf), Error> {
        self.read(transaction, keys, true).await
    }

    /// Reads the records with these keys as they are now. Only the records are read in the
    /// transaction, so it does not wait for other changes to the users' logins. A session that ends
    /// with all others in the meantime has ended, whatever is written to its record.
    async fn each(
        &self,
        transaction: &Transaction<'_>,
        keys: &[SessionKey],
    ) -> Result<Vec<Stored>, Error> {
        Ok(self.read(transaction, keys, false).await?.0)
    }

    async fn read(
        &self,
        transaction: &Transaction<'_>,
        of_sessions: &[SessionKey],
        holds_logins: bool,
    ) -> Result<(Vec<Stored>, LoginsOf), Error> {
        let keys: Vec<_> = of_sessions.iter().map(|key| self.keys().session(key)).collect();
        if keys.is_empty() {
            return Ok((Vec::new(), LoginsOf::new()));
        }
        let mut found = transaction.lookup(keys.clone()).await?;
        let stored = keys.iter().filter_map(|key| found.remove(key)).map(record::read);
        let stored: Vec<Stored> = stored.collect::<Result<_, _>>()?;
        let users: HashSet<&UserId> = stored.iter().map(|stored| &stored.record.user).collect();
        let of_users: Vec<_> = users.iter().map(|user| self.keys().logins(user)).collect();
        let mut found = match of_users[..] {
            [] => return Ok((stored, LoginsOf::new())),
            _ if holds_logins => transaction.lookup(of_users).await?,
            _ => self.client().lookup(of_users, None, transaction.deadline()).await?,
        };
        let mut logins = LoginsOf::new();
        for user in users {
            let of_user = Logins::read(found.remove(&self.keys().logins(user)))?;
            logins.insert(user.clone(), of_user);
        }
        let is_past = |stored: &Stored| {
            logins.get(&stored.record.user).is_some_and(|of_user| stored.is_past(&of_user.epoch))
        };
        if !holds_logins && stored.iter().any(is_past) {
            // All other sessions may have ended in between.
            return Box::pin(self.read(transaction, of_sessions, true)).await;
        }
        let now = |stored: Stored| match logins.get(&stored.record.user) {
            Some(of_user) => stored.applied(&of_user.epoch),
            None => stored,
        };
        Ok((stored.into_iter().map(now).collect(), logins))
    }

    /// Returns the query for a user's sessions of this epoch that have not ended.
    pub(crate) fn open_sessions(&self, user: &UserId, epoch: u64) -> Option<Query> {
        // No user has an id that can't be indexed.
        indexable(user)?;
        let [_, end] = self.keys().places(user);
        Some(self.with_places(self.keys().place_of_epoch(user, epoch), end))
    }

    /// Returns the query for the sessions with a place from `from` up to, but not including,
    /// `before`.
    fn with_places(&self, from: String, before: String) -> Query {
        let at_least = Operator::GreaterThanOrEqual;
        let filters = vec![
            compare(PLACE, at_least, ValueType::StringValue(from)),
            compare(PLACE, Operator::LessThan, ValueType::StringValue(before)),
        ];
        of_kind(&self.keys().session_kind(), filters)
    }

    /// Changes a record, if it exists and there is something to change. Returns the record after
    /// that, and whether this call changed it.
    async fn changed(
        &self,
        key: &SessionKey,
        after: impl Fn(&SessionRecord) -> Option<SessionRecord>,
    ) -> Result<Option<(SessionRecord, bool)>, Error> {
        let deadline = self.deadline();
        let turn = self.shared.turns.wait(key, deadline).await?;
        if turn.has_waited {
            // The requests of one page often make the same change, so the call before has probably
            // done it.
            let found = self.find(key, deadline).await?;
            if found.as_ref().is_none_or(|stored| after(&stored.record).is_none()) {
                return Ok(found.map(|stored| (stored.record, false)));
            }
        }
        transact!(self.client(), deadline, transaction => {
            let found = self.each(transaction, std::slice::from_ref(key)).await?;
            let Some(stored) = found.into_iter().next() else { return unchanged(None) };
            let Some(after) = after(&stored.record) else {
                return unchanged(Some((stored.record, false)));
            };
            let mutations = vec![upsert(self.entity(&stored.with(after.clone())))];
            Ok(Change { mutations, output: Some((after, true)) })
        })
        .await
    }

    /// Changes many records, independently of each other.
    async fn changed_all<C: Clone + Send + Sync>(
        &self,
        changes: &[C],
        key: impl Fn(&C) -> SessionKey + Sync,
        after: impl Fn(&C, &SessionRecord) -> Option<SessionRecord> + Sync,
    ) -> Result<(), Error> {
        if let [change] = changes {
            self.changed(&key(change), |record| after(change, record)).await?;
            return Ok(());
        }
        let deadline = self.deadline();
        let (key, after) = (&key, &after);
        let chunks = changes.chunks(CHANGED_AT_ONCE).map(<[C]>::to_vec).collect::<Vec<_>>();
        stream::iter(chunks)
            .map(|chunk| async move {
                transact!(self.client(), deadline, transaction => {
                    let mut keys: Vec<_> = chunk.iter().map(key).collect();
                    keys.sort_unstable();
                    keys.dedup();
                    let mut records = HashMap::new();
                    for stored in self.each(transaction, &keys).await? {
                        records.insert(stored.record.key, (stored, false));
                    }
                    for change in &chunk {
                        let Some((stored, is_changed)) = records.get_mut(&key(change)) else { continue };
                        if let Some(after) = after(change, &stored.record) {
                            (stored.record, *is_changed) = (after, true);
                        }
                    }
                    let changed = records.values().filter(|(_, is_changed)| *is_changed);
                    let mutations = changed.map(|(stored, _)| upsert(self.entity(stored)));
                    Ok(Change { mutations: mutations.collect(), output: () })
                })
                .await
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    /// Returns the changes that end these records.
    fn ends(&self, records: Vec<Stored>, end: &End) -> Ends {
        let mut ends = Ends { mutations: Vec::new(), lived: 0, replayed: HashMap::new() };
        for stored in records {
            let Some(after) = end.after(&stored.record, None) else { continue };
            ends.lived += usize::from(stored.record.is_live(end.at));
            ends.mutations.push(upsert(self.entity(&stored.with(after))));
            if end.reason == EndReason::Replay {
                let Stored { record, .. } = stored;
                ends.replayed.entry(record.user).or_default().push(record.key);
            }
        }
        ends
    }

    async fn revoked(&self, keys: &[SessionKey], end: &End) -> Result<usize, Error> {
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
        let mut lived = 0;
        for keys in keys.chunks(ENDED_AT_ONCE) {
            lived += transact!(self.client(), deadline, transaction => {
                let (records, mut logins) = self.records(transaction, keys).await?;
                let Ends { mut mutations, lived, replayed } = self.ends(records, end);
                for (user, keys) in replayed {
                    let mut logins = logins.remove(&user).unwrap_or_default();
                    logins.add_to_notify(keys);
                    logins.expires = logins.expires.max(end.keep_until);
                    mutations.push(upsert(self.logins_entity(&user, &logins)));
                }
                Ok(Change { mutations, output: lived })
            })
            .await?;
        }
        Ok(lived)
    }

    async fn revoked_all(
        &self,
        user: &UserId,
        but: Option<&SessionKey>,
        end: &End,
    ) -> Result<(), Error> {
        let deadline = self.deadline();
        let _turn = self.shared.turns.wait(user, deadline).await?;
        let logins_key = self.keys().logins(user);
        let stays = but.map(|key| self.keys().session(key));
        transact!(self.client(), deadline, transaction => {
            let wanted = stays.iter().chain([&logins_key]).cloned().collect();
            let mut found = transaction.lookup(wanted).await?;
            let mut logins = match found.remove(&logins_key) {
                Some(logins) => Logins::read(Some(logins))?,
                // A session that stays in use outlives the `Logins` that its login wrote.
                None if self.has_begun(transaction, user).await? => Logins::default(),
                None => return unchanged(()),
            };
            let stays = stays.as_ref().and_then(|stays| found.remove(stays));
            let stays = stays.map(record::read).transpose()?;
            let stays = stays.map(|stored| stored.applied(&logins.epoch));
            let is_open =
                |stored: &Stored| stored.record.user == *user && stored.record.ended.is_none();
            logins.raise(end);
            let mut mutations = vec![upsert(self.logins_entity(user, &logins))];
            if let Some(stored) = stays.filter(is_open) {
                let carried = Stored { created_in: logins.epoch.number, ..stored };
                mutations.push(upsert(self.entity(&carried)));
            }
            Ok(Change { mutations, output: () })
        })
        .await
    }

    /// Checks whether a user who never ended all sessions has one that has not ended.
    async fn has_begun(&self, transaction: &Transaction<'_>, user: &UserId) -> Result<bool, Error> {
        let Some(query) = self.open_sessions(user, 0) else { return Ok(false) };
        let one = Query { limit: Some(1), ..query };
        Ok(!transaction.query(one).await?.is_empty())
    }

    /// Returns a user's epoch.
    async fn epoch(&self, user: &UserId, deadline: Instant) -> Result<Epoch, Error> {
        let key = self.keys().logins(user);
        let mut found = self.client().lookup(vec![key.clone()], None, deadline).await?;
        Ok(Logins::read(found.remove(&key))?.epoch)
    }

    async fn live(
        &self,
        user: &UserId,
        now: Timestamp,
        most: usize,
    ) -> Result<Vec<Arc<SessionRecord>>, Error> {
        let deadline = self.deadline();
        let mut epoch = self.epoch(user, deadline).await?;
        loop {
            let Some(query) = self.open_sessions(user, epoch.number) else { return Ok(Vec::new()) };
            let mut live: Vec<Arc<SessionRecord>> = Vec::new();
            read_all(self.client(), query, deadline, |found| {
                for entity in self.in_place(found) {
                    let Stored { record, .. } = record::read(entity)?;
                    live.extend(Some(record).filter(|record| record.is_live(now)).map(Arc::new));
                }
                live.sort_by_key(|record| std::cmp::Reverse((record.last_seen, record.created)));
                live.truncate(most);
                Ok(())
            })
            .await?;
            let after = self.epoch(user, deadline).await?;
            if after == epoch {
                return Ok(live);
            }
            // All sessions were ended in between.
            epoch = after;
        }
    }

    /// Deletes sessions that ended together and need not be kept any longer. Returns how many.
    async fn tidied(&self, before: Timestamp, most: usize) -> Result<usize, Error> {
        let (most, mut removed) = (most.min(ENDED_AT_ONCE), 0);
        while removed < most {
            let deadline = self.deadline();
            let (kind, at_most) = (self.keys().logins_kind(), Operator::LessThanOrEqual);
            let untidy = of_kind(&kind, vec![compare(UNTIDY, at_most, record::time(before))]);
            let mut found = Vec::new();
            let untidy = query::limited(untidy, 1);
            read_all(self.client(), untidy, deadline, into(&mut found)).await?;
            let Some(found) = found.pop() else { break };
            let number = Logins::read(Some(found.clone()))?.epoch.number;
            let Some(places) = record::places(&found) else { break };
            let past = self.with_places(format!("{places}:"), format!("{places}:{number:016x}"));
            let past = query::keys_only(past);
            let mut keys = Vec::new();
            let past = query::limited(past, most - removed);
            read_all(self.client(), past, deadline, into(&mut keys)).await?;
            let count = keys.len();
            let keys: Vec<_> = keys.into_iter().filter_map(|entity| entity.key).collect();
            let is_all = count < most - removed;
            let logins_key = found.key.unwrap_or_default();
            removed += transact!(self.client(), deadline, transaction => {
                let mut found = transaction.lookup(vec![logins_key.clone()]).await?;
                let Some(mut entity) = found.remove(&logins_key) else { return unchanged(0) };
                let mut mutations: Vec<_> = keys.iter().cloned().map(delete).collect();
                let is_same = Logins::read(Some(entity.clone()))?.epoch.number == number;
                if is_all && is_same {
                    entity.properties.remove(UNTIDY);
                    mutations.push(upsert(entity));
                }
                Ok(Change { mutations, output: count })
            })
            .await?;
        }
        Ok(removed)
    }

    /// Deletes expired entities of a kind, below any ancestors. Each is read again in the
    /// transaction, as it may have been used since the query.
    async fn purged(&self, kind: &str, before: Timestamp, most: usize) -> Result<usize, Error> {
        let deadline = self.deadline();
        let most = most.min(ENDED_AT_ONCE);
        let expired = query::compare(EXPIRE_AT, Operator::LessThanOrEqual, record::gone_at(before));
        let query = query::limited(query::keys_only(of_kind(kind, vec![expired])), most);
        loop {
            let mut found = Vec::new();
            read_all(self.client(), query.clone(), deadline, into(&mut found)).await?;
            let keys: Vec<_> = found.into_iter().filter_map(|entity| entity.key).collect();
            if keys.is_empty() {
                return Ok(0);
            }
            let is_all = keys.len() < most;
            let purged = transact!(self.client(), deadline, transaction => {
                let found = transaction.lookup(keys.clone()).await?;
                let is_expired = |key: &&Key| {
                    let expire_at = found.get(key).and_then(record::expire_at);
                    expire_at.is_some_and(|expire_at| expire_at <= before.plus(CLOCK_SKEW))
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
        let epoch = self.epoch(&stored.record.user, deadline).await?;
        if stored.is_past(&epoch) {
            return self.find_again(&stored, deadline).await;
        }
        Ok(Some(stored))
    }

    /// Reads the same session again, together with its user's epoch. If all other sessions ended
    /// between two calls, this one may still be open.
    pub(crate) async fn find_again(
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
        Ok(stored.map(|stored| stored.applied(&epoch)))
    }
}

/// Returns a user's id, if it can be indexed.
pub(crate) fn indexable(user: &UserId) -> Option<&str> {
    Some(user.as_str()).filter(|user| user.len() <= LONGEST_INDEXED)
}

#[async_trait]
impl<U: AuthUser> SessionStore for DatastoreStore<U> {
    async fn create(&self, login: &NewLogin<'_>) -> Result<Creation, StoreError> {
        Ok(self.created(login).await?)
    }

    async fn load(&self, key: &SessionKey) -> Result<Option<Arc<SessionRecord>>, StoreError> {
        let found = self.find(key, self.deadline()).await?;
        Ok(found.map(|stored| Arc::new(stored.record)))
    }

    async fn rotate(&self, rotation: &Rotation) -> Result<Option<Rotated>, StoreError> {
        let changed = self.changed(&rotation.key, |record| rotation.after(record)).await?;
        Ok(changed.map(|(record, is_ours)| match is_ours {
            true => Rotated::Won(Arc::new(record)),
            false => Rotated::Lost(Arc::new(record)),
        }))
    }

    async fn seen(&self, marks: &[SeenMark]) -> Result<(), StoreError> {
        Ok(self.changed_all(marks, |mark| mark.key, SeenMark::after).await?)
    }

    async fn touch(&self, touches: &[Touch]) -> Result<(), StoreError> {
        Ok(self.changed_all(touches, |touch| touch.key, Touch::after).await?)
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
        Ok(self.revoked_all(user, but, end).await?)
    }

    async fn list(
        &self,
        user: &UserId,
        now: Timestamp,
        most: usize,
    ) -> Result<Vec<Arc<SessionRecord>>, StoreError> {
        Ok(self.live(user, now, most).await?)
    }

    async fn purge(&self, before: Timestamp, most: usize) -> Result<usize, StoreError> {
        if most == 0 {
            return Ok(0);
        }
        let tidied = self.tidied(before, most).await?;
        if self.shared.expiry == Expiry::ByPolicy || tidied == most {
            return Ok(tidied);
        }
        let purged = self.purged(&self.keys().session_kind(), before, most - tidied).await?;
        if purged == 0 {
            // The data of users' logins is purged after the sessions. It is not counted, so one
            // call purges several batches of it.
            for _ in 0..LOGINS_PURGED {
                let purged = self.purged(&self.keys().logins_kind(), before, most).await?;
                if purged < most.min(ENDED_AT_ONCE) {
                    break;
                }
            }
        }
        Ok(tidied + purged)
    }
}
