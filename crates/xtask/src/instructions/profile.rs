//! A profile as callgrind writes it, with names in full and one line for each function:
//! <https://valgrind.org/docs/manual/cl-format.html>.

/// The names of SHA-256's functions begin with this.
const SHA256: &str = "sha2::sha256::";

/// What a profile says of the instructions that were counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Profile {
    /// The number of instructions in functions of SHA-256.
    pub(super) sha256: u64,
    /// The number of all other instructions.
    pub(super) others: u64,
}

impl Profile {
    pub(super) fn parse(text: &str) -> Self {
        let mut profile = Self::default();
        let mut is_sha256 = false;
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(name) = line.strip_prefix("fn=") {
                is_sha256 = name.starts_with(SHA256);
            } else if line.starts_with("calls=") {
                // The next line is the cost of the function that was called, which is counted where
                // that function has its own lines.
                lines.next();
            } else if let Some(cost) = own_cost(line) {
                *if is_sha256 { &mut profile.sha256 } else { &mut profile.others } += cost;
            }
        }
        profile
    }
}

/// Returns the cost if this is a line with a position and a cost. A position is a number, which may
/// be relative, or `*` if it is the previous one.
fn own_cost(line: &str) -> Option<u64> {
    let (position, cost) = line.split_once(' ')?;
    let is_position = position.starts_with(['+', '-', '*']) || position.parse::<u64>().is_ok();
    if is_position { cost.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::Profile;

    #[test]
    fn costs_are_those_of_the_functions_themselves() {
        let text = "version: 1\nevents: Ir\nsummary: 115\n\nob=/a/bench\nfl=???\nfn=bench::main\n\
            0 10\ncfn=sha2::sha256::compress256\ncalls=2 0 \n0 100\ncfn=free\ncalls=1 0 \n* 5\n\n\
            fn=sha2::sha256::compress256\n0 70\n+3 30\n\nfn=free\n* 5\n\ntotals: 115\n";
        assert_eq!(Profile::parse(text), Profile { sha256: 100, others: 15 });
    }
}
