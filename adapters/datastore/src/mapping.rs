//! Converts entities to the application's users, and back.

use std::collections::HashMap;
use std::marker::PhantomData;

use gcloud_sdk::google::datastore::v1::key::path_element::IdType;
use gcloud_sdk::google::datastore::v1::value::ValueType;
use gcloud_sdk::google::datastore::v1::{Entity, Key, Value};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tower_keep_core::{Account, AuthUser, UserId};

use crate::error::Error;
use crate::keys::{EntityKeys, UniqueValue, UserKeys, is_same, user_id};
use crate::value::{self, Id, Plain, Properties, ValueError, merge};

/// What the store knows about the application's users.
pub(crate) struct Users<U> {
    pub(crate) mapping: Box<dyn Mapping<U>>,
    pub(crate) login_name: fn(&U) -> &str,
    /// The property that holds the login name.
    pub(crate) login_property: String,
    /// The field of the user that the key's id is read into.
    pub(crate) id_field: String,
    /// Properties that are excluded from indexes when they are first written.
    pub(crate) unindexed: Vec<String>,
}

/// Converts a user to properties, and reads one from them.
pub(crate) trait Mapping<U>: Send + Sync + 'static {
    fn write(&self, user: &U) -> value::Result<Properties>;

    /// Returns the names of the user's fields, if they are known.
    fn fields(&self) -> Option<&'static [&'static str]> {
        None
    }

    /// Returns the properties that are excluded from indexes when they are first written.
    fn unindexed(&self) -> &'static [&'static str] {
        &[]
    }

    /// Reads a user, whose id may be only in the key.
    fn read(
        &self,
        properties: HashMap<String, Value>,
        id: &str,
        key: Option<Id<'_>>,
    ) -> value::Result<U>;
}

/// Users of a type with serde's traits.
pub(crate) struct Serde<U>(PhantomData<fn() -> U>);

impl<U> Serde<U> {
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<U: Serialize + DeserializeOwned + 'static> Mapping<U> for Serde<U> {
    fn write(&self, user: &U) -> value::Result<Properties> {
        value::write(user)
    }

    fn fields(&self) -> Option<&'static [&'static str]> {
        value::fields::<U>()
    }

    fn read(
        &self,
        properties: HashMap<String, Value>,
        _id: &str,
        key: Option<Id<'_>>,
    ) -> value::Result<U> {
        value::read(properties, key)
    }
}

/// The ready-made accounts. `Account` itself does not implement serde's traits, so that no handler
/// sends a password hash by accident.
pub(crate) struct Accounts {
    /// The property with the login name.
    pub(crate) login: String,
}

const PASSWORD_HASH: &str = "password_hash";
const ACTIVE: &str = "active";
const SECURITY_STAMP: &str = "security_stamp";
/// The hash at the time when the security stamp was written. Other applications that change the
/// password don't know about security stamps.
const STAMPED_HASH: &str = "stamped_hash";

impl Mapping<Account> for Accounts {
    fn write(&self, account: &Account) -> value::Result<Properties> {
        let stamp = account.security_stamp();
        let is_hash = *stamp == *account.password_hash().as_bytes();
        let mut properties = Properties::default();
        properties.insert(&self.login, Plain::String(account.login_name().to_owned()));
        properties.insert(PASSWORD_HASH, Plain::String(account.password_hash().to_owned()));
        properties.insert(ACTIVE, Plain::Boolean(account.is_active()));
        if is_hash {
            properties.skipped.extend([SECURITY_STAMP.into(), STAMPED_HASH.into()]);
        } else {
            properties.insert(SECURITY_STAMP, Plain::Blob(stamp.into_owned()));
            properties.insert(STAMPED_HASH, Plain::String(account.password_hash().to_owned()));
        }
        Ok(properties)
    }

    fn read(
        &self,
        mut properties: HashMap<String, Value>,
        id: &str,
        _key: Option<Id<'_>>,
    ) -> value::Result<Account> {
        let mut take = |name: &str| properties.remove(name).and_then(|value| value.value_type);
        let login = text(take(&self.login)).map_err(|error| error.within(&self.login))?;
        let hash = text(take(PASSWORD_HASH)).map_err(|error| error.within(PASSWORD_HASH))?;
        let is_active = match take(ACTIVE) {
            None => true,
            Some(ValueType::BooleanValue(is_active)) => is_active,
            // Other applications write a flag as a number. In Python, `None` is false.
            Some(ValueType::IntegerValue(flag @ (0 | 1))) => flag == 1,
            Some(ValueType::NullValue(_)) => false,
            Some(_) => return Err(ValueError::new("a boolean was expected").within(ACTIVE)),
        };
        let is_changed = match take(STAMPED_HASH) {
            // Another application keeps the security stamp.
            None => false,
            Some(ValueType::NullValue(_)) => true,
            stamped => text(stamped).map_err(|error| error.within(STAMPED_HASH))? != hash,
        };
        let stamp = match take(SECURITY_STAMP) {
            None | Some(ValueType::NullValue(_)) => None,
            Some(ValueType::BlobValue(stamp)) => Some(stamp),
            Some(ValueType::StringValue(stamp)) => Some(stamp.into_bytes()),
            Some(_) => {
                return Err(
                    ValueError::new("a blob or a string was expected").within(SECURITY_STAMP)
                );
            }
        };
        // A changed password ends the logins, and so does a changed security stamp.
        let stamp = match stamp {
            Some(stamp) if is_changed => Some([hash.as_bytes(), &stamp].concat()),
            stamp => stamp,
        };
        let account = Account::new(id, login, hash).with_active(is_active);
        Ok(match stamp {
            Some(stamp) => account.with_security_stamp(stamp),
            None => account,
        })
    }

    fn unindexed(&self) -> &'static [&'static str] {
        &[SECURITY_STAMP, STAMPED_HASH]
    }
}

fn text(value: Option<ValueType>) -> value::Result<String> {
    match value {
        Some(ValueType::StringValue(text)) => Ok(text),
        // Python writes `bytes` as a blob.
        Some(ValueType::BlobValue(bytes)) => String::from_utf8(bytes)
            .map_err(|_| ValueError::new("a blob was found that is no text")),
        Some(_) => Err(ValueError::new("a string was expected")),
        None => Err(ValueError::new("it is missing, and a string was expected")),
    }
}

impl<U: AuthUser> Users<U> {
    /// Checks whether the settings fit the user type, as far as this is known without a user.
    pub(crate) fn check(&self, keys: &EntityKeys) -> Result<(), Error> {
        let (login, id) = (&self.login_property, &self.id_field);
        let looked_for = [Some(login.as_str()), keys.user_keys.id_property()];
        let is_looked_for = |property: &&String| looked_for.contains(&Some(property.as_str()));
        if let Some(property) = self.unindexed.iter().find(is_looked_for) {
            let words = format!("`{property}` is looked for, so it can't be one of add_unindexed");
            return Err(Error::unsupported(words));
        }
        let Some(fields) = self.mapping.fields() else { return Ok(()) };
        let known = fields.join(", ");
        if !fields.contains(&login.as_str()) {
            return Err(Error::unsupported(format!(
                "the user type has no field `{login}` for the login name; which is it of {known} (see \
                 with_login_property)?"
            )));
        }
        if keys.user_keys.id_property().is_none() && !fields.contains(&id.as_str()) {
            return Err(Error::unsupported(format!(
                "the user type has no field `{id}` for the key's id; which is it of {known} (see \
                 with_id_field)?"
            )));
        }
        Ok(())
    }

    /// Reads the user of an entity.
    pub(crate) fn read(&self, keys: &EntityKeys, entity: Entity) -> Result<U, Error> {
        let key = entity.key.unwrap_or_default();
        let corrupt = |words: String| Error::corrupt(format!("{}: {words}", described(&key)));
        let (id, in_key) = match &keys.user_keys {
            UserKeys::IdOrName | UserKeys::Name => {
                let id = user_id(&key).ok_or_else(|| corrupt("the key has no id".to_owned()))?;
                // Otherwise the next request would find another user.
                if keys.user(&id).is_none_or(|own| !is_same(&own, &key)) {
                    let words = "the id leads to another key: a name that is written like a number needs \
                                 UserKeys::Name, and an id a number";
                    return Err(corrupt(words.to_owned()));
                }
                let number = match key.path.last().and_then(|own| own.id_type.as_ref()) {
                    Some(IdType::Id(number)) => Some(*number),
                    _ => None,
                };
                (id, Some(number))
            }
            UserKeys::TextProperty(property) | UserKeys::IntegerProperty(property) => {
                let stored = entity.properties.get(property);
                // The value has to be of the type that a query looks for. Otherwise the next
                // request would find no user, or another one.
                let value = stored.and_then(UniqueValue::of);
                let id = value.as_ref().map(|value| UserId::from(value.to_string()));
                let id = id.filter(|id| keys.id_property(id).map(|(_, own)| own) == value);
                let no_id = || {
                    corrupt(format!(
                        "property `{property}` is not of the type that with_user_keys says"
                    ))
                };
                (id.ok_or_else(no_id)?, None)
            }
        };
        let text = id.as_str();
        let in_key = in_key.map(|number| Id { property: &self.id_field, number, text });
        let user = self.mapping.read(entity.properties, text, in_key);
        let user = user.map_err(|cause| corrupt(cause.to_string()))?;
        if user.id() != id {
            let field = &self.id_field;
            return Err(corrupt(format!(
                "AuthUser::id() returns a different id than the one that was read; is it read into the \
                 field `{field}` (see with_id_field)?"
            )));
        }
        Ok(user)
    }

    /// Returns the properties to write for a user, before they are merged with the stored ones.
    pub(crate) fn write(&self, keys: &EntityKeys, user: &U) -> Result<Properties, Error> {
        let unsupported =
            |text: String| Error::unsupported(format!("a user can't be written: {text}"));
        let mut properties =
            self.mapping.write(user).map_err(|error| unsupported(error.to_string()))?;
        match keys.user_keys.id_property() {
            None => properties.leave_unchanged(&self.id_field),
            Some(property) => {
                let Some((_, value)) = keys.id_property(&user.id()) else {
                    return Err(unsupported(format!("property `{property}` can't be this id")));
                };
                let plain = match value {
                    UniqueValue::Integer(number) => Plain::Integer(number),
                    UniqueValue::Text(text) => Plain::String(text),
                };
                match properties.get(property) {
                    None => properties.insert(property, plain),
                    Some(written) if *written == plain => {}
                    Some(_) => {
                        return Err(unsupported(format!(
                            "property `{property}` is not AuthUser::id()"
                        )));
                    }
                }
            }
        }
        let (login, property) = ((self.login_name)(user), &self.login_property);
        match properties.get(property) {
            Some(Plain::String(written)) if written == login => Ok(properties),
            _ => Err(unsupported(format!(
                "property `{property}` is not what login_name returns; which property is it \
                 (see with_login_property)?"
            ))),
        }
    }

    /// Returns the properties of an entity after these are written to it.
    pub(crate) fn merged(
        &self,
        keys: &EntityKeys,
        stored: &Entity,
        properties: Properties,
    ) -> HashMap<String, Value> {
        let before = self.read(keys, stored.clone()).ok();
        let before = before.and_then(|before| self.write(keys, &before).ok()).unwrap_or_default();
        let stored = &stored.properties;
        let mut merged = merge(stored, &before, properties, &self.unindexed, &keys.partition);
        // A property that the key's id hides is not written. It stays, even if the user type is a
        // map.
        if keys.user_keys.id_property().is_none()
            && let Some(hidden) = stored.get(&self.id_field)
        {
            merged.insert(self.id_field.clone(), hidden.clone());
        }
        // A query looks for a login name as text.
        if let Some(login) = merged.get_mut(&self.login_property)
            && let Some(ValueType::BlobValue(bytes)) = &login.value_type
            && let Ok(text) = String::from_utf8(bytes.clone())
        {
            login.value_type = Some(ValueType::StringValue(text));
            login.meaning = 0;
        }
        merged
    }

    /// Checks whether an entity could be read again after it is written, so that no write locks a
    /// user out.
    pub(crate) fn check_is_readable(
        &self,
        keys: &EntityKeys,
        entity: &Entity,
    ) -> Result<(), Error> {
        let unreadable = |error: Error| {
            Error::unsupported(format!(
                "nothing is written, as it could not be read again: {error}"
            ))
        };
        self.read(keys, entity.clone()).map(drop).map_err(unreadable)
    }

    /// Returns the login name of an entity.
    pub(crate) fn login_of<'e>(&self, entity: &'e Entity) -> Option<&'e str> {
        match entity.properties.get(&self.login_property)?.value_type.as_ref()? {
            ValueType::StringValue(text) => Some(text),
            _ => None,
        }
    }
}

/// Names an entity in an error, for the administrator who has to repair it.
fn described(key: &Key) -> String {
    let own = key.path.last();
    let kind = own.map_or("", |own| &own.kind);
    match own.and_then(|own| own.id_type.as_ref()) {
        Some(IdType::Id(id)) => format!("kind `{kind}`, id {id}"),
        Some(IdType::Name(name)) => format!("kind `{kind}`, name {name:?}"),
        None => format!("kind `{kind}`"),
    }
}
