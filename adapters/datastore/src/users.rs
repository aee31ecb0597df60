//! Finds, inserts, changes and deletes users. A write is merged into the stored entity, which other
//! applications may have written.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use gcloud_sdk::google::datastore::v1::{Entity, Value};
use tokio::time::Instant;
use tower_keep_core::{
    AuthUser, ChangeUser, Modified, StoreResult, UserDirectory, UserId, UserLookup, UserStore,
    async_trait,
};

use crate::error::{Cause, Error, NAME};
use crate::keys::{UniqueValue, distinct, user_id_in};
use crate::names::UniqueProperty;
use crate::store::DatastoreStore;
use crate::transaction::{
    Change, Transaction, collect_into, delete, insert, read_all, transact, unchanged, upsert,
};

/// At most this many queries of one `by_ids` run concurrently, if the users' ids are a property.
const CONCURRENT_QUERIES: usize = 32;

impl<U: AuthUser> DatastoreStore<U> {
    pub(crate) fn read_user(&self, entity: Entity) -> Result<Arc<U>, Error> {
        self.shared.user_type.read(self.keys(), entity).map(Arc::new)
    }

    /// Returns the property and the value of a user's id, or `None` if the id is in the key or no
    /// user can have it.
    fn unique_id(&self, id: &UserId) -> Option<UniqueProperty> {
        let (property, value) = self.keys().id_property(id)?;
        Some(UniqueProperty { property: property.to_owned(), value })
    }

    /// Returns the property and the value of a login name, or `None` if the name is too long.
    fn unique_login_name(&self, login_name: &str) -> Option<UniqueProperty> {
        let property = self.shared.user_type.login_property.clone();
        Some(UniqueProperty { property, value: UniqueValue::from_text(login_name)? })
    }

    /// Returns the property and the value of the login name of a user to write.
    fn unique_login_name_of(&self, user: &U) -> Result<UniqueProperty, Error> {
        let login_name = self.unique_login_name((self.shared.user_type.login_name)(user));
        login_name.ok_or_else(|| {
            Error::unsupported("the login name has more than 1,500 bytes: choose a shorter one")
        })
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

    /// Reads the entity of the user with this id in a transaction.
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
        // The entity is read again by its key, because a query alone does not protect it against
        // concurrent changes.
        let key = found.key.unwrap_or_default();
        Ok(transaction.lookup(vec![key.clone()]).await?.remove(&key))
    }

    /// Reads the entity of the user with this id, outside of transactions.
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

    /// Writes the user `after` over the entity `before`, if that entity is still stored unchanged.
    /// Returns whether the user was written.
    async fn replace_if_unchanged(
        &self,
        id: &UserId,
        before: &Entity,
        after: &U,
        deadline: Instant,
    ) -> Result<bool, Error> {
        let user_type = &self.shared.user_type;
        let login_name = self.unique_login_name_of(after)?;
        let properties = user_type.write(self.keys(), after)?;
        let properties = user_type.merged(self.keys(), before, properties);
        let entity = Entity { key: before.key.clone(), properties };
        user_type.check_is_readable(self.keys(), &entity)?;
        let earlier_name =
            user_type.login_name_of(before).and_then(|name| self.unique_login_name(name));
        let _login_name_turn =
            self.shared.login_name_queues.wait_for_turn(&login_name.value, deadline).await?;
        transact!(self.client(), deadline, transaction => {
            let stored = self.read_entity_in(transaction, id, deadline).await?;
            if !stored.is_some_and(|stored| is_unchanged(&stored, before)) {
                return unchanged(false);
            }
            let key = before.key.clone().unwrap_or_default();
            let mut mutations = Vec::new();
            if earlier_name.as_ref() != Some(&login_name) {
                mutations.push(self.claim(transaction, &login_name, &key).await?);
                if let Some(earlier_name) = &earlier_name {
                    mutations.extend(self.release(transaction, earlier_name, &key).await?);
                }
            }
            mutations.push(upsert(entity.clone()));
            Ok(Change { mutations, output: true })
        })
        .await
    }
}

/// Checks whether a stored entity has the same properties as when it was read before.
fn is_unchanged(stored: &Entity, before: &Entity) -> bool {
    // A value that contains NaN is not equal to itself, but its debug text is equal to itself.
    let is_same_value =
        |one: &Value, other: &Value| one == other || format!("{one:?}") == format!("{other:?}");
    let (stored, before) = (&stored.properties, &before.properties);
    stored.len() == before.len()
        && stored.iter().all(|(name, value)| {
            before.get(name).is_some_and(|before| is_same_value(value, before))
        })
}

impl<U> DatastoreStore<U> {
    /// Returns an unused id for a user who is about to be inserted. Datastore does not give this id
    /// to any other entity.
    ///
    /// The id is a number of up to 16 digits, as for entities that other libraries insert without
    /// an id. The numbers are in no order.
    ///
    /// # Errors
    ///
    /// Returns an error only if the store fails.
    pub async fn new_user_id(&self) -> StoreResult<UserId> {
        let key = self.client().allocate(self.keys().user_with(None), self.deadline()).await?;
        let id = user_id_in(&key).ok_or_else(Error::unexpected_reply)?;
        Ok(id)
    }
}

#[async_trait]
impl<U: AuthUser> UserStore for DatastoreStore<U> {
    type User = U;

    async fn by_id(&self, id: &UserId) -> StoreResult<Option<Arc<U>>> {
        Ok(self.find_user(id, self.deadline()).await?)
    }
}

#[async_trait]
impl<U: AuthUser> UserLookup for DatastoreStore<U> {
    async fn by_login_name(&self, login_name: &str) -> StoreResult<Option<Arc<U>>> {
        let Some(unique) = self.unique_login_name(login_name) else { return Ok(None) };
        let deadline = self.deadline();
        let Some(found) = self.find_by_unique(&unique, deadline).await? else { return Ok(None) };
        let login_property = &self.shared.user_type.login_property;
        let id_property = self.keys().user_keys.id_property();
        let Some(property) = id_property.filter(|property| property != login_property) else {
            return Ok(Some(self.read_user(found)?));
        };
        // Another application may have given the same id to another user. The next request would
        // find that user by the id.
        let error = |problem: &str| {
            let kind = &self.keys().user_kind;
            let message = format!("`{property}` of an entity of kind `{kind}` {problem}");
            Err(Error::corrupt(message).into())
        };
        let (key, unique_id) = (found.key.clone(), UniqueProperty::stored(&found, property));
        let user = self.read_user(found)?;
        let Some(unique_id) = unique_id else {
            return error("is not indexed, so the user can't be found by it: index the property");
        };
        match self.find_by_unique(&unique_id, deadline).await? {
            Some(by_id) if by_id.key == key => Ok(Some(user)),
            Some(_) => {
                error("is also the id of another user: call index_users, which reports both users")
            }
            // The user was deleted between the two queries.
            None => Ok(None),
        }
    }
}

#[async_trait]
impl<U: AuthUser> UserDirectory for DatastoreStore<U> {
    async fn by_ids(&self, ids: &[UserId]) -> StoreResult<Vec<Option<Arc<U>>>> {
        let deadline = self.deadline();
        if self.keys().user_keys.id_property().is_some() {
            let found = stream::iter(ids.to_vec())
                .map(|id| async move { self.find_user(&id, deadline).await });
            return Ok(found.buffered(CONCURRENT_QUERIES).try_collect::<Vec<_>>().await?);
        }
        let wanted = ids.iter().filter_map(|id| self.keys().user(id));
        let found = self.client().lookup(distinct(wanted), None, deadline).await?;
        let mut users: HashMap<UserId, Arc<U>> = HashMap::new();
        for entity in found.into_entities() {
            if let Some(id) = entity.key.as_ref().and_then(user_id_in) {
                users.insert(id, self.read_user(entity)?);
            }
        }
        Ok(ids.iter().map(|id| users.get(id).cloned()).collect())
    }

    async fn insert(&self, user: &U) -> StoreResult<()> {
        let user_type = &self.shared.user_type;
        let id = user.id();
        let login_name = self.unique_login_name_of(user)?;
        let properties = user_type.write(self.keys(), user)?;
        let properties = user_type.merged(self.keys(), &Entity::default(), properties);
        let unique_id = self.unique_id(&id);
        let deadline = self.deadline();
        // If the service chooses the key, it does so before the transaction, because the index
        // entities contain the key.
        let key = match (self.keys().user(&id), &unique_id) {
            (Some(key), _) => key,
            (None, Some(_)) => {
                self.client().allocate(self.keys().user_with(None), deadline).await?
            }
            (None, None) => {
                let message = "the user's id can't be in a key of Datastore: choose one of 1 to \
                               1,500 bytes that does not begin and end with two underscores";
                return Err(Error::unsupported(message).into());
            }
        };
        let _turn = self.shared.write_queues.wait_for_turn(&id, deadline).await?;
        let _login_name_turn =
            self.shared.login_name_queues.wait_for_turn(&login_name.value, deadline).await?;
        let entity = Entity { key: Some(key.clone()), properties };
        user_type.check_is_readable(self.keys(), &entity)?;
        let insertion = transact!(self.client(), deadline, transaction => {
            let found = transaction.lookup(vec![key.clone()]).await?;
            if found.get(&key).is_some() {
                return Err(Error::taken("id"));
            }
            let mut mutations = vec![insert(entity.clone())];
            mutations.push(self.claim(transaction, &login_name, &key).await?);
            if let Some(unique) = unique_id.as_ref().filter(|unique| **unique != login_name) {
                mutations.push(self.claim(transaction, unique, &key).await?);
            }
            Ok(Change { mutations, output: () })
        });
        Ok(insertion.await.map_err(|error| match error.cause {
            Cause::AlreadyExists => Error::taken("id or the login name"),
            _ => error,
        })?)
    }

    async fn modify(
        &self,
        id: &UserId,
        change: &mut ChangeUser<'_, U>,
    ) -> StoreResult<Modified<U>> {
        let deadline = self.deadline();
        // Calls of this process that change the same user wait for each other. Otherwise each of
        // them could make the others try again.
        let _turn = self.shared.write_queues.wait_for_turn(id, deadline).await?;
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

    async fn delete(&self, id: &UserId) -> StoreResult<bool> {
        let deadline = self.deadline();
        let _turn = self.shared.write_queues.wait_for_turn(id, deadline).await?;
        let deletion = transact!(self.client(), deadline, transaction => {
            let Some(stored) = self.read_entity_in(transaction, id, deadline).await? else {
                return unchanged(false);
            };
            let key = stored.key.clone().unwrap_or_default();
            let login_name = self.shared.user_type.login_name_of(&stored);
            let login_name = login_name.and_then(|login_name| self.unique_login_name(login_name));
            let mut mutations = vec![delete(key.clone())];
            let unique_id = self.unique_id(id).filter(|unique| Some(unique) != login_name.as_ref());
            for unique in login_name.into_iter().chain(unique_id) {
                mutations.extend(self.release(transaction, &unique, &key).await?);
            }
            Ok(Change { mutations, output: true })
        });
        Ok(deletion.await?)
    }
}
