//! The store.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use gcloud_sdk::google::datastore::v1::Entity;
use tokio::time::Instant;
use tower_keep_core::Account;

use crate::client::Client;
use crate::keys::EntityKeys;
use crate::mapping::Users;
use crate::record::Expiry;
use crate::turns::Turns;

/// Users and server-side sessions in Google Datastore.
///
/// A clone is another handle to the same connection. See the [crate's documentation](crate).
pub struct DatastoreStore<U = Account> {
    pub(crate) shared: Arc<Shared<U>>,
}

pub(crate) struct Shared<U> {
    pub(crate) client: Arc<Client>,
    pub(crate) keys: EntityKeys,
    pub(crate) users: Users<U>,
    pub(crate) expiry: Expiry,
    pub(crate) timeout: Duration,
    /// Turns by user, and by session.
    pub(crate) turns: Turns,
    /// Turns by login name. A call that needs both waits for this one last.
    pub(crate) turns_of_names: Turns,
}

impl<U> Clone for DatastoreStore<U> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

/// Shows no stored data, and no credentials.
impl<U> fmt::Debug for DatastoreStore<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let partition = &self.shared.keys.partition;
        f.debug_struct("DatastoreStore")
            .field("project", &partition.project_id)
            .field("database", &partition.database_id)
            .field("namespace", &partition.namespace_id)
            .finish_non_exhaustive()
    }
}

impl<U> DatastoreStore<U> {
    pub(crate) fn client(&self) -> &Arc<Client> {
        &self.shared.client
    }

    pub(crate) fn keys(&self) -> &EntityKeys {
        &self.shared.keys
    }

    /// Returns the found entities that are directly below the ancestors of this store.
    pub(crate) fn below_ancestors(&self, mut found: Vec<Entity>) -> Vec<Entity> {
        found.retain(|entity| {
            entity.key.as_ref().is_some_and(|key| self.keys().is_below_ancestors(key))
        });
        found
    }

    /// Returns the deadline of a call that begins now.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.shared.timeout
    }
}
