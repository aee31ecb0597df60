//! What must not be imported. `ARCHITECTURE.md` says why.

use super::uses::Arrow;

/// Files that may import each other, because they are the two halves of one codec.
const CODECS: [[&str; 2]; 1] =
    [["adapters/datastore/src/value/ser.rs", "adapters/datastore/src/value/types.rs"]];

/// Files and folders that must not import those beside them. A path covers everything below it.
const FORBIDDEN: [(&str, &[&str]); 7] = [
    // The bytes of cookies know no login.
    (KEEP_COOKIE, &["crates/keep/src/login", KEEP_LAYER, KEEP_GUARD, "crates/keep/src/keyring.rs"]),
    // The rules do no I/O, and know no clock, no request, no user type and no configuration.
    ("crates/keep/src/login/stateless/rules.rs", RULES_AVOID),
    ("crates/keep/src/login/server_side/rules.rs", RULES_AVOID),
    ("crates/keep/src/login/shared_rules.rs", RULES_AVOID),
    // Snapshot, resolve, handler, write: a step knows none of the later ones.
    ("crates/keep/src/login/stateless", LATER_THAN_RESOLVE),
    ("crates/keep/src/login/server_side", LATER_THAN_RESOLVE),
    // The handle knows no guard, and a guard knows no extractor.
    ("crates/keep/src/login", &[KEEP_GUARD, "crates/keep/src/extract.rs"]),
];

const KEEP_COOKIE: &str = "crates/keep/src/cookie";
const KEEP_GUARD: &str = "crates/keep/src/guard";
const KEEP_LAYER: &str = "crates/keep/src/layer";

const RULES_AVOID: &[&str] = &[
    "http",
    "std/time",
    "tokio",
    "tracing",
    "tower_keep_core/AuthUser",
    KEEP_LAYER,
    KEEP_GUARD,
    "crates/keep/src/event.rs",
    "crates/keep/src/keyring.rs",
    "crates/keep/src/loader",
    "crates/keep/src/login/handle.rs",
    "crates/keep/src/login/snapshot.rs",
    "crates/keep/src/login/state.rs",
    "crates/keep/src/sessions.rs",
    "crates/keep/src/upkeep.rs",
];

const LATER_THAN_RESOLVE: &[&str] = &[
    "crates/keep/src/login/change.rs",
    "crates/keep/src/login/handle.rs",
    "crates/keep/src/login/log_in.rs",
    "crates/keep/src/login/response_headers.rs",
];

/// Returns what is wrong with this import, or `None` if it is allowed.
pub(super) fn forbidden(arrow: &Arrow) -> Option<String> {
    let covers = |path: &str, file: &str| {
        file.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let is_forbidden = FORBIDDEN.iter().any(|(from, avoid)| {
        covers(from, &arrow.from) && avoid.iter().any(|path| covers(path, &arrow.to))
    });
    is_forbidden.then(|| {
        let Arrow { from, to, name, .. } = arrow;
        format!("{from} must not import `{name}` from {to}: see the arrows in ARCHITECTURE.md")
    })
}

pub(super) fn is_one_codec(circle: &[String]) -> bool {
    CODECS.iter().any(|codec| circle == codec)
}
