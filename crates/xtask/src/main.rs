//! `cargo xtask test` installs and starts what the tests need, and runs the tests. `cargo xtask
//! instructions` fails if a request takes more CPU instructions than before.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use xtask::servers::{Kind, Server};
use xtask::{guide, imports, instructions, packages, provision, run};

const USAGE: &str = "\
cargo xtask test            installs and starts what the tests need, and runs all tests but those of
                            the three large examples
cargo xtask test NAME…      does the same for these packages only
cargo xtask servers         starts the databases, prints their URLs, and runs until its standard
                            input ends
cargo xtask imports         checks that no files of crates/ and adapters/ import each other in a
                            circle, and that nothing imports what ARCHITECTURE.md forbids
cargo xtask instructions    counts the CPU instructions of a request in each case, and compares them
                            with the committed figures in benches/cases/instructions.txt;
                            with --accept, writes the new figures to this file
cargo xtask packages        packs what is published, and builds each package and its tests from the
                            packed files
cargo xtask guide           builds the guide
cargo xtask examples        runs the tests of all examples, also of those that `cargo xtask test` leaves
                            out: their frameworks take minutes to build
cargo xtask names           prints the packages' names";

/// A package of the workspace that has tests.
struct Package {
    /// The name in `cargo xtask test NAME`.
    name: &'static str,
    cargo_name: &'static str,
    needs: &'static [Need],
}

/// What a package's tests need apart from cargo.
#[derive(Clone, Copy, PartialEq)]
enum Need {
    /// A Python that has Flask-Login.
    Python,
    /// Chromium, and the packages with which the tests drive it.
    Browser,
    /// A running server, whose URL is in an environment variable.
    Server(Kind),
    /// An installed server, which the tests start themselves.
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
    Package { name: "core", cargo_name: "tower-keep-core", needs: &[] },
    Package { name: "keep", cargo_name: "tower-keep", needs: &[] },
    Package { name: "testkit", cargo_name: "tower-keep-testkit", needs: &[] },
    Package { name: "memory", cargo_name: "tower-keep-memory", needs: &[] },
    Package { name: "sql", cargo_name: "tower-keep-sql", needs: &[] },
    Package { name: "sqlite", cargo_name: "tower-keep-sqlite", needs: &[] },
    Package { name: "postgres", cargo_name: "tower-keep-postgres", needs: &[POSTGRES, PGBOUNCER] },
    Package { name: "mysql", cargo_name: "tower-keep-mysql", needs: &[MARIADB, MYSQL] },
    Package { name: "redis", cargo_name: "tower-keep-redis", needs: &[REDIS, SENTINEL, CLUSTER] },
    Package {
        name: "datastore",
        cargo_name: "tower-keep-datastore",
        needs: &[DATASTORE, FIRESTORE],
    },
    Package {
        name: "sql-server-tests",
        cargo_name: "tower-keep-sql-server-tests",
        needs: &[POSTGRES, MARIADB, MYSQL],
    },
    Package {
        name: "redis-server-tests",
        cargo_name: "tower-keep-redis-server-tests",
        needs: &[REDIS, SENTINEL, CLUSTER],
    },
    Package {
        name: "datastore-server-tests",
        cargo_name: "tower-keep-datastore-server-tests",
        needs: &[Need::Python, DATASTORE, FIRESTORE],
    },
    Package {
        name: "tests",
        cargo_name: "tower-keep-tests",
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
    Package { name: "clients", cargo_name: "tower-keep-client-tests", needs: &[Need::Browser] },
    Package {
        name: "quickstart",
        cargo_name: "quickstart",
        needs: &[POSTGRES, MARIADB, MYSQL, REDIS, SENTINEL, CLUSTER, DATASTORE, Need::Browser],
    },
    Package { name: "first-login", cargo_name: "first-login-example", needs: &[POSTGRES] },
    Package { name: "own-users", cargo_name: "own-users-example", needs: &[MARIADB, MYSQL] },
    Package { name: "guide", cargo_name: "tower-keep-guide", needs: &[] },
    Package { name: "hyper", cargo_name: "hyper-example", needs: &[] },
    Package { name: "tonic", cargo_name: "tonic-example", needs: &[] },
    Package { name: "websocket", cargo_name: "websocket-example", needs: &[] },
    Package { name: "warp", cargo_name: "warp-example", needs: &[] },
    Package { name: "lambda", cargo_name: "lambda-example", needs: &[] },
    Package { name: "spa", cargo_name: "spa-example", needs: &[Need::Browser] },
    Package { name: "htmx", cargo_name: "htmx-example", needs: &[Need::Browser] },
    Package { name: "adapter", cargo_name: "adapter-example", needs: &[] },
    Package { name: "areas", cargo_name: "areas-example", needs: &[] },
    Package { name: "unix-socket", cargo_name: "unix-socket-example", needs: &[] },
    Package { name: "benches", cargo_name: "tower-keep-benches", needs: &[] },
];

/// The examples that are workspaces of their own, because their frameworks take minutes to build.
const OWN_WORKSPACES: &[&str] = &["leptos", "loco", "salvo"];

/// The test targets over HTTP that run twice: once with sites that have no server-side sessions,
/// and once with sites that have them. A target that is neither in this list nor in
/// [`TARGETS_FOR_SERVER_SESSIONS`] starts sites of both kinds, or does not depend on the kind.
const TARGETS_FOR_BOTH_KINDS: &[&str] = &[
    "cookies_and_headers",
    "flask_login",
    "guards",
    "hostile",
    "lifecycle",
    "redirects",
    "settings",
];

/// The test targets over HTTP that are about server-side sessions.
const TARGETS_FOR_SERVER_SESSIONS: &[&str] =
    &["bearer", "faults", "guessing", "nodes", "sessions", "sign_in"];

/// The stores on which the targets of both lists run, apart from the store in memory.
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
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        ["test", names @ ..] => test(names),
        ["servers"] => run_servers(),
        ["imports"] => imports::check(&root()),
        ["instructions"] => instructions::check(&root()),
        ["instructions", "--accept"] => instructions::accept(&root()),
        ["guide"] => guide::build(&root()),
        ["examples"] => test_examples(),
        ["packages"] => packages::check(&root()),
        ["names"] => {
            PACKAGES.iter().for_each(|package| println!("{}", package.name));
            Ok(())
        }
        _ => Err(USAGE.to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn test(names: &[&str]) -> Result<(), String> {
    let packages = packages_named(names)?;
    let needs: Vec<Need> = packages.iter().flat_map(|package| package.needs).copied().collect();
    for need in &needs {
        if let Need::Program(kind) = need {
            kind.install()?;
        }
    }
    let servers = Servers::start(&needs)?;
    let mut variables = servers.variables();
    if needs.contains(&Need::Python) {
        let python = provision::set_up_python(&root())?;
        variables.push(("KEEP_PYTHON", python.display().to_string()));
    }
    if needs.contains(&Need::Browser) {
        let browser = provision::set_up_browser(&root())?;
        variables.push(("KEEP_BROWSER", browser.packages.display().to_string()));
        variables.push(("KEEP_CHROMIUM", browser.chromium.display().to_string()));
    }
    // Every call of cargo names the same packages. So cargo builds them with the same features, and
    // only once. If `names` has one package, the call also shows that this package builds without
    // the features that other packages enable in common dependencies.
    let cargo_test = || {
        let mut cargo = Command::new(xtask::cargo());
        cargo.current_dir(root()).args(["test", "--all-features"]);
        cargo.envs(variables.iter().map(|(name, value)| (name, value)));
        match names {
            [] => cargo.arg("--workspace"),
            _ => cargo.args(packages.iter().flat_map(|package| ["--package", package.cargo_name])),
        };
        cargo
    };
    run(&mut cargo_test())?;
    let has_package = |name| packages.iter().any(|package| package.name == name);
    if has_package("sql-server-tests") {
        let mariadb = variables.iter().find(|(name, _)| *name == Kind::MariaDb.variable());
        if let Some((_, url)) = mariadb {
            println!("the tests of MySQL again, on MariaDB");
            let mut cargo = cargo_test();
            cargo.args(["--test", "sql", "mysql"]).env(Kind::MySql.variable(), url);
            run(&mut cargo)?;
        }
    }
    if has_package("tests") {
        let with_server_sessions = |targets: &[&'static str]| {
            let mut cargo = cargo_test();
            cargo
                .args(targets.iter().flat_map(|name| ["--test", name]))
                .env("KEEP_SERVER_SESSIONS", "1");
            cargo
        };
        println!("again, with server-side sessions");
        run(&mut with_server_sessions(TARGETS_FOR_BOTH_KINDS))?;
        for store in STORES {
            println!("again, on {store}");
            let targets = [TARGETS_FOR_BOTH_KINDS, TARGETS_FOR_SERVER_SESSIONS].concat();
            run(with_server_sessions(&targets).env("KEEP_STORE", store))?;
        }
    }
    Ok(())
}

/// Runs the tests of all examples. Those of [`OWN_WORKSPACES`] share the directory of built files.
fn test_examples() -> Result<(), String> {
    let is_example = |package: &&Package| {
        package.cargo_name.ends_with("-example") || package.cargo_name == "quickstart"
    };
    let examples: Vec<&str> =
        PACKAGES.iter().filter(is_example).map(|package| package.name).collect();
    test(&examples)?;
    for name in OWN_WORKSPACES {
        let mut cargo = Command::new(xtask::cargo());
        cargo.current_dir(root().join("examples").join(name));
        run(cargo.args(["test", "--locked", "--target-dir"]).arg(root().join("target")))?;
    }
    Ok(())
}

/// Starts all servers, prints their environment variables, and runs until standard input ends.
/// With these variables, `cargo test` can run single tests on these servers.
fn run_servers() -> Result<(), String> {
    let needs: Vec<Need> = PACKAGES.iter().flat_map(|package| package.needs).copied().collect();
    let servers = Servers::start(&needs)?;
    for (name, value) in servers.variables() {
        println!("export {name}={value}");
    }
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    Ok(())
}

/// The servers that this process started. Dropping this ends them.
struct Servers(Vec<Server>);

impl Servers {
    /// Starts a server of each kind that is needed, unless the environment variable of this kind
    /// already holds the URL of a server.
    fn start(needs: &[Need]) -> Result<Self, String> {
        let mut servers: Vec<Server> = Vec::new();
        for kind in Kind::ALL {
            if !needs.contains(&Need::Server(kind)) || env::var_os(kind.variable()).is_some() {
                continue;
            }
            let server = match kind {
                Kind::PgBouncer => {
                    // PgBouncer needs a PostgreSQL server that was started here. If the environment
                    // names another one, that server can't be configured to trust PgBouncer.
                    if !servers.iter().any(|server| server.kind() == Kind::Postgres) {
                        servers.push(Server::start(Kind::Postgres)?);
                    }
                    let postgres = servers.iter().find(|server| server.kind() == Kind::Postgres);
                    Server::start_pgbouncer(postgres.ok_or("there is no PostgreSQL server")?)?
                }
                kind => Server::start(kind)?,
            };
            server.raise_failover_timeouts()?;
            servers.push(server);
        }
        Ok(Self(servers))
    }

    /// Returns the environment variable and the URL of each server. A variable that is set already
    /// is left out.
    fn variables(&self) -> Vec<(&'static str, String)> {
        let is_unset = |server: &&Server| env::var_os(server.kind().variable()).is_none();
        let variable = |server: &Server| (server.kind().variable(), server.url());
        self.0.iter().filter(is_unset).map(variable).collect()
    }
}

/// Returns the packages with these names, or all packages if there are no names.
fn packages_named(names: &[&str]) -> Result<Vec<&'static Package>, String> {
    let known = || PACKAGES.iter().map(|package| package.name).collect::<Vec<_>>().join(", ");
    let find = |name: &&str| {
        let found = PACKAGES.iter().find(|package| package.name == *name);
        found.ok_or_else(|| format!("there is no package `{name}`; the packages are {}", known()))
    };
    if names.is_empty() { Ok(PACKAGES.iter().collect()) } else { names.iter().map(find).collect() }
}

/// Returns the workspace's root. It does not depend on the current directory.
fn root() -> PathBuf {
    let this_crate = Path::new(env!("CARGO_MANIFEST_DIR"));
    this_crate.ancestors().nth(2).unwrap_or(this_crate).to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;

    #[test]
    fn every_workspace_among_the_examples_is_tested_formatted_and_excluded() {
        let read = |path: PathBuf| fs::read_to_string(path).expect("a file");
        let entries = fs::read_dir(root().join("examples")).expect("the examples");
        let names = entries.map(|entry| entry.expect("an entry").file_name().into_string());
        let is_workspace = |name: &String| {
            read(root().join("examples").join(name).join("Cargo.toml")).contains("[workspace]")
        };
        let found: BTreeSet<String> =
            names.map(|name| name.expect("UTF-8")).filter(is_workspace).collect();
        assert_eq!(found, OWN_WORKSPACES.iter().map(|name| name.to_string()).collect());
        let (manifest, ci) = (read(root().join("Cargo.toml")), read(root().join(".ci/run")));
        for name in &found {
            assert!(manifest.contains(&format!("\"examples/{name}\"")), "{name}: exclude it");
        }
        let list: Vec<&str> = found.iter().map(String::as_str).collect();
        assert!(ci.contains(&format!("examples/{{{}}}", list.join(","))), "{list:?}: format them");
    }
}
