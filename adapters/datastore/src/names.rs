//! What is unique: login names, and ids that are properties. An index entity says whose each value is.
//!
//! Entities that others write have none, so whoever takes a value also asks for users who have it. An
//! index entity whose user is gone, or has another value by now, is nobody's.

use std::collections::HashMap;

use gcloud_sdk::google::datastore::v1::value::ValueType;
use gcloud_sdk::google::datastore::v1::{Entity, Key, Mutation, Query, Value};
use tokio::time::Instant;
use tower_keep_core::AuthUser;

use crate::DatastoreStore;
use crate::error::Fault;
use crate::keys::{Exact, is_same};
use crate::query::{below, limited, of_kind, where_is};
use crate::transaction::{Transaction, delete, insert, upsert};

/// The property of an index entity that says whose it is.
const USER: &str = "user";

/// So many entities with one value are looked at; in a store without ancestors some may be below others'.
const MOST_ALIKE: usize = 500;

/// A property's value that has to be one user's alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unique {
    pub(crate) property: String,
    pub(crate) value: Exact,
}

impl Unique {
    /// The value that a user has, if they can be found by it.
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
    /// The key of a value's index entity.
    pub(crate) fn index_key(&self, unique: &Unique) -> Key {
        self.keys().index(&unique.property, &unique.value)
    }

    /// Asks who has this value.
    pub(crate) fn query_of(&self, unique: &Unique) -> Query {
        let mut filters = vec![where_is(&unique.property, unique.value.clone().into_value())];
        filters.extend(self.keys().ancestor().map(below));
        limited(of_kind(&self.keys().user_kind, filters), MOST_ALIKE)
    }

    /// Those of the answer who are users of this store; of all, not of the first so many.
    pub(crate) fn alike(&self, unique: &Unique, found: Vec<Entity>) -> Result<Vec<Entity>, Fault> {
        if found.len() == MOST_ALIKE {
            return Err(Fault::corrupt(format!(
                "at least {MOST_ALIKE} entities of kind `{}` have the same `{}`",
                self.keys().user_kind,
                unique.property,
            )));
        }
        Ok(self.in_place(found))
    }

    /// Writes whose a value is; or finds that it is another's.
    pub(crate) async fn take(
        &self,
        transaction: &Transaction<'_>,
        unique: &Unique,
        user: &Key,
    ) -> Result<Mutation, Fault> {
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

    /// Lets a value be nobody's again, unless it is another's.
    pub(crate) async fn free(
        &self,
        transaction: &Transaction<'_>,
        unique: &Unique,
        user: &Key,
    ) -> Result<Option<Mutation>, Fault> {
        let index = self.index_key(unique);
        let found = transaction.lookup(vec![index.clone()]).await?;
        let holder = found.get(&index).and_then(holder);
        Ok(holder.filter(|holder| is_same(holder, user)).map(|_| delete(index)))
    }

    /// Of several users with one value the one whose it is, as the index entity says; others may have been
    /// written without asking.
    pub(crate) async fn whose(
        &self,
        unique: &Unique,
        found: Vec<Entity>,
        transaction: Option<&Transaction<'_>>,
        deadline: Instant,
    ) -> Result<Option<Entity>, Fault> {
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
            return Err(Fault::corrupt(format!(
                "several entities of kind `{}` have the same `{}`, and no index entity says whose it is: \
                 index_users names them",
                self.keys().user_kind,
                unique.property,
            )));
        };
        Ok(Some(users.swap_remove(place)))
    }
}

fn taken(unique: &Unique) -> Fault {
    Fault::taken(&format!("value of `{}`", unique.property))
}

/// Whose the value of an index entity is.
pub(crate) fn holder(index: &Entity) -> Option<Key> {
    match index.properties.get(USER)?.value_type.as_ref()? {
        ValueType::KeyValue(key) => Some(key.clone()),
        _ => None,
    }
}

/// An index entity.
pub(crate) fn index_entity(key: Key, user: Key) -> Entity {
    let user = Value {
        exclude_from_indexes: true,
        value_type: Some(ValueType::KeyValue(user)),
        ..Value::default()
    };
    Entity { key: Some(key), properties: HashMap::from([(USER.to_owned(), user)]) }
}
