//! Entities of this store's own kinds: session records, and the data of all logins of a user.
//!
//! | kind | property | |
//! | --- | --- | --- |
//! | `KeepSession_User`, named by the session's key in hexadecimal | `sort_key` | its position among the user's open sessions, by epoch and time; indexed. Absent once the record itself has ended |
//! | | `epoch` | the user's epoch in which it was created |
//! | | `expire_at` | when it may be deleted: by `purge`, if it is indexed, or by the database's policy |
//! | | `user`, `acting_user` | the users. The second is absent unless another user acts as the first |
//! | | `remember_expires`, `remember_seconds` | absent if the login is not remembered |
//! | | `details` | a text that only the layer reads |
//! | | `ended_at`, `end_reason`, `successor`, `notified` | how it ended. Absent as long as the record itself has not ended; `successor` also if it has none |
//! | | the others | the record, as in `SessionRecord`. `rotated_at` and `seen_at` are absent if they are `None` |
//! | `KeepLogins_User`, named by the user's id | `epoch`, `ended_at`, `end_reason`, `kept_until` | a number that rises each time all sessions are ended; when this last happened, why, and how long those sessions are kept. Absent before the first time |
//! | | `purge_at`, `sort_key_prefix` | when those sessions can be deleted (indexed), and what their sort keys begin with. Absent once none of them is left |
//! | | `to_notify` | the keys of sessions that ended because of a replay of which the user has not been notified yet |
//! | | `expire_at` | when it may be deleted; never, once all sessions were ended |

use gcloud_sdk::google::datastore::v1::Entity;
use gcloud_sdk::google::datastore::v1::value::ValueType;
use tower_keep_core::{
    CLOCK_SKEW, End, EndReason, Ended, Epoch, RememberPeriod, SessionDetails, SessionKey,
    SessionRecord, Timestamp, UserId,
};

use crate::error::Error;
use crate::keys::{EntityKeys, session_key};
use crate::properties::{
    PropertyReader, PropertyWriter, as_bytes, as_epoch, as_flag, as_key, as_keys, as_number,
    as_text, as_time, epoch, key, number, text, time, unreadable,
};

pub(crate) const SORT_KEY: &str = "sort_key";
pub(crate) const EXPIRE_AT: &str = "expire_at";
pub(crate) const PURGE_AT: &str = "purge_at";
const SORT_KEY_PREFIX: &str = "sort_key_prefix";

/// The maximum number of replays that are noted for notifying a user.
const MAX_TO_NOTIFY: usize = 1_000;

/// Whether `expire_at` is indexed, so that expired entities can be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expiry {
    Indexed,
    /// A policy of the database deletes what has expired.
    ByPolicy,
}

impl Expiry {
    /// Adds the property `expire_at` of an entity that expires then.
    fn add_expire_at(self, properties: &mut PropertyWriter, expires: Timestamp) {
        let at = time(deletable_at(expires));
        match self {
            Self::Indexed => properties.add_indexed(EXPIRE_AT, at),
            Self::ByPolicy => properties.add(EXPIRE_AT, at),
        }
    }
}

/// A record as it is now, and the epoch in which it was created.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stored {
    pub(crate) record: SessionRecord,
    pub(crate) created_in: u64,
}

impl Stored {
    /// Returns the changed record, created in the same epoch.
    pub(crate) fn with_record(&self, record: SessionRecord) -> Self {
        Self { record, created_in: self.created_in }
    }

    /// Checks whether it has ended only by its user's epoch.
    pub(crate) fn is_past(&self, epoch: &Epoch) -> bool {
        epoch.is_past(self.created_in) && self.record.ended.is_none()
    }

    /// Returns the record as it is now, given its user's epoch.
    pub(crate) fn apply_epoch(self, epoch: &Epoch) -> Self {
        let Self { record, created_in } = self;
        Self { record: epoch.apply_to(record, created_in), created_in }
    }
}

impl AsRef<SessionRecord> for Stored {
    fn as_ref(&self) -> &SessionRecord {
        &self.record
    }
}

/// Returns when an entity may be deleted that expires at `expires`.
pub(crate) fn deletable_at(expires: Timestamp) -> Timestamp {
    expires.plus(CLOCK_SKEW)
}

/// Returns the entity of a record.
pub(crate) fn write(keys: &EntityKeys, expiry: Expiry, stored: &Stored) -> Entity {
    let Stored { record, created_in } = stored;
    let mut properties = PropertyWriter::default();
    if record.ended.is_none() {
        let sort_key = keys.sort_key(&record.user, *created_in, record.created);
        properties.add_indexed(SORT_KEY, text(&sort_key));
    }
    properties.add("epoch", epoch(*created_in));
    expiry.add_expire_at(&mut properties, record.expires);
    properties.add("user", text(record.user.as_str()));
    let acting_user = record.acting_user.as_ref().map(|user| text(user.as_str()));
    properties.add_optional("acting_user", acting_user);
    properties.add("generation", number(record.generation));
    properties.add_optional("rotated_at", record.rotated_at.map(time));
    properties.add_optional("seen_at", record.seen_at.map(time));
    properties.add("salt", ValueType::BlobValue(record.salt.to_vec()));
    properties.add("created", time(record.created));
    properties.add("session_started", time(record.session_started));
    properties.add("last_seen", time(record.last_seen));
    if let Some(remember) = record.remember {
        properties.add("remember_expires", time(remember.expires));
        properties.add("remember_seconds", number(remember.seconds));
    }
    properties.add("expires", time(record.expires));
    properties.add("details", text(record.details.as_str()));
    if let Some(ended) = &record.ended {
        properties.add("ended_at", time(ended.at));
        properties.add("end_reason", text(ended.reason.as_str()));
        properties.add_optional("successor", ended.successor.as_ref().map(key));
        properties.add("notified", ValueType::BooleanValue(ended.notified));
    }
    properties.into_entity(keys.session(&record.key))
}

/// Reads the record of an entity, as it was written.
pub(crate) fn read(entity: Entity) -> Result<Stored, Error> {
    let key = entity.key.as_ref().and_then(session_key);
    let key = key.ok_or_else(|| Error::corrupt("a session's key is not one of this store's"))?;
    let mut properties = PropertyReader(entity.properties);
    let user = properties.required("user", as_text)?.into();
    let salt = properties.required("salt", as_bytes)?;
    let created = properties.required("created", as_time)?;
    let expires = properties.required("expires", as_time)?;
    let mut record = SessionRecord::new(key, user, salt, created, expires);
    record.acting_user = properties.optional("acting_user", as_text)?.map(UserId::from);
    record.generation = properties.required("generation", as_number)?;
    record.rotated_at = properties.optional("rotated_at", as_time)?;
    record.seen_at = properties.optional("seen_at", as_time)?;
    record.session_started = properties.required("session_started", as_time)?;
    record.last_seen = properties.required("last_seen", as_time)?;
    record.remember = read_remember(&mut properties)?;
    record.details = SessionDetails::new(properties.required("details", as_text)?);
    record.ended = read_ended(&mut properties)?;
    Ok(Stored { record, created_in: properties.required("epoch", as_epoch)? })
}

/// Reads two properties of which both are present or neither is.
fn read_remember(properties: &mut PropertyReader) -> Result<Option<RememberPeriod>, Error> {
    let expires = properties.optional("remember_expires", as_time)?;
    let seconds = properties.optional("remember_seconds", as_number)?;
    match (expires, seconds) {
        (None, None) => Ok(None),
        (Some(expires), Some(seconds)) => Ok(Some(RememberPeriod::new(expires, seconds))),
        (None, Some(_)) => Err(unreadable("remember_expires")),
        (Some(_), None) => Err(unreadable("remember_seconds")),
    }
}

fn read_ended(properties: &mut PropertyReader) -> Result<Option<Ended>, Error> {
    let Some(at) = properties.optional("ended_at", as_time)? else { return Ok(None) };
    let mut ended = Ended::new(at, properties.required("end_reason", as_reason)?);
    ended.successor = properties.optional("successor", as_key)?;
    ended.notified = properties.required("notified", as_flag)?;
    Ok(Some(ended))
}

fn as_reason(value: ValueType) -> Option<EndReason> {
    as_text(value)?.parse().ok()
}

/// The data of all logins of a user. Each call that begins a session, or ends all of them, writes
/// it, so that of two concurrent calls one sees the other.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Logins {
    pub(crate) epoch: Epoch,
    /// Whether sessions of earlier epochs may still be stored.
    pub(crate) has_earlier_sessions: bool,
    pub(crate) to_notify: Vec<SessionKey>,
    /// Until when there may be a session, or a replay to notify the user of.
    pub(crate) expires: Timestamp,
}

impl Default for Logins {
    fn default() -> Self {
        Self {
            epoch: Epoch::default(),
            has_earlier_sessions: false,
            to_notify: Vec::new(),
            expires: Timestamp::from_secs(0),
        }
    }
}

impl Logins {
    pub(crate) fn write(&self, keys: &EntityKeys, expiry: Expiry, user: &UserId) -> Entity {
        let mut properties = PropertyWriter::default();
        properties.add_array("to_notify", self.to_notify.iter().map(key));
        expiry.add_expire_at(&mut properties, self.expires);
        if let Some(end) = self.epoch.end {
            properties.add("epoch", epoch(self.epoch.number));
            properties.add("ended_at", time(end.at));
            properties.add("end_reason", text(end.reason.as_str()));
            properties.add("kept_until", time(end.keep_until));
            if self.has_earlier_sessions {
                properties.add_indexed(PURGE_AT, time(end.keep_until));
                properties.add(SORT_KEY_PREFIX, text(&keys.sort_key_prefix(user)));
            }
        }
        properties.into_entity(keys.logins(user))
    }

    /// Ends all sessions of this epoch and of earlier ones.
    pub(crate) fn raise_epoch(&mut self, end: &End) {
        self.epoch = self.epoch.raised(end);
        self.has_earlier_sessions = true;
        // If this were deleted before one of those sessions, that session would be live again.
        self.expires = Timestamp::MAX;
    }

    /// Notes that the user has to be notified of these sessions.
    pub(crate) fn add_to_notify(&mut self, keys: impl IntoIterator<Item = SessionKey>) {
        self.to_notify.extend(keys);
        self.to_notify.truncate(MAX_TO_NOTIFY);
    }

    pub(crate) fn read(entity: Option<Entity>) -> Result<Self, Error> {
        let Some(entity) = entity else { return Ok(Self::default()) };
        let mut properties = PropertyReader(entity.properties);
        let to_notify = properties.required("to_notify", as_keys)?;
        // `Timestamp::MAX` stays the same when something is added to it.
        let expires = match properties.required(EXPIRE_AT, as_time)? {
            Timestamp::MAX => Timestamp::MAX,
            at => at.minus(CLOCK_SKEW),
        };
        let has_earlier_sessions = properties.optional(PURGE_AT, as_time)?.is_some();
        let epoch = match properties.optional("epoch", as_epoch)? {
            None => Epoch::default(),
            Some(number) => {
                let at = properties.required("ended_at", as_time)?;
                let reason = properties.required("end_reason", as_reason)?;
                let keep_until = properties.required("kept_until", as_time)?;
                Epoch::new(number, Some(End::new(at, reason, keep_until)))
            }
        };
        Ok(Self { epoch, has_earlier_sessions, to_notify, expires })
    }
}

/// Returns what the sort keys of the sessions to purge begin with.
pub(crate) fn sort_key_prefix(logins: &Entity) -> Option<String> {
    as_text(logins.properties.get(SORT_KEY_PREFIX)?.value_type.clone()?)
}

/// Notes that no sessions of earlier epochs are stored any more.
pub(crate) fn mark_purged(logins: &mut Entity) {
    for name in [PURGE_AT, SORT_KEY_PREFIX] {
        logins.properties.remove(name);
    }
}

/// Returns when an entity of either kind may be deleted.
pub(crate) fn expire_at(entity: &Entity) -> Option<Timestamp> {
    as_time(entity.properties.get(EXPIRE_AT)?.value_type.clone()?)
}

#[cfg(test)]
mod tests {
    use gcloud_sdk::google::datastore::v1::{PartitionId, Value};
    use tower_keep_core::StoreErrorKind;

    use super::*;
    use crate::UserKeys;

    /// What a test sets in a record.
    type Change = fn(&mut SessionRecord);

    const AT: Timestamp = Timestamp::from_secs(1_800_000_000);

    /// The properties that a record always has, and that are read.
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

    /// What a record may have, and the properties that are absent without it.
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

    fn record(change: impl FnOnce(&mut SessionRecord)) -> SessionRecord {
        let (key, expires) = (SessionKey::new([7; 32]), Timestamp::MAX.minus(CLOCK_SKEW));
        let mut record = SessionRecord::new(key, "ada\0🦀".into(), [9; 16], AT, expires);
        record.generation = u32::MAX;
        record.session_started = AT.plus(1);
        record.last_seen = AT.plus(2);
        change(&mut record);
        record
    }

    fn full_record() -> SessionRecord {
        record(|record| OPTIONAL.iter().for_each(|(change, _)| change(record)))
    }

    fn entity(record: SessionRecord) -> Entity {
        write(&keys(), Expiry::Indexed, &Stored { record, created_in: 1_800_000_000 })
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let details = |text: String| record(|record| record.details = SessionDetails::new(text));
        let changed = OPTIONAL.map(|(change, _)| record(change));
        let others = [
            record(|_| ()),
            full_record(),
            details(r#"{"agent":"Test/1.0 \"🦀\" \\ '"}"#.to_owned()),
            details("é".repeat(SessionDetails::MAX_BYTES / 2)),
            details(String::new()),
        ];
        for record in changed.into_iter().chain(others) {
            let entity = entity(record.clone());
            assert_eq!(expire_at(&entity), Some(record.expires.plus(CLOCK_SKEW)));
            assert_eq!(read(entity).unwrap(), Stored { record, created_in: 1_800_000_000 });
        }
    }

    #[test]
    fn what_is_none_is_absent() {
        let names = |record| {
            let mut names: Vec<_> = entity(record).properties.into_keys().collect();
            names.retain(|name| ![SORT_KEY, EXPIRE_AT].contains(&name.as_str()));
            names.sort();
            names
        };
        assert_eq!(names(record(|_| ())), REQUIRED);
        for (change, present) in OPTIONAL {
            let mut expected = [&REQUIRED, present].concat();
            expected.sort();
            assert_eq!(names(record(change)), expected);
        }
    }

    #[test]
    fn no_property_is_indexed_but_those_that_queries_use() {
        for (expiry, record, expected) in [
            (Expiry::Indexed, record(|_| ()), &[EXPIRE_AT, SORT_KEY][..]),
            (Expiry::ByPolicy, record(|_| ()), &[SORT_KEY]),
            (Expiry::Indexed, full_record(), &[EXPIRE_AT]),
            (Expiry::ByPolicy, full_record(), &[]),
        ] {
            let entity = write(&keys(), expiry, &Stored { record, created_in: 0 });
            let indexed = entity.properties.iter().filter(|(_, value)| !value.exclude_from_indexes);
            let mut indexed: Vec<_> = indexed.map(|(name, _)| name.as_str()).collect();
            indexed.sort();
            assert_eq!(indexed, expected);
        }
    }

    #[test]
    fn what_cannot_be_read_names_its_property_and_quotes_nothing() {
        let assert_names = |bad: Entity, name: &str| {
            let error = read(bad).unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Corrupt);
            assert!(format!("{error:?}").contains(&format!("`{name}`")), "{error:?}");
        };
        let full = entity(full_record());
        for name in full.properties.keys().filter(|name| *name != EXPIRE_AT) {
            let mut bad = full.clone();
            let secret = Some(ValueType::EntityValue(Entity::default()));
            bad.properties.insert(name.clone(), Value { value_type: secret, ..Value::default() });
            assert_names(bad, name);
        }
        let only_together = ["remember_expires", "remember_seconds", "end_reason", "notified"];
        for name in REQUIRED.into_iter().chain(only_together) {
            let mut missing = full.clone();
            missing.properties.remove(name);
            assert_names(missing, name);
        }
        assert!(read(Entity { key: None, ..full }).is_err());
    }

    #[test]
    fn the_data_of_logins_is_read_as_it_was_written() {
        let logins = Logins {
            to_notify: vec![SessionKey::new([1; 32]), SessionKey::new([2; 32])],
            expires: AT,
            ..Logins::default()
        };
        let mut raised = logins.clone();
        raised.raise_epoch(&End::new(AT, EndReason::Revoked, AT.plus(60)));
        assert!(raised.has_earlier_sessions && raised.epoch.number >= AT.as_secs().into());
        for logins in [logins, raised, Logins::default()] {
            let mut entity = logins.write(&keys(), Expiry::Indexed, &"ada".into());
            assert_eq!(Logins::read(Some(entity.clone())).unwrap(), logins);
            assert_eq!(sort_key_prefix(&entity).is_some(), logins.has_earlier_sessions);
            mark_purged(&mut entity);
            let purged = Logins { has_earlier_sessions: false, ..logins };
            assert_eq!(entity, purged.write(&keys(), Expiry::Indexed, &"ada".into()));
        }
        assert_eq!(Logins::read(None).unwrap(), Logins::default());
    }
}
