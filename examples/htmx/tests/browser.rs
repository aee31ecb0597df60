//! Uses the site in Chromium with htmx 2 and 4, as `browser.mjs` says.

use std::path::Path;

use tower_keep_tests::{Process, drive_chromium, npm_packages};

#[tokio::test]
async fn a_visitor_uses_the_site_with_htmx_2() {
    walk("htmx2").await;
}

#[tokio::test]
async fn a_visitor_uses_the_site_with_htmx_4() {
    walk("htmx4").await;
}

async fn walk(htmx: &str) {
    let file = npm_packages().join("node_modules").join(htmx).join("dist/htmx.min.js");
    let arguments = ["127.0.0.1:0", file.to_str().expect("UTF-8")];
    let site = Process::start(env!("CARGO_BIN_EXE_htmx-example"), &arguments, 3);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser.mjs");
    let steps = drive_chromium(&script, &format!("http://{}", site.address), htmx).await;
    assert_eq!(
        steps,
        [
            "after the login, htmx puts new tasks into the page",
            "after a logout in another tab, a button leads to the login page and back",
            "a button for fresh logins leads to the confirm page and back",
        ]
    );
}
