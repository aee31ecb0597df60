//! How a store is opened.

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
use tower_keep_core::{Account, AuthUser, StoreError, UserId};

use crate::client::Client;
use crate::connect::{Access, ServiceAccountKey, channel, unknown_project};
use crate::error::Fault;
use crate::keys::{Keys, is_name};
use crate::mapping::{Accounts, Mapping, Serde, Users};
use crate::place::{self, Place};
use crate::record::Expiry;
use crate::store::Shared;
use crate::turns::Turns;
use crate::{DatastoreStore, PathElement, UserKeys};

const TIMEOUT: Duration = Duration::from_secs(5);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);
const MOST_WAITING: usize = 4_096;
/// The longest kind, prefix or property: with room for what is added to it, in bytes.
const LONGEST_SETTING: usize = 250;
/// The largest answer, in bytes. Google's have some 10 MiB at most.
const LARGEST_ANSWER: usize = 64 << 20;

/// Opens a store.
///
/// [`build`](Self::build) asks the service once, so that what is wrong shows at the start.
#[must_use = "a builder does nothing until `build()`"]
pub struct DatastoreStoreBuilder<U = Account> {
    settings: Settings,
    mapping: Make<U>,
    login_name: fn(&U) -> &str,
}

/// Makes a mapping; it takes the login name's property.
type Make<U> = fn(&str) -> Box<dyn Mapping<U>>;

/// All that does not depend on the type of users.
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
    expiry: Expiry,
    timeout: Duration,
    most_waiting: usize,
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
    /// A store in the project, namespace and database of this URL:
    /// `datastore://PROJECT/NAMESPACE?database=DATABASE`.
    ///
    /// Each may be left away. Without a project it is that of the service account's key that is
    /// [given here](DatastoreStoreBuilder::with_service_account_file), otherwise of `DATASTORE_PROJECT_ID`, of
    /// `GOOGLE_CLOUD_PROJECT` (or `GCP_PROJECT`, `PROJECT_ID`, `GCP_PROJECT_ID`), of the credentials' file, or of the
    /// metadata server. An emulator takes that of the first two variables.
    ///
    /// With `DATASTORE_EMULATOR_HOST` set (`localhost:8081`), it is that emulator, without credentials.
    /// Otherwise credentials are found as all of Google's libraries do
    /// ([application default credentials](https://cloud.google.com/docs/authentication/application-default-credentials)):
    /// the file that `GOOGLE_APPLICATION_CREDENTIALS` names, that of `gcloud auth application-default
    /// login`, or the metadata server of the machine (Compute Engine, Cloud Run, GKE).
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
                expiry: Expiry::Indexed,
                timeout: TIMEOUT,
                most_waiting: MOST_WAITING,
                access: Access::default(),
            },
            mapping: |login| Box::new(Accounts { login: login.to_owned() }),
            login_name: |account: &Account| account.login(),
        }
    }
}

impl<U: AuthUser> DatastoreStoreBuilder<U> {
    /// Users of the application's own type, whose fields are the entity's properties;
    /// `login_name` says what they log in with.
    ///
    /// The key's id is read into the field [`id`](Self::with_id_field): an `i64` or a `String`, or the like. It
    /// is not written as a property. The login name is the property
    /// [`username`](Self::with_login_property), compared byte for byte.
    ///
    /// [`modify`](tower_keep_core::UserDirectory::modify) reads, changes and writes in one transaction, so that
    /// of two changes at once none is lost.
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
    ///     fn stamp(&self) -> Cow<'_, [u8]> {
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
        let mapping: Make<V> = |_| Box::new(Serde::<V>::new());
        DatastoreStoreBuilder { settings: self.settings, mapping, login_name }
    }

    /// The kind of users' entities; `User` unless told otherwise.
    pub fn with_kind(mut self, kind: impl Into<String>) -> Self {
        self.settings.user_kind = kind.into();
        self
    }

    /// The property that holds the login name; `username` unless told otherwise. It has to be indexed; users whose
    /// own is not are not found by it.
    pub fn with_login_property(mut self, property: impl Into<String>) -> Self {
        self.settings.login_property = property.into();
        self
    }

    /// What names a user's entity; the key's id or name unless told otherwise.
    pub fn with_user_keys(mut self, keys: UserKeys) -> Self {
        self.settings.user_keys = keys;
        self
    }

    /// The field of the application's user type that the key's id is read into, as serde names it; `id` unless
    /// told otherwise. A property of that name is neither read nor written: where entities have a property `id` of
    /// their own that the type is to have, let this be a name that is no property's.
    pub fn with_id_field(mut self, field: impl Into<String>) -> Self {
        self.settings.id_field = field.into();
        self
    }

    /// What the keys of users begin with, for users who are below another entity. Only they are found.
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

    /// More properties that are excluded from indexes when they are first written, besides `password_hash` (and
    /// `stamp` and `stamped_hash` of an [`Account`]): the hash of a password, whatever it is called, should be one. A
    /// property that is there keeps its own setting.
    ///
    /// An index costs storage and a part of each write, and what is indexed can be queried. An embedded entity is
    /// excluded as a whole. Texts and blobs of more than 1,500 bytes are always excluded.
    pub fn add_unindexed<P: Into<String>>(
        mut self,
        properties: impl IntoIterator<Item = P>,
    ) -> Self {
        self.settings.unindexed.extend(properties.into_iter().map(Into::into));
        self
    }

    /// What the names of this store's own kinds begin with; `Keep` unless told otherwise: `KeepSession_User`,
    /// `KeepLogins_User`, and `KeepIndex_User.username`.
    pub fn with_kind_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.settings.prefix = prefix.into();
        self
    }

    /// The database deletes expired sessions itself, by a time-to-live policy:
    ///
    /// ```text
    /// gcloud firestore fields ttls update expire_at --collection-group=KeepSession_User --enable-ttl
    /// gcloud firestore fields ttls update expire_at --collection-group=KeepLogins_User --enable-ttl
    /// ```
    ///
    /// (With `--project`, and `--database` for a named one; a policy covers all namespaces; another
    /// [kind](Self::with_kind) or [prefix](Self::with_kind_prefix) has other groups.) The property is not indexed then, which makes writes
    /// cheaper and spares a [hotspot](https://cloud.google.com/datastore/docs/best-practices), and
    /// `purge` has only those to remove that ended together. Switch the policy on first: without it, as on an emulator, sessions stay for
    /// good, and `purge` does not find those that were written meanwhile.
    pub fn with_ttl_policy(mut self) -> Self {
        self.settings.expiry = Expiry::ByPolicy;
        self
    }

    /// How long a call to the store takes at most, with all that it asks; 5 s unless told otherwise, a minute
    /// at most. Without an answer by then it is a [timeout](tower_keep_core::StoreErrorKind::Timeout).
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = timeout.clamp(Duration::from_millis(1), LONGEST_TIMEOUT);
        self
    }

    /// How many calls may be under way or wait; 4,096 unless told otherwise. A call more is
    /// [unavailable](tower_keep_core::StoreErrorKind::Unavailable) at once. They share one connection, on which
    /// Google's servers work at some 100 at a time.
    pub fn with_max_waiting(mut self, most: usize) -> Self {
        self.settings.most_waiting = most.clamp(1, Semaphore::MAX_PERMITS);
        self
    }

    /// Credentials of a service account, from its key's file (JSON), in place of the default ones.
    pub fn with_service_account_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.settings.access.key = Some(ServiceAccountKey::File(path.into()));
        self
    }

    /// The same from the text of such a file, as a secret manager gives it.
    pub fn with_service_account_json(mut self, json: impl Into<String>) -> Self {
        self.settings.access.key = Some(ServiceAccountKey::Json(json.into()));
        self
    }

    /// Another address of the service, such as a regional one or one of Private Service Connect:
    /// `https://HOST`. Without TLS only on this machine (`http://localhost:PORT`). It counts more than
    /// `DATASTORE_EMULATOR_HOST`.
    pub fn with_endpoint(mut self, url: impl Into<String>) -> Self {
        self.settings.access.endpoint = Some(url.into());
        self
    }

    /// An emulator, `HOST:PORT`, whatever `DATASTORE_EMULATOR_HOST` says.
    pub fn with_emulator(mut self, host: impl Into<String>) -> Self {
        self.settings.access.emulator = Some(host.into());
        self
    }

    /// Opens the store. Nothing has to be made before: no table, no index.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](tower_keep_core::StoreErrorKind::Unsupported) for settings that can't be, for
    /// credentials that are missing or not sufficient, and where there is no such database;
    /// [`Unavailable`](tower_keep_core::StoreErrorKind::Unavailable) and
    /// [`Timeout`](tower_keep_core::StoreErrorKind::Timeout) if the service can't be reached.
    pub async fn build(self) -> Result<DatastoreStore<U>, StoreError> {
        let Self { settings, mapping, login_name } = self;
        let place = settings.check()?;
        let endpoint = settings.access.open().await?;
        let project = endpoint.project(place.project);
        let late = |_| unknown_project();
        let project_id = timeout(settings.timeout, project).await.map_err(late)??;
        let partition =
            PartitionId { project_id, database_id: place.database, namespace_id: place.namespace };
        let channel = channel(&endpoint.url, settings.timeout)?;
        let service = GoogleAuthMiddleware::new(channel, endpoint.credentials, None);
        let service = service.map_err(|error| Fault::of_credentials(&error))?;
        let service = DatastoreClient::new(service).max_decoding_message_size(LARGEST_ANSWER);
        let client = Client::new(service, partition.clone(), settings.most_waiting)?;
        let mapping = mapping(&settings.login_property);
        let mut unindexed = settings.unindexed;
        unindexed.extend(mapping.unindexed().iter().map(|&name| name.to_owned()));
        let users = Users {
            mapping,
            login_name,
            login_property: settings.login_property,
            id_field: settings.id_field,
            unindexed,
        };
        let keys = Keys {
            partition,
            ancestors: settings.ancestors.into_iter().map(proto).collect(),
            user_kind: settings.user_kind,
            user_keys: settings.user_keys,
            prefix: settings.prefix,
        };
        users.check(&keys)?;
        let shared = Shared {
            client: Arc::new(client),
            keys,
            users,
            expiry: settings.expiry,
            timeout: settings.timeout,
            turns: Turns::new(),
            turns_of_names: Turns::new(),
        };
        let store = DatastoreStore { shared: Arc::new(shared) };
        // Whether credentials, project and database are what they should be.
        let key = store.keys().logins(&UserId::from(""));
        store.client().lookup(vec![key], None, store.deadline()).await?;
        Ok(store)
    }
}

impl Settings {
    /// Whether these can be; and what the URL says.
    fn check(&self) -> Result<Place, Fault> {
        let not = |what: &str, name: &str| {
            Err(Fault::unsupported(format!(
                "{what} can't be {name:?}: it has 1 to {LONGEST_SETTING} bytes, and is not __…__"
            )))
        };
        for (what, name) in [
            ("with_kind", Some(self.user_kind.as_str())),
            ("with_kind_prefix", Some(self.prefix.as_str())),
            ("with_login_property", Some(self.login_property.as_str())),
            ("with_id_field", Some(self.id_field.as_str())),
            ("with_user_keys", self.user_keys.property()),
        ] {
            if let Some(name) = name.filter(|name| !is_name(name) || name.len() > LONGEST_SETTING) {
                return not(what, name);
            }
        }
        for element in &self.ancestors {
            let (PathElement::Id(kind, _) | PathElement::Name(kind, _)) = element;
            let is_complete = match element {
                PathElement::Id(_, id) => *id != 0,
                PathElement::Name(_, name) => is_name(name),
            };
            if !is_name(kind) || !is_complete {
                return not("with_ancestors", kind);
            }
        }
        place::read(&self.url)
    }
}

fn proto(element: PathElement) -> ProtoElement {
    let (kind, id) = match element {
        PathElement::Id(kind, id) => (kind, IdType::Id(id)),
        PathElement::Name(kind, name) => (kind, IdType::Name(name)),
    };
    ProtoElement { kind, id_type: Some(id) }
}
