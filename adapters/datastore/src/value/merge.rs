//! A new value in place of a stored one: what the type does not know of stays, and so do types and
//! index flags.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::mem::discriminant;

use gcloud_sdk::google::datastore::v1::value::ValueType;
use gcloud_sdk::google::datastore::v1::{ArrayValue, Entity, PartitionId, Value};
use gcloud_sdk::google::r#type;

use super::ser::{Plain, Properties};
use super::types::{to_key, to_lat_lng, to_timestamp};
use crate::keys::LONGEST_INDEXED;

/// How much is compared at most, to find elements of arrays that are stored elsewhere in them. Each of the user's
/// properties has a share, by its size.
const MOST_COMPARED: usize = 400_000;
/// Integers up to this have a double of their own.
const LARGEST_EXACT: f64 = 9_007_199_254_740_992.0;

/// The properties of an entity, after these are written to it. Of properties that are new, `unindexed`
/// are excluded from indexes.
///
/// What the type wrote of the stored user, `before`, and does not write now is not to be there any more. Serde says
/// so itself of a plain struct's fields, but not of flattened ones, nor of a variant's fields where the variant is
/// another now.
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
        let share = MOST_COMPARED.saturating_mul(plain.size()) / all;
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

/// What is stored and stays, whatever is written.
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

/// The names of an entity's properties, and of those within them; of an array, those that any element has.
#[derive(Default)]
struct Names<'a>(BTreeMap<&'a str, Names<'a>>);

/// No names.
const NONE: &Names = &Names(BTreeMap::new());

impl<'a> Names<'a> {
    fn of(properties: &'a Properties) -> Self {
        let mut names = Self::default();
        names.add_properties(properties);
        names
    }

    /// Of what is within the property of this name.
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
            Some(ValueType::StringValue(text)) => text.len() > LONGEST_INDEXED,
            Some(ValueType::BlobValue(bytes)) => bytes.len() > LONGEST_INDEXED,
            _ => false,
        };
        value.exclude_from_indexes |= too_long;
        value
    }

    /// An element that is stored already stays as it is, with all that the type does not know of it, wherever
    /// it is now; any other is written over the stored one at its index, unless that is one of those.
    fn array(&self, stored: &[Value], elements: Vec<Plain>, before: &Names<'_>) -> ArrayValue {
        let mut is_left = vec![true; stored.len()];
        let mut kept: Vec<Option<usize>> = Vec::with_capacity(elements.len());
        // Mostly it is at its place, or after the last that was found.
        let mut next = 0;
        for (own, plain) in elements.iter().enumerate() {
            let size = plain.size();
            let is_it = |index: &usize| {
                is_left.get(*index) == Some(&true)
                    && self.may_compare(size)
                    && self.value(Some(&stored[*index]), plain.clone(), before) == stored[*index]
            };
            let mut found = [own, next].into_iter().find(is_it);
            // Where much has changed, looking has an end.
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
        // Google's Python library refuses an array that is indexed in parts.
        if stored.iter().chain(&values).any(is_excluded) {
            values.iter_mut().for_each(exclude);
        }
        ArrayValue { values }
    }

    /// Whether something of this size may still be compared; then it counts as compared.
    fn may_compare(&self, size: usize) -> bool {
        let left = self.left.get().checked_sub(size);
        self.left.set(left.unwrap_or(0));
        left.is_some()
    }
}

/// Whether this can't say if it is indexed: an empty array.
fn says_nothing(value: &Value) -> bool {
    matches!(&value.value_type, Some(ValueType::ArrayValue(array)) if array.values.is_empty())
}

/// Whether this is left out of indexes; of an array, whether an element is.
fn is_excluded(value: &Value) -> bool {
    match &value.value_type {
        Some(ValueType::ArrayValue(array)) => array.values.iter().any(is_excluded),
        _ => value.exclude_from_indexes,
    }
}

/// Leaves this out of indexes; of an array, its elements, because an array can't be.
fn exclude(value: &mut Value) {
    match &mut value.value_type {
        Some(ValueType::ArrayValue(array)) => array.values.iter_mut().for_each(exclude),
        _ => value.exclude_from_indexes = true,
    }
}

/// The same value in the type of what is stored, if it can have it.
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
        // Bytes that were read as text; others were read as something else.
        (ValueType::BlobValue(own), Plain::String(text)) => {
            str::from_utf8(own).is_ok().then(|| Plain::Blob(text.clone().into_bytes()))
        }
        // Whoever wrote a flag as a number reads it as one.
        (ValueType::IntegerValue(0 | 1), Plain::Boolean(flag)) => {
            Some(Plain::Integer(i64::from(*flag)))
        }
        (ValueType::DoubleValue(_), Plain::Integer(number)) => {
            let double = *number as f64;
            (double.abs() < LARGEST_EXACT).then_some(Plain::Double(double))
        }
        // What was read as a double that is nearest to it stays what it is.
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
