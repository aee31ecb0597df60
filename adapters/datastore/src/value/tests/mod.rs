use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime};

use gcloud_sdk::google::datastore::v1::key::path_element::IdType;
use gcloud_sdk::google::datastore::v1::value::ValueType;
use gcloud_sdk::google::datastore::v1::{ArrayValue, Entity, Key, PartitionId, Value, key};
use gcloud_sdk::google::r#type;
use gcloud_sdk::prost_types::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::*;

mod merged;
mod read;

type Stored = HashMap<String, Value>;

fn of(value_type: ValueType) -> Value {
    Value { value_type: Some(value_type), ..Value::default() }
}

fn text(text: &str) -> Value {
    of(ValueType::StringValue(text.to_owned()))
}

fn integer(number: i64) -> Value {
    of(ValueType::IntegerValue(number))
}

fn double(number: f64) -> Value {
    of(ValueType::DoubleValue(number))
}

fn null() -> Value {
    of(ValueType::NullValue(0))
}

fn blob(bytes: &[u8]) -> Value {
    of(ValueType::BlobValue(bytes.to_vec()))
}

fn array(values: impl Into<Vec<Value>>) -> Value {
    of(ValueType::ArrayValue(ArrayValue { values: values.into() }))
}

fn entity<const N: usize>(properties: [(&str, Value); N]) -> Value {
    of(ValueType::EntityValue(Entity { key: None, properties: stored(properties) }))
}

fn at(seconds: i64, nanos: i32) -> Value {
    of(ValueType::TimestampValue(Timestamp { seconds, nanos }))
}

fn place(latitude: f64, longitude: f64) -> Value {
    of(ValueType::GeoPointValue(r#type::LatLng { latitude, longitude }))
}

fn key(project: &str) -> Value {
    let element = |kind: &str, id| key::PathElement { kind: kind.to_owned(), id_type: Some(id) };
    of(ValueType::KeyValue(Key {
        partition_id: Some(PartitionId {
            project_id: project.to_owned(),
            database_id: String::new(),
            namespace_id: "ns".to_owned(),
        }),
        path: vec![element("Tenant", IdType::Name("acme".into())), element("User", IdType::Id(7))],
    }))
}

fn unindexed(mut value: Value) -> Value {
    value.exclude_from_indexes = true;
    value
}

fn stored<const N: usize>(properties: [(&str, Value); N]) -> Stored {
    properties.map(|(name, value)| (name.to_owned(), value)).into()
}

fn partition() -> PartitionId {
    PartitionId { project_id: "own".to_owned(), ..PartitionId::default() }
}

/// Returns what is stored after `value` is written over `before`.
fn after<T: Serialize>(before: &Stored, value: &T) -> Stored {
    with_unindexed(before, value, &[])
}

/// Returns the same, if new properties in `unindexed` are excluded from indexes.
fn with_unindexed<T: Serialize>(before: &Stored, value: &T, unindexed: &[String]) -> Stored {
    merge(before, &Properties::default(), write(value).unwrap(), unindexed, &partition())
}

/// Returns what is stored after `value` is written over `before`, if the same type wrote `was`
/// there.
fn changed<T: Serialize>(before: &Stored, was: &T, value: &T) -> Stored {
    merge(before, &write(was).unwrap(), write(value).unwrap(), &[], &partition())
}

fn read_back<T: DeserializeOwned>(properties: &Stored) -> T {
    read(properties.clone(), None).unwrap()
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Everything {
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

fn everything() -> Everything {
    let here = LatLng { latitude: 52.5, longitude: -13.25 };
    Everything {
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

#[derive(Serialize)]
struct Known {
    name: String,
}

fn known(name: &str) -> Known {
    Known { name: name.to_owned() }
}

#[test]
fn every_type_is_written_as_its_property_and_read_back() {
    let written = after(&Stored::new(), &everything());
    let expected = stored([
        ("nothing", null()),
        ("something", text("é")),
        ("unit", null()),
        ("flag", of(ValueType::BooleanValue(true))),
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
        ("named", entity([("Named", entity([("value", of(ValueType::BooleanValue(true)))]))])),
        ("time", at(1_800_000_000, 123_456_000)),
        ("maybe", null()),
        ("key", key("p")),
        ("place", place(52.5, -13.25)),
        ("listed", array([place(52.5, -13.25), place(52.5, -13.25)])),
    ]);
    for (name, value) in &expected {
        assert_eq!(written.get(name), Some(value), "{name}");
    }
    assert_eq!(written.len(), expected.len());
    assert_eq!(read_back::<Everything>(&written), everything());
    assert_eq!(after(&written, &everything()), written, "once more changes nothing");
}

#[test]
fn what_datastore_cannot_hold_is_refused_with_its_place() {
    #[derive(Serialize)]
    struct One<T> {
        field: T,
    }
    fn refused<T: Serialize>(field: T) -> String {
        write(&One { field }).map(drop).unwrap_err().to_string()
    }
    assert_eq!(refused(u64::MAX), "property `field`: an integer has 64 bits, with a sign");
    assert_eq!(
        refused(vec![vec![1]]),
        "property `field[0]`: Datastore has no arrays within arrays"
    );
    for (name, says) in
        [("", "empty"), ("__key__", "Datastore's own"), (&"a".repeat(1_501), "1,500")]
    {
        let message = refused(BTreeMap::from([(name, 1)]));
        assert!(message.starts_with("property `field.") && message.contains(says), "{message}");
    }
    assert!(refused(BTreeMap::from([(vec![1], 1)])).contains("strings, integers or"));
    #[derive(Serialize)]
    struct Timed(#[serde(with = "timestamp")] String);
    for no_time in ["soon", "2027-01-15", "2027-01-15T08:00:00", "2027-01-15 08:00:00"] {
        let message = refused(Timed(no_time.to_owned()));
        assert!(message.contains("RFC 3339 text with its zone"), "{no_time}: {message}");
    }
    for time in ["2027-01-15T08:00:00Z", "2027-01-15T08:00:00+01:00", "2027-01-15T08:00:00-01:00"] {
        assert!(write(&One { field: Timed(time.to_owned()) }).is_ok(), "{time}");
    }
    for no_entity in [write(&7), write("text"), write(&[1])] {
        assert!(no_entity.is_err());
    }
}

#[test]
fn a_key_without_a_project_is_of_the_stores_own() {
    let own = EntityKey { project: String::new(), ..everything().key };
    let written = after(&Stored::new(), &BTreeMap::from([("key", own)]));
    assert_eq!(written["key"], key("own"));
}
