//! The kinds of servers that the tests need.

/// The kinds of servers that can be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// PostgreSQL.
    Postgres,
    /// MariaDB, which speaks MySQL's protocol.
    MariaDb,
    /// MySQL itself.
    MySql,
    /// PgBouncer in transaction mode, in front of a PostgreSQL server.
    PgBouncer,
    /// Redis.
    Redis,
    /// A Redis server with a replica, and three sentinels.
    RedisSentinel,
    /// A Redis Cluster of three masters with a replica each.
    RedisCluster,
    /// Google's Datastore emulator. If two of its transactions conflict, the commit of one fails.
    Datastore,
    /// Google's Firestore emulator in Datastore mode. Its transactions wait for each other.
    Firestore,
    /// nginx, in front of a site.
    Nginx,
}

impl Kind {
    /// All kinds except nginx, each after the kind that it needs.
    pub const ALL: [Self; 9] = [
        Self::Postgres,
        Self::MariaDb,
        Self::MySql,
        Self::PgBouncer,
        Self::Redis,
        Self::RedisSentinel,
        Self::RedisCluster,
        Self::Datastore,
        Self::Firestore,
    ];

    /// Returns a name for error messages and for the server's directory.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::MariaDb => "mariadb",
            Self::MySql => "mysql",
            Self::PgBouncer => "pgbouncer",
            Self::Redis | Self::RedisSentinel | Self::RedisCluster => "redis",
            Self::Datastore => "datastore",
            Self::Firestore => "firestore",
            Self::Nginx => "nginx",
        }
    }

    /// Returns the name of an environment variable. If it holds the URL of a server of this kind,
    /// the tests use that server. No test does so for nginx.
    #[must_use]
    pub fn variable(self) -> &'static str {
        match self {
            Self::Postgres => "POSTGRES_URL",
            Self::MariaDb => "MARIADB_URL",
            Self::MySql => "MYSQL_URL",
            Self::PgBouncer => "PGBOUNCER_URL",
            Self::Redis => "REDIS_URL",
            Self::RedisSentinel => "REDIS_SENTINEL_URL",
            Self::RedisCluster => "REDIS_CLUSTER_URL",
            Self::Datastore => "DATASTORE_URL",
            Self::Firestore => "FIRESTORE_URL",
            Self::Nginx => "NGINX_URL",
        }
    }
}
