//! Uses the site in Chromium, as `browser.mjs` says.

use std::path::Path;

use tower_keep_tests::{Process, drive_chromium};

#[tokio::test]
async fn a_visitor_uses_the_site_in_chromium() {
    let arguments = ["--listen", "127.0.0.1:0", "--store", "memory"];
    let site = Process::start(env!("CARGO_BIN_EXE_quickstart"), &arguments, 4);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser.mjs");
    let origin = format!("http://{}", site.address);
    let steps = drive_chromium(&script, &origin, "quickstart").await;
    assert_eq!(
        steps,
        [
            "a login with remember me leads to the page that was wanted",
            "scripts and other sites get no cookie",
            "a browser that was closed is still logged in",
            "a page for fresh logins asks for the password again",
            "a device that is ended asks for a login at its next click",
            "a logout in one tab ends the login of the other",
            "the back button shows nothing after a logout",
            "a page of another site can log nobody in or out",
            "a stranger who guesses has to wait, and the user has not",
            "a visitor signs up",
        ]
    );
}
