//! The values that clauses store: new texts, unusual texts, and the current time.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use tower_keep_core::{Clock, SessionDetails, SystemClock, Timestamp};

/// Returns a new unique text that begins with `prefix`. It is unique even if several processes test
/// the same database.
pub(super) fn unique_text(prefix: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let random = RandomState::new().hash_one(count);
    format!("{prefix}-{random:016x}{count}")
}

/// Returns ids or names that stores may handle wrongly. Each of them begins with a [`unique_text`].
pub(super) fn unusual_texts() -> Vec<String> {
    let long = "long".repeat(375);
    ["", " ", "a\0b", "🦀🦀", "'; DROP TABLE users; --", "%_\\", "佐藤", "{}[]:*?", &long]
        .into_iter()
        .map(|text| {
            let prefix = unique_text("");
            // The longest text has 1,500 bytes, including the prefix.
            format!("{prefix}{}", &text[..text.len().min(1_500 - prefix.len())])
        })
        .collect()
}

/// Returns texts of session details that stores may handle wrongly. The last text has the greatest
/// allowed length.
pub(super) fn unusual_details() -> Vec<String> {
    // `{"a":""}` has eight bytes, and each crab has four.
    let longest = format!(r#"{{"a":"{}"}}"#, "🦀".repeat((SessionDetails::MAX_BYTES - 8) / 4));
    let mut texts = [
        "{}",
        r#"{"quotes":"\"'`","backslashes":"\\ \\\\ \\\" \/ \n \u0041 \ud83e\udd80"}"#,
        r#" { "b" : [1.0, 1e2 ,-0] ,"a":  null , "b":{ }, "" : "" }  "#,
        "{\"text\":\"é e\u{301} 佐藤 🦀 \u{feff}\u{2028}\u{10ffff}\"}",
        "'); DROP TABLE sessions; -- %_ ?1 $1 :a {0} [",
    ]
    .map(str::to_owned)
    .to_vec();
    texts.push(longest);
    texts
}

/// Returns the current time. Clauses derive all times from it instead of from a fixed time, because
/// a store that drops expired records by itself would drop records from the past.
pub(super) fn now() -> Timestamp {
    SystemClock.now().into()
}
