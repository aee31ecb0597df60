//! `cargo xtask test` provisions what the tests need, and runs them. `cargo xtask instructions`
//! notices when a request takes more instructions than before.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use xtask::servers::{Kind, Server};
use xtask::{instructions, provision, run};

const USAGE: &str = "\
cargo xtask test            installs and starts what the tests need, and runs all of them
cargo xtask test NAME…      only these packages, with only what they need
cargo xtask servers         starts the databases, prints their URLs, and runs until its input ends
cargo xtask instructions    counts the instructions of a request, and compares them with the committed
                            figures; with --accept, writes them to that file
cargo xtask names           the packages' names";

/// A package of the workspace that has tests, under its short name.
struct Package {
    name: &'static str,
    package: &'static str,
    needs: &'static [Need],
}

/// What a package's tests need apart from cargo.
#[derive(Clone, Copy, PartialEq)]
enum Need {
    /// Python with Flask-Login.
    Python,
    /// A server.
    Server(Kind),
    /// The program of a server that the tests start themselves.
    Program(Kind),
}

const POSTGRES: Need = Need::Server(Kind::Postgres);
const MARIADB: Need = Need::Server(Kind::MariaDb);
const MYSQL: Need = Need::Server(Kind::MySql);
const PGBOUNCER: Need = Need::Server(Kind::PgBouncer);
const REDIS: Need = Need::Server(Kind::Redis);
const SENTINEL: Need = Need::Server(Kind::RedisSentinel);
const CLUSTER: Need = Need::Server(Kind::RedisCluster);
const DATASTORE: Need = Need::Server(Kind::Datastore);
const FIRESTORE: Need = Need::Server(Kind::Firestore);
const NGINX: Need = Need::Program(Kind::Nginx);

const PACKAGES: &[Package] = &[
    Package { name: "core", package: "tower-keep-core", needs: &[] },
    Package { name: "keep", package: "tower-keep", needs: &[] },
    Package { name: "testkit", package: "tower-keep-testkit", needs: &[] },
    Package { name: "memory", package: "tower-keep-memory", needs: &[] },
    Package { name: "sql", package: "tower-keep-sql", needs: &[] },
    Package { name: "sqlite", package: "tower-keep-sqlite", needs: &[] },
    Package { name: "postgres", package: "tower-keep-postgres", needs: &[POSTGRES, PGBOUNCER] },
    Package { name: "mysql", package: "tower-keep-mysql", needs: &[MARIADB, MYSQL] },
    Package { name: "redis", package: "tower-keep-redis", needs: &[REDIS, SENTINEL, CLUSTER] },
    Package { name: "datastore", package: "tower-keep-datastore", needs: &[DATASTORE, FIRESTORE] },
    Package {
        name: "tests",
        package: "tower-keep-tests",
        needs: &[
            Need::Python,
            NGINX,
            POSTGRES,
            MARIADB,
            MYSQL,
            REDIS,
            SENTINEL,
            CLUSTER,
            DATASTORE,
            FIRESTORE,
        ],
    },
    Package {
        name: "quickstart",
        package: "quickstart",
        needs: &[POSTGRES, MARIADB, MYSQL, REDIS, SENTINEL, CLUSTER, DATASTORE],
    },
    Package { name: "hyper", package: "hyper-example", needs: &[] },
    Package { name: "benches", package: "tower-keep-benches", needs: &[] },
];

/// The tests over HTTP that hold for both kinds of login: with cookies alone and with server-side
/// sessions. The other tests start sites of both kinds, or don't depend on the kind.
const OF_EITHER_KIND: &[&str] = &[
    "cookies_and_headers",
    "flask_login",
    "guards",
    "hostile",
    "lifecycle",
    "redirects",
    "settings",
];

/// The tests over HTTP that are about server-side sessions.
const OF_SERVER_SESSIONS: &[&str] = &["faults", "sessions"];

/// The stores, other than memory, that the tests over HTTP run on.
const STORES: &[&str] = &[
    "sqlite",
    "postgres",
    "mariadb",
    "mysql",
    "redis",
    "redis-sentinel",
    "redis-cluster",
    "datastore",
    "firestore",
];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["test", names @ ..] => test(names),
        ["servers"] => serve(),
        ["instructions"] => instructions::check(&root()),
        ["instructions", "--accept"] => instructions::accept(&root()),
        ["names"] => {
            PACKAGES.iter().for_each(|package| println!("{}", package.name));
            Ok(())
        }
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn test(names: &[&str]) -> Result<(), String> {
    let packages = chosen(names)?;
    let needs: Vec<Need> = packages.iter().flat_map(|package| package.needs).copied().collect();
    for need in &needs {
        if let Need::Program(kind) = need {
            kind.provide()?;
        }
    }
    let servers = Servers::start(&needs)?;
    let mut variables = servers.variables();
    if needs.contains(&Need::Python) {
        let python = provision::python(&root())?;
        variables.push(("KEEP_PYTHON", python.display().to_string()));
    }
    // Every call names the same packages, so that nothing is built again. If the whole workspace is
    // built, all packages share their features. If one package is built, this also shows that it
    // builds on its own.
    let cargo_test = || {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(root()).args(["test", "--all-features"]);
        cargo.envs(variables.iter().map(|(name, value)| (name, value)));
        match names {
            [] => cargo.arg("--workspace"),
            _ => cargo.args(packages.iter().flat_map(|package| ["--package", package.package])),
        };
        cargo
    };
    run(&mut cargo_test())?;
    if packages.iter().any(|package| package.name == "tests") {
        let again = |targets: &[&'static str]| {
            let mut cargo = cargo_test();
            cargo
                .args(targets.iter().flat_map(|name| ["--test", name]))
                .env("KEEP_SERVER_SESSIONS", "1");
            cargo
        };
        println!("again, with server-side sessions");
        run(&mut again(OF_EITHER_KIND))?;
        let mariadb = variables.iter().find(|(name, _)| *name == Kind::MariaDb.variable());
        if let Some((_, url)) = mariadb {
            println!("the tests of MySQL again, on MariaDB");
            let mut cargo = cargo_test();
            cargo.args(["--test", "sql", "mysql"]).env(Kind::MySql.variable(), url);
            run(&mut cargo)?;
        }
        for store in STORES {
            println!("again, on {store}");
            run(again(&[OF_EITHER_KIND, OF_SERVER_SESSIONS].concat()).env("KEEP_STORE", store))?;
        }
    }
    Ok(())
}

/// Starts servers for tests that are run one by one.
fn serve() -> Result<(), String> {
    let needs: Vec<Need> = PACKAGES.iter().flat_map(|package| package.needs).copied().collect();
    let servers = Servers::start(&needs)?;
    for (name, value) in servers.variables() {
        println!("export {name}={value}");
    }
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    Ok(())
}

/// The servers that were started. They end when this is dropped.
struct Servers(Vec<Server>);

impl Servers {
    /// Starts the servers that are needed, except for those that the environment names.
    fn start(needs: &[Need]) -> Result<Self, String> {
        let mut servers: Vec<Server> = Vec::new();
        for kind in Kind::ALL {
            if !needs.contains(&Need::Server(kind)) || env::var_os(kind.variable()).is_some() {
                continue;
            }
            let server = match kind {
                Kind::PgBouncer => {
                    // A PostgreSQL server that the environment names can't be configured to trust a
                    // proxy.
                    if !servers.iter().any(|server| server.kind() == Kind::Postgres) {
                        servers.push(Server::start(Kind::Postgres)?);
                    }
                    let postgres = servers.iter().find(|server| server.kind() == Kind::Postgres);
                    Server::start_proxy(postgres.ok_or("there is no PostgreSQL")?)?
                }
                kind => Server::start(kind)?,
            };
            server.be_patient()?;
            servers.push(server);
        }
        Ok(Self(servers))
    }

    /// Returns the environment variables that name these servers, each with a URL.
    fn variables(&self) -> Vec<(&'static str, String)> {
        let place = |server: &Server| (server.kind().variable(), server.url());
        let is_ours = |server: &&Server| env::var_os(server.kind().variable()).is_none();
        self.0.iter().filter(is_ours).map(place).collect()
    }
}

fn chosen(names: &[&str]) -> Result<Vec<&'static Package>, String> {
    let known = || PACKAGES.iter().map(|package| package.name).collect::<Vec<_>>().join(", ");
    let find = |name: &&str| {
        let found = PACKAGES.iter().find(|package| package.name == *name);
        found.ok_or_else(|| format!("there is no package `{name}`; there are {}", known()))
    };
    if names.is_empty() { Ok(PACKAGES.iter().collect()) } else { names.iter().map(find).collect() }
}

/// Returns the workspace's root. It does not depend on the current directory.
fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).unwrap_or(own).to_owned()
}
