//! Deserializes a user from properties.

use std::collections::HashMap;

use gcloud_sdk::google::datastore::v1::Value;
use gcloud_sdk::google::datastore::v1::value::ValueType;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer,
    MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::error::{Result, ValueError};
use super::types::{SYSTEM_TIME, from_key, from_lat_lng, from_timestamp};

/// The id or name in a user's key, which is read as if it were a property.
pub(crate) struct KeyId<'a> {
    /// The name of that property.
    pub(crate) property: &'a str,
    /// The id, or `None` if the key has a name.
    pub(crate) number: Option<i64>,
    /// The id or name, as text.
    pub(crate) text: &'a str,
}

/// Reads a user from the properties of an entity. The key's id takes precedence over a property of
/// the same name.
pub(crate) fn read<T: DeserializeOwned>(
    properties: HashMap<String, Value>,
    id: Option<KeyId<'_>>,
) -> Result<T> {
    T::deserialize(EntityDeserializer { properties, id })
}

/// Returns serde's names of a struct's fields. Returns `None` for a type that is not a struct, and
/// for a struct with a flattened field.
pub(crate) fn fields<T: DeserializeOwned>() -> Option<&'static [&'static str]> {
    let mut fields = None;
    // The deserializer sets `fields` and always returns an error.
    let _ = T::deserialize(FieldRecorder(&mut fields));
    fields
}

/// A deserializer that records the names of a struct's fields, and returns an error instead of a
/// value.
struct FieldRecorder<'a>(&'a mut Option<&'static [&'static str]>);

impl<'de> Deserializer<'de> for FieldRecorder<'_> {
    type Error = ValueError;

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value> {
        Err(ValueError::new("only the names of the fields were asked for"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: Name,
        fields: Names,
        visitor: V,
    ) -> Result<V::Value> {
        *self.0 = Some(fields);
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// The name of a type, as serde passes it.
type Name = &'static str;
/// The names of a type's fields or variants, as serde passes them.
type Names = &'static [&'static str];

struct EntityDeserializer<'a> {
    properties: HashMap<String, Value>,
    id: Option<KeyId<'a>>,
}

impl<'de> Deserializer<'de> for EntityDeserializer<'_> {
    type Error = ValueError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_map(PropertyAccess::new(self.properties, self.id))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: Name,
        fields: Names,
        visitor: V,
    ) -> Result<V::Value> {
        // A type without a field for the id may have `deny_unknown_fields`.
        let id = self.id.filter(|id| fields.contains(&id.property));
        visitor.visit_map(PropertyAccess::new(self.properties, id))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: Name, visitor: V) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// Provides the properties of an entity, one after the other.
struct PropertyAccess<'a> {
    id: Option<KeyId<'a>>,
    rest: std::collections::hash_map::IntoIter<String, Value>,
    /// The property whose name was returned last, and whose value is returned next.
    next: Option<(String, NextValue<'a>)>,
}

enum NextValue<'a> {
    Id(KeyId<'a>),
    Value(Value),
}

impl<'a> PropertyAccess<'a> {
    fn new(mut properties: HashMap<String, Value>, id: Option<KeyId<'a>>) -> Self {
        if let Some(id) = &id {
            properties.remove(id.property);
        }
        Self { id, rest: properties.into_iter(), next: None }
    }
}

impl<'de> MapAccess<'de> for PropertyAccess<'_> {
    type Error = ValueError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        self.next = match self.id.take() {
            Some(id) => Some((id.property.to_owned(), NextValue::Id(id))),
            None => self.rest.next().map(|(name, value)| (name, NextValue::Value(value))),
        };
        let name = self.next.as_ref().map(|(name, _)| name);
        name.map(|name| seed.deserialize(NameDeserializer(name))).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value> {
        let Some((name, next)) = self.next.take() else {
            return Err(ValueError::new("the user type asked for a value before its name"));
        };
        let read = match next {
            NextValue::Id(id) => seed.deserialize(IdDeserializer(id)),
            NextValue::Value(value) => seed.deserialize(ValueDeserializer(value)),
        };
        read.map_err(|error| error.within(&name))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len() + usize::from(self.id.is_some()))
    }
}

/// Deserializes numbers from text. A text that is not a number is passed on as a string.
macro_rules! numbers {
    () => {
        numbers! {
            deserialize_i8 visit_i8 deserialize_i16 visit_i16 deserialize_i32 visit_i32
            deserialize_i64 visit_i64 deserialize_i128 visit_i128
            deserialize_u8 visit_u8 deserialize_u16 visit_u16 deserialize_u32 visit_u32
            deserialize_u64 visit_u64 deserialize_u128 visit_u128
        }
    };
    ($($method:ident $visit:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
            match self.text().parse() {
                Ok(number) => visitor.$visit(number),
                Err(_) => visitor.visit_str(self.text()),
            }
        }
    )*};
}

/// Deserializes a property's name, as the key of a map or the name of a field.
struct NameDeserializer<'a>(&'a str);

impl NameDeserializer<'_> {
    fn text(&self) -> &str {
        self.0
    }
}

impl<'de> Deserializer<'de> for NameDeserializer<'_> {
    type Error = ValueError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_str(self.0)
    }

    numbers! {}
    numbers! { deserialize_bool visit_bool }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: Name, visitor: V) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(self, _: Name, _: Names, visitor: V) -> Result<V::Value> {
        visitor.visit_enum(self.0.into_deserializer())
    }

    serde::forward_to_deserialize_any! {
        f32 f64 char str string bytes byte_buf option unit unit_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }
}

/// Deserializes the id or name in a user's key: as text if the field is a string, and as a number
/// if the field is a number.
struct IdDeserializer<'a>(KeyId<'a>);

impl IdDeserializer<'_> {
    fn text(&self) -> &str {
        self.0.text
    }
}

impl<'de> Deserializer<'de> for IdDeserializer<'_> {
    type Error = ValueError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.0.number {
            Some(number) => visitor.visit_i64(number),
            None => visitor.visit_str(self.0.text),
        }
    }

    numbers! {}

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_str(self.0.text)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_str(self.0.text)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: Name, visitor: V) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    serde::forward_to_deserialize_any! {
        bool f32 f64 char bytes byte_buf unit unit_struct seq tuple tuple_struct map struct enum identifier
        ignored_any
    }
}

/// Deserializes the value of a property.
struct ValueDeserializer(Value);

impl ValueDeserializer {
    /// Visits the elements of an array, or the bytes of a blob as if they were elements.
    fn elements<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.0.value_type {
            Some(ValueType::BlobValue(bytes)) => {
                let integer_value = |byte: u8| Value {
                    value_type: Some(ValueType::IntegerValue(byte.into())),
                    ..Value::default()
                };
                visitor.visit_seq(ElementAccess {
                    values: bytes.into_iter().map(integer_value),
                    index: 0,
                })
            }
            _ => self.deserialize_any(visitor),
        }
    }
}

impl<'de> Deserializer<'de> for ValueDeserializer {
    type Error = ValueError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let Some(value) = self.0.value_type else { return visitor.visit_unit() };
        match value {
            ValueType::NullValue(_) => visitor.visit_unit(),
            ValueType::BooleanValue(value) => visitor.visit_bool(value),
            ValueType::IntegerValue(value) => visitor.visit_i64(value),
            ValueType::DoubleValue(value) => visitor.visit_f64(value),
            ValueType::TimestampValue(value) => visitor.visit_string(value.to_string()),
            ValueType::StringValue(value) => visitor.visit_string(value),
            ValueType::BlobValue(value) => visitor.visit_byte_buf(value),
            ValueType::ArrayValue(array) => {
                visitor.visit_seq(ElementAccess { values: array.values.into_iter(), index: 0 })
            }
            ValueType::EntityValue(entity) => {
                visitor.visit_map(PropertyAccess::new(entity.properties, None))
            }
            ValueType::KeyValue(key) => Self(from_key(key)).deserialize_any(visitor),
            ValueType::GeoPointValue(place) => {
                Self(from_lat_lng(place.latitude, place.longitude)).deserialize_any(visitor)
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.0.value_type {
            None | Some(ValueType::NullValue(_)) => visitor.visit_none(),
            Some(_) => visitor.visit_some(self),
        }
    }

    /// Also reads 0 and 1, because other applications write flags as numbers.
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.0.value_type {
            Some(ValueType::IntegerValue(flag @ (0 | 1))) => visitor.visit_bool(flag == 1),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: Name, visitor: V) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: Name,
        _: Names,
        visitor: V,
    ) -> Result<V::Value> {
        match (name, self.0.value_type) {
            (SYSTEM_TIME, Some(ValueType::TimestampValue(timestamp))) => {
                Self(from_timestamp(timestamp)).deserialize_any(visitor)
            }
            (_, value_type) => Self(Value { value_type, ..self.0 }).deserialize_any(visitor),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.elements(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _length: usize, visitor: V) -> Result<V::Value> {
        self.elements(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(self, _: Name, _: Names, visitor: V) -> Result<V::Value> {
        match self.0.value_type {
            Some(ValueType::StringValue(name)) => visitor.visit_enum(name.into_deserializer()),
            Some(ValueType::EntityValue(entity)) if entity.properties.len() == 1 => {
                visitor.visit_enum(VariantAccessor(PropertyAccess::new(entity.properties, None)))
            }
            _ => Err(ValueError::custom(
                "expected a variant of an enum: a string, or an embedded entity of one property",
            )),
        }
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct tuple_struct map identifier ignored_any
    }
}

/// Provides the elements of an array, one after the other.
struct ElementAccess<I> {
    values: I,
    index: usize,
}

impl<'de, I: ExactSizeIterator<Item = Value>> SeqAccess<'de> for ElementAccess<I> {
    type Error = ValueError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        let index = self.index;
        self.index += 1;
        let read = self.values.next().map(|value| seed.deserialize(ValueDeserializer(value)));
        read.transpose().map_err(|error| error.at(index))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.values.len())
    }
}

/// Provides the name and the data of an enum's variant, from an embedded entity of one property.
struct VariantAccessor(PropertyAccess<'static>);

impl<'de> EnumAccess<'de> for VariantAccessor {
    type Error = ValueError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(mut self, seed: V) -> Result<(V::Value, Self)> {
        let name = self.0.next_key_seed(seed)?;
        Ok((name.ok_or_else(|| ValueError::new("the variant has no name"))?, self))
    }
}

impl<'de> VariantAccess<'de> for VariantAccessor {
    type Error = ValueError;

    fn unit_variant(mut self) -> Result<()> {
        self.0.next_value()
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(mut self, seed: T) -> Result<T::Value> {
        self.0.next_value_seed(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(mut self, _: usize, visitor: V) -> Result<V::Value> {
        self.0.next_value_seed(DeserializeAny(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(mut self, _: Names, visitor: V) -> Result<V::Value> {
        self.0.next_value_seed(DeserializeAny(visitor))
    }
}

/// Calls `deserialize_any` with this visitor.
struct DeserializeAny<V>(V);

impl<'de, V: Visitor<'de>> DeserializeSeed<'de> for DeserializeAny<V> {
    type Value = V::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        deserializer.deserialize_any(self.0)
    }
}
