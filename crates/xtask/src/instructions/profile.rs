//! Reads a profile, which is a file with the counts of callgrind, valgrind's tool for counting
//! instructions. The profile has full names and one line of costs for each function; its format:
//! <https://valgrind.org/docs/manual/cl-format.html>.

/// The names of the functions of SHA-256 begin with this.
const SHA256_PREFIX: &str = "sha2::sha256::";

/// How many instructions were counted, from one profile.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Profile {
    /// The number of instructions in functions of SHA-256.
    pub(super) sha256_instructions: u64,
    /// The number of all other instructions.
    pub(super) other_instructions: u64,
}

impl Profile {
    pub(super) fn parse(text: &str) -> Self {
        let mut profile = Self::default();
        let mut is_sha256 = false;
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(name) = line.strip_prefix("fn=") {
                is_sha256 = name.starts_with(SHA256_PREFIX);
            } else if line.starts_with("calls=") {
                // The next line has the cost of the called function. It is skipped, because the
                // called function has its own `fn=` line, and its cost is counted there.
                lines.next();
            } else if let Some(cost) = own_cost(line) {
                let count = match is_sha256 {
                    true => &mut profile.sha256_instructions,
                    false => &mut profile.other_instructions,
                };
                *count += cost;
            }
        }
        profile
    }
}

/// Returns the cost if the line has a position and a cost. A position is a number, an offset from
/// the previous position (`+3`, `-3`), or `*` for the previous position.
fn own_cost(line: &str) -> Option<u64> {
    let (position, cost) = line.split_once(' ')?;
    let is_position = position.starts_with(['+', '-', '*']) || position.parse::<u64>().is_ok();
    if is_position { cost.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::Profile;

    #[test]
    fn the_cost_of_a_called_function_is_counted_once() {
        let text = "version: 1\nevents: Ir\nsummary: 115\n\nob=/a/bench\nfl=???\nfn=bench::main\n\
            0 10\ncfn=sha2::sha256::compress256\ncalls=2 0 \n0 100\ncfn=free\ncalls=1 0 \n* 5\n\n\
            fn=sha2::sha256::compress256\n0 70\n+3 30\n\nfn=free\n* 5\n\ntotals: 115\n";
        assert_eq!(
            Profile::parse(text),
            Profile { sha256_instructions: 100, other_instructions: 15 }
        );
    }
}
