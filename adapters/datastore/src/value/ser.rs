//! Serializes a user to the properties to write. A later step, `merge`, merges them with the stored
//! properties.

use std::borrow::Cow;
use std::collections::BTreeMap;

use gcloud_sdk::google::datastore::v1::Key;
use gcloud_sdk::prost_types::Timestamp;
use serde::ser::{
    Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use super::error::{Result, ValueError};
use super::types::{self, KEY, LAT_LNG, LatLng, TIMESTAMP};
use crate::keys::{MAX_NAME_BYTES, is_reserved};

/// Comparing this many bytes of a string or a blob costs about as much as comparing one other
/// value.
const BYTES_PER_COST_UNIT: usize = 64;

/// A value to write, before it is merged with the stored value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum NewValue {
    Null,
    Boolean(bool),
    Integer(i64),
    Double(f64),
    String(String),
    Blob(Vec<u8>),
    Array(Vec<NewValue>),
    Entity(NewProperties),
    Timestamp(Timestamp),
    Key(Key),
    LatLng(LatLng),
}

impl NewValue {
    /// Returns how much work a comparison of this value is. An integer costs 1.
    pub(super) fn comparison_cost(&self) -> usize {
        match self {
            Self::String(text) => 1 + text.len() / BYTES_PER_COST_UNIT,
            Self::Blob(bytes) => 1 + bytes.len() / BYTES_PER_COST_UNIT,
            Self::Array(elements) => 1 + elements.iter().map(Self::comparison_cost).sum::<usize>(),
            Self::Entity(properties) => {
                1 + properties.written.values().map(Self::comparison_cost).sum::<usize>()
            }
            _ => 1,
        }
    }
}

/// The properties to write, before they are merged with the stored properties.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct NewProperties {
    pub(crate) written: BTreeMap<String, NewValue>,
    /// Properties to remove: fields of the type that `skip_serializing_if` has skipped.
    pub(crate) skipped: Vec<Cow<'static, str>>,
    /// Whether all stored properties that are not in `written` have to be removed, as for a map.
    pub(crate) removes_others: bool,
}

impl NewProperties {
    pub(crate) fn get(&self, name: &str) -> Option<&NewValue> {
        self.written.get(name)
    }

    /// Adds a property, or replaces it. The name has to be valid.
    pub(crate) fn insert(&mut self, name: &str, new_value: NewValue) {
        self.written.insert(name.to_owned(), new_value);
    }

    /// Takes out this property, so that it is neither written nor removed.
    pub(crate) fn leave_unchanged(&mut self, name: &str) {
        self.written.remove(name);
        self.skipped.retain(|skipped| skipped != name);
    }

    /// Adds a property if its name is valid and its value can be written.
    fn try_insert(&mut self, name: &str, new_value: Result<NewValue>) -> Result<()> {
        let message = match name.len() {
            _ if is_reserved(name) => {
                "this name begins and ends with __, which Datastore reserves: choose another name"
            }
            1..=MAX_NAME_BYTES => {
                self.insert(name, new_value.map_err(|error| error.within(name))?);
                return Ok(());
            }
            0 => "the name of the property is empty: choose a name",
            _ => "the name of the property has more than 1,500 bytes: choose a shorter name",
        };
        Err(ValueError::new(message).within(name))
    }
}

/// Returns the properties of a struct or a map.
pub(crate) fn write<T: Serialize + ?Sized>(value: &T) -> Result<NewProperties> {
    match value.serialize(VALUE)? {
        NewValue::Entity(properties) => Ok(properties),
        _ => Err(ValueError::new("the user type is neither a struct nor a map: use one of them")),
    }
}

/// Serializes a value, or the key of a map. The key becomes the name of a property, so it may be an
/// integer of any size.
#[derive(Clone, Copy)]
pub(super) struct ValueSerializer {
    is_name: bool,
}

const VALUE: ValueSerializer = ValueSerializer { is_name: false };
const NAME: ValueSerializer = ValueSerializer { is_name: true };

impl ValueSerializer {
    fn integer<T: TryInto<i64> + ToString + Copy>(self, value: T) -> Result<NewValue> {
        match value.try_into() {
            Ok(value) => Ok(NewValue::Integer(value)),
            Err(_) if self.is_name => Ok(NewValue::String(value.to_string())),
            Err(_) => Err(ValueError::new("the integer does not fit in 64 bits with a sign (i64)")),
        }
    }
}

/// Collects the elements of a sequence, a tuple, or a tuple variant of an enum.
pub(super) struct Elements {
    values: Vec<NewValue>,
    /// The name of the variant, for a variant of an enum.
    variant: Option<&'static str>,
}

/// Collects the fields of a struct, or of a struct variant of an enum.
pub(super) struct Fields {
    properties: NewProperties,
    /// The name of the variant, for a variant of an enum.
    variant: Option<&'static str>,
}

/// Collects the entries of a map.
pub(super) struct Entries {
    properties: NewProperties,
    /// The key of the entry whose value comes next.
    key: String,
}

/// Returns an enum's variant with data: an embedded entity with one property.
fn variant(name: &'static str, new_value: NewValue) -> NewValue {
    let written = BTreeMap::from([(name.to_owned(), new_value)]);
    NewValue::Entity(NewProperties { written, skipped: Vec::new(), removes_others: true })
}

impl Serializer for ValueSerializer {
    type Ok = NewValue;
    type Error = ValueError;
    type SerializeSeq = Elements;
    type SerializeTuple = Elements;
    type SerializeTupleStruct = Elements;
    type SerializeTupleVariant = Elements;
    type SerializeMap = Entries;
    type SerializeStruct = Fields;
    type SerializeStructVariant = Fields;

    fn serialize_bool(self, value: bool) -> Result<NewValue> {
        Ok(NewValue::Boolean(value))
    }
    fn serialize_i8(self, value: i8) -> Result<NewValue> {
        Ok(NewValue::Integer(value.into()))
    }
    fn serialize_i16(self, value: i16) -> Result<NewValue> {
        Ok(NewValue::Integer(value.into()))
    }
    fn serialize_i32(self, value: i32) -> Result<NewValue> {
        Ok(NewValue::Integer(value.into()))
    }
    fn serialize_i64(self, value: i64) -> Result<NewValue> {
        Ok(NewValue::Integer(value))
    }
    fn serialize_i128(self, value: i128) -> Result<NewValue> {
        self.integer(value)
    }
    fn serialize_u8(self, value: u8) -> Result<NewValue> {
        Ok(NewValue::Integer(value.into()))
    }
    fn serialize_u16(self, value: u16) -> Result<NewValue> {
        Ok(NewValue::Integer(value.into()))
    }
    fn serialize_u32(self, value: u32) -> Result<NewValue> {
        Ok(NewValue::Integer(value.into()))
    }
    fn serialize_u64(self, value: u64) -> Result<NewValue> {
        self.integer(value)
    }
    fn serialize_u128(self, value: u128) -> Result<NewValue> {
        self.integer(value)
    }
    fn serialize_f32(self, value: f32) -> Result<NewValue> {
        Ok(NewValue::Double(value.into()))
    }
    fn serialize_f64(self, value: f64) -> Result<NewValue> {
        Ok(NewValue::Double(value))
    }
    fn serialize_char(self, value: char) -> Result<NewValue> {
        Ok(NewValue::String(value.into()))
    }
    fn serialize_str(self, value: &str) -> Result<NewValue> {
        Ok(NewValue::String(value.to_owned()))
    }
    fn serialize_bytes(self, value: &[u8]) -> Result<NewValue> {
        Ok(NewValue::Blob(value.to_owned()))
    }
    fn serialize_none(self) -> Result<NewValue> {
        Ok(NewValue::Null)
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<NewValue> {
        value.serialize(self)
    }
    fn serialize_unit(self) -> Result<NewValue> {
        Ok(NewValue::Null)
    }
    fn serialize_unit_struct(self, _name: &'static str) -> Result<NewValue> {
        Ok(NewValue::Null)
    }
    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
    ) -> Result<NewValue> {
        Ok(NewValue::String(name.to_owned()))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<NewValue> {
        let new_value = value.serialize(self)?;
        match (name, &new_value) {
            (TIMESTAMP, NewValue::Null) => Ok(new_value),
            (TIMESTAMP, _) => {
                types::to_timestamp(&new_value).map(NewValue::Timestamp).ok_or_else(|| {
                    ValueError::new(
                        "the value is not a time: use RFC 3339 text with its zone, or a SystemTime",
                    )
                })
            }
            (KEY, _) => types::to_key(&new_value)
                .map(NewValue::Key)
                .ok_or_else(|| ValueError::new("the key has no path: add at least one step")),
            (LAT_LNG, _) => types::to_lat_lng(&new_value)
                .map(NewValue::LatLng)
                .ok_or_else(|| ValueError::new("the value is not a LatLng of two doubles")),
            _ => Ok(new_value),
        }
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        value: &T,
    ) -> Result<NewValue> {
        Ok(variant(name, value.serialize(VALUE).map_err(|error| error.within(name))?))
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Elements> {
        let values = Vec::with_capacity(length.unwrap_or(0).min(1_024));
        Ok(Elements { values, variant: None })
    }
    fn serialize_tuple(self, length: usize) -> Result<Elements> {
        self.serialize_seq(Some(length))
    }
    fn serialize_tuple_struct(self, _: &'static str, length: usize) -> Result<Elements> {
        self.serialize_seq(Some(length))
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        _length: usize,
    ) -> Result<Elements> {
        Ok(Elements { values: Vec::new(), variant: Some(name) })
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Entries> {
        // Serde also writes a struct with a flattened field as a map, but without a length. Such a
        // struct does not name all properties, so the properties that it does not name stay.
        let removes_others = length.is_some();
        let properties = NewProperties { removes_others, ..NewProperties::default() };
        Ok(Entries { properties, key: String::new() })
    }
    fn serialize_struct(self, _: &'static str, _length: usize) -> Result<Fields> {
        Ok(Fields { properties: NewProperties::default(), variant: None })
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        _length: usize,
    ) -> Result<Fields> {
        Ok(Fields { properties: NewProperties::default(), variant: Some(name) })
    }
}

impl Elements {
    fn push<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        let index = self.values.len();
        let new_value = match value.serialize(VALUE) {
            Ok(NewValue::Array(_)) => Err(ValueError::new(
                "an array is an element of another array, which Datastore does not allow: put it \
                 into a struct",
            )),
            other => other,
        };
        self.values.push(new_value.map_err(|error| error.at(index))?);
        Ok(())
    }

    fn into_value(self) -> Result<NewValue> {
        let new_value = NewValue::Array(self.values);
        Ok(match self.variant {
            Some(name) => variant(name, new_value),
            None => new_value,
        })
    }
}

macro_rules! elements {
    ($($trait:ident $push:ident)*) => {$(
        impl $trait for Elements {
            type Ok = NewValue;
            type Error = ValueError;

            fn $push<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
                self.push(value)
            }
            fn end(self) -> Result<NewValue> {
                self.into_value()
            }
        }
    )*};
}

elements! {
    SerializeSeq serialize_element
    SerializeTuple serialize_element
    SerializeTupleStruct serialize_field
    SerializeTupleVariant serialize_field
}

macro_rules! fields {
    ($($trait:ident)*) => {$(
        impl $trait for Fields {
            type Ok = NewValue;
            type Error = ValueError;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<()> {
                self.properties.try_insert(name, value.serialize(VALUE))
            }
            fn skip_field(&mut self, name: &'static str) -> Result<()> {
                self.properties.skipped.push(name.into());
                Ok(())
            }
            fn end(self) -> Result<NewValue> {
                let new_value = NewValue::Entity(self.properties);
                Ok(match self.variant {
                    Some(name) => variant(name, new_value),
                    None => new_value,
                })
            }
        }
    )*};
}

fields!(SerializeStruct SerializeStructVariant);

impl SerializeMap for Entries {
    type Ok = NewValue;
    type Error = ValueError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<()> {
        self.key = match key.serialize(NAME)? {
            NewValue::String(name) => name,
            NewValue::Integer(number) => number.to_string(),
            NewValue::Boolean(flag) => flag.to_string(),
            _ => {
                return Err(ValueError::new(
                    "a key of the map is not a string, an integer or a boolean: use one of them",
                ));
            }
        };
        Ok(())
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        let name = std::mem::take(&mut self.key);
        self.properties.try_insert(&name, value.serialize(VALUE))
    }
    fn end(self) -> Result<NewValue> {
        Ok(NewValue::Entity(self.properties))
    }
}
