//! Uses the page in Chromium, as `browser.mjs` says.

use std::path::Path;

use tower_keep_tests::{Process, drive_chromium};

#[tokio::test]
async fn a_visitor_uses_the_page_in_chromium() {
    let site = Process::start(env!("CARGO_BIN_EXE_spa-example"), &["127.0.0.1:0"], 3);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser.mjs");
    let steps = drive_chromium(&script, &format!("http://{}", site.address), "spa").await;
    assert_eq!(
        steps,
        [
            "the first call asks for a login",
            "a fresh login may delete at once",
            "a remembered login may add, and confirms before it deletes",
            "after a logout in another tab, the next call asks for a login and is repeated",
        ]
    );
}
