//! Scripts that drive Chromium. They run in Node.js, with Playwright.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

/// The longest time that a script may run.
const MAX_DURATION: Duration = Duration::from_secs(300);

/// Returns the directory where `cargo xtask test` has installed the packages of
/// `tests/clients/package.json`.
///
/// # Panics
///
/// Panics if the variable `KEEP_BROWSER` does not name it.
pub fn npm_packages() -> PathBuf {
    let directory = std::env::var("KEEP_BROWSER");
    let directory =
        directory.expect("`cargo xtask test NAME` installs the browser and its packages");
    PathBuf::from(directory)
}

/// Runs a script that uses `tests/browser.mjs`, on the site at this origin. Returns the lines that
/// the script prints. Its screenshots are kept in `target/screenshots/NAME`.
///
/// # Panics
///
/// Panics if the script fails, with what it has written to its standard error.
pub async fn drive_chromium(script: &Path, origin: &str, name: &str) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(1).expect("a workspace");
    let screenshots = root.join("target/screenshots").join(name);
    let output = Command::new("node")
        .arg(script)
        .arg(npm_packages())
        .arg(std::env::var("KEEP_CHROMIUM").unwrap_or_else(|_| "/usr/bin/chromium".into()))
        .arg(screenshots)
        .arg(origin)
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(MAX_DURATION, output).await;
    let output = output.expect("the script ends in time").expect("node is installed");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    text.lines().map(str::to_owned).collect()
}
