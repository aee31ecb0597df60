//! Writes and reads the properties of this store's own entities: session records and login states.

use std::collections::HashMap;

use gcloud_sdk::google::datastore::v1::value::ValueType;
use gcloud_sdk::google::datastore::v1::{ArrayValue, Entity, Key, Value};
use gcloud_sdk::prost_types;
use tower_keep_core::{SessionKey, Timestamp};

use crate::error::Error;

/// Collects the properties of an entity that is to be written.
#[derive(Default)]
pub(crate) struct PropertyWriter(HashMap<String, Value>);

impl PropertyWriter {
    /// Adds a property that is not indexed.
    pub(crate) fn add(&mut self, name: &str, value: ValueType) {
        self.0.insert(name.to_owned(), unindexed(value));
    }

    /// Adds a property that is not indexed, or nothing if the value is `None`.
    pub(crate) fn add_optional(&mut self, name: &str, value: Option<ValueType>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }

    /// Adds a property that is indexed, so that queries can use it.
    pub(crate) fn add_indexed(&mut self, name: &str, value: ValueType) {
        self.0.insert(name.to_owned(), Value { value_type: Some(value), ..Value::default() });
    }

    /// Adds an array that is not indexed.
    pub(crate) fn add_array(&mut self, name: &str, elements: impl Iterator<Item = ValueType>) {
        // An array itself can't be excluded from indexes, only its elements.
        let values = elements.map(unindexed).collect();
        self.add_indexed(name, ValueType::ArrayValue(ArrayValue { values }));
    }

    pub(crate) fn into_entity(self, key: Key) -> Entity {
        Entity { key: Some(key), properties: self.0 }
    }
}

fn unindexed(value: ValueType) -> Value {
    Value { exclude_from_indexes: true, value_type: Some(value), ..Value::default() }
}

/// Takes the properties out of an entity that is read.
pub(crate) struct PropertyReader(pub(crate) HashMap<String, Value>);

impl PropertyReader {
    /// Takes a property out and converts its value. Returns `None` if the property is absent.
    pub(crate) fn optional<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(ValueType) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.0.remove(name).and_then(|value| value.value_type) else {
            return Ok(None);
        };
        read(value).map(Some).ok_or_else(|| unreadable(name))
    }

    /// Takes a property out and converts its value. Returns an error if the property is absent.
    pub(crate) fn required<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(ValueType) -> Option<T>,
    ) -> Result<T, Error> {
        self.optional(name, read)?.ok_or_else(|| unreadable(name))
    }
}

/// Returns the error for a property that is missing, or whose value this store never writes.
pub(crate) fn unreadable(name: &str) -> Error {
    Error::corrupt(format!(
        "property `{name}` of one of this store's own entities is missing or not as this store \
         writes it: restore the entity"
    ))
}

pub(crate) fn time_value(at: Timestamp) -> ValueType {
    let timestamp = prost_types::Timestamp { seconds: at.as_secs().into(), nanos: 0 };
    ValueType::TimestampValue(timestamp)
}

pub(crate) fn text_value(text: &str) -> ValueType {
    ValueType::StringValue(text.to_owned())
}

pub(crate) fn number_value(number: u32) -> ValueType {
    ValueType::IntegerValue(number.into())
}

pub(crate) fn epoch_value(number: u64) -> ValueType {
    ValueType::IntegerValue(i64::try_from(number).unwrap_or(i64::MAX))
}

pub(crate) fn session_key_value(key: &SessionKey) -> ValueType {
    ValueType::BlobValue(key.as_bytes().to_vec())
}

pub(crate) fn as_time(value: ValueType) -> Option<Timestamp> {
    match value {
        ValueType::TimestampValue(at) => u32::try_from(at.seconds).ok().map(Timestamp::from_secs),
        _ => None,
    }
}

pub(crate) fn as_text(value: ValueType) -> Option<String> {
    match value {
        ValueType::StringValue(text) => Some(text),
        _ => None,
    }
}

pub(crate) fn as_u32(value: ValueType) -> Option<u32> {
    match value {
        ValueType::IntegerValue(number) => u32::try_from(number).ok(),
        _ => None,
    }
}

pub(crate) fn as_epoch(value: ValueType) -> Option<u64> {
    match value {
        ValueType::IntegerValue(number) => u64::try_from(number).ok(),
        _ => None,
    }
}

pub(crate) fn as_flag(value: ValueType) -> Option<bool> {
    match value {
        ValueType::BooleanValue(flag) => Some(flag),
        _ => None,
    }
}

pub(crate) fn as_bytes<const N: usize>(value: ValueType) -> Option<[u8; N]> {
    match value {
        ValueType::BlobValue(bytes) => bytes.try_into().ok(),
        _ => None,
    }
}

pub(crate) fn as_session_key(value: ValueType) -> Option<SessionKey> {
    as_bytes(value).map(SessionKey::new)
}

pub(crate) fn as_session_keys(value: ValueType) -> Option<Vec<SessionKey>> {
    match value {
        ValueType::ArrayValue(array) => {
            array.values.into_iter().map(|value| as_session_key(value.value_type?)).collect()
        }
        _ => None,
    }
}
