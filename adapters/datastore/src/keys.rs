//! The keys of entities: their kinds, and their ids or names.

use std::collections::HashSet;
use std::fmt;

use gcloud_sdk::google::datastore::v1::key::PathElement;
use gcloud_sdk::google::datastore::v1::key::path_element::IdType;
use gcloud_sdk::google::datastore::v1::value::ValueType;
use gcloud_sdk::google::datastore::v1::{Key, PartitionId, Value};
use sha2::{Digest, Sha256};
use tower_keep_core::{SessionKey, Timestamp, UserId};

/// The longest name of a key, or of a property, in bytes.
pub(crate) const MAX_NAME: usize = 1_500;
/// The longest text or blob that can be indexed, in bytes.
pub(crate) const MAX_INDEXED: usize = 1_500;
/// Longer texts are hashed where they are parts of a key's name.
const MAX_NAME_PART: usize = 1_000;

/// What identifies a user's entity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum UserKeys {
    /// The key's id if the [`UserId`] is a number, otherwise the key's name, like `id_or_name` in
    /// Google's Python library. A name that looks like a number is not found.
    #[default]
    IdOrName,
    /// The key's name, even if it looks like a number.
    Name,
    /// This property holds the [`UserId`], as a string. The service chooses the key.
    ///
    /// A user is then found by a query, so an authenticated request makes two concurrent calls
    /// instead of one. An index entity keeps the property unique.
    TextProperty(String),
    /// This property holds the [`UserId`], as an integer. Otherwise it is like
    /// [`TextProperty`](UserKeys::TextProperty).
    IntegerProperty(String),
}

impl UserKeys {
    /// Returns the property that holds a user's id, if it is one.
    pub(crate) fn id_property(&self) -> Option<&str> {
        match self {
            Self::TextProperty(property) | Self::IntegerProperty(property) => Some(property),
            Self::IdOrName | Self::Name => None,
        }
    }
}

/// The value of a property that a user is found by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum UniqueValue {
    Text(String),
    Integer(i64),
}

impl UniqueValue {
    /// Returns a text, if a query can look for it.
    pub(crate) fn text(text: &str) -> Option<Self> {
        (text.len() <= MAX_INDEXED).then(|| Self::Text(text.to_owned()))
    }

    /// Returns a stored value, if a query can look for it.
    pub(crate) fn of(stored: &Value) -> Option<Self> {
        match stored.value_type.as_ref()? {
            ValueType::StringValue(text) => Self::text(text),
            ValueType::IntegerValue(number) => Some(Self::Integer(*number)),
            _ => None,
        }
    }

    pub(crate) fn is_text(&self) -> bool {
        matches!(self, Self::Text(_))
    }

    pub(crate) fn into_value(self) -> ValueType {
        match self {
            Self::Text(text) => ValueType::StringValue(text),
            Self::Integer(number) => ValueType::IntegerValue(number),
        }
    }
}

impl fmt::Display for UniqueValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Integer(number) => number.fmt(f),
        }
    }
}

/// The keys of a store.
#[derive(Clone, Debug)]
pub(crate) struct EntityKeys {
    pub(crate) partition: PartitionId,
    /// The path that the keys of users begin with.
    pub(crate) ancestors: Vec<PathElement>,
    pub(crate) user_kind: String,
    pub(crate) user_keys: UserKeys,
    /// The prefix of this store's own kinds.
    pub(crate) prefix: String,
}

impl EntityKeys {
    fn key(&self, path: Vec<PathElement>) -> Key {
        Key { partition_id: Some(self.partition.clone()), path }
    }

    /// Returns a key of one of this store's own kinds, with the same ancestors as the users.
    fn own_key(&self, kind: String, name: String) -> Key {
        let own = element(kind, Some(IdType::Name(name)));
        self.key(self.ancestors.iter().cloned().chain([own]).collect())
    }

    /// Returns a user's key; `None` if a key can't have this id, or if the id is a property.
    pub(crate) fn user(&self, id: &UserId) -> Option<Key> {
        let number = id.parse::<i64>().filter(|number| *number != 0);
        let id = match (&self.user_keys, number) {
            (UserKeys::IdOrName, Some(number)) => IdType::Id(number),
            (UserKeys::IdOrName | UserKeys::Name, _) => {
                IdType::Name(is_name(id.as_str()).then(|| id.as_str().to_owned())?)
            }
            (UserKeys::TextProperty(_) | UserKeys::IntegerProperty(_), _) => return None,
        };
        Some(self.new_user(Some(id)))
    }

    /// Returns a user's key with this id, or an incomplete one that the service completes.
    pub(crate) fn new_user(&self, id: Option<IdType>) -> Key {
        let own = element(self.user_kind.clone(), id);
        self.key(self.ancestors.iter().cloned().chain([own]).collect())
    }

    /// Returns the property that a user is found by, and its value; `None` if users are found by
    /// their keys, or if no user can have this id.
    pub(crate) fn id_property(&self, id: &UserId) -> Option<(&str, UniqueValue)> {
        match &self.user_keys {
            UserKeys::TextProperty(property) => Some((property, UniqueValue::text(id.as_str())?)),
            UserKeys::IntegerProperty(property) => {
                Some((property, UniqueValue::Integer(id.parse()?)))
            }
            UserKeys::IdOrName | UserKeys::Name => None,
        }
    }

    /// Checks whether a key that a query has found is directly below the ancestors of this store.
    pub(crate) fn is_below_ancestors(&self, key: &Key) -> bool {
        key.path.split_last().is_some_and(|(_, before)| before == self.ancestors)
    }

    /// Returns the key that all users are below, if there is one.
    pub(crate) fn ancestor(&self) -> Option<Key> {
        (!self.ancestors.is_empty()).then(|| self.key(self.ancestors.clone()))
    }

    /// Returns the key of the index entity that says which user has this value of a property.
    pub(crate) fn index(&self, property: &str, value: &UniqueValue) -> Key {
        // The kind is escaped, so that the first full stop separates it from the property: `user.a`
        // and `b` are not the same as `user` and `a.b`.
        let user_kind = self.user_kind.replace('%', "%25").replace('.', "%2E");
        let kind = format!("{}Index_{user_kind}.{property}", self.prefix);
        self.own_key(kind, name_part(&value.to_string()))
    }

    pub(crate) fn session_kind(&self) -> String {
        format!("{}Session_{}", self.prefix, self.user_kind)
    }

    /// Returns the key of a session record.
    pub(crate) fn session(&self, key: &SessionKey) -> Key {
        let hex = key.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        self.own_key(self.session_kind(), hex)
    }

    /// Returns the lowest sort key that an open session of a user can have in this epoch or a later
    /// one. Sessions of earlier epochs have lower sort keys.
    ///
    /// A sort key is one property of fixed length, so that neither its order nor a range of it
    /// needs a composite index.
    pub(crate) fn epoch_sort_key(&self, user: &UserId, epoch: u64) -> String {
        format!("{}:{epoch:016x}", self.sort_key_prefix(user))
    }

    /// Returns the sort key of an open session.
    pub(crate) fn sort_key(&self, user: &UserId, epoch: u64, created: Timestamp) -> String {
        format!("{}:{:08x}", self.epoch_sort_key(user, epoch), created.as_secs())
    }

    /// Returns what the sort keys of a user begin with, and the first text after all of them.
    pub(crate) fn sort_key_range(&self, user: &UserId) -> [String; 2] {
        let prefix = self.sort_key_prefix(user);
        [format!("{prefix}:"), format!("{prefix};")]
    }

    /// Returns what the sort keys of a user begin with. It is different below other ancestors.
    pub(crate) fn sort_key_prefix(&self, user: &UserId) -> String {
        let mut hash = Sha256::new();
        for element in &self.ancestors {
            let id = match &element.id_type {
                Some(IdType::Id(id)) => format!("#{id}"),
                Some(IdType::Name(name)) => format!("={name}"),
                None => String::new(),
            };
            for text in [&element.kind, &id] {
                hash.update((text.len() as u64).to_be_bytes());
                hash.update(text);
            }
        }
        hash.update(user.as_bytes());
        hash.finalize().iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
    }

    pub(crate) fn logins_kind(&self) -> String {
        format!("{}Logins_{}", self.prefix, self.user_kind)
    }

    /// Returns the key of a user's `Logins`.
    pub(crate) fn logins(&self, user: &UserId) -> Key {
        self.own_key(self.logins_kind(), name_part(user.as_str()))
    }
}

fn element(kind: String, id: Option<IdType>) -> PathElement {
    PathElement { kind, id_type: id }
}

/// Returns the id or name of a key, as text.
pub(crate) fn user_id(key: &Key) -> Option<UserId> {
    match key.path.last()?.id_type.as_ref()? {
        IdType::Id(id) => Some((*id).into()),
        IdType::Name(name) => Some(name.as_str().into()),
    }
}

/// Returns the session that a key names.
pub(crate) fn session_key(key: &Key) -> Option<SessionKey> {
    let Some(IdType::Name(hex)) = &key.path.last()?.id_type else { return None };
    let mut bytes = [0; 32];
    if hex.len() != 2 * bytes.len() {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(SessionKey::new(bytes))
}

/// Checks whether two keys name one entity. Only the paths count, because responses spell out parts
/// of a key that requests leave out.
pub(crate) fn is_same(one: &Key, other: &Key) -> bool {
    one.path == other.path
}

/// Returns each key once.
pub(crate) fn distinct(keys: impl IntoIterator<Item = Key>) -> Vec<Key> {
    let mut known = HashSet::new();
    keys.into_iter().filter(|key| known.insert(key.path.clone())).collect()
}

/// Checks whether a key can have this name.
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME && !is_reserved(name)
}

/// Checks whether Datastore reserves this name for itself.
pub(crate) fn is_reserved(name: &str) -> bool {
    name.len() >= 4 && name.starts_with("__") && name.ends_with("__")
}

/// Returns any text as a part of a key: the text itself after `=`, or its hash after `#`.
fn name_part(text: &str) -> String {
    if text.len() <= MAX_NAME_PART {
        return format!("={text}");
    }
    let hash = Sha256::digest(text.as_bytes());
    hash.iter().fold("#".to_owned(), |hex, byte| format!("{hex}{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(user_keys: UserKeys) -> EntityKeys {
        let partition = PartitionId {
            project_id: "p".into(),
            database_id: String::new(),
            namespace_id: "n".into(),
        };
        let (user_kind, prefix) = ("user".to_owned(), "Keep".to_owned());
        EntityKeys { partition, ancestors: Vec::new(), user_kind, user_keys, prefix }
    }

    #[test]
    fn an_id_is_a_number_or_a_name() {
        let (number, name) = (IdType::Id, |name: &str| IdType::Name(name.to_owned()));
        for (id, id_or_name, as_name) in [
            ("7", Some(number(7)), Some(name("7"))),
            (
                "5629499534213120",
                Some(number(5_629_499_534_213_120)),
                Some(name("5629499534213120")),
            ),
            ("-7", Some(number(-7)), Some(name("-7"))),
            ("0", Some(name("0")), Some(name("0"))),
            ("007", Some(name("007")), Some(name("007"))),
            (
                "9223372036854775808",
                Some(name("9223372036854775808")),
                Some(name("9223372036854775808")),
            ),
            ("ada", Some(name("ada")), Some(name("ada"))),
            ("a\0b", Some(name("a\0b")), Some(name("a\0b"))),
            ("", None, None),
            ("__ada__", None, None),
            ("___", Some(name("___")), Some(name("___"))),
        ] {
            let id = UserId::from(id);
            for (user_keys, expected) in [
                (UserKeys::IdOrName, id_or_name),
                (UserKeys::Name, as_name),
                (UserKeys::TextProperty("uid".into()), None),
                (UserKeys::IntegerProperty("uid".into()), None),
            ] {
                let key = keys(user_keys).user(&id);
                let found = key.as_ref().and_then(|key| key.path.last()?.id_type.clone());
                assert_eq!(found, expected, "{id:?}");
                assert!(key.is_none_or(|key| user_id(&key) == Some(id.clone())));
            }
        }
        assert!(keys(UserKeys::Name).user(&"a".repeat(1_501).into()).is_none());
    }

    #[test]
    fn every_text_names_an_index_of_its_own() {
        let keys = keys(UserKeys::IdOrName);
        let long = "a".repeat(1_501);
        let texts = ["", "ada", "Ada", "__ada__", "#", "=", &long[..1_500], &long];
        let index = |text: &&str| keys.index("username", &UniqueValue::Text((*text).to_owned()));
        let names: Vec<_> = texts.iter().map(index).collect();
        for (index, key) in names.iter().enumerate() {
            let Some(IdType::Name(name)) = &key.path[0].id_type else { panic!("{key:?}") };
            assert!(is_name(name), "{name}");
            assert!(names[..index].iter().all(|other| !is_same(other, key)), "{name}");
        }
    }

    #[test]
    fn every_property_of_every_kind_has_an_index_of_its_own() {
        let index = |kind: &str, property| {
            let keys = EntityKeys { user_kind: kind.to_owned(), ..keys(UserKeys::IdOrName) };
            keys.index(property, &UniqueValue::Integer(7)).path.remove(0).kind
        };
        assert_eq!(index("User", "username"), "KeepIndex_User.username");
        assert_ne!(index("user_admin", "name"), index("user", "admin_name"));
        assert_ne!(index("user.admin", "name"), index("user", "admin.name"));
    }

    #[test]
    fn open_sessions_are_in_the_order_of_their_epochs_and_times() {
        let keys = keys(UserKeys::IdOrName);
        let (ada, at) = (UserId::from("ada"), Timestamp::from_secs);
        let [begin, end] = keys.sort_key_range(&ada);
        let sort_keys = [
            begin,
            keys.epoch_sort_key(&ada, 0),
            keys.sort_key(&ada, 0, at(5)),
            keys.sort_key(&ada, 0, Timestamp::MAX),
            keys.epoch_sort_key(&ada, 9),
            keys.sort_key(&ada, 9, at(0)),
            keys.sort_key(&ada, 10, at(0)),
            keys.sort_key(&ada, u64::MAX, at(0)),
            end,
        ];
        assert!(sort_keys.is_sorted(), "{sort_keys:?}");
        let other = keys.sort_key(&"ad".into(), 0, at(5));
        assert!(!(sort_keys[0].as_str()..sort_keys[8].as_str()).contains(&other.as_str()));
        let below = element("Site".into(), Some(IdType::Id(1)));
        let elsewhere = EntityKeys { ancestors: vec![below], ..keys.clone() };
        assert_ne!(elsewhere.sort_key_range(&ada), keys.sort_key_range(&ada));
    }

    #[test]
    fn a_session_is_read_back_from_its_key() {
        let keys = keys(UserKeys::IdOrName);
        let key = SessionKey::new(std::array::from_fn(|index| (index * 7) as u8));
        let written = keys.session(&key);
        assert_eq!(session_key(&written), Some(key));
        for bad in ["", "00", &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(session_key(&keys.own_key(keys.session_kind(), bad.to_owned())), None);
        }
    }
}
