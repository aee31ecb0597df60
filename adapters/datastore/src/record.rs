//! Entities of this store's own kinds: a session record, and what is kept of a user's logins together.
//!
//! | kind | property | |
//! | --- | --- | --- |
//! | `KeepSession_User`, by the session's key in hexadecimal | `user` | whose it is; indexed |
//! | | `open` | that it has not ended; indexed |
//! | | `expire_at` | for the policy: when it may be gone |
//! | | the others | the record, as in `SessionRecord` |
//! | `KeepLogins_User`, by the user's id | `untold` | the keys of sessions that ended for a replay and were not told yet |
//! | | `expire_at` | for the policy |

use std::collections::HashMap;

use gcloud_sdk::google::datastore::v1::value::ValueType;
use gcloud_sdk::google::datastore::v1::{ArrayValue, Entity, Value};
use gcloud_sdk::prost_types;
use tower_keep_core::{CLOCK_SKEW, EndReason, Ended, SessionKey, SessionRecord, Timestamp, UserId};

use crate::error::Fault;
use crate::keys::{Keys, session_key};

pub(crate) const USER: &str = "user";
pub(crate) const OPEN: &str = "open";
pub(crate) const EXPIRE_AT: &str = "expire_at";

/// Whether `expire_at` is indexed, so that what has expired can be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expiry {
    Indexed,
    /// A policy of the database deletes what has expired.
    ByPolicy,
}

/// `expire_at` for something that counts until then.
pub(crate) fn gone_at(expires: Timestamp) -> ValueType {
    time(expires.plus(CLOCK_SKEW))
}

/// The entity of a record.
pub(crate) fn write(keys: &Keys, expiry: Expiry, record: &SessionRecord) -> Entity {
    let mut properties = HashMap::with_capacity(20);
    let mut put = |name: &str, value: ValueType, is_indexed: bool| {
        let exclude_from_indexes = !is_indexed;
        let value = Value { exclude_from_indexes, value_type: Some(value), ..Value::default() };
        properties.insert(name.to_owned(), value);
    };
    let (text, integer) = (ValueType::StringValue, ValueType::IntegerValue);
    put(USER, text(record.user.as_str().to_owned()), true);
    put(OPEN, ValueType::BooleanValue(record.ended.is_none()), true);
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
    if let Some(Ended { at, reason, successor, told }) = &record.ended {
        put("ended_at", time(*at), false);
        put("end_reason", text(reason.as_str().to_owned()), false);
        put("told", ValueType::BooleanValue(*told), false);
        if let Some(successor) = successor {
            put("successor", blob(successor), false);
        }
    }
    Entity { key: Some(keys.session(&record.key)), properties }
}

/// The record of an entity.
pub(crate) fn read(entity: Entity) -> Result<SessionRecord, Fault> {
    let key = entity.key.as_ref().and_then(session_key);
    let key = key.ok_or_else(|| Fault::corrupt("a session's key is not one of this store's"))?;
    let mut fields = Fields(entity.properties);
    let ended = match fields.optional("ended_at", as_time)? {
        Some(at) => Some(Ended {
            at,
            reason: fields
                .required("end_reason", |value| EndReason::from_word(&as_text(value)?))?,
            successor: fields.optional("successor", as_key)?,
            told: fields.required("told", as_flag)?,
        }),
        None => None,
    };
    Ok(SessionRecord {
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
    })
}

/// What is kept of a user's logins together. Whatever begins a session, or ends all, writes it, so that of two
/// such changes one sees the other.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Logins {
    pub(crate) untold: Vec<SessionKey>,
    /// Until when there may be something to tell, or a session.
    pub(crate) expires: Timestamp,
}

impl Default for Logins {
    fn default() -> Self {
        Self { untold: Vec::new(), expires: Timestamp::from_secs(0) }
    }
}

impl Logins {
    pub(crate) fn write(&self, keys: &Keys, expiry: Expiry, user: &UserId) -> Entity {
        let values = self.untold.iter().map(|key| Value {
            exclude_from_indexes: true,
            value_type: Some(blob(key)),
            ..Value::default()
        });
        let untold = ValueType::ArrayValue(ArrayValue { values: values.collect() });
        let untold = Value { value_type: Some(untold), ..Value::default() };
        let expire_at = Value {
            exclude_from_indexes: expiry == Expiry::ByPolicy,
            value_type: Some(gone_at(self.expires)),
            ..Value::default()
        };
        let properties = [("untold", untold), (EXPIRE_AT, expire_at)];
        let properties = properties.map(|(name, value)| (name.to_owned(), value));
        Entity { key: Some(keys.logins(user)), properties: properties.into() }
    }

    pub(crate) fn read(entity: Option<Entity>) -> Result<Self, Fault> {
        let Some(entity) = entity else { return Ok(Self::default()) };
        let mut fields = Fields(entity.properties);
        let untold = fields.required("untold", |value| match value {
            ValueType::ArrayValue(array) => {
                array.values.into_iter().map(|value| as_key(value.value_type?)).collect()
            }
            _ => None,
        })?;
        let expires = fields.required(EXPIRE_AT, as_time)?.minus(CLOCK_SKEW);
        Ok(Self { untold, expires })
    }
}

/// When an entity of either kind may be gone.
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
    ) -> Result<Option<T>, Fault> {
        let Some(value) = self.0.remove(name).and_then(|value| value.value_type) else {
            return Ok(None);
        };
        read(value).map(Some).ok_or_else(|| unreadable(name))
    }

    fn required<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(ValueType) -> Option<T>,
    ) -> Result<T, Fault> {
        self.optional(name, read)?.ok_or_else(|| unreadable(name))
    }
}

fn unreadable(name: &str) -> Fault {
    Fault::corrupt(format!("the property `{name}` of a session is not what this store has written"))
}

fn time(at: Timestamp) -> ValueType {
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
    use tower_keep_core::StoreErrorKind;

    use super::*;
    use crate::UserKeys;

    fn keys() -> Keys {
        Keys {
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
                told: true,
            }),
            ..record()
        };
        for record in [record(), full] {
            for expiry in [Expiry::Indexed, Expiry::ByPolicy] {
                let entity = write(&keys(), expiry, &record);
                let indexed = |name: &str| !entity.properties[name].exclude_from_indexes;
                assert!(indexed(USER) && indexed(OPEN));
                assert_eq!(indexed(EXPIRE_AT), expiry == Expiry::Indexed);
                assert_eq!(expire_at(&entity), Some(record.expires.plus(CLOCK_SKEW)));
                assert_eq!(read(entity).unwrap(), record);
            }
        }
    }

    #[test]
    fn what_cannot_be_read_names_its_property_and_quotes_nothing() {
        let entity = write(&keys(), Expiry::Indexed, &record());
        for name in
            entity.properties.keys().filter(|name| ![OPEN, EXPIRE_AT].contains(&name.as_str()))
        {
            let mut bad = entity.clone();
            let secret = ValueType::EntityValue(Entity::default());
            bad.properties
                .insert(name.clone(), Value { value_type: Some(secret), ..Value::default() });
            let fault = read(bad).unwrap_err();
            assert_eq!(fault.kind(), StoreErrorKind::Corrupt);
            assert!(format!("{fault:?}").contains(&format!("`{name}`")), "{fault:?}");
            let mut missing = entity.clone();
            missing.properties.remove(name);
            assert!(read(missing).is_err(), "{name}");
        }
        assert!(read(Entity { key: None, ..entity }).is_err());
    }

    #[test]
    fn what_is_kept_of_logins_is_read_as_it_was_written() {
        let logins = Logins {
            untold: vec![SessionKey::new([1; 32]), SessionKey::new([2; 32])],
            expires: Timestamp::from_secs(1_800_000_000),
        };
        for logins in [logins, Logins::default()] {
            let entity = logins.write(&keys(), Expiry::Indexed, &"ada".into());
            assert_eq!(Logins::read(Some(entity)).unwrap(), logins);
        }
        assert_eq!(Logins::read(None).unwrap(), Logins::default());
    }
}
