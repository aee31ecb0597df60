//! What is stored after a write over a stored entity.

use super::*;

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
    // A property that was indexed has to be excluded then, too.
    assert!(after(&stored([("name", text("ada"))]), &known(&long))["name"].exclude_from_indexes);
    let names = ["name".to_owned()];
    let written = with_unindexed(&Stored::new(), &known("ada"), &names);
    assert!(written["name"].exclude_from_indexes);
    let before = stored([("name", text("ada"))]);
    let written = with_unindexed(&before, &known("ada"), &names);
    assert!(!written["name"].exclude_from_indexes, "what is there keeps its own");
    let list = BTreeMap::from([("name", ["a", "b"])]);
    let written = with_unindexed(&Stored::new(), &list, &names);
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
        hash: &'static str,
        float: i64,
        whole: f64,
        place: BTreeMap<&'static str, f64>,
    }
    let typed = |time, bytes: &[i64], stamp, float, whole, latitude| Typed {
        time,
        bytes: bytes.to_vec(),
        stamp,
        hash: "佐",
        float,
        whole,
        place: [(latitude, 1.0), ("longitude", 2.0)].into(),
    };
    let before = stored([
        ("time", at(0, 0)),
        ("bytes", blob(b"a")),
        ("stamp", text("a")),
        ("hash", blob(b"a")),
        ("float", double(0.5)),
        ("whole", integer(1)),
        ("place", place(0.0, 0.0)),
    ]);
    let can = typed("2027-01-15T08:00:00Z", &[0, 255], b"b", 2, 3.0, "latitude");
    let expected = stored([
        ("time", at(1_800_000_000, 0)),
        ("bytes", blob(&[0, 255])),
        ("stamp", text("b")),
        ("hash", blob("佐".as_bytes())),
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
        ("hash", blob("佐".as_bytes())),
        ("float", integer(i64::MAX)),
        ("whole", double(0.5)),
        ("place", entity([("other", double(1.0)), ("longitude", double(2.0))])),
    ]);
    assert_eq!(after(&before, &can_not), expected);
    // An integer as large as this is read as the nearest double.
    let before = stored([("whole", integer(9_007_199_254_740_993))]);
    let read: BTreeMap<String, f64> = read_back(&before);
    assert_eq!(after(&before, &read), before);
    let meaning = Value { meaning: 15, ..text("a") };
    let before = stored([("name", meaning.clone())]);
    assert_eq!(after(&before, &known("b"))["name"].meaning, 15);
    assert_eq!(after(&before, &BTreeMap::from([("name", 7)]))["name"].meaning, 0);
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
    // An element that has changed is the one at its index.
    assert_eq!(
        write_names(&["a", "x", "c"]),
        array([element("a", 1), element("x", 2), element("c", 3)])
    );
    // Of two elements that look alike, each stays what it is.
    let alike = stored([("list", array([element("a", 1), element("a", 2)]))]);
    let renamed = BTreeMap::from([("list", vec![known("x"), known("a")])]);
    let written = after(&alike, &renamed);
    assert_eq!(written["list"], array([element("x", 1), element("a", 2)]));
    // A new element keeps nothing.
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
    // The first element is removed; one in the middle is removed; the last one is moved to the
    // front.
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
    let written = super::changed(&before, &person, &changed);
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
        let written = super::changed(&before, &owned, &devices(&changed));
        assert_eq!(read_back::<HashMap<String, Vec<Device>>>(&written)["devices"], changed);
    }
}

/// Bytes that are not text are read as something else, which is written as what it is.
#[test]
fn text_stays_bytes_only_where_the_bytes_were_text() {
    let before = stored([("name", blob(b"\xff")), ("key", array([blob(b"a"), blob(b"\xff")]))]);
    let written = after(&before, &BTreeMap::from([("name", "ada")]));
    assert_eq!(written["name"], text("ada"));
    let written = after(&before, &BTreeMap::from([("key", ["b", "c"])]));
    assert_eq!(written["key"], array([blob(b"b"), text("c")]));
}

/// The search ends, however arrays are nested and whatever their elements have become. Other arrays
/// are not affected.
#[test]
fn elements_within_elements_are_looked_for_no_longer_than_it_pays() {
    #[derive(Clone, Deserialize, Serialize)]
    struct Lists {
        deep: Vec<Node>,
        plain: Vec<Name>,
    }
    #[derive(Clone, Deserialize, Serialize)]
    struct Node {
        name: String,
        #[serde(default)]
        list: Vec<Node>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        new: Option<bool>,
    }
    #[derive(Clone, Deserialize, Serialize)]
    struct Name {
        name: String,
    }
    fn nested(from: i64, depth: usize) -> Value {
        let elements = (from..30).map(|number| {
            let (name, more) = (("name", text(&number.to_string())), ("more", integer(number)));
            match depth {
                0 => entity([name, more]),
                _ => entity([name, more, ("list", nested(0, depth - 1))]),
            }
        });
        array(elements.collect::<Vec<_>>())
    }
    fn renew(list: &mut [Node]) {
        for node in list {
            node.new = Some(true);
            renew(&mut node.list);
        }
    }
    fn at(list: &Value, path: &[usize]) -> Stored {
        let Some(ValueType::ArrayValue(list)) = &list.value_type else { panic!("an array") };
        let Some(ValueType::EntityValue(own)) = &list.values[path[0]].value_type else {
            panic!("an entity")
        };
        match path {
            [_] => own.properties.clone(),
            _ => at(&own.properties["list"], &path[1..]),
        }
    }
    let before = stored([("deep", nested(0, 2)), ("plain", nested(0, 0))]);
    let was: Lists = read_back(&before);
    let mut now = was.clone();
    renew(&mut now.deep);
    now.plain.remove(0);
    let written = changed(&before, &was, &now);
    for path in [&[7][..], &[7, 8], &[7, 8, 9]] {
        let last = path.last().map(|last| integer(*last as i64));
        let properties = at(&written["deep"], path);
        assert_eq!(properties.get("more"), last.as_ref(), "{path:?}");
        assert_eq!(properties["new"], of(ValueType::BooleanValue(true)), "{path:?}");
    }
    assert_eq!(written["plain"], nested(1, 0));
}

/// The elements have different names, as maps do whose keys are users' ids.
#[test]
fn what_was_dropped_is_known_without_a_list_for_each_element() {
    #[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
    struct Open {
        #[serde(flatten)]
        rest: BTreeMap<String, i64>,
    }
    let element =
        |number: i64| Open { rest: (0..20).map(|own| (format!("{number}-{own}"), own)).collect() };
    let was = BTreeMap::from([("list", (0..1_000).map(element).collect::<Vec<_>>())]);
    let before = after(&Stored::new(), &was);
    let mut now = was.clone();
    let list = now.get_mut("list").unwrap();
    list.remove(0);
    list[7].rest.remove("8-3");
    let written = changed(&before, &was, &now);
    let read: HashMap<String, Vec<Open>> = read_back(&written);
    assert!(read["list"] == now["list"]);
}
