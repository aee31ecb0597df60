//! Serializes a user to properties, before they are merged with the stored ones.

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
use crate::keys::{MAX_NAME, is_reserved};

/// How many bytes of a text or a blob count as one value.
const BYTES_LIKE_ONE: usize = 64;

/// A value to write.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Plain {
    Null,
    Boolean(bool),
    Integer(i64),
    Double(f64),
    String(String),
    Blob(Vec<u8>),
    Array(Vec<Plain>),
    Entity(Properties),
    Timestamp(Timestamp),
    Key(Key),
    LatLng(LatLng),
}

impl Plain {
    /// Returns how much work it is to compare this value.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::String(text) => 1 + text.len() / BYTES_LIKE_ONE,
            Self::Blob(bytes) => 1 + bytes.len() / BYTES_LIKE_ONE,
            Self::Array(elements) => 1 + elements.iter().map(Self::size).sum::<usize>(),
            Self::Entity(properties) => {
                1 + properties.written.values().map(Self::size).sum::<usize>()
            }
            _ => 1,
        }
    }
}

/// Properties to write.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Properties {
    pub(crate) written: BTreeMap<String, Plain>,
    /// Properties that the type has, and that have to be removed now (`skip_serializing_if`).
    pub(crate) skipped: Vec<Cow<'static, str>>,
    /// Whether these are all properties, as in a map, so that others have to be removed.
    pub(crate) is_all: bool,
}

impl Properties {
    pub(crate) fn get(&self, name: &str) -> Option<&Plain> {
        self.written.get(name)
    }

    /// Adds a property, or replaces it. The name has to be valid.
    pub(crate) fn insert(&mut self, name: &str, plain: Plain) {
        self.written.insert(name.to_owned(), plain);
    }

    /// Neither writes nor removes this property.
    pub(crate) fn leave_unchanged(&mut self, name: &str) {
        self.written.remove(name);
        self.skipped.retain(|skipped| skipped != name);
    }

    /// Adds a property if its name is valid and its value can be written.
    fn try_insert(&mut self, name: &str, plain: Result<Plain>) -> Result<()> {
        let words = match name.len() {
            _ if is_reserved(name) => "names that begin and end with __ are Datastore's own",
            1..=MAX_NAME => {
                self.insert(name, plain.map_err(|error| error.within(name))?);
                return Ok(());
            }
            0 => "a property's name can't be empty",
            _ => "a property's name has at most 1,500 bytes",
        };
        Err(ValueError::new(words).within(name))
    }
}

/// Returns the properties of a struct or a map.
pub(crate) fn write<T: Serialize + ?Sized>(value: &T) -> Result<Properties> {
    match value.serialize(VALUE)? {
        Plain::Entity(properties) => Ok(properties),
        _ => Err(ValueError::new("an entity is a struct or a map")),
    }
}

/// Serializes a value, or the key of a map, where integers of any size are allowed.
#[derive(Clone, Copy)]
pub(super) struct ToPlain {
    is_name: bool,
}

const VALUE: ToPlain = ToPlain { is_name: false };
const NAME: ToPlain = ToPlain { is_name: true };

impl ToPlain {
    fn integer<T: TryInto<i64> + ToString + Copy>(self, value: T) -> Result<Plain> {
        match value.try_into() {
            Ok(value) => Ok(Plain::Integer(value)),
            Err(_) if self.is_name => Ok(Plain::String(value.to_string())),
            Err(_) => Err(ValueError::new("an integer has 64 bits, with a sign")),
        }
    }
}

pub(super) struct Elements(Vec<Plain>, Option<&'static str>);
pub(super) struct Fields(Properties, Option<&'static str>);
pub(super) struct Entries(Properties, String);

/// Returns a variant with data.
fn variant(name: &'static str, plain: Plain) -> Plain {
    let written = BTreeMap::from([(name.to_owned(), plain)]);
    Plain::Entity(Properties { written, skipped: Vec::new(), is_all: true })
}

impl Serializer for ToPlain {
    type Ok = Plain;
    type Error = ValueError;
    type SerializeSeq = Elements;
    type SerializeTuple = Elements;
    type SerializeTupleStruct = Elements;
    type SerializeTupleVariant = Elements;
    type SerializeMap = Entries;
    type SerializeStruct = Fields;
    type SerializeStructVariant = Fields;

    fn serialize_bool(self, value: bool) -> Result<Plain> {
        Ok(Plain::Boolean(value))
    }
    fn serialize_i8(self, value: i8) -> Result<Plain> {
        Ok(Plain::Integer(value.into()))
    }
    fn serialize_i16(self, value: i16) -> Result<Plain> {
        Ok(Plain::Integer(value.into()))
    }
    fn serialize_i32(self, value: i32) -> Result<Plain> {
        Ok(Plain::Integer(value.into()))
    }
    fn serialize_i64(self, value: i64) -> Result<Plain> {
        Ok(Plain::Integer(value))
    }
    fn serialize_i128(self, value: i128) -> Result<Plain> {
        self.integer(value)
    }
    fn serialize_u8(self, value: u8) -> Result<Plain> {
        Ok(Plain::Integer(value.into()))
    }
    fn serialize_u16(self, value: u16) -> Result<Plain> {
        Ok(Plain::Integer(value.into()))
    }
    fn serialize_u32(self, value: u32) -> Result<Plain> {
        Ok(Plain::Integer(value.into()))
    }
    fn serialize_u64(self, value: u64) -> Result<Plain> {
        self.integer(value)
    }
    fn serialize_u128(self, value: u128) -> Result<Plain> {
        self.integer(value)
    }
    fn serialize_f32(self, value: f32) -> Result<Plain> {
        Ok(Plain::Double(value.into()))
    }
    fn serialize_f64(self, value: f64) -> Result<Plain> {
        Ok(Plain::Double(value))
    }
    fn serialize_char(self, value: char) -> Result<Plain> {
        Ok(Plain::String(value.into()))
    }
    fn serialize_str(self, value: &str) -> Result<Plain> {
        Ok(Plain::String(value.to_owned()))
    }
    fn serialize_bytes(self, value: &[u8]) -> Result<Plain> {
        Ok(Plain::Blob(value.to_owned()))
    }
    fn serialize_none(self) -> Result<Plain> {
        Ok(Plain::Null)
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Plain> {
        value.serialize(self)
    }
    fn serialize_unit(self) -> Result<Plain> {
        Ok(Plain::Null)
    }
    fn serialize_unit_struct(self, _name: &'static str) -> Result<Plain> {
        Ok(Plain::Null)
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, name: &'static str) -> Result<Plain> {
        Ok(Plain::String(name.to_owned()))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<Plain> {
        let plain = value.serialize(self)?;
        match (name, &plain) {
            (TIMESTAMP, Plain::Null) => Ok(plain),
            (TIMESTAMP, _) => types::to_timestamp(&plain).map(Plain::Timestamp).ok_or_else(|| {
                ValueError::new(
                    "a timestamp is written from RFC 3339 text with its zone, or a SystemTime",
                )
            }),
            (KEY, _) => types::to_key(&plain).map(Plain::Key).ok_or_else(|| {
                ValueError::new("a key's path has a kind and an id or a name at each step")
            }),
            (LAT_LNG, _) => types::to_lat_lng(&plain)
                .map(Plain::LatLng)
                .ok_or_else(|| ValueError::new("a lat/lng is two doubles")),
            _ => Ok(plain),
        }
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        value: &T,
    ) -> Result<Plain> {
        Ok(variant(name, value.serialize(VALUE).map_err(|error| error.within(name))?))
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Elements> {
        Ok(Elements(Vec::with_capacity(length.unwrap_or(0).min(1_024)), None))
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
        Ok(Elements(Vec::new(), Some(name)))
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Entries> {
        // A map knows how many entries it has. A struct with a flattened field is written as a map,
        // too, but without a length. It does not contain all properties.
        let is_all = length.is_some();
        Ok(Entries(Properties { is_all, ..Properties::default() }, String::new()))
    }
    fn serialize_struct(self, _: &'static str, _length: usize) -> Result<Fields> {
        Ok(Fields(Properties::default(), None))
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        _length: usize,
    ) -> Result<Fields> {
        Ok(Fields(Properties::default(), Some(name)))
    }
}

impl Elements {
    fn push<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        let index = self.0.len();
        let plain = match value.serialize(VALUE) {
            Ok(Plain::Array(_)) => Err(ValueError::new("Datastore has no arrays within arrays")),
            other => other,
        };
        self.0.push(plain.map_err(|error| error.at(index))?);
        Ok(())
    }

    fn done(self) -> Result<Plain> {
        let plain = Plain::Array(self.0);
        Ok(match self.1 {
            Some(name) => variant(name, plain),
            None => plain,
        })
    }
}

macro_rules! elements {
    ($($trait:ident $push:ident)*) => {$(
        impl $trait for Elements {
            type Ok = Plain;
            type Error = ValueError;

            fn $push<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
                self.push(value)
            }
            fn end(self) -> Result<Plain> {
                self.done()
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
            type Ok = Plain;
            type Error = ValueError;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<()> {
                self.0.try_insert(name, value.serialize(VALUE))
            }
            fn skip_field(&mut self, name: &'static str) -> Result<()> {
                self.0.skipped.push(name.into());
                Ok(())
            }
            fn end(self) -> Result<Plain> {
                let plain = Plain::Entity(self.0);
                Ok(match self.1 {
                    Some(name) => variant(name, plain),
                    None => plain,
                })
            }
        }
    )*};
}

fields!(SerializeStruct SerializeStructVariant);

impl SerializeMap for Entries {
    type Ok = Plain;
    type Error = ValueError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<()> {
        self.1 = match key.serialize(NAME)? {
            Plain::String(name) => name,
            Plain::Integer(number) => number.to_string(),
            Plain::Boolean(flag) => flag.to_string(),
            _ => return Err(ValueError::new("a map's keys are strings, integers or booleans")),
        };
        Ok(())
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        let name = std::mem::take(&mut self.1);
        self.0.try_insert(&name, value.serialize(VALUE))
    }
    fn end(self) -> Result<Plain> {
        Ok(Plain::Entity(self.0))
    }
}
