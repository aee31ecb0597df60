//! How the calls of a store change a record: the rules of [`SessionStore`](crate::SessionStore)
//! that need no store.
//!
//! A store that reads a record, decides and writes it back uses these functions. A store whose
//! database changes records itself expresses the same rules in the database's own language.

use crate::{
    EndReason, Ended, MOST_AT_ONCE, Rotation, SeenMark, SessionKey, SessionLimit, SessionRecord,
    Timestamp, Touch, WhenFull,
};

impl Rotation {
    /// Returns the next generation of this record, or `None` if the record has another generation
    /// than `self.from` or has ended.
    pub fn after(&self, record: &SessionRecord) -> Option<SessionRecord> {
        let is_due = record.generation == self.from && record.ended.is_none();
        is_due.then(|| SessionRecord {
            generation: self.from.saturating_add(1),
            rotated_at: Some(self.at),
            seen_at: None,
            session_started: self.at,
            last_seen: self.at,
            remember_expires: later(record.remember_expires, self.remember_expires),
            expires: record.expires.max(self.expires),
            ..record.clone()
        })
    }
}

impl SeenMark {
    /// Returns the record with this mark, or `None` if the record has another generation, already
    /// has a mark, or has ended.
    pub fn after(&self, record: &SessionRecord) -> Option<SessionRecord> {
        let is_due = record.generation == self.generation
            && record.ended.is_none()
            && record.seen_at.is_none();
        is_due.then(|| SessionRecord { seen_at: Some(self.at), ..record.clone() })
    }
}

impl Touch {
    /// Returns the record after this use, or `None` if nothing changes or the record has ended.
    pub fn after(&self, record: &SessionRecord) -> Option<SessionRecord> {
        let after = SessionRecord {
            last_seen: record.last_seen.max(self.at),
            remember_expires: later(record.remember_expires, self.remember_expires),
            expires: record.expires.max(self.expires),
            ..record.clone()
        };
        (record.ended.is_none() && after != *record).then_some(after)
    }
}

impl crate::End {
    /// Returns the record as ended, or `None` if it had already ended. `successor` is the login
    /// that replaces it in the same browser.
    pub fn after(
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
    /// There is no room, so the login has to be refused.
    None,
    /// There is room once these sessions have ended. The oldest is the first.
    After(Vec<R>),
    /// There is room once a new [`Epoch`](crate::Epoch) has ended all of the user's sessions except
    /// `stay`, because there are too many to end one by one. `ended` holds some of the sessions
    /// that end.
    AfterAllBut {
        /// The sessions that don't end.
        stay: Vec<R>,
        /// The sessions that end, as far as they were passed to [`room`](SessionLimit::room).
        ended: Vec<R>,
    },
}

impl SessionLimit {
    /// Returns how many of a user's live sessions a store has to read for [`room`](Self::room), the
    /// newest by `created` first. The number does not depend on how many sessions there are.
    pub fn reads(&self) -> usize {
        self.most.saturating_add(MOST_AT_ONCE)
    }

    /// Decides how to make room for one more session. Every store uses this to plan a login.
    ///
    /// `newest` are the user's live sessions in any order, without those that the login replaces.
    /// They are either all of these, or the newest, as many as [`reads`](Self::reads) returns.
    pub fn room<R: AsRef<SessionRecord>>(&self, mut newest: Vec<R>) -> Room<R> {
        let is_all = newest.len() < self.reads();
        let surplus = (newest.len() + 1).saturating_sub(self.most);
        newest.sort_by_key(|record| record.as_ref().created);
        match self.when_full {
            WhenFull::Refuse => {
                let (unused, used): (Vec<_>, Vec<_>) =
                    newest.into_iter().partition(|record| record.as_ref().is_unused());
                if used.len() >= self.most || !is_all {
                    return Room::None;
                }
                Room::After(unused.into_iter().take(surplus).collect())
            }
            WhenFull::EndOldest if is_all => {
                newest.truncate(surplus);
                Room::After(newest)
            }
            WhenFull::EndOldest => {
                let stay = newest.split_off(surplus);
                Room::AfterAllBut { stay, ended: newest }
            }
        }
    }
}

/// Returns the later of two expiry times of the remember cookie, or `None` if the login is not
/// remembered.
fn later(own: Option<Timestamp>, given: Option<Timestamp>) -> Option<Timestamp> {
    own.map(|own| given.map_or(own, |given| own.max(given)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::End;

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    fn record() -> SessionRecord {
        SessionRecord {
            key: SessionKey::new([1; 32]),
            user: "7".into(),
            generation: 3,
            rotated_at: None,
            seen_at: None,
            salt: [0; 16],
            created: NOW,
            session_started: NOW,
            last_seen: NOW,
            remember_expires: Some(NOW.plus(500)),
            remember_seconds: 500,
            expires: NOW.plus(600),
            address: None,
            user_agent: "".into(),
            method: "".into(),
            ended: None,
        }
    }

    fn end(reason: EndReason) -> End {
        End { at: NOW.plus(10), reason, keep_until: NOW.plus(20) }
    }

    fn ended(reason: EndReason) -> SessionRecord {
        end(reason).after(&record(), None).unwrap()
    }

    #[test]
    fn a_rotation_begins_the_next_generation_of_the_one_it_knows() {
        let rotation = |from, longer| Rotation {
            key: record().key,
            from,
            at: NOW.plus(10),
            remember_expires: longer,
            expires: NOW.plus(550),
        };
        let seen = SessionRecord { seen_at: Some(NOW), ..record() };
        let next = rotation(3, Some(NOW.plus(700))).after(&seen).unwrap();
        let at = NOW.plus(10);
        assert_eq!((next.generation, next.rotated_at, next.seen_at), (4, Some(at), None));
        assert_eq!((next.session_started, next.last_seen), (at, at));
        assert_eq!((next.remember_expires, next.expires), (Some(NOW.plus(700)), NOW.plus(600)));
        assert_eq!(rotation(2, None).after(&record()), None);
        assert_eq!(rotation(3, None).after(&ended(EndReason::LoggedOut)), None);
    }

    #[test]
    fn a_mark_is_made_once_and_on_its_generation() {
        let mark = |generation| SeenMark { key: record().key, generation, at: NOW.plus(10) };
        let marked = mark(3).after(&record()).unwrap();
        assert_eq!(marked, SessionRecord { seen_at: Some(NOW.plus(10)), ..record() });
        for (mark, record) in
            [(mark(2), record()), (mark(3), marked), (mark(3), ended(EndReason::LoggedOut))]
        {
            assert_eq!(mark.after(&record), None);
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
        let all = touch(later, Some(later), later).after(&record()).unwrap();
        assert_eq!((all.last_seen, all.remember_expires, all.expires), (later, Some(later), later));
        let once = touch(later, None, sooner).after(&record()).unwrap();
        assert_eq!(once, SessionRecord { last_seen: later, ..record() });
        let not_remembered = SessionRecord { remember_expires: None, ..record() };
        let after = touch(later, Some(later), sooner).after(&not_remembered).unwrap();
        assert_eq!(after.remember_expires, None);
        assert_eq!(touch(sooner, Some(sooner), sooner).after(&record()), None);
        assert_eq!(touch(later, None, later).after(&ended(EndReason::LoggedOut)), None);
    }

    #[test]
    fn of_several_ends_the_first_counts_and_a_replay_is_notified_once() {
        let successor = Some(SessionKey::new([2; 32]));
        let replaced = end(EndReason::Replaced).after(&record(), successor).unwrap();
        let how = replaced.ended.clone().unwrap();
        assert_eq!(
            (how.at, how.reason, how.successor),
            (NOW.plus(10), EndReason::Replaced, successor)
        );
        assert_eq!(replaced.expires, NOW.plus(20), "kept so long");
        assert_eq!(end(EndReason::LoggedOut).after(&replaced, None), None);
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
        for (most, oldest) in [(1, &[10, 20, 30][..]), (2, &[10, 20]), (3, &[10]), (4, &[])] {
            let room = |when_full| SessionLimit { most, when_full }.room(live.clone());
            let Room::After(ends) = room(WhenFull::EndOldest) else { panic!("they are few") };
            assert_eq!(created(&ends), oldest);
            let refused = room(WhenFull::Refuse) == Room::None;
            assert_eq!(refused, !oldest.is_empty(), "{most}");
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
        let room = |most, live: Vec<_>| {
            let limit = SessionLimit { most, when_full: WhenFull::Refuse };
            match limit.room(live) {
                Room::After(ends) => Some(created(&ends)),
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
        let limit = SessionLimit { most: 3, when_full: WhenFull::EndOldest };
        let read: Vec<_> = (0..limit.reads() as u32).rev().map(used).collect();
        let Room::AfterAllBut { stay, ended } = limit.room(read.clone()) else {
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
        let replaced = end(EndReason::Replaced).after(&record(), Some(first)).unwrap();
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
