//! How the calls of a store change a record: the rules of [`SessionStore`](crate::SessionStore)
//! that need no store.
//!
//! A store that reads a record, decides and writes it back uses these functions. A store whose
//! database changes records itself expresses the same rules in the database's own language.

use crate::{
    EndReason, Ended, MAX_AT_ONCE, RememberPeriod, Rotation, SeenMark, SessionKey, SessionLimit,
    SessionRecord, Timestamp, Touch, WhenFull,
};

impl Rotation {
    /// Returns the next generation of this record, or `None` if the record has another generation
    /// than `self.from_generation` or has ended.
    pub fn apply_to(&self, record: &SessionRecord) -> Option<SessionRecord> {
        let is_due = record.generation == self.from_generation && record.ended.is_none();
        is_due.then(|| SessionRecord {
            generation: self.from_generation.saturating_add(1),
            rotated_at: Some(self.at),
            seen_at: None,
            session_started: self.at,
            last_seen: self.at,
            remember: later(record.remember, self.remember_expires),
            expires: record.expires.max(self.expires),
            ..record.clone()
        })
    }
}

impl SeenMark {
    /// Returns the record with this mark, or `None` if the record has another generation, already
    /// has a mark, or has ended.
    pub fn apply_to(&self, record: &SessionRecord) -> Option<SessionRecord> {
        let is_due = record.generation == self.generation
            && record.ended.is_none()
            && record.seen_at.is_none();
        is_due.then(|| SessionRecord { seen_at: Some(self.at), ..record.clone() })
    }
}

impl Touch {
    /// Returns the record after this use, or `None` if nothing changes or the record has ended.
    pub fn apply_to(&self, record: &SessionRecord) -> Option<SessionRecord> {
        let after = SessionRecord {
            last_seen: record.last_seen.max(self.at),
            remember: later(record.remember, self.remember_expires),
            expires: record.expires.max(self.expires),
            ..record.clone()
        };
        (record.ended.is_none() && after != *record).then_some(after)
    }
}

impl crate::End {
    /// Returns the record as ended, or `None` if it had already ended. `successor` is the login
    /// that replaces it in the same browser.
    pub fn apply_to(
        &self,
        record: &SessionRecord,
        successor: Option<SessionKey>,
    ) -> Option<SessionRecord> {
        let ended = Ended { at: self.at, reason: self.reason, successor, notified: false };
        let after =
            || SessionRecord { expires: self.keep_until, ended: Some(ended), ..record.clone() };
        record.ended.is_none().then(after)
    }
}

impl SessionRecord {
    /// Checks whether the session ended because of a [replay](EndReason::Replay) of which its user
    /// has not been notified.
    pub fn must_notify(&self) -> bool {
        let must_notify = |ended: &Ended| ended.reason == EndReason::Replay && !ended.notified;
        self.ended.as_ref().is_some_and(must_notify)
    }

    /// Returns the record with its end marked as [notified](Ended::notified), or `None` if there is
    /// nothing to notify the user of.
    pub fn notified(&self) -> Option<Self> {
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

    /// Returns this record of a replaced session with a later login as its new successor. Returns
    /// `None` if the session was not replaced, or already has this successor.
    pub fn followed_by(&self, successor: SessionKey, keep_until: Timestamp) -> Option<Self> {
        let ended = self.ended.as_ref()?;
        ended.successor.filter(|earlier| *earlier != successor)?;
        let ended = Some(Ended { successor: Some(successor), ..ended.clone() });
        Some(Self { ended, expires: self.expires.max(keep_until), ..self.clone() })
    }
}

/// How to make room for one more session; see [`SessionLimit::room`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Room<R> {
    /// There is no room: the store writes nothing and returns [`Full`](crate::Creation::Full).
    None,
    /// The store ends these sessions one by one; often there are none. The oldest is the first.
    EndEach(Vec<R>),
    /// There are too many sessions to end one by one. The store begins a new
    /// [`Epoch`](crate::Epoch), which ends all of the user's sessions, and carries over `stay`.
    EndAllExcept {
        /// The sessions that don't end.
        stay: Vec<R>,
        /// The sessions that end, as far as they were passed to [`room`](SessionLimit::room).
        ended: Vec<R>,
    },
}

impl SessionLimit {
    /// Returns how many of a user's live sessions a store has to read for [`room`](Self::room), the
    /// newest by `created` first. The number does not depend on how many sessions there are.
    pub fn records_to_read(&self) -> usize {
        self.max.saturating_add(MAX_AT_ONCE)
    }

    /// Decides how to make room for one more session. Every store uses this to plan a login.
    ///
    /// `newest` are the user's live sessions in any order, without those that the login replaces.
    /// They are either all of these, or the newest, as many as
    /// [`records_to_read`](Self::records_to_read) returns.
    pub fn room<R: AsRef<SessionRecord>>(&self, mut newest: Vec<R>) -> Room<R> {
        let is_all = newest.len() < self.records_to_read();
        let surplus = (newest.len() + 1).saturating_sub(self.max);
        newest.sort_by_key(|record| record.as_ref().created);
        match self.when_full {
            WhenFull::Refuse => {
                let (unused, used): (Vec<_>, Vec<_>) =
                    newest.into_iter().partition(|record| record.as_ref().is_unused());
                if used.len() >= self.max || !is_all {
                    return Room::None;
                }
                Room::EndEach(unused.into_iter().take(surplus).collect())
            }
            WhenFull::EndOldest if is_all => {
                newest.truncate(surplus);
                Room::EndEach(newest)
            }
            WhenFull::EndOldest => {
                let stay = newest.split_off(surplus);
                Room::EndAllExcept { stay, ended: newest }
            }
        }
    }
}

/// Returns the period of a remember cookie that may be valid for longer from now on, or `None` if
/// the login is not remembered.
fn later(period: Option<RememberPeriod>, expires: Option<Timestamp>) -> Option<RememberPeriod> {
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
    fn a_rotation_begins_the_next_generation_of_the_one_it_knows() {
        let rotation = |from_generation, longer| Rotation {
            key: record().key,
            from_generation,
            at: NOW.plus(10),
            remember_expires: longer,
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
    fn a_mark_is_made_once_and_on_its_generation() {
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
    fn a_touch_only_moves_forward() {
        let touch = |at, remember_expires, expires| Touch {
            key: record().key,
            at,
            remember_expires,
            expires,
        };
        let (sooner, later) = (Timestamp::from_secs(1), NOW.plus(9_000));
        let all = touch(later, Some(later), later).apply_to(&record()).unwrap();
        assert_eq!(
            (all.last_seen, remember_expires(&all), all.expires),
            (later, Some(later), later)
        );
        let once = touch(later, None, sooner).apply_to(&record()).unwrap();
        assert_eq!(once, SessionRecord { last_seen: later, ..record() });
        let not_remembered = SessionRecord { remember: None, ..record() };
        let after = touch(later, Some(later), sooner).apply_to(&not_remembered).unwrap();
        assert_eq!(after.remember, None);
        assert_eq!(touch(sooner, Some(sooner), sooner).apply_to(&record()), None);
        assert_eq!(touch(later, None, later).apply_to(&ended(EndReason::LoggedOut)), None);
    }

    #[test]
    fn of_several_ends_the_first_counts_and_a_replay_is_notified_once() {
        let successor = Some(SessionKey::new([2; 32]));
        let replaced = end(EndReason::Replaced).apply_to(&record(), successor).unwrap();
        let how = replaced.ended.clone().unwrap();
        assert_eq!(
            (how.at, how.reason, how.successor),
            (NOW.plus(10), EndReason::Replaced, successor)
        );
        assert_eq!(replaced.expires, NOW.plus(20), "kept so long");
        assert_eq!(end(EndReason::LoggedOut).apply_to(&replaced, None), None);
        for silent in [record(), replaced] {
            assert!(!silent.must_notify() && silent.notified().is_none());
        }
        let replay = ended(EndReason::Replay);
        assert!(replay.must_notify());
        let notified = replay.notified().unwrap();
        assert!(!notified.must_notify() && notified.notified().is_none());
    }

    fn used(created: u32) -> Arc<SessionRecord> {
        let created = NOW.plus(created);
        Arc::new(SessionRecord { created, last_seen: created, seen_at: Some(created), ..record() })
    }

    fn created(records: &[Arc<SessionRecord>]) -> Vec<u32> {
        records.iter().map(|old| old.created.since(NOW)).collect()
    }

    #[test]
    fn a_limit_leaves_room_for_one_more() {
        let live: Vec<_> = [30, 10, 20].map(used).into();
        for (max, oldest) in [(1, &[10, 20, 30][..]), (2, &[10, 20]), (3, &[10]), (4, &[])] {
            let room = |when_full| SessionLimit { max, when_full }.room(live.clone());
            let Room::EndEach(ends) = room(WhenFull::EndOldest) else { panic!("they are few") };
            assert_eq!(created(&ends), oldest);
            let refused = room(WhenFull::Refuse) == Room::None;
            assert_eq!(refused, !oldest.is_empty(), "{max}");
        }
    }

    #[test]
    fn a_session_that_was_never_used_keeps_nobody_out() {
        let unused = |at: u32| {
            let created = NOW.plus(at);
            Arc::new(SessionRecord {
                created,
                last_seen: created,
                generation: 0,
                seen_at: None,
                ..record()
            })
        };
        let room = |max, live: Vec<_>| {
            let limit = SessionLimit { max, when_full: WhenFull::Refuse };
            match limit.room(live) {
                Room::EndEach(ends) => Some(created(&ends)),
                _ => None,
            }
        };
        assert_eq!(room(1, vec![unused(1)]), Some(vec![1]));
        assert_eq!(room(2, vec![used(1), unused(3), unused(2)]), Some(vec![2, 3]));
        assert_eq!(
            room(3, vec![used(1), unused(3), unused(2)]),
            Some(vec![2]),
            "no more than it takes"
        );
        assert_eq!(room(1, vec![used(1), unused(2)]), None, "the used ones are enough");
        assert!(!used(1).is_unused());
        let touched = SessionRecord { last_seen: NOW.plus(9), ..(*unused(1)).clone() };
        let rotated = SessionRecord { generation: 1, ..(*unused(1)).clone() };
        assert!(!touched.is_unused() && !rotated.is_unused() && unused(1).is_unused());
    }

    #[test]
    fn of_very_many_sessions_all_end_at_once_but_the_newest() {
        let limit = SessionLimit { max: 3, when_full: WhenFull::EndOldest };
        let read: Vec<_> = (0..limit.records_to_read() as u32).rev().map(used).collect();
        let Room::EndAllExcept { stay, ended } = limit.room(read.clone()) else {
            panic!("they are too many to end one by one")
        };
        assert_eq!(created(&stay), [101, 102], "one place is for the new one");
        assert_eq!((ended.len(), created(&ended[..1])), (101, vec![0]));
        let refuse = SessionLimit { when_full: WhenFull::Refuse, ..limit };
        assert_eq!(refuse.room(read), Room::None);
    }

    #[test]
    fn who_was_replaced_stands_for_the_latest_login() {
        let (first, second) = (SessionKey::new([2; 32]), SessionKey::new([3; 32]));
        let replaced = end(EndReason::Replaced).apply_to(&record(), Some(first)).unwrap();
        let followed = replaced.followed_by(second, NOW.plus(90)).unwrap();
        assert_eq!(followed.ended.as_ref().and_then(|ended| ended.successor), Some(second));
        assert_eq!(followed.expires, NOW.plus(90));
        assert_eq!(
            replaced.followed_by(second, NOW).map(|after| after.expires),
            Some(NOW.plus(20))
        );
        assert_eq!(replaced.followed_by(first, NOW.plus(90)), None, "it has that one already");
        for other in [record(), ended(EndReason::LoggedOut)] {
            assert_eq!(other.followed_by(second, NOW.plus(90)), None);
        }
    }
}
