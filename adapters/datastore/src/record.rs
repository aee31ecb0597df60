//! Entities of this store's own kinds: session records, and the data of all logins of a user.
//!
//! | kind | property | |
//! | --- | --- | --- |
//! | `KeepSession_User`, named by the session's key in hexadecimal | `place` | its place among the user's open sessions, by epoch and time, as long as the record itself has not ended; indexed |
//! | | `epoch` | the user's epoch in which it was created |
//! | | `expire_at` | when it may be deleted: by `purge`, if it is indexed, or by the database's policy |
//! | | the others | the record, as in `SessionRecord` |
//! | `KeepLogins_User`, named by the user's id | `epoch`, `ended_at`, `end_reason`, `kept_until` | a number that rises each time all sessions are ended; when this last happened, why, and how long those sessions are kept. Missing before the first time |
//! | | `untidy`, `places` | when those sessions can be deleted (indexed), and what their places begin with. Missing once none of them is left |
//! | | `to_notify` | the keys of sessions that ended because of a replay of which the user has not been notified yet |
//! | | `expire_at` | when it may be deleted; never, once all sessions were ended |

use std::collections::HashMap;

use gcloud_sdk::google::datastore::v1::value::ValueType;
use gcloud_sdk::google::datastore::v1::{ArrayValue, Entity, Value};
use gcloud_sdk::prost_types;
use tower_keep_core::{
    CLOCK_SKEW, End, Ended, Epoch, SessionKey, SessionRecord, Timestamp, UserId,
};

use crate::error::Error;
use crate::keys::{EntityKeys, session_key};

pub(crate) const USER: &str = "user";
pub(crate) const PLACE: &str = "place";
pub(crate) const UNTIDY: &str = "untidy";
const PLACES: &str = "places";
pub(crate) const EXPIRE_AT: &str = "expire_at";

/// The most replays that are noted for notifying a user.
const MOST_TO_NOTIFY: usize = 1_000;

/// Whether `expire_at` is indexed, so that expired entities can be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expiry {
    Indexed,
    /// A policy of the database deletes what has expired.
    ByPolicy,
}

/// A record as it is now, and the epoch in which it was created.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stored {
    pub(crate) record: SessionRecord,
    pub(crate) created_in: u64,
}

impl Stored {
    /// Returns a copy with another record.
    pub(crate) fn with(&self, record: SessionRecord) -> Self {
        Self { record, created_in: self.created_in }
    }

    /// Checks whether it has ended only by its user's epoch.
    pub(crate) fn is_past(&self, epoch: &Epoch) -> bool {
        epoch.is_past(self.created_in) && self.record.ended.is_none()
    }

    /// Returns the record as it is now, given its user's epoch.
    pub(crate) fn applied(self, epoch: &Epoch) -> Self {
        let Self { record, created_in } = self;
        Self { record: epoch.applied(created_in, record), created_in }
    }
}

impl AsRef<SessionRecord> for Stored {
    fn as_ref(&self) -> &SessionRecord {
        &self.record
    }
}

/// Returns the `expire_at` of an entity that is valid until then.
pub(crate) fn gone_at(expires: Timestamp) -> ValueType {
    time(expires.plus(CLOCK_SKEW))
}

/// Returns the entity of a record.
pub(crate) fn write(keys: &EntityKeys, expiry: Expiry, stored: &Stored) -> Entity {
    let Stored { record, created_in } = stored;
    let mut properties = HashMap::with_capacity(20);
    let mut put = |name: &str, value: ValueType, is_indexed: bool| {
        let exclude_from_indexes = !is_indexed;
        let value = Value { exclude_from_indexes, value_type: Some(value), ..Value::default() };
        properties.insert(name.to_owned(), value);
    };
    let (text, integer) = (ValueType::StringValue, ValueType::IntegerValue);
    put(USER, text(record.user.as_str().to_owned()), false);
    if record.ended.is_none() {
        put(PLACE, text(keys.place(&record.user, *created_in, record.created)), true);
    }
    put("epoch", integer(i64::try_from(*created_in).unwrap_or(i64::MAX)), false);
    put(EXPIRE_AT, gone_at(record.expires), expiry == Expiry::Indexed);
    put("generation", integer(record.generation.into()), false);
    put("salt", ValueType::BlobValue(record.salt.to_vec()), false);
    put("created", time(record.created), false);
    put("session_started", time(record.session_started), false);
    put("last_seen", time(record.last_seen), false);
    put("remember_seconds", integer(record.remember_seconds.into()), false);
    put("expires", time(record.expires), false);
    put("user_agent", text(record.user_agent.to_string()), false);
    put("method", text(record.method.to_string()), false);
    for (name, at) in [
        ("rotated_at", record.rotated_at),
        ("seen_at", record.seen_at),
        ("remember_expires", record.remember_expires),
    ] {
        if let Some(at) = at {
            put(name, time(at), false);
        }
    }
    if let Some(address) = record.address {
        put("address", text(address.to_string()), false);
    }
    if let Some(Ended { at, reason, successor, notified }) = &record.ended {
        put("ended_at", time(*at), false);
        put("end_reason", text(reason.as_str().to_owned()), false);
        put("notified", ValueType::BooleanValue(*notified), false);
        if let Some(successor) = successor {
            put("successor", blob(successor), false);
        }
    }
    Entity { key: Some(keys.session(&record.key)), properties }
}

/// Reads the record of an entity, as it was written.
pub(crate) fn read(entity: Entity) -> Result<Stored, Error> {
    let key = entity.key.as_ref().and_then(session_key);
    let key = key.ok_or_else(|| Error::corrupt("a session's key is not one of this store's"))?;
    let mut fields = Fields(entity.properties);
    let ended = match fields.optional("ended_at", as_time)? {
        Some(at) => Some(Ended {
            at,
            reason: fields.required("end_reason", |value| as_text(value)?.parse().ok())?,
            successor: fields.optional("successor", as_key)?,
            notified: fields.required("notified", as_flag)?,
        }),
        None => None,
    };
    let created_in = fields.required("epoch", as_epoch)?;
    let record = SessionRecord {
        key,
        user: fields.required(USER, as_text)?.into(),
        generation: fields.required("generation", as_number)?,
        rotated_at: fields.optional("rotated_at", as_time)?,
        seen_at: fields.optional("seen_at", as_time)?,
        salt: fields.required("salt", as_bytes)?,
        created: fields.required("created", as_time)?,
        session_started: fields.required("session_started", as_time)?,
        last_seen: fields.required("last_seen", as_time)?,
        remember_expires: fields.optional("remember_expires", as_time)?,
        remember_seconds: fields.required("remember_seconds", as_number)?,
        expires: fields.required("expires", as_time)?,
        address: fields.optional("address", |value| as_text(value)?.parse().ok())?,
        user_agent: fields.required("user_agent", as_text)?.into(),
        method: fields.required("method", as_text)?.into(),
        ended,
    };
    Ok(Stored { record, created_in })
}

/// The data of all logins of a user. Each call that begins a session, or ends all of them, writes
/// it, so that of two concurrent calls one sees the other.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Logins {
    pub(crate) epoch: Epoch,
    /// Whether sessions of earlier epochs may still be there.
    pub(crate) is_untidy: bool,
    pub(crate) to_notify: Vec<SessionKey>,
    /// Until when there may be a session, or a replay to notify the user of.
    pub(crate) expires: Timestamp,
}

impl Default for Logins {
    fn default() -> Self {
        let (epoch, to_notify) = (Epoch::default(), Vec::new());
        Self { epoch, is_untidy: false, to_notify, expires: Timestamp::from_secs(0) }
    }
}

impl Logins {
    pub(crate) fn write(&self, keys: &EntityKeys, expiry: Expiry, user: &UserId) -> Entity {
        let values = self.to_notify.iter().map(|key| Value {
            exclude_from_indexes: true,
            value_type: Some(blob(key)),
            ..Value::default()
        });
        let to_notify = ValueType::ArrayValue(ArrayValue { values: values.collect() });
        let to_notify = Value { value_type: Some(to_notify), ..Value::default() };
        let expire_at = Value {
            exclude_from_indexes: expiry == Expiry::ByPolicy,
            value_type: Some(gone_at(self.expires)),
            ..Value::default()
        };
        let mut properties =
            HashMap::from([("to_notify".to_owned(), to_notify), (EXPIRE_AT.to_owned(), expire_at)]);
        if let Epoch { number, end: Some(end) } = self.epoch {
            let mut put = |name: &str, value, is_indexed: bool| {
                let exclude_from_indexes = !is_indexed;
                let value_type = Some(value);
                let value = Value { exclude_from_indexes, value_type, ..Value::default() };
                properties.insert(name.to_owned(), value);
            };
            let number = i64::try_from(number).unwrap_or(i64::MAX);
            put("epoch", ValueType::IntegerValue(number), false);
            put("ended_at", time(end.at), false);
            put("end_reason", ValueType::StringValue(end.reason.as_str().to_owned()), false);
            put("kept_until", time(end.keep_until), false);
            if self.is_untidy {
                put(UNTIDY, time(end.keep_until), true);
                put(PLACES, ValueType::StringValue(keys.place_of(user)), false);
            }
        }
        Entity { key: Some(keys.logins(user)), properties }
    }

    /// Ends all sessions of this epoch and of earlier ones.
    pub(crate) fn raise(&mut self, end: &End) {
        self.epoch = self.epoch.raised(end);
        self.is_untidy = true;
        // If this were deleted before one of those sessions, that session would be live again.
        self.expires = Timestamp::MAX;
    }

    /// Notes that the user has to be notified of these sessions.
    pub(crate) fn add_to_notify(&mut self, keys: impl IntoIterator<Item = SessionKey>) {
        self.to_notify.extend(keys);
        self.to_notify.truncate(MOST_TO_NOTIFY);
    }

    pub(crate) fn read(entity: Option<Entity>) -> Result<Self, Error> {
        let Some(entity) = entity else { return Ok(Self::default()) };
        let mut fields = Fields(entity.properties);
        let to_notify = fields.required("to_notify", |value| match value {
            ValueType::ArrayValue(array) => {
                array.values.into_iter().map(|value| as_key(value.value_type?)).collect()
            }
            _ => None,
        })?;
        // `Timestamp::MAX` stays the same when something is added to it.
        let expires = match fields.required(EXPIRE_AT, as_time)? {
            Timestamp::MAX => Timestamp::MAX,
            gone => gone.minus(CLOCK_SKEW),
        };
        let is_untidy = fields.optional(UNTIDY, as_time)?.is_some();
        let epoch = match fields.optional("epoch", as_epoch)? {
            None => Epoch::default(),
            Some(number) => Epoch {
                number,
                end: Some(End {
                    at: fields.required("ended_at", as_time)?,
                    reason: fields.required("end_reason", |value| as_text(value)?.parse().ok())?,
                    keep_until: fields.required("kept_until", as_time)?,
                }),
            },
        };
        Ok(Self { epoch, is_untidy, to_notify, expires })
    }
}

/// Returns what the places of the sessions to delete begin with.
pub(crate) fn places(logins: &Entity) -> Option<String> {
    as_text(logins.properties.get(PLACES)?.value_type.clone()?)
}

/// Returns when an entity of either kind may be deleted.
pub(crate) fn expire_at(entity: &Entity) -> Option<Timestamp> {
    as_time(entity.properties.get(EXPIRE_AT)?.value_type.clone()?)
}

/// The properties of an entity.
struct Fields(HashMap<String, Value>);

impl Fields {
    fn optional<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(ValueType) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.0.remove(name).and_then(|value| value.value_type) else {
            return Ok(None);
        };
        read(value).map(Some).ok_or_else(|| unreadable(name))
    }

    fn required<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(ValueType) -> Option<T>,
    ) -> Result<T, Error> {
        self.optional(name, read)?.ok_or_else(|| unreadable(name))
    }
}

fn unreadable(name: &str) -> Error {
    Error::corrupt(format!("the property `{name}` of a session is not what this store has written"))
}

fn as_epoch(value: ValueType) -> Option<u64> {
    match value {
        ValueType::IntegerValue(number) => u64::try_from(number).ok(),
        _ => None,
    }
}

pub(crate) fn time(at: Timestamp) -> ValueType {
    let timestamp = prost_types::Timestamp { seconds: at.as_secs().into(), nanos: 0 };
    ValueType::TimestampValue(timestamp)
}

fn blob(key: &SessionKey) -> ValueType {
    ValueType::BlobValue(key.as_bytes().to_vec())
}

fn as_time(value: ValueType) -> Option<Timestamp> {
    match value {
        ValueType::TimestampValue(at) => u32::try_from(at.seconds).ok().map(Timestamp::from_secs),
        _ => None,
    }
}

fn as_text(value: ValueType) -> Option<String> {
    match value {
        ValueType::StringValue(text) => Some(text),
        _ => None,
    }
}

fn as_number(value: ValueType) -> Option<u32> {
    match value {
        ValueType::IntegerValue(number) => u32::try_from(number).ok(),
        _ => None,
    }
}

fn as_flag(value: ValueType) -> Option<bool> {
    match value {
        ValueType::BooleanValue(flag) => Some(flag),
        _ => None,
    }
}

fn as_bytes<const N: usize>(value: ValueType) -> Option<[u8; N]> {
    match value {
        ValueType::BlobValue(bytes) => bytes.try_into().ok(),
        _ => None,
    }
}

fn as_key(value: ValueType) -> Option<SessionKey> {
    as_bytes(value).map(SessionKey::new)
}

#[cfg(test)]
mod tests {
    use gcloud_sdk::google::datastore::v1::PartitionId;
    use tower_keep_core::{EndReason, StoreErrorKind};

    use super::*;
    use crate::UserKeys;

    fn keys() -> EntityKeys {
        EntityKeys {
            partition: PartitionId::default(),
            ancestors: Vec::new(),
            user_kind: "user".to_owned(),
            user_keys: UserKeys::default(),
            prefix: "Keep".to_owned(),
        }
    }

    fn record() -> SessionRecord {
        let at = Timestamp::from_secs(1_800_000_000);
        SessionRecord {
            key: SessionKey::new([7; 32]),
            user: "ada\0🦀".into(),
            generation: u32::MAX,
            rotated_at: None,
            seen_at: None,
            salt: [9; 16],
            created: at,
            session_started: at.plus(1),
            last_seen: at.plus(2),
            remember_expires: None,
            remember_seconds: 0,
            expires: Timestamp::MAX.minus(CLOCK_SKEW),
            address: None,
            user_agent: "".into(),
            method: "".into(),
            ended: None,
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let at = Some(Timestamp::from_secs(7));
        let full = SessionRecord {
            rotated_at: at,
            seen_at: at,
            remember_expires: at,
            address: "2001:db8::7".parse().ok(),
            user_agent: "Test/1.0 (🦀)".into(),
            method: "password".into(),
            ended: Some(Ended {
                at: Timestamp::from_secs(0),
                reason: EndReason::Replay,
                successor: Some(SessionKey::new([1; 32])),
                notified: true,
            }),
            ..record()
        };
        for record in [record(), full] {
            for expiry in [Expiry::Indexed, Expiry::ByPolicy] {
                let stored = Stored { record: record.clone(), created_in: 1_800_000_000 };
                let entity = write(&keys(), expiry, &stored);
                let is_indexed = |name: &str| {
                    entity.properties.get(name).is_some_and(|value| !value.exclude_from_indexes)
                };
                assert_eq!(is_indexed(PLACE), record.ended.is_none());
                assert_eq!(is_indexed(EXPIRE_AT), expiry == Expiry::Indexed);
                assert_eq!(expire_at(&entity), Some(record.expires.plus(CLOCK_SKEW)));
                assert_eq!(read(entity).unwrap(), stored);
            }
        }
    }

    #[test]
    fn what_cannot_be_read_names_its_property_and_quotes_nothing() {
        let entity = write(&keys(), Expiry::Indexed, &Stored { record: record(), created_in: 0 });
        for name in
            entity.properties.keys().filter(|name| ![PLACE, EXPIRE_AT].contains(&name.as_str()))
        {
            let mut bad = entity.clone();
            let secret = ValueType::EntityValue(Entity::default());
            bad.properties
                .insert(name.clone(), Value { value_type: Some(secret), ..Value::default() });
            let error = read(bad).unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Corrupt);
            assert!(format!("{error:?}").contains(&format!("`{name}`")), "{error:?}");
            let mut missing = entity.clone();
            missing.properties.remove(name);
            assert!(read(missing).is_err(), "{name}");
        }
        assert!(read(Entity { key: None, ..entity }).is_err());
    }

    #[test]
    fn what_is_kept_of_logins_is_read_as_it_was_written() {
        let logins = Logins {
            to_notify: vec![SessionKey::new([1; 32]), SessionKey::new([2; 32])],
            expires: Timestamp::from_secs(1_800_000_000),
            ..Logins::default()
        };
        let mut raised = logins.clone();
        let at = logins.expires;
        raised.raise(&End { at, reason: EndReason::Revoked, keep_until: at.plus(60) });
        assert!(raised.is_untidy && raised.epoch.number >= at.as_secs().into());
        let tidied = Logins { is_untidy: false, ..raised.clone() };
        for logins in [logins, raised, tidied, Logins::default()] {
            let entity = logins.write(&keys(), Expiry::Indexed, &"ada".into());
            assert_eq!(Logins::read(Some(entity)).unwrap(), logins);
        }
        assert_eq!(Logins::read(None).unwrap(), Logins::default());
    }
}
