//! What differs between the kinds of servers: which file does each step for which kind.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::instance::Instance;
use super::kind::Kind;
use super::process::unprivileged_command;
use super::{datastore, mysql, nginx, redis, sql};
use crate::provision::{find_program, install};

impl Kind {
    /// Installs the server's program if it is missing.
    ///
    /// # Errors
    ///
    /// Returns an error if the program can't be installed. The text says what to do.
    pub fn install(self) -> Result<(), String> {
        find_or_install(self).map(drop)
    }
}

/// Returns the path of the program of this kind, which is installed if it is missing.
pub(super) fn find_or_install(kind: Kind) -> Result<PathBuf, String> {
    let (package, find): (_, fn() -> Option<PathBuf>) = match kind {
        Kind::Postgres => ("postgresql", sql::newest_postgres),
        Kind::MariaDb => ("mariadb-server", || find_program(&["mariadbd"])),
        Kind::MySql => return mysql::find_or_download(),
        Kind::PgBouncer => ("pgbouncer", || find_program(&["pgbouncer"])),
        Kind::Redis | Kind::RedisSentinel | Kind::RedisCluster => {
            ("redis-server", || find_program(&["redis-server", "valkey-server"]))
        }
        Kind::Datastore | Kind::Firestore => return datastore::find_or_install(kind),
        Kind::Nginx => ("nginx", || find_program(&["nginx"])),
    };
    if let Some(program) = find() {
        return Ok(program);
    }
    let name = kind.name();
    let instead = match kind {
        Kind::Nginx => "put it into a directory of PATH".to_owned(),
        _ => format!("set {} to the URL of a server of yours", kind.variable()),
    };
    install(&[package]).map_err(|error| format!("no server for {name}: {error}\nor {instead}"))?;
    find()
        .ok_or_else(|| format!("{package} is installed but contains no server program: {instead}"))
}

/// Creates the data of a new server, if a server of this kind needs any before its first start.
pub(super) fn set_up(instance: &Instance) -> Result<(), String> {
    match instance.kind {
        Kind::Postgres => sql::set_up_postgres(instance),
        Kind::MariaDb => sql::set_up_mariadb(instance),
        Kind::MySql => mysql::set_up(instance),
        _ => Ok(()),
    }
}

/// Returns a shell, in which another command runs this server's program. The shell runs as the user
/// who may run the program.
pub(super) fn shell(kind: Kind) -> Result<Command, String> {
    match kind {
        // The program may be in a directory that an unprivileged user can't read.
        Kind::Datastore | Kind::Firestore | Kind::MySql => Ok(Command::new("/bin/sh")),
        _ => unprivileged_command(Path::new("/bin/sh")),
    }
}

/// Returns the words that precede the program in its command line.
pub(super) fn command_prefix(instance: &Instance) -> Vec<String> {
    match instance.kind {
        Kind::MySql => mysql::command_prefix(&instance.program),
        Kind::Datastore | Kind::Firestore => datastore::command_prefix(&instance.program),
        _ => Vec::new(),
    }
}

/// Returns the arguments that every start of the server needs.
pub(super) fn arguments(instance: &Instance) -> Vec<String> {
    match instance.kind {
        Kind::Postgres | Kind::MariaDb | Kind::PgBouncer => sql::arguments(instance),
        Kind::MySql => mysql::arguments(instance),
        Kind::Redis | Kind::RedisSentinel | Kind::RedisCluster => redis::arguments(instance),
        Kind::Datastore | Kind::Firestore => datastore::arguments(instance),
        Kind::Nginx => nginx::arguments(instance),
    }
}

/// Checks whether the server responds to requests. A server may accept connections for a while
/// before it responds.
pub(super) fn is_ready(instance: &Instance) -> bool {
    match instance.kind {
        Kind::Postgres | Kind::MariaDb | Kind::PgBouncer => sql::is_ready(instance),
        Kind::MySql => mysql::is_ready(instance.port),
        Kind::Redis | Kind::RedisSentinel | Kind::RedisCluster => {
            redis::call(instance.port, "PING").is_ok_and(|reply| reply.contains("PONG"))
        }
        Kind::Datastore | Kind::Firestore => datastore::is_ready(instance.port),
        Kind::Nginx => nginx::is_ready(instance.port),
    }
}

/// Returns the signal that makes the server exit in order.
pub(super) fn stop_signal(instance: &Instance) -> &'static str {
    match instance.kind {
        Kind::Datastore | Kind::Firestore => datastore::stop_signal(&instance.program),
        _ => "-TERM",
    }
}

/// Returns the URL of a server, and of the other servers of its group.
pub(super) fn url(instance: &Instance, members: &[&Instance]) -> String {
    match instance.kind {
        Kind::Postgres | Kind::MariaDb | Kind::MySql | Kind::PgBouncer => sql::url(instance),
        Kind::Redis | Kind::RedisSentinel | Kind::RedisCluster => redis::url(instance, members),
        Kind::Datastore | Kind::Firestore | Kind::Nginx => {
            format!("http://127.0.0.1:{}", instance.port)
        }
    }
}
