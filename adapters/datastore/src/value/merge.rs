//! Merges the properties to write with the stored ones. Stored properties that the user type does
//! not have are kept. Written properties keep their stored types, and stay indexed or excluded.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::mem::discriminant;

use gcloud_sdk::google::datastore::v1::value::ValueType;
use gcloud_sdk::google::datastore::v1::{ArrayValue, Entity, PartitionId, Value};
use gcloud_sdk::google::r#type;

use super::ser::{NewProperties, NewValue};
use super::types::{to_key, to_lat_lng, to_timestamp};
use crate::keys::MAX_INDEXED_BYTES;

/// Limits the comparisons that search an array for an element at another index, in units of
/// [`comparison_cost`](NewValue::comparison_cost). The limit is for one user. Each property gets a
/// share of it in proportion to its own cost.
const MAX_COMPARISON_COST: usize = 400_000;
/// Every integer up to this value can be converted to a double and back without a loss.
const LARGEST_EXACT: f64 = 9_007_199_254_740_992.0;

/// Returns the properties of an entity after `new_properties` are written over `stored`. Properties
/// in `unindexed` that are not stored yet are excluded from indexes.
///
/// `previous` are the properties that the type writes for the stored user. A property that is in
/// `previous` and not in `new_properties` is removed. Serde alone does not report all of these: it
/// reports the skipped fields of a struct, but neither those of a flattened struct, nor the fields
/// of an enum's stored variant if another variant is written.
pub(crate) fn merge(
    stored: &HashMap<String, Value>,
    previous: &NewProperties,
    new_properties: NewProperties,
    unindexed: &[String],
    partition: &PartitionId,
) -> HashMap<String, Value> {
    let previous = Names::in_properties(previous);
    let total_cost: usize = new_properties.written.values().map(NewValue::comparison_cost).sum();
    let mut merged = kept_properties(stored, &new_properties, &previous);
    for (name, new_value) in new_properties.written {
        let share = MAX_COMPARISON_COST.saturating_mul(new_value.comparison_cost()) / total_cost;
        let merge = Merge { partition, budget: Cell::new(share) };
        let stored_value = stored.get(&name);
        let mut value = merge.merge_value(stored_value, new_value, previous.within(&name));
        if stored_value.is_none_or(is_empty_array) && unindexed.contains(&name) {
            exclude_from_indexes(&mut value);
        }
        merged.insert(name, value);
    }
    merged
}

/// Returns the stored properties that the type does not have, and so neither writes nor removes.
fn kept_properties(
    stored: &HashMap<String, Value>,
    new_properties: &NewProperties,
    previous: &Names<'_>,
) -> HashMap<String, Value> {
    if new_properties.removes_others {
        return HashMap::new();
    }
    let is_kept = |name: &String| {
        !previous.0.contains_key(name.as_str())
            && !new_properties.skipped.iter().any(|skipped| skipped == name)
    };
    let kept = stored.iter().filter(|(name, _)| is_kept(name));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// The names of an entity's properties, each with the names of the properties within it. For an
/// array, these are the names that at least one element has.
#[derive(Default)]
struct Names<'a>(BTreeMap<&'a str, Names<'a>>);

const NO_NAMES: &Names = &Names(BTreeMap::new());

impl<'a> Names<'a> {
    fn in_properties(properties: &'a NewProperties) -> Self {
        let mut names = Self::default();
        names.add_properties(properties);
        names
    }

    /// Returns the names within the property of this name.
    fn within(&self, name: &str) -> &Self {
        self.0.get(name).unwrap_or(NO_NAMES)
    }

    fn add_properties(&mut self, properties: &'a NewProperties) {
        for (name, new_value) in &properties.written {
            self.0.entry(name).or_default().add(new_value);
        }
    }

    fn add(&mut self, new_value: &'a NewValue) {
        match new_value {
            NewValue::Entity(properties) => self.add_properties(properties),
            NewValue::Array(elements) => elements.iter().for_each(|element| self.add(element)),
            _ => {}
        }
    }
}

/// Merges one property of the user.
struct Merge<'a> {
    /// The store's own project, database and namespace.
    partition: &'a PartitionId,
    /// The cost of the comparisons that are still allowed.
    budget: Cell<usize>,
}

impl Merge<'_> {
    fn merge_properties(
        &self,
        stored: &HashMap<String, Value>,
        new_properties: NewProperties,
        previous: &Names<'_>,
    ) -> HashMap<String, Value> {
        let mut merged = kept_properties(stored, &new_properties, previous);
        for (name, new_value) in new_properties.written {
            let value = self.merge_value(stored.get(&name), new_value, previous.within(&name));
            merged.insert(name, value);
        }
        merged
    }

    fn merge_value(
        &self,
        stored: Option<&Value>,
        new_value: NewValue,
        previous: &Names<'_>,
    ) -> Value {
        let stored_type = stored.and_then(|stored| stored.value_type.as_ref());
        let new_value = match stored_type {
            Some(stored_type) => convert_to_type_of(stored_type, new_value),
            None => new_value,
        };
        let value_type = match new_value {
            NewValue::Null => ValueType::NullValue(0),
            NewValue::Boolean(value) => ValueType::BooleanValue(value),
            NewValue::Integer(value) => ValueType::IntegerValue(value),
            NewValue::Double(value) => ValueType::DoubleValue(value),
            NewValue::String(value) => ValueType::StringValue(value),
            NewValue::Blob(value) => ValueType::BlobValue(value),
            NewValue::Timestamp(value) => ValueType::TimestampValue(value),
            NewValue::LatLng(value) => ValueType::GeoPointValue(r#type::LatLng {
                latitude: value.latitude,
                longitude: value.longitude,
            }),
            NewValue::Key(mut key) => {
                let partition = key.partition_id.get_or_insert_default();
                if partition.project_id.is_empty() {
                    partition.project_id.clone_from(&self.partition.project_id);
                }
                ValueType::KeyValue(key)
            }
            NewValue::Array(elements) => {
                let stored = match stored_type {
                    Some(ValueType::ArrayValue(array)) => array.values.as_slice(),
                    _ => &[],
                };
                ValueType::ArrayValue(self.merge_array(stored, elements, previous))
            }
            NewValue::Entity(properties) => ValueType::EntityValue(match stored_type {
                Some(ValueType::EntityValue(entity)) => Entity {
                    key: entity.key.clone(),
                    properties: self.merge_properties(&entity.properties, properties, previous),
                },
                _ => Entity {
                    key: None,
                    properties: self.merge_properties(&HashMap::new(), properties, NO_NAMES),
                },
            }),
        };
        let is_same_type = stored_type
            .is_some_and(|stored_type| discriminant(stored_type) == discriminant(&value_type));
        let meaning = stored.filter(|_| is_same_type).map_or(0, |stored| stored.meaning);
        let mut value =
            Value { meaning, exclude_from_indexes: false, value_type: Some(value_type) };
        if stored.is_some_and(is_excluded) {
            exclude_from_indexes(&mut value);
        }
        let is_too_long = match &value.value_type {
            Some(ValueType::StringValue(text)) => text.len() > MAX_INDEXED_BYTES,
            Some(ValueType::BlobValue(bytes)) => bytes.len() > MAX_INDEXED_BYTES,
            _ => false,
        };
        value.exclude_from_indexes |= is_too_long;
        value
    }

    /// Merges an array.
    ///
    /// A new element matches a stored element if writing it there would change nothing. The stored
    /// element then stays as it is, with its other properties, at the index of the new element. A
    /// new element that matches no stored element is written over the stored element at the same
    /// index, unless that stored element matches another new element.
    fn merge_array(
        &self,
        stored: &[Value],
        elements: Vec<NewValue>,
        previous: &Names<'_>,
    ) -> ArrayValue {
        let mut is_unmatched = vec![true; stored.len()];
        let mut matches: Vec<Option<usize>> = Vec::with_capacity(elements.len());
        // Usually the matching element is at the same index, or directly after the previous match.
        let mut after_previous = 0;
        for (new_index, new_value) in elements.iter().enumerate() {
            let cost = new_value.comparison_cost();
            let is_match = |index: &usize| {
                is_unmatched.get(*index) == Some(&true)
                    && self.spend(cost)
                    && self.merge_value(Some(&stored[*index]), new_value.clone(), previous)
                        == stored[*index]
            };
            let likely = [new_index, after_previous];
            let mut found = likely.into_iter().find(is_match);
            // If many elements have changed, the budget is used up, and the search is left out.
            if found.is_none() && self.budget.get() >= cost {
                let mut others = (0..stored.len()).filter(|index| !likely.contains(index));
                found = others.find(is_match);
            }
            if let Some(index) = found {
                is_unmatched[index] = false;
                after_previous = index + 1;
            }
            matches.push(found);
        }
        let merged = elements.into_iter().zip(matches).enumerate();
        let merged = merged.map(|(new_index, (new_value, found))| {
            if let Some(index) = found {
                return stored[index].clone();
            }
            let overwritten = stored.get(new_index).filter(|_| is_unmatched[new_index]);
            self.merge_value(overwritten, new_value, previous)
        });
        let mut values: Vec<_> = merged.collect();
        // Google's Python library rejects an array if some of its elements are indexed and others
        // are not.
        if stored.iter().chain(&values).any(is_excluded) {
            values.iter_mut().for_each(exclude_from_indexes);
        }
        ArrayValue { values }
    }

    /// Takes the cost of a comparison from the budget. Returns whether the budget was sufficient.
    fn spend(&self, cost: usize) -> bool {
        let left = self.budget.get().checked_sub(cost);
        self.budget.set(left.unwrap_or(0));
        left.is_some()
    }
}

/// Checks whether a value is an empty array. Such a value does not show whether it is indexed.
fn is_empty_array(value: &Value) -> bool {
    matches!(&value.value_type, Some(ValueType::ArrayValue(array)) if array.values.is_empty())
}

/// Checks whether a value is excluded from indexes. An array counts as excluded if any of its
/// elements is excluded.
fn is_excluded(value: &Value) -> bool {
    match &value.value_type {
        Some(ValueType::ArrayValue(array)) => array.values.iter().any(is_excluded),
        _ => value.exclude_from_indexes,
    }
}

/// Excludes a value from indexes. An array itself can't be excluded, so its elements are.
fn exclude_from_indexes(value: &mut Value) {
    match &mut value.value_type {
        Some(ValueType::ArrayValue(array)) => {
            array.values.iter_mut().for_each(exclude_from_indexes);
        }
        _ => value.exclude_from_indexes = true,
    }
}

/// Converts a value to the type of the stored value. If this is not possible, returns it unchanged.
fn convert_to_type_of(stored: &ValueType, new_value: NewValue) -> NewValue {
    let converted = match (stored, &new_value) {
        (ValueType::TimestampValue(_), _) => to_timestamp(&new_value).map(NewValue::Timestamp),
        (ValueType::GeoPointValue(_), _) => to_lat_lng(&new_value).map(NewValue::LatLng),
        (ValueType::KeyValue(_), _) => to_key(&new_value).map(NewValue::Key),
        (ValueType::BlobValue(_), NewValue::Array(elements)) => {
            let byte = |new_value: &NewValue| match new_value {
                NewValue::Integer(number) => u8::try_from(*number).ok(),
                _ => None,
            };
            elements.iter().map(byte).collect::<Option<_>>().map(NewValue::Blob)
        }
        (ValueType::StringValue(_), NewValue::Blob(bytes)) => {
            String::from_utf8(bytes.clone()).ok().map(NewValue::String)
        }
        // A blob of UTF-8 was probably read as a string, so it stays a blob. A blob that is not
        // UTF-8 can't have been read as a string, so it becomes a string.
        (ValueType::BlobValue(bytes), NewValue::String(text)) => {
            str::from_utf8(bytes).is_ok().then(|| NewValue::Blob(text.clone().into_bytes()))
        }
        // Another application that wrote a flag as a number also reads it as a number.
        (ValueType::IntegerValue(0 | 1), NewValue::Boolean(flag)) => {
            Some(NewValue::Integer(i64::from(*flag)))
        }
        (ValueType::DoubleValue(_), NewValue::Integer(number)) => {
            let double = *number as f64;
            (double.abs() < LARGEST_EXACT).then_some(NewValue::Double(double))
        }
        // A large integer is read as the nearest double. If that double is written, the stored
        // integer stays as it is.
        (ValueType::IntegerValue(integer), NewValue::Double(number))
            if *integer as f64 == *number =>
        {
            Some(NewValue::Integer(*integer))
        }
        (ValueType::IntegerValue(_), NewValue::Double(number)) => {
            let is_whole = number.fract() == 0.0 && number.abs() < LARGEST_EXACT;
            is_whole.then_some(NewValue::Integer(*number as i64))
        }
        _ => None,
    };
    converted.unwrap_or(new_value)
}
