//! Tests of writing a value over stored properties.

use super::*;

#[test]
fn a_write_keeps_stored_properties_that_the_type_does_not_have() {
    let stored = properties([
        ("name", unindexed(text("ada"))),
        ("theme", unindexed(entity([("dark", integer(1))]))),
        ("tags", array([unindexed(text("a")), text("b")])),
        ("nothing", unindexed(null())),
    ]);
    let mut expected = stored.clone();
    expected.insert("name".to_owned(), unindexed(text("grace")));
    assert_eq!(write_over(&stored, &only_name("grace")), expected);
}

#[test]
fn a_property_stays_excluded_from_indexes_when_its_value_changes() {
    #[derive(Serialize)]
    struct Changed {
        text: Option<String>,
        list: Vec<String>,
        stored_as_list: Option<String>,
        stored_as_null: Vec<i64>,
        inner: OnlyName,
    }
    let stored = properties([
        ("text", unindexed(text("a"))),
        ("list", array([unindexed(text("a"))])),
        ("stored_as_list", array([unindexed(text("a"))])),
        ("stored_as_null", unindexed(null())),
        ("inner", unindexed(entity([("name", unindexed(text("a"))), ("more", text("b"))]))),
    ]);
    let changed = Changed {
        text: None,
        list: vec!["b".to_owned(), "c".to_owned()],
        stored_as_list: None,
        stored_as_null: vec![1],
        inner: only_name("b"),
    };
    let expected = properties([
        ("text", unindexed(null())),
        ("list", array([unindexed(text("b")), unindexed(text("c"))])),
        ("stored_as_list", unindexed(null())),
        ("stored_as_null", array([unindexed(integer(1))])),
        ("inner", unindexed(entity([("name", unindexed(text("b"))), ("more", text("b"))]))),
    ]);
    assert_eq!(write_over(&stored, &changed), expected);
}

#[test]
fn new_properties_are_indexed_except_long_ones_and_those_in_the_setting() {
    let long = "a".repeat(1_501);
    for (name, is_excluded) in [("ada", false), (&long[..1_500], false), (&long, true)] {
        let written = write_over(&StoredProperties::new(), &only_name(name));
        assert_eq!(written["name"].exclude_from_indexes, is_excluded);
    }
    // A stored property that becomes too long for an index is excluded, even if it was indexed.
    let written = write_over(&properties([("name", text("ada"))]), &only_name(&long));
    assert!(written["name"].exclude_from_indexes);
    let names = ["name".to_owned()];
    let written = write_over_unindexed(&StoredProperties::new(), &only_name("ada"), &names);
    assert!(written["name"].exclude_from_indexes);
    let stored = properties([("name", text("ada"))]);
    let written = write_over_unindexed(&stored, &only_name("ada"), &names);
    assert!(!written["name"].exclude_from_indexes, "a stored property stays indexed");
    let list = BTreeMap::from([("name", ["a", "b"])]);
    let written = write_over_unindexed(&StoredProperties::new(), &list, &names);
    assert_eq!(written["name"], array([unindexed(text("a")), unindexed(text("b"))]));
}

#[test]
fn a_property_keeps_its_stored_type_if_the_new_value_fits_that_type() {
    /// Each field is named after the type of the stored property, and has another type itself.
    #[derive(Serialize)]
    struct OtherTypes {
        timestamp: &'static str,
        blob: Vec<i64>,
        #[serde(with = "serde_bytes")]
        string: &'static [u8],
        blob_of_text: &'static str,
        double: i64,
        integer: f64,
        place: BTreeMap<&'static str, f64>,
    }
    let other_types = |timestamp, blob: &[i64], string, double, integer, latitude| OtherTypes {
        timestamp,
        blob: blob.to_vec(),
        string,
        blob_of_text: "佐",
        double,
        integer,
        place: [(latitude, 1.0), ("longitude", 2.0)].into(),
    };
    let stored = properties([
        ("timestamp", time(0, 0)),
        ("blob", blob(b"a")),
        ("string", text("a")),
        ("blob_of_text", blob(b"a")),
        ("double", double(0.5)),
        ("integer", integer(1)),
        ("place", place(0.0, 0.0)),
    ]);
    let fitting = other_types("2027-01-15T08:00:00Z", &[0, 255], b"b", 2, 3.0, "latitude");
    let expected = properties([
        ("timestamp", time(1_800_000_000, 0)),
        ("blob", blob(&[0, 255])),
        ("string", text("b")),
        ("blob_of_text", blob("佐".as_bytes())),
        ("double", double(2.0)),
        ("integer", integer(3)),
        ("place", place(1.0, 2.0)),
    ]);
    assert_eq!(write_over(&stored, &fitting), expected);
    let unfitting = other_types("soon", &[256], b"\xff", i64::MAX, 0.5, "other");
    let expected = properties([
        ("timestamp", text("soon")),
        ("blob", array([integer(256)])),
        ("string", blob(b"\xff")),
        ("blob_of_text", blob("佐".as_bytes())),
        ("double", integer(i64::MAX)),
        ("integer", double(0.5)),
        ("place", entity([("other", double(1.0)), ("longitude", double(2.0))])),
    ]);
    assert_eq!(write_over(&stored, &unfitting), expected);
    // This integer is not exactly a double. It is read as the nearest double.
    let stored = properties([("integer", integer(9_007_199_254_740_993))]);
    let read: BTreeMap<String, f64> = read_back(&stored);
    assert_eq!(write_over(&stored, &read), stored);
    // Datastore's field `meaning` belongs to the type of a value.
    let stored = properties([("name", Value { meaning: 15, ..text("a") })]);
    assert_eq!(write_over(&stored, &only_name("b"))["name"].meaning, 15);
    assert_eq!(write_over(&stored, &BTreeMap::from([("name", 7)]))["name"].meaning, 0);
}

#[test]
fn a_skipped_property_is_removed_and_a_property_that_is_never_written_stays() {
    #[derive(Serialize)]
    struct Skipping {
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        locked: Option<i64>,
        #[serde(skip_serializing)]
        #[allow(dead_code)]
        password_hash: String,
    }
    let stored = properties([("locked", integer(1)), ("password_hash", text("secret"))]);
    let skipping =
        Skipping { name: "ada".to_owned(), locked: None, password_hash: "another".to_owned() };
    let expected = properties([("name", text("ada")), ("password_hash", text("secret"))]);
    assert_eq!(write_over(&stored, &skipping), expected);
}

#[test]
fn a_map_removes_other_properties_and_a_struct_keeps_them() {
    #[derive(Serialize)]
    struct Outer {
        map: BTreeMap<String, i64>,
        inner: OnlyName,
        variant: Kind,
        flattened: Flattened,
    }
    #[derive(Serialize)]
    struct Flattened {
        #[serde(flatten)]
        inner: OnlyName,
    }
    let stored = properties([
        ("map", entity([("a", integer(1)), ("b", integer(2))])),
        ("inner", entity([("name", text("ada")), ("more", integer(1))])),
        ("variant", entity([("Two", array([integer(2), text("b")]))])),
        ("flattened", entity([("name", text("ada")), ("more", integer(1))])),
    ]);
    let outer = Outer {
        map: [("b".to_owned(), 3)].into(),
        inner: only_name("grace"),
        variant: Kind::One(1),
        flattened: Flattened { inner: only_name("grace") },
    };
    let inner = entity([("name", text("grace")), ("more", integer(1))]);
    let expected = properties([
        ("map", entity([("b", integer(3))])),
        ("inner", inner.clone()),
        ("variant", entity([("One", integer(1))])),
        ("flattened", inner),
    ]);
    assert_eq!(write_over(&stored, &outer), expected);
}

#[test]
fn array_elements_keep_their_other_properties_when_their_indexes_change() {
    let element = |name: &str, more: i64| entity([("name", text(name)), ("more", integer(more))]);
    let stored = properties([("list", array([element("a", 1), element("b", 2), element("c", 3)]))]);
    let write_names = |names: &[&str]| {
        let list: Vec<_> = names.iter().map(|name| only_name(name)).collect();
        write_over(&stored, &BTreeMap::from([("list", list)]))["list"].clone()
    };
    assert_eq!(write_names(&["b", "c"]), array([element("b", 2), element("c", 3)]));
    assert_eq!(write_names(&["c", "a"]), array([element("c", 3), element("a", 1)]));
    // An element that has changed is written over the stored element at its index.
    assert_eq!(
        write_names(&["a", "x", "c"]),
        array([element("a", 1), element("x", 2), element("c", 3)])
    );
    // If two stored elements have the same name, the element at the same index matches first.
    let same_names = properties([("list", array([element("a", 1), element("a", 2)]))]);
    let first_renamed = BTreeMap::from([("list", vec![only_name("x"), only_name("a")])]);
    let written = write_over(&same_names, &first_renamed);
    assert_eq!(written["list"], array([element("x", 1), element("a", 2)]));
    // A new element gets no other properties.
    let new = entity([("name", text("x"))]);
    assert_eq!(write_names(&["x", "a"]), array([new.clone(), element("a", 1)]));
    assert_eq!(
        write_names(&["a", "b", "c", "x"]),
        array([element("a", 1), element("b", 2), element("c", 3), new])
    );
}

#[test]
fn elements_of_long_arrays_keep_their_other_properties_too() {
    let element =
        |name: usize| entity([("name", text(&name.to_string())), ("more", integer(name as i64))]);
    let list_of = |names: &mut dyn Iterator<Item = usize>| {
        let list: Vec<_> = names.map(|name| only_name(&name.to_string())).collect();
        BTreeMap::from([("list", list)])
    };
    let elements =
        |names: &mut dyn Iterator<Item = usize>| array(names.map(element).collect::<Vec<_>>());
    let stored = properties([("list", elements(&mut (0..5_000)))]);
    // The changes: the first element is removed; an element in the middle is removed; the last
    // element is moved to the front.
    for new_names in [
        (1..5_000).collect::<Vec<_>>(),
        (0..2_500).chain(2_501..5_000).collect(),
        std::iter::once(4_999).chain(0..4_999).collect(),
    ] {
        let written = write_over(&stored, &list_of(&mut new_names.iter().copied()));
        assert!(written["list"] == elements(&mut new_names.iter().copied()));
    }
}

#[test]
fn the_fields_of_the_previous_enum_variant_are_removed() {
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
    let mut stored = write_over(&StoredProperties::new(), &person);
    let Some(Value { value_type: Some(ValueType::EntityValue(contact)), .. }) =
        stored.get_mut("contact")
    else {
        panic!("an entity")
    };
    contact.properties.insert("more".to_owned(), integer(1));
    let written = write_over_previous(&stored, &person, &changed);
    assert_eq!(read_back::<Person>(&written), changed);
    assert_eq!(written["contact"], entity([("phone", text("7")), ("more", integer(1))]));
    assert_eq!(written["security"], entity([("b", integer(1))]));
}

#[test]
fn a_property_that_an_array_element_skips_is_removed_at_any_index() {
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
    let stored = write_over(&StoredProperties::new(), &owned);
    for changed in
        [vec![device("laptop", None)], vec![phone.clone(), device("laptop", None), phone]]
    {
        let written = write_over_previous(&stored, &owned, &devices(&changed));
        assert_eq!(read_back::<HashMap<String, Vec<Device>>>(&written)["devices"], changed);
    }
}

/// A blob that is not UTF-8 can't have been read as a string, so it does not stay a blob.
#[test]
fn a_blob_stays_a_blob_when_a_string_is_written_only_if_it_is_utf_8() {
    let stored = properties([("name", blob(b"\xff")), ("key", array([blob(b"a"), blob(b"\xff")]))]);
    let written = write_over(&stored, &BTreeMap::from([("name", "ada")]));
    assert_eq!(written["name"], text("ada"));
    let written = write_over(&stored, &BTreeMap::from([("key", ["b", "c"])]));
    assert_eq!(written["key"], array([blob(b"b"), text("c")]));
}

/// Comparing all elements of these nested arrays with each other would take very long. The other
/// property has its own limit, so its elements are still found.
#[test]
fn the_search_for_elements_of_nested_arrays_has_a_limit() {
    #[derive(Clone, Deserialize, Serialize)]
    struct Lists {
        deep: Vec<Node>,
        flat: Vec<Name>,
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
    fn change_all(list: &mut [Node]) {
        for node in list {
            node.new = Some(true);
            change_all(&mut node.list);
        }
    }
    /// Returns the properties of the element at this path of indexes.
    fn element_at(list: &Value, path: &[usize]) -> StoredProperties {
        let Some(ValueType::ArrayValue(list)) = &list.value_type else { panic!("not an array") };
        let Some(ValueType::EntityValue(element)) = &list.values[path[0]].value_type else {
            panic!("not an entity")
        };
        match path {
            [_] => element.properties.clone(),
            _ => element_at(&element.properties["list"], &path[1..]),
        }
    }
    let stored = properties([("deep", nested(0, 2)), ("flat", nested(0, 0))]);
    let previous: Lists = read_back(&stored);
    let mut new = previous.clone();
    change_all(&mut new.deep);
    new.flat.remove(0);
    let written = write_over_previous(&stored, &previous, &new);
    for path in [&[7][..], &[7, 8], &[7, 8, 9]] {
        let last = path.last().map(|last| integer(*last as i64));
        let properties = element_at(&written["deep"], path);
        assert_eq!(properties.get("more"), last.as_ref(), "{path:?}");
        assert_eq!(properties["new"], value_of(ValueType::BooleanValue(true)), "{path:?}");
    }
    assert_eq!(written["flat"], nested(1, 0));
}

/// No two elements have a property with the same name, as in maps with users' ids as keys. With a
/// comparison of all names for each element, this test would take very long.
#[test]
fn a_property_that_an_element_of_a_long_array_drops_is_removed() {
    #[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
    struct Open {
        #[serde(flatten)]
        rest: BTreeMap<String, i64>,
    }
    let element =
        |number: i64| Open { rest: (0..20).map(|key| (format!("{number}-{key}"), key)).collect() };
    let previous = BTreeMap::from([("list", (0..1_000).map(element).collect::<Vec<_>>())]);
    let stored = write_over(&StoredProperties::new(), &previous);
    let mut new = previous.clone();
    let list = new.get_mut("list").unwrap();
    list.remove(0);
    list[7].rest.remove("8-3");
    let written = write_over_previous(&stored, &previous, &new);
    let read: HashMap<String, Vec<Open>> = read_back(&written);
    assert!(read["list"] == new["list"]);
}
