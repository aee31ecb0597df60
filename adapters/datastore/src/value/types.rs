//! Datastore's types that serde does not have: timestamps, keys and places.

use std::fmt;

use gcloud_sdk::google::datastore::v1::key::path_element::IdType;
use gcloud_sdk::google::datastore::v1::value::ValueType;
use gcloud_sdk::google::datastore::v1::{ArrayValue, Entity, Key, PartitionId, Value, key};
use gcloud_sdk::prost_types::Timestamp;
use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

use super::ser::NewValue;

// These types are serialized as newtype structs with these names. The serializer in `ser.rs`
// recognizes them by the names.
pub(super) const TIMESTAMP: &str = "$tower_keep_datastore::timestamp";
pub(super) const KEY: &str = "$tower_keep_datastore::EntityKey";
pub(super) const LAT_LNG: &str = "$tower_keep_datastore::LatLng";

/// Writes a field of a user type as a timestamp.
///
/// The field can be of any type that serde writes as RFC 3339 text with a time zone: chrono's
/// `DateTime<Utc>`, jiff's `Timestamp`, or a newtype of your own. It can also be a
/// [`SystemTime`](std::time::SystemTime) since 1970, or an `Option` of any of these types.
///
/// ```
/// use std::time::SystemTime;
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Member {
///     email: String,
///     #[serde(with = "tower_keep_datastore::timestamp")]
///     joined: SystemTime,
/// }
/// ```
///
/// The attribute matters only for new properties: without it, they become strings or embedded
/// entities. A stored timestamp is read, and stays a timestamp, even without the attribute. As with
/// every `with` attribute of serde, an `Option` needs `#[serde(default)]` too if the property may
/// be missing. Datastore stores microseconds, and drops smaller units.
pub mod timestamp {
    use super::{Deserialize, Deserializer, Serialize, Serializer, TIMESTAMP};

    /// Writes a timestamp.
    ///
    /// # Errors
    ///
    /// Returns an error if the value is not a time.
    pub fn serialize<T: Serialize, S: Serializer>(
        time: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(TIMESTAMP, time)
    }

    /// Reads a timestamp.
    ///
    /// # Errors
    ///
    /// Returns an error if the property is not a time that `T` can be read from.
    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        T::deserialize(deserializer)
    }
}

/// Reads null as the field's default, for a field that is not an `Option`. Python writes its `None`
/// as null.
///
/// ```
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Member {
///     email: String,
///     #[serde(default, deserialize_with = "tower_keep_datastore::null_as_default")]
///     tags: Vec<String>,
/// }
/// ```
///
/// # Errors
///
/// Returns an error if the property is neither null nor of the field's type.
pub fn null_as_default<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// The key of an entity, as the value of a property.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(default)]
pub struct EntityKey {
    /// The project; empty for the store's own project.
    pub project: String,
    /// The database; empty for the default one.
    pub database: String,
    /// The namespace; empty for the default one.
    pub namespace: String,
    /// The path to the entity. The last step is the entity itself.
    pub path: Vec<PathElement>,
}

impl From<&Key> for EntityKey {
    fn from(key: &Key) -> Self {
        let partition = key.partition_id.clone().unwrap_or_default();
        let step = |step: &key::PathElement| match &step.id_type {
            Some(IdType::Name(name)) => PathElement::Name(step.kind.clone(), name.clone()),
            Some(IdType::Id(id)) => PathElement::Id(step.kind.clone(), *id),
            None => PathElement::Id(step.kind.clone(), 0),
        };
        Self {
            project: partition.project_id,
            database: partition.database_id,
            namespace: partition.namespace_id,
            path: key.path.iter().map(step).collect(),
        }
    }
}

/// Shows only the path, such as `user 5629499534213120`.
impl fmt::Display for EntityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.path.iter().enumerate() {
            let separator = if index == 0 { "" } else { " / " };
            match step {
                PathElement::Id(kind, id) => write!(f, "{separator}{kind} {id}")?,
                PathElement::Name(kind, name) => write!(f, "{separator}{kind} {name:?}")?,
            }
        }
        Ok(())
    }
}

/// A step of a key's path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathElement {
    /// A kind, and an id.
    Id(String, i64),
    /// A kind, and a name.
    Name(String, String),
}

impl Serialize for EntityKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct Written<'a> {
            project: &'a str,
            database: &'a str,
            namespace: &'a str,
            path: &'a [PathElement],
        }
        let Self { project, database, namespace, path } = self;
        serializer.serialize_newtype_struct(KEY, &Written { project, database, namespace, path })
    }
}

/// A place on the earth, as the value of a property.
#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize)]
pub struct LatLng {
    /// In degrees, from -90 to 90.
    pub latitude: f64,
    /// In degrees, from -180 to 180.
    pub longitude: f64,
}

impl Serialize for LatLng {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct Written {
            latitude: f64,
            longitude: f64,
        }
        let Self { latitude, longitude } = *self;
        serializer.serialize_newtype_struct(LAT_LNG, &Written { latitude, longitude })
    }
}

/// The name that `SystemTime` has in serde.
pub(super) const SYSTEM_TIME: &str = "SystemTime";
pub(super) const SYSTEM_TIME_FIELDS: [&str; 2] = ["secs_since_epoch", "nanos_since_epoch"];

/// Converts a value to a timestamp. Returns `None` unless the value is RFC 3339 text with a time
/// zone, or has the fields of a `SystemTime`.
pub(super) fn to_timestamp(new_value: &NewValue) -> Option<Timestamp> {
    match new_value {
        NewValue::Timestamp(timestamp) => Some(*timestamp),
        NewValue::String(text) if has_zone(text) => text.parse().ok(),
        NewValue::Entity(fields) if fields.written.len() == 2 => {
            let number = |name| match fields.get(name)? {
                NewValue::Integer(number) => Some(*number),
                _ => None,
            };
            let [seconds, nanos] = SYSTEM_TIME_FIELDS.map(number);
            Some(Timestamp { seconds: seconds?, nanos: nanos?.try_into().ok()? })
        }
        _ => None,
    }
}

/// Checks whether a text may be a time with a time zone. Returns `false` for a date alone, and for
/// a time without a zone.
fn has_zone(text: &str) -> bool {
    let time = text.split_once(['T', 't', ' ']).map(|(_, time)| time);
    time.is_some_and(|time| time.contains(['Z', 'z', '+', '-']))
}

/// Converts a value to a place, if it has the fields of a [`LatLng`].
pub(super) fn to_lat_lng(new_value: &NewValue) -> Option<LatLng> {
    let NewValue::Entity(fields) = new_value else { return None };
    let double = |name| match fields.get(name)? {
        NewValue::Double(double) => Some(*double),
        NewValue::Integer(integer) => Some(*integer as f64),
        _ => None,
    };
    (fields.written.len() == 2)
        .then(|| Some(LatLng { latitude: double("latitude")?, longitude: double("longitude")? }))?
}

/// Converts a value to a key, if it has the fields of an [`EntityKey`].
pub(super) fn to_key(new_value: &NewValue) -> Option<Key> {
    let NewValue::Entity(fields) = new_value else { return None };
    let text = |name| match fields.get(name)? {
        NewValue::String(text) => Some(text.clone()),
        _ => None,
    };
    let NewValue::Array(steps) = fields.get("path")? else { return None };
    let path: Option<Vec<_>> = steps.iter().map(to_path_element).collect();
    let partition = PartitionId {
        project_id: text("project")?,
        database_id: text("database")?,
        namespace_id: text("namespace")?,
    };
    let is_key = fields.written.len() == 4 && !steps.is_empty();
    is_key.then_some(Key { partition_id: Some(partition), path: path? })
}

fn to_path_element(new_value: &NewValue) -> Option<key::PathElement> {
    let NewValue::Entity(step) = new_value else { return None };
    let (variant, NewValue::Array(fields)) = step.written.first_key_value()? else { return None };
    if step.written.len() > 1 {
        return None;
    }
    let (kind, id) = match (variant.as_str(), fields.as_slice()) {
        ("id", [NewValue::String(kind), NewValue::Integer(id)]) => (kind, IdType::Id(*id)),
        ("name", [NewValue::String(kind), NewValue::String(name)]) => {
            (kind, IdType::Name(name.clone()))
        }
        _ => return None,
    };
    Some(key::PathElement { kind: kind.clone(), id_type: Some(id) })
}

/// Converts a stored key to a value from which an [`EntityKey`] is read.
pub(super) fn from_key(key: Key) -> Value {
    let partition = key.partition_id.unwrap_or_default();
    let path = key.path.into_iter().map(|step| {
        let (variant, id) = match step.id_type {
            Some(IdType::Name(name)) => ("name", ValueType::StringValue(name)),
            Some(IdType::Id(id)) => ("id", ValueType::IntegerValue(id)),
            None => ("id", ValueType::IntegerValue(0)),
        };
        entity([(variant, array([ValueType::StringValue(step.kind), id]))])
    });
    let path = array(path.collect::<Vec<_>>());
    let text = ValueType::StringValue;
    to_value(entity([
        ("project", text(partition.project_id)),
        ("database", text(partition.database_id)),
        ("namespace", text(partition.namespace_id)),
        ("path", path),
    ]))
}

/// Converts a stored place to a value from which a [`LatLng`] is read.
pub(super) fn from_lat_lng(latitude: f64, longitude: f64) -> Value {
    let double = ValueType::DoubleValue;
    to_value(entity([("latitude", double(latitude)), ("longitude", double(longitude))]))
}

/// Converts a stored timestamp to a value from which a `SystemTime` is read.
pub(super) fn from_timestamp(timestamp: Timestamp) -> Value {
    let integer = ValueType::IntegerValue;
    let [seconds, nanos] = SYSTEM_TIME_FIELDS;
    let nanos = (nanos, integer(timestamp.nanos.into()));
    to_value(entity([(seconds, integer(timestamp.seconds)), nanos]))
}

fn to_value(value_type: ValueType) -> Value {
    Value { value_type: Some(value_type), ..Value::default() }
}

fn array(values: impl IntoIterator<Item = ValueType>) -> ValueType {
    ValueType::ArrayValue(ArrayValue { values: values.into_iter().map(to_value).collect() })
}

fn entity<const N: usize>(properties: [(&str, ValueType); N]) -> ValueType {
    let property = |(name, value): (&str, ValueType)| (name.to_owned(), to_value(value));
    ValueType::EntityValue(Entity { key: None, properties: properties.map(property).into() })
}
