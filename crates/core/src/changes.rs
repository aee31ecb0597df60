//! The changes of a stored record: what a call says, and how it changes the record. These are the
//! rules of [`SessionStore`](crate::SessionStore) that need no store.
//!
//! A store that reads a record, decides in Rust and writes the record back uses these functions. A
//! store whose database makes the decision expresses the same rules in the database's own language.

use std::sync::Arc;

use crate::end_reason::EndReason;
use crate::session::{Ended, RememberPeriod, SessionKey, SessionRecord};
use crate::timestamp::Timestamp;

/// A rotation, which begins the next generation of a session; see
/// [`SessionStore::rotate`](crate::SessionStore::rotate).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rotation {
    /// The key of the session.
    pub key: SessionKey,
    /// The generation that the record must have before the call.
    pub from_generation: u32,
    /// When the session is rotated.
    pub at: Timestamp,
    /// The new expiry of the remember cookie; `None` leaves the stored expiry as it is.
    pub remember_expires: Option<Timestamp>,
    /// When the session expires if no later call extends it.
    pub expires: Timestamp,
}

impl Rotation {
    /// Creates a rotation that leaves the expiry of the remember cookie as it is.
    pub const fn new(
        key: SessionKey,
        from_generation: u32,
        at: Timestamp,
        expires: Timestamp,
    ) -> Self {
        Self { key, from_generation, at, remember_expires: None, expires }
    }

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

/// The result of [`SessionStore::rotate`](crate::SessionStore::rotate). Both variants hold the
/// record as it is after the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rotated {
    /// This call began the next generation.
    Won(Arc<SessionRecord>),
    /// Nothing was changed: the record has another generation, for example because another call
    /// was faster, or the session has ended.
    Lost(Arc<SessionRecord>),
}

/// A note that a browser has received the cookies of a generation; see
/// [`SessionStore::mark_seen`](crate::SessionStore::mark_seen).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SeenMark {
    /// The key of the session.
    pub key: SessionKey,
    /// The generation of the cookies that the browser holds.
    pub generation: u32,
    /// When a request showed that the browser holds these cookies.
    pub at: Timestamp,
}

impl SeenMark {
    /// Creates a mark.
    pub const fn new(key: SessionKey, generation: u32, at: Timestamp) -> Self {
        Self { key, generation, at }
    }

    /// Returns the record with this mark, or `None` if the record has another generation, already
    /// has a mark, or has ended.
    pub fn apply_to(&self, record: &SessionRecord) -> Option<SessionRecord> {
        let is_applicable = record.generation == self.generation
            && record.ended.is_none()
            && record.seen_at.is_none();
        is_applicable.then(|| SessionRecord { seen_at: Some(self.at), ..record.clone() })
    }
}

/// Records that a session was used; see [`SessionStore::touch`](crate::SessionStore::touch).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Touch {
    /// The key of the session.
    pub key: SessionKey,
    /// When the session was used.
    pub at: Timestamp,
    /// The new expiry of the remember cookie; `None` leaves the stored expiry as it is.
    pub remember_expires: Option<Timestamp>,
    /// When the session expires if no later call extends it.
    pub expires: Timestamp,
}

impl Touch {
    /// Creates a touch that leaves the expiry of the remember cookie as it is.
    pub const fn new(key: SessionKey, at: Timestamp, expires: Timestamp) -> Self {
        Self { key, at, remember_expires: None, expires }
    }

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

/// When and why sessions end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct End {
    /// When the sessions end.
    pub at: Timestamp,
    /// Why the sessions end.
    pub reason: EndReason,
    /// Until when the records of the ended sessions are kept, so that late requests get the right
    /// response. This time becomes the `expires` of the records.
    pub keep_until: Timestamp,
}

impl End {
    /// Creates an end.
    pub const fn new(at: Timestamp, reason: EndReason, keep_until: Timestamp) -> Self {
        Self { at, reason, keep_until }
    }

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

/// Returns the period with the later of the stored expiry and `expires`, or `None` if there is no
/// period because the login is not remembered.
fn extended(period: Option<RememberPeriod>, expires: Option<Timestamp>) -> Option<RememberPeriod> {
    let RememberPeriod { expires: stored, seconds } = period?;
    Some(RememberPeriod { expires: expires.map_or(stored, |expires| stored.max(expires)), seconds })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::sample::{self, NOW};

    fn record() -> SessionRecord {
        SessionRecord {
            remember: Some(RememberPeriod::new(NOW.plus(500), 500)),
            ..sample::record()
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
