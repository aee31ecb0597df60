use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime};

use gcloud_sdk::google::datastore::v1::key::path_element::IdType;
use gcloud_sdk::google::datastore::v1::value::ValueType;
use gcloud_sdk::google::datastore::v1::{ArrayValue, Entity, Key, PartitionId, Value, key};
use gcloud_sdk::google::r#type;
use gcloud_sdk::prost_types::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::de::{KeyId, fields, read};
use super::merge::merge;
use super::ser::{NewProperties, write};
use super::types::{EntityKey, LatLng, PathElement, null_as_default, timestamp};

mod merged;
mod read;

type StoredProperties = HashMap<String, Value>;

fn value_of(value_type: ValueType) -> Value {
    Value { value_type: Some(value_type), ..Value::default() }
}

fn text(text: &str) -> Value {
    value_of(ValueType::StringValue(text.to_owned()))
}

fn integer(number: i64) -> Value {
    value_of(ValueType::IntegerValue(number))
}

fn double(number: f64) -> Value {
    value_of(ValueType::DoubleValue(number))
}

fn null() -> Value {
    value_of(ValueType::NullValue(0))
}

fn blob(bytes: &[u8]) -> Value {
    value_of(ValueType::BlobValue(bytes.to_vec()))
}

fn array(values: impl Into<Vec<Value>>) -> Value {
    value_of(ValueType::ArrayValue(ArrayValue { values: values.into() }))
}

fn entity<const N: usize>(entries: [(&str, Value); N]) -> Value {
    value_of(ValueType::EntityValue(Entity { key: None, properties: properties(entries) }))
}

fn time(seconds: i64, nanos: i32) -> Value {
    value_of(ValueType::TimestampValue(Timestamp { seconds, nanos }))
}

fn place(latitude: f64, longitude: f64) -> Value {
    value_of(ValueType::GeoPointValue(r#type::LatLng { latitude, longitude }))
}

fn key_in_project(project: &str) -> Value {
    let step = |kind: &str, id| key::PathElement { kind: kind.to_owned(), id_type: Some(id) };
    value_of(ValueType::KeyValue(Key {
        partition_id: Some(PartitionId {
            project_id: project.to_owned(),
            database_id: String::new(),
            namespace_id: "ns".to_owned(),
        }),
        path: vec![step("Tenant", IdType::Name("acme".into())), step("User", IdType::Id(7))],
    }))
}

fn unindexed(mut value: Value) -> Value {
    value.exclude_from_indexes = true;
    value
}

fn properties<const N: usize>(entries: [(&str, Value); N]) -> StoredProperties {
    entries.map(|(name, value)| (name.to_owned(), value)).into()
}

fn partition() -> PartitionId {
    PartitionId { project_id: "own".to_owned(), ..PartitionId::default() }
}

/// Returns the stored properties after `value` is written over `stored`.
fn write_over<T: Serialize>(stored: &StoredProperties, value: &T) -> StoredProperties {
    write_over_unindexed(stored, value, &[])
}

/// Like `write_over`, with properties that are excluded from indexes when they are first written.
fn write_over_unindexed<T: Serialize>(
    stored: &StoredProperties,
    value: &T,
    unindexed: &[String],
) -> StoredProperties {
    merge(stored, &NewProperties::default(), write(value).unwrap(), unindexed, &partition())
}

/// Returns the stored properties after `value` is written over `stored`. `previous` is the value of
/// the same type that is stored.
fn write_over_previous<T: Serialize>(
    stored: &StoredProperties,
    previous: &T,
    value: &T,
) -> StoredProperties {
    merge(stored, &write(previous).unwrap(), write(value).unwrap(), &[], &partition())
}

fn read_back<T: DeserializeOwned>(properties: &StoredProperties) -> T {
    read(properties.clone(), None).unwrap()
}

/// A user type with a field of every supported type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct EveryType {
    nothing: Option<String>,
    something: Option<String>,
    unit: (),
    flag: bool,
    small: i8,
    large: u32,
    long: i64,
    wide: u128,
    single: f32,
    double: f64,
    letter: char,
    text: String,
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
    list: Vec<u16>,
    pair: (String, i64),
    nested: Inner,
    many: Vec<Inner>,
    by_name: BTreeMap<String, i64>,
    by_number: BTreeMap<u32, String>,
    wrapped: Wrapped,
    plain: Kind,
    one: Kind,
    two: Kind,
    named: Kind,
    #[serde(with = "timestamp")]
    time: SystemTime,
    #[serde(with = "timestamp")]
    maybe: Option<SystemTime>,
    key: EntityKey,
    place: LatLng,
    listed: Vec<LatLng>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Inner {
    value: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Wrapped(String);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Kind {
    Plain,
    One(i64),
    Two(i64, String),
    Named { value: bool },
}

fn every_type() -> EveryType {
    let here = LatLng { latitude: 52.5, longitude: -13.25 };
    EveryType {
        nothing: None,
        something: Some("é".to_owned()),
        unit: (),
        flag: true,
        small: -7,
        large: u32::MAX,
        long: i64::MIN,
        wide: 1 << 62,
        single: 0.5,
        double: -1e300,
        letter: '🦀',
        text: "a\0b".to_owned(),
        bytes: vec![0, 255],
        list: vec![1, 2],
        pair: ("x".to_owned(), 3),
        nested: Inner { value: 1 },
        many: vec![Inner { value: 2 }, Inner { value: 3 }],
        by_name: [("a".to_owned(), 1)].into(),
        by_number: [(7, "seven".to_owned())].into(),
        wrapped: Wrapped("w".to_owned()),
        plain: Kind::Plain,
        one: Kind::One(1),
        two: Kind::Two(2, "b".to_owned()),
        named: Kind::Named { value: true },
        time: SystemTime::UNIX_EPOCH + Duration::new(1_800_000_000, 123_456_000),
        maybe: None,
        key: EntityKey {
            project: "p".to_owned(),
            database: String::new(),
            namespace: "ns".to_owned(),
            path: vec![
                PathElement::Name("Tenant".to_owned(), "acme".to_owned()),
                PathElement::Id("User".to_owned(), 7),
            ],
        },
        place: here,
        listed: vec![here, here],
    }
}

/// A type that has none of the other properties that the tests store.
#[derive(Serialize)]
struct OnlyName {
    name: String,
}

fn only_name(name: &str) -> OnlyName {
    OnlyName { name: name.to_owned() }
}

#[test]
fn every_type_is_written_as_its_property_and_read_back() {
    let written = write_over(&StoredProperties::new(), &every_type());
    let expected = properties([
        ("nothing", null()),
        ("something", text("é")),
        ("unit", null()),
        ("flag", value_of(ValueType::BooleanValue(true))),
        ("small", integer(-7)),
        ("large", integer(4_294_967_295)),
        ("long", integer(i64::MIN)),
        ("wide", integer(1 << 62)),
        ("single", double(0.5)),
        ("double", double(-1e300)),
        ("letter", text("🦀")),
        ("text", text("a\0b")),
        ("bytes", blob(&[0, 255])),
        ("list", array([integer(1), integer(2)])),
        ("pair", array([text("x"), integer(3)])),
        ("nested", entity([("value", integer(1))])),
        ("many", array([entity([("value", integer(2))]), entity([("value", integer(3))])])),
        ("by_name", entity([("a", integer(1))])),
        ("by_number", entity([("7", text("seven"))])),
        ("wrapped", text("w")),
        ("plain", text("Plain")),
        ("one", entity([("One", integer(1))])),
        ("two", entity([("Two", array([integer(2), text("b")]))])),
        (
            "named",
            entity([("Named", entity([("value", value_of(ValueType::BooleanValue(true)))]))]),
        ),
        ("time", time(1_800_000_000, 123_456_000)),
        ("maybe", null()),
        ("key", key_in_project("p")),
        ("place", place(52.5, -13.25)),
        ("listed", array([place(52.5, -13.25), place(52.5, -13.25)])),
    ]);
    for (name, value) in &expected {
        assert_eq!(written.get(name), Some(value), "{name}");
    }
    assert_eq!(written.len(), expected.len());
    assert_eq!(read_back::<EveryType>(&written), every_type());
    assert_eq!(write_over(&written, &every_type()), written, "a second write changes nothing");
}

#[test]
fn the_error_for_a_value_that_datastore_cannot_store_names_its_path() {
    #[derive(Serialize)]
    struct OneField<T> {
        field: T,
    }
    fn error<T: Serialize>(field: T) -> String {
        write(&OneField { field }).map(drop).unwrap_err().to_string()
    }
    assert_eq!(
        error(u64::MAX),
        "property `field`: the integer does not fit in 64 bits with a sign (i64)"
    );
    assert!(error(vec![vec![1]]).starts_with("property `field[0]`: an array is an element"));
    for (name, problem) in
        [("", "empty"), ("__key__", "Datastore reserves"), (&"a".repeat(1_501), "1,500")]
    {
        let message = error(BTreeMap::from([(name, 1)]));
        assert!(message.starts_with("property `field.") && message.contains(problem), "{message}");
    }
    assert!(error(BTreeMap::from([(vec![1], 1)])).contains("not a string, an integer or"));
    #[derive(Serialize)]
    struct Timed(#[serde(with = "timestamp")] String);
    for no_time in ["soon", "2027-01-15", "2027-01-15T08:00:00", "2027-01-15 08:00:00"] {
        let message = error(Timed(no_time.to_owned()));
        assert!(message.contains("RFC 3339 text with its zone"), "{no_time}: {message}");
    }
    for time in ["2027-01-15T08:00:00Z", "2027-01-15T08:00:00+01:00", "2027-01-15T08:00:00-01:00"] {
        assert!(write(&OneField { field: Timed(time.to_owned()) }).is_ok(), "{time}");
    }
    for no_entity in [write(&7), write("text"), write(&[1])] {
        assert!(no_entity.is_err());
    }
}

#[test]
fn a_key_without_a_project_gets_the_project_of_the_store() {
    let key = EntityKey { project: String::new(), ..every_type().key };
    let written = write_over(&StoredProperties::new(), &BTreeMap::from([("key", key)]));
    assert_eq!(written["key"], key_in_project("own"));
}
