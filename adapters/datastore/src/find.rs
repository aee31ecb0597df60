//! Finds session records, and their users' login states.
//!
//! A session is *open* if its record was not ended individually and is of its user's present epoch.
//! Only open sessions can be live.

use std::collections::{HashMap, HashSet};

use gcloud_sdk::google::datastore::v1::{Entity, Query};
use tokio::time::Instant;
use tower_keep_core::{AuthUser, Epoch, SessionKey, UserId};

use crate::error::Error;
use crate::keys::MAX_INDEXED_BYTES;
use crate::properties::text_value;
use crate::query::{Operator, compare, query_of_kind};
use crate::record::{self, LoginState, SORT_KEY, StoredRecord};
use crate::store::DatastoreStore;
use crate::transaction::Transaction;

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
    pub(crate) async fn read_records(
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
    pub(crate) fn sort_key_query(&self, from: String, before: String) -> Query {
        let at_least = Operator::GreaterThanOrEqual;
        let filters = vec![
            compare(SORT_KEY, at_least, text_value(&from)),
            compare(SORT_KEY, Operator::LessThan, text_value(&before)),
        ];
        query_of_kind(&self.keys().session_kind(), filters)
    }

    /// Reads a user's epoch, outside of transactions.
    pub(crate) async fn user_epoch(
        &self,
        user: &UserId,
        deadline: Instant,
    ) -> Result<Epoch, Error> {
        let key = self.keys().login_state(user);
        let mut found = self.client().lookup(vec![key.clone()], None, deadline).await?;
        Ok(LoginState::read(found.remove(&key))?.epoch)
    }

    /// Reads a record outside of transactions, with its user's epoch applied.
    pub(crate) async fn find(
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
