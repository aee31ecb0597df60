//! [`DatastoreStore`], and the state that its clones share.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use gcloud_sdk::google::datastore::v1::Entity;
use tokio::time::Instant;
use tower_keep_core::Account;

use crate::client::Client;
use crate::keys::EntityKeys;
use crate::mapping::UserType;
use crate::record::DeleteExpired;
use crate::write_queues::WriteQueues;

/// Users and server-side sessions in Google Datastore.
///
/// A clone is another handle to the same connection. See the [crate's documentation](crate).
pub struct DatastoreStore<U = Account> {
    pub(crate) shared: Arc<Shared<U>>,
}

pub(crate) struct Shared<U> {
    pub(crate) client: Arc<Client>,
    pub(crate) keys: EntityKeys,
    pub(crate) user_type: UserType<U>,
    pub(crate) delete_expired: DeleteExpired,
    /// The time-out of one call to the store.
    pub(crate) timeout: Duration,
    /// Calls that write the same user or the same session wait for each other here.
    pub(crate) write_queues: WriteQueues,
    /// Calls that write the same login name wait for each other here. A call that needs both
    /// queues waits in `write_queues` first.
    pub(crate) login_name_queues: WriteQueues,
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

    /// Returns those of the found entities whose keys have exactly this store's ancestors.
    ///
    /// A query may also find entities that have more ancestors, or other ones.
    pub(crate) fn with_store_ancestors(&self, mut found: Vec<Entity>) -> Vec<Entity> {
        found.retain(|entity| {
            entity.key.as_ref().is_some_and(|key| self.keys().has_store_ancestors(key))
        });
        found
    }

    /// Returns the deadline of a call that begins now.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.shared.timeout
    }
}
