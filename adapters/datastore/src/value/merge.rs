//! Writes a new value over a stored one. Properties that the type does not know are kept, and so
//! are types and index flags.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::mem::discriminant;

use gcloud_sdk::google::datastore::v1::value::ValueType;
use gcloud_sdk::google::datastore::v1::{ArrayValue, Entity, PartitionId, Value};
use gcloud_sdk::google::r#type;

use super::ser::{Plain, Properties};
use super::types::{to_key, to_lat_lng, to_timestamp};
use crate::keys::MAX_INDEXED;

/// The limit on comparisons that look for array elements at another index. Each of the user's
/// properties has a share of it, by its size.
const MAX_COMPARED: usize = 400_000;
/// Each integer up to this value is exactly one double.
const LARGEST_EXACT: f64 = 9_007_199_254_740_992.0;

/// Returns the properties of an entity after these are written to it. New properties in `unindexed`
/// are excluded from indexes.
///
/// `before` is what the type writes for the stored user. What is in `before` and not in
/// `properties` is removed. Serde reports the skipped fields of a plain struct, but not those of
/// flattened fields. Nor does it report the fields of the stored variant, if another variant is
/// written.
pub(crate) fn merge(
    stored: &HashMap<String, Value>,
    before: &Properties,
    properties: Properties,
    unindexed: &[String],
    partition: &PartitionId,
) -> HashMap<String, Value> {
    let before = Names::of(before);
    let all: usize = properties.written.values().map(Plain::size).sum();
    let mut merged = kept(stored, &properties, &before);
    for (name, plain) in properties.written {
        let share = MAX_COMPARED.saturating_mul(plain.size()) / all;
        let merge = Merge { partition, left: Cell::new(share) };
        let own = stored.get(&name);
        let mut value = merge.value(own, plain, before.within(&name));
        if own.is_none_or(says_nothing) && unindexed.contains(&name) {
            exclude(&mut value);
        }
        merged.insert(name, value);
    }
    merged
}

/// Returns the stored properties that stay, whatever is written.
fn kept(
    stored: &HashMap<String, Value>,
    properties: &Properties,
    before: &Names<'_>,
) -> HashMap<String, Value> {
    if properties.is_all {
        return HashMap::new();
    }
    let stays = |name: &String| {
        !before.0.contains_key(name.as_str()) && !properties.skipped.iter().any(|own| own == name)
    };
    let kept = stored.iter().filter(|(name, _)| stays(name));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// The names of an entity's properties, and of the properties within them. For an array, they are
/// the names that any element has.
#[derive(Default)]
struct Names<'a>(BTreeMap<&'a str, Names<'a>>);

const NONE: &Names = &Names(BTreeMap::new());

impl<'a> Names<'a> {
    fn of(properties: &'a Properties) -> Self {
        let mut names = Self::default();
        names.add_properties(properties);
        names
    }

    /// Returns the names within the property of this name.
    fn within(&self, name: &str) -> &Self {
        self.0.get(name).unwrap_or(NONE)
    }

    fn add_properties(&mut self, properties: &'a Properties) {
        for (name, plain) in &properties.written {
            self.0.entry(name).or_default().add(plain);
        }
    }

    fn add(&mut self, plain: &'a Plain) {
        match plain {
            Plain::Entity(properties) => self.add_properties(properties),
            Plain::Array(elements) => elements.iter().for_each(|element| self.add(element)),
            _ => {}
        }
    }
}

struct Merge<'a> {
    partition: &'a PartitionId,
    /// How much may still be compared.
    left: Cell<usize>,
}

impl Merge<'_> {
    fn properties(
        &self,
        stored: &HashMap<String, Value>,
        properties: Properties,
        before: &Names<'_>,
    ) -> HashMap<String, Value> {
        let mut merged = kept(stored, &properties, before);
        for (name, plain) in properties.written {
            let value = self.value(stored.get(&name), plain, before.within(&name));
            merged.insert(name, value);
        }
        merged
    }

    fn value(&self, stored: Option<&Value>, plain: Plain, before: &Names<'_>) -> Value {
        let own = stored.and_then(|stored| stored.value_type.as_ref());
        let plain = match own {
            Some(own) => in_type_of(own, plain),
            None => plain,
        };
        let value_type = match plain {
            Plain::Null => ValueType::NullValue(0),
            Plain::Boolean(value) => ValueType::BooleanValue(value),
            Plain::Integer(value) => ValueType::IntegerValue(value),
            Plain::Double(value) => ValueType::DoubleValue(value),
            Plain::String(value) => ValueType::StringValue(value),
            Plain::Blob(value) => ValueType::BlobValue(value),
            Plain::Timestamp(value) => ValueType::TimestampValue(value),
            Plain::LatLng(value) => ValueType::GeoPointValue(r#type::LatLng {
                latitude: value.latitude,
                longitude: value.longitude,
            }),
            Plain::Key(mut key) => {
                let partition = key.partition_id.get_or_insert_default();
                if partition.project_id.is_empty() {
                    partition.project_id.clone_from(&self.partition.project_id);
                }
                ValueType::KeyValue(key)
            }
            Plain::Array(elements) => {
                let stored = match own {
                    Some(ValueType::ArrayValue(array)) => array.values.as_slice(),
                    _ => &[],
                };
                ValueType::ArrayValue(self.array(stored, elements, before))
            }
            Plain::Entity(properties) => ValueType::EntityValue(match own {
                Some(ValueType::EntityValue(entity)) => Entity {
                    key: entity.key.clone(),
                    properties: self.properties(&entity.properties, properties, before),
                },
                _ => Entity {
                    key: None,
                    properties: self.properties(&HashMap::new(), properties, NONE),
                },
            }),
        };
        let is_same_type = own.is_some_and(|own| discriminant(own) == discriminant(&value_type));
        let meaning = stored.filter(|_| is_same_type).map_or(0, |stored| stored.meaning);
        let mut value =
            Value { meaning, exclude_from_indexes: false, value_type: Some(value_type) };
        if stored.is_some_and(is_excluded) {
            exclude(&mut value);
        }
        let too_long = match &value.value_type {
            Some(ValueType::StringValue(text)) => text.len() > MAX_INDEXED,
            Some(ValueType::BlobValue(bytes)) => bytes.len() > MAX_INDEXED,
            _ => false,
        };
        value.exclude_from_indexes |= too_long;
        value
    }

    /// Merges an array. An element that equals a stored one keeps all that the type does not know
    /// about it, whatever its index is now. Any other element is written over the stored one at its
    /// index, unless that one is kept.
    fn array(&self, stored: &[Value], elements: Vec<Plain>, before: &Names<'_>) -> ArrayValue {
        let mut is_left = vec![true; stored.len()];
        let mut kept: Vec<Option<usize>> = Vec::with_capacity(elements.len());
        // Usually the element is at its own index, or after the last one that was found.
        let mut next = 0;
        for (own, plain) in elements.iter().enumerate() {
            let size = plain.size();
            let is_it = |index: &usize| {
                is_left.get(*index) == Some(&true)
                    && self.may_compare(size)
                    && self.value(Some(&stored[*index]), plain.clone(), before) == stored[*index]
            };
            let mut found = [own, next].into_iter().find(is_it);
            // If much has changed, the search ends.
            if found.is_none() && self.left.get() >= size {
                let mut others = (0..stored.len()).filter(|index| ![own, next].contains(index));
                found = others.find(is_it);
            }
            if let Some(index) = found {
                is_left[index] = false;
                next = index + 1;
            }
            kept.push(found);
        }
        let written = elements.into_iter().zip(kept).enumerate().map(|(own, (plain, kept))| {
            if let Some(kept) = kept {
                return stored[kept].clone();
            }
            let own = stored.get(own).filter(|_| is_left[own]);
            self.value(own, plain, before)
        });
        let mut values: Vec<_> = written.collect();
        // Google's Python library rejects an array of which only some elements are indexed.
        if stored.iter().chain(&values).any(is_excluded) {
            values.iter_mut().for_each(exclude);
        }
        ArrayValue { values }
    }

    /// Checks whether something of this size may still be compared. If so, it counts as compared.
    fn may_compare(&self, size: usize) -> bool {
        let left = self.left.get().checked_sub(size);
        self.left.set(left.unwrap_or(0));
        left.is_some()
    }
}

/// Checks whether a value can't say whether it is indexed. This is so for an empty array.
fn says_nothing(value: &Value) -> bool {
    matches!(&value.value_type, Some(ValueType::ArrayValue(array)) if array.values.is_empty())
}

/// Checks whether a value is excluded from indexes. For an array, checks whether an element is.
fn is_excluded(value: &Value) -> bool {
    match &value.value_type {
        Some(ValueType::ArrayValue(array)) => array.values.iter().any(is_excluded),
        _ => value.exclude_from_indexes,
    }
}

/// Excludes a value from indexes. For an array, excludes the elements, because an array can't be
/// excluded.
fn exclude(value: &mut Value) {
    match &mut value.value_type {
        Some(ValueType::ArrayValue(array)) => array.values.iter_mut().for_each(exclude),
        _ => value.exclude_from_indexes = true,
    }
}

/// Converts a value to the type of the stored one, if possible.
fn in_type_of(stored: &ValueType, plain: Plain) -> Plain {
    let other = match (stored, &plain) {
        (ValueType::TimestampValue(_), _) => to_timestamp(&plain).map(Plain::Timestamp),
        (ValueType::GeoPointValue(_), _) => to_lat_lng(&plain).map(Plain::LatLng),
        (ValueType::KeyValue(_), _) => to_key(&plain).map(Plain::Key),
        (ValueType::BlobValue(_), Plain::Array(elements)) => {
            let byte = |plain: &Plain| match plain {
                Plain::Integer(number) => u8::try_from(*number).ok(),
                _ => None,
            };
            elements.iter().map(byte).collect::<Option<_>>().map(Plain::Blob)
        }
        (ValueType::StringValue(_), Plain::Blob(bytes)) => {
            String::from_utf8(bytes.clone()).ok().map(Plain::String)
        }
        // These bytes were read as text. Bytes that are not text were read as something else.
        (ValueType::BlobValue(own), Plain::String(text)) => {
            str::from_utf8(own).is_ok().then(|| Plain::Blob(text.clone().into_bytes()))
        }
        // An application that wrote a flag as a number reads it as a number.
        (ValueType::IntegerValue(0 | 1), Plain::Boolean(flag)) => {
            Some(Plain::Integer(i64::from(*flag)))
        }
        (ValueType::DoubleValue(_), Plain::Integer(number)) => {
            let double = *number as f64;
            (double.abs() < LARGEST_EXACT).then_some(Plain::Double(double))
        }
        // An integer that was read as the nearest double stays as it is.
        (ValueType::IntegerValue(own), Plain::Double(number)) if *own as f64 == *number => {
            Some(Plain::Integer(*own))
        }
        (ValueType::IntegerValue(_), Plain::Double(number)) => {
            let is_whole = number.fract() == 0.0 && number.abs() < LARGEST_EXACT;
            is_whole.then_some(Plain::Integer(*number as i64))
        }
        _ => None,
    };
    other.unwrap_or(plain)
}
