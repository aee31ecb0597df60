//! Ending all sessions of a user by one write.
//!
//! A store keeps a number for each user, the *epoch*, and with each record the epoch in which it was
//! created. Raising the user's number ends every record with a lower one, however many there are. So
//! the work does not grow with them, and all end at one moment. [`purge`](crate::SessionStore::purge)
//! removes them later, in batches.

use crate::{End, Ended, SessionRecord};

/// A user's epoch, and how the sessions of earlier epochs have ended.
///
/// For stores that read a record, decide in Rust, and write it back. One whose database does that
/// says the same in the database's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Epoch {
    /// Rises whenever all of the user's sessions are ended; 0 at first.
    pub number: u64,
    /// How those of earlier epochs have ended; `None` in the first.
    pub end: Option<End>,
}

impl Epoch {
    /// The next epoch, which ends all sessions of this one and of earlier ones.
    ///
    /// Sessions that ended together before, and were not purged yet, show the later end then. The number
    /// is at least the time in seconds. So should a store lose a user's epoch, the next one is still
    /// later than those in which records were created before.
    #[must_use]
    pub fn raised(&self, end: &End) -> Self {
        let earlier = self.end.map_or(end.keep_until, |end| end.keep_until);
        let end = End { keep_until: end.keep_until.max(earlier), ..*end };
        let number = self.number.saturating_add(1).max(end.at.as_secs().into());
        Self { number, end: Some(end) }
    }

    /// Whether a record that was created in the epoch `created_in` has ended with its epoch.
    pub fn is_past(&self, created_in: u64) -> bool {
        created_in < self.number
    }

    /// The record as it is now, if it was created in the epoch `created_in`.
    ///
    /// Of several ends the first counts: one that has ended by itself stays as it is.
    #[must_use]
    pub fn applied(&self, created_in: u64, record: SessionRecord) -> SessionRecord {
        match self.end {
            Some(End { at, reason, keep_until })
                if self.is_past(created_in) && record.ended.is_none() =>
            {
                let ended = Some(Ended { at, reason, successor: None, told: false });
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
        End { at: NOW.plus(after), reason: EndReason::Ended, keep_until: NOW.plus(keep) }
    }

    fn record() -> SessionRecord {
        SessionRecord {
            key: SessionKey::new([1; 32]),
            user: "7".into(),
            generation: 0,
            rotated_at: None,
            seen_at: None,
            salt: [0; 16],
            created: NOW,
            session_started: NOW,
            last_seen: NOW,
            remember_expires: None,
            remember_seconds: 0,
            expires: NOW.plus(600),
            address: None,
            user_agent: "".into(),
            method: "".into(),
            ended: None,
        }
    }

    #[test]
    fn raising_ends_what_came_before_and_nothing_after() {
        let first = Epoch::default();
        assert_eq!(first.applied(0, record()), record());
        let second = first.raised(&end(10, 20));
        let ended = second.applied(0, record());
        let expected =
            Ended { at: NOW.plus(10), reason: EndReason::Ended, successor: None, told: false };
        assert_eq!((ended.ended, ended.expires), (Some(expected), NOW.plus(20)));
        assert_eq!(second.applied(second.number, record()), record(), "created after it");
        let third = second.raised(&end(15, 18));
        assert_eq!(
            third.applied(1, record()).expires,
            NOW.plus(20),
            "kept as long as was promised"
        );
        let (old, new) = (second.number, third.number);
        assert_eq!((third.is_past(old), third.is_past(new)), (true, false));
        // Two in one second, and one after the earlier ones were lost.
        assert!(third.raised(&end(15, 18)).number > new);
        assert!(first.raised(&end(16, 20)).is_past(new));
    }

    #[test]
    fn a_record_that_has_ended_by_itself_stays_as_it_is() {
        let own = End { reason: EndReason::LoggedOut, ..end(5, 9) };
        let before = own.after(&record(), None).unwrap();
        assert_eq!(Epoch::default().raised(&end(10, 20)).applied(0, before.clone()), before);
    }
}
