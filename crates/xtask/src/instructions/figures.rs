//! The figures, as a file and in a comparison.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use super::FILE;

/// A case may take this many percent more than committed. Less than that is not worth a commit.
const TOLERANCE: u64 = 3;

pub(super) const ACCEPT: &str = "cargo xtask instructions --accept";
const MADE_WITH: &str = "# Made with ";

/// What a request takes in each case.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Figures {
    /// The compiler and whatever else changes the figures.
    pub(super) made_with: String,
    pub(super) cases: Vec<Case>,
}

/// What a request takes in one case.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Case {
    pub(super) name: String,
    /// The number of instructions, without those of SHA-256.
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
        writeln!(f, "# Instructions and SHA-256 blocks per request, as `{ACCEPT}` wrote them.")?;
        writeln!(f, "{MADE_WITH}{}.", self.made_with)?;
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
            if let Some(made_with) = line.strip_prefix(MADE_WITH) {
                figures.made_with = made_with.trim_end_matches('.').to_owned();
            } else if !line.starts_with('#') {
                let case = parse_case(line);
                figures.cases.push(case.ok_or_else(|| {
                    format!("`{line}` is not a case with two numbers; to write the file: {ACCEPT}")
                })?);
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

/// What a comparison found.
#[derive(Debug)]
pub(super) struct Comparison {
    /// A line for each case, and one more if cases got better.
    pub(super) table: String,
    /// The cases that got worse, and what to do.
    pub(super) error: Option<String>,
}

/// Compares what was measured with what is committed.
pub(super) fn compare(committed: &Figures, measured: &Figures) -> Comparison {
    let mut table = format!(
        "{:<28} {:>12} {:>9} {:>8} {:>6} {:>9}\n",
        "case", "instructions", "committed", "change", "blocks", "committed"
    );
    let (mut worse, mut better) = (Vec::new(), Vec::new());
    for case in &measured.cases {
        let before = committed.case(&case.name);
        table += &row(case, before);
        worse.extend(complaints(case, before));
        if before.is_some_and(|before| is_better(case, before)) {
            better.push(case.name.as_str());
        }
    }
    let missing = committed.cases.iter().filter(|case| measured.case(&case.name).is_none());
    worse.extend(missing.map(|Case { name, instructions, blocks }| {
        format!("{name} is in {FILE} ({instructions}, {blocks}), but the bench has no such case")
    }));
    if !better.is_empty() {
        table += &format!("better: {}; to lock in the gain: {ACCEPT}\n", better.join(", "));
    }
    Comparison { table, error: (!worse.is_empty()).then(|| error(worse, committed, measured)) }
}

fn row(case: &Case, before: Option<&Case>) -> String {
    let Case { name, instructions, blocks } = case;
    let (was, change, hashed) = match before {
        None => ("-".to_owned(), "-".to_owned(), "-".to_owned()),
        Some(before) => (
            before.instructions.to_string(),
            change(before.instructions, *instructions),
            before.blocks.to_string(),
        ),
    };
    format!("{name:<28} {instructions:>12} {was:>9} {change:>8} {blocks:>6} {hashed:>9}\n")
}

/// Returns what is wrong with a case, if anything is.
fn complaints(case: &Case, before: Option<&Case>) -> Vec<String> {
    let Case { name, instructions, blocks } = case;
    let Some(before) = before else {
        return vec![format!(
            "{name} is not in {FILE}: {instructions} instructions, {blocks} blocks"
        )];
    };
    let mut complaints = Vec::new();
    if instructions * 100 > before.instructions * (100 + TOLERANCE) {
        complaints.push(format!(
            "{name} takes {instructions} instructions, {} over the committed {}",
            change(before.instructions, *instructions),
            before.instructions
        ));
    }
    if *blocks > before.blocks {
        complaints.push(format!(
            "{name} hashes {blocks} blocks of SHA-256, more than the committed {}",
            before.blocks
        ));
    }
    complaints
}

fn is_better(case: &Case, before: &Case) -> bool {
    let is_shorter = case.instructions * 100 < before.instructions * (100 - TOLERANCE);
    is_shorter || case.blocks < before.blocks
}

/// Returns how many percent more this is.
fn change(before: u64, now: u64) -> String {
    format!("{:+.1} %", (now as f64 / before as f64 - 1.0) * 100.0)
}

fn error(mut lines: Vec<String>, committed: &Figures, measured: &Figures) -> String {
    if committed.made_with != measured.made_with {
        lines.push(format!(
            "the committed figures were made with {}\nand these with {}\nwhich may be the reason: \
             measure the previous commit on this machine, and compare with that",
            committed.made_with, measured.made_with
        ));
    }
    lines.push(format!("if this is intended, accept the new figures: {ACCEPT}"));
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
    fn the_file_is_read_as_it_was_written() {
        let written =
            figures("rustc 1.2.3, glibc 2", &[("bare", 4_661, 0), ("guarded", 11_543, 2)]);
        assert_eq!(written.to_string().parse(), Ok(written));
        assert!("bare 4661".parse::<Figures>().is_err());
    }

    #[test]
    fn only_what_got_worse_is_an_error() {
        let committed = [("guarded", 1_000, 2)];
        // What is measured, a part of the error if there is one, and a part of the table.
        let rules: [(&[_], _, _); 9] = [
            (&[("guarded", 1_000, 2)], None, "+0.0 %"),
            (&[("guarded", 1_030, 2)], None, "+3.0 %"),
            (
                &[("guarded", 1_031, 2)],
                Some("1031 instructions, +3.1 % over the committed 1000"),
                "",
            ),
            (&[("guarded", 1_000, 3)], Some("guarded hashes 3 blocks of SHA-256, more"), ""),
            (&[("guarded", 970, 2)], None, "-3.0 %"),
            (&[("guarded", 969, 2)], None, "better: guarded"),
            (&[("guarded", 1_000, 1)], None, "better: guarded"),
            (&[("guarded", 1_000, 2), ("new", 9, 1)], Some("new is not in"), "new"),
            (&[], Some("guarded is in"), ""),
        ];
        for (measured, error, table) in rules {
            let comparison = compare(&figures("a", &committed), &figures("a", measured));
            assert_eq!(comparison.error.is_some(), error.is_some(), "{measured:?}");
            let said = comparison.error.unwrap_or_default();
            assert!(said.contains(error.unwrap_or_default()), "{measured:?}: {said}");
            assert!(comparison.table.contains(table), "{measured:?}: {}", comparison.table);
            assert_eq!(said.contains("cargo xtask instructions --accept"), error.is_some());
        }
    }

    #[test]
    fn an_error_says_that_the_compiler_is_another() {
        let compared = |made_with| {
            let measured = figures(made_with, &[("guarded", 2_000, 2)]);
            compare(&figures("rustc 1", &[("guarded", 1_000, 2)]), &measured).error
        };
        assert!(compared("rustc 2").is_some_and(|error| error.contains("and these with rustc 2")));
        assert!(compared("rustc 1").is_some_and(|error| !error.contains("made with")));
    }
}
