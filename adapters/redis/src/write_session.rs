//! A session record as stored, and how a commit writes it.

use tower_keep_core::{Epoch, SessionKey, SessionRecord, Timestamp, UserId};

use crate::error::Error;
use crate::keys::{UserKeyNames, encode_session_key};
use crate::life::{Life, OWNER_MARGIN, life_millis};
use crate::record::{read_record, write_record};
use crate::script::Commit;

/// A stored record.
pub(crate) struct StoredRecord {
    /// The record. If it was created before the user's current epoch, it is shown as ended.
    pub(crate) record: SessionRecord,
    /// The value that the record was read from.
    pub(crate) value: Vec<u8>,
    /// The epoch in which the record was created.
    pub(crate) created_in: u64,
}

impl StoredRecord {
    pub(crate) fn read(
        key: SessionKey,
        user: &UserId,
        value: Vec<u8>,
        epoch: &Epoch,
    ) -> Result<Self, Error> {
        let (record, created_in) = read_record(key, user.clone(), &value)?;
        Ok(Self { record: epoch.apply_to(record, created_in), value, created_in })
    }
}

impl AsRef<SessionRecord> for StoredRecord {
    fn as_ref(&self) -> &SessionRecord {
        &self.record
    }
}

/// Adds the write of a record to a commit, and updates the user's indexes to match.
///
/// With `before`, the commit has the condition that the stored record is still `before`; otherwise
/// it has the condition that there is no such record. `created_in` is the epoch in which the record
/// is or was created.
pub(crate) fn set_record(
    commit: &mut Commit,
    keys: &UserKeyNames,
    before: Option<&StoredRecord>,
    record: &SessionRecord,
    created_in: u64,
    now: Timestamp,
) {
    let (name, member, millis) = (
        keys.session(&record.key),
        encode_session_key(&record.key),
        life_millis(record.expires, now),
    );
    match before {
        None => commit.require_absent(name.clone()),
        Some(before) => commit.require_value(name.clone(), before.value.clone()),
    }
    let before = before.map(|before| &before.record);
    let was_listed = before.is_some_and(|before| before.ended.is_none());
    let was_unnotified = before.is_some_and(SessionRecord::must_notify);
    let is_kept = millis > 0;
    let (expires, is_listed) = (record.expires.as_secs(), is_kept && record.ended.is_none());
    for (index, score, was_in, is_in) in [
        (keys.sessions_by_expiry(), expires, was_listed, is_listed),
        (keys.sessions_by_login_time(), record.created.as_secs(), was_listed, is_listed),
        (keys.unnotified_replays(), expires, was_unnotified, is_kept && record.must_notify()),
    ] {
        match (was_in, is_in) {
            (_, true) => commit.add_member(index, member.clone(), score, millis),
            (true, false) => commit.remove_member(index, member.clone()),
            (false, false) => {}
        }
    }
    if is_kept && created_in > 0 {
        // The epoch has to live longer than the record. If the epoch expired first, the user's next
        // epoch could be lower than the record's, and would not end the record.
        commit.extend_life(keys.epoch(), millis + OWNER_MARGIN);
    }
    if is_kept {
        let is_same_expiry = before.is_some_and(|before| before.expires == record.expires);
        let life = if is_same_expiry { Life::AsBefore } else { Life::Millis(millis) };
        commit.set(name, write_record(record, created_in), life);
    } else {
        commit.delete(name);
    }
}
