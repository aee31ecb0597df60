//! The settings of a store, and how it is opened.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gcloud_sdk::GoogleAuthMiddleware;
use gcloud_sdk::google::datastore::v1::PartitionId;
use gcloud_sdk::google::datastore::v1::datastore_client::DatastoreClient;
use gcloud_sdk::google::datastore::v1::key::PathElement as ProtoElement;
use gcloud_sdk::google::datastore::v1::key::path_element::IdType;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tower_keep_core::{Account, AuthUser, StoreResult, UserId};

use crate::client::Client;
use crate::connect::{Access, ServiceAccountKey, channel, unknown_project};
use crate::error::Error;
use crate::keys::{EntityKeys, UserKeys, is_valid_name};
use crate::mapping::{AccountMapping, Mapping, SerdeMapping, UserType};
use crate::record::DeleteExpired;
use crate::store::{DatastoreStore, Shared};
use crate::url::StoreUrl;
use crate::value::types::PathElement;
use crate::write_queues::WriteQueues;

const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_WAITING: usize = 4_096;
/// The longest kind, prefix or property name in a setting. This store's own kinds contain several
/// of these names, and Datastore limits a kind to 1,500 bytes.
const MAX_SETTING_BYTES: usize = 250;
/// The largest response that is accepted. Google's responses have at most about 10 MiB.
const MAX_RESPONSE_BYTES: usize = 64 << 20;

/// Opens a store.
///
/// [`build`](Self::build) makes one call to the service, so wrong settings are found at startup.
#[must_use = "a builder does nothing until `build()`"]
pub struct DatastoreStoreBuilder<U = Account> {
    settings: Settings,
    mapping: MakeMapping<U>,
    login_name: fn(&U) -> &str,
}

/// Creates a mapping. The argument is the name of the property that holds the login name.
type MakeMapping<U> = fn(&str) -> Box<dyn Mapping<U>>;

/// All settings that do not depend on the user type.
#[derive(Clone)]
struct Settings {
    url: String,
    user_kind: String,
    user_keys: UserKeys,
    ancestors: Vec<PathElement>,
    login_property: String,
    id_field: String,
    unindexed: Vec<String>,
    prefix: String,
    delete_expired: DeleteExpired,
    timeout: Duration,
    max_waiting: usize,
    access: Access,
}

impl<U> fmt::Debug for DatastoreStoreBuilder<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = &self.settings;
        f.debug_struct("DatastoreStoreBuilder")
            .field("url", &settings.url)
            .field("user_kind", &settings.user_kind)
            .field("user_keys", &settings.user_keys)
            .field("login_property", &settings.login_property)
            .field("timeout", &settings.timeout)
            .finish_non_exhaustive()
    }
}

impl DatastoreStore {
    /// Creates a builder for a store in the project, namespace and database of this URL:
    /// `datastore://PROJECT/NAMESPACE?database=DATABASE`.
    ///
    /// Each part may be left out. Without a project in the URL, the store uses the first of these
    /// that is set:
    ///
    /// 1. the project of the service account's key, if the [application sets the
    ///    key](DatastoreStoreBuilder::with_service_account_file)
    /// 2. the environment variable `DATASTORE_PROJECT_ID`
    /// 3. `GOOGLE_CLOUD_PROJECT`
    /// 4. `GCP_PROJECT`, `PROJECT_ID` or `GCP_PROJECT_ID`
    /// 5. the project of the credentials file, or of the metadata server
    ///
    /// With an emulator, the store uses only 2 and 3.
    ///
    /// If `DATASTORE_EMULATOR_HOST` is set (`localhost:8081`), the store uses that emulator,
    /// without credentials. Otherwise it uses the [application default
    /// credentials](https://cloud.google.com/docs/authentication/application-default-credentials),
    /// as all of Google's libraries do. These come from the file that
    /// `GOOGLE_APPLICATION_CREDENTIALS` names, from the file that
    /// `gcloud auth application-default login` has written, or from the metadata server of the
    /// machine (Compute Engine, Cloud Run, GKE).
    ///
    /// ```no_run
    /// use tower_keep_datastore::DatastoreStore;
    ///
    /// # async fn example() -> Result<(), tower_keep_core::StoreError> {
    /// let store = DatastoreStore::builder("datastore://my-project").build().await?;
    /// # Ok(()) }
    /// ```
    pub fn builder(url: impl Into<String>) -> DatastoreStoreBuilder {
        DatastoreStoreBuilder {
            settings: Settings {
                url: url.into(),
                user_kind: "User".to_owned(),
                user_keys: UserKeys::default(),
                ancestors: Vec::new(),
                login_property: "username".to_owned(),
                id_field: "id".to_owned(),
                unindexed: vec!["password_hash".to_owned()],
                prefix: "Keep".to_owned(),
                delete_expired: DeleteExpired::ByPurge,
                timeout: TIMEOUT,
                max_waiting: MAX_WAITING,
                access: Access::default(),
            },
            mapping: |property| Box::new(AccountMapping { login_property: property.to_owned() }),
            login_name: |account: &Account| account.login_name(),
        }
    }
}

impl<U: AuthUser> DatastoreStoreBuilder<U> {
    /// Sets the application's own user type, whose fields are the entity's properties. `login_name`
    /// returns the name that a user logs in with.
    ///
    /// The id or name in the key is read into the field [`id`](Self::with_id_field), which is an
    /// `i64`, a `String` or the like. It is not written as a property. The login name is the
    /// property [`username`](Self::with_login_property). Login names are compared byte for byte.
    ///
    /// [`modify`](tower_keep_core::UserDirectory::modify) writes only if the entity has not
    /// changed since it was read, so no concurrent change is lost.
    ///
    /// ```no_run
    /// use std::borrow::Cow;
    ///
    /// use serde::{Deserialize, Serialize};
    /// use tower_keep_core::{AuthUser, UserId};
    /// use tower_keep_datastore::DatastoreStore;
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct Member {
    ///     id: i64,
    ///     email: String,
    ///     password_hash: String,
    ///     #[serde(default)]
    ///     banned: bool,
    /// }
    ///
    /// impl AuthUser for Member {
    ///     fn id(&self) -> UserId {
    ///         self.id.into()
    ///     }
    ///     fn is_active(&self) -> bool {
    ///         !self.banned
    ///     }
    ///     fn security_stamp(&self) -> Cow<'_, [u8]> {
    ///         Cow::Borrowed(self.password_hash.as_bytes())
    ///     }
    /// }
    ///
    /// # async fn example() -> Result<(), tower_keep_core::StoreError> {
    /// let store = DatastoreStore::builder("datastore://my-project")
    ///     .with_kind("user")
    ///     .with_login_property("email")
    ///     .with_users(|member: &Member| &member.email)
    ///     .build()
    ///     .await?;
    /// # Ok(()) }
    /// ```
    pub fn with_users<V>(self, login_name: fn(&V) -> &str) -> DatastoreStoreBuilder<V>
    where
        V: AuthUser + Serialize + DeserializeOwned,
    {
        let mapping: MakeMapping<V> = |_| Box::new(SerdeMapping::<V>::new());
        DatastoreStoreBuilder { settings: self.settings, mapping, login_name }
    }

    /// Sets the kind of the users' entities; `User` by default.
    pub fn with_kind(mut self, kind: impl Into<String>) -> Self {
        self.settings.user_kind = kind.into();
        self
    }

    /// Sets the property that holds the login name; `username` by default. The property has to be
    /// indexed. Otherwise the user is not found by the login name.
    pub fn with_login_property(mut self, property: impl Into<String>) -> Self {
        self.settings.login_property = property.into();
        self
    }

    /// Sets where the id of a user is stored; in the entity's key by default.
    pub fn with_user_keys(mut self, keys: UserKeys) -> Self {
        self.settings.user_keys = keys;
        self
    }

    /// Sets the field of the application's user type that the id or name in the key is read into;
    /// `id` by default. `field` is the field's name in serde.
    ///
    /// A property with the same name is neither read nor written. If the entities have a property
    /// `id` that the type has to read, choose a name that no property has.
    pub fn with_id_field(mut self, field: impl Into<String>) -> Self {
        self.settings.id_field = field.into();
        self
    }

    /// Sets the ancestors of the users' keys; none by default. Only users with exactly these
    /// ancestors are found.
    ///
    /// ```
    /// # use tower_keep_datastore::{DatastoreStore, PathElement};
    /// let builder = DatastoreStore::builder("datastore://my-project")
    ///     .with_ancestors([PathElement::Name("Tenant".into(), "acme".into())]);
    /// ```
    pub fn with_ancestors(mut self, path: impl IntoIterator<Item = PathElement>) -> Self {
        self.settings.ancestors = path.into_iter().collect();
        self
    }

    /// Adds properties that are excluded from indexes when they are first written.
    ///
    /// By default these are `password_hash`, and for an [`Account`] also `security_stamp` and
    /// `stamped_hash`. If the property of the password hash has another name, add it. A property
    /// that is already stored stays indexed, or stays excluded.
    ///
    /// An index costs storage and makes each write more expensive. Any application with access to
    /// the database can query by an indexed property. An embedded entity is excluded as a whole.
    /// Strings and blobs of more than 1,500 bytes are always excluded.
    pub fn add_unindexed<P: Into<String>>(
        mut self,
        properties: impl IntoIterator<Item = P>,
    ) -> Self {
        self.settings.unindexed.extend(properties.into_iter().map(Into::into));
        self
    }

    /// Sets the prefix of this store's own kinds; `Keep` by default. With the defaults, the kinds
    /// are `KeepSession_User`, `KeepLogins_User`, `KeepCounter_User` and `KeepIndex_User.username`.
    pub fn with_kind_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.settings.prefix = prefix.into();
        self
    }

    /// Leaves the deletion of expired sessions and counters to the database, by its time-to-live
    /// policies:
    ///
    /// ```text
    /// gcloud firestore fields ttls update deletable_at --collection-group=KeepSession_User --enable-ttl
    /// gcloud firestore fields ttls update deletable_at --collection-group=KeepLogins_User --enable-ttl
    /// gcloud firestore fields ttls update deletable_at --collection-group=KeepCounter_User --enable-ttl
    /// ```
    ///
    /// Add `--project`, and `--database` for a named database. A policy covers all namespaces. The
    /// names of the collection groups contain the [prefix](Self::with_kind_prefix) and the
    /// [kind](Self::with_kind) of users.
    ///
    /// With this setting, the property `deletable_at` is not indexed. This makes writes cheaper and
    /// avoids a [hotspot](https://cloud.google.com/datastore/docs/best-practices). `purge` deletes
    /// only the sessions that were ended together, and `purge_counters` deletes nothing.
    ///
    /// Switch the policies on before you use this setting. Without policies, as on an emulator,
    /// nothing that has expired is deleted. If the setting is removed again, a purge does not find
    /// what was written while it was set.
    pub fn with_ttl_policy(mut self) -> Self {
        self.settings.delete_expired = DeleteExpired::ByPolicy;
        self
    }

    /// Sets the time-out of a call to the store, including all its requests to the service. The
    /// default is 5 s, the maximum is a minute. A call that gets no response in time returns a
    /// [timeout](tower_keep_core::StoreErrorKind::Timeout).
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = timeout.clamp(Duration::from_millis(1), MAX_TIMEOUT);
        self
    }

    /// Sets how many requests to the service may be in progress or wait; 4,096 by default. Any
    /// further request returns [unavailable](tower_keep_core::StoreErrorKind::Unavailable)
    /// immediately. All requests share one connection, on which Google's servers process about 100
    /// requests at a time.
    pub fn with_max_waiting(mut self, max: usize) -> Self {
        self.settings.max_waiting = max.clamp(1, Semaphore::MAX_PERMITS);
        self
    }

    /// Sets the credentials of a service account, from the file of its key (JSON). They replace the
    /// application default credentials.
    pub fn with_service_account_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.settings.access.key = Some(ServiceAccountKey::File(path.into()));
        self
    }

    /// Sets the credentials of a service account, from the text of its key (JSON), for example from
    /// a secret manager.
    pub fn with_service_account_json(mut self, json: impl Into<String>) -> Self {
        self.settings.access.key = Some(ServiceAccountKey::Json(json.into()));
        self
    }

    /// Sets another address of the service, such as a regional address or an address of Private
    /// Service Connect: `https://HOST`. An address without TLS has to be on this machine
    /// (`http://localhost:PORT`). This setting takes precedence over `DATASTORE_EMULATOR_HOST`.
    pub fn with_endpoint(mut self, url: impl Into<String>) -> Self {
        self.settings.access.endpoint = Some(url.into());
        self
    }

    /// Sets the address of an emulator, `HOST:PORT`. It takes precedence over
    /// `DATASTORE_EMULATOR_HOST`.
    pub fn with_emulator(mut self, host: impl Into<String>) -> Self {
        self.settings.access.emulator = Some(host.into());
        self
    }

    /// Opens the store. Nothing has to be created in the database first: no kind, no index.
    ///
    /// # Errors
    ///
    /// Returns [`Unsupported`](tower_keep_core::StoreErrorKind::Unsupported) if the settings are
    /// invalid, the credentials are missing or not sufficient, or the database does not exist.
    /// Returns [`Unavailable`](tower_keep_core::StoreErrorKind::Unavailable) or
    /// [`Timeout`](tower_keep_core::StoreErrorKind::Timeout) if the service can't be reached.
    pub async fn build(self) -> StoreResult<DatastoreStore<U>> {
        let Self { settings, mapping, login_name } = self;
        let url = settings.check()?;
        let endpoint = settings.access.open().await?;
        let project = endpoint.project(url.project);
        let on_timeout = |_| unknown_project();
        let project_id = timeout(settings.timeout, project).await.map_err(on_timeout)??;
        let partition =
            PartitionId { project_id, database_id: url.database, namespace_id: url.namespace };
        let channel = channel(&endpoint.url, settings.timeout)?;
        let service = GoogleAuthMiddleware::new(channel, endpoint.credentials, None);
        let service = service.map_err(|error| Error::from_credentials(&error))?;
        let service = DatastoreClient::new(service).max_decoding_message_size(MAX_RESPONSE_BYTES);
        let client = Client::new(service, partition.clone(), settings.max_waiting)?;
        let mapping = mapping(&settings.login_property);
        let mut unindexed = settings.unindexed;
        unindexed.extend(mapping.unindexed().iter().map(|&name| name.to_owned()));
        let user_type = UserType {
            mapping,
            login_name,
            login_property: settings.login_property,
            id_field: settings.id_field,
            unindexed,
        };
        let keys = EntityKeys {
            partition,
            ancestors: settings.ancestors.into_iter().map(to_proto).collect(),
            user_kind: settings.user_kind,
            user_keys: settings.user_keys,
            prefix: settings.prefix,
        };
        user_type.check(&keys)?;
        let shared = Shared {
            client: Arc::new(client),
            keys,
            user_type,
            delete_expired: settings.delete_expired,
            timeout: settings.timeout,
            write_queues: WriteQueues::new(),
            login_name_queues: WriteQueues::new(),
        };
        let store = DatastoreStore { shared: Arc::new(shared) };
        // This call fails if the credentials, the project or the database are wrong.
        let key = store.keys().login_state(&UserId::from(""));
        store.client().lookup(vec![key], None, store.deadline()).await?;
        Ok(store)
    }
}

impl Settings {
    /// Checks the settings, and returns the parts of the URL.
    fn check(&self) -> Result<StoreUrl, Error> {
        let invalid = |setting: &str, name: &str| {
            Err(Error::unsupported(format!(
                "the setting {setting} can't be {name:?}: choose a name of 1 to \
                 {MAX_SETTING_BYTES} bytes that does not begin and end with two underscores"
            )))
        };
        for (setting, name) in [
            ("with_kind", Some(self.user_kind.as_str())),
            ("with_kind_prefix", Some(self.prefix.as_str())),
            ("with_login_property", Some(self.login_property.as_str())),
            ("with_id_field", Some(self.id_field.as_str())),
            ("with_user_keys", self.user_keys.id_property()),
        ] {
            let is_invalid = |name: &&str| !is_valid_name(name) || name.len() > MAX_SETTING_BYTES;
            if let Some(name) = name.filter(is_invalid) {
                return invalid(setting, name);
            }
        }
        for element in &self.ancestors {
            let (PathElement::Id(kind, _) | PathElement::Name(kind, _)) = element;
            let has_valid_id = match element {
                PathElement::Id(_, id) => *id != 0,
                PathElement::Name(_, name) => is_valid_name(name),
            };
            if !is_valid_name(kind) || !has_valid_id {
                return Err(Error::unsupported(format!(
                    "with_ancestors: the step {kind:?} has no valid kind, or no valid id or name: \
                     an id is not 0, and a kind or a name has 1 to 1,500 bytes and does not begin \
                     and end with two underscores"
                )));
            }
        }
        StoreUrl::parse(&self.url)
    }
}

/// Converts a step of a key's path to the type of the API.
fn to_proto(element: PathElement) -> ProtoElement {
    let (kind, id) = match element {
        PathElement::Id(kind, id) => (kind, IdType::Id(id)),
        PathElement::Name(kind, name) => (kind, IdType::Name(name)),
    };
    ProtoElement { kind, id_type: Some(id) }
}
