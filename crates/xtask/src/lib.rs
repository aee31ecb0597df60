//! Installs, builds or starts everything that the tests need apart from cargo, and counts the
//! instructions of a request. Nothing is assumed to be there.

pub mod instructions;
pub mod provision;
pub mod servers;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Returns the directory of the tools that are built or downloaded.
pub(crate) fn tools() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).unwrap_or(own).join("target/tools")
}

/// Runs a command and waits until it ends. Its output is shown.
///
/// # Errors
///
/// Returns an error if the command can't be started or fails.
pub fn run(command: &mut Command) -> Result<(), String> {
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
