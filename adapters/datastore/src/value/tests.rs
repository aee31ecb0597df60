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

/// What is stored after this was written over it.
fn after<T: Serialize>(before: &Stored, value: &T) -> Stored {
    merge(before, write(value).unwrap(), &[], &partition())
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
fn what_python_writes_is_read_by_the_types_that_people_use() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Read {
        joined: String,
        avatar: Vec<u8>,
        score: f64,
        tags: Vec<String>,
        settings: HashMap<String, serde_json::Value>,
        owner: EntityKey,
        home: LatLng,
        #[serde(default)]
        added_later: i64,
        never_set: Option<i64>,
    }
    let read: Read = read_back(&stored([
        ("joined", at(0, 500_000_000)),
        ("avatar", blob(b"png")),
        ("score", integer(5)),
        ("tags", array([])),
        ("settings", entity([("theme", text("dark")), ("since", at(1, 0)), ("n", double(0.5))])),
        ("owner", key("p")),
        ("home", place(1.0, 2.0)),
        ("unknown", text("to this type")),
    ]));
    assert_eq!(read.joined, "1970-01-01T00:00:00.500Z");
    assert_eq!((read.avatar.as_slice(), read.score, read.tags.len()), (&b"png"[..], 5.0, 0));
    assert_eq!(read.settings["since"], "1970-01-01T00:00:01Z");
    assert_eq!((read.settings["n"].as_f64(), &read.settings["theme"]), (Some(0.5), &"dark".into()));
    assert_eq!(read.owner, everything().key);
    assert_eq!(read.home, LatLng { latitude: 1.0, longitude: 2.0 });
    assert_eq!((read.added_later, read.never_set), (0, None));
}

#[test]
fn the_keys_id_is_a_field_for_who_asks_for_it() {
    let id = |number| Id { property: "id", number, text: "42" };
    let properties = || stored([("name", text("ada"))]);
    #[derive(Deserialize)]
    struct Number {
        id: i64,
        name: String,
    }
    for number in [Some(42), None] {
        let read: Number = read(properties(), Some(id(number))).unwrap();
        assert_eq!((read.id, &*read.name), (42, "ada"), "a name that is one, too");
    }
    #[derive(Deserialize)]
    struct Text {
        id: String,
    }
    #[derive(Deserialize)]
    struct Newtype(String);
    #[derive(Deserialize)]
    struct InNewtype {
        id: Option<Newtype>,
    }
    for number in [Some(42), None] {
        assert_eq!(read::<Text>(properties(), Some(id(number))).unwrap().id, "42");
        let read: InNewtype = read(properties(), Some(id(number))).unwrap();
        assert_eq!(read.id.unwrap().0, "42");
    }
    // It stands before a property of the same name.
    let own = stored([("name", text("ada")), ("id", text("another"))]);
    assert_eq!(read::<Text>(own, Some(id(None))).unwrap().id, "42");
    // A name is no number.
    let name = Id { text: "ada", ..id(None) };
    let error = read::<Number>(properties(), Some(name)).map(drop).unwrap_err();
    assert_eq!(error.to_string(), "property `id`: found string, expected i64");
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Strict {
        name: String,
    }
    assert_eq!(read::<Strict>(properties(), Some(id(None))).unwrap().name, "ada");
    #[derive(Deserialize)]
    struct Flattened {
        #[serde(flatten)]
        text: Text,
        #[serde(flatten)]
        rest: HashMap<String, serde_json::Value>,
    }
    let flattened: Flattened = read(properties(), Some(id(None))).unwrap();
    assert_eq!((&*flattened.text.id, flattened.rest.len()), ("42", 1));
}

#[test]
fn errors_name_the_property_and_quote_nothing() {
    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Outer {
        inner: Vec<Deep>,
    }
    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Deep {
        flag: bool,
        kind: Option<Kind>,
    }
    let yes = || of(ValueType::BooleanValue(true));
    for (deep, expected) in [
        (entity([("flag", text("secret"))]), "inner[1].flag`: found string, expected a boolean"),
        (entity([("flag", null())]), "inner[1].flag`: found null, expected a boolean"),
        (entity([]), "inner[1]`: missing field `flag`"),
        (text("secret"), "inner[1]`: found string, expected struct Deep"),
        (
            entity([("flag", yes()), ("kind", text("secret"))]),
            "inner[1].kind`: none of Plain, One,",
        ),
        (entity([("flag", yes()), ("kind", integer(7))]), "inner[1].kind`: a variant is a string,"),
        (
            entity([("flag", yes()), ("kind", entity([("One", text("secret"))]))]),
            "inner[1].kind.One`: found string, expected i64",
        ),
    ] {
        let inner = array([entity([("flag", yes())]), deep]);
        let error = read::<Outer>(stored([("inner", inner)]), None).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
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
        let said = refused(BTreeMap::from([(name, 1)]));
        assert!(said.starts_with("property `field.") && said.contains(says), "{said}");
    }
    assert!(refused(BTreeMap::from([(vec![1], 1)])).contains("strings, integers or"));
    #[derive(Serialize)]
    struct Timed(#[serde(with = "timestamp")] String);
    for no_time in ["soon", "2027-01-15", "2027-01-15T08:00:00", "2027-01-15 08:00:00"] {
        let said = refused(Timed(no_time.to_owned()));
        assert!(said.contains("RFC 3339 text with its zone"), "{no_time}: {said}");
    }
    for time in ["2027-01-15T08:00:00Z", "2027-01-15T08:00:00+01:00", "2027-01-15T08:00:00-01:00"] {
        assert!(write(&One { field: Timed(time.to_owned()) }).is_ok(), "{time}");
    }
    for no_entity in [write(&7), write("text"), write(&[1])] {
        assert!(no_entity.is_err());
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
fn a_write_keeps_what_the_type_does_not_know() {
    let before = stored([
        ("name", unindexed(text("ada"))),
        ("theme", unindexed(entity([("dark", integer(1))]))),
        ("tags", array([unindexed(text("a")), text("b")])),
        ("nothing", unindexed(null())),
    ]);
    let mut expected = before.clone();
    expected.insert("name".to_owned(), unindexed(text("grace")));
    assert_eq!(after(&before, &known("grace")), expected);
}

#[test]
fn index_flags_stay_whatever_the_value_becomes() {
    #[derive(Serialize)]
    struct Changed {
        text: Option<String>,
        list: Vec<String>,
        was_list: Option<String>,
        was_null: Vec<i64>,
        inner: Known,
    }
    let before = stored([
        ("text", unindexed(text("a"))),
        ("list", array([unindexed(text("a"))])),
        ("was_list", array([unindexed(text("a"))])),
        ("was_null", unindexed(null())),
        ("inner", unindexed(entity([("name", unindexed(text("a"))), ("more", text("b"))]))),
    ]);
    let changed = Changed {
        text: None,
        list: vec!["b".to_owned(), "c".to_owned()],
        was_list: None,
        was_null: vec![1],
        inner: known("b"),
    };
    let expected = stored([
        ("text", unindexed(null())),
        ("list", array([unindexed(text("b")), unindexed(text("c"))])),
        ("was_list", unindexed(null())),
        ("was_null", array([unindexed(integer(1))])),
        ("inner", unindexed(entity([("name", unindexed(text("b"))), ("more", text("b"))]))),
    ]);
    assert_eq!(after(&before, &changed), expected);
}

#[test]
fn new_properties_are_indexed_unless_told_otherwise_or_too_long() {
    let long = "a".repeat(1_501);
    for (name, is_excluded) in [("ada", false), (&long[..1_500], false), (&long, true)] {
        let written = after(&Stored::new(), &known(name));
        assert_eq!(written["name"].exclude_from_indexes, is_excluded);
    }
    // One that was indexed has to be excluded then, too.
    assert!(after(&stored([("name", text("ada"))]), &known(&long))["name"].exclude_from_indexes);
    let names = ["name".to_owned()];
    let written = merge(&Stored::new(), write(&known("ada")).unwrap(), &names, &partition());
    assert!(written["name"].exclude_from_indexes);
    let before = stored([("name", text("ada"))]);
    let written = merge(&before, write(&known("ada")).unwrap(), &names, &partition());
    assert!(!written["name"].exclude_from_indexes, "what is there keeps its own");
    let list = write(&BTreeMap::from([("name", ["a", "b"])])).unwrap();
    let written = merge(&Stored::new(), list, &names, &partition());
    assert_eq!(written["name"], array([unindexed(text("a")), unindexed(text("b"))]));
}

#[test]
fn a_property_keeps_its_type_where_it_can() {
    #[derive(Serialize)]
    struct Typed {
        time: &'static str,
        bytes: Vec<i64>,
        #[serde(with = "serde_bytes")]
        stamp: &'static [u8],
        float: i64,
        whole: f64,
        place: BTreeMap<&'static str, f64>,
    }
    let typed = |time, bytes: &[i64], stamp, float, whole, latitude| Typed {
        time,
        bytes: bytes.to_vec(),
        stamp,
        float,
        whole,
        place: [(latitude, 1.0), ("longitude", 2.0)].into(),
    };
    let before = stored([
        ("time", at(0, 0)),
        ("bytes", blob(b"a")),
        ("stamp", text("a")),
        ("float", double(0.5)),
        ("whole", integer(1)),
        ("place", place(0.0, 0.0)),
    ]);
    let can = typed("2027-01-15T08:00:00Z", &[0, 255], b"b", 2, 3.0, "latitude");
    let expected = stored([
        ("time", at(1_800_000_000, 0)),
        ("bytes", blob(&[0, 255])),
        ("stamp", text("b")),
        ("float", double(2.0)),
        ("whole", integer(3)),
        ("place", place(1.0, 2.0)),
    ]);
    assert_eq!(after(&before, &can), expected);
    let can_not = typed("soon", &[256], b"\xff", i64::MAX, 0.5, "other");
    let expected = stored([
        ("time", text("soon")),
        ("bytes", array([integer(256)])),
        ("stamp", blob(b"\xff")),
        ("float", integer(i64::MAX)),
        ("whole", double(0.5)),
        ("place", entity([("other", double(1.0)), ("longitude", double(2.0))])),
    ]);
    assert_eq!(after(&before, &can_not), expected);
    let meaning = Value { meaning: 15, ..text("a") };
    let before = stored([("name", meaning.clone())]);
    assert_eq!(after(&before, &known("b"))["name"].meaning, 15);
    assert_eq!(after(&before, &BTreeMap::from([("name", 7)]))["name"].meaning, 0);
}

#[test]
fn flags_and_nothing_are_read_as_python_writes_them() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Flags {
        flag: bool,
        #[serde(default, deserialize_with = "null_as_default")]
        list: Vec<i64>,
        #[serde(default, with = "serde_bytes")]
        bytes: Option<Vec<u8>>,
        #[serde(default, with = "timestamp")]
        time: Option<SystemTime>,
    }
    let flags = |flag| Flags { flag, list: vec![], bytes: None, time: None };
    for before in [
        stored([("flag", integer(1)), ("list", null()), ("bytes", null()), ("time", null())]),
        stored([("flag", integer(1))]),
    ] {
        assert_eq!(read_back::<Flags>(&before), flags(true));
        let after = after(&before, &flags(false));
        assert_eq!(after["flag"], integer(0), "whoever wrote a number reads one");
        assert_eq!(read_back::<Flags>(&after), flags(false));
    }
    assert!(read::<Flags>(stored([("flag", integer(2))]), None).is_err());
}

#[test]
fn a_plain_struct_tells_its_fields() {
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Flattened {
        #[serde(flatten)]
        inner: Inner,
    }
    assert_eq!(fields::<Inner>(), Some(&["value"][..]));
    assert_eq!(fields::<Flattened>(), None);
    assert_eq!(fields::<HashMap<String, i64>>(), None);
}

#[test]
fn a_key_without_a_project_is_of_the_stores_own() {
    let own = EntityKey { project: String::new(), ..everything().key };
    let written = after(&Stored::new(), &BTreeMap::from([("key", own)]));
    assert_eq!(written["key"], key("own"));
}

#[test]
fn what_is_skipped_goes_and_what_is_never_written_stays() {
    #[derive(Serialize)]
    struct Skipping {
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        locked: Option<i64>,
        #[serde(skip_serializing)]
        #[allow(dead_code)]
        password_hash: String,
    }
    let before = stored([("locked", integer(1)), ("password_hash", text("secret"))]);
    let skipping =
        Skipping { name: "ada".to_owned(), locked: None, password_hash: "another".to_owned() };
    let expected = stored([("name", text("ada")), ("password_hash", text("secret"))]);
    assert_eq!(after(&before, &skipping), expected);
}

#[test]
fn a_map_is_all_that_there_is_and_a_struct_is_not() {
    #[derive(Serialize)]
    struct Outer {
        map: BTreeMap<String, i64>,
        inner: Known,
        variant: Kind,
        flattened: Flattened,
    }
    #[derive(Serialize)]
    struct Flattened {
        #[serde(flatten)]
        known: Known,
    }
    let before = stored([
        ("map", entity([("a", integer(1)), ("b", integer(2))])),
        ("inner", entity([("name", text("ada")), ("more", integer(1))])),
        ("variant", entity([("Two", array([integer(2), text("b")]))])),
        ("flattened", entity([("name", text("ada")), ("more", integer(1))])),
    ]);
    let outer = Outer {
        map: [("b".to_owned(), 3)].into(),
        inner: known("grace"),
        variant: Kind::One(1),
        flattened: Flattened { known: known("grace") },
    };
    let inner = entity([("name", text("grace")), ("more", integer(1))]);
    let expected = stored([
        ("map", entity([("b", integer(3))])),
        ("inner", inner.clone()),
        ("variant", entity([("One", integer(1))])),
        ("flattened", inner),
    ]);
    assert_eq!(after(&before, &outer), expected);
}

#[test]
fn elements_keep_what_is_theirs_when_others_come_and_go() {
    let element = |name: &str, more: i64| entity([("name", text(name)), ("more", integer(more))]);
    let before = stored([("list", array([element("a", 1), element("b", 2), element("c", 3)]))]);
    let write_names = |names: &[&str]| {
        let list: Vec<_> = names.iter().map(|name| known(name)).collect();
        after(&before, &BTreeMap::from([("list", list)]))["list"].clone()
    };
    assert_eq!(write_names(&["b", "c"]), array([element("b", 2), element("c", 3)]));
    assert_eq!(write_names(&["c", "a"]), array([element("c", 3), element("a", 1)]));
    // One that has changed is the one at its place.
    assert_eq!(
        write_names(&["a", "x", "c"]),
        array([element("a", 1), element("x", 2), element("c", 3)])
    );
    // Of two that look alike, each stays what it is.
    let alike = stored([("list", array([element("a", 1), element("a", 2)]))]);
    let renamed = BTreeMap::from([("list", vec![known("x"), known("a")])]);
    let written = after(&alike, &renamed);
    assert_eq!(written["list"], array([element("x", 1), element("a", 2)]));
    // One that is new has nothing.
    let new = entity([("name", text("x"))]);
    assert_eq!(write_names(&["x", "a"]), array([new.clone(), element("a", 1)]));
    assert_eq!(
        write_names(&["a", "b", "c", "x"]),
        array([element("a", 1), element("b", 2), element("c", 3), new])
    );
}

#[test]
fn elements_of_long_arrays_keep_what_is_theirs_too() {
    let element =
        |name: usize| entity([("name", text(&name.to_string())), ("more", integer(name as i64))]);
    let names = |names: &mut dyn Iterator<Item = usize>| {
        let list: Vec<_> = names.map(|name| known(&name.to_string())).collect();
        BTreeMap::from([("list", list)])
    };
    let elements =
        |names: &mut dyn Iterator<Item = usize>| array(names.map(element).collect::<Vec<_>>());
    let before = stored([("list", elements(&mut (0..5_000)))]);
    // The first is gone; one in the middle is; and the last has come to the front.
    for changed in [
        (1..5_000).collect::<Vec<_>>(),
        (0..2_500).chain(2_501..5_000).collect(),
        std::iter::once(4_999).chain(0..4_999).collect(),
    ] {
        let written = after(&before, &names(&mut changed.iter().copied()));
        assert!(written["list"] == elements(&mut changed.iter().copied()));
    }
}

#[test]
fn what_another_variant_wrote_is_gone() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Contact {
        Email { email: String },
        Phone { phone: String },
    }
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Person {
        contact: Contact,
        others: Vec<Contact>,
        security: Security,
    }
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Security {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reset_token: Option<String>,
        #[serde(flatten)]
        rest: BTreeMap<String, i64>,
    }
    let email = Contact::Email { email: "a@example.com".to_owned() };
    let phone = Contact::Phone { phone: "7".to_owned() };
    let security = |token: Option<&str>, rest: &[&str]| Security {
        reset_token: token.map(str::to_owned),
        rest: rest.iter().map(|name| ((*name).to_owned(), 1)).collect(),
    };
    let person = Person {
        contact: email.clone(),
        others: vec![email.clone(), phone.clone()],
        security: security(Some("secret"), &["a", "b"]),
    };
    let changed = Person {
        contact: phone.clone(),
        others: vec![phone, email],
        security: security(None, &["b"]),
    };
    let mut before = after(&Stored::new(), &person);
    let Some(Value { value_type: Some(ValueType::EntityValue(contact)), .. }) =
        before.get_mut("contact")
    else {
        panic!("an entity")
    };
    contact.properties.insert("more".to_owned(), integer(1));
    let mut properties = write(&changed).unwrap();
    properties.skip_what_was_dropped(&write(&person).unwrap());
    let written = merge(&before, properties, &[], &partition());
    assert_eq!(read_back::<Person>(&written), changed);
    assert_eq!(written["contact"], entity([("phone", text("7")), ("more", integer(1))]));
    assert_eq!(written["security"], entity([("b", integer(1))]));
}

#[test]
fn what_an_element_has_dropped_is_gone_wherever_the_element_is() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Device {
        name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<String>,
        #[serde(flatten)]
        rest: BTreeMap<String, i64>,
    }
    let device = |name: &str, token: Option<&str>| Device {
        name: name.to_owned(),
        token: token.map(str::to_owned),
        rest: BTreeMap::new(),
    };
    let devices = |devices: &[Device]| BTreeMap::from([("devices", devices.to_vec())]);
    let (phone, laptop) = (device("phone", None), device("laptop", Some("secret")));
    let owned = devices(&[phone.clone(), laptop]);
    let before = after(&Stored::new(), &owned);
    for changed in
        [vec![device("laptop", None)], vec![phone.clone(), device("laptop", None), phone]]
    {
        let mut properties = write(&devices(&changed)).unwrap();
        properties.skip_what_was_dropped(&write(&owned).unwrap());
        let written = merge(&before, properties, &[], &partition());
        assert_eq!(read_back::<HashMap<String, Vec<Device>>>(&written)["devices"], changed);
    }
}

#[test]
fn bytes_and_large_keys_are_read_into_what_people_have_for_them() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Byte(u8);
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Bytes {
        plain: Vec<u8>,
        wrapped: Vec<Byte>,
        optional: Vec<Option<u8>>,
        pair: (u8, u16),
    }
    let bytes = blob(&[0, 255]);
    let before = stored([
        ("plain", bytes.clone()),
        ("wrapped", bytes.clone()),
        ("optional", bytes.clone()),
        ("pair", bytes),
    ]);
    let read: Bytes = read_back(&before);
    let wrapped = vec![Byte(0), Byte(255)];
    let expected =
        Bytes { plain: vec![0, 255], wrapped, optional: vec![Some(0), Some(255)], pair: (0, 255) };
    assert_eq!(read, expected);
    let large = BTreeMap::from([("map", BTreeMap::from([(u64::MAX, 1), (7, 2)]))]);
    let written = after(&Stored::new(), &large);
    assert_eq!(written["map"], entity([("18446744073709551615", integer(1)), ("7", integer(2))]));
    let read: HashMap<String, BTreeMap<u64, i64>> = read_back(&written);
    assert_eq!(read["map"], large["map"]);
}
