//! Finds users, writes them over what other applications have written, and keeps login names
//! unique.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use gcloud_sdk::google::datastore::v1::{Entity, Value};
use tokio::time::Instant;
use tower_keep_core::{
    AuthUser, ChangeUser, Modified, StoreError, UserDirectory, UserId, UserLookup, UserStore,
    async_trait,
};

use crate::DatastoreStore;
use crate::error::{Cause, Error, NAME};
use crate::keys::{UniqueValue, distinct, user_id};
use crate::names::UniqueProperty;
use crate::transaction::{
    Change, Transaction, collect_into, delete, insert, read_all, transact, unchanged, upsert,
};

/// How many queries run concurrently, if users are not found by their keys.
const CONCURRENT_QUERIES: usize = 32;

impl<U: AuthUser> DatastoreStore<U> {
    pub(crate) fn read_user(&self, entity: Entity) -> Result<Arc<U>, Error> {
        self.shared.users.read(self.keys(), entity).map(Arc::new)
    }

    /// Returns an id that is a property, as a unique value.
    fn unique_id(&self, id: &UserId) -> Option<UniqueProperty> {
        let (property, value) = self.keys().id_property(id)?;
        Some(UniqueProperty { property: property.to_owned(), value })
    }

    /// Returns a login name as a unique value, if it is not too long.
    fn unique_login(&self, login: &str) -> Option<UniqueProperty> {
        let property = self.shared.users.login_property.clone();
        Some(UniqueProperty { property, value: UniqueValue::text(login)? })
    }

    /// Returns the login name of a user who is to be written, as a unique value.
    fn unique_login_of(&self, user: &U) -> Result<UniqueProperty, Error> {
        let login = self.unique_login((self.shared.users.login_name)(user));
        login.ok_or_else(|| Error::unsupported("a login name has at most 1,500 bytes"))
    }

    pub(crate) async fn find_user(
        &self,
        id: &UserId,
        deadline: Instant,
    ) -> Result<Option<Arc<U>>, Error> {
        let found = match self.keys().user(id) {
            Some(key) => {
                self.client().lookup(vec![key.clone()], None, deadline).await?.remove(&key)
            }
            None => match self.unique_id(id) {
                Some(unique) => self.find_by_unique(&unique, deadline).await?,
                None => None,
            },
        };
        found.map(|entity| self.read_user(entity)).transpose()
    }

    async fn find_by_unique(
        &self,
        unique: &UniqueProperty,
        deadline: Instant,
    ) -> Result<Option<Entity>, Error> {
        let mut found = Vec::new();
        read_all(self.client(), self.query_for(unique), deadline, collect_into(&mut found)).await?;
        self.pick_owner(unique, found, None, deadline).await
    }

    async fn find_by_login_name(&self, name: &str) -> Result<Option<Arc<U>>, Error> {
        let Some(unique) = self.unique_login(name) else { return Ok(None) };
        let deadline = self.deadline();
        let Some(found) = self.find_by_unique(&unique, deadline).await? else { return Ok(None) };
        let login = &self.shared.users.login_property;
        let Some(property) = self.keys().user_keys.id_property().filter(|own| own != login) else {
            return self.read_user(found).map(Some);
        };
        // If the id is a property, another user may have the same one, and the next request would
        // find that user.
        let error = |words: &str| {
            let kind = &self.keys().user_kind;
            Err(Error::corrupt(format!("`{property}` of an entity of kind `{kind}` {words}")))
        };
        let (key, unique_id) = (found.key.clone(), UniqueProperty::stored(&found, property));
        let user = self.read_user(found)?;
        let Some(unique_id) = unique_id else {
            return error("is not indexed, so nobody is found by it");
        };
        match self.find_by_unique(&unique_id, deadline).await? {
            Some(next) if next.key == key => Ok(Some(user)),
            Some(_) => error("is also another's, who is found by it: index_users names them"),
            // The user was deleted in between.
            None => Ok(None),
        }
    }

    async fn find_users(&self, ids: &[UserId]) -> Result<Vec<Option<Arc<U>>>, Error> {
        let deadline = self.deadline();
        if self.keys().user_keys.id_property().is_some() {
            let found = stream::iter(ids.to_vec())
                .map(|id| async move { self.find_user(&id, deadline).await });
            return found.buffered(CONCURRENT_QUERIES).try_collect().await;
        }
        let wanted = ids.iter().filter_map(|id| self.keys().user(id));
        let found = self.client().lookup(distinct(wanted), None, deadline).await?;
        let mut users: HashMap<UserId, Arc<U>> = HashMap::new();
        for entity in found.into_entities() {
            if let Some(id) = entity.key.as_ref().and_then(user_id) {
                users.insert(id, self.read_user(entity)?);
            }
        }
        Ok(ids.iter().map(|id| users.get(id).cloned()).collect())
    }

    async fn insert_user(&self, user: &U) -> Result<(), Error> {
        let users = &self.shared.users;
        let id = user.id();
        let login = self.unique_login_of(user)?;
        let properties = users.write(self.keys(), user)?;
        let properties = users.merged(self.keys(), &Entity::default(), properties);
        let unique_id = self.unique_id(&id);
        let deadline = self.deadline();
        // A key that the service chooses is completed first, as the index entities name it.
        let key = match (self.keys().user(&id), &unique_id) {
            (Some(key), _) => key,
            (None, Some(_)) => self.client().allocate(self.keys().new_user(None), deadline).await?,
            (None, None) => {
                let words =
                    "this id can't be one of Datastore's keys: 1 to 1,500 bytes, and not __…__";
                return Err(Error::unsupported(words));
            }
        };
        let _turn = self.shared.turns.wait(&id, deadline).await?;
        let _turn_of_name = self.shared.turns_of_names.wait(&login.value, deadline).await?;
        let entity = Entity { key: Some(key.clone()), properties };
        users.check_is_readable(self.keys(), &entity)?;
        let insertion = transact!(self.client(), deadline, transaction => {
            let found = transaction.lookup(vec![key.clone()]).await?;
            if found.get(&key).is_some() {
                return Err(Error::taken("id"));
            }
            let mut mutations = vec![insert(entity.clone())];
            mutations.push(self.claim(transaction, &login, &key).await?);
            if let Some(unique) = unique_id.as_ref().filter(|unique| **unique != login) {
                mutations.push(self.claim(transaction, unique, &key).await?);
            }
            Ok(Change { mutations, output: () })
        });
        insertion.await.map_err(|error| match error.cause {
            Cause::AlreadyExists => Error::taken("id or the login name"),
            _ => error,
        })
    }

    /// Reads the entity of a user in a transaction.
    async fn read_entity_in(
        &self,
        transaction: &Transaction<'_>,
        id: &UserId,
        deadline: Instant,
    ) -> Result<Option<Entity>, Error> {
        if let Some(key) = self.keys().user(id) {
            return Ok(transaction.lookup(vec![key.clone()]).await?.remove(&key));
        }
        let Some(unique) = self.unique_id(id) else { return Ok(None) };
        let found = transaction.query(self.query_for(&unique)).await?;
        let Some(found) = self.pick_owner(&unique, found, Some(transaction), deadline).await?
        else {
            return Ok(None);
        };
        // Read it again by its key: a query alone does not guard what it finds against changes.
        let key = found.key.unwrap_or_default();
        Ok(transaction.lookup(vec![key.clone()]).await?.remove(&key))
    }

    /// Reads the entity of a user as stored now, outside of transactions.
    async fn read_entity(&self, id: &UserId, deadline: Instant) -> Result<Option<Entity>, Error> {
        let key = match (self.keys().user(id), self.unique_id(id)) {
            (Some(key), _) => Some(key),
            (None, Some(unique)) => {
                self.find_by_unique(&unique, deadline).await?.and_then(|entity| entity.key)
            }
            (None, None) => None,
        };
        let Some(key) = key else { return Ok(None) };
        Ok(self.client().lookup(vec![key.clone()], None, deadline).await?.remove(&key))
    }

    async fn modify_user(
        &self,
        id: &UserId,
        change: &mut ChangeUser<'_, U>,
    ) -> Result<Modified<U>, StoreError> {
        let deadline = self.deadline();
        // Calls of this process for the same user take turns, so that they don't lose races.
        let _turn = self.shared.turns.wait(id, deadline).await?;
        while Instant::now() < deadline {
            let Some(before) = self.read_entity(id, deadline).await? else {
                return Ok(Modified::Missing);
            };
            let stored = self.read_user(before.clone())?;
            let after = match Modified::next(&stored, change, NAME)? {
                ControlFlow::Continue(after) => after,
                ControlFlow::Break(done) => return Ok(done),
            };
            if self.replace_if_unchanged(id, &before, &after, deadline).await? {
                return Ok(Modified::Changed(after));
            }
        }
        Err(Error::contended().into())
    }

    /// Writes a user over the entity that was read. Returns `false` if that entity is no longer
    /// stored.
    async fn replace_if_unchanged(
        &self,
        id: &UserId,
        before: &Entity,
        after: &U,
        deadline: Instant,
    ) -> Result<bool, Error> {
        let users = &self.shared.users;
        let login = self.unique_login_of(after)?;
        let properties = users.write(self.keys(), after)?;
        let properties = users.merged(self.keys(), before, properties);
        let entity = Entity { key: before.key.clone(), properties };
        users.check_is_readable(self.keys(), &entity)?;
        let earlier = users.login_of(before).and_then(|earlier| self.unique_login(earlier));
        let _turn_of_name = self.shared.turns_of_names.wait(&login.value, deadline).await?;
        transact!(self.client(), deadline, transaction => {
            let stored = self.read_entity_in(transaction, id, deadline).await?;
            if !stored.is_some_and(|stored| is_unchanged(&stored, before)) {
                return unchanged(false);
            }
            let key = before.key.clone().unwrap_or_default();
            let mut mutations = Vec::new();
            if earlier.as_ref() != Some(&login) {
                mutations.push(self.claim(transaction, &login, &key).await?);
                if let Some(earlier) = &earlier {
                    mutations.extend(self.release(transaction, earlier, &key).await?);
                }
            }
            mutations.push(upsert(entity.clone()));
            Ok(Change { mutations, output: true })
        })
        .await
    }

    async fn delete_user(&self, id: &UserId) -> Result<bool, Error> {
        let deadline = self.deadline();
        let _turn = self.shared.turns.wait(id, deadline).await?;
        transact!(self.client(), deadline, transaction => {
            let Some(stored) = self.read_entity_in(transaction, id, deadline).await? else {
                return unchanged(false);
            };
            let key = stored.key.clone().unwrap_or_default();
            let login = self.shared.users.login_of(&stored);
            let login = login.and_then(|login| self.unique_login(login));
            let mut mutations = vec![delete(key.clone())];
            let unique_id = self.unique_id(id).filter(|unique| Some(unique) != login.as_ref());
            for unique in login.into_iter().chain(unique_id) {
                mutations.extend(self.release(transaction, &unique, &key).await?);
            }
            Ok(Change { mutations, output: true })
        })
        .await
    }
}

/// Checks whether an entity has not changed since it was read.
fn is_unchanged(stored: &Entity, before: &Entity) -> bool {
    // NaN is not equal to itself, and must not count as a change.
    let is_same =
        |one: &Value, other: &Value| one == other || format!("{one:?}") == format!("{other:?}");
    let (stored, before) = (&stored.properties, &before.properties);
    stored.len() == before.len()
        && stored
            .iter()
            .all(|(name, value)| before.get(name).is_some_and(|before| is_same(value, before)))
}

impl<U> DatastoreStore<U> {
    /// Returns an id that Datastore has not given to any entity, and will not give to another one,
    /// for a user who is about to be inserted.
    ///
    /// Like the ids of entities that other libraries insert without one, it is a number of up to 16
    /// digits. The numbers are in no order.
    ///
    /// # Errors
    ///
    /// Returns an error only if the store fails.
    pub async fn new_user_id(&self) -> Result<UserId, StoreError> {
        let key = self.client().allocate(self.keys().new_user(None), self.deadline()).await?;
        let id = user_id(&key).ok_or_else(Error::unexpected_reply)?;
        Ok(id)
    }
}

#[async_trait]
impl<U: AuthUser> UserStore for DatastoreStore<U> {
    type User = U;

    async fn by_id(&self, id: &UserId) -> Result<Option<Arc<U>>, StoreError> {
        Ok(self.find_user(id, self.deadline()).await?)
    }
}

#[async_trait]
impl<U: AuthUser> UserLookup for DatastoreStore<U> {
    async fn by_login_name(&self, login_name: &str) -> Result<Option<Arc<U>>, StoreError> {
        Ok(self.find_by_login_name(login_name).await?)
    }
}

#[async_trait]
impl<U: AuthUser> UserDirectory for DatastoreStore<U> {
    async fn by_ids(&self, ids: &[UserId]) -> Result<Vec<Option<Arc<U>>>, StoreError> {
        Ok(self.find_users(ids).await?)
    }

    async fn insert(&self, user: &U) -> Result<(), StoreError> {
        Ok(self.insert_user(user).await?)
    }

    async fn modify(
        &self,
        id: &UserId,
        change: &mut ChangeUser<'_, U>,
    ) -> Result<Modified<U>, StoreError> {
        self.modify_user(id, change).await
    }

    async fn delete(&self, id: &UserId) -> Result<bool, StoreError> {
        Ok(self.delete_user(id).await?)
    }
}
