//! A user's epoch: a number that is stored for each user. Raising it ends all of the user's
//! sessions with one write, because a record that was created in a lower epoch counts as ended.
//!
//! ```text
//! 3 1800000000 revoked 1800000060
//! ```
//!
//! The fields are the number, the time at which the last such write ended all sessions, the reason,
//! and the time until which these sessions are kept.
//!
//! When a new epoch begins, the sessions that it ends move to an index of their own
//! ([`UserKeyNames::ended_by_epoch`]). The new epoch is also added to the purge queue
//! ([`KeyNames::purge_queue`]), a sorted set for all users. [`purge`] takes the epochs from there,
//! and deletes the records in their indexes.
//!
//! [`KeyNames::purge_queue`]: crate::keys::KeyNames::purge_queue
//! [`purge`]: tower_keep_core::SessionStore::purge

use tower_keep_core::{End, Epoch, Timestamp};

use crate::error::Error;
use crate::keys::{UserKeyNames, encode_session_key};
use crate::life::Life;
use crate::script::Commit;
use crate::write_session::{StoredRecord, set_record};

/// A user's epoch, and the value that it was read from.
#[derive(Clone, Debug, Default)]
pub(crate) struct StoredEpoch {
    pub(crate) epoch: Epoch,
    value: Option<Vec<u8>>,
}

impl StoredEpoch {
    pub(crate) fn read(value: Option<Vec<u8>>) -> Result<Self, Error> {
        let Some(bytes) = &value else { return Ok(Self::default()) };
        let text = std::str::from_utf8(bytes).ok();
        let corrupt = || {
            Error::corrupt(
                "the key of a user's epoch, which ends in `:epoch`, holds a value that this store \
                 has not written: restore the key, or delete it together with the user's session \
                 records",
            )
        };
        let epoch = text.and_then(parse_epoch).ok_or_else(corrupt)?;
        Ok(Self { epoch, value })
    }

    /// Adds to a commit the condition that the epoch is unchanged.
    pub(crate) fn require_unchanged(&self, commit: &mut Commit, keys: &UserKeyNames) {
        match &self.value {
            Some(value) => commit.require_value(keys.epoch(), value.clone()),
            None => commit.require_absent(keys.epoch()),
        }
    }
}

fn write_epoch(number: u64, end: &End) -> Vec<u8> {
    let End { at, reason, keep_until, .. } = end;
    format!("{number} {} {reason} {}", at.as_secs(), keep_until.as_secs()).into_bytes()
}

fn parse_epoch(text: &str) -> Option<Epoch> {
    let mut fields = text.split(' ');
    let mut next = || fields.next();
    let number = next()?.parse().ok()?;
    let at = Timestamp::from_secs(next()?.parse().ok()?);
    let reason = next()?.parse().ok()?;
    let keep_until = Timestamp::from_secs(next()?.parse().ok()?);
    let end = Some(End::new(at, reason, keep_until));
    fields.next().is_none().then(|| Epoch::new(number, end))
}

/// Adds to a commit the steps that raise a user's epoch, which ends all sessions except those in
/// `stay`. Returns the new epoch's number.
pub(crate) fn raise_epoch<'a>(
    commit: &mut Commit,
    keys: &UserKeyNames,
    before: &StoredEpoch,
    end: &End,
    stay: impl Iterator<Item = &'a StoredRecord>,
) -> u64 {
    let next = before.epoch.raised(end);
    let (number, ended) = (next.number, keys.ended_by_epoch(next.number));
    commit.rename(keys.sessions_by_login_time(), ended.clone());
    commit.unlink(keys.sessions_by_expiry());
    commit.set(keys.epoch(), write_epoch(number, &next.end.unwrap_or(*end)), Life::AsBefore);
    commit.outlive(keys.epoch(), ended.clone());
    for stored in stay {
        set_record(commit, keys, Some(stored), &stored.record, number, end.at);
        commit.remove_member(ended.clone(), encode_session_key(&stored.record.key));
    }
    number
}

#[cfg(test)]
mod tests {
    use tower_keep_core::EndReason;

    use super::*;

    #[test]
    fn an_epoch_is_read_as_it_was_written_and_an_error_does_not_quote_it() {
        let end = End::new(Timestamp::from_secs(0), EndReason::Limit, Timestamp::MAX);
        let read = StoredEpoch::read(Some(write_epoch(7, &end))).unwrap();
        assert_eq!(read.epoch, Epoch::new(7, Some(end)));
        assert_eq!(StoredEpoch::read(None).unwrap().epoch, Epoch::default());
        for bad in [
            "",
            "7",
            "x 0 limit 1",
            "secret 0 limit 1",
            "7 0 Secret! 1",
            "7 0 limit",
            "7 0 limit 1 2",
        ] {
            let error = StoredEpoch::read(Some(bad.into())).unwrap_err();
            assert!(!format!("{error:?}").to_lowercase().contains("secret"), "{bad}");
        }
    }
}
