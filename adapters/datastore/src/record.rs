//! The entities that hold sessions: one for each session record, and one for the login state of
//! each user.
//!
//! All sessions of a user end with one write, which raises the user's *epoch*, a number. A session
//! record holds the epoch in which it was created. The record has ended if its user's epoch is
//! higher, even though the record itself is not changed.
//!
//! The names of the kinds contain two settings: the prefix (`Keep`) and the kind of users (`User`).
//!
//! A session record is an entity of the kind `KeepSession_User`. The name in its key is the
//! session's key in hexadecimal:
//!
//! | property | content |
//! | --- | --- |
//! | `sort_key` | the user (hashed), the epoch and `created`, as one text; indexed. Absent if the record was ended individually |
//! | `epoch` | the user's epoch when the record was created |
//! | `deletable_at` | from this time on, `purge` or the database's policy may delete the entity: `expires` plus [`CLOCK_SKEW`]. Indexed only for `purge` |
//! | `user` | the user who logged in |
//! | `acting_user` | the user who acts as `user`. Absent if it is `user` |
//! | `remember_expires`, `remember_seconds` | absent if the login is not remembered |
//! | `details` | a text that only the layer reads |
//! | `ended_at`, `end_reason`, `notified` | when and why the record was ended individually, and whether the user was notified. Absent if it was not ended individually |
//! | `successor` | the key of the session that replaced this one. Absent if none did |
//! | all other properties | the fields of `SessionRecord` with the same names. `rotated_at` and `seen_at` are absent if they are `None` |
//!
//! A user's login state is an entity of the kind `KeepLogins_User`. The name in its key contains
//! the user's id:
//!
//! | property | content |
//! | --- | --- |
//! | `epoch` | the user's epoch. Absent in the first epoch |
//! | `ended_at`, `end_reason`, `kept_until` | when and why the sessions of earlier epochs ended, and until when they are kept. Absent in the first epoch |
//! | `purge_at` | from this time on, `purge` may delete the sessions of earlier epochs; indexed. Absent if no such sessions are stored |
//! | `sort_key_prefix` | the text that the sort keys of the user's sessions begin with. Absent if `purge_at` is |
//! | `to_notify` | the keys of sessions that ended because of a replay, and of which the user has not been notified |
//! | `deletable_at` | from this time on, the entity may be deleted. After the first epoch this is [`Timestamp::MAX`], which means never |

use gcloud_sdk::google::datastore::v1::Entity;
use gcloud_sdk::google::datastore::v1::value::ValueType;
use tower_keep_core::{
    CLOCK_SKEW, End, EndReason, Ended, Epoch, RememberPeriod, SessionDetails, SessionKey,
    SessionRecord, Timestamp, UserId,
};

use crate::error::Error;
use crate::keys::{EntityKeys, session_key_in};
use crate::properties::{
    PropertyReader, PropertyWriter, as_bytes, as_epoch, as_flag, as_session_key, as_session_keys,
    as_text, as_time, as_u32, epoch_value, number_value, session_key_value, text_value, time_value,
    unreadable,
};

pub(crate) const SORT_KEY: &str = "sort_key";
pub(crate) const DELETABLE_AT: &str = "deletable_at";
pub(crate) const PURGE_AT: &str = "purge_at";
const SORT_KEY_PREFIX: &str = "sort_key_prefix";

/// The maximum number of keys in `to_notify`. The user is not notified of further replays.
const MAX_TO_NOTIFY: usize = 1_000;

/// How expired entities are deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeleteExpired {
    /// `purge` finds them by their property `deletable_at`, which is indexed.
    ByPurge,
    /// A time-to-live policy of the database deletes them. `deletable_at` is not indexed.
    ByPolicy,
}

impl DeleteExpired {
    /// Adds the property `deletable_at` to an entity that expires at `expires`.
    pub(crate) fn add_deletable_at(self, properties: &mut PropertyWriter, expires: Timestamp) {
        let at = time_value(deletable_at(expires));
        match self {
            Self::ByPurge => properties.add_indexed(DELETABLE_AT, at),
            Self::ByPolicy => properties.add(DELETABLE_AT, at),
        }
    }
}

/// A session record, and the epoch of its user when it was created.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StoredRecord {
    pub(crate) record: SessionRecord,
    pub(crate) created_in: u64,
}

impl StoredRecord {
    /// Returns this record after a change. The epoch in which it was created stays the same.
    pub(crate) fn with_record(&self, record: SessionRecord) -> Self {
        Self { record, created_in: self.created_in }
    }

    /// Checks whether the record ended only because its user's epoch was raised. `epoch` is the
    /// user's present epoch.
    pub(crate) fn is_ended_by_epoch(&self, epoch: &Epoch) -> bool {
        epoch.is_past(self.created_in) && self.record.ended.is_none()
    }

    /// Returns the record as ended if it ended because its user's epoch was raised. Otherwise
    /// returns it unchanged. `epoch` is the user's present epoch.
    pub(crate) fn apply_epoch(self, epoch: &Epoch) -> Self {
        let Self { record, created_in } = self;
        Self { record: epoch.apply_to(record, created_in), created_in }
    }
}

impl AsRef<SessionRecord> for StoredRecord {
    fn as_ref(&self) -> &SessionRecord {
        &self.record
    }
}

/// Returns the time from which on an entity that expires at `expires` may be deleted.
pub(crate) fn deletable_at(expires: Timestamp) -> Timestamp {
    expires.plus(CLOCK_SKEW)
}

/// Returns the entity of a session record.
pub(crate) fn write(
    keys: &EntityKeys,
    delete_expired: DeleteExpired,
    stored: &StoredRecord,
) -> Entity {
    let StoredRecord { record, created_in } = stored;
    let mut properties = PropertyWriter::default();
    if record.ended.is_none() {
        let sort_key = keys.sort_key(&record.user, *created_in, record.created);
        properties.add_indexed(SORT_KEY, text_value(&sort_key));
    }
    properties.add("epoch", epoch_value(*created_in));
    delete_expired.add_deletable_at(&mut properties, record.expires);
    properties.add("user", text_value(record.user.as_str()));
    let acting_user = record.acting_user.as_ref().map(|user| text_value(user.as_str()));
    properties.add_optional("acting_user", acting_user);
    properties.add("generation", number_value(record.generation));
    properties.add_optional("rotated_at", record.rotated_at.map(time_value));
    properties.add_optional("seen_at", record.seen_at.map(time_value));
    properties.add("salt", ValueType::BlobValue(record.salt.to_vec()));
    properties.add("created", time_value(record.created));
    properties.add("session_started", time_value(record.session_started));
    properties.add("last_seen", time_value(record.last_seen));
    if let Some(remember) = record.remember {
        properties.add("remember_expires", time_value(remember.expires));
        properties.add("remember_seconds", number_value(remember.seconds));
    }
    properties.add("expires", time_value(record.expires));
    properties.add("details", text_value(record.details.as_str()));
    if let Some(ended) = &record.ended {
        properties.add("ended_at", time_value(ended.at));
        properties.add("end_reason", text_value(ended.reason.as_str()));
        properties.add_optional("successor", ended.successor.as_ref().map(session_key_value));
        properties.add("notified", ValueType::BooleanValue(ended.notified));
    }
    properties.into_entity(keys.session(&record.key))
}

/// Reads the session record of an entity. The user's epoch is not applied to the record.
pub(crate) fn read(entity: Entity) -> Result<StoredRecord, Error> {
    let key = entity.key.as_ref().and_then(session_key_in);
    let key = key.ok_or_else(|| {
        Error::corrupt("the name of a session's entity is not a session's key in hexadecimal")
    })?;
    let mut properties = PropertyReader(entity.properties);
    let user = properties.required("user", as_text)?.into();
    let salt = properties.required("salt", as_bytes)?;
    let created = properties.required("created", as_time)?;
    let expires = properties.required("expires", as_time)?;
    let mut record = SessionRecord::new(key, user, salt, created, expires);
    record.acting_user = properties.optional("acting_user", as_text)?.map(UserId::from);
    record.generation = properties.required("generation", as_u32)?;
    record.rotated_at = properties.optional("rotated_at", as_time)?;
    record.seen_at = properties.optional("seen_at", as_time)?;
    record.session_started = properties.required("session_started", as_time)?;
    record.last_seen = properties.required("last_seen", as_time)?;
    record.remember = read_remember(&mut properties)?;
    record.details = SessionDetails::new(properties.required("details", as_text)?);
    record.ended = read_ended(&mut properties)?;
    Ok(StoredRecord { record, created_in: properties.required("epoch", as_epoch)? })
}

/// Reads the two properties of the remember period. If only one of them is present, this is an
/// error.
fn read_remember(properties: &mut PropertyReader) -> Result<Option<RememberPeriod>, Error> {
    let expires = properties.optional("remember_expires", as_time)?;
    let seconds = properties.optional("remember_seconds", as_u32)?;
    match (expires, seconds) {
        (None, None) => Ok(None),
        (Some(expires), Some(seconds)) => Ok(Some(RememberPeriod::new(expires, seconds))),
        (None, Some(_)) => Err(unreadable("remember_expires")),
        (Some(_), None) => Err(unreadable("remember_seconds")),
    }
}

fn read_ended(properties: &mut PropertyReader) -> Result<Option<Ended>, Error> {
    let Some(at) = properties.optional("ended_at", as_time)? else { return Ok(None) };
    let mut ended = Ended::new(at, properties.required("end_reason", as_end_reason)?);
    ended.successor = properties.optional("successor", as_session_key)?;
    ended.notified = properties.required("notified", as_flag)?;
    Ok(Some(ended))
}

fn as_end_reason(value: ValueType) -> Option<EndReason> {
    as_text(value)?.parse().ok()
}

/// The state that all logins of one user share: the epoch, and the replays of which the user has to
/// be notified.
///
/// Each call that creates a session of the user, or ends all of them, writes this entity. So two
/// such calls conflict, and the later one sees what the earlier one wrote.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LoginState {
    pub(crate) epoch: Epoch,
    /// Whether sessions of earlier epochs may still be stored.
    pub(crate) has_earlier_sessions: bool,
    /// The sessions that ended because of a replay, and of which the user has not been notified.
    pub(crate) to_notify: Vec<SessionKey>,
    /// When this entity expires. No session of the user that is unused since its login expires
    /// later, and no session in `to_notify` is kept longer. [`Timestamp::MAX`] means never.
    pub(crate) expires: Timestamp,
}

impl Default for LoginState {
    fn default() -> Self {
        Self {
            epoch: Epoch::default(),
            has_earlier_sessions: false,
            to_notify: Vec::new(),
            expires: Timestamp::from_secs(0),
        }
    }
}

impl LoginState {
    pub(crate) fn write(
        &self,
        keys: &EntityKeys,
        delete_expired: DeleteExpired,
        user: &UserId,
    ) -> Entity {
        let mut properties = PropertyWriter::default();
        properties.add_array("to_notify", self.to_notify.iter().map(session_key_value));
        delete_expired.add_deletable_at(&mut properties, self.expires);
        if let Some(end) = self.epoch.end {
            properties.add("epoch", epoch_value(self.epoch.number));
            properties.add("ended_at", time_value(end.at));
            properties.add("end_reason", text_value(end.reason.as_str()));
            properties.add("kept_until", time_value(end.keep_until));
            if self.has_earlier_sessions {
                properties.add_indexed(PURGE_AT, time_value(end.keep_until));
                properties.add(SORT_KEY_PREFIX, text_value(&keys.sort_key_prefix(user)));
            }
        }
        properties.into_entity(keys.login_state(user))
    }

    /// Begins the next epoch, which ends all sessions of this epoch and of earlier ones.
    pub(crate) fn raise_epoch(&mut self, end: &End) {
        self.epoch = self.epoch.raised(end);
        self.has_earlier_sessions = true;
        // If this entity were deleted before one of the ended sessions, that session would be live
        // again.
        self.expires = Timestamp::MAX;
    }

    /// Adds sessions that ended because of a replay, so that the user is notified of them.
    pub(crate) fn add_to_notify(&mut self, keys: impl IntoIterator<Item = SessionKey>) {
        self.to_notify.extend(keys);
        self.to_notify.truncate(MAX_TO_NOTIFY);
    }

    /// Reads a user's login state. Without an entity it is the default: the first epoch.
    pub(crate) fn read(entity: Option<Entity>) -> Result<Self, Error> {
        let Some(entity) = entity else { return Ok(Self::default()) };
        let mut properties = PropertyReader(entity.properties);
        let to_notify = properties.required("to_notify", as_session_keys)?;
        // `plus` saturates, so an entity that never expires was written with `Timestamp::MAX`.
        let expires = match properties.required(DELETABLE_AT, as_time)? {
            Timestamp::MAX => Timestamp::MAX,
            at => at.minus(CLOCK_SKEW),
        };
        let has_earlier_sessions = properties.optional(PURGE_AT, as_time)?.is_some();
        let epoch = match properties.optional("epoch", as_epoch)? {
            None => Epoch::default(),
            Some(number) => {
                let at = properties.required("ended_at", as_time)?;
                let reason = properties.required("end_reason", as_end_reason)?;
                let keep_until = properties.required("kept_until", as_time)?;
                Epoch::new(number, Some(End::new(at, reason, keep_until)))
            }
        };
        Ok(Self { epoch, has_earlier_sessions, to_notify, expires })
    }
}

/// Returns the text that the sort keys of a user's sessions begin with, or `None` if no sessions of
/// earlier epochs are stored.
pub(crate) fn read_sort_key_prefix(login_state: &Entity) -> Option<String> {
    as_text(login_state.properties.get(SORT_KEY_PREFIX)?.value_type.clone()?)
}

/// Records in a user's login state that no sessions of earlier epochs are stored.
pub(crate) fn mark_purged(login_state: &mut Entity) {
    for name in [PURGE_AT, SORT_KEY_PREFIX] {
        login_state.properties.remove(name);
    }
}

/// Returns the time from which on an entity that expires may be deleted.
pub(crate) fn read_deletable_at(entity: &Entity) -> Option<Timestamp> {
    as_time(entity.properties.get(DELETABLE_AT)?.value_type.clone()?)
}

#[cfg(test)]
mod tests {
    use gcloud_sdk::google::datastore::v1::{PartitionId, Value};
    use tower_keep_core::StoreErrorKind;

    use super::*;
    use crate::keys::UserKeys;

    /// Sets fields of a record.
    type Change = fn(&mut SessionRecord);

    const AT: Timestamp = Timestamp::from_secs(1_800_000_000);

    /// The properties that every record has, except the two that only queries use.
    const REQUIRED: [&str; 9] = [
        "created",
        "details",
        "epoch",
        "expires",
        "generation",
        "last_seen",
        "salt",
        "session_started",
        "user",
    ];

    /// Each change sets optional fields of a record. It stands with the properties that are absent
    /// without the change.
    const OPTIONAL: [(Change, &[&str]); 6] = [
        (|record| record.acting_user = Some("admin\0🦀".into()), &["acting_user"]),
        (|record| record.rotated_at = Some(AT), &["rotated_at"]),
        (|record| record.seen_at = Some(Timestamp::from_secs(0)), &["seen_at"]),
        (
            |record| record.remember = Some(RememberPeriod::new(Timestamp::from_secs(0), 0)),
            &["remember_expires", "remember_seconds"],
        ),
        (
            |record| record.ended = Some(Ended::new(AT, EndReason::Replay)),
            &["ended_at", "end_reason", "notified"],
        ),
        (
            |record| {
                let mut ended = Ended::new(Timestamp::from_secs(0), EndReason::Replaced);
                ended.successor = Some(SessionKey::new([1; 32]));
                ended.notified = true;
                record.ended = Some(ended);
            },
            &["ended_at", "end_reason", "notified", "successor"],
        ),
    ];

    fn keys() -> EntityKeys {
        EntityKeys {
            partition: PartitionId::default(),
            ancestors: Vec::new(),
            user_kind: "user".to_owned(),
            user_keys: UserKeys::default(),
            prefix: "Keep".to_owned(),
        }
    }

    fn record_with(change: impl FnOnce(&mut SessionRecord)) -> SessionRecord {
        let (key, expires) = (SessionKey::new([7; 32]), Timestamp::MAX.minus(CLOCK_SKEW));
        let mut record = SessionRecord::new(key, "ada\0🦀".into(), [9; 16], AT, expires);
        record.generation = u32::MAX;
        record.session_started = AT.plus(1);
        record.last_seen = AT.plus(2);
        change(&mut record);
        record
    }

    fn record_with_all_fields() -> SessionRecord {
        record_with(|record| OPTIONAL.iter().for_each(|(change, _)| change(record)))
    }

    fn entity_of(record: SessionRecord) -> Entity {
        write(&keys(), DeleteExpired::ByPurge, &StoredRecord { record, created_in: 1_800_000_000 })
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let with_details =
            |text: String| record_with(|record| record.details = SessionDetails::new(text));
        let with_one_change = OPTIONAL.map(|(change, _)| record_with(change));
        let others = [
            record_with(|_| ()),
            record_with_all_fields(),
            with_details(r#"{"agent":"Test/1.0 \"🦀\" \\ '"}"#.to_owned()),
            with_details("é".repeat(SessionDetails::MAX_BYTES / 2)),
            with_details(String::new()),
        ];
        for record in with_one_change.into_iter().chain(others) {
            let entity = entity_of(record.clone());
            assert_eq!(read_deletable_at(&entity), Some(record.expires.plus(CLOCK_SKEW)));
            assert_eq!(read(entity).unwrap(), StoredRecord { record, created_in: 1_800_000_000 });
        }
    }

    #[test]
    fn fields_that_are_none_have_no_property() {
        let names = |record| {
            let mut names: Vec<_> = entity_of(record).properties.into_keys().collect();
            names.retain(|name| ![SORT_KEY, DELETABLE_AT].contains(&name.as_str()));
            names.sort();
            names
        };
        assert_eq!(names(record_with(|_| ())), REQUIRED);
        for (change, present) in OPTIONAL {
            let mut expected = [&REQUIRED, present].concat();
            expected.sort();
            assert_eq!(names(record_with(change)), expected);
        }
    }

    #[test]
    fn only_the_properties_that_queries_use_are_indexed() {
        for (delete_expired, record, expected) in [
            (DeleteExpired::ByPurge, record_with(|_| ()), &[DELETABLE_AT, SORT_KEY][..]),
            (DeleteExpired::ByPolicy, record_with(|_| ()), &[SORT_KEY]),
            (DeleteExpired::ByPurge, record_with_all_fields(), &[DELETABLE_AT]),
            (DeleteExpired::ByPolicy, record_with_all_fields(), &[]),
        ] {
            let entity = write(&keys(), delete_expired, &StoredRecord { record, created_in: 0 });
            let indexed = entity.properties.iter().filter(|(_, value)| !value.exclude_from_indexes);
            let mut indexed: Vec<_> = indexed.map(|(name, _)| name.as_str()).collect();
            indexed.sort();
            assert_eq!(indexed, expected);
        }
    }

    #[test]
    fn the_error_for_an_unreadable_record_names_the_property_and_quotes_no_value() {
        let assert_names = |bad: Entity, name: &str| {
            let error = read(bad).unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Corrupt);
            assert!(format!("{error:?}").contains(&format!("`{name}`")), "{error:?}");
        };
        let complete = entity_of(record_with_all_fields());
        for name in complete.properties.keys().filter(|name| *name != DELETABLE_AT) {
            let mut bad = complete.clone();
            let secret = Some(ValueType::EntityValue(Entity::default()));
            bad.properties.insert(name.clone(), Value { value_type: secret, ..Value::default() });
            assert_names(bad, name);
        }
        let required_here = ["remember_expires", "remember_seconds", "end_reason", "notified"];
        for name in REQUIRED.into_iter().chain(required_here) {
            let mut missing = complete.clone();
            missing.properties.remove(name);
            assert_names(missing, name);
        }
        assert!(read(Entity { key: None, ..complete }).is_err());
    }

    #[test]
    fn a_login_state_is_read_as_it_was_written() {
        let state = LoginState {
            to_notify: vec![SessionKey::new([1; 32]), SessionKey::new([2; 32])],
            expires: AT,
            ..LoginState::default()
        };
        let mut raised = state.clone();
        raised.raise_epoch(&End::new(AT, EndReason::Revoked, AT.plus(60)));
        assert!(raised.has_earlier_sessions && raised.epoch.number >= AT.as_secs().into());
        for state in [state, raised, LoginState::default()] {
            let mut entity = state.write(&keys(), DeleteExpired::ByPurge, &"ada".into());
            assert_eq!(LoginState::read(Some(entity.clone())).unwrap(), state);
            assert_eq!(read_sort_key_prefix(&entity).is_some(), state.has_earlier_sessions);
            mark_purged(&mut entity);
            let purged = LoginState { has_earlier_sessions: false, ..state };
            assert_eq!(entity, purged.write(&keys(), DeleteExpired::ByPurge, &"ada".into()));
        }
        assert_eq!(LoginState::read(None).unwrap(), LoginState::default());
    }
}
