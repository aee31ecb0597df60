//! How a server of each kind is started for the first time.

use std::net::SocketAddr;

use super::instance::Instance;
use super::kind::Kind;
use super::server::Server;
use super::{dispatch, nginx, redis_groups, sql};

impl Server {
    /// Starts an empty server.
    ///
    /// # Errors
    ///
    /// Returns an error if the server can't be installed, set up or started. The text says what
    /// to do.
    pub fn start(kind: Kind) -> Result<Self, String> {
        match kind {
            Kind::PgBouncer | Kind::Nginx => {
                Err("a proxy needs a server behind it: call `start_pgbouncer` or `start_nginx`"
                    .to_owned())
            }
            Kind::RedisSentinel => redis_groups::start_sentinels(),
            Kind::RedisCluster => redis_groups::start_cluster(),
            _ => Self::set_up_and_start(kind, dispatch::set_up),
        }
    }

    /// Starts a Redis server with additional settings.
    ///
    /// # Errors
    ///
    /// Returns an error in the same cases as [`start`](Self::start).
    pub fn start_redis(arguments: &[&str]) -> Result<Self, String> {
        redis_groups::start_redis(arguments)
    }

    /// Starts PgBouncer in transaction mode in front of this PostgreSQL server.
    ///
    /// # Errors
    ///
    /// Returns an error in the same cases as [`start`](Self::start).
    pub fn start_pgbouncer(postgres: &Self) -> Result<Self, String> {
        Self::set_up_and_start(Kind::PgBouncer, |proxy| {
            sql::set_up_pgbouncer(proxy, postgres.port())
        })
    }

    /// Starts nginx in front of a site. It caches every response that a shared cache may store.
    ///
    /// # Errors
    ///
    /// Returns an error in the same cases as [`start`](Self::start).
    pub fn start_nginx(site: SocketAddr) -> Result<Self, String> {
        Self::set_up_and_start(Kind::Nginx, |proxy| nginx::set_up(proxy, site))
    }

    /// Prepares a server, creates its files with `set_up`, and starts it.
    fn set_up_and_start(
        kind: Kind,
        set_up: impl FnOnce(&Instance) -> Result<(), String>,
    ) -> Result<Self, String> {
        let mut server = Self::prepare(kind)?;
        set_up(&server.instance)?;
        server.start_and_wait()?;
        Ok(server)
    }
}
