//! The library behind `cargo xtask`. It installs, builds and starts the programs that the tests
//! need, counts the CPU instructions that a request takes, checks how files import each other, and
//! builds the guide. Only cargo has to be installed already.

pub mod guide;
pub mod imports;
pub mod instructions;
pub mod packages;
pub mod provision;
pub mod servers;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Returns the directory of the tools that are built or downloaded.
pub(crate) fn tools_directory() -> PathBuf {
    let this_crate = Path::new(env!("CARGO_MANIFEST_DIR"));
    this_crate.ancestors().nth(2).unwrap_or(this_crate).join("target/tools")
}

/// Returns the cargo that runs this program, or the one in `PATH`.
pub fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Runs a command and waits until it ends. Its output is shown.
///
/// # Errors
///
/// Returns an error if the command can't be started or fails.
pub fn run(command: &mut Command) -> Result<(), String> {
    let arguments = command.get_args().map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ");
    let shown = format!("{} {arguments}", command.get_program().to_string_lossy());
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{shown}` ended with {status}")),
        Err(error) => Err(format!("`{shown}` could not be started: {error}")),
    }
}
