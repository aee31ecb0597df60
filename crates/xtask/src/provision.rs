//! Installs programs into the system, or sets them up below `target/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::run;

/// Returns the path of a Python with Flask-Login and `datastore-entity`, in a virtual environment
/// below `target/`. The environment is created if it is missing.
///
/// # Errors
///
/// Returns an error if Python or a package is missing and can't be installed. The text says how to
/// install it.
pub fn set_up_python(root: &Path) -> Result<PathBuf, String> {
    let requirements = root.join("tests/parity/requirements.txt");
    let environment = root.join("target/parity-venv");
    let python = environment.join("bin/python");
    if !has_packages(&python) {
        if run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment)).is_err() {
            // Debian ships Python without the module that creates virtual environments.
            install(&["python3", "python3-venv"])?;
            run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment))?;
        }
        println!(
            "installing Python packages below {}: pip install -r {}",
            environment.display(),
            requirements.display()
        );
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"];
        run(Command::new(&python).args(pip).arg(&requirements))?;
    }
    Ok(python)
}

/// Checks whether this Python exists and has the packages.
fn has_packages(python: &Path) -> bool {
    let check = Command::new(python).args(["-c", "import datastore_entity, flask_login"]).output();
    check.is_ok_and(|output| output.status.success())
}

/// What the tests in a browser need.
#[derive(Debug)]
pub struct Browser {
    /// The program.
    pub chromium: PathBuf,
    /// The directory with the packages of `tests/clients/package.json`.
    pub packages: PathBuf,
}

/// Installs Chromium, Node.js and npm if they are missing, and the packages with which the tests
/// drive Chromium below `target/`.
///
/// # Errors
///
/// Returns an error if one of them is missing and can't be installed. The text says how to install
/// it.
pub fn set_up_browser(root: &Path) -> Result<Browser, String> {
    let missing: Vec<&str> = [("chromium", "chromium"), ("node", "nodejs"), ("npm", "npm")]
        .iter()
        .filter(|(program, _)| find_program(&[program]).is_none())
        .map(|(_, package)| *package)
        .collect();
    if !missing.is_empty() {
        install(&missing)?;
    }
    let chromium = find_program(&["chromium"]);
    let chromium = chromium.ok_or("Chromium is installed but in no directory of PATH")?;
    let list = root.join("tests/clients/package.json");
    let packages = root.join("target/browser");
    let installed = packages.join("package.json");
    let wanted = fs::read(&list).map_err(|error| format!("{}: {error}", list.display()))?;
    if !fs::read(&installed).is_ok_and(|installed| installed == wanted) {
        println!("installing npm packages below {}: npm install", packages.display());
        let error = |error| format!("{}: {error}", packages.display());
        fs::create_dir_all(&packages).map_err(error)?;
        // The list is copied to its place only after the packages are complete.
        let arguments = [
            "install",
            "--no-save",
            "--no-package-lock",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
        ];
        let specifications = specifications(&wanted)?;
        run(Command::new("npm").current_dir(&packages).args(arguments).args(specifications))?;
        fs::write(&installed, &wanted).map_err(error)?;
    }
    Ok(Browser { chromium, packages })
}

/// Returns the packages of a `package.json` as npm takes them in its command line.
fn specifications(list: &[u8]) -> Result<Vec<String>, String> {
    let list: Value =
        serde_json::from_slice(list).map_err(|error| format!("package.json: {error}"))?;
    let packages = list["dependencies"].as_object().ok_or("package.json lists no packages")?;
    let specification = |(name, version): (&String, &Value)| {
        format!("{name}@{}", version.as_str().unwrap_or_default())
    };
    Ok(packages.iter().map(specification).collect())
}

/// Returns the path of valgrind, which is installed if it is missing.
///
/// # Errors
///
/// Returns an error if valgrind can't be installed. The text says how to install it.
pub fn find_or_install_valgrind() -> Result<PathBuf, String> {
    let find = || find_program(&["valgrind"]);
    if let Some(program) = find() {
        return Ok(program);
    }
    install(&["valgrind"])?;
    find().ok_or_else(|| {
        "valgrind is installed but in no directory of PATH: add its directory to PATH".to_owned()
    })
}

/// Returns the path of the first of these programs that exists, in `PATH` or in the usual
/// directories of servers.
pub(crate) fn find_program(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories: Vec<_> = std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin", "/usr/bin"].map(PathBuf::from))
        .collect();
    let find = |name: &&str| {
        directories.iter().map(|directory| directory.join(name)).find(|program| program.is_file())
    };
    names.iter().find_map(find)
}

/// Installs Debian packages. If that fails, the error says which to install by hand.
pub(crate) fn install(packages: &[&str]) -> Result<(), String> {
    let names = packages.join(" ");
    let sudo = if is_root() { "" } else { "sudo -n " };
    println!("installing Debian packages into the system: {sudo}apt-get install -y {names}");
    let with_advice =
        |error| format!("{error}\ninstall by hand, then try again: sudo apt-get install {names}");
    let apt = |arguments: &[&str]| {
        let needs_sudo = !is_root();
        let mut command = Command::new(if needs_sudo { "sudo" } else { "apt-get" });
        if needs_sudo {
            command.args(["-n", "apt-get"]);
        }
        run(command.env("DEBIAN_FRONTEND", "noninteractive").args(arguments))
    };
    apt(&["update", "-qq"]).map_err(with_advice)?;
    apt(&[&["install", "-y", "-qq"], packages].concat()).map_err(with_advice)
}

/// Checks whether this process runs as root.
pub(crate) fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
