//! How stored properties are read into common user types.

use super::*;

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
    // The id takes precedence over a property of the same name.
    let own = stored([("name", text("ada")), ("id", text("another"))]);
    assert_eq!(read::<Text>(own, Some(id(None))).unwrap().id, "42");
    // A name is not a number.
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
