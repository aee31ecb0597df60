//! The keys of entities. A key is a path of kinds with ids or names. The last step of the path is
//! the entity itself, and the steps before are its ancestors.

use std::collections::HashSet;
use std::fmt;

use gcloud_sdk::google::datastore::v1::key::PathElement;
use gcloud_sdk::google::datastore::v1::key::path_element::IdType;
use gcloud_sdk::google::datastore::v1::value::ValueType;
use gcloud_sdk::google::datastore::v1::{Key, PartitionId, Value};
use sha2::{Digest, Sha256};
use tower_keep_core::{CounterKey, SessionKey, Timestamp, UserId};

/// The longest name in a key, or of a property.
pub(crate) const MAX_NAME_BYTES: usize = 1_500;
/// The longest text or blob that can be indexed.
pub(crate) const MAX_INDEXED_BYTES: usize = 1_500;
/// A longer text is hashed when it becomes a part of a key's name.
const MAX_NAME_PART_BYTES: usize = 1_000;

/// Where the id of a user is stored: in the entity's key, or in a property.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum UserKeys {
    /// The id in the key if the [`UserId`] is a number, otherwise the name in the key, like
    /// `id_or_name` in Google's Python library. A user whose name looks like a number is not found.
    #[default]
    IdOrName,
    /// The name in the key, even if the [`UserId`] is a number.
    Name,
    /// This property, as a string. The service chooses the id in the key.
    ///
    /// Users are found by a query, so an authenticated request makes two concurrent calls instead
    /// of one. An index entity keeps the property unique.
    TextProperty(String),
    /// This property, as an integer. Otherwise like [`TextProperty`](UserKeys::TextProperty).
    IntegerProperty(String),
}

impl UserKeys {
    /// Returns the property that holds a user's id, or `None` if the key holds it.
    pub(crate) fn id_property(&self) -> Option<&str> {
        match self {
            Self::TextProperty(property) | Self::IntegerProperty(property) => Some(property),
            Self::IdOrName | Self::Name => None,
        }
    }
}

/// The value of a property by which queries find a user: a login name, or an id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum UniqueValue {
    Text(String),
    Integer(i64),
}

impl UniqueValue {
    /// Wraps a text, or returns `None` if the text is too long for an index.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        (text.len() <= MAX_INDEXED_BYTES).then(|| Self::Text(text.to_owned()))
    }

    /// Converts a stored value, or returns `None` if its type or its length is not allowed here.
    pub(crate) fn from_stored(stored: &Value) -> Option<Self> {
        match stored.value_type.as_ref()? {
            ValueType::StringValue(text) => Self::from_text(text),
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

/// Creates the keys of all entities of a store.
#[derive(Clone, Debug)]
pub(crate) struct EntityKeys {
    pub(crate) partition: PartitionId,
    /// The keys of users, and of this store's own entities, begin with this path.
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

    /// Returns the key of the user with this id, or `None` if a key can't have this id or if the id
    /// is stored in a property.
    pub(crate) fn user(&self, id: &UserId) -> Option<Key> {
        let number = id.parse::<i64>().filter(|number| *number != 0);
        let id = match (&self.user_keys, number) {
            (UserKeys::IdOrName, Some(number)) => IdType::Id(number),
            (UserKeys::IdOrName | UserKeys::Name, _) => {
                IdType::Name(is_valid_name(id.as_str()).then(|| id.as_str().to_owned())?)
            }
            (UserKeys::TextProperty(_) | UserKeys::IntegerProperty(_), _) => return None,
        };
        Some(self.user_with(Some(id)))
    }

    /// Returns a user's key that ends with this id or name. Without one, the key is incomplete: the
    /// service completes it with an id.
    pub(crate) fn user_with(&self, id: Option<IdType>) -> Key {
        let own = element(self.user_kind.clone(), id);
        self.key(self.ancestors.iter().cloned().chain([own]).collect())
    }

    /// Returns the property that holds a user's id, and its value for this id. Returns `None` if
    /// the key holds the id, or if no user can have this id.
    pub(crate) fn id_property(&self, id: &UserId) -> Option<(&str, UniqueValue)> {
        match &self.user_keys {
            UserKeys::TextProperty(property) => {
                Some((property, UniqueValue::from_text(id.as_str())?))
            }
            UserKeys::IntegerProperty(property) => {
                Some((property, UniqueValue::Integer(id.parse()?)))
            }
            UserKeys::IdOrName | UserKeys::Name => None,
        }
    }

    /// Checks whether the ancestors of a key are exactly the ancestors of this store.
    pub(crate) fn has_store_ancestors(&self, key: &Key) -> bool {
        key.path.split_last().is_some_and(|(_, ancestors)| ancestors == self.ancestors)
    }

    /// Returns the key of the ancestor of all users, or `None` if they have no ancestors.
    pub(crate) fn ancestor_key(&self) -> Option<Key> {
        (!self.ancestors.is_empty()).then(|| self.key(self.ancestors.clone()))
    }

    /// Returns the key of the index entity for this value of a property. The entity names the user
    /// who has the value.
    pub(crate) fn index(&self, property: &str, value: &UniqueValue) -> Key {
        // The user kind is escaped, so that the first full stop separates it from the property.
        // Otherwise the kind `user.a` with the property `b` would have the same index kind as the
        // kind `user` with the property `a.b`.
        let user_kind = self.user_kind.replace('%', "%25").replace('.', "%2E");
        let kind = format!("{}Index_{user_kind}.{property}", self.prefix);
        self.own_key(kind, name_part(&value.to_string()))
    }

    pub(crate) fn session_kind(&self) -> String {
        format!("{}Session_{}", self.prefix, self.user_kind)
    }

    /// Returns the key of a session record's entity.
    pub(crate) fn session(&self, key: &SessionKey) -> Key {
        self.own_key(self.session_kind(), hex(key.as_bytes()))
    }

    pub(crate) fn counter_kind(&self) -> String {
        format!("{}Counter_{}", self.prefix, self.user_kind)
    }

    /// Returns the key of a counter's entity.
    pub(crate) fn counter(&self, key: &CounterKey) -> Key {
        self.own_key(self.counter_kind(), hex(key.as_bytes()))
    }

    /// Returns a text that is not greater than any sort key of a user's session in this epoch or a
    /// later one, and greater than the sort keys of earlier epochs.
    ///
    /// A sort key is one property for the user, the epoch and the time, each of a fixed length. So
    /// no composite index is needed for a query for a range of sort keys in their order.
    pub(crate) fn lowest_sort_key(&self, user: &UserId, epoch: u64) -> String {
        format!("{}:{epoch:016x}", self.sort_key_prefix(user))
    }

    /// Returns the sort key of a session. `epoch` is the user's epoch when the session was created.
    pub(crate) fn sort_key(&self, user: &UserId, epoch: u64, created: Timestamp) -> String {
        format!("{}:{:08x}", self.lowest_sort_key(user, epoch), created.as_secs())
    }

    /// Returns two texts. The sort keys of the user's sessions are between them, and no other sort
    /// keys are.
    pub(crate) fn sort_key_range(&self, user: &UserId) -> [String; 2] {
        let prefix = self.sort_key_prefix(user);
        [format!("{prefix}:"), format!("{prefix};")]
    }

    /// Returns the text that the sort keys of a user's sessions begin with: a hash of the ancestors
    /// and the user's id. So a user with the same id under other ancestors has another prefix.
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

    pub(crate) fn login_state_kind(&self) -> String {
        format!("{}Logins_{}", self.prefix, self.user_kind)
    }

    /// Returns the key of a user's login state.
    pub(crate) fn login_state(&self, user: &UserId) -> Key {
        self.own_key(self.login_state_kind(), name_part(user.as_str()))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn element(kind: String, id: Option<IdType>) -> PathElement {
    PathElement { kind, id_type: id }
}

/// Returns the id or name that a user's key ends with.
pub(crate) fn user_id_in(key: &Key) -> Option<UserId> {
    match key.path.last()?.id_type.as_ref()? {
        IdType::Id(id) => Some((*id).into()),
        IdType::Name(name) => Some(name.as_str().into()),
    }
}

/// Returns the session key in the key of a session record's entity.
pub(crate) fn session_key_in(key: &Key) -> Option<SessionKey> {
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

/// Checks whether two keys are the key of the same entity. Only their paths are compared, because
/// responses contain parts of the partition that requests leave out.
pub(crate) fn is_same_entity(one: &Key, other: &Key) -> bool {
    one.path == other.path
}

/// Returns the keys without duplicates.
pub(crate) fn distinct(keys: impl IntoIterator<Item = Key>) -> Vec<Key> {
    let mut seen_paths = HashSet::new();
    keys.into_iter().filter(|key| seen_paths.insert(key.path.clone())).collect()
}

/// Checks whether Datastore accepts this name in a key, or as the name of a property.
pub(crate) fn is_valid_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME_BYTES && !is_reserved(name)
}

/// Checks whether Datastore reserves this name for itself.
pub(crate) fn is_reserved(name: &str) -> bool {
    name.len() >= 4 && name.starts_with("__") && name.ends_with("__")
}

/// Converts any text to a valid name in a key: `=` and the text itself or, if the text is too long,
/// `#` and its hash. A text is never mistaken for a hash.
fn name_part(text: &str) -> String {
    if text.len() <= MAX_NAME_PART_BYTES {
        return format!("={text}");
    }
    let hash = Sha256::digest(text.as_bytes());
    hash.iter().fold("#".to_owned(), |hex, byte| format!("{hex}{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys_with(user_keys: UserKeys) -> EntityKeys {
        let partition = PartitionId {
            project_id: "p".into(),
            database_id: String::new(),
            namespace_id: "n".into(),
        };
        let (user_kind, prefix) = ("user".to_owned(), "Keep".to_owned());
        EntityKeys { partition, ancestors: Vec::new(), user_kind, user_keys, prefix }
    }

    #[test]
    fn a_user_id_becomes_the_id_or_the_name_in_the_key() {
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
                let key = keys_with(user_keys).user(&id);
                let found = key.as_ref().and_then(|key| key.path.last()?.id_type.clone());
                assert_eq!(found, expected, "{id:?}");
                assert!(key.is_none_or(|key| user_id_in(&key) == Some(id.clone())));
            }
        }
        assert!(keys_with(UserKeys::Name).user(&"a".repeat(1_501).into()).is_none());
    }

    #[test]
    fn different_login_names_have_different_index_entities() {
        let keys = keys_with(UserKeys::IdOrName);
        let long = "a".repeat(1_501);
        let texts = ["", "ada", "Ada", "__ada__", "#", "=", &long[..1_500], &long];
        let index_key =
            |text: &&str| keys.index("username", &UniqueValue::Text((*text).to_owned()));
        let index_keys: Vec<_> = texts.iter().map(index_key).collect();
        for (index, key) in index_keys.iter().enumerate() {
            let Some(IdType::Name(name)) = &key.path[0].id_type else { panic!("{key:?}") };
            assert!(is_valid_name(name), "{name}");
            assert!(index_keys[..index].iter().all(|other| !is_same_entity(other, key)), "{name}");
        }
    }

    #[test]
    fn each_property_of_each_user_kind_has_its_own_index_kind() {
        let index_kind = |kind: &str, property| {
            let keys = EntityKeys { user_kind: kind.to_owned(), ..keys_with(UserKeys::IdOrName) };
            keys.index(property, &UniqueValue::Integer(7)).path.remove(0).kind
        };
        assert_eq!(index_kind("User", "username"), "KeepIndex_User.username");
        assert_ne!(index_kind("user_admin", "name"), index_kind("user", "admin_name"));
        assert_ne!(index_kind("user.admin", "name"), index_kind("user", "admin.name"));
    }

    #[test]
    fn sort_keys_are_ordered_by_epoch_and_then_by_time() {
        let keys = keys_with(UserKeys::IdOrName);
        let (ada, at) = (UserId::from("ada"), Timestamp::from_secs);
        let [begin, end] = keys.sort_key_range(&ada);
        let sort_keys = [
            begin,
            keys.lowest_sort_key(&ada, 0),
            keys.sort_key(&ada, 0, at(5)),
            keys.sort_key(&ada, 0, Timestamp::MAX),
            keys.lowest_sort_key(&ada, 9),
            keys.sort_key(&ada, 9, at(0)),
            keys.sort_key(&ada, 10, at(0)),
            keys.sort_key(&ada, u64::MAX, at(0)),
            end,
        ];
        assert!(sort_keys.is_sorted(), "{sort_keys:?}");
        let other = keys.sort_key(&"ad".into(), 0, at(5));
        assert!(!(sort_keys[0].as_str()..sort_keys[8].as_str()).contains(&other.as_str()));
        let site = element("Site".into(), Some(IdType::Id(1)));
        let with_ancestor = EntityKeys { ancestors: vec![site], ..keys.clone() };
        assert_ne!(with_ancestor.sort_key_range(&ada), keys.sort_key_range(&ada));
    }

    #[test]
    fn a_session_key_is_read_back_from_the_key_of_its_entity() {
        let keys = keys_with(UserKeys::IdOrName);
        let key = SessionKey::new(std::array::from_fn(|index| (index * 7) as u8));
        let written = keys.session(&key);
        assert_eq!(session_key_in(&written), Some(key));
        for bad in ["", "00", &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(session_key_in(&keys.own_key(keys.session_kind(), bad.to_owned())), None);
        }
    }
}
