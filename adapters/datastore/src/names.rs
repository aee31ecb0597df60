//! Values that are unique: login names, and ids that are properties. An index entity says which
//! user has a value.
//!
//! Entities that other applications write have no index entity. So a call that takes a value also
//! queries for users who have it. If the user of an index entity is deleted, or has another value
//! by now, the value is free.

use std::collections::HashMap;

use gcloud_sdk::google::datastore::v1::value::ValueType;
use gcloud_sdk::google::datastore::v1::{Entity, Key, Mutation, Query, Value};
use tokio::time::Instant;
use tower_keep_core::AuthUser;

use crate::DatastoreStore;
use crate::error::Error;
use crate::keys::{Exact, is_same};
use crate::query::{below, limited, of_kind, where_is};
use crate::transaction::{Transaction, delete, insert, upsert};

/// The property of an index entity that holds the user's key.
const USER: &str = "user";

/// The most entities with one value that are looked at. In a store without ancestors, some of them
/// may be below other entities.
const MOST_ALIKE: usize = 500;

/// A property's value that only one user may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unique {
    pub(crate) property: String,
    pub(crate) value: Exact,
}

impl Unique {
    /// Returns the value that a user has, if a query finds the user by it.
    pub(crate) fn stored(entity: &Entity, property: &str) -> Option<Self> {
        let stored = entity.properties.get(property);
        let value = Exact::of(stored.filter(|stored| !stored.exclude_from_indexes)?)?;
        Some(Self { property: property.to_owned(), value })
    }

    pub(crate) fn is_of(&self, entity: &Entity) -> bool {
        entity.properties.get(&self.property).and_then(Exact::of).as_ref() == Some(&self.value)
    }
}

impl<U: AuthUser> DatastoreStore<U> {
    /// Returns the key of a value's index entity.
    pub(crate) fn index_key(&self, unique: &Unique) -> Key {
        self.keys().index(&unique.property, &unique.value)
    }

    /// Returns the query for the users who have this value.
    pub(crate) fn query_of(&self, unique: &Unique) -> Query {
        let mut filters = vec![where_is(&unique.property, unique.value.clone().into_value())];
        filters.extend(self.keys().ancestor().map(below));
        limited(of_kind(&self.keys().user_kind, filters), MOST_ALIKE)
    }

    /// Returns the found entities that are users of this store. Returns an error if there may be
    /// more than the query has found.
    pub(crate) fn alike(&self, unique: &Unique, found: Vec<Entity>) -> Result<Vec<Entity>, Error> {
        if found.len() == MOST_ALIKE {
            return Err(Error::corrupt(format!(
                "at least {MOST_ALIKE} entities of kind `{}` have the same `{}`",
                self.keys().user_kind,
                unique.property,
            )));
        }
        Ok(self.in_place(found))
    }

    /// Returns the mutation by which a user takes a value, or an error if another user has it.
    pub(crate) async fn take(
        &self,
        transaction: &Transaction<'_>,
        unique: &Unique,
        user: &Key,
    ) -> Result<Mutation, Error> {
        let index = self.index_key(unique);
        let stored = transaction.lookup(vec![index.clone()]).await?.remove(&index);
        let is_new = stored.is_none();
        let holder = stored.as_ref().and_then(holder);
        if let Some(holder) = holder.filter(|holder| !is_same(holder, user)) {
            let found = transaction.lookup(vec![holder.clone()]).await?;
            if found.get(&holder).is_some_and(|entity| unique.is_of(entity)) {
                return Err(taken(unique));
            }
        }
        let others = self.alike(unique, transaction.query(self.query_of(unique)).await?)?;
        let is_other = |entity: &Entity| entity.key.as_ref().is_none_or(|key| !is_same(key, user));
        if others.iter().any(is_other) {
            return Err(taken(unique));
        }
        let entity = index_entity(index, user.clone());
        Ok(if is_new { insert(entity) } else { upsert(entity) })
    }

    /// Returns the mutation by which a user frees a value, unless another user has it.
    pub(crate) async fn free(
        &self,
        transaction: &Transaction<'_>,
        unique: &Unique,
        user: &Key,
    ) -> Result<Option<Mutation>, Error> {
        let index = self.index_key(unique);
        let found = transaction.lookup(vec![index.clone()]).await?;
        let holder = found.get(&index).and_then(holder);
        Ok(holder.filter(|holder| is_same(holder, user)).map(|_| delete(index)))
    }

    /// Returns the user who has a value. If several users have it, the index entity decides. Other
    /// applications may have written them without a check.
    pub(crate) async fn whose(
        &self,
        unique: &Unique,
        found: Vec<Entity>,
        transaction: Option<&Transaction<'_>>,
        deadline: Instant,
    ) -> Result<Option<Entity>, Error> {
        let mut users = self.alike(unique, found)?;
        if users.len() < 2 {
            return Ok(users.pop());
        }
        let index = self.index_key(unique);
        let keys = vec![index.clone()];
        let found = match transaction {
            Some(transaction) => transaction.lookup(keys).await?,
            None => self.client().lookup(keys, None, deadline).await?,
        };
        let holder = found.get(&index).and_then(holder);
        let is_holder = |entity: &Entity| match (&entity.key, &holder) {
            (Some(key), Some(holder)) => is_same(key, holder),
            _ => false,
        };
        let Some(place) = users.iter().position(is_holder) else {
            return Err(Error::corrupt(format!(
                "several entities of kind `{}` have the same `{}`, and no index entity says whose it is: \
                 index_users names them",
                self.keys().user_kind,
                unique.property,
            )));
        };
        Ok(Some(users.swap_remove(place)))
    }
}

fn taken(unique: &Unique) -> Error {
    Error::taken(&format!("value of `{}`", unique.property))
}

/// Returns the key of the user that an index entity names.
pub(crate) fn holder(index: &Entity) -> Option<Key> {
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
