//! From the keys of a map to the names of properties.

use serde::ser::{Impossible, Serialize, Serializer};

use super::error::{Error, Result};

/// The key of a map as a property's name.
pub(super) struct ToName;

fn no_name<T>() -> Result<T> {
    Err(Error::new("a map's keys are strings or integers"))
}

macro_rules! numbers_as_names {
    ($($method:ident $type:ty)*) => {$(
        fn $method(self, value: $type) -> Result<String> {
            Ok(value.to_string())
        }
    )*};
}

impl Serializer for ToName {
    type Ok = String;
    type Error = Error;
    type SerializeSeq = Impossible<String, Error>;
    type SerializeTuple = Impossible<String, Error>;
    type SerializeTupleStruct = Impossible<String, Error>;
    type SerializeTupleVariant = Impossible<String, Error>;
    type SerializeMap = Impossible<String, Error>;
    type SerializeStruct = Impossible<String, Error>;
    type SerializeStructVariant = Impossible<String, Error>;

    numbers_as_names! {
        serialize_i8 i8 serialize_i16 i16 serialize_i32 i32 serialize_i64 i64 serialize_i128 i128
        serialize_u8 u8 serialize_u16 u16 serialize_u32 u32 serialize_u64 u64 serialize_u128 u128
        serialize_char char serialize_str &str serialize_bool bool
    }

    fn serialize_f32(self, _: f32) -> Result<String> {
        no_name()
    }
    fn serialize_f64(self, _: f64) -> Result<String> {
        no_name()
    }
    fn serialize_bytes(self, _: &[u8]) -> Result<String> {
        no_name()
    }
    fn serialize_none(self) -> Result<String> {
        no_name()
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<String> {
        value.serialize(self)
    }
    fn serialize_unit(self) -> Result<String> {
        no_name()
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result<String> {
        no_name()
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, name: &'static str) -> Result<String> {
        Ok(name.to_owned())
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<String> {
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<String> {
        no_name()
    }
    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq> {
        no_name()
    }
    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple> {
        no_name()
    }
    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct> {
        no_name()
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant> {
        no_name()
    }
    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap> {
        no_name()
    }
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeStruct> {
        no_name()
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant> {
        no_name()
    }
}
