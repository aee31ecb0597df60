//! Builds the guide in `docs/` with mdBook.

use std::path::Path;
use std::process::Command;

use crate::{run, tools_directory};

const MDBOOK_VERSION: &str = "0.5.4";

/// Builds the pages below `target/guide`, and prints where the first one is. Installs mdBook below
/// `target/tools` if it is missing there.
///
/// # Errors
///
/// Returns an error if mdBook can't be installed, or finds an error in a page.
pub fn build(root: &Path) -> Result<(), String> {
    let tools = tools_directory();
    let mdbook = tools.join("bin/mdbook");
    if !is_wanted_version(&mdbook) {
        println!("installing mdBook {MDBOOK_VERSION} below {}: cargo install", tools.display());
        let mut cargo = Command::new(crate::cargo());
        cargo.args(["install", "mdbook", "--version", MDBOOK_VERSION, "--locked", "--quiet"]);
        cargo.args(["--no-default-features", "--features", "search"]);
        cargo.arg("--force").arg("--root").arg(&tools);
        run(&mut cargo)?;
    }
    run(Command::new(mdbook).arg("build").arg(root.join("docs")))?;
    println!("{}", root.join("target/guide/index.html").display());
    Ok(())
}

fn is_wanted_version(mdbook: &Path) -> bool {
    let output = Command::new(mdbook).arg("--version").output();
    let wanted = format!("mdbook v{MDBOOK_VERSION}");
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim() == wanted)
}
