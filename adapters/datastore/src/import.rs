//! Index entities for users that other applications have written.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gcloud_sdk::google::datastore::v1::Key;
use tower_keep_core::{AuthUser, StoreError};

use crate::error::Error;
use crate::keys::{UserKeys, distinct, is_same};
use crate::names::{UniqueProperty, index_entity, indexed_owner};
use crate::query::{below, by_key, limited, of_kind};
use crate::transaction::{Change, collect_into, transact, upsert};
use crate::{DatastoreStore, EntityKey};

/// The maximum number of users in one batch.
const MAX_BATCH: usize = 400;

/// How far [`index_users`](DatastoreStore::index_users) has come. Its text can be stored, and
/// parsed to continue.
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
        let not = |_| Error::unsupported("this is not a cursor of index_users");
        Ok(Self(URL_SAFE_NO_PAD.decode(text).map_err(not)?))
    }
}

/// What [`index_users`](DatastoreStore::index_users) has done.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Indexed {
    /// How many users it has looked at.
    pub looked_at: usize,
    /// How many index entities it has written. The others existed already.
    pub written: usize,
    /// The users who can't be indexed, because another user has the same login name or id, or
    /// because no query finds them by their login name or id.
    pub problems: Vec<IndexProblem>,
    /// Where to continue; `None` if all users are done.
    pub next: Option<Cursor>,
}

/// A user who can't be indexed. An administrator has to decide what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexProblem {
    /// The user's entity.
    pub user: EntityKey,
    /// The property that can't be indexed.
    pub property: String,
    /// The user who has the same value. `None` if the property has no value, or if no query finds
    /// the user by it.
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
    /// Writes index entities for the next users, at most 400 of them, in the order of their keys.
    ///
    /// The index entities make login names unique. A user without one can still be found, for
    /// example a user whom another library has written. Two users may have the same name, from
    /// earlier or because of sign-ups here and in that library at the same time. Then the name
    /// belongs to the user whom the index entity names. Call this once, and again whenever another
    /// application has written users.
    ///
    /// Only one batch is held in memory. What was written stays written, and repeating a batch
    /// changes nothing.
    ///
    /// ```no_run
    /// # use tower_keep_datastore::DatastoreStore;
    /// # async fn example(store: DatastoreStore) -> Result<(), tower_keep_core::StoreError> {
    /// let (mut from, mut looked_at) = (None, 0);
    /// loop {
    ///     let done = store.index_users(from.as_ref(), 400).await?;
    ///     looked_at += done.looked_at;
    ///     done.problems.iter().for_each(|problem| eprintln!("{problem}"));
    ///     let Some(next) = done.next else { break };
    ///     eprintln!("{looked_at} users; to continue after an interruption: {next}");
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
    /// user who can't be indexed is not an error: the result lists them.
    pub async fn index_users(
        &self,
        from: Option<&Cursor>,
        limit: usize,
    ) -> Result<Indexed, StoreError> {
        Ok(self.index_batch(from, limit.clamp(1, MAX_BATCH)).await?)
    }

    /// Returns the unique properties, and whether each is a text. Otherwise it is an integer.
    fn unique_properties(&self) -> impl Iterator<Item = (&str, bool)> {
        let login = self.shared.users.login_property.as_str();
        let id = match &self.keys().user_keys {
            UserKeys::TextProperty(property) => Some((property.as_str(), true)),
            UserKeys::IntegerProperty(property) => Some((property.as_str(), false)),
            UserKeys::IdOrName | UserKeys::Name => None,
        };
        [(login, true)].into_iter().chain(id.filter(|id| *id != (login, true)))
    }

    async fn index_batch(&self, from: Option<&Cursor>, limit: usize) -> Result<Indexed, Error> {
        let deadline = self.deadline();
        let users = of_kind(
            &self.keys().user_kind,
            self.keys().ancestor().map(below).into_iter().collect(),
        );
        let mut query = limited(by_key(users), limit);
        query.start_cursor = from.map(|from| from.0.clone()).unwrap_or_default();
        let mut entities = Vec::new();
        let end =
            self.client().run_query(query, None, deadline, collect_into(&mut entities)).await?;
        let next = (entities.len() == limit).then_some(Cursor(end));
        let entities = self.below_ancestors(entities);
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
        let (written, taken) = transact!(self.client(), deadline, transaction => {
            let indexes: Vec<_> = claims.iter().map(|(unique, _)| self.index_key(unique)).collect();
            let found = transaction.lookup(distinct(indexes.clone())).await?;
            let owner_of = |index: &Key| found.get(index).and_then(indexed_owner);
            let owners = distinct(indexes.iter().filter_map(owner_of));
            let owners = transaction.lookup(owners).await?;
            let (mut mutations, mut problems) = (Vec::new(), Vec::new());
            let mut taken: Vec<(&Key, &Key)> = Vec::new();
            for ((unique, user), index) in claims.iter().zip(&indexes) {
                let owner = owner_of(index).filter(|owner| {
                    is_same(owner, user)
                        || owners.get(owner).is_some_and(|owner| unique.is_value_of(owner))
                });
                let before = taken.iter().find(|(known, _)| is_same(known, index));
                match owner.as_ref().or(before.map(|(_, user)| *user)) {
                    Some(owner) if is_same(owner, user) => {}
                    Some(owner) => problems.push(IndexProblem {
                        user: user.into(),
                        property: unique.property.clone(),
                        taken_by: Some(owner.into()),
                    }),
                    None => {
                        mutations.push(upsert(index_entity(index.clone(), user.clone())));
                        taken.push((index, user));
                    }
                }
            }
            let written = mutations.len();
            Ok(Change { mutations, output: (written, problems) })
        })
        .await?;
        problems.extend(taken);
        Ok(Indexed { looked_at, written, problems, next })
    }
}
