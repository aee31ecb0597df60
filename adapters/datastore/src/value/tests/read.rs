//! Tests of reading stored properties into common user types.

use super::*;

#[test]
fn properties_that_python_writes_are_read_into_common_types() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Common {
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
    let read: Common = read_back(&properties([
        ("joined", time(0, 500_000_000)),
        ("avatar", blob(b"png")),
        ("score", integer(5)),
        ("tags", array([])),
        ("settings", entity([("theme", text("dark")), ("since", time(1, 0)), ("n", double(0.5))])),
        ("owner", key_in_project("p")),
        ("home", place(1.0, 2.0)),
        ("unknown", text("to this type")),
    ]));
    assert_eq!(read.joined, "1970-01-01T00:00:00.500Z");
    assert_eq!((read.avatar.as_slice(), read.score, read.tags.len()), (&b"png"[..], 5.0, 0));
    assert_eq!(read.settings["since"], "1970-01-01T00:00:01Z");
    assert_eq!((read.settings["n"].as_f64(), &read.settings["theme"]), (Some(0.5), &"dark".into()));
    assert_eq!(read.owner, every_type().key);
    assert_eq!(read.home, LatLng { latitude: 1.0, longitude: 2.0 });
    assert_eq!((read.added_later, read.never_set), (0, None));
}

#[test]
fn the_id_in_the_key_is_read_into_the_id_field_if_the_type_has_one() {
    let id = |number| KeyId { property: "id", number, text: "42" };
    let ada = || properties([("name", text("ada"))]);
    #[derive(Deserialize)]
    struct Number {
        id: i64,
        name: String,
    }
    for number in [Some(42), None] {
        let read: Number = read(ada(), Some(id(number))).unwrap();
        assert_eq!(
            (read.id, &*read.name),
            (42, "ada"),
            "a name of digits is read as a number, too"
        );
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
        assert_eq!(read::<Text>(ada(), Some(id(number))).unwrap().id, "42");
        let read: InNewtype = read(ada(), Some(id(number))).unwrap();
        assert_eq!(read.id.unwrap().0, "42");
    }
    // The id takes precedence over a property of the same name.
    let with_id_property = properties([("name", text("ada")), ("id", text("another"))]);
    assert_eq!(read::<Text>(with_id_property, Some(id(None))).unwrap().id, "42");
    // The name `ada` can't be read as a number.
    let name = KeyId { text: "ada", ..id(None) };
    let error = read::<Number>(ada(), Some(name)).map(drop).unwrap_err();
    assert_eq!(error.to_string(), "property `id`: found string, expected i64");
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Strict {
        name: String,
    }
    assert_eq!(read::<Strict>(ada(), Some(id(None))).unwrap().name, "ada");
    #[derive(Deserialize)]
    struct Flattened {
        #[serde(flatten)]
        text: Text,
        #[serde(flatten)]
        rest: HashMap<String, serde_json::Value>,
    }
    let flattened: Flattened = read(ada(), Some(id(None))).unwrap();
    assert_eq!((&*flattened.text.id, flattened.rest.len()), ("42", 1));
}

#[test]
fn errors_name_the_property_and_quote_no_value() {
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
    let yes = || value_of(ValueType::BooleanValue(true));
    for (deep, expected) in [
        (entity([("flag", text("secret"))]), "inner[1].flag`: found string, expected a boolean"),
        (entity([("flag", null())]), "inner[1].flag`: found null, expected a boolean"),
        (entity([]), "inner[1]`: missing field `flag`"),
        (text("secret"), "inner[1]`: found string, expected struct Deep"),
        (
            entity([("flag", yes()), ("kind", text("secret"))]),
            "inner[1].kind`: found an unknown variant, expected one of Plain, One,",
        ),
        (
            entity([("flag", yes()), ("kind", integer(7))]),
            "inner[1].kind`: expected a variant of an enum: a string,",
        ),
        (
            entity([("flag", yes()), ("kind", entity([("One", text("secret"))]))]),
            "inner[1].kind.One`: found string, expected i64",
        ),
    ] {
        let inner = array([entity([("flag", yes())]), deep]);
        let error = read::<Outer>(properties([("inner", inner)]), None).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn numbers_are_read_as_flags_and_null_as_none_or_the_default() {
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
    for stored in [
        properties([("flag", integer(1)), ("list", null()), ("bytes", null()), ("time", null())]),
        properties([("flag", integer(1))]),
    ] {
        assert_eq!(read_back::<Flags>(&stored), flags(true));
        let written = write_over(&stored, &flags(false));
        assert_eq!(written["flag"], integer(0), "a flag that is stored as a number stays a number");
        assert_eq!(read_back::<Flags>(&written), flags(false));
    }
    assert!(read::<Flags>(properties([("flag", integer(2))]), None).is_err());
}

#[test]
fn fields_are_known_for_a_struct_without_flattened_fields() {
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
fn bytes_and_integer_keys_of_maps_are_read_into_common_types() {
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
    let stored = properties([
        ("plain", bytes.clone()),
        ("wrapped", bytes.clone()),
        ("optional", bytes.clone()),
        ("pair", bytes),
    ]);
    let read: Bytes = read_back(&stored);
    let wrapped = vec![Byte(0), Byte(255)];
    let expected =
        Bytes { plain: vec![0, 255], wrapped, optional: vec![Some(0), Some(255)], pair: (0, 255) };
    assert_eq!(read, expected);
    let with_large_key = BTreeMap::from([("map", BTreeMap::from([(u64::MAX, 1), (7, 2)]))]);
    let written = write_over(&StoredProperties::new(), &with_large_key);
    assert_eq!(written["map"], entity([("18446744073709551615", integer(1)), ("7", integer(2))]));
    let read: HashMap<String, BTreeMap<u64, i64>> = read_back(&written);
    assert_eq!(read["map"], with_large_key["map"]);
}
