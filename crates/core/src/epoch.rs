//! Ending all sessions of a user with one write.
//!
//! A store keeps a number for each user, the *epoch*, and with each record the epoch in which it
//! was created. Raising the user's epoch ends every session whose record has a lower epoch. So the
//! work does not grow with the number of sessions, and all of them end at the same moment.
//! [`purge`](crate::SessionStore::purge) removes their records later, in batches.

use crate::changes::End;
use crate::session::{Ended, SessionRecord};

/// A user's epoch, and how the sessions of earlier epochs ended.
///
/// This type is for stores that read a record, decide in Rust, and write it back. A store whose
/// database makes the decision expresses the same rules in the database's own language. A store
/// that can change any number of records at once, such as a map behind a lock, needs no epochs: it
/// ends each record.
///
/// A store keeps the epoch in which each record was created, and applies the user's epoch to every
/// record that it reads:
///
/// ```
/// use tower_keep_core::{End, EndReason, Epoch, SessionRecord};
///
/// /// A stored record, and the number of the epoch in which it was created.
/// type Stored = (SessionRecord, u64);
///
/// fn load(epoch: &Epoch, (record, created_in): Stored) -> SessionRecord {
///     epoch.apply_to(record, created_in)
/// }
///
/// /// Ends all of a user's sessions except one, by two writes.
/// fn revoke_all(epoch: &mut Epoch, except: Option<&mut Stored>, end: &End) {
///     let earlier = std::mem::take(epoch);
///     *epoch = earlier.raised(end);
///     // The session stays, if it had not ended before.
///     if let Some((_, created_in)) = except.filter(|(_, number)| !earlier.is_past(*number)) {
///         *created_in = epoch.number;
///     }
/// }
/// # use tower_keep_core::{SessionKey, Timestamp};
/// # let (key, now) = (SessionKey::new([1; 32]), Timestamp::from_secs(1));
/// # let record = SessionRecord::new(key, "7".into(), [0; 16], now, now.plus(9));
/// # let (mut epoch, mut stays, ends) = (Epoch::default(), (record.clone(), 0), (record, 0));
/// # revoke_all(&mut epoch, Some(&mut stays), &End::new(now, EndReason::Revoked, now.plus(60)));
/// # assert!(load(&epoch, stays).is_live(now) && !load(&epoch, ends).is_live(now));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Epoch {
    /// Raised whenever all of the user's sessions are ended; 0 at first.
    pub number: u64,
    /// How the sessions of earlier epochs ended; `None` in the first epoch.
    pub end: Option<End>,
}

impl Epoch {
    /// Creates an epoch from the stored number and end. If no epoch is stored for a user, the
    /// user's epoch is the [default](Self::default).
    pub const fn new(number: u64, end: Option<End>) -> Self {
        Self { number, end }
    }

    /// Returns the next epoch, which ends all sessions of this epoch and of earlier ones.
    ///
    /// The new end replaces the end of this epoch. So a session that had ended with this epoch
    /// shows the new end from now on, if its record was not purged yet. The new number is at least
    /// the time of the new end in seconds. So even if a store has lost a user's epoch, the next
    /// epoch is later than the epochs in which existing records were created.
    #[must_use]
    pub fn raised(&self, end: &End) -> Self {
        let keep_earlier = self.end.map_or(end.keep_until, |earlier| earlier.keep_until);
        let end = End { keep_until: end.keep_until.max(keep_earlier), ..*end };
        let number = self.number.saturating_add(1).max(end.at.as_secs().into());
        Self { number, end: Some(end) }
    }

    /// Checks whether the epoch `created_in` is earlier than this one, so that the sessions whose
    /// records were created in it have ended.
    pub fn is_past(&self, created_in: u64) -> bool {
        created_in < self.number
    }

    /// Applies this epoch to a record that was created in the epoch `created_in`. If `created_in`
    /// is an earlier epoch, the returned record has ended. Otherwise the record is returned
    /// unchanged.
    ///
    /// A record that was ended individually keeps that end, and is returned unchanged.
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
    use crate::end_reason::EndReason;
    use crate::session::SessionKey;
    use crate::timestamp::Timestamp;

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    fn end(seconds: u32, keep: u32) -> End {
        End { at: NOW.plus(seconds), reason: EndReason::Revoked, keep_until: NOW.plus(keep) }
    }

    fn record() -> SessionRecord {
        let key = SessionKey::new([1; 32]);
        SessionRecord::new(key, "7".into(), [0; 16], NOW, NOW.plus(600))
    }

    #[test]
    fn raising_the_epoch_ends_earlier_sessions_and_no_later_ones() {
        let first = Epoch::default();
        assert_eq!(first.apply_to(record(), 0), record());
        let second = first.raised(&end(10, 20));
        let ended = second.apply_to(record(), 0);
        let expected = Ended::new(NOW.plus(10), EndReason::Revoked);
        assert_eq!((ended.ended, ended.expires), (Some(expected), NOW.plus(20)));
        assert_eq!(
            second.apply_to(record(), second.number),
            record(),
            "created in the second epoch"
        );
        let third = second.raised(&end(15, 18));
        assert_eq!(
            third.apply_to(record(), 1).expires,
            NOW.plus(20),
            "kept until the later `keep_until`"
        );
        let (old, new) = (second.number, third.number);
        assert_eq!((third.is_past(old), third.is_past(new)), (true, false));
        // All sessions are ended again in the same second.
        assert!(third.raised(&end(15, 18)).number > new);
        // All sessions are ended after the store has lost the user's epoch.
        assert!(first.raised(&end(16, 20)).is_past(new));
    }

    #[test]
    fn a_session_that_was_ended_individually_keeps_its_end() {
        let individual = End { reason: EndReason::LoggedOut, ..end(5, 9) };
        let before = individual.apply_to(&record(), None).unwrap();
        assert_eq!(Epoch::default().raised(&end(10, 20)).apply_to(before.clone(), 0), before);
    }
}
