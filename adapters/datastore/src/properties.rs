//! Writes and reads the properties of this store's own entities.

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

    /// Adds a property that is not indexed, if it has a value. Otherwise the property is absent.
    pub(crate) fn add_optional(&mut self, name: &str, value: Option<ValueType>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }

    /// Adds a property that queries can use.
    pub(crate) fn add_indexed(&mut self, name: &str, value: ValueType) {
        self.0.insert(name.to_owned(), Value { value_type: Some(value), ..Value::default() });
    }

    /// Adds an array that is not indexed.
    pub(crate) fn add_array(&mut self, name: &str, elements: impl Iterator<Item = ValueType>) {
        // Only the elements can be excluded from indexes.
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

/// The properties of an entity that is read.
pub(crate) struct PropertyReader(pub(crate) HashMap<String, Value>);

impl PropertyReader {
    /// Returns the value of a property, or `None` if the property is absent.
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

    pub(crate) fn required<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(ValueType) -> Option<T>,
    ) -> Result<T, Error> {
        self.optional(name, read)?.ok_or_else(|| unreadable(name))
    }
}

/// Returns the error for a property that is missing or has an unexpected value.
pub(crate) fn unreadable(name: &str) -> Error {
    Error::corrupt(format!("the property `{name}` of a session is not what this store has written"))
}

pub(crate) fn time(at: Timestamp) -> ValueType {
    let timestamp = prost_types::Timestamp { seconds: at.as_secs().into(), nanos: 0 };
    ValueType::TimestampValue(timestamp)
}

pub(crate) fn text(text: &str) -> ValueType {
    ValueType::StringValue(text.to_owned())
}

pub(crate) fn number(number: u32) -> ValueType {
    ValueType::IntegerValue(number.into())
}

pub(crate) fn epoch(number: u64) -> ValueType {
    ValueType::IntegerValue(i64::try_from(number).unwrap_or(i64::MAX))
}

pub(crate) fn key(key: &SessionKey) -> ValueType {
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

pub(crate) fn as_number(value: ValueType) -> Option<u32> {
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

pub(crate) fn as_key(value: ValueType) -> Option<SessionKey> {
    as_bytes(value).map(SessionKey::new)
}

pub(crate) fn as_keys(value: ValueType) -> Option<Vec<SessionKey>> {
    match value {
        ValueType::ArrayValue(array) => {
            array.values.into_iter().map(|value| as_key(value.value_type?)).collect()
        }
        _ => None,
    }
}
