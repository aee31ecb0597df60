//! Runs a bench in valgrind, which counts the CPU instructions that a request takes in each case.
//! Compares these figures with the committed figures beside the bench.
//!
//! The instructions of SHA-256 are not part of the count. Instead, each case has the number of
//! blocks that SHA-256 hashes. The reason is that valgrind does not know the processor's
//! instructions for SHA-256. So in valgrind SHA-256 runs in software, and would be a third of the
//! count.

mod figures;
mod measure;
mod profile;

use std::fs;
use std::path::Path;

use self::figures::{ACCEPT_COMMAND, FIGURES_FILE, Figures, compare};

/// Measures every case, and compares the figures with the committed figures.
///
/// # Errors
///
/// Returns an error if a case takes over 3 % more instructions than committed, if it hashes more
/// blocks, or if the bench and the file don't have the same cases. Also returns an error if the
/// bench can't be built or run.
pub fn check(root: &Path) -> Result<(), String> {
    let measured = measure::measure(root)?;
    let text = fs::read_to_string(root.join(FIGURES_FILE))
        .map_err(|error| format!("{FIGURES_FILE}: {error}\nto write it, run {ACCEPT_COMMAND}"))?;
    let committed: Figures = text.parse().map_err(|error| format!("{FIGURES_FILE}: {error}"))?;
    let comparison = compare(&committed, &measured);
    print!("{}", comparison.table);
    match comparison.error {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Measures every case, and writes the figures to the file, which the caller then commits.
///
/// # Errors
///
/// Returns an error if the bench can't be built or run, or if the file can't be written.
pub fn accept(root: &Path) -> Result<(), String> {
    let measured = measure::measure(root)?;
    print!("{measured}");
    fs::write(root.join(FIGURES_FILE), measured.to_string())
        .map_err(|error| format!("{FIGURES_FILE}: {error}"))
}
