//! How the calls of a store change a record: the rules of [`SessionStore`](crate::SessionStore)
//! that need no store.
//!
//! A store that reads a record, decides in Rust and writes the record back uses these functions. A
//! store whose database makes the decision expresses the same rules in the database's own language.

use crate::{
    EndReason, Ended, MAX_PER_CALL, RememberPeriod, Rotation, SeenMark, SessionKey, SessionLimit,
    SessionRecord, Timestamp, Touch, WhenFull,
};

impl Rotation {
    /// Returns the record in its next generation, or `None` if the record has another generation
    /// than `self.from_generation` or has ended.
    pub fn apply_to(&self, record: &SessionRecord) -> Option<SessionRecord> {
        let is_applicable = record.generation == self.from_generation && record.ended.is_none();
        is_applicable.then(|| SessionRecord {
            generation: self.from_generation.saturating_add(1),
            rotated_at: Some(self.at),
            seen_at: None,
            session_started: self.at,
            last_seen: self.at,
            remember: extended(record.remember, self.remember_expires),
            expires: record.expires.max(self.expires),
            ..record.clone()
        })
    }
}

impl SeenMark {
    /// Returns the record with this mark, or `None` if the record has another generation, already
    /// has a mark, or has ended.
    pub fn apply_to(&self, record: &SessionRecord) -> Option<SessionRecord> {
        let is_applicable = record.generation == self.generation
            && record.ended.is_none()
            && record.seen_at.is_none();
        is_applicable.then(|| SessionRecord { seen_at: Some(self.at), ..record.clone() })
    }
}

impl Touch {
    /// Returns the record after this use, or `None` if nothing changes or the record has ended.
    pub fn apply_to(&self, record: &SessionRecord) -> Option<SessionRecord> {
        let after = SessionRecord {
            last_seen: record.last_seen.max(self.at),
            remember: extended(record.remember, self.remember_expires),
            expires: record.expires.max(self.expires),
            ..record.clone()
        };
        (record.ended.is_none() && after != *record).then_some(after)
    }
}

impl crate::End {
    /// Returns the record as ended, or `None` if it had already ended. `successor` is the login
    /// that replaces it in the same browser.
    ///
    /// A store that keeps its records in a map uses this method, and those of [`Rotation`],
    /// [`SeenMark`] and [`Touch`], like this:
    ///
    /// ```
    /// use std::collections::HashMap;
    /// use std::sync::Arc;
    ///
    /// use tower_keep_core::{End, SessionKey, SessionRecord};
    ///
    /// type Records = HashMap<SessionKey, Arc<SessionRecord>>;
    ///
    /// /// Changes a record, and returns it as it was before.
    /// fn change(
    ///     records: &mut Records,
    ///     key: &SessionKey,
    ///     apply: impl FnOnce(&SessionRecord) -> Option<SessionRecord>,
    /// ) -> Option<Arc<SessionRecord>> {
    ///     let stored = records.get_mut(key)?;
    ///     let changed = apply(stored)?;
    ///     Some(std::mem::replace(stored, changed.into()))
    /// }
    ///
    /// fn revoke(records: &mut Records, keys: &[SessionKey], end: &End) -> usize {
    ///     let ended = keys.iter().filter_map(|key| {
    ///         change(records, key, |record| end.apply_to(record, None))
    ///     });
    ///     ended.filter(|record| record.is_live(end.at)).count()
    /// }
    /// # use tower_keep_core::{EndReason, Timestamp};
    /// # let (key, now) = (SessionKey::new([1; 32]), Timestamp::from_secs(1));
    /// # let record = SessionRecord::new(key, "7".into(), [0; 16], now, now.plus(9));
    /// # let mut records = HashMap::from([(key, Arc::new(record))]);
    /// # assert_eq!(revoke(&mut records, &[key, key], &End::new(now, EndReason::Revoked, now)), 1);
    /// ```
    pub fn apply_to(
        &self,
        record: &SessionRecord,
        successor: Option<SessionKey>,
    ) -> Option<SessionRecord> {
        let ended = Ended { at: self.at, reason: self.reason, successor, notified: false };
        let ended_record =
            || SessionRecord { expires: self.keep_until, ended: Some(ended), ..record.clone() };
        record.ended.is_none().then(ended_record)
    }
}

impl SessionRecord {
    /// Checks whether the session ended because of a [replay](EndReason::Replay), and the user has
    /// not been notified of that.
    pub fn must_notify(&self) -> bool {
        let must_notify = |ended: &Ended| ended.reason == EndReason::Replay && !ended.notified;
        self.ended.as_ref().is_some_and(must_notify)
    }

    /// Returns the record with its end marked as [notified](Ended::notified), or `None` if
    /// [`must_notify`](Self::must_notify) returns `false`.
    pub fn with_notified_end(&self) -> Option<Self> {
        let ended = self.ended.clone().filter(|_| self.must_notify())?;
        Some(Self { ended: Some(Ended { notified: true, ..ended }), ..self.clone() })
    }
}

impl SessionRecord {
    /// Checks whether the session has not been used since the login, as far as the record shows.
    /// The response to the login may have been lost, so it is possible that no client has the
    /// cookies.
    pub fn is_unused(&self) -> bool {
        self.generation == 0 && self.seen_at.is_none() && self.last_seen == self.created
    }

    /// Makes a later login the successor of this replaced session. Returns the changed record,
    /// which is kept at least until `keep_until`. Returns `None` if the session has no successor
    /// yet, or already has this one.
    pub fn with_successor(&self, successor: SessionKey, keep_until: Timestamp) -> Option<Self> {
        let ended = self.ended.as_ref()?;
        ended.successor.filter(|stored| *stored != successor)?;
        let ended = Some(Ended { successor: Some(successor), ..ended.clone() });
        Some(Self { ended, expires: self.expires.max(keep_until), ..self.clone() })
    }
}

/// How to make room for one more session; see [`SessionLimit::room`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Room<R> {
    /// There is no room: the store writes nothing and returns [`Full`](crate::Creation::Full).
    None,
    /// The store ends these sessions one by one. The oldest is the first, and the list may be
    /// empty.
    EndEach(Vec<R>),
    /// There are too many sessions to end one by one. The store raises the user's
    /// [`Epoch`](crate::Epoch), which ends all of the user's sessions, and moves the records in
    /// `stay` to the new epoch. Instead of raising the epoch, a store that passed *all* live
    /// sessions to [`room`](SessionLimit::room) may end the sessions in `ended` one by one.
    EndAllExcept {
        /// The sessions that don't end.
        stay: Vec<R>,
        /// The sessions that end, of those that were passed to [`room`](SessionLimit::room).
        ended: Vec<R>,
    },
}

impl SessionLimit {
    /// Returns how many of a user's live sessions a store has to read for [`room`](Self::room), the
    /// newest by `created` first. The number does not depend on how many sessions there are.
    pub fn records_to_read(&self) -> usize {
        self.max.saturating_add(MAX_PER_CALL)
    }

    /// Decides how to make room for one more session. Every store uses this method to plan a login.
    ///
    /// `live` holds the user's live sessions in any order, without the sessions that the login
    /// replaces. If the user has more than [`records_to_read()`](Self::records_to_read) of them,
    /// `live` holds only the newest `records_to_read()` sessions.
    pub fn room<R: AsRef<SessionRecord>>(&self, live: Vec<R>) -> Room<R> {
        let is_complete = live.len() < self.records_to_read();
        let surplus = (live.len() + 1).saturating_sub(self.max);
        let mut oldest_first = live;
        oldest_first.sort_by_key(|record| record.as_ref().created);
        match self.when_full {
            WhenFull::Refuse => {
                let (unused, used): (Vec<_>, Vec<_>) =
                    oldest_first.into_iter().partition(|record| record.as_ref().is_unused());
                if used.len() >= self.max || !is_complete {
                    return Room::None;
                }
                Room::EndEach(unused.into_iter().take(surplus).collect())
            }
            WhenFull::EndOldest if is_complete => {
                oldest_first.truncate(surplus);
                Room::EndEach(oldest_first)
            }
            WhenFull::EndOldest => {
                let stay = oldest_first.split_off(surplus);
                Room::EndAllExcept { stay, ended: oldest_first }
            }
        }
    }
}

/// Returns the period with the later of the stored expiry and `expires`, or `None` if there is no
/// period because the login is not remembered.
fn extended(period: Option<RememberPeriod>, expires: Option<Timestamp>) -> Option<RememberPeriod> {
    let RememberPeriod { expires: stored, seconds } = period?;
    Some(RememberPeriod { expires: expires.map_or(stored, |expires| stored.max(expires)), seconds })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::End;

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    fn record() -> SessionRecord {
        let key = SessionKey::new([1; 32]);
        SessionRecord {
            generation: 3,
            remember: Some(RememberPeriod::new(NOW.plus(500), 500)),
            ..SessionRecord::new(key, "7".into(), [0; 16], NOW, NOW.plus(600))
        }
    }

    fn remember_expires(record: &SessionRecord) -> Option<Timestamp> {
        record.remember.map(|remember| remember.expires)
    }

    fn end(reason: EndReason) -> End {
        End { at: NOW.plus(10), reason, keep_until: NOW.plus(20) }
    }

    fn ended(reason: EndReason) -> SessionRecord {
        end(reason).apply_to(&record(), None).unwrap()
    }

    #[test]
    fn a_rotation_changes_only_a_live_session_of_the_expected_generation() {
        let rotation = |from_generation, remember_expires| Rotation {
            key: record().key,
            from_generation,
            at: NOW.plus(10),
            remember_expires,
            expires: NOW.plus(550),
        };
        let seen = SessionRecord { seen_at: Some(NOW), ..record() };
        let next = rotation(3, Some(NOW.plus(700))).apply_to(&seen).unwrap();
        let at = NOW.plus(10);
        assert_eq!((next.generation, next.rotated_at, next.seen_at), (4, Some(at), None));
        assert_eq!((next.session_started, next.last_seen), (at, at));
        assert_eq!((remember_expires(&next), next.expires), (Some(NOW.plus(700)), NOW.plus(600)));
        assert_eq!(rotation(2, None).apply_to(&record()), None);
        assert_eq!(rotation(3, None).apply_to(&ended(EndReason::LoggedOut)), None);
    }

    #[test]
    fn a_seen_mark_is_set_once_and_only_on_its_generation() {
        let mark = |generation| SeenMark { key: record().key, generation, at: NOW.plus(10) };
        let marked = mark(3).apply_to(&record()).unwrap();
        assert_eq!(marked, SessionRecord { seen_at: Some(NOW.plus(10)), ..record() });
        for (mark, record) in
            [(mark(2), record()), (mark(3), marked), (mark(3), ended(EndReason::LoggedOut))]
        {
            assert_eq!(mark.apply_to(&record), None);
        }
    }

    #[test]
    fn a_touch_never_sets_an_earlier_time() {
        let touch = |at, remember_expires, expires| Touch {
            key: record().key,
            at,
            remember_expires,
            expires,
        };
        let (sooner, later) = (Timestamp::from_secs(1), NOW.plus(9_000));
        let touched = touch(later, Some(later), later).apply_to(&record()).unwrap();
        assert_eq!(
            (touched.last_seen, remember_expires(&touched), touched.expires),
            (later, Some(later), later)
        );
        let only_seen = touch(later, None, sooner).apply_to(&record()).unwrap();
        assert_eq!(only_seen, SessionRecord { last_seen: later, ..record() });
        let not_remembered = SessionRecord { remember: None, ..record() };
        let touched = touch(later, Some(later), sooner).apply_to(&not_remembered).unwrap();
        assert_eq!(touched.remember, None);
        assert_eq!(touch(sooner, Some(sooner), sooner).apply_to(&record()), None);
        assert_eq!(touch(later, None, later).apply_to(&ended(EndReason::LoggedOut)), None);
    }

    #[test]
    fn the_first_end_is_kept_and_the_user_is_notified_of_a_replay_once() {
        let successor = Some(SessionKey::new([2; 32]));
        let replaced = end(EndReason::Replaced).apply_to(&record(), successor).unwrap();
        let first_end = replaced.ended.clone().unwrap();
        assert_eq!(
            (first_end.at, first_end.reason, first_end.successor),
            (NOW.plus(10), EndReason::Replaced, successor)
        );
        assert_eq!(replaced.expires, NOW.plus(20), "kept until `keep_until`");
        assert_eq!(end(EndReason::LoggedOut).apply_to(&replaced, None), None);
        for no_replay in [record(), replaced] {
            assert!(!no_replay.must_notify() && no_replay.with_notified_end().is_none());
        }
        let replay = ended(EndReason::Replay);
        assert!(replay.must_notify());
        let notified = replay.with_notified_end().unwrap();
        assert!(!notified.must_notify() && notified.with_notified_end().is_none());
    }

    fn used(created_after: u32) -> Arc<SessionRecord> {
        let created = NOW.plus(created_after);
        Arc::new(SessionRecord { created, last_seen: created, seen_at: Some(created), ..record() })
    }

    /// Returns how many seconds after `NOW` the records were created.
    fn created_after(records: &[Arc<SessionRecord>]) -> Vec<u32> {
        records.iter().map(|record| record.created.since(NOW)).collect()
    }

    #[test]
    fn a_login_at_the_limit_ends_the_oldest_sessions_or_is_refused() {
        let live: Vec<_> = [30, 10, 20].map(used).into();
        for (max, oldest) in [(1, &[10, 20, 30][..]), (2, &[10, 20]), (3, &[10]), (4, &[])] {
            let room = |when_full| SessionLimit { max, when_full }.room(live.clone());
            let Room::EndEach(ended) = room(WhenFull::EndOldest) else {
                panic!("not ended one by one")
            };
            assert_eq!(created_after(&ended), oldest);
            let is_refused = room(WhenFull::Refuse) == Room::None;
            assert_eq!(is_refused, !oldest.is_empty(), "{max}");
        }
    }

    #[test]
    fn unused_sessions_end_before_a_login_is_refused() {
        let unused = |created_after: u32| {
            let created = NOW.plus(created_after);
            Arc::new(SessionRecord {
                created,
                last_seen: created,
                generation: 0,
                seen_at: None,
                ..record()
            })
        };
        let ended = |max, live: Vec<_>| {
            let limit = SessionLimit { max, when_full: WhenFull::Refuse };
            match limit.room(live) {
                Room::EndEach(ended) => Some(created_after(&ended)),
                _ => None,
            }
        };
        assert_eq!(ended(1, vec![unused(1)]), Some(vec![1]));
        assert_eq!(ended(2, vec![used(1), unused(3), unused(2)]), Some(vec![2, 3]));
        assert_eq!(
            ended(3, vec![used(1), unused(3), unused(2)]),
            Some(vec![2]),
            "only as many as necessary"
        );
        assert_eq!(ended(1, vec![used(1), unused(2)]), None, "the used session fills the limit");
        assert!(!used(1).is_unused());
        let touched = SessionRecord { last_seen: NOW.plus(9), ..(*unused(1)).clone() };
        let rotated = SessionRecord { generation: 1, ..(*unused(1)).clone() };
        assert!(!touched.is_unused() && !rotated.is_unused() && unused(1).is_unused());
    }

    #[test]
    fn too_many_sessions_end_together_except_the_newest() {
        let limit = SessionLimit { max: 3, when_full: WhenFull::EndOldest };
        let read: Vec<_> = (0..limit.records_to_read() as u32).rev().map(used).collect();
        let Room::EndAllExcept { stay, ended } = limit.room(read.clone()) else {
            panic!("ended one by one")
        };
        assert_eq!(created_after(&stay), [101, 102], "the third place is for the login");
        assert_eq!((ended.len(), created_after(&ended[..1])), (101, vec![0]));
        let refuse = SessionLimit { when_full: WhenFull::Refuse, ..limit };
        assert_eq!(refuse.room(read), Room::None);
    }

    #[test]
    fn a_replaced_session_gets_the_latest_login_as_its_successor() {
        let (first, second) = (SessionKey::new([2; 32]), SessionKey::new([3; 32]));
        let replaced = end(EndReason::Replaced).apply_to(&record(), Some(first)).unwrap();
        let updated = replaced.with_successor(second, NOW.plus(90)).unwrap();
        assert_eq!(updated.ended.as_ref().and_then(|ended| ended.successor), Some(second));
        assert_eq!(updated.expires, NOW.plus(90));
        assert_eq!(
            replaced.with_successor(second, NOW).map(|after| after.expires),
            Some(NOW.plus(20))
        );
        assert_eq!(replaced.with_successor(first, NOW.plus(90)), None, "already its successor");
        for other in [record(), ended(EndReason::LoggedOut)] {
            assert_eq!(other.with_successor(second, NOW.plus(90)), None);
        }
    }
}
