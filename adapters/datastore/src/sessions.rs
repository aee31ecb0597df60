//! Session records: how they are found, changed and ended.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use gcloud_sdk::google::datastore::v1::value::ValueType;
use gcloud_sdk::google::datastore::v1::{Entity, Key, Mutation, Query};
use tokio::time::Instant;
use tower_keep_core::{
    AuthUser, CLOCK_SKEW, Creation, End, EndReason, NewLogin, Rotated, Rotation, Seen, SessionKey,
    SessionRecord, SessionStore, StoreError, Timestamp, Touch, UserId, async_trait,
};

use crate::DatastoreStore;
use crate::client::Found;
use crate::error::Fault;
use crate::keys::{LONGEST_INDEXED, session_key};
use crate::query::{self, Operator, below, of_kind, where_is};
use crate::record::{self, EXPIRE_AT, Expiry, Logins, OPEN, USER};
use crate::transaction::{
    Change, Transaction, delete, into, read_all, transact, unchanged, upsert,
};

/// So many sessions are changed by one transaction, where they need not change at one moment.
const CHANGED_AT_ONCE: usize = 50;
/// So many such transactions are made at once.
const AT_ONCE: usize = 8;
/// So many sessions are ended by one transaction. Each is some 2 KB of a transaction's 10 MiB, with its
/// index entries and more for a long id.
const ENDED_AT_ONCE: usize = 1_000;
/// So many times as many entities of logins are purged at once as sessions.
const LOGINS_PURGED: usize = 10;

/// What ends sessions.
struct Ends {
    mutations: Vec<Mutation>,
    /// How many of them lived until now.
    lived: usize,
    /// Those that end for a replay, of which their users are to be told.
    replayed: HashMap<UserId, Vec<SessionKey>>,
}

impl<U: AuthUser> DatastoreStore<U> {
    pub(crate) fn entity(&self, record: &SessionRecord) -> Entity {
        record::write(self.keys(), self.shared.expiry, record)
    }

    /// The records with these keys, in a transaction.
    pub(crate) async fn records(
        &self,
        transaction: &Transaction<'_>,
        keys: &[SessionKey],
    ) -> Result<Vec<SessionRecord>, Fault> {
        let keys: Vec<_> = keys.iter().map(|key| self.keys().session(key)).collect();
        let mut found = transaction.lookup(keys.clone()).await?;
        keys.iter().filter_map(|key| found.remove(key)).map(record::read).collect()
    }

    /// What is kept of a user's logins together, in a transaction that changes which sessions they have.
    pub(crate) async fn logins_of(
        &self,
        transaction: &Transaction<'_>,
        user: &UserId,
    ) -> Result<Logins, Fault> {
        let key = self.keys().logins(user);
        let mut found: Found = transaction.lookup(vec![key.clone()]).await?;
        Logins::read(found.remove(&key))
    }

    /// A user's sessions that have not ended.
    pub(crate) fn open_sessions(&self, user: &UserId) -> Option<Query> {
        // Nobody has an id that can't be indexed.
        let user = ValueType::StringValue(indexable(user)?.to_owned());
        let open = where_is(OPEN, ValueType::BooleanValue(true));
        let mut filters = vec![where_is(USER, user), open];
        filters.extend(self.keys().ancestor().map(below));
        Some(of_kind(&self.keys().session_kind(), filters))
    }

    /// Changes a record, if there is one and there is something to change. Answers it as it is then, and
    /// whether this changed it.
    async fn changed(
        &self,
        key: &SessionKey,
        after: impl Fn(&SessionRecord) -> Option<SessionRecord>,
    ) -> Result<Option<(SessionRecord, bool)>, Fault> {
        let deadline = self.deadline();
        let turn = self.shared.turns.wait(key, deadline).await?;
        if turn.has_waited {
            // As with the requests of one page: whoever was before has probably done it.
            let found = self.find(key, deadline).await?;
            if found.as_ref().is_none_or(|record| after(record).is_none()) {
                return Ok(found.map(|record| (record, false)));
            }
        }
        transact!(self.client(), deadline, transaction => {
            let found = self.records(transaction, std::slice::from_ref(key)).await?;
            let Some(record) = found.into_iter().next() else { return unchanged(None) };
            let Some(after) = after(&record) else { return unchanged(Some((record, false))) };
            let mutations = vec![upsert(self.entity(&after))];
            Ok(Change { mutations, answer: Some((after, true)) })
        })
        .await
    }

    /// Changes many records, each for itself.
    async fn changed_all<C: Clone + Send + Sync>(
        &self,
        changes: &[C],
        key: impl Fn(&C) -> SessionKey + Sync,
        after: impl Fn(&C, &SessionRecord) -> Option<SessionRecord> + Sync,
    ) -> Result<(), Fault> {
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
                    for record in self.records(transaction, &keys).await? {
                        records.insert(record.key, (record, false));
                    }
                    for change in &chunk {
                        let Some((record, is_changed)) = records.get_mut(&key(change)) else { continue };
                        if let Some(after) = after(change, record) {
                            (*record, *is_changed) = (after, true);
                        }
                    }
                    let changed = records.values().filter(|(_, is_changed)| *is_changed);
                    let mutations = changed.map(|(record, _)| upsert(self.entity(record)));
                    Ok(Change { mutations: mutations.collect(), answer: () })
                })
                .await
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    /// Ends these records.
    fn ends(&self, records: Vec<SessionRecord>, end: &End) -> Ends {
        let mut ends = Ends { mutations: Vec::new(), lived: 0, replayed: HashMap::new() };
        for record in records {
            let Some(after) = end.after(&record, None) else { continue };
            ends.lived += usize::from(record.is_live(end.at));
            ends.mutations.push(upsert(self.entity(&after)));
            if end.reason == EndReason::Replay {
                ends.replayed.entry(record.user).or_default().push(record.key);
            }
        }
        ends
    }

    async fn revoked(&self, keys: &[SessionKey], end: &End) -> Result<usize, Fault> {
        let deadline = self.deadline();
        let mut keys = keys.to_vec();
        keys.sort_unstable();
        keys.dedup();
        // Several have no order in which to wait; where they meet others, the service decides.
        let _turn = match keys.as_slice() {
            [key] => Some(self.shared.turns.wait(key, deadline).await?),
            _ => None,
        };
        let mut lived = 0;
        for keys in keys.chunks(ENDED_AT_ONCE) {
            lived += transact!(self.client(), deadline, transaction => {
                let records = self.records(transaction, keys).await?;
                let Ends { mut mutations, lived, replayed } = self.ends(records, end);
                for (user, keys) in replayed {
                    let mut logins = self.logins_of(transaction, &user).await?;
                    logins.untold.extend(keys);
                    logins.expires = logins.expires.max(end.keep_until);
                    let entity = logins.write(self.keys(), self.shared.expiry, &user);
                    mutations.push(upsert(entity));
                }
                Ok(Change { mutations, answer: lived })
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
    ) -> Result<usize, Fault> {
        let deadline = self.deadline();
        let Some(query) = self.open_sessions(user) else { return Ok(0) };
        let query = query::limited(query::keys_only(query), ENDED_AT_ONCE);
        let _turn = self.shared.turns.wait(user, deadline).await?;
        let (mut lived, mut from) = (0, Vec::new());
        loop {
            let (ended, next) = transact!(self.client(), deadline, transaction => {
                let mut logins = self.logins_of(transaction, user).await?;
                let query = Query { start_cursor: from.clone(), ..query.clone() };
                let (found, next) = transaction.query_from(query).await?;
                let next = (found.len() == ENDED_AT_ONCE).then_some(next);
                let found = self.in_place(found);
                let keys = found.iter().filter_map(|found| session_key(found.key.as_ref()?));
                let keys: Vec<_> = keys.filter(|key| Some(key) != but).collect();
                // Once more by their keys: a query alone does not hold what it finds.
                let records = self.records(transaction, &keys).await?;
                let Ends { mut mutations, lived, replayed } = self.ends(records, end);
                if mutations.is_empty() {
                    return unchanged((0, next));
                }
                // A session that begins at the same time is in this list, or begins after it.
                logins.untold.extend(replayed.into_values().flatten());
                logins.expires = logins.expires.max(end.keep_until);
                mutations.push(upsert(logins.write(self.keys(), self.shared.expiry, user)));
                // Those that have ended are not found again, so the next begins where this did.
                Ok(Change { mutations, answer: (lived, next.map(|_| from.clone())) })
            })
            .await?;
            lived += ended;
            match next {
                Some(next) => from = next,
                None => return Ok(lived),
            }
        }
    }

    async fn live(
        &self,
        user: &UserId,
        now: Timestamp,
        most: usize,
    ) -> Result<Vec<Arc<SessionRecord>>, Fault> {
        let Some(query) = self.open_sessions(user) else { return Ok(Vec::new()) };
        let mut live: Vec<Arc<SessionRecord>> = Vec::new();
        let keep_newest = |live: &mut Vec<Arc<SessionRecord>>| {
            live.sort_by_key(|record| std::cmp::Reverse((record.last_seen, record.created)));
            live.truncate(most);
        };
        read_all(self.client(), query, self.deadline(), |found| {
            for entity in self.in_place(found) {
                let record = record::read(entity)?;
                if record.is_live(now) {
                    live.push(Arc::new(record));
                }
            }
            keep_newest(&mut live);
            Ok(())
        })
        .await?;
        Ok(live)
    }

    /// Deletes expired entities of a kind, wherever they are; each is read again in the transaction, as it may have
    /// been used since the query.
    async fn purged(&self, kind: &str, before: Timestamp, most: usize) -> Result<usize, Fault> {
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
                let answer = mutations.len();
                Ok(Change { mutations, answer })
            })
            .await?;
            // Others may have been used, or purged, in between.
            if purged > 0 || is_all {
                return Ok(purged);
            }
        }
    }

    async fn find(
        &self,
        key: &SessionKey,
        deadline: Instant,
    ) -> Result<Option<SessionRecord>, Fault> {
        let key = self.keys().session(key);
        let mut found = self.client().lookup(vec![key.clone()], None, deadline).await?;
        found.remove(&key).map(record::read).transpose()
    }
}

/// A user's id, if it can be indexed.
pub(crate) fn indexable(user: &UserId) -> Option<&str> {
    Some(user.as_str()).filter(|user| user.len() <= LONGEST_INDEXED)
}

#[async_trait]
impl<U: AuthUser> SessionStore for DatastoreStore<U> {
    async fn create(&self, login: &NewLogin<'_>) -> Result<Creation, StoreError> {
        Ok(self.created(login).await?)
    }

    async fn load(&self, key: &SessionKey) -> Result<Option<Arc<SessionRecord>>, StoreError> {
        Ok(self.find(key, self.deadline()).await?.map(Arc::new))
    }

    async fn rotate(&self, rotation: &Rotation) -> Result<Option<Rotated>, StoreError> {
        let changed = self.changed(&rotation.key, |record| rotation.after(record)).await?;
        Ok(changed.map(|(record, is_ours)| match is_ours {
            true => Rotated::Won(Arc::new(record)),
            false => Rotated::Lost(Arc::new(record)),
        }))
    }

    async fn seen(&self, marks: &[Seen]) -> Result<(), StoreError> {
        Ok(self.changed_all(marks, |mark| mark.key, Seen::after).await?)
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
    ) -> Result<usize, StoreError> {
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
        if self.shared.expiry == Expiry::ByPolicy || most == 0 {
            return Ok(0);
        }
        let purged = self.purged(&self.keys().session_kind(), before, most).await?;
        if purged == 0 {
            // What is kept of logins goes when no session is left to go; it is not counted, so more of it at once.
            for _ in 0..LOGINS_PURGED {
                let purged = self.purged(&self.keys().logins_kind(), before, most).await?;
                if purged < most.min(ENDED_AT_ONCE) {
                    break;
                }
            }
        }
        Ok(purged)
    }
}
