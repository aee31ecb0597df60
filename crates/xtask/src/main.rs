//! `cargo xtask test`: provisions what the tests need, and runs them.

mod provision;

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const USAGE: &str = "\
cargo xtask test            provisions what the tests need, and runs all of them
cargo xtask test NAME…      only these packages, with only what they need
cargo xtask names           the packages' names";

/// A package of the workspace that has tests, under its short name.
struct Package {
    name: &'static str,
    package: &'static str,
    needs_python: bool,
}

const PACKAGES: &[Package] = &[
    Package { name: "core", package: "tower-keep-core", needs_python: false },
    Package { name: "keep", package: "tower-keep", needs_python: false },
    Package { name: "testkit", package: "tower-keep-testkit", needs_python: false },
    Package { name: "memory", package: "tower-keep-memory", needs_python: false },
    Package { name: "sql", package: "tower-keep-sql", needs_python: false },
    Package { name: "sqlite", package: "tower-keep-sqlite", needs_python: false },
    Package { name: "tests", package: "tower-keep-tests", needs_python: true },
    Package { name: "quickstart", package: "quickstart", needs_python: false },
    Package { name: "hyper", package: "hyper-example", needs_python: false },
    Package { name: "benches", package: "tower-keep-benches", needs_python: false },
];

/// The tests over HTTP that hold for either kind of login. The others start sites of both kinds, or
/// are about neither.
const OF_EITHER_KIND: &[&str] = &[
    "cookies_and_headers",
    "flask_login",
    "guards",
    "hostile",
    "lifecycle",
    "redirects",
    "settings",
];

/// Those that are about session records.
const OF_RECORDS: &[&str] = &["faults", "sessions"];

/// The stores besides memory that the tests over HTTP run on.
const STORES: &[&str] = &["sqlite"];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["test", names @ ..] => test(names),
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
    let mut cargo = cargo_test();
    // A whole workspace shares its features; a package on its own also shows that it builds so.
    if names.is_empty() {
        cargo.arg("--workspace");
    }
    for package in packages.iter().filter(|_| !names.is_empty()) {
        cargo.args(["--package", package.package]);
    }
    if packages.iter().any(|package| package.needs_python) {
        cargo.env("KEEP_PYTHON", provision::python(&root())?);
    }
    run(&mut cargo)?;
    if packages.iter().any(|package| package.name == "tests") {
        // As before, so that nothing is built again.
        let again = || {
            let mut cargo = cargo_test();
            match names {
                [] => cargo.arg("--workspace"),
                _ => cargo.args(packages.iter().flat_map(|package| ["--package", package.package])),
            };
            cargo.env("KEEP_RECORDS", "1");
            cargo
        };
        let targets = |names: &[&'static str]| {
            names.iter().flat_map(|name| ["--test", name]).collect::<Vec<_>>()
        };
        println!("once more, with session records");
        run(again().args(targets(OF_EITHER_KIND)))?;
        for store in STORES {
            println!("once more, on {store}");
            let all = [OF_EITHER_KIND, OF_RECORDS].concat();
            run(again().env("KEEP_STORE", store).args(targets(&all)))?;
        }
    }
    Ok(())
}

fn cargo_test() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root()).args(["test", "--all-features"]);
    cargo
}

fn chosen(names: &[&str]) -> Result<Vec<&'static Package>, String> {
    let known = || PACKAGES.iter().map(|package| package.name).collect::<Vec<_>>().join(", ");
    let find = |name: &&str| {
        let found = PACKAGES.iter().find(|package| package.name == *name);
        found.ok_or_else(|| format!("there is no package `{name}`; there are {}", known()))
    };
    if names.is_empty() { Ok(PACKAGES.iter().collect()) } else { names.iter().map(find).collect() }
}

/// The workspace's root, wherever the command is called.
fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).unwrap_or(own).to_owned()
}

/// Runs a command and waits; what it prints is seen.
fn run(command: &mut Command) -> Result<(), String> {
    let shown = || {
        let words = command.get_args().map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ");
        format!("{} {words}", command.get_program().to_string_lossy())
    };
    let shown = shown();
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{shown}` ended with {status}")),
        Err(error) => Err(format!("`{shown}` could not be started: {error}")),
    }
}
