//! Runs the bench `instructions` in valgrind, and reads the counts.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::figures::{Case, Figures};
use super::profile::Profile;
use crate::provision;

/// Callgrind, valgrind's tool for counting instructions, counts only during calls of the bench's
/// function `run_counted`. The name is a pattern, because with some compilers it ends in a hash.
const COUNT_DURING: &str = "--toggle-collect=instructions::run_counted*";
/// Callgrind writes a profile, which is a file with the counts, before each call of the bench's
/// function `finish_case`.
const WRITE_PROFILE_BEFORE: &str = "--dump-before=instructions::finish_case*";

/// Returns the figures of all cases.
pub(super) fn measure(root: &Path) -> Result<Figures, String> {
    let valgrind = provision::find_or_install_valgrind()?;
    // The profiles stay in this directory, so that `callgrind_annotate` can show them.
    let directory = root.join("target/instructions");
    let with_path = |error| format!("{}: {error}", directory.display());
    if directory.exists() {
        fs::remove_dir_all(&directory).map_err(with_path)?;
    }
    fs::create_dir_all(&directory).map_err(with_path)?;
    let profiles = directory.join("profile");
    let output = run_bench(root, &valgrind, &profiles)?;
    // Callgrind numbers the profiles from 1, and each line of the output belongs to one profile.
    let measurements = output.lines().zip(1_u32..).map(|(line, number)| {
        Measurement::read(line, &profiles.with_extension(number.to_string()))
    });
    let measurements = measurements.collect::<Result<Vec<_>, String>>()?;
    // The bench first hashes single SHA-256 blocks. This calibration is not a case.
    let Some((calibration, measured_cases)) = measurements.split_first() else {
        return Err("the bench printed nothing: check that `main`, in \
                    benches/cases/instructions.rs, calls `calibrate` and `run_cases`"
            .to_owned());
    };
    if measured_cases.is_empty() {
        return Err("the bench printed its calibration but no case: check that `main`, in \
                    benches/cases/instructions.rs, calls `run_cases`"
            .to_owned());
    }
    if calibration.profile.sha256_instructions == 0 {
        return Err("valgrind counted no instructions of SHA-256: check that `run_counted`, in \
                    benches/cases/instructions.rs, and `compress256`, in sha2, are not inlined"
            .to_owned());
    }
    let cases = measured_cases.iter().map(|case| case.figures(calibration)).collect();
    Ok(Figures { made_with: made_with(&valgrind)?, cases })
}

/// Runs the bench in valgrind, and returns its output: one line for each profile that callgrind
/// wrote. The paths of the profiles are `profiles` with their number as the extension.
fn run_bench(root: &Path, valgrind: &Path, profiles: &Path) -> Result<String, String> {
    let valgrind_command = [
        &valgrind.display().to_string(),
        "--quiet",
        "--tool=callgrind",
        "--collect-atstart=no",
        COUNT_DURING,
        WRITE_PROFILE_BEFORE,
        "--dump-line=no",
        "--compress-strings=no",
        &format!("--callgrind-out-file={}", profiles.display()),
    ];
    let mut cargo = Command::new(crate::cargo());
    cargo.current_dir(root);
    cargo.args(["bench", "--package", "tower-keep-bench-cases", "--bench", "instructions"]);
    // The condition `all()` holds on every target.
    cargo.arg("--config").arg(format!("target.'cfg(all())'.runner={valgrind_command:?}"));
    stdout_of(&mut cargo)
}

/// The counts of one case, or of the calibration.
struct Measurement {
    name: String,
    /// How many requests were counted; in the calibration, how many SHA-256 blocks.
    repetitions: f64,
    /// The counts of all repetitions together.
    profile: Profile,
}

impl Measurement {
    /// Reads the name and the repetitions from a line of the bench's output, and the counts from
    /// this file.
    fn read(line: &str, file: &Path) -> Result<Self, String> {
        let parse = || {
            let (name, repetitions) = line.split_once(' ')?;
            Some((name.to_owned(), repetitions.parse().ok()?))
        };
        let (name, repetitions) =
            parse().ok_or_else(|| format!("the bench printed an unexpected line: {line}"))?;
        let profile = fs::read_to_string(file).map_err(|error| {
            format!(
                "{}: {error}\nvalgrind wrote no profile for {name}: check that `finish_case`, in \
                 benches/cases/instructions.rs, is not inlined",
                file.display()
            )
        })?;
        Ok(Self { name, repetitions, profile: Profile::parse(&profile) })
    }

    /// Returns the figures of one request. The calibration says how many instructions one SHA-256
    /// block takes.
    fn figures(&self, calibration: &Self) -> Case {
        let each = |count: u64| count as f64 / self.repetitions;
        let sha256_block = calibration.profile.sha256_instructions as f64 / calibration.repetitions;
        Case {
            name: self.name.clone(),
            instructions: each(self.profile.other_instructions).round() as u64,
            blocks: (each(self.profile.sha256_instructions) / sha256_block).round() as u64,
        }
    }
}

/// Returns the versions of the programs that the figures depend on, and the target.
fn made_with(valgrind: &Path) -> Result<String, String> {
    let rustc = stdout_of(Command::new("rustc").arg("-vV"))?;
    let compiler = rustc.lines().next().unwrap_or_default();
    let target = rustc.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
    // The C library's allocator runs in every request.
    let libc = stdout_of(Command::new("getconf").arg("GNU_LIBC_VERSION"));
    let libc = libc.unwrap_or_else(|_| "a C library of unknown version".to_owned());
    let valgrind = stdout_of(Command::new(valgrind).arg("--version"))?;
    Ok([compiler, target, libc.trim(), valgrind.trim()].join(", "))
}

/// Runs a command and returns its standard output. Its standard error is shown.
fn stdout_of(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("`{program}` could not be started: {error}"))?;
    if !output.status.success() {
        return Err(format!("`{program}` ended with {}", output.status));
    }
    String::from_utf8(output.stdout).map_err(|error| format!("`{program}`: {error}"))
}
