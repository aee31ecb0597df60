//! Decides which records a login writes, for a store that reads all records of the user first.

use std::sync::Arc;

use crate::changes::End;
use crate::end_reason::EndReason;
use crate::error::{StoreError, StoreErrorKind, StoreResult};
use crate::new_login::{Creation, NewLogin};
use crate::session::{SessionKey, SessionRecord};
use crate::session_limit::{MAX_PER_CALL, Room};

/// The records that a store writes for a login, and the result that it then returns; see
/// [`NewLogin::plan`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoginPlan {
    /// The records to write: the new record, and changed records in place of the stored ones. Empty
    /// if the login is refused. Each key occurs once.
    pub writes: Vec<SessionRecord>,
    /// The result of [`create`](crate::SessionStore::create).
    pub creation: Creation,
}

impl NewLogin<'_> {
    /// Decides which records this login writes, by the rules of
    /// [`create`](crate::SessionStore::create).
    ///
    /// This is for a store that can read every record while it decides, such as a map behind a
    /// lock. `of_user` holds all records of the user who logs in. `load` returns the record with a
    /// key, even if it is another user's. `store` is the store's name in errors. Between these
    /// reads and the writes, the store must let no other call change a record.
    ///
    /// ```
    /// use std::collections::HashMap;
    /// use std::sync::{Arc, Mutex};
    ///
    /// use tower_keep_core::{Creation, NewLogin, SessionKey, SessionRecord, StoreResult};
    ///
    /// fn create(
    ///     records: &mut HashMap<SessionKey, Arc<SessionRecord>>,
    ///     login: &NewLogin<'_>,
    /// ) -> StoreResult<Creation> {
    ///     let of_user = records.values().filter(|record| record.user == login.record.user);
    ///     let of_user = of_user.cloned().collect();
    ///     let plan = login.plan("map", of_user, |key| records.get(key).cloned())?;
    ///     records.extend(plan.writes.into_iter().map(|record| (record.key, record.into())));
    ///     Ok(plan.creation)
    /// }
    /// # use tower_keep_core::Timestamp;
    /// # let (key, now) = (SessionKey::new([1; 32]), Timestamp::from_secs(1));
    /// # let record = SessionRecord::new(key, "7".into(), [0; 16], now, now.plus(9));
    /// # let mut records = HashMap::new();
    /// # create(&mut records, &NewLogin::new(&record, now))?;
    /// # assert_eq!(records.len(), 1);
    /// # Ok::<_, tower_keep_core::StoreError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`Conflict`](StoreErrorKind::Conflict) if there is already a record with the new
    /// record's key.
    pub fn plan(
        &self,
        store: &'static str,
        of_user: Vec<Arc<SessionRecord>>,
        load: impl Fn(&SessionKey) -> Option<Arc<SessionRecord>>,
    ) -> StoreResult<LoginPlan> {
        let now = self.record.created;
        if load(&self.record.key).is_some() {
            return Err(StoreError::new(StoreErrorKind::Conflict, store)
                .with_message("a session with this key exists already"));
        }
        let end = |reason| End::new(now, reason, self.keep_ended_until);
        let mut writes = Writes(vec![self.record.clone()]);
        for replaced in self.replacing.iter().filter_map(&load) {
            writes.add(replaced.with_successor(self.record.key, self.keep_ended_until));
            let latest = latest_successor(replaced, &load);
            writes.add(end(EndReason::Replaced).apply_to(&latest, Some(self.record.key)));
        }
        let live = of_user.iter().filter(|record| record.is_live(now) && !writes.has(&record.key));
        let live: Vec<_> = live.cloned().collect();
        let ended = match self.limit.map(|limit| limit.room(live)) {
            None => Vec::new(),
            Some(Room::EndEach(ended) | Room::EndAllExcept { ended, .. }) => ended,
            Some(Room::None) => {
                return Ok(LoginPlan { writes: Vec::new(), creation: Creation::Full });
            }
        };
        for record in &ended {
            writes.add(end(EndReason::Limit).apply_to(record, None));
        }
        let replays =
            of_user.into_iter().filter(|record| self.notifies_user && record.must_notify());
        let replays: Vec<_> = replays.take(MAX_PER_CALL).collect();
        for record in &replays {
            writes.add(record.with_notified_end());
        }
        Ok(LoginPlan { writes: writes.0, creation: Creation::created(ended, replays) })
    }
}

/// Follows the successors of this record, and returns the last of them, or the record itself if it
/// has none. The search stops at a successor that was purged, and after [`MAX_PER_CALL`]
/// successors.
fn latest_successor(
    record: Arc<SessionRecord>,
    load: impl Fn(&SessionKey) -> Option<Arc<SessionRecord>>,
) -> Arc<SessionRecord> {
    let next = |record: &Arc<SessionRecord>| load(&record.ended.as_ref()?.successor?);
    let chain = std::iter::successors(Some(record.clone()), next);
    chain.take(MAX_PER_CALL + 1).last().unwrap_or(record)
}

/// The records to write, each key once.
struct Writes(Vec<SessionRecord>);

impl Writes {
    fn has(&self, key: &SessionKey) -> bool {
        self.0.iter().any(|record| record.key == *key)
    }

    /// Adds a record, unless a record with the same key was added before.
    fn add(&mut self, record: Option<SessionRecord>) {
        self.0.extend(record.filter(|record| !self.has(&record.key)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Ended;
    use crate::session_limit::{SessionLimit, WhenFull};
    use crate::timestamp::Timestamp;

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    fn key(number: u8) -> SessionKey {
        SessionKey::new([number; 32])
    }

    fn record(number: u8) -> SessionRecord {
        let created = NOW.minus(100 - u32::from(number));
        SessionRecord::new(key(number), "7".into(), [0; 16], created, NOW.plus(600))
    }

    fn ended(number: u8, reason: EndReason, successor: Option<u8>) -> SessionRecord {
        let end = Ended { successor: successor.map(key), ..Ended::new(NOW.minus(5), reason) };
        SessionRecord { ended: Some(end), ..record(number) }
    }

    /// A record that ended: its key, the reason, and its successor.
    type EndedRecord = (u8, EndReason, Option<u8>);

    /// Plans a login with the key 9. Returns the records to write after the new one, and the keys
    /// of the result: the sessions that end because of the limit, and the replays.
    fn plan(
        stored: &[SessionRecord],
        replacing: &[u8],
        max: Option<usize>,
    ) -> Option<(Vec<EndedRecord>, [Vec<u8>; 2])> {
        let new = SessionRecord { created: NOW, ..record(9) };
        let replacing: Vec<_> = replacing.iter().copied().map(key).collect();
        let mut login = NewLogin::new(&new, NOW.plus(60));
        login.replacing = &replacing;
        login.limit = max.map(|max| SessionLimit::new(max, WhenFull::EndOldest));
        let of_user: Vec<_> = stored.iter().cloned().map(Arc::new).collect();
        let load = |key: &SessionKey| of_user.iter().find(|record| record.key == *key).cloned();
        let plan = login.plan("test", of_user.clone(), load).ok()?;
        assert_eq!(plan.writes[0], new);
        let number = |key: SessionKey| key.as_bytes()[0];
        let writes = plan.writes[1..].iter().map(|record| {
            let end = record.ended.as_ref().unwrap();
            (number(record.key), end.reason, end.successor.map(number))
        });
        let Creation::Created { ended, replays } = plan.creation else {
            panic!("the login was refused")
        };
        let numbers = |records: Vec<Arc<SessionRecord>>| {
            records.iter().map(|record| number(record.key)).collect()
        };
        Some((writes.collect(), [numbers(ended), numbers(replays)]))
    }

    #[test]
    fn a_plan_ends_replaced_and_surplus_sessions_and_returns_replays() {
        use EndReason::{Limit, LoggedOut, Replaced, Replay};
        let chain = [ended(1, Replaced, Some(2)), ended(2, Replaced, Some(3)), record(3)];
        let purged_successor = [ended(1, Replaced, Some(8))];
        let replay = [ended(1, Replay, None), record(2)];
        for (stored, replacing, max, writes, [limit, replays]) in [
            (&[][..], &[][..], None, vec![], [vec![], vec![]]),
            (&[record(1)], &[1], None, vec![(1, Replaced, Some(9))], [vec![], vec![]]),
            (&[record(1)], &[1, 1, 5], None, vec![(1, Replaced, Some(9))], [vec![], vec![]]),
            (&[ended(1, LoggedOut, None)], &[1], None, vec![], [vec![], vec![]]),
            (
                &chain,
                &[1, 3],
                None,
                vec![(1, Replaced, Some(9)), (3, Replaced, Some(9))],
                [vec![], vec![]],
            ),
            (&purged_successor, &[1], None, vec![(1, Replaced, Some(9))], [vec![], vec![]]),
            (&[record(2), record(1)], &[], Some(2), vec![(1, Limit, None)], [vec![1], vec![]]),
            (
                &[record(1), record(2)],
                &[1],
                Some(2),
                vec![(1, Replaced, Some(9))],
                [vec![], vec![]],
            ),
            (&replay, &[], Some(9), vec![(1, Replay, None)], [vec![], vec![1]]),
        ] {
            let planned = plan(stored, replacing, max);
            assert_eq!(planned, Some((writes, [limit, replays])), "{replacing:?} {max:?}");
        }
        assert_eq!(plan(&[record(9)], &[], None), None, "the key is taken");
    }

    #[test]
    fn a_refused_login_writes_nothing() {
        let (old, new) = (Arc::new(SessionRecord { seen_at: Some(NOW), ..record(1) }), record(9));
        let mut login = NewLogin::new(&new, NOW);
        login.limit = Some(SessionLimit::new(1, WhenFull::Refuse));
        let plan = login.plan("test", vec![old], |_| None).unwrap();
        assert_eq!(plan, LoginPlan { writes: Vec::new(), creation: Creation::Full });
    }
}
