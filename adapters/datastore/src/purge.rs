//! Deletes the entities of sessions that have ended or expired, in batches.

use gcloud_sdk::google::datastore::v1::Key;
use tower_keep_core::{AuthUser, Timestamp};

use crate::error::Error;
use crate::properties::time_value;
use crate::query::{self, Operator, compare, query_of_kind};
use crate::record::{self, DELETABLE_AT, DeleteExpired, LoginState, PURGE_AT, deletable_at};
use crate::store::DatastoreStore;
use crate::transaction::{
    Change, MAX_ENDED, collect_into, delete, read_all, transact, unchanged, upsert,
};

/// One call of `purge` deletes at most this many batches of login states.
const LOGIN_STATE_BATCHES: usize = 10;

impl<U: AuthUser> DatastoreStore<U> {
    /// Deletes at most `limit` sessions that need not be kept after `before`, and login states that
    /// have expired. Returns how many sessions it deleted.
    pub(crate) async fn purge_sessions(
        &self,
        before: Timestamp,
        limit: usize,
    ) -> Result<usize, Error> {
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
    pub(crate) async fn purge_expired(
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
}
