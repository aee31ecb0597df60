//! Writes index entities for users that other applications have written. An index entity names the
//! user who has a login name.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gcloud_sdk::google::datastore::v1::Key;
use tower_keep_core::{AuthUser, StoreError, StoreResult};

use crate::error::Error;
use crate::keys::{UserKeys, distinct, is_same_entity};
use crate::names::{UniqueProperty, index_entity, indexed_owner};
use crate::query::{has_ancestor, ordered_by_key, query_of_kind, with_limit};
use crate::store::DatastoreStore;
use crate::transaction::{Change, collect_into, transact, upsert};
use crate::value::types::EntityKey;

/// The maximum number of users in one batch.
const MAX_BATCH: usize = 400;

/// A position in the order of all users, at which [`index_users`](DatastoreStore::index_users)
/// continues. A cursor can be stored as text, and parsed again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(Vec<u8>);

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&URL_SAFE_NO_PAD.encode(&self.0))
    }
}

impl FromStr for Cursor {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let invalid = |_| {
            Error::unsupported("the text is not a cursor: use one that index_users has returned")
        };
        Ok(Self(URL_SAFE_NO_PAD.decode(text).map_err(invalid)?))
    }
}

/// The result of one batch of [`index_users`](DatastoreStore::index_users).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Indexed {
    /// How many users the batch contained.
    pub looked_at: usize,
    /// How many index entities the call has written. The other index entities existed already.
    pub written: usize,
    /// The users who can't be indexed: another user has the same login name or id, or no query
    /// finds the user by the login name or id.
    pub problems: Vec<IndexProblem>,
    /// The cursor for the next batch, or `None` after the last one.
    pub next: Option<Cursor>,
}

/// A user who can't be indexed. An administrator has to change this user, or the user who has
/// the same value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexProblem {
    /// The user's entity.
    pub user: EntityKey,
    /// The property that can't be indexed.
    pub property: String,
    /// The user who has the same value, or `None` if the property is missing, of another type, or
    /// not indexed.
    pub taken_by: Option<EntityKey>,
}

impl fmt::Display for IndexProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, property, taken_by } = self;
        match taken_by {
            Some(other) => write!(f, "{user}: `{property}` is the same as that of {other}"),
            None => write!(f, "{user}: `{property}` is missing, of another type, or not indexed"),
        }
    }
}

impl<U: AuthUser> DatastoreStore<U> {
    /// Writes missing index entities for one batch of users: the next `limit` users after `from`,
    /// in the order of their keys. `limit` is at most 400.
    ///
    /// The index entities keep login names unique. Users that another application has written have
    /// no index entity. They are found too, but the other application does not check whether a
    /// login name is unique. If two users have the same login name, it belongs to the user whom the
    /// index entity names. Call this for all users once, and again whenever another application has
    /// written users.
    ///
    /// Only one batch is held in memory. If the call fails, the batches of earlier calls stay
    /// written. A repeated batch changes nothing.
    ///
    /// ```no_run
    /// # use tower_keep_datastore::DatastoreStore;
    /// # async fn example(store: DatastoreStore) -> Result<(), tower_keep_core::StoreError> {
    /// let (mut from, mut looked_at) = (None, 0);
    /// loop {
    ///     let batch = store.index_users(from.as_ref(), 400).await?;
    ///     looked_at += batch.looked_at;
    ///     batch.problems.iter().for_each(|problem| eprintln!("{problem}"));
    ///     let Some(next) = batch.next else { break };
    ///     eprintln!("{looked_at} users; to continue from here, parse this cursor: {next}");
    ///     from = Some(next);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// `examples/index_users.rs` is a program that does this.
    ///
    /// # Errors
    ///
    /// Returns an error only if the store fails; after a timeout the batch may have been written. A
    /// user who can't be indexed is not an error: the result lists such users.
    pub async fn index_users(&self, from: Option<&Cursor>, limit: usize) -> StoreResult<Indexed> {
        Ok(self.index_batch(from, limit.clamp(1, MAX_BATCH)).await?)
    }

    /// Returns the properties that are unique: the login name and, if it is a property, the id. The
    /// flag is true for a text, and false for an integer.
    fn unique_properties(&self) -> impl Iterator<Item = (&str, bool)> {
        let login_property = self.shared.user_type.login_property.as_str();
        let id = match &self.keys().user_keys {
            UserKeys::TextProperty(property) => Some((property.as_str(), true)),
            UserKeys::IntegerProperty(property) => Some((property.as_str(), false)),
            UserKeys::IdOrName | UserKeys::Name => None,
        };
        [(login_property, true)].into_iter().chain(id.filter(|id| *id != (login_property, true)))
    }

    async fn index_batch(&self, from: Option<&Cursor>, limit: usize) -> Result<Indexed, Error> {
        let deadline = self.deadline();
        let users = query_of_kind(
            &self.keys().user_kind,
            self.keys().ancestor_key().map(has_ancestor).into_iter().collect(),
        );
        let mut query = with_limit(ordered_by_key(users), limit);
        query.start_cursor = from.map(|from| from.0.clone()).unwrap_or_default();
        let mut entities = Vec::new();
        let end_cursor =
            self.client().run_query(query, None, deadline, collect_into(&mut entities)).await?;
        let next = (entities.len() == limit).then_some(Cursor(end_cursor));
        let entities = self.with_store_ancestors(entities);
        let looked_at = entities.len();
        let mut problems = Vec::new();
        let mut claims: Vec<(UniqueProperty, Key)> = Vec::new();
        for entity in &entities {
            let Some(key) = &entity.key else { continue };
            for (property, is_text) in self.unique_properties() {
                let unique = UniqueProperty::stored(entity, property);
                match unique.filter(|unique| unique.value.is_text() == is_text) {
                    Some(unique) => claims.push((unique, key.clone())),
                    None => problems.push(IndexProblem {
                        user: key.into(),
                        property: property.to_owned(),
                        taken_by: None,
                    }),
                }
            }
        }
        let (written, conflicts) = transact!(self.client(), deadline, transaction => {
            let index_keys: Vec<_> =
                claims.iter().map(|(unique, _)| self.index_key(unique)).collect();
            let found = transaction.lookup(distinct(index_keys.clone())).await?;
            let owner_of = |index_key: &Key| found.get(index_key).and_then(indexed_owner);
            let owner_keys = distinct(index_keys.iter().filter_map(owner_of));
            let owners = transaction.lookup(owner_keys).await?;
            let (mut mutations, mut conflicts) = (Vec::new(), Vec::new());
            // The index entities that this batch writes, and their users.
            let mut new_owners: Vec<(&Key, &Key)> = Vec::new();
            for ((unique, user), index_key) in claims.iter().zip(&index_keys) {
                let stored_owner = owner_of(index_key).filter(|owner| {
                    is_same_entity(owner, user)
                        || owners.get(owner).is_some_and(|owner| unique.is_value_of(owner))
                });
                let new_owner = new_owners.iter().find(|(key, _)| is_same_entity(key, index_key));
                match stored_owner.as_ref().or(new_owner.map(|(_, owner)| *owner)) {
                    Some(owner) if is_same_entity(owner, user) => {}
                    Some(owner) => conflicts.push(IndexProblem {
                        user: user.into(),
                        property: unique.property.clone(),
                        taken_by: Some(owner.into()),
                    }),
                    None => {
                        mutations.push(upsert(index_entity(index_key.clone(), user.clone())));
                        new_owners.push((index_key, user));
                    }
                }
            }
            let written = mutations.len();
            Ok(Change { mutations, output: (written, conflicts) })
        })
        .await?;
        problems.extend(conflicts);
        Ok(Indexed { looked_at, written, problems, next })
    }
}
