//! Private database servers on free loopback ports. They end with the test.

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

use self::process::{call, children, is_alive, is_stopped, signal, unprivileged};
use crate::provision::{in_path, install, is_root};
pub use redis::call as call_redis;

/// How long a server may take until it responds.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);

/// Kills the server when it reads a line. It also does so when the test ends, for whatever reason,
/// because the pipe is closed then; in that case it removes the server's directory as well.
const GUARDIAN: &str = r#"exec 3<&0; directory=$1; shift; "$@" </dev/null >&2 & echo $!
    read _ <&3; told=$?; kill -KILL $!; wait; test $told = 0 && exit
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
    /// Google's Datastore emulator. Its transactions find out at the commit that another was
    /// faster.
    Datastore,
    /// Google's Firestore emulator in Datastore mode. Its transactions wait for each other.
    Firestore,
    /// nginx, in front of a site.
    Nginx,
}

impl Kind {
    /// All databases, each after the database that it needs.
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

    /// Returns the name of its adapter's tests.
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

    /// Returns the name of the environment variable with the URL of a server to use instead. No
    /// test uses another nginx.
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
    /// Returns an error if the program can't be installed. The text says what helps.
    pub fn provide(self) -> Result<(), String> {
        self.program().map(drop)
    }

    /// Returns the server's program, and installs it if it is missing.
    fn program(self) -> Result<PathBuf, String> {
        let (package, find): (_, fn() -> Option<PathBuf>) = match self {
            Self::Postgres => ("postgresql", sql::newest_postgres),
            Self::MariaDb => ("mariadb-server", || in_path(&["mariadbd"])),
            Self::MySql => return mysql::program(),
            Self::PgBouncer => ("pgbouncer", || in_path(&["pgbouncer"])),
            Self::Redis | Self::RedisSentinel | Self::RedisCluster => {
                ("redis-server", || in_path(&["redis-server", "valkey-server"]))
            }
            Self::Datastore | Self::Firestore => return datastore::program(self),
            Self::Nginx => ("nginx", || in_path(&["nginx"])),
        };
        if let Some(program) = find() {
            return Ok(program);
        }
        let name = self.name();
        let instead = match self {
            Self::Nginx => "or have it in the path".to_owned(),
            _ => format!("or set {} to a server of yours", self.variable()),
        };
        install(&[package]).map_err(|error| format!("no server for {name}: {error}\n{instead}"))?;
        find().ok_or_else(|| {
            format!("{package} is installed but contains no server program; {instead}")
        })
    }
}

/// A running server. Its directory is removed and its processes end when this is dropped.
#[derive(Debug)]
pub struct Server {
    kind: Kind,
    directory: PathBuf,
    port: u16,
    guardian: Option<(Child, u32)>,
    program: PathBuf,
    /// Additional arguments of its command line.
    arguments: Vec<String>,
    /// The servers that belong to it, and end with it.
    members: Vec<Server>,
}

impl Server {
    /// Starts an empty server.
    ///
    /// # Errors
    ///
    /// Returns an error if the server can't be installed, set up or started. The text says what
    /// helps.
    pub fn start(kind: Kind) -> Result<Self, String> {
        let mut server = Self::prepared(kind)?;
        match kind {
            Kind::Postgres => sql::set_up_postgres(&server)?,
            Kind::MariaDb => sql::set_up_mariadb(&server)?,
            Kind::MySql => mysql::set_up(&server)?,
            Kind::PgBouncer | Kind::Nginx => {
                return Err("a proxy needs a server behind it".to_owned());
            }
            Kind::Redis | Kind::Datastore | Kind::Firestore => {}
            Kind::RedisSentinel => return redis::sentinels(),
            Kind::RedisCluster => return redis::cluster(),
        }
        server.start_again()?;
        Ok(server)
    }

    /// Starts a Redis server with additional settings.
    ///
    /// # Errors
    ///
    /// Returns an error in the same cases as [`start`](Self::start).
    pub fn start_redis(arguments: &[&str]) -> Result<Self, String> {
        let mut server = Self::prepared(Kind::Redis)?;
        server.arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        server.start_again()?;
        Ok(server)
    }

    /// Makes servers that watch each other more patient, for tests that kill none of them.
    ///
    /// # Errors
    ///
    /// Returns an error if one of them does not reply, or rejects the setting.
    pub fn be_patient(&self) -> Result<(), String> {
        redis::be_patient(self)
    }

    /// Returns the servers that belong to it. Of sentinels, these are the master, its replica and
    /// the other sentinels. Of a cluster, these are the other nodes, beginning with two masters.
    pub fn members(&mut self) -> &mut [Self] {
        &mut self.members
    }

    /// Returns the directory that the server may write to. It is removed when this is dropped.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Starts PgBouncer in transaction mode in front of this PostgreSQL server.
    ///
    /// # Errors
    ///
    /// Returns an error in the same cases as [`start`](Self::start).
    pub fn start_proxy(server: &Self) -> Result<Self, String> {
        sql::proxy(server)
    }

    /// Starts nginx in front of a site. It caches every response that it may.
    ///
    /// # Errors
    ///
    /// Returns an error in the same cases as [`start`](Self::start).
    pub fn start_nginx(site: SocketAddr) -> Result<Self, String> {
        nginx::in_front_of(site)
    }

    /// Returns its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns its URL, with the name and the password of a user who has all rights.
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
        if let Some((mut guardian, process)) = self.guardian.take() {
            let children = children(process);
            if let Some(mut pipe) = guardian.stdin.take() {
                let _ = pipe.write_all(b"kill\n");
            }
            let _ = guardian.wait();
            // The child processes would notice only later, and respond until then.
            signal("-KILL", &children);
            let begun = Instant::now();
            while children.iter().any(|child| is_alive(*child)) && begun.elapsed() < PATIENCE {
                sleep(PAUSE);
            }
        }
    }

    /// Shuts the server down, so that it first writes all its data to disk.
    pub fn stop(&mut self) {
        if let Some((_, process)) = &self.guardian {
            let how = match self.kind {
                Kind::Datastore | Kind::Firestore => datastore::end(&self.program),
                _ => "-TERM",
            };
            signal(how, &[*process]);
        }
        let begun = Instant::now();
        while self.is_running() && begun.elapsed() < PATIENCE {
            sleep(PAUSE);
        }
        self.kill();
    }

    /// Suspends the server's processes, so that they don't respond.
    pub fn suspend(&self) {
        let processes = self.processes();
        signal("-STOP", &processes);
        // On a busy machine a running thread stops a little later, and responds until then.
        let begun = Instant::now();
        let is_running = |process: &u32| is_alive(*process) && !is_stopped(*process);
        while processes.iter().any(is_running) && begun.elapsed() < PATIENCE {
            sleep(PAUSE);
        }
    }

    /// Resumes the server's processes.
    pub fn resume(&self) {
        signal("-CONT", &self.processes());
    }

    fn processes(&self) -> Vec<u32> {
        let Some((_, process)) = &self.guardian else { return Vec::new() };
        let mut processes = children(*process);
        processes.push(*process);
        processes
    }

    /// Starts the server again with the data that it wrote, and waits until it responds.
    ///
    /// # Errors
    ///
    /// Returns an error if the server does not respond.
    pub fn start_again(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        // Right after a crash, the remains of the old processes can be in the way.
        while begun.elapsed() < PATIENCE {
            self.spawn()?;
            while self.is_running() {
                if self.is_ready() {
                    return Ok(());
                }
                sleep(PAUSE);
                if begun.elapsed() > PATIENCE {
                    break;
                }
            }
            self.kill();
            sleep(PAUSE);
        }
        let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        Err(format!("{} does not respond:\n{log}", self.program.display()))
    }

    /// Adds arguments, which apply from the next start on.
    pub fn add_arguments(&mut self, arguments: &[&str]) {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    }

    fn prepared(kind: Kind) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let program = kind.program()?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tower-keep-{}-{}-{number}", kind.name(), std::process::id());
        let directory = std::env::temp_dir().join(name);
        let port = free_port(kind)?;
        fs::create_dir(&directory).map_err(|error| error.to_string())?;
        let (arguments, members) = (Vec::new(), Vec::new());
        let server = Self { kind, directory, port, guardian: None, program, arguments, members };
        if is_root() {
            let owner = server.directory.display().to_string();
            call(Command::new("chown").args(["nobody", &owner]))?;
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
        if is_root() { call(Command::new("chown").args(["nobody", &path])) } else { Ok(()) }
    }

    /// Returns the command that starts the server. Data that was not flushed to disk is held by the
    /// operating system and not by the process, so a crash of the process loses nothing.
    fn command(&self) -> Result<Command, String> {
        let mut command = match self.kind {
            // The program may be in a directory that other users can't read.
            Kind::Datastore | Kind::Firestore | Kind::MySql => Command::new("/bin/sh"),
            _ => unprivileged(Path::new("/bin/sh"))?,
        };
        command.args(["-c", GUARDIAN, "guardian"]).arg(&self.directory);
        let own = match self.kind {
            Kind::Postgres | Kind::MariaDb | Kind::PgBouncer => sql::arguments(self),
            Kind::MySql => {
                command.args(mysql::before(&self.program));
                mysql::arguments(self)
            }
            Kind::Redis | Kind::RedisSentinel | Kind::RedisCluster => redis::arguments(self),
            Kind::Datastore | Kind::Firestore => {
                command.args(datastore::before(&self.program));
                datastore::arguments(self)
            }
            Kind::Nginx => nginx::arguments(self),
        };
        command.arg(&self.program).args(own).args(&self.arguments);
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
        // Ctrl-C must reach the tests only; the server ends with them.
        command.process_group(0).current_dir(&self.directory);
        let mut guardian = command.spawn().map_err(|error| error.to_string())?;
        let mut process = String::new();
        if let Some(stdout) = guardian.stdout.take() {
            let _ = BufReader::new(stdout).read_line(&mut process);
        }
        let process = process.trim().parse().map_err(|_| "the server did not start".to_owned())?;
        self.guardian = Some((guardian, process));
        Ok(())
    }

    fn is_running(&self) -> bool {
        self.guardian.as_ref().is_some_and(|(_, process)| is_alive(*process))
    }

    /// Checks whether the server responds to requests, which it does only some time after it starts
    /// to listen.
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
        if let Some((mut guardian, _)) = self.guardian.take() {
            drop(guardian.stdin.take());
            let _ = guardian.wait();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Returns a free port. A node of a cluster also needs the port 10,000 above it.
fn free_port(kind: Kind) -> Result<u16, String> {
    for _ in 0..1_000 {
        let socket = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        let port = socket.local_addr().map_err(|error| error.to_string())?.port();
        let other = port.checked_add(10_000);
        if kind != Kind::RedisCluster
            || other.is_some_and(|other| TcpListener::bind(("127.0.0.1", other)).is_ok())
        {
            return Ok(port);
        }
    }
    Err("no free port".to_owned())
}
