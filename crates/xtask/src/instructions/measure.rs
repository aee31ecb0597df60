//! Runs the bench in valgrind.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::figures::{Case, Figures};
use super::profile::Profile;
use crate::provision;

/// Callgrind counts inside the first of these functions of the bench, and writes a file before the
/// second. These are patterns, because with some compilers the names end in a hash.
const COUNTED: &str = "--toggle-collect=instructions::counted*";
const FINISHED: &str = "--dump-before=instructions::finished*";

/// Returns what each case takes.
pub(super) fn measure(root: &Path) -> Result<Figures, String> {
    let valgrind = provision::valgrind()?;
    // The profiles stay there, for `callgrind_annotate`.
    let directory = root.join("target/instructions");
    let said = |error| format!("{}: {error}", directory.display());
    if directory.exists() {
        fs::remove_dir_all(&directory).map_err(said)?;
    }
    fs::create_dir_all(&directory).map_err(said)?;
    let profile = directory.join("profile");
    let lines = run_bench(root, &valgrind, &profile)?;
    // Callgrind numbers the profiles from 1.
    let counts = lines
        .lines()
        .zip(1_u32..)
        .map(|(line, number)| Count::read(line, &profile.with_extension(number.to_string())));
    let counts = counts.collect::<Result<Vec<_>, String>>()?;
    let (block, counts) = counts.split_first().ok_or("the bench has no cases")?;
    if block.profile.sha256 == 0 {
        return Err("valgrind has counted nothing in SHA-256: check that `counted`, in \
                    benches/cases/instructions.rs, and `compress256` are not inlined"
            .to_owned());
    }
    let cases = counts.iter().map(|count| count.case(block)).collect();
    Ok(Figures { made_with: made_with(&valgrind)?, cases })
}

/// Runs the bench in valgrind, and returns what it prints: a line for each profile.
fn run_bench(root: &Path, valgrind: &Path, profile: &Path) -> Result<String, String> {
    let runner = [
        &valgrind.display().to_string(),
        "--quiet",
        "--tool=callgrind",
        "--collect-atstart=no",
        COUNTED,
        FINISHED,
        "--dump-line=no",
        "--compress-strings=no",
        &format!("--callgrind-out-file={}", profile.display()),
    ];
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root);
    cargo.args(["bench", "--package", "tower-keep-bench-cases", "--bench", "instructions"]);
    // Every target fulfils the condition `all()`.
    cargo.arg("--config").arg(format!("target.'cfg(all())'.runner={runner:?}"));
    output(&mut cargo)
}

/// What was counted for this many requests, or for this many blocks of SHA-256.
struct Count {
    name: String,
    times: f64,
    profile: Profile,
}

impl Count {
    /// Takes the name and the number from a line of the bench, and the rest from its profile.
    fn read(line: &str, file: &Path) -> Result<Self, String> {
        let count = || {
            let (name, times) = line.split_once(' ')?;
            Some((name.to_owned(), times.parse().ok()?))
        };
        let (name, times) =
            count().ok_or_else(|| format!("the bench printed an unexpected line: {line}"))?;
        let profile = fs::read_to_string(file).map_err(|error| {
            format!(
                "{}: {error}\nvalgrind wrote no profile for {name}: check that `finished`, in \
                 benches/cases/instructions.rs, is not inlined",
                file.display()
            )
        })?;
        Ok(Self { name, times, profile: Profile::parse(&profile) })
    }

    fn case(&self, block: &Self) -> Case {
        let sha256 = |count: &Self| count.profile.sha256 as f64 / count.times;
        Case {
            name: self.name.clone(),
            instructions: (self.profile.others as f64 / self.times).round() as u64,
            blocks: (sha256(self) / sha256(block)).round() as u64,
        }
    }
}

/// Returns what the figures depend on apart from the code.
fn made_with(valgrind: &Path) -> Result<String, String> {
    let rustc = output(Command::new("rustc").arg("-vV"))?;
    let compiler = rustc.lines().next().unwrap_or_default();
    let target = rustc.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
    // Its allocator is a part of every request.
    let libc = output(Command::new("getconf").arg("GNU_LIBC_VERSION"));
    let libc = libc.unwrap_or_else(|_| "a C library without a version".to_owned());
    let valgrind = output(Command::new(valgrind).arg("--version"))?;
    Ok([compiler, target, libc.trim(), valgrind.trim()].join(", "))
}

/// Runs a command and returns what it prints. Its errors are shown.
fn output(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("`{program}` could not be started: {error}"))?;
    if !output.status.success() {
        return Err(format!("`{program}` ended with {}", output.status));
    }
    String::from_utf8(output.stdout).map_err(|error| format!("`{program}`: {error}"))
}
