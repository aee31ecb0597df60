//! Installs programs into the system, or sets them up below `target/`.

use std::path::{Path, PathBuf};
use std::process::Command;

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
