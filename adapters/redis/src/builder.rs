//! How a store is opened.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{Client, ConnectionAddr, ConnectionInfo, TlsMode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tower_keep_core::{Account, AuthUser, StoreError};

use crate::address::{self, Address};
use crate::check::check;
use crate::cluster::Cluster;
use crate::error::Fault;
use crate::format::AccountJson;
use crate::keys::Keys;
use crate::link::{Kind, Link, Target};
use crate::servers::{Links, Servers, Settings, Topology};
use crate::store::{Shared, Users};
use crate::{Json, RedisStore, UserFormat};

const TIMEOUT: Duration = Duration::from_secs(3);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(3_600);
const MOST_WAITING: usize = 4_096;

/// Opens a store.
///
/// [`build`](Self::build) connects and checks the servers once, so that what is wrong shows at the start.
#[must_use = "a builder does nothing until `build()`"]
pub struct RedisStoreBuilder<U = Account> {
    url: String,
    keys: Keys,
    timeout: Duration,
    replicas_to_wait_for: usize,
    reads_from_replicas: bool,
    most_waiting: usize,
    sentinel_login: Option<(Option<String>, String)>,
    #[cfg(feature = "tls")]
    certificates: Option<redis::TlsCertificates>,
    users: Users<U>,
}

/// Shows no URL, which holds a password.
impl<U> fmt::Debug for RedisStoreBuilder<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStoreBuilder")
            .field("keys", &self.keys)
            .field("timeout", &self.timeout)
            .field("replicas_to_wait_for", &self.replicas_to_wait_for)
            .field("reads_from_replicas", &self.reads_from_replicas)
            .field("most_waiting", &self.most_waiting)
            .finish_non_exhaustive()
    }
}

impl RedisStore {
    /// A store on the servers of this URL:
    ///
    /// | URL | |
    /// | --- | --- |
    /// | `redis://user:password@host:port/database` | one server |
    /// | `rediss://…` | one server, by TLS (with the feature `tls`) |
    /// | `redis+unix:///path?db=…&user=…&pass=…` | one server, by its socket |
    /// | `redis+sentinel://user:password@host:port,host:port/mymaster/database` | the master that these sentinels name; `rediss+sentinel` by TLS |
    /// | `redis+cluster://user:password@host:port,host:port` | a cluster, some nodes of which are these; `rediss+cluster` by TLS |
    ///
    /// `:password@` is the default user's password; special characters in it are written as `%XX`. Ports
    /// are 6379, and 26379 of sentinels, unless told otherwise; an IPv6 address stands in brackets; the
    /// database may be left away. The store makes its own connections, as it has to know when they are lost.
    pub fn builder(url: impl Into<String>) -> RedisStoreBuilder {
        let users = Users {
            format: Box::new(AccountJson),
            login_name: |account: &Account| account.login(),
            life: None,
        };
        RedisStoreBuilder {
            url: url.into(),
            keys: Keys::default(),
            timeout: TIMEOUT,
            replicas_to_wait_for: 0,
            reads_from_replicas: false,
            most_waiting: MOST_WAITING,
            sentinel_login: None,
            #[cfg(feature = "tls")]
            certificates: None,
            users,
        }
    }
}

impl<U: AuthUser> RedisStoreBuilder<U> {
    /// Users of the application's own type, as JSON; `login_name` says what they log in with.
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
    ///     fn stamp(&self) -> Cow<'_, [u8]> {
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

    /// Users of the application's own type, in a format of its own.
    pub fn with_users_in<V: AuthUser>(
        self,
        format: impl UserFormat<V>,
        login_name: fn(&V) -> &str,
    ) -> RedisStoreBuilder<V> {
        let users = Users { format: Box::new(format), login_name, life: self.users.life };
        RedisStoreBuilder {
            url: self.url,
            keys: self.keys,
            timeout: self.timeout,
            replicas_to_wait_for: self.replicas_to_wait_for,
            reads_from_replicas: self.reads_from_replicas,
            most_waiting: self.most_waiting,
            sentinel_login: self.sentinel_login,
            #[cfg(feature = "tls")]
            certificates: self.certificates,
            users,
        }
    }

    /// All users of this store are gone so long after they were last inserted or updated; they stay for
    /// good unless told otherwise. Neither requests nor sessions prolong it.
    ///
    /// For users who come from elsewhere and are kept here for a while. Guests beside members need a store
    /// of their own, with another prefix. The sessions of one who is gone count as nobody's.
    pub fn with_user_ttl(mut self, ttl: Duration) -> Self {
        self.users.life = Some(ttl);
        self
    }

    /// What all keys begin with, the colon included; `keep:` unless told otherwise. Printable ASCII without
    /// braces, brackets and wildcards, at most 100 bytes.
    ///
    /// Stores with different prefixes share a server without noticing each other, as long as none begins
    /// with another.
    pub fn with_key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.keys.set_prefix(prefix.into());
        self
    }

    /// How long a call to the store takes at most, waiting for a connection included; 3 s unless told
    /// otherwise, an hour at most. Without an answer by then it is a
    /// [timeout](tower_keep_core::StoreErrorKind::Timeout). Making a connection may take as long.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.clamp(Duration::from_millis(1), LONGEST_TIMEOUT);
        self
    }

    /// How many calls may wait for one server; 4,096 unless told otherwise. A call more is
    /// [unavailable](tower_keep_core::StoreErrorKind::Unavailable) at once.
    pub fn with_max_waiting(mut self, most: usize) -> Self {
        self.most_waiting = most.clamp(1, tokio::sync::Semaphore::MAX_PERMITS);
        self
    }

    /// A write counts when so many replicas have it, by `WAIT`; none unless told otherwise. If they don't
    /// have it in time, it stands, and the call is a
    /// [timeout](tower_keep_core::StoreErrorKind::Timeout).
    ///
    /// A master that dies takes with it what its replicas don't have yet: see
    /// [what a failover loses](crate#what-a-failover-loses). It costs each write the way to the replicas
    /// and back, and a node's writes wait one after the other.
    pub fn with_replicas_to_wait_for(mut self, replicas: usize) -> Self {
        self.replicas_to_wait_for = replicas;
        self
    }

    /// Lets replicas answer what is read for each request; only masters do unless told otherwise.
    ///
    /// What it costs: replicas lag behind, usually by milliseconds, and by as long as the way from the
    /// master is broken. For that long a session that was ended, a user who was switched off and an
    /// earlier password still count, and a request that comes right after a remember cookie was renewed
    /// may be answered as nobody's. What a replica does not have at all is asked of the master.
    pub fn with_reads_from_replicas(mut self) -> Self {
        self.reads_from_replicas = true;
        self
    }

    /// How to log in to the sentinels, if they ask for it; `None` is the default user. The URL's user and
    /// password are the master's, and are not told to the sentinels.
    pub fn with_sentinel_login(mut self, user: Option<&str>, password: impl Into<String>) -> Self {
        self.sentinel_login = Some((user.map(str::to_owned), password.into()));
        self
    }

    /// Certificates for TLS, in PEM: of an authority, in place of those that the system knows; of the
    /// application itself, if the server asks for one.
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
    /// A cluster's nodes name each other by address unless told otherwise
    /// (`cluster-preferred-endpoint-type hostname`), and that is what their certificates have to be for.
    #[cfg(feature = "tls")]
    pub fn with_certificates(mut self, certificates: redis::TlsCertificates) -> Self {
        self.certificates = Some(certificates);
        self
    }

    /// Opens the store. A server has to answer; of a cluster, one that knows the others. A master that does not
    /// is warned of.
    ///
    /// # Errors
    ///
    /// A server can't be reached or does not let us in, is of another kind than the URL says, or older
    /// than Redis 6.0. The [source](std::error::Error::source) names the mend.
    pub async fn build(self) -> Result<RedisStore<U>, StoreError> {
        Ok(self.open().await?)
    }

    async fn open(self) -> Result<RedisStore<U>, Fault> {
        self.keys.check()?;
        let servers =
            Servers { topology: self.topology()?, replicas_to_wait_for: self.replicas_to_wait_for };
        check(&servers, self.timeout).await?;
        let Self { keys, timeout, users, .. } = self;
        Ok(RedisStore { shared: Arc::new(Shared { servers, keys, timeout, users }) })
    }

    fn topology(&self) -> Result<Topology, Fault> {
        #[cfg(feature = "tls")]
        if self.url.starts_with("rediss") {
            // rustls needs to be told whose cryptography to use; the application may have done so.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        match address::read(&self.url)? {
            Address::One(info) => {
                if self.reads_from_replicas {
                    let words = "one server has no replicas to read from: name a cluster or sentinels, \
                                 or leave `with_reads_from_replicas` away";
                    return Err(Fault::unsupported(words));
                }
                let client = self.client(info)?;
                self.links(|| Ok(Target::Server(client.clone())), None).map(Topology::One)
            }
            Address::Sentinel { sentinels, name } => {
                let target = |kind: fn() -> SentinelServerType| {
                    let each = sentinels.chunks(1).map(|sentinel| {
                        self.sentinels(sentinel, &name, kind()).map(tokio::sync::Mutex::new)
                    });
                    Ok(Target::Named(each.collect::<Result<_, _>>()?, name.clone()))
                };
                let replica = match self.reads_from_replicas {
                    true => Some(target(|| SentinelServerType::Replica)?),
                    false => None,
                };
                self.links(|| target(|| SentinelServerType::Master), replica).map(Topology::One)
            }
            Address::Cluster(seeds) => {
                let seeds = seeds.into_iter().map(|seed| {
                    // With the certificates.
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
            most_waiting: self.most_waiting,
            splits_writes: self.replicas_to_wait_for > 0,
            reads_from_replicas: self.reads_from_replicas,
        }
    }

    fn links(
        &self,
        target: impl Fn() -> Result<Target, Fault>,
        replica: Option<Target>,
    ) -> Result<Links, Fault> {
        let link = |target, kind| Arc::new(Link::new(target, kind, &self.settings()));
        let master = link(target()?, Kind::Master);
        let writes = match self.replicas_to_wait_for {
            0 => Arc::clone(&master),
            _ => link(target()?, Kind::Master),
        };
        Ok(Links { master, writes, replica: replica.map(|replica| link(replica, Kind::Replica)) })
    }

    fn client(&self, info: ConnectionInfo) -> Result<Client, Fault> {
        #[cfg(feature = "tls")]
        if let Some(certificates) = &self.certificates {
            let client = Client::build_with_tls(info, certificates.clone());
            return client.map_err(|error| Fault::of_connecting("the server", &error));
        }
        Client::open(info).map_err(|error| Fault::of_connecting("the server", &error))
    }

    fn sentinels(
        &self,
        sentinels: &[ConnectionInfo],
        name: &str,
        kind: SentinelServerType,
    ) -> Result<SentinelClient, Fault> {
        let fault = |error| Fault::of_connecting("the sentinels", &error);
        let addresses: Vec<ConnectionAddr> =
            sentinels.iter().map(|sentinel| sentinel.addr().clone()).collect();
        let is_tls = addresses.iter().any(|place| matches!(place, ConnectionAddr::TcpTls { .. }));
        let mut builder = SentinelClientBuilder::new(addresses, name, kind).map_err(fault)?;
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
        builder.build().map_err(fault)
    }
}
