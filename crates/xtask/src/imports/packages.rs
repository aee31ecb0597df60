//! The packages that a package needs.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// The packages of this workspace that each published package may need, tests left out.
const NEEDS: [(&str, &[&str]); 10] = [
    ("tower-keep-core", &[]),
    ("tower-keep-memory", &["tower-keep-core"]),
    ("tower-keep-redis", &["tower-keep-core"]),
    ("tower-keep-datastore", &["tower-keep-core"]),
    ("tower-keep-sql", &["tower-keep-core"]),
    ("tower-keep-sqlite", &["tower-keep-core", "tower-keep-sql"]),
    ("tower-keep-postgres", &["tower-keep-core", "tower-keep-sql"]),
    ("tower-keep-mysql", &["tower-keep-core", "tower-keep-sql"]),
    ("tower-keep", &["tower-keep-core"]),
    ("tower-keep-testkit", &["tower-keep", "tower-keep-core"]),
];

/// What a package must not need of other projects. A name also stands for those that begin with it.
const AVOIDS: [(&str, &[&str]); 2] = [
    ("tower-keep-core", &["axum", "http", "hyper", "tower-", "sqlx", "redis", "gcloud"]),
    ("tower-keep", &["actix", "gcloud", "hyper", "poem", "redis", "salvo", "sqlx", "warp"]),
];

/// Returns what the packages need although they must not.
pub(super) fn check(root: &Path) -> Result<Vec<String>, String> {
    let output = Command::new(crate::cargo())
        .current_dir(root)
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .map_err(|error| format!("`cargo metadata` could not be started: {error}"))?;
    let metadata: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("`cargo metadata` printed no JSON: {error}"))?;
    let packages = metadata["packages"].as_array().ok_or("`cargo metadata` listed no packages")?;
    Ok(problems(packages))
}

pub(super) fn problems(packages: &[Value]) -> Vec<String> {
    let is_ours = |name: &str| packages.iter().any(|package| package["name"] == name);
    let mut problems = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let allowed = NEEDS.iter().find(|(package, _)| *package == name);
        if allowed.is_none() && package["publish"].is_null() {
            problems
                .push(format!("{name} is published, and the check of imports does not know it"));
        }
        let Some((_, allowed)) = allowed else { continue };
        let avoided = AVOIDS.iter().find(|(package, _)| *package == name);
        let avoided = avoided.map_or(&[][..], |(_, avoided)| avoided);
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let needed = dependency["name"].as_str().unwrap_or_default();
            // Tests may need anything that is no circle for cargo.
            let is_forbidden = dependency["kind"] != "dev"
                && match is_ours(needed) {
                    true => !allowed.contains(&needed),
                    false => avoided.iter().any(|avoided| needed.starts_with(avoided)),
                };
            if is_forbidden {
                problems.push(format!("{name} must not need {needed}: see ARCHITECTURE.md"));
            }
            let is_framework = needed == "axum" || needed == "tonic";
            if is_framework && dependency["kind"].is_null() && dependency["optional"] != true {
                problems.push(format!("{name} must need {needed} only for a feature"));
            }
        }
    }
    problems
}
