//! Checks how the files of this workspace import each other, and which packages its packages need.
//!
//! | look for | in |
//! | --- | --- |
//! | what must not be imported, and why | `rules` |
//! | reading a crate's modules, and what its files import | `modules`, `scope`, `uses` |
//! | circles of files | `circles` |
//! | the packages that a package needs | `packages` |

mod circles;
mod modules;
mod packages;
mod rules;
mod scope;
mod uses;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use self::circles::circles;
use self::modules::Crate;
use self::rules::forbidden;
use self::uses::{Arrow, arrows_of};

/// The folders whose crates are checked.
const FOLDERS: [&str; 2] = ["crates", "adapters"];

/// Checks all crates, and prints how many files and arrows there are.
///
/// # Errors
///
/// Returns an error that names every circle of files, every forbidden import, and every import that
/// goes through the root of its crate. Also returns an error if a file can't be read.
pub fn check(root: &Path) -> Result<(), String> {
    let mut problems = packages::check(root)?;
    let (mut files, mut arrows) = (0, Vec::new());
    for sources in sources(root)? {
        let krate = Crate::read(root, &sources)?;
        files += krate.files.len();
        arrows.extend(arrows_of(&krate)?);
    }
    problems.extend(arrows.iter().filter_map(through_the_root));
    problems.extend(arrows.iter().filter_map(forbidden));
    problems.extend(circles(&arrows).iter().map(|circle| describe_circle(circle, &arrows)));
    println!("{files} files with {} imports", arrows.len());
    match problems.as_slice() {
        [] => Ok(()),
        _ => Err(problems.join("\n")),
    }
}

/// Returns the `src` folders of the crates.
fn sources(root: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for folder in FOLDERS {
        let entries =
            fs::read_dir(root.join(folder)).map_err(|error| format!("{folder}: {error}"))?;
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path().join("src")));
        found.extend(paths.filter(|path| path.join("lib.rs").exists()));
    }
    found.sort();
    Ok(found)
}

fn through_the_root(arrow: &Arrow) -> Option<String> {
    let Arrow { from, to, name, is_through_root } = arrow;
    is_through_root.then(|| {
        format!("{from} imports `{name}` from the crate's root: import it from {to}, which has it")
    })
}

/// Lists the arrows of a circle, with the names that are imported.
fn describe_circle(circle: &[String], arrows: &[Arrow]) -> String {
    let mut lines: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for Arrow { from, to, name, .. } in arrows {
        if circle.contains(from) && circle.contains(to) {
            lines.entry((from, to)).or_default().push(name);
        }
    }
    let lines = lines
        .iter()
        .map(|((from, to), names)| format!("  {from} imports {} from {to}", names.join(", ")));
    format!("these files import each other in a circle:\n{}", lines.collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests;
