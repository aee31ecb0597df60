//! Keeps values unique: login names, and user ids that are stored in a property. For each value, an
//! index entity names the user who has it.
//!
//! Users that other applications write have no index entity. So a call that claims a value for a
//! user also queries for other users who have it. If the user whom an index entity names is
//! deleted, or has another value by now, the value is free.

use std::collections::HashMap;

use gcloud_sdk::google::datastore::v1::value::ValueType;
use gcloud_sdk::google::datastore::v1::{Entity, Key, Mutation, Query, Value};
use tokio::time::Instant;
use tower_keep_core::AuthUser;

use crate::error::Error;
use crate::keys::{UniqueValue, is_same_entity};
use crate::query::{has_ancestor, property_is, query_of_kind, with_limit};
use crate::store::DatastoreStore;
use crate::transaction::{Transaction, delete, insert, upsert};

/// The property of an index entity that holds the user's key.
const USER: &str = "user";

/// A query for one value reads at most this many entities. In a store without ancestors, the query
/// also finds entities that have ancestors, which are not this store's users.
const MAX_MATCHES: usize = 500;

/// A property's value that only one user may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UniqueProperty {
    pub(crate) property: String,
    pub(crate) value: UniqueValue,
}

impl UniqueProperty {
    /// Returns this property of a user's entity and its value. Returns `None` if no query finds the
    /// user by the property, because it is missing, not indexed, or of another type.
    pub(crate) fn stored(entity: &Entity, property: &str) -> Option<Self> {
        let stored = entity.properties.get(property);
        let value =
            UniqueValue::from_stored(stored.filter(|stored| !stored.exclude_from_indexes)?)?;
        Some(Self { property: property.to_owned(), value })
    }

    /// Checks whether an entity has this value in this property.
    pub(crate) fn is_value_of(&self, entity: &Entity) -> bool {
        entity.properties.get(&self.property).and_then(UniqueValue::from_stored).as_ref()
            == Some(&self.value)
    }
}

impl<U: AuthUser> DatastoreStore<U> {
    /// Returns the key of a value's index entity.
    pub(crate) fn index_key(&self, unique: &UniqueProperty) -> Key {
        self.keys().index(&unique.property, &unique.value)
    }

    /// Returns the query for the users who have this value.
    pub(crate) fn query_for(&self, unique: &UniqueProperty) -> Query {
        let mut filters = vec![property_is(&unique.property, unique.value.clone().into_value())];
        filters.extend(self.keys().ancestor_key().map(has_ancestor));
        with_limit(query_of_kind(&self.keys().user_kind, filters), MAX_MATCHES)
    }

    /// Returns those of the found entities that are users of this store. Returns an error if there
    /// may be more entities than the query has read.
    pub(crate) fn complete_matches(
        &self,
        unique: &UniqueProperty,
        found: Vec<Entity>,
    ) -> Result<Vec<Entity>, Error> {
        if found.len() == MAX_MATCHES {
            return Err(Error::corrupt(format!(
                "at least {MAX_MATCHES} entities of kind `{}` have the same `{}`: make it unique",
                self.keys().user_kind,
                unique.property,
            )));
        }
        Ok(self.with_store_ancestors(found))
    }

    /// Returns the mutation that claims a value for a user, or an error if another user has it.
    pub(crate) async fn claim(
        &self,
        transaction: &Transaction<'_>,
        unique: &UniqueProperty,
        user: &Key,
    ) -> Result<Mutation, Error> {
        let index = self.index_key(unique);
        let stored = transaction.lookup(vec![index.clone()]).await?.remove(&index);
        let is_new = stored.is_none();
        let owner = stored.as_ref().and_then(indexed_owner);
        if let Some(owner) = owner.filter(|owner| !is_same_entity(owner, user)) {
            let found = transaction.lookup(vec![owner.clone()]).await?;
            if found.get(&owner).is_some_and(|entity| unique.is_value_of(entity)) {
                return Err(taken(unique));
            }
        }
        let others =
            self.complete_matches(unique, transaction.query(self.query_for(unique)).await?)?;
        let is_other =
            |entity: &Entity| entity.key.as_ref().is_none_or(|key| !is_same_entity(key, user));
        if others.iter().any(is_other) {
            return Err(taken(unique));
        }
        let entity = index_entity(index, user.clone());
        Ok(if is_new { insert(entity) } else { upsert(entity) })
    }

    /// Returns the mutation that deletes the index entity of a user's value, or `None` if the index
    /// entity names another user or does not exist.
    pub(crate) async fn release(
        &self,
        transaction: &Transaction<'_>,
        unique: &UniqueProperty,
        user: &Key,
    ) -> Result<Option<Mutation>, Error> {
        let index = self.index_key(unique);
        let found = transaction.lookup(vec![index.clone()]).await?;
        let owner = found.get(&index).and_then(indexed_owner);
        Ok(owner.filter(|owner| is_same_entity(owner, user)).map(|_| delete(index)))
    }

    /// Returns the user among the found entities who has a value. Other applications do not check
    /// whether a value is unique, so several users may have it. In that case, returns the user whom
    /// the index entity names.
    pub(crate) async fn pick_owner(
        &self,
        unique: &UniqueProperty,
        found: Vec<Entity>,
        transaction: Option<&Transaction<'_>>,
        deadline: Instant,
    ) -> Result<Option<Entity>, Error> {
        let mut users = self.complete_matches(unique, found)?;
        if users.len() < 2 {
            return Ok(users.pop());
        }
        let index = self.index_key(unique);
        let keys = vec![index.clone()];
        let found = match transaction {
            Some(transaction) => transaction.lookup(keys).await?,
            None => self.client().lookup(keys, None, deadline).await?,
        };
        let owner = found.get(&index).and_then(indexed_owner);
        let is_owner = |entity: &Entity| match (&entity.key, &owner) {
            (Some(key), Some(owner)) => is_same_entity(key, owner),
            _ => false,
        };
        let Some(position) = users.iter().position(is_owner) else {
            return Err(Error::corrupt(format!(
                "several entities of kind `{}` have the same `{}`, and no index entity names one \
                 of them: call index_users, which reports them",
                self.keys().user_kind,
                unique.property,
            )));
        };
        Ok(Some(users.swap_remove(position)))
    }
}

fn taken(unique: &UniqueProperty) -> Error {
    Error::taken(&format!("value of `{}`", unique.property))
}

/// Returns the key of the user that an index entity names.
pub(crate) fn indexed_owner(index: &Entity) -> Option<Key> {
    match index.properties.get(USER)?.value_type.as_ref()? {
        ValueType::KeyValue(key) => Some(key.clone()),
        _ => None,
    }
}

/// Creates an index entity.
pub(crate) fn index_entity(key: Key, user: Key) -> Entity {
    let user = Value {
        exclude_from_indexes: true,
        value_type: Some(ValueType::KeyValue(user)),
        ..Value::default()
    };
    Entity { key: Some(key), properties: HashMap::from([(USER.to_owned(), user)]) }
}
