//! Ending all sessions of a user with one write.
//!
//! A store keeps a number for each user, the *epoch*, and with each record the epoch in which it
//! was created. Raising the user's epoch ends every record of a lower epoch, however many there
//! are. So the work does not grow with the number of records, and all of them end at the same
//! moment. [`purge`](crate::SessionStore::purge) removes them later, in batches.

use crate::{End, Ended, SessionRecord};

/// A user's epoch, and how the sessions of earlier epochs ended.
///
/// This type is for stores that read a record, decide in Rust, and write it back. A store whose
/// database makes the decision expresses the same rules in the database's own language.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Epoch {
    /// Raised whenever all of the user's sessions are ended; 0 at first.
    pub number: u64,
    /// How the sessions of earlier epochs ended; `None` in the first epoch.
    pub end: Option<End>,
}

impl Epoch {
    /// Creates an epoch as it is stored. A user of whom nothing is stored has the
    /// [default](Self::default).
    pub const fn new(number: u64, end: Option<End>) -> Self {
        Self { number, end }
    }

    /// Returns the next epoch, which ends all sessions of this epoch and of earlier ones.
    ///
    /// Sessions that ended together before, and were not purged yet, show the later end from then
    /// on. The new number is at least the time in seconds. So if a store loses a user's epoch, the
    /// next one is still later than the epochs in which existing records were created.
    #[must_use]
    pub fn raised(&self, end: &End) -> Self {
        let earlier = self.end.map_or(end.keep_until, |end| end.keep_until);
        let end = End { keep_until: end.keep_until.max(earlier), ..*end };
        let number = self.number.saturating_add(1).max(end.at.as_secs().into());
        Self { number, end: Some(end) }
    }

    /// Checks whether a record that was created in the epoch `created_in` has ended with its epoch.
    pub fn is_past(&self, created_in: u64) -> bool {
        created_in < self.number
    }

    /// Returns the record as it is now, if it was created in the epoch `created_in`.
    ///
    /// If a session was ended several times, the first end counts: a record that was ended
    /// individually stays as it is.
    #[must_use]
    pub fn apply_to(&self, record: SessionRecord, created_in: u64) -> SessionRecord {
        match self.end {
            Some(End { at, reason, keep_until })
                if self.is_past(created_in) && record.ended.is_none() =>
            {
                let ended = Some(Ended::new(at, reason));
                SessionRecord { ended, expires: keep_until, ..record }
            }
            _ => record,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EndReason, SessionKey, Timestamp};

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    fn end(after: u32, keep: u32) -> End {
        End { at: NOW.plus(after), reason: EndReason::Revoked, keep_until: NOW.plus(keep) }
    }

    fn record() -> SessionRecord {
        let key = SessionKey::new([1; 32]);
        SessionRecord::new(key, "7".into(), [0; 16], NOW, NOW.plus(600))
    }

    #[test]
    fn raising_ends_what_came_before_and_nothing_after() {
        let first = Epoch::default();
        assert_eq!(first.apply_to(record(), 0), record());
        let second = first.raised(&end(10, 20));
        let ended = second.apply_to(record(), 0);
        let expected = Ended::new(NOW.plus(10), EndReason::Revoked);
        assert_eq!((ended.ended, ended.expires), (Some(expected), NOW.plus(20)));
        assert_eq!(second.apply_to(record(), second.number), record(), "created after it");
        let third = second.raised(&end(15, 18));
        assert_eq!(
            third.apply_to(record(), 1).expires,
            NOW.plus(20),
            "kept as long as was promised"
        );
        let (old, new) = (second.number, third.number);
        assert_eq!((third.is_past(old), third.is_past(new)), (true, false));
        // Two ends in the same second, and an end after the store lost the earlier epochs.
        assert!(third.raised(&end(15, 18)).number > new);
        assert!(first.raised(&end(16, 20)).is_past(new));
    }

    #[test]
    fn a_record_that_has_ended_by_itself_stays_as_it_is() {
        let own = End { reason: EndReason::LoggedOut, ..end(5, 9) };
        let before = own.apply_to(&record(), None).unwrap();
        assert_eq!(Epoch::default().raised(&end(10, 20)).apply_to(before.clone(), 0), before);
    }
}
