//! Starts servers for the tests: databases and proxies, each on a free loopback port and with a
//! directory of its own. They end at the latest when the process that started them ends.

mod datastore;
mod mysql;
mod nginx;
mod process;
mod redis;
mod sql;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use self::process::{
    children, is_alive, is_stopped, run_quietly, send_signal, unprivileged_command,
};
use crate::provision::{find_program, install, is_root};
pub use redis::call as call_redis;

/// How long a server may take to respond, to stop or to end.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long to wait between two checks.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A shell script that starts the server and prints the server's process id. The script kills the
/// server when the script reads a line, or when its standard input is closed, which happens when
/// this process ends for whatever reason. If the input was closed, the script also removes the
/// server's directory.
const GUARDIAN: &str = r#"exec 3<&0; directory=$1; shift; "$@" </dev/null >&2 & echo $!
    read _ <&3; read_status=$?; kill -KILL $!; wait; test $read_status = 0 && exit
    for n in 1 2 3 4 5 6 7 8 9; do rm -rf "$directory" && exit; sleep 0.2; done"#;

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
    fn name(self) -> &'static str {
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

    /// Installs the server's program if it is missing.
    ///
    /// # Errors
    ///
    /// Returns an error if the program can't be installed. The text says what to do.
    pub fn install(self) -> Result<(), String> {
        self.find_or_install().map(drop)
    }

    /// Returns the path of the server's program, which is installed if it is missing.
    fn find_or_install(self) -> Result<PathBuf, String> {
        let (package, find): (_, fn() -> Option<PathBuf>) = match self {
            Self::Postgres => ("postgresql", sql::newest_postgres),
            Self::MariaDb => ("mariadb-server", || find_program(&["mariadbd"])),
            Self::MySql => return mysql::find_or_download(),
            Self::PgBouncer => ("pgbouncer", || find_program(&["pgbouncer"])),
            Self::Redis | Self::RedisSentinel | Self::RedisCluster => {
                ("redis-server", || find_program(&["redis-server", "valkey-server"]))
            }
            Self::Datastore | Self::Firestore => return datastore::find_or_install(self),
            Self::Nginx => ("nginx", || find_program(&["nginx"])),
        };
        if let Some(program) = find() {
            return Ok(program);
        }
        let name = self.name();
        let instead = match self {
            Self::Nginx => "put it into a directory of PATH".to_owned(),
            _ => format!("set {} to the URL of a server of yours", self.variable()),
        };
        install(&[package])
            .map_err(|error| format!("no server for {name}: {error}\nor {instead}"))?;
        find().ok_or_else(|| {
            format!("{package} is installed but contains no server program: {instead}")
        })
    }
}

/// A server. Dropping this ends its processes and removes its directory.
#[derive(Debug)]
pub struct Server {
    kind: Kind,
    directory: PathBuf,
    port: u16,
    /// The processes, while the server runs.
    processes: Option<Processes>,
    program: PathBuf,
    /// The additional arguments of its command line.
    arguments: Vec<String>,
    /// The other servers of this server's group, such as its replica. They end with this server.
    members: Vec<Server>,
}

#[derive(Debug)]
struct Processes {
    /// The shell that runs [`GUARDIAN`].
    guardian: Child,
    /// The id of the server's own process.
    server: u32,
}

impl Server {
    /// Starts an empty server.
    ///
    /// # Errors
    ///
    /// Returns an error if the server can't be installed, set up or started. The text says what
    /// to do.
    pub fn start(kind: Kind) -> Result<Self, String> {
        let mut server = Self::prepare(kind)?;
        match kind {
            Kind::Postgres => sql::set_up_postgres(&server)?,
            Kind::MariaDb => sql::set_up_mariadb(&server)?,
            Kind::MySql => mysql::set_up(&server)?,
            Kind::PgBouncer | Kind::Nginx => {
                return Err(
                    "a proxy needs a server behind it: call `start_pgbouncer` or `start_nginx`"
                        .to_owned(),
                );
            }
            Kind::Redis | Kind::Datastore | Kind::Firestore => {}
            Kind::RedisSentinel => return redis::start_sentinels(),
            Kind::RedisCluster => return redis::start_cluster(),
        }
        server.start_and_wait()?;
        Ok(server)
    }

    /// Starts a Redis server with additional settings.
    ///
    /// # Errors
    ///
    /// Returns an error in the same cases as [`start`](Self::start).
    pub fn start_redis(arguments: &[&str]) -> Result<Self, String> {
        let mut server = Self::prepare(Kind::Redis)?;
        server.arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        server.start_and_wait()?;
        Ok(server)
    }

    /// Makes sentinels and the nodes of a cluster wait longer before they consider a silent server
    /// dead, for tests that kill no server. Does nothing for servers of other kinds.
    ///
    /// # Errors
    ///
    /// Returns an error if a server does not reply, or rejects the setting.
    pub fn raise_failover_timeouts(&self) -> Result<(), String> {
        redis::raise_failover_timeouts(self)
    }

    /// Returns the other servers of this server's group. For sentinels, these are the master, its
    /// replica and the other sentinels, in this order. For a cluster, these are the other nodes,
    /// and the first two of them are masters.
    pub fn members(&mut self) -> &mut [Self] {
        &mut self.members
    }

    /// Returns the directory that the server may write to. Dropping the server removes it.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the port where the server listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Starts PgBouncer in transaction mode in front of this PostgreSQL server.
    ///
    /// # Errors
    ///
    /// Returns an error in the same cases as [`start`](Self::start).
    pub fn start_pgbouncer(postgres: &Self) -> Result<Self, String> {
        sql::start_pgbouncer(postgres)
    }

    /// Starts nginx in front of a site. It caches every response that a shared cache may store.
    ///
    /// # Errors
    ///
    /// Returns an error in the same cases as [`start`](Self::start).
    pub fn start_nginx(site: SocketAddr) -> Result<Self, String> {
        nginx::start_in_front_of(site)
    }

    /// Returns the server's kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the server's URL, with the name and the password of a user who has all rights.
    #[must_use]
    pub fn url(&self) -> String {
        match self.kind {
            Kind::Postgres | Kind::MariaDb | Kind::MySql | Kind::PgBouncer => sql::url(self),
            Kind::Redis | Kind::RedisSentinel | Kind::RedisCluster => redis::url(self),
            Kind::Datastore | Kind::Firestore | Kind::Nginx => {
                format!("http://127.0.0.1:{}", self.port)
            }
        }
    }

    /// Kills the server as a crash would: without a shutdown, and without flushing anything.
    pub fn kill(&mut self) {
        if let Some(Processes { mut guardian, server }) = self.processes.take() {
            let children = children(server);
            if let Some(mut pipe) = guardian.stdin.take() {
                let _ = pipe.write_all(b"kill\n");
            }
            let _ = guardian.wait();
            // The server's child processes would respond for a while longer before they notice that
            // the server has ended.
            send_signal("-KILL", &children);
            let begun = Instant::now();
            while children.iter().any(|child| is_alive(*child)) && begun.elapsed() < TIMEOUT {
                sleep(POLL_INTERVAL);
            }
        }
    }

    /// Shuts the server down, so that it first writes all its data to disk. The Firestore emulator
    /// loses its data.
    pub fn stop(&mut self) {
        if let Some(Processes { server, .. }) = &self.processes {
            let signal = match self.kind {
                Kind::Datastore | Kind::Firestore => datastore::stop_signal(&self.program),
                _ => "-TERM",
            };
            send_signal(signal, &[*server]);
        }
        let begun = Instant::now();
        while self.is_running() && begun.elapsed() < TIMEOUT {
            sleep(POLL_INTERVAL);
        }
        self.kill();
    }

    /// Suspends the server's processes, so that they don't respond.
    pub fn suspend(&self) {
        let pids = self.pids();
        send_signal("-STOP", &pids);
        // On a busy machine, a thread may run and respond for a while after the signal.
        let begun = Instant::now();
        let is_running = |pid: &u32| is_alive(*pid) && !is_stopped(*pid);
        while pids.iter().any(is_running) && begun.elapsed() < TIMEOUT {
            sleep(POLL_INTERVAL);
        }
    }

    /// Resumes the server's processes.
    pub fn resume(&self) {
        send_signal("-CONT", &self.pids());
    }

    /// Returns the ids of the server's process and of its child processes.
    fn pids(&self) -> Vec<u32> {
        let Some(Processes { server, .. }) = &self.processes else { return Vec::new() };
        let mut pids = children(*server);
        pids.push(*server);
        pids
    }

    /// Starts the server and waits until it responds. The server has the data that its previous run
    /// wrote to disk, if there was one.
    ///
    /// # Errors
    ///
    /// Returns an error if the server does not respond.
    pub fn start_and_wait(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        // Right after a crash the server may fail to start, for example because the port or a file
        // is still in use. So this tries again.
        while begun.elapsed() < TIMEOUT {
            self.spawn()?;
            while self.is_running() {
                if self.is_ready() {
                    return Ok(());
                }
                sleep(POLL_INTERVAL);
                if begun.elapsed() > TIMEOUT {
                    break;
                }
            }
            self.kill();
            sleep(POLL_INTERVAL);
        }
        let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        Err(format!("{} does not respond:\n{log}", self.program.display()))
    }

    /// Adds arguments to the command line, from the next start on.
    pub fn add_arguments(&mut self, arguments: &[&str]) {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    }

    /// Installs the program and creates the directory, but does not start the server.
    fn prepare(kind: Kind) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let program = kind.find_or_install()?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tower-keep-{}-{}-{number}", kind.name(), std::process::id());
        let directory = std::env::temp_dir().join(name);
        let port = free_port(kind)?;
        fs::create_dir(&directory).map_err(|error| error.to_string())?;
        let (arguments, members) = (Vec::new(), Vec::new());
        let server = Self { kind, directory, port, processes: None, program, arguments, members };
        if is_root() {
            let owner = server.directory.display().to_string();
            run_quietly(Command::new("chown").args(["nobody", &owner]))?;
        }
        Ok(server)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), String> {
        let path = self.directory.join(name);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Lets the server write to a file.
    fn make_writable(&self, name: &str) -> Result<(), String> {
        let path = self.directory.join(name).display().to_string();
        if is_root() { run_quietly(Command::new("chown").args(["nobody", &path])) } else { Ok(()) }
    }

    /// Returns the command that runs [`GUARDIAN`], which starts the server.
    fn command(&self) -> Result<Command, String> {
        let mut command = match self.kind {
            // The program may be in a directory that an unprivileged user can't read.
            Kind::Datastore | Kind::Firestore | Kind::MySql => Command::new("/bin/sh"),
            _ => unprivileged_command(Path::new("/bin/sh"))?,
        };
        command.args(["-c", GUARDIAN, "guardian"]).arg(&self.directory);
        let arguments = match self.kind {
            Kind::Postgres | Kind::MariaDb | Kind::PgBouncer => sql::arguments(self),
            Kind::MySql => {
                command.args(mysql::command_prefix(&self.program));
                mysql::arguments(self)
            }
            Kind::Redis | Kind::RedisSentinel | Kind::RedisCluster => redis::arguments(self),
            Kind::Datastore | Kind::Firestore => {
                command.args(datastore::command_prefix(&self.program));
                datastore::arguments(self)
            }
            Kind::Nginx => nginx::arguments(self),
        };
        command.arg(&self.program).args(arguments).args(&self.arguments);
        Ok(command)
    }

    /// Starts the server, and does not wait until it responds.
    ///
    /// # Errors
    ///
    /// Returns an error if the server can't be started.
    pub fn spawn(&mut self) -> Result<(), String> {
        let log =
            fs::File::create(self.directory.join("log")).map_err(|error| error.to_string())?;
        let mut command = self.command()?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        // Ctrl-C must reach only the tests, not the server. The server ends with the tests.
        command.process_group(0).current_dir(&self.directory);
        let mut guardian = command.spawn().map_err(|error| error.to_string())?;
        let mut pid = String::new();
        if let Some(stdout) = guardian.stdout.take() {
            let _ = BufReader::new(stdout).read_line(&mut pid);
        }
        let server = pid.trim().parse().map_err(|_| "the server did not start".to_owned())?;
        self.processes = Some(Processes { guardian, server });
        Ok(())
    }

    fn is_running(&self) -> bool {
        self.processes.as_ref().is_some_and(|processes| is_alive(processes.server))
    }

    /// Checks whether the server responds to requests. A server may accept connections for a while
    /// before it responds.
    fn is_ready(&self) -> bool {
        match self.kind {
            Kind::Postgres | Kind::MariaDb | Kind::PgBouncer => sql::is_ready(self),
            Kind::MySql => mysql::is_ready(self.port),
            Kind::Redis | Kind::RedisSentinel | Kind::RedisCluster => {
                redis::call(self.port, "PING").is_ok_and(|reply| reply.contains("PONG"))
            }
            Kind::Datastore | Kind::Firestore => datastore::is_ready(self.port),
            Kind::Nginx => nginx::is_ready(self.port),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A suspended process can't notice that its parent has ended.
        self.resume();
        if let Some(Processes { mut guardian, .. }) = self.processes.take() {
            drop(guardian.stdin.take());
            let _ = guardian.wait();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Returns a free port. For a node of a Redis Cluster, the port 10,000 above it is free as well,
/// because the node listens on both.
fn free_port(kind: Kind) -> Result<u16, String> {
    for _ in 0..1_000 {
        let socket = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        let port = socket.local_addr().map_err(|error| error.to_string())?.port();
        let bus_port = port.checked_add(10_000);
        if kind != Kind::RedisCluster
            || bus_port.is_some_and(|port| TcpListener::bind(("127.0.0.1", port)).is_ok())
        {
            return Ok(port);
        }
    }
    Err("found no free port in 1,000 attempts".to_owned())
}
