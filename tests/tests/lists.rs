//! `flask_login.md` and `SECURITY.md` name a test in each row. These tests exist.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

/// Adds the names of the tests in the Rust files below this folder.
fn add_tests(folder: &Path, names: &mut HashSet<String>) {
    for entry in fs::read_dir(folder).expect("a folder of the repository") {
        let path = entry.expect("an entry of the folder").path();
        if path.is_dir() {
            add_tests(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let code = fs::read_to_string(&path).expect("source code");
            let after_attributes =
                code.split("#[test]").skip(1).chain(code.split("#[tokio::test").skip(1));
            names.extend(after_attributes.filter_map(first_function).map(str::to_owned));
        }
    }
}

/// Returns the name of the first function in this code.
fn first_function(code: &str) -> Option<&str> {
    Some(code.split_once("fn ")?.1.split_once('(')?.0)
}

/// Checks that the last cell of each row names existing tests, separated by commas, or gives a
/// reason after a dash. Returns the first cells of the rows.
fn check_list(list: &str) -> Vec<&str> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository");
    let mut tests = HashSet::new();
    for folder in ["adapters", "crates", "examples", "tests"] {
        add_tests(&root.join(folder), &mut tests);
    }
    let mut first_cells = Vec::new();
    let mut lines = list.lines().peekable();
    while let Some(line) = lines.next() {
        let is_heading = lines.peek().is_some_and(|next| next.starts_with("| ---"));
        let Some(row) = line.strip_prefix("| ").and_then(|row| row.strip_suffix(" |")) else {
            continue;
        };
        if is_heading || line.starts_with("| ---") {
            continue;
        }
        let (first, rest) = row.split_once(" | ").expect("at least two cells");
        let last = rest.rsplit(" | ").next().unwrap_or(rest);
        match last.strip_prefix("- ") {
            Some(reason) => assert!(reason.len() > 10, "{line}"),
            None => {
                for name in last.split(", ") {
                    assert!(tests.contains(name), "there is no test `{name}`: {line}");
                }
            }
        }
        first_cells.push(first);
    }
    first_cells
}

#[test]
fn each_test_of_flask_login_has_a_counterpart_or_a_reason() {
    let names = check_list(include_str!("../flask_login.md"));
    assert_eq!(names.len(), 107);
    assert!(names.iter().all(|name| name.contains(".test_")));
}

#[test]
fn each_security_case_names_its_tests() {
    let numbers = check_list(include_str!("../SECURITY.md"));
    let expected: Vec<String> = (1..=numbers.len()).map(|number| number.to_string()).collect();
    assert_eq!(numbers, expected);
    assert!(numbers.len() >= 42);
}
