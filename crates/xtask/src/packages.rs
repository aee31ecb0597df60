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
    let failed = |error: std::io::Error| format!("{}: {error}", packed.display());
    if packed.exists() {
        // Packages of earlier runs.
        fs::remove_dir_all(&packed).map_err(failed)?;
    }
    forget_earlier_packages(root)?;
    dry_run(root)?;
    let folders = unpacked(&packed).map_err(failed)?;
    if folders.is_empty() {
        return Err(format!("cargo has unpacked no package in {}", packed.display()));
    }
    fs::write(packed.join("Cargo.toml"), workspace_of(&folders)).map_err(failed)?;
    let mut cargo = cargo(&packed);
    cargo.args(["test", "--workspace", "--all-features", "--no-run", "--target-dir"]);
    run(cargo.arg(root.join("target")))
}

/// Removes what an earlier dry run has left of our packages: the sources that it has unpacked into
/// cargo's home, and the notes that they are compiled. Cargo would use both again, because the
/// versions are the same.
fn forget_earlier_packages(root: &Path) -> Result<(), String> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    // A dry run's registry is a folder, so its name has no host before the hyphen.
    let registries = entries(&home.unwrap_or_default().join("registry/src"), "-");
    let unpacked = registries.iter().flat_map(|registry| entries(registry, "tower-keep"));
    let compiled = entries(&root.join("target/debug/.fingerprint"), "tower-keep");
    for folder in unpacked.chain(compiled) {
        fs::remove_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    Ok(())
}

/// Returns what is in this folder and has a name that begins with `prefix`. Returns nothing if there
/// is no such folder.
fn entries(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    named.map(|entry| entry.path()).collect()
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

/// Returns the names of the folders in which cargo has unpacked the packages to build them.
fn unpacked(packed: &Path) -> Result<Vec<String>, std::io::Error> {
    let mut names = Vec::new();
    for entry in fs::read_dir(packed)? {
        let path = entry?.path();
        if path.join("Cargo.toml").exists() {
            names.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

/// Returns the manifest of a workspace in which the packages use each other.
fn workspace_of(folders: &[String]) -> String {
    let members = folders.iter().map(|folder| format!("\"{folder}\"")).collect::<Vec<_>>();
    let patches = folders.iter().filter_map(|folder| {
        let (name, _version) = folder.rsplit_once('-')?;
        Some(format!("{name} = {{ path = \"{folder}\" }}\n"))
    });
    format!(
        "[workspace]\nresolver = \"3\"\nmembers = [{}]\n\n[patch.crates-io]\n{}",
        members.join(", "),
        patches.collect::<String>()
    )
}

fn cargo(folder: &Path) -> Command {
    let mut cargo = Command::new(crate::cargo());
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

    #[test]
    fn the_workspace_of_packages_uses_no_published_one() {
        let expected = "[workspace]\nresolver = \"3\"\nmembers = [\"a-b-0.1.0\"]\n\n\
            [patch.crates-io]\na-b = { path = \"a-b-0.1.0\" }\n";
        assert_eq!(workspace_of(&["a-b-0.1.0".to_owned()]), expected);
    }
}
