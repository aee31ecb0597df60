//! Checks what would be published: each package builds from its packed files, and so do its tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::run;

/// `cargo publish --dry-run` ends each package with this warning.
const DRY_RUN_WARNING: &str = "warning: aborting upload due to dry run";

/// Packs all packages that are published, builds each from its package, and builds the tests of the
/// packed files.
///
/// # Errors
///
/// Returns an error if cargo prints a warning, or if a package or its tests can't be built.
pub fn check(root: &Path) -> Result<(), String> {
    let packed = root.join("target/package");
    for archive in archives(&packed) {
        fs::remove_file(&archive).map_err(|error| format!("{}: {error}", archive.display()))?;
    }
    dry_run(root)?;
    let archives = archives(&packed);
    if archives.is_empty() {
        return Err(format!("cargo has packed nothing into {}", packed.display()));
    }
    let workspace = root.join("target/unpacked");
    unpack(&archives, &workspace)?;
    let mut cargo = cargo(&workspace);
    cargo.args(["test", "--workspace", "--all-features", "--no-run", "--target-dir"]);
    run(cargo.arg(root.join("target")))
}

/// Packs the packages, and builds each from its package.
fn dry_run(root: &Path) -> Result<(), String> {
    let mut cargo = cargo(root);
    cargo.args(["publish", "--workspace", "--dry-run", "--allow-dirty"]).stderr(Stdio::piped());
    let output = cargo.output().map_err(|error| format!("`cargo publish`: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    print!("{text}");
    if !output.status.success() {
        return Err("`cargo publish --workspace --dry-run` failed".to_owned());
    }
    match warnings(&text).as_slice() {
        [] => Ok(()),
        warnings => Err(format!("cargo warns about the packages:\n{}", warnings.join("\n"))),
    }
}

fn warnings(text: &str) -> Vec<&str> {
    let is_warning = |line: &&str| line.starts_with("warning") && *line != DRY_RUN_WARNING;
    text.lines().filter(is_warning).collect()
}

/// Returns the packed files of this project.
fn archives(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "crate")).collect()
}

/// Makes a workspace of the packed files, in which the packages use each other.
fn unpack(archives: &[PathBuf], workspace: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", workspace.display());
    if workspace.exists() {
        fs::remove_dir_all(workspace).map_err(failed)?;
    }
    fs::create_dir_all(workspace).map_err(failed)?;
    let mut patches = String::new();
    for archive in archives {
        run(Command::new("tar").arg("xzf").arg(archive).arg("-C").arg(workspace))?;
        let folder = archive.file_stem().unwrap_or_default().to_string_lossy();
        let (name, _) = folder.rsplit_once('-').ok_or("a package without a version")?;
        patches += &format!("{name} = {{ path = \"{folder}\" }}\n");
    }
    let manifest =
        format!("[workspace]\nresolver = \"3\"\nmembers = [\"*\"]\n\n[patch.crates-io]\n{patches}");
    fs::write(workspace.join("Cargo.toml"), manifest).map_err(failed)
}

fn cargo(folder: &Path) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(folder);
    cargo
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_dry_run_is_no_warning() {
        let text = "   Packaging a\nwarning: aborting upload due to dry run\n\
            warning: ignoring test `b`\n    Finished";
        assert_eq!(warnings(text), ["warning: ignoring test `b`"]);
    }
}
