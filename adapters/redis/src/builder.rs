//! The builder that opens a store.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{Client, ConnectionAddr, ConnectionInfo, TlsMode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tower_keep_core::{Account, AuthUser, StoreResult};

use crate::check::check_servers;
use crate::cluster::Cluster;
use crate::error::Error;
use crate::format::{AccountJson, Json, UserFormat};
use crate::keys::KeyNames;
use crate::link::{Link, Links, Role, Settings, Target};
use crate::servers::{Servers, Topology};
use crate::store::{RedisStore, Shared, UserSettings};
use crate::url::{self, UrlServers};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);
const MAX_TIMEOUT: Duration = Duration::from_secs(3_600);
const DEFAULT_MAX_WAITING: usize = 4_096;

/// Opens a store.
///
/// [`build`](Self::build) connects to the servers and checks them, so the application finds a wrong
/// setting when it starts.
#[must_use = "a builder does nothing until `build()`"]
pub struct RedisStoreBuilder<U = Account> {
    url: String,
    keys: KeyNames,
    timeout: Duration,
    replicas_to_wait_for: usize,
    reads_from_replicas: bool,
    max_waiting: usize,
    sentinel_login: Option<(Option<String>, String)>,
    #[cfg(feature = "tls")]
    certificates: Option<redis::TlsCertificates>,
    users: UserSettings<U>,
}

/// Does not show the URL, which may hold a password.
impl<U> fmt::Debug for RedisStoreBuilder<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStoreBuilder")
            .field("keys", &self.keys)
            .field("timeout", &self.timeout)
            .field("replicas_to_wait_for", &self.replicas_to_wait_for)
            .field("reads_from_replicas", &self.reads_from_replicas)
            .field("max_waiting", &self.max_waiting)
            .finish_non_exhaustive()
    }
}

impl RedisStore {
    /// Creates a builder for a store on the servers of this URL:
    ///
    /// | URL | servers |
    /// | --- | --- |
    /// | `redis://user:password@host:port/database` | one server |
    /// | `rediss://…` | one server, over TLS (with the feature `tls`) |
    /// | `redis+unix:///path?db=…&user=…&pass=…` | one server, over its Unix socket |
    /// | `redis+sentinel://user:password@host:port,host:port/mymaster/database` | the master that these sentinels name; with `rediss+sentinel` the sentinels and the master are reached over TLS |
    /// | `redis+cluster://user:password@host:port,host:port` | the cluster that these nodes belong to; `rediss+cluster` over TLS |
    ///
    /// `:password@` is the password of the default user. Write special characters of a password as
    /// `%XX`, and an IPv6 address in brackets. The default port is 6379, and 26379 for sentinels.
    /// The database is optional. The store opens its own connections, because it has to know when a
    /// connection is lost.
    pub fn builder(url: impl Into<String>) -> RedisStoreBuilder {
        let users = UserSettings {
            format: Box::new(AccountJson),
            login_name: |account: &Account| account.login_name(),
            ttl: None,
        };
        RedisStoreBuilder {
            url: url.into(),
            keys: KeyNames::default(),
            timeout: DEFAULT_TIMEOUT,
            replicas_to_wait_for: 0,
            reads_from_replicas: false,
            max_waiting: DEFAULT_MAX_WAITING,
            sentinel_login: None,
            #[cfg(feature = "tls")]
            certificates: None,
            users,
        }
    }
}

impl<U: AuthUser> RedisStoreBuilder<U> {
    /// Stores users of the application's own type, as JSON. `login_name` returns the name that a
    /// user logs in with.
    ///
    /// ```no_run
    /// use std::borrow::Cow;
    ///
    /// use serde::{Deserialize, Serialize};
    /// use tower_keep_core::{AuthUser, UserId};
    /// use tower_keep_redis::RedisStore;
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct Member {
    ///     id: u64,
    ///     email: String,
    ///     password_hash: String,
    /// }
    ///
    /// impl AuthUser for Member {
    ///     fn id(&self) -> UserId {
    ///         self.id.into()
    ///     }
    ///     fn security_stamp(&self) -> Cow<'_, [u8]> {
    ///         Cow::Borrowed(self.password_hash.as_bytes())
    ///     }
    /// }
    ///
    /// # async fn example() -> Result<(), tower_keep_core::StoreError> {
    /// let builder = RedisStore::builder("redis://localhost");
    /// let store = builder.with_users(|member: &Member| &member.email).build().await?;
    /// # Ok(()) }
    /// ```
    pub fn with_users<V>(self, login_name: fn(&V) -> &str) -> RedisStoreBuilder<V>
    where
        V: AuthUser + Serialize + DeserializeOwned,
    {
        self.with_users_in(Json, login_name)
    }

    /// Stores users of the application's own type in the application's own format.
    pub fn with_users_in<V: AuthUser>(
        self,
        format: impl UserFormat<V>,
        login_name: fn(&V) -> &str,
    ) -> RedisStoreBuilder<V> {
        let users = UserSettings { format: Box::new(format), login_name, ttl: self.users.ttl };
        RedisStoreBuilder {
            url: self.url,
            keys: self.keys,
            timeout: self.timeout,
            replicas_to_wait_for: self.replicas_to_wait_for,
            reads_from_replicas: self.reads_from_replicas,
            max_waiting: self.max_waiting,
            sentinel_login: self.sentinel_login,
            #[cfg(feature = "tls")]
            certificates: self.certificates,
            users,
        }
    }

    /// Makes each user of this store expire this long after the user was last inserted or updated.
    /// By default users never expire. Neither requests nor sessions prolong this time.
    ///
    /// This is for users who are copied from another system and are kept here for a while. If an
    /// application has members who never expire and guests who expire, it needs a second store for
    /// the guests, with another prefix. The sessions of an expired user count as sessions of no
    /// user.
    pub fn with_user_ttl(mut self, ttl: Duration) -> Self {
        self.users.ttl = Some(ttl);
        self
    }

    /// Sets the prefix of all keys, including the colon; `keep:` by default. A prefix is at most
    /// 100 characters of printable ASCII, without spaces, braces, brackets, backslashes, `*` and
    /// `?`.
    ///
    /// Stores with different prefixes can share a server without affecting each other, as long as
    /// no prefix begins with the prefix of another store.
    pub fn with_key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.keys.set_prefix(prefix.into());
        self
    }

    /// Sets how long a call to the store may take, including the wait for a connection: 3 s by
    /// default, an hour at most. A call that gets no reply in this time returns a
    /// [timeout](tower_keep_core::StoreErrorKind::Timeout) error. An attempt to connect has the
    /// same time-out, but never less than a second.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.clamp(Duration::from_millis(1), MAX_TIMEOUT);
        self
    }

    /// Sets how many calls may wait for one server; 4,096 by default. Any further call immediately
    /// returns an [unavailable](tower_keep_core::StoreErrorKind::Unavailable) error.
    pub fn with_max_waiting(mut self, max: usize) -> Self {
        self.max_waiting = max.clamp(1, tokio::sync::Semaphore::MAX_PERMITS);
        self
    }

    /// Sets how many replicas must have a write before it succeeds (`WAIT`); none by default. If
    /// fewer replicas have it in time, the write is not undone, and the call returns a
    /// [timeout](tower_keep_core::StoreErrorKind::Timeout) error.
    ///
    /// If a master dies, the writes that none of its replicas has are lost: see [what a failover
    /// loses](crate#what-a-failover-loses). Each write takes one more round trip, from the master
    /// to its replicas, and the writes to a master wait for each other.
    pub fn with_replicas_to_wait_for(mut self, replicas: usize) -> Self {
        self.replicas_to_wait_for = replicas;
        self
    }

    /// Lets replicas serve the reads of each request. By default only masters serve them.
    ///
    /// A replica is behind its master, usually by milliseconds, or for as long as their connection
    /// is interrupted. In this time a session that has ended, a user who was deactivated and an old
    /// password may still be valid. A request right after the renewal of a remember cookie may be
    /// treated as not logged in. If a replica does not have a key at all, the store asks the
    /// master.
    pub fn with_reads_from_replicas(mut self) -> Self {
        self.reads_from_replicas = true;
        self
    }

    /// Sets the user and the password for the sentinels, if the sentinels require them. `None` is
    /// the default user. The user and the password of the URL are only for the master, and are not
    /// sent to the sentinels.
    pub fn with_sentinel_login(mut self, user: Option<&str>, password: impl Into<String>) -> Self {
        self.sentinel_login = Some((user.map(str::to_owned), password.into()));
        self
    }

    /// Sets certificates for TLS, in PEM: the certificate of an authority, which replaces the
    /// authorities of the system, and a client certificate, if the server requires one.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use tower_keep_redis::{RedisStore, TlsCertificates};
    ///
    /// let root_cert = Some(std::fs::read("/etc/redis-ca.pem")?);
    /// let certificates = TlsCertificates { root_cert, client_tls: None };
    /// let builder = RedisStore::builder("rediss+cluster://:secret@one.example,two.example");
    /// let store = builder.with_certificates(certificates).build().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// By default the nodes of a cluster name each other by IP address, or by host name with
    /// `cluster-preferred-endpoint-type hostname`. The certificate of each node has to be valid for
    /// this address or name.
    #[cfg(feature = "tls")]
    pub fn with_certificates(mut self, certificates: redis::TlsCertificates) -> Self {
        self.certificates = Some(certificates);
        self
    }

    /// Opens the store. The server has to respond, or in a cluster at least one node that knows the
    /// other nodes. A warning is logged for each master that does not respond.
    ///
    /// # Errors
    ///
    /// Returns an error if a setting is invalid, or if the server can't be reached, rejects the
    /// user or the password, is of another kind than the URL says, or is older than Redis 6.0. The
    /// error's text says what to do.
    pub async fn build(self) -> StoreResult<RedisStore<U>> {
        Ok(self.open().await?)
    }

    async fn open(self) -> Result<RedisStore<U>, Error> {
        self.keys.check()?;
        let servers =
            Servers { topology: self.topology()?, replicas_to_wait_for: self.replicas_to_wait_for };
        check_servers(&servers, self.timeout).await?;
        let Self { keys, timeout, users, .. } = self;
        Ok(RedisStore { shared: Arc::new(Shared { servers, keys, timeout, users }) })
    }

    fn topology(&self) -> Result<Topology, Error> {
        #[cfg(feature = "tls")]
        if self.url.starts_with("rediss") {
            // rustls needs a crypto provider for the process. An error only means that the
            // application has already installed a provider.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        match url::parse(&self.url)? {
            UrlServers::One(info) => {
                if self.reads_from_replicas {
                    let message = "one server has no replicas to read from: use a URL with \
                                   sentinels or a cluster, or don't call \
                                   `with_reads_from_replicas`";
                    return Err(Error::unsupported(message));
                }
                let client = self.client(info)?;
                self.links(|| Ok(Target::Server(client.clone())), None).map(Topology::One)
            }
            UrlServers::Sentinel { sentinels, name } => {
                let target = |kind: fn() -> SentinelServerType| {
                    let each = sentinels.chunks(1).map(|sentinel| {
                        self.sentinels(sentinel, &name, kind()).map(tokio::sync::Mutex::new)
                    });
                    Ok(Target::Sentinels(each.collect::<Result<_, _>>()?, name.clone()))
                };
                let replica = match self.reads_from_replicas {
                    true => Some(target(|| SentinelServerType::Replica)?),
                    false => None,
                };
                self.links(|| target(|| SentinelServerType::Master), replica).map(Topology::One)
            }
            UrlServers::Cluster(seeds) => {
                let seeds = seeds.into_iter().map(|seed| {
                    // The connection info of a client includes the certificates; `seed` does not.
                    self.client(seed).map(|client| client.get_connection_info().clone())
                });
                let seeds = seeds.collect::<Result<_, _>>()?;
                Ok(Topology::Cluster(Arc::new(Cluster::new(seeds, self.settings())?)))
            }
        }
    }

    fn settings(&self) -> Settings {
        Settings {
            timeout: self.timeout,
            max_waiting: self.max_waiting,
            has_write_connections: self.replicas_to_wait_for > 0,
            reads_from_replicas: self.reads_from_replicas,
        }
    }

    fn links(
        &self,
        target: impl Fn() -> Result<Target, Error>,
        replica: Option<Target>,
    ) -> Result<Links, Error> {
        let link = |target, role| Arc::new(Link::new(target, role, &self.settings()));
        let master = link(target()?, Role::Master);
        let writes = match self.replicas_to_wait_for {
            0 => Arc::clone(&master),
            _ => link(target()?, Role::Master),
        };
        Ok(Links { master, writes, replica: replica.map(|replica| link(replica, Role::Replica)) })
    }

    fn client(&self, info: ConnectionInfo) -> Result<Client, Error> {
        #[cfg(feature = "tls")]
        if let Some(certificates) = &self.certificates {
            let client = Client::build_with_tls(info, certificates.clone());
            return client.map_err(|error| Error::while_connecting("the server", &error));
        }
        Client::open(info).map_err(|error| Error::while_connecting("the server", &error))
    }

    fn sentinels(
        &self,
        sentinels: &[ConnectionInfo],
        name: &str,
        kind: SentinelServerType,
    ) -> Result<SentinelClient, Error> {
        let connect_error = |error| Error::while_connecting("the sentinels", &error);
        let addresses: Vec<ConnectionAddr> =
            sentinels.iter().map(|sentinel| sentinel.addr().clone()).collect();
        let is_tls = addresses.iter().any(|addr| matches!(addr, ConnectionAddr::TcpTls { .. }));
        let mut builder =
            SentinelClientBuilder::new(addresses, name, kind).map_err(connect_error)?;
        if let Some(first) = sentinels.first() {
            let settings = first.redis_settings();
            builder = builder
                .set_client_to_redis_db(settings.db())
                .set_client_to_redis_protocol(settings.protocol())
                .set_client_to_redis_tcp_settings(first.tcp_settings().clone());
            if let Some(user) = settings.username() {
                builder = builder.set_client_to_redis_username(user);
            }
            if let Some(password) = settings.password() {
                builder = builder.set_client_to_redis_password(password);
            }
        }
        if let Some((user, password)) = &self.sentinel_login {
            builder = builder.set_client_to_sentinel_password(password);
            if let Some(user) = user {
                builder = builder.set_client_to_sentinel_username(user);
            }
        }
        if is_tls {
            builder = builder
                .set_client_to_redis_tls_mode(TlsMode::Secure)
                .set_client_to_sentinel_tls_mode(TlsMode::Secure);
        }
        #[cfg(feature = "tls")]
        if let Some(certificates) = &self.certificates {
            builder = builder
                .set_client_to_redis_certificates(certificates.clone())
                .set_client_to_sentinel_certificates(certificates.clone());
        }
        builder.build().map_err(connect_error)
    }
}
