//! The figures, which are the measured numbers of each case: reading and writing their file, and
//! comparing measured with committed figures.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

/// The file with the committed figures.
pub(super) const FIGURES_FILE: &str = "benches/cases/instructions.txt";

/// A change of at most this many percent is neither an error nor reported as better.
const TOLERANCE_PERCENT: u64 = 3;

/// The command that writes the measured figures to the file.
pub(super) const ACCEPT_COMMAND: &str = "cargo xtask instructions --accept";
/// The file's line that holds [`Figures::made_with`] begins with this.
const MADE_WITH_PREFIX: &str = "# Made with ";

/// The figures of all cases.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Figures {
    /// The versions of the programs that the figures depend on, such as the compiler.
    pub(super) made_with: String,
    pub(super) cases: Vec<Case>,
}

/// The figures of one case: the work of one request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Case {
    pub(super) name: String,
    /// The number of CPU instructions, without those of SHA-256.
    pub(super) instructions: u64,
    /// The number of blocks that SHA-256 hashes.
    pub(super) blocks: u64,
}

impl Figures {
    fn case(&self, name: &str) -> Option<&Case> {
        self.cases.iter().find(|case| case.name == name)
    }
}

impl Display for Figures {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "# CPU instructions and SHA-256 blocks of one request in each case.")?;
        writeln!(f, "# Written by `{ACCEPT_COMMAND}`.")?;
        writeln!(f, "{MADE_WITH_PREFIX}{}.", self.made_with)?;
        for Case { name, instructions, blocks } in &self.cases {
            writeln!(f, "{name:<28} {instructions:>6} {blocks:>2}")?;
        }
        Ok(())
    }
}

impl FromStr for Figures {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut figures = Self { made_with: String::new(), cases: Vec::new() };
        for line in text.lines() {
            if let Some(made_with) = line.strip_prefix(MADE_WITH_PREFIX) {
                figures.made_with = made_with.trim_end_matches('.').to_owned();
            } else if !line.starts_with('#') {
                let error = || {
                    format!(
                        "the line `{line}` does not have a name and two numbers; to write the file \
                         again, run {ACCEPT_COMMAND}"
                    )
                };
                figures.cases.push(parse_case(line).ok_or_else(error)?);
            }
        }
        Ok(figures)
    }
}

fn parse_case(line: &str) -> Option<Case> {
    let mut words = line.split_whitespace();
    let name = words.next()?.to_owned();
    let instructions = words.next()?.parse().ok()?;
    Some(Case { name, instructions, blocks: words.next()?.parse().ok()? })
}

/// The result of [`compare`].
#[derive(Debug)]
pub(super) struct Comparison {
    /// One line for each case, and a last line that names the cases that got better, if any did.
    pub(super) table: String,
    /// The cases that got worse, are new or are missing, and what to do.
    pub(super) error: Option<String>,
}

/// Compares the measured figures with the committed figures.
pub(super) fn compare(committed: &Figures, measured: &Figures) -> Comparison {
    let mut table = format!(
        "{:<28} {:>12} {:>9} {:>8} {:>6} {:>9}\n",
        "case", "instructions", "committed", "change", "blocks", "committed"
    );
    let (mut complaints, mut better) = (Vec::new(), Vec::new());
    for case in &measured.cases {
        let committed = committed.case(&case.name);
        table += &table_row(case, committed);
        complaints.extend(complaints_about(case, committed));
        if committed.is_some_and(|committed| is_better(case, committed)) {
            better.push(case.name.as_str());
        }
    }
    let missing = committed.cases.iter().filter(|case| measured.case(&case.name).is_none());
    complaints.extend(missing.map(|Case { name, instructions, blocks }| {
        format!(
            "{name} is in {FIGURES_FILE} ({instructions} instructions, {blocks} blocks), but the \
             bench has no such case"
        )
    }));
    if !better.is_empty() {
        table +=
            &format!("better: {}; to keep the gain, run {ACCEPT_COMMAND}\n", better.join(", "));
    }
    let error = (!complaints.is_empty()).then(|| error_text(complaints, committed, measured));
    Comparison { table, error }
}

fn table_row(measured: &Case, committed: Option<&Case>) -> String {
    let Case { name, instructions, blocks } = measured;
    let (old_count, change, old_blocks) = match committed {
        None => ("-".to_owned(), "-".to_owned(), "-".to_owned()),
        Some(committed) => (
            committed.instructions.to_string(),
            change_in_percent(committed.instructions, *instructions),
            committed.blocks.to_string(),
        ),
    };
    format!(
        "{name:<28} {instructions:>12} {old_count:>9} {change:>8} {blocks:>6} {old_blocks:>9}\n"
    )
}

/// Returns one text for each figure of this case that got worse, or one text if the case is new.
fn complaints_about(measured: &Case, committed: Option<&Case>) -> Vec<String> {
    let Case { name, instructions, blocks } = measured;
    let Some(committed) = committed else {
        return vec![format!(
            "{name} is not in {FIGURES_FILE}: {instructions} instructions, {blocks} blocks"
        )];
    };
    let mut complaints = Vec::new();
    if instructions * 100 > committed.instructions * (100 + TOLERANCE_PERCENT) {
        complaints.push(format!(
            "{name} takes {instructions} instructions instead of the committed {} ({})",
            committed.instructions,
            change_in_percent(committed.instructions, *instructions)
        ));
    }
    if *blocks > committed.blocks {
        complaints.push(format!(
            "{name} hashes {blocks} blocks of SHA-256, more than the committed {}",
            committed.blocks
        ));
    }
    complaints
}

fn is_better(measured: &Case, committed: &Case) -> bool {
    let limit = committed.instructions * (100 - TOLERANCE_PERCENT);
    measured.instructions * 100 < limit || measured.blocks < committed.blocks
}

fn change_in_percent(committed: u64, measured: u64) -> String {
    format!("{:+.1} %", (measured as f64 / committed as f64 - 1.0) * 100.0)
}

fn error_text(mut lines: Vec<String>, committed: &Figures, measured: &Figures) -> String {
    if committed.made_with != measured.made_with {
        lines.push(format!(
            "the committed figures were made with {}\nthe measured figures with {}\nthis difference may \
             be the reason: measure the previous commit on this machine, and compare with its figures",
            committed.made_with, measured.made_with
        ));
    }
    lines.push(format!("if the change is intended, accept the new figures: {ACCEPT_COMMAND}"));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::{Case, Figures, compare};

    fn figures(made_with: &str, cases: &[(&str, u64, u64)]) -> Figures {
        let case = |&(name, instructions, blocks): &(&str, u64, u64)| Case {
            name: name.to_owned(),
            instructions,
            blocks,
        };
        Figures { made_with: made_with.to_owned(), cases: cases.iter().map(case).collect() }
    }

    #[test]
    fn parsing_the_written_file_returns_the_same_figures() {
        let written =
            figures("rustc 1.2.3, glibc 2", &[("bare", 4_661, 0), ("guarded", 11_543, 2)]);
        assert_eq!(written.to_string().parse(), Ok(written));
        assert!("bare 4661".parse::<Figures>().is_err());
    }

    #[test]
    fn the_comparison_fails_if_a_case_got_worse_or_is_new_or_is_missing() {
        let committed = [("guarded", 1_000, 2)];
        // The measured cases, a part of the error if there must be one, and a part of the table.
        let comparisons: [(&[_], _, _); 9] = [
            (&[("guarded", 1_000, 2)], None, "+0.0 %"),
            (&[("guarded", 1_030, 2)], None, "+3.0 %"),
            (
                &[("guarded", 1_031, 2)],
                Some("1031 instructions instead of the committed 1000 (+3.1 %)"),
                "",
            ),
            (&[("guarded", 1_000, 3)], Some("guarded hashes 3 blocks of SHA-256, more"), ""),
            (&[("guarded", 970, 2)], None, "-3.0 %"),
            (&[("guarded", 969, 2)], None, "better: guarded"),
            (&[("guarded", 1_000, 1)], None, "better: guarded"),
            (&[("guarded", 1_000, 2), ("new", 9, 1)], Some("new is not in"), "new"),
            (&[], Some("guarded is in"), ""),
        ];
        for (measured, error, table) in comparisons {
            let comparison = compare(&figures("a", &committed), &figures("a", measured));
            assert_eq!(comparison.error.is_some(), error.is_some(), "{measured:?}");
            let text = comparison.error.unwrap_or_default();
            assert!(text.contains(error.unwrap_or_default()), "{measured:?}: {text}");
            assert!(comparison.table.contains(table), "{measured:?}: {}", comparison.table);
            assert_eq!(text.contains("cargo xtask instructions --accept"), error.is_some());
        }
    }

    #[test]
    fn the_error_names_both_compilers_if_they_differ() {
        let error_with = |made_with| {
            let measured = figures(made_with, &[("guarded", 2_000, 2)]);
            compare(&figures("rustc 1", &[("guarded", 1_000, 2)]), &measured).error
        };
        assert!(error_with("rustc 2").is_some_and(|error| error.contains("figures with rustc 2")));
        assert!(error_with("rustc 1").is_some_and(|error| !error.contains("made with")));
    }
}
