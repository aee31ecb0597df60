//! The calls of a [`SessionStore`].

use std::collections::HashMap;
use std::sync::Arc;

use gcloud_sdk::google::datastore::v1::Mutation;
use tower_keep_core::{
    AuthUser, Creation, End, EndReason, NewLogin, Rotated, Rotation, SeenMark, SessionKey,
    SessionRecord, SessionStore, StoreResult, Timestamp, Touch, UserId, async_trait,
    most_recently_used,
};

use crate::error::Error;
use crate::query;
use crate::record::{self, LoginState, StoredRecord};
use crate::store::DatastoreStore;
use crate::transaction::{Change, MAX_ENDED, Transaction, read_all, transact, unchanged, upsert};

#[async_trait]
impl<U: AuthUser> SessionStore for DatastoreStore<U> {
    async fn create(&self, login: &NewLogin<'_>) -> StoreResult<Creation> {
        Ok(self.create_session(login).await?)
    }

    async fn load(&self, key: &SessionKey) -> StoreResult<Option<Arc<SessionRecord>>> {
        let found = self.find(key, self.deadline()).await?;
        Ok(found.map(|stored| Arc::new(stored.record)))
    }

    async fn rotate(&self, rotation: &Rotation) -> StoreResult<Option<Rotated>> {
        let changed = self.change_record(&rotation.key, |record| rotation.apply_to(record)).await?;
        Ok(changed.map(|(record, has_won)| match has_won {
            true => Rotated::Won(Arc::new(record)),
            false => Rotated::Lost(Arc::new(record)),
        }))
    }

    async fn mark_seen(&self, marks: &[SeenMark]) -> StoreResult<()> {
        Ok(self.change_records(marks, |mark| mark.key, SeenMark::apply_to).await?)
    }

    async fn touch(&self, touches: &[Touch]) -> StoreResult<()> {
        Ok(self.change_records(touches, |touch| touch.key, Touch::apply_to).await?)
    }

    async fn revoke(&self, keys: &[SessionKey], end: &End) -> StoreResult<usize> {
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

    async fn revoke_all(
        &self,
        user: &UserId,
        except: Option<&SessionKey>,
        end: &End,
    ) -> StoreResult<()> {
        let deadline = self.deadline();
        let _turn = self.shared.write_queues.wait_for_turn(user, deadline).await?;
        let login_state_key = self.keys().login_state(user);
        let except_key = except.map(|key| self.keys().session(key));
        let raised = transact!(self.client(), deadline, transaction => {
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
        });
        Ok(raised.await?)
    }

    async fn list(
        &self,
        user: &UserId,
        now: Timestamp,
        limit: usize,
    ) -> StoreResult<Vec<Arc<SessionRecord>>> {
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

    async fn purge(&self, before: Timestamp, limit: usize) -> StoreResult<usize> {
        Ok(self.purge_sessions(before, limit).await?)
    }
}

/// The result of ending some records: the changes to write, and what else the caller needs.
struct EndedRecords {
    mutations: Vec<Mutation>,
    /// How many of the sessions were live before this call.
    live_count: usize,
    /// The sessions that end because of a replay. Their users have to be notified.
    replays: HashMap<UserId, Vec<SessionKey>>,
}

impl<U: AuthUser> DatastoreStore<U> {
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

    /// Checks whether a user in the first epoch has an open session.
    async fn has_open_session(
        &self,
        transaction: &Transaction<'_>,
        user: &UserId,
    ) -> Result<bool, Error> {
        let Some(query) = self.open_sessions_query(user, 0) else { return Ok(false) };
        Ok(!transaction.query(query::with_limit(query, 1)).await?.is_empty())
    }
}
