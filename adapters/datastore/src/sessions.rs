//! Finds, changes, ends and purges session records.
//!
//! A session is *open* if its record was not ended individually and is of its user's present epoch.
//! Only open sessions can be live.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use gcloud_sdk::google::datastore::v1::{Entity, Key, Mutation, Query};
use tokio::time::Instant;
use tower_keep_core::{
    AuthUser, Creation, End, EndReason, Epoch, NewLogin, Rotated, Rotation, SeenMark, SessionKey,
    SessionRecord, SessionStore, StoreError, Timestamp, Touch, UserId, async_trait,
    most_recently_used,
};

use crate::DatastoreStore;
use crate::error::Error;
use crate::keys::MAX_INDEXED_BYTES;
use crate::properties::{text_value, time_value};
use crate::query::{self, Operator, compare, query_of_kind};
use crate::record::{
    self, DELETABLE_AT, DeleteExpired, LoginState, PURGE_AT, SORT_KEY, StoredRecord, deletable_at,
};
use crate::transaction::{
    Change, Transaction, collect_into, delete, read_all, transact, unchanged, upsert,
};

/// One transaction of `touch` or `mark_seen` changes at most this many sessions.
const MAX_CHANGED: usize = 50;
/// At most this many transactions of one `touch` or `mark_seen` run concurrently.
const CONCURRENT_TRANSACTIONS: usize = 8;
/// One transaction ends or deletes at most this many sessions. A transaction is limited to 10 MiB.
/// Each session takes about 2 KB of it, including its index entries, and more with long details or
/// a long user id.
const MAX_ENDED: usize = 1_000;
/// One call of `purge` deletes at most this many batches of login states.
const LOGIN_STATE_BATCHES: usize = 10;

/// The result of ending some records: the changes to write, and what else the caller needs.
struct EndedRecords {
    mutations: Vec<Mutation>,
    /// How many of the sessions were live before this call.
    live_count: usize,
    /// The sessions that end because of a replay. Their users have to be notified.
    replays: HashMap<UserId, Vec<SessionKey>>,
}

/// The login states of several users.
pub(crate) type LoginStates = HashMap<UserId, LoginState>;

impl<U: AuthUser> DatastoreStore<U> {
    pub(crate) fn session_entity(&self, stored: &StoredRecord) -> Entity {
        record::write(self.keys(), self.shared.delete_expired, stored)
    }

    pub(crate) fn login_state_entity(&self, user: &UserId, login_state: &LoginState) -> Entity {
        login_state.write(self.keys(), self.shared.delete_expired, user)
    }

    /// Reads the records with these keys, with their users' epochs applied, and their users' login
    /// states. Both are read in the transaction.
    pub(crate) async fn read_with_login_states(
        &self,
        transaction: &Transaction<'_>,
        keys: &[SessionKey],
    ) -> Result<(Vec<StoredRecord>, LoginStates), Error> {
        self.read_records_and_login_states(transaction, keys, true).await
    }

    /// Reads the records with these keys, with their users' epochs applied. Only the records are
    /// read in the transaction, so the transaction does not wait for other writes of the login
    /// states. If an epoch is raised in the meantime, its sessions have ended, whatever is written
    /// to their records.
    async fn read_records(
        &self,
        transaction: &Transaction<'_>,
        keys: &[SessionKey],
    ) -> Result<Vec<StoredRecord>, Error> {
        Ok(self.read_records_and_login_states(transaction, keys, false).await?.0)
    }

    /// Reads records and login states. `states_in_transaction` says whether the login states are
    /// read in the transaction, too.
    async fn read_records_and_login_states(
        &self,
        transaction: &Transaction<'_>,
        session_keys: &[SessionKey],
        states_in_transaction: bool,
    ) -> Result<(Vec<StoredRecord>, LoginStates), Error> {
        let keys: Vec<_> = session_keys.iter().map(|key| self.keys().session(key)).collect();
        if keys.is_empty() {
            return Ok((Vec::new(), LoginStates::new()));
        }
        let mut found = transaction.lookup(keys.clone()).await?;
        let stored = keys.iter().filter_map(|key| found.remove(key)).map(record::read);
        let stored: Vec<StoredRecord> = stored.collect::<Result<_, _>>()?;
        let users: HashSet<&UserId> = stored.iter().map(|stored| &stored.record.user).collect();
        let login_state_keys: Vec<_> =
            users.iter().map(|user| self.keys().login_state(user)).collect();
        let mut found = match login_state_keys[..] {
            [] => return Ok((stored, LoginStates::new())),
            _ if states_in_transaction => transaction.lookup(login_state_keys).await?,
            _ => self.client().lookup(login_state_keys, None, transaction.deadline()).await?,
        };
        let mut login_states = LoginStates::new();
        for user in users {
            let login_state = LoginState::read(found.remove(&self.keys().login_state(user)))?;
            login_states.insert(user.clone(), login_state);
        }
        let is_ended_by_epoch = |stored: &StoredRecord| {
            login_states
                .get(&stored.record.user)
                .is_some_and(|login_state| stored.is_ended_by_epoch(&login_state.epoch))
        };
        if !states_in_transaction && stored.iter().any(is_ended_by_epoch) {
            // Between the two reads, all of the user's sessions except this one may have ended.
            // Its record would now be in the new epoch. So both are read in the transaction.
            let again = self.read_records_and_login_states(transaction, session_keys, true);
            return Box::pin(again).await;
        }
        let apply_epoch = |stored: StoredRecord| match login_states.get(&stored.record.user) {
            Some(login_state) => stored.apply_epoch(&login_state.epoch),
            None => stored,
        };
        Ok((stored.into_iter().map(apply_epoch).collect(), login_states))
    }

    /// Returns the query for a user's open sessions, if `epoch` is the user's present epoch.
    /// Returns `None` if no user can have this id.
    pub(crate) fn open_sessions_query(&self, user: &UserId, epoch: u64) -> Option<Query> {
        // No user has an id that can't be indexed.
        indexable(user)?;
        let [_, end] = self.keys().sort_key_range(user);
        Some(self.sort_key_query(self.keys().lowest_sort_key(user, epoch), end))
    }

    /// Returns the query for the sessions whose sort key is at least `from` and less than `before`.
    fn sort_key_query(&self, from: String, before: String) -> Query {
        let at_least = Operator::GreaterThanOrEqual;
        let filters = vec![
            compare(SORT_KEY, at_least, text_value(&from)),
            compare(SORT_KEY, Operator::LessThan, text_value(&before)),
        ];
        query_of_kind(&self.keys().session_kind(), filters)
    }

    /// Writes the record that `apply` returns for the stored one. Writes nothing if there is no
    /// record, or if `apply` returns `None`. Returns the record as it is after the call, and
    /// whether this call changed it.
    async fn change_record(
        &self,
        key: &SessionKey,
        apply: impl Fn(&SessionRecord) -> Option<SessionRecord>,
    ) -> Result<Option<(SessionRecord, bool)>, Error> {
        let deadline = self.deadline();
        let turn = self.shared.write_queues.wait_for_turn(key, deadline).await?;
        if turn.has_waited {
            // The requests of one page often make the same change. So the previous call in the
            // queue has probably made it already.
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

    /// Writes the records that `apply` returns for the stored ones, each independently of the
    /// others. `key` returns the session of a change.
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
                        let record = records.get_mut(&key(change));
                        let Some((stored, is_changed)) = record else { continue };
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

    /// Ends those of these records that have not ended, and returns the changes.
    fn end_records(&self, records: Vec<StoredRecord>, end: &End) -> EndedRecords {
        let mut ended =
            EndedRecords { mutations: Vec::new(), live_count: 0, replays: HashMap::new() };
        for stored in records {
            let Some(after) = end.apply_to(&stored.record, None) else { continue };
            ended.live_count += usize::from(stored.record.is_live(end.at));
            ended.mutations.push(upsert(self.session_entity(&stored.with_record(after))));
            if end.reason == EndReason::Replay {
                let StoredRecord { record, .. } = stored;
                ended.replays.entry(record.user).or_default().push(record.key);
            }
        }
        ended
    }

    async fn revoke_sessions(&self, keys: &[SessionKey], end: &End) -> Result<usize, Error> {
        let deadline = self.deadline();
        let mut keys = keys.to_vec();
        keys.sort_unstable();
        keys.dedup();
        // A call with several keys does not wait in the queues. If two such calls conflict, the
        // service decides which of them is tried again.
        let _turn = match keys.as_slice() {
            [key] => Some(self.shared.write_queues.wait_for_turn(key, deadline).await?),
            _ => None,
        };
        let mut live_count = 0;
        for keys in keys.chunks(MAX_ENDED) {
            live_count += transact!(self.client(), deadline, transaction => {
                let (records, mut login_states) =
                    self.read_with_login_states(transaction, keys).await?;
                let EndedRecords { mut mutations, live_count, replays } =
                    self.end_records(records, end);
                for (user, keys) in replays {
                    let mut login_state = login_states.remove(&user).unwrap_or_default();
                    login_state.add_to_notify(keys);
                    login_state.expires = login_state.expires.max(end.keep_until);
                    mutations.push(upsert(self.login_state_entity(&user, &login_state)));
                }
                Ok(Change { mutations, output: live_count })
            })
            .await?;
        }
        Ok(live_count)
    }

    async fn revoke_all_sessions(
        &self,
        user: &UserId,
        except: Option<&SessionKey>,
        end: &End,
    ) -> Result<(), Error> {
        let deadline = self.deadline();
        let _turn = self.shared.write_queues.wait_for_turn(user, deadline).await?;
        let login_state_key = self.keys().login_state(user);
        let except_key = except.map(|key| self.keys().session(key));
        transact!(self.client(), deadline, transaction => {
            let keys = except_key.iter().chain([&login_state_key]).cloned().collect();
            let mut found = transaction.lookup(keys).await?;
            let mut login_state = match found.remove(&login_state_key) {
                Some(login_state) => LoginState::read(Some(login_state))?,
                // A session that stays in use may exist longer than the login state. The login
                // state expires at the time at which the session would have expired without further
                // use.
                None if self.has_open_session(transaction, user).await? => LoginState::default(),
                None => return unchanged(()),
            };
            let excepted = except_key.as_ref().and_then(|key| found.remove(key));
            let excepted = excepted.map(record::read).transpose()?;
            let excepted = excepted.map(|stored| stored.apply_epoch(&login_state.epoch));
            let is_open = |stored: &StoredRecord| {
                stored.record.user == *user && stored.record.ended.is_none()
            };
            login_state.raise_epoch(end);
            let mut mutations = vec![upsert(self.login_state_entity(user, &login_state))];
            if let Some(stored) = excepted.filter(is_open) {
                let in_new_epoch = StoredRecord { created_in: login_state.epoch.number, ..stored };
                mutations.push(upsert(self.session_entity(&in_new_epoch)));
            }
            Ok(Change { mutations, output: () })
        })
        .await
    }

    /// Checks whether a user in the first epoch has an open session.
    async fn has_open_session(
        &self,
        transaction: &Transaction<'_>,
        user: &UserId,
    ) -> Result<bool, Error> {
        let Some(query) = self.open_sessions_query(user, 0) else { return Ok(false) };
        Ok(!transaction.query(query::with_limit(query, 1)).await?.is_empty())
    }

    /// Reads a user's epoch, outside of transactions.
    async fn user_epoch(&self, user: &UserId, deadline: Instant) -> Result<Epoch, Error> {
        let key = self.keys().login_state(user);
        let mut found = self.client().lookup(vec![key.clone()], None, deadline).await?;
        Ok(LoginState::read(found.remove(&key))?.epoch)
    }

    /// Returns at most `limit` of the user's live sessions, the most recently used first.
    async fn list_live(
        &self,
        user: &UserId,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Arc<SessionRecord>>, Error> {
        let deadline = self.deadline();
        let mut epoch = self.user_epoch(user, deadline).await?;
        loop {
            let Some(query) = self.open_sessions_query(user, epoch.number) else {
                return Ok(Vec::new());
            };
            let mut live: Vec<Arc<SessionRecord>> = Vec::new();
            read_all(self.client(), query, deadline, |found| {
                for entity in self.with_store_ancestors(found) {
                    live.push(Arc::new(record::read(entity)?.record));
                }
                live = most_recently_used(std::mem::take(&mut live), now, limit);
                Ok(())
            })
            .await?;
            let epoch_after = self.user_epoch(user, deadline).await?;
            if epoch_after == epoch {
                return Ok(live);
            }
            // All of the user's sessions ended between the two reads of the epoch, except perhaps
            // one, which is in the new epoch.
            epoch = epoch_after;
        }
    }

    /// Deletes at most `limit` sessions of earlier epochs that need not be kept after `before`.
    /// Returns how many it deleted.
    async fn purge_earlier_epochs(&self, before: Timestamp, limit: usize) -> Result<usize, Error> {
        let (limit, mut purged) = (limit.min(MAX_ENDED), 0);
        while purged < limit {
            let deadline = self.deadline();
            let is_due = compare(PURGE_AT, Operator::LessThanOrEqual, time_value(before));
            let due_query = query_of_kind(&self.keys().login_state_kind(), vec![is_due]);
            let due_query = query::with_limit(due_query, 1);
            let mut due = Vec::new();
            read_all(self.client(), due_query, deadline, collect_into(&mut due)).await?;
            let Some(due) = due.pop() else { break };
            let epoch_number = LoginState::read(Some(due.clone()))?.epoch.number;
            let Some(prefix) = record::read_sort_key_prefix(&due) else { break };
            let earlier_epochs =
                self.sort_key_query(format!("{prefix}:"), format!("{prefix}:{epoch_number:016x}"));
            let earlier_epochs =
                query::with_limit(query::keys_only(earlier_epochs), limit - purged);
            let mut sessions = Vec::new();
            read_all(self.client(), earlier_epochs, deadline, collect_into(&mut sessions)).await?;
            let count = sessions.len();
            let keys: Vec<_> = sessions.into_iter().filter_map(|entity| entity.key).collect();
            let is_all = count < limit - purged;
            let login_state_key = due.key.unwrap_or_default();
            purged += transact!(self.client(), deadline, transaction => {
                let mut found = transaction.lookup(vec![login_state_key.clone()]).await?;
                let Some(mut entity) = found.remove(&login_state_key) else { return unchanged(0) };
                let mut mutations: Vec<_> = keys.iter().cloned().map(delete).collect();
                let epoch_now = LoginState::read(Some(entity.clone()))?.epoch.number;
                if is_all && epoch_now == epoch_number {
                    record::mark_purged(&mut entity);
                    mutations.push(upsert(entity));
                }
                Ok(Change { mutations, output: count })
            })
            .await?;
        }
        Ok(purged)
    }

    /// Deletes at most `limit` expired entities of a kind, whatever their ancestors are. Returns
    /// how many it deleted. Each entity is read again in the transaction, because the session may
    /// have been used after the query.
    async fn purge_expired(
        &self,
        kind: &str,
        before: Timestamp,
        limit: usize,
    ) -> Result<usize, Error> {
        let deadline = self.deadline();
        let limit = limit.min(MAX_ENDED);
        let is_expired =
            compare(DELETABLE_AT, Operator::LessThanOrEqual, time_value(deletable_at(before)));
        let query =
            query::with_limit(query::keys_only(query_of_kind(kind, vec![is_expired])), limit);
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
                    let stored = found.get(key).and_then(record::read_deletable_at);
                    stored.is_some_and(|stored| stored <= deletable_at(before))
                };
                let expired = keys.iter().filter(is_expired);
                let mutations: Vec<_> = expired.cloned().map(delete).collect();
                let output = mutations.len();
                Ok(Change { mutations, output })
            })
            .await?;
            // If all entities of this batch were used or purged after the query, there may be
            // further ones.
            if purged > 0 || is_all {
                return Ok(purged);
            }
        }
    }

    /// Reads a record outside of transactions, with its user's epoch applied.
    async fn find(
        &self,
        key: &SessionKey,
        deadline: Instant,
    ) -> Result<Option<StoredRecord>, Error> {
        let key = self.keys().session(key);
        let mut found = self.client().lookup(vec![key.clone()], None, deadline).await?;
        let Some(stored) = found.remove(&key).map(record::read).transpose()? else {
            return Ok(None);
        };
        let epoch = self.user_epoch(&stored.record.user, deadline).await?;
        if stored.is_ended_by_epoch(&epoch) {
            return self.read_again_with_epoch(&stored, deadline).await;
        }
        Ok(Some(stored))
    }

    /// Reads a record again, at the same moment as its user's epoch, and applies the epoch.
    ///
    /// This is needed if the record and the epoch were read one after the other. All sessions
    /// except this one may have ended in between. The record that was read first then seems to have
    /// ended, too.
    pub(crate) async fn read_again_with_epoch(
        &self,
        stored: &StoredRecord,
        deadline: Instant,
    ) -> Result<Option<StoredRecord>, Error> {
        let StoredRecord { record, .. } = stored;
        let [key, login_state] =
            [self.keys().session(&record.key), self.keys().login_state(&record.user)];
        let both = vec![key.clone(), login_state.clone()];
        let mut found = self.client().lookup(both, None, deadline).await?;
        let epoch = LoginState::read(found.remove(&login_state))?.epoch;
        let stored = found.remove(&key).map(record::read).transpose()?;
        Ok(stored.map(|stored| stored.apply_epoch(&epoch)))
    }
}

/// Returns a user's id, or `None` if the id is too long for this store.
pub(crate) fn indexable(user: &UserId) -> Option<&str> {
    Some(user.as_str()).filter(|user| user.len() <= MAX_INDEXED_BYTES)
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
        Ok(changed.map(|(record, has_won)| match has_won {
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
        if self.shared.delete_expired == DeleteExpired::ByPolicy || purged == limit {
            return Ok(purged);
        }
        let (sessions, login_states) = (self.keys().session_kind(), self.keys().login_state_kind());
        let expired = self.purge_expired(&sessions, before, limit - purged).await?;
        if expired == 0 {
            // Login states are purged after the sessions. They do not count as purged sessions, so
            // one call purges several batches of them.
            for _ in 0..LOGIN_STATE_BATCHES {
                let expired = self.purge_expired(&login_states, before, limit).await?;
                if expired < limit.min(MAX_ENDED) {
                    break;
                }
            }
        }
        Ok(purged + expired)
    }
}
