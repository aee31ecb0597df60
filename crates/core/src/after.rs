//! What the calls of a store make of a record: the rules of [`SessionStore`](crate::SessionStore) that
//! need no store.
//!
//! A store that reads a record, decides and writes it back, decides by these. One whose database
//! changes records itself says the same in the database's words.

use crate::{
    EndReason, Ended, Rotation, Seen, SessionKey, SessionLimit, SessionRecord, Timestamp, Touch,
    WhenFull,
};

impl Rotation {
    /// The next generation of this record; `None` if it has another generation than this rotation
    /// begins from, or has ended.
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

impl Seen {
    /// The record with this mark; `None` if it has another generation, a mark already, or has ended.
    pub fn after(&self, record: &SessionRecord) -> Option<SessionRecord> {
        let is_due = record.generation == self.generation
            && record.ended.is_none()
            && record.seen_at.is_none();
        is_due.then(|| SessionRecord { seen_at: Some(self.at), ..record.clone() })
    }
}

impl Touch {
    /// The record, used; `None` if that changes nothing, or it has ended.
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
    /// The record, ended, with the login that takes its place in the same browser; `None` if it has
    /// ended before.
    pub fn after(
        &self,
        record: &SessionRecord,
        successor: Option<SessionKey>,
    ) -> Option<SessionRecord> {
        let ended = Ended { at: self.at, reason: self.reason, successor, told: false };
        let after =
            || SessionRecord { expires: self.keep_until, ended: Some(ended), ..record.clone() };
        record.ended.is_none().then(after)
    }
}

impl SessionRecord {
    /// Whether it ended for a [replay](EndReason::Replay) of which its user was not told.
    pub fn is_untold(&self) -> bool {
        let is_untold = |ended: &Ended| ended.reason == EndReason::Replay && !ended.told;
        self.ended.as_ref().is_some_and(is_untold)
    }

    /// The record, after its user was [told](Ended::told) of the end; `None` if there is nothing to tell.
    pub fn told(&self) -> Option<Self> {
        let ended = self.ended.clone().filter(|_| self.is_untold())?;
        Some(Self { ended: Some(Ended { told: true, ..ended }), ..self.clone() })
    }
}

impl SessionLimit {
    /// Of a user's live sessions those that have to end so that there is room for one more, the oldest
    /// first; `None` if a login has to be refused instead.
    pub fn surplus<R: AsRef<SessionRecord>>(&self, mut live: Vec<R>) -> Option<Vec<R>> {
        let surplus = (live.len() + 1).saturating_sub(self.most);
        if surplus > 0 && self.when_full == WhenFull::Refuse {
            return None;
        }
        live.sort_by_key(|record| record.as_ref().created);
        live.truncate(surplus);
        Some(live)
    }
}

/// The later of two times until which the remember cookie counts, if the login is remembered.
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
        let mark = |generation| Seen { key: record().key, generation, at: NOW.plus(10) };
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
    fn of_several_ends_the_first_counts_and_a_replay_is_told_once() {
        let successor = Some(SessionKey::new([2; 32]));
        let replaced = end(EndReason::Replaced).after(&record(), successor).unwrap();
        let told = replaced.ended.clone().unwrap();
        assert_eq!(
            (told.at, told.reason, told.successor),
            (NOW.plus(10), EndReason::Replaced, successor)
        );
        assert_eq!(replaced.expires, NOW.plus(20), "kept so long");
        assert_eq!(end(EndReason::LoggedOut).after(&replaced, None), None);
        for silent in [record(), replaced] {
            assert!(!silent.is_untold() && silent.told().is_none());
        }
        let replay = ended(EndReason::Replay);
        assert!(replay.is_untold());
        let told = replay.told().unwrap();
        assert!(!told.is_untold() && told.told().is_none());
    }

    #[test]
    fn a_limit_leaves_room_for_one_more() {
        let live: Vec<_> = [30, 10, 20]
            .map(|created| Arc::new(SessionRecord { created: NOW.plus(created), ..record() }))
            .into();
        let ends = |most, when_full| {
            let surplus = SessionLimit { most, when_full }.surplus(live.clone())?;
            Some(surplus.iter().map(|old| old.created.since(NOW)).collect::<Vec<_>>())
        };
        for (most, oldest) in [(1, &[10, 20, 30][..]), (2, &[10, 20]), (3, &[10]), (4, &[])] {
            assert_eq!(ends(most, WhenFull::EndOldest).as_deref(), Some(oldest));
            let refused = ends(most, WhenFull::Refuse);
            assert_eq!(refused.as_deref(), oldest.is_empty().then_some(oldest));
        }
    }
}
