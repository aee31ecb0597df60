//! Changes session records one by one. A change of one session does not depend on the user's other
//! sessions.

use std::collections::HashMap;

use futures_util::{StreamExt, TryStreamExt, stream};
use tower_keep_core::{AuthUser, SessionKey, SessionRecord};

use crate::error::Error;
use crate::store::DatastoreStore;
use crate::transaction::{Change, transact, unchanged, upsert};

/// One transaction of `touch` or `mark_seen` changes at most this many sessions.
const MAX_CHANGED: usize = 50;
/// At most this many transactions of one `touch` or `mark_seen` run concurrently.
const CONCURRENT_TRANSACTIONS: usize = 8;

impl<U: AuthUser> DatastoreStore<U> {
    /// Writes the record that `apply` returns for the stored one. Writes nothing if there is no
    /// record, or if `apply` returns `None`. Returns the record as it is after the call, and
    /// whether this call changed it.
    pub(crate) async fn change_record(
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
    pub(crate) async fn change_records<C: Clone + Send + Sync>(
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
}
