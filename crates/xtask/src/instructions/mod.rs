//! Counts the instructions of a request in valgrind, and compares them with the figures that are
//! committed beside the bench.
//!
//! SHA-256 is not counted with the rest, but in blocks. Valgrind doesn't know the processor's
//! instructions for it, and in software it would be a third of a request.

mod figures;
mod measure;
mod profile;

use std::fs;
use std::path::Path;

use self::figures::{ACCEPT, Figures, compare};

/// The committed figures.
const FILE: &str = "benches/cases/instructions.txt";

/// Measures, and compares with the committed figures.
///
/// # Errors
///
/// Returns an error if a case takes noticeably more instructions than its committed figure, if it
/// hashes more blocks, or if the cases are not those of the file. Returns an error if the bench
/// can't be built or run.
pub fn check(root: &Path) -> Result<(), String> {
    let measured = measure::measure(root)?;
    let text = fs::read_to_string(root.join(FILE))
        .map_err(|error| format!("{FILE}: {error}\nto write it: {ACCEPT}"))?;
    let committed: Figures = text.parse().map_err(|error| format!("{FILE}: {error}"))?;
    let comparison = compare(&committed, &measured);
    print!("{}", comparison.table);
    match comparison.error {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Measures, and writes the figures to the file that is to be committed.
///
/// # Errors
///
/// Returns an error if the bench can't be built or run, or if the file can't be written.
pub fn accept(root: &Path) -> Result<(), String> {
    let measured = measure::measure(root)?;
    print!("{measured}");
    fs::write(root.join(FILE), measured.to_string()).map_err(|error| format!("{FILE}: {error}"))
}
