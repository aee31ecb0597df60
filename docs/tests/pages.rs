//! Every page is in the summary and is compiled, no code block escapes the compiler, and every link
//! and picture exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn guide() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("guide")
}

/// Returns the name and the text of each page.
fn pages() -> Vec<(String, String)> {
    let entries = fs::read_dir(guide()).expect("the directory of the pages");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let pages = paths.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let page = |path: PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        (name, fs::read_to_string(path).expect("UTF-8"))
    };
    pages.map(page).filter(|(name, _)| name != "SUMMARY.md").collect()
}

/// Returns the texts between `before` and `after`.
fn all_between<'a>(text: &'a str, before: &'a str, after: char) -> impl Iterator<Item = &'a str> {
    text.split(before).skip(1).filter_map(move |rest| rest.split(after).next())
}

/// Returns the page without its code blocks.
fn prose_of(page: &str) -> String {
    page.split("```").step_by(2).collect()
}

#[test]
fn every_page_is_in_the_summary_and_is_compiled() {
    let names: BTreeSet<String> = pages().into_iter().map(|(name, _)| name).collect();
    let summary = fs::read_to_string(guide().join("SUMMARY.md")).expect("the summary");
    let listed: BTreeSet<String> = all_between(&summary, "](", ')').map(str::to_owned).collect();
    assert_eq!(names, listed);
    let modules = include_str!("../src/lib.rs");
    for name in &names {
        assert!(modules.contains(&format!("{name:?}")), "{name} is not in src/lib.rs");
    }
}

#[test]
fn a_block_that_is_not_compiled_here_is_a_file_that_is_compiled_elsewhere() {
    for (name, page) in pages() {
        for block in page.split("```").skip(1).step_by(2) {
            let (language, code) = block.split_once('\n').expect("a code block has lines");
            let known = [
                "rust",
                "rust,no_run",
                "rust,ignore",
                "diff",
                "html",
                "json",
                "nginx",
                "proto",
                "sh",
                "sql",
                "toml",
            ];
            assert!(known.contains(&language), "{name}: {language:?}");
            if language != "rust,ignore" {
                continue;
            }
            for line in code.lines().filter(|line| *line != "// …") {
                let path =
                    line.strip_prefix("{{#include ").and_then(|rest| rest.strip_suffix("}}"));
                let path = path.unwrap_or_else(|| panic!("{name}: {line:?} is not compiled"));
                let (path, _lines) = path.split_once(".rs").expect("a Rust file");
                assert!(guide().join(format!("{path}.rs")).is_file(), "{name}: {path}");
            }
        }
    }
}

#[test]
fn the_change_to_another_store_is_that_of_the_example() {
    let page = fs::read_to_string(guide().join("stores.md")).expect("the page");
    let change = all_between(&page, "```diff", '`').next().expect("a change");
    let example = guide().join("../../examples/first-login/src");
    for (sign, file) in [('-', "after.rs"), ('+', "postgres.rs"), (' ', "postgres.rs")] {
        let code = fs::read_to_string(example.join(file)).expect("a program");
        for line in change.lines().filter_map(|line| line.strip_prefix(sign)) {
            assert!(code.lines().any(|found| found == line), "{line:?} is not in {file}");
        }
    }
}

#[test]
fn every_link_leads_to_a_page_a_heading_or_a_picture() {
    let pages = pages();
    let mut link_count = 0;
    for (name, page) in &pages {
        let prose = prose_of(page);
        for link in all_between(&prose, "](", ')').filter(|link| !link.contains("://")) {
            link_count += 1;
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let path = if path.is_empty() { name } else { path };
            assert!(guide().join(path).is_file(), "{name}: {link}");
            let target = pages.iter().find(|(name, _)| name == path);
            let headings = target.map(|(_, page)| prose_of(page)).unwrap_or_default();
            let mut headings = headings.lines().filter(|line| line.starts_with('#'));
            let found = headings.any(|line| id(line) == heading);
            assert!(heading.is_empty() || found, "{name}: {link}");
        }
    }
    assert!(link_count > 30, "{link_count}");
}

/// Returns the id that mdBook gives to a heading.
fn id(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().replace(' ', "-")
}
