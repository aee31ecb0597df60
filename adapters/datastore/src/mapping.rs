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
use crate::keys::{EntityKeys, UniqueValue, UserKeys, is_same_entity, user_id_in};
use crate::value::de::{self, KeyId};
use crate::value::error::{Result as ValueResult, ValueError};
use crate::value::merge::merge;
use crate::value::ser::{self, NewProperties, NewValue};

/// The application's user type: its fields, its properties, and how one becomes the other.
pub(crate) struct UserType<U> {
    pub(crate) mapping: Box<dyn Mapping<U>>,
    /// Returns the login name of a user.
    pub(crate) login_name: fn(&U) -> &str,
    /// The property that holds the login name.
    pub(crate) login_property: String,
    /// The id or name in the key is read into this field of the user.
    pub(crate) id_field: String,
    /// Properties that are excluded from indexes when they are first written.
    pub(crate) unindexed: Vec<String>,
}

/// Converts a user to properties, and properties to a user.
pub(crate) trait Mapping<U>: Send + Sync + 'static {
    fn write(&self, user: &U) -> ValueResult<NewProperties>;

    /// Returns the names of the type's fields, or `None` if they are not known.
    fn fields(&self) -> Option<&'static [&'static str]> {
        None
    }

    /// Returns the properties that are excluded from indexes when they are first written.
    fn unindexed(&self) -> &'static [&'static str] {
        &[]
    }

    /// Reads a user. `id` is the user's id as text. `key` is set if the id is in the entity's key
    /// instead of a property.
    fn read(
        &self,
        properties: HashMap<String, Value>,
        id: &str,
        key: Option<KeyId<'_>>,
    ) -> ValueResult<U>;
}

/// The mapping of a user type with serde's traits.
pub(crate) struct SerdeMapping<U>(PhantomData<fn() -> U>);

impl<U> SerdeMapping<U> {
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<U: Serialize + DeserializeOwned + 'static> Mapping<U> for SerdeMapping<U> {
    fn write(&self, user: &U) -> ValueResult<NewProperties> {
        ser::write(user)
    }

    fn fields(&self) -> Option<&'static [&'static str]> {
        de::fields::<U>()
    }

    fn read(
        &self,
        properties: HashMap<String, Value>,
        _id: &str,
        key: Option<KeyId<'_>>,
    ) -> ValueResult<U> {
        de::read(properties, key)
    }
}

/// The mapping of the ready-made `Account`. That type does not implement serde's traits, so that no
/// handler sends a password hash by accident.
pub(crate) struct AccountMapping {
    /// The property that holds the login name.
    pub(crate) login_property: String,
}

const PASSWORD_HASH: &str = "password_hash";
const ACTIVE: &str = "active";
const SECURITY_STAMP: &str = "security_stamp";
/// The property with the password hash at the time when the security stamp was written. It shows
/// whether another application, which does not write security stamps, has changed the password.
const STAMPED_HASH: &str = "stamped_hash";

impl Mapping<Account> for AccountMapping {
    fn write(&self, account: &Account) -> ValueResult<NewProperties> {
        let stamp = account.security_stamp();
        let is_hash = *stamp == *account.password_hash().as_bytes();
        let mut properties = NewProperties::default();
        properties.insert(&self.login_property, NewValue::String(account.login_name().to_owned()));
        properties.insert(PASSWORD_HASH, NewValue::String(account.password_hash().to_owned()));
        properties.insert(ACTIVE, NewValue::Boolean(account.is_active()));
        if is_hash {
            properties.skipped.extend([SECURITY_STAMP.into(), STAMPED_HASH.into()]);
        } else {
            properties.insert(SECURITY_STAMP, NewValue::Blob(stamp.into_owned()));
            properties.insert(STAMPED_HASH, NewValue::String(account.password_hash().to_owned()));
        }
        Ok(properties)
    }

    fn read(
        &self,
        mut properties: HashMap<String, Value>,
        id: &str,
        _key: Option<KeyId<'_>>,
    ) -> ValueResult<Account> {
        let mut take = |name: &str| properties.remove(name).and_then(|value| value.value_type);
        let login_name =
            text(take(&self.login_property)).map_err(|error| error.within(&self.login_property))?;
        let hash = text(take(PASSWORD_HASH)).map_err(|error| error.within(PASSWORD_HASH))?;
        let is_active = match take(ACTIVE) {
            None => true,
            Some(ValueType::BooleanValue(is_active)) => is_active,
            // Other applications write a flag as a number. In Python, `None` is false.
            Some(ValueType::IntegerValue(flag @ (0 | 1))) => flag == 1,
            Some(ValueType::NullValue(_)) => false,
            Some(_) => {
                return Err(
                    ValueError::new("found another type, expected a boolean").within(ACTIVE)
                );
            }
        };
        let is_password_changed = match take(STAMPED_HASH) {
            // There is no security stamp, or another application writes it, and changes it with the
            // password.
            None => false,
            Some(ValueType::NullValue(_)) => true,
            stamped => text(stamped).map_err(|error| error.within(STAMPED_HASH))? != hash,
        };
        let stamp = match take(SECURITY_STAMP) {
            None | Some(ValueType::NullValue(_)) => None,
            Some(ValueType::BlobValue(stamp)) => Some(stamp),
            Some(ValueType::StringValue(stamp)) => Some(stamp.into_bytes()),
            Some(_) => {
                return Err(ValueError::new("found another type, expected a blob or a string")
                    .within(SECURITY_STAMP));
            }
        };
        // A changed password has to end the logins, so it also changes the security stamp.
        let stamp = match stamp {
            Some(stamp) if is_password_changed => Some([hash.as_bytes(), &stamp].concat()),
            stamp => stamp,
        };
        let account = Account::new(id, login_name, hash).with_active(is_active);
        Ok(match stamp {
            Some(stamp) => account.with_security_stamp(stamp),
            None => account,
        })
    }

    fn unindexed(&self) -> &'static [&'static str] {
        &[SECURITY_STAMP, STAMPED_HASH]
    }
}

fn text(value: Option<ValueType>) -> ValueResult<String> {
    match value {
        Some(ValueType::StringValue(text)) => Ok(text),
        // Python writes `bytes` as a blob.
        Some(ValueType::BlobValue(bytes)) => String::from_utf8(bytes)
            .map_err(|_| ValueError::new("found a blob that is not UTF-8, expected a string")),
        Some(_) => Err(ValueError::new("found another type, expected a string")),
        None => Err(ValueError::new("found no property, expected a string")),
    }
}

impl<U: AuthUser> UserType<U> {
    /// Checks the settings against the user type, as far as this is possible without a user.
    pub(crate) fn check(&self, keys: &EntityKeys) -> Result<(), Error> {
        let (login_property, id_field) = (&self.login_property, &self.id_field);
        let queried = [Some(login_property.as_str()), keys.user_keys.id_property()];
        let is_queried = |property: &&String| queried.contains(&Some(property.as_str()));
        if let Some(property) = self.unindexed.iter().find(is_queried) {
            return Err(Error::unsupported(format!(
                "users are found by `{property}`, so it has to be indexed: leave it out of \
                 add_unindexed"
            )));
        }
        let Some(fields) = self.mapping.fields() else { return Ok(()) };
        let known = fields.join(", ");
        if !fields.contains(&login_property.as_str()) {
            return Err(Error::unsupported(format!(
                "the user type has no field `{login_property}` for the login name: \
                 choose one of {known} by with_login_property"
            )));
        }
        if keys.user_keys.id_property().is_none() && !fields.contains(&id_field.as_str()) {
            return Err(Error::unsupported(format!(
                "the user type has no field `{id_field}` for the key's id: \
                 choose one of {known} by with_id_field"
            )));
        }
        Ok(())
    }

    /// Reads the user of an entity.
    pub(crate) fn read(&self, keys: &EntityKeys, entity: Entity) -> Result<U, Error> {
        let key = entity.key.unwrap_or_default();
        let corrupt = |message: String| Error::corrupt(format!("{}: {message}", describe(&key)));
        let (id, key_number) = match &keys.user_keys {
            UserKeys::IdOrName | UserKeys::Name => {
                let id = user_id_in(&key)
                    .ok_or_else(|| corrupt("the key has no id and no name".to_owned()))?;
                // The next request looks the user up by this id. If the id led to another key, that
                // request would find another user.
                if keys.user(&id).is_none_or(|expected| !is_same_entity(&expected, &key)) {
                    let message = "the user can't be found by this id: if the key has a name that \
                                   looks like a number, set UserKeys::Name; if the key has an id, \
                                   set UserKeys::IdOrName";
                    return Err(corrupt(message.to_owned()));
                }
                let number = match key.path.last().and_then(|step| step.id_type.as_ref()) {
                    Some(IdType::Id(number)) => Some(*number),
                    _ => None,
                };
                (id, Some(number))
            }
            UserKeys::TextProperty(property) | UserKeys::IntegerProperty(property) => {
                let stored = entity.properties.get(property);
                // The next request looks for the id as a value of the type in the settings. For a
                // value of another type, that request would find no user, or another user.
                let value = stored.and_then(UniqueValue::from_stored);
                let id = value.as_ref().map(|value| UserId::from(value.to_string()));
                let id = id.filter(|id| keys.id_property(id).map(|(_, queried)| queried) == value);
                let no_id = || {
                    corrupt(format!(
                        "property `{property}` is missing, or not of the type in with_user_keys"
                    ))
                };
                (id.ok_or_else(no_id)?, None)
            }
        };
        let text = id.as_str();
        let key_id = key_number.map(|number| KeyId { property: &self.id_field, number, text });
        let user = self.mapping.read(entity.properties, text, key_id);
        let user = user.map_err(|cause| corrupt(cause.to_string()))?;
        if user.id() != id {
            let field = &self.id_field;
            return Err(corrupt(format!(
                "AuthUser::id() returns another id than the stored one: if the id is in the key, \
                 it is read into the field `{field}` (see with_id_field)"
            )));
        }
        Ok(user)
    }

    /// Returns the properties to write for a user, before they are merged with the stored ones.
    pub(crate) fn write(&self, keys: &EntityKeys, user: &U) -> Result<NewProperties, Error> {
        let unsupported =
            |text: String| Error::unsupported(format!("the user can't be written: {text}"));
        let mut properties =
            self.mapping.write(user).map_err(|error| unsupported(error.to_string()))?;
        match keys.user_keys.id_property() {
            None => properties.leave_unchanged(&self.id_field),
            Some(property) => {
                let Some((_, value)) = keys.id_property(&user.id()) else {
                    return Err(unsupported(format!(
                        "property `{property}` can't hold the user's id: choose another id"
                    )));
                };
                let value = match value {
                    UniqueValue::Integer(number) => NewValue::Integer(number),
                    UniqueValue::Text(text) => NewValue::String(text),
                };
                match properties.get(property) {
                    None => properties.insert(property, value),
                    Some(written) if *written == value => {}
                    Some(_) => {
                        return Err(unsupported(format!(
                            "property `{property}` differs from AuthUser::id(): make them the same"
                        )));
                    }
                }
            }
        }
        let (login_name, property) = ((self.login_name)(user), &self.login_property);
        match properties.get(property) {
            Some(NewValue::String(written)) if written == login_name => Ok(properties),
            _ => Err(unsupported(format!(
                "property `{property}` differs from the login name of with_users: set the property \
                 of the login name by with_login_property"
            ))),
        }
    }

    /// Returns the properties of an entity after `properties` are written over the stored ones.
    pub(crate) fn merged(
        &self,
        keys: &EntityKeys,
        stored: &Entity,
        properties: NewProperties,
    ) -> HashMap<String, Value> {
        let previous = self.read(keys, stored.clone()).ok();
        let previous = previous.and_then(|user| self.write(keys, &user).ok()).unwrap_or_default();
        let stored = &stored.properties;
        let mut merged = merge(stored, &previous, properties, &self.unindexed, &keys.partition);
        // The id field holds the key's id, so a property with the same name is neither read nor
        // written. It is kept, even if the user type is a map and so replaces all properties.
        if keys.user_keys.id_property().is_none()
            && let Some(hidden) = stored.get(&self.id_field)
        {
            merged.insert(self.id_field.clone(), hidden.clone());
        }
        // Queries look for a login name as a string, so a blob becomes a string.
        if let Some(login_value) = merged.get_mut(&self.login_property)
            && let Some(ValueType::BlobValue(bytes)) = &login_value.value_type
            && let Ok(text) = String::from_utf8(bytes.clone())
        {
            login_value.value_type = Some(ValueType::StringValue(text));
            login_value.meaning = 0;
        }
        merged
    }

    /// Returns an error if the entity could not be read again after it is written. Otherwise such a
    /// write would lock the user out.
    pub(crate) fn check_is_readable(
        &self,
        keys: &EntityKeys,
        entity: &Entity,
    ) -> Result<(), Error> {
        let unreadable = |error: Error| {
            Error::unsupported(format!(
                "nothing was written, because the user could not be read again: {error}"
            ))
        };
        self.read(keys, entity.clone()).map(drop).map_err(unreadable)
    }

    /// Returns the login name of a user's entity.
    pub(crate) fn login_name_of<'e>(&self, entity: &'e Entity) -> Option<&'e str> {
        match entity.properties.get(&self.login_property)?.value_type.as_ref()? {
            ValueType::StringValue(text) => Some(text),
            _ => None,
        }
    }
}

/// Returns the kind and the id or name of an entity, for the administrator who reads the error.
fn describe(key: &Key) -> String {
    let step = key.path.last();
    let kind = step.map_or("", |step| &step.kind);
    match step.and_then(|step| step.id_type.as_ref()) {
        Some(IdType::Id(id)) => format!("kind `{kind}`, id {id}"),
        Some(IdType::Name(name)) => format!("kind `{kind}`, name {name:?}"),
        None => format!("kind `{kind}`"),
    }
}
