//! Searching a store's files for what it must not hold.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::{HeaderName, StatusCode};
use tower_keep_testkit::TestClock;
use tower_keep_testkit::client::Client;

use super::site::{NodeSettings, node_site};
use crate::WatchedStore;

/// What was typed, and from where; none of it may be in the store.
#[derive(Debug)]
pub struct Guesses {
    /// It stands still, so that a slow restart of a server is no wait.
    clock: TestClock,
    names: Vec<String>,
    addresses: Vec<String>,
}

impl Guesses {
    /// Guesses the passwords of names that nobody has, six times each, so that the last guess is
    /// refused.
    ///
    /// # Panics
    ///
    /// Panics if a response is not as expected.
    pub async fn make(store: WatchedStore) -> Self {
        let names = ["zaphod-beeblebrox", "trillian.astra@example.org"].map(str::to_owned).to_vec();
        let addresses = ["198.51.100.177", "203.0.113.211"].map(str::to_owned).to_vec();
        let clock = TestClock::new();
        let site = node_site(store, clock.clone(), &NodeSettings::default()).await;
        for (name, address) in names.iter().zip(&addresses) {
            let mut browser = Client::new(site.clone());
            browser.set_header(HeaderName::from_static("x-forwarded-for"), address);
            let mut last = StatusCode::OK;
            for _ in 0..6 {
                let form = [("login", name.as_str()), ("password", "forty two")];
                last = browser.post("/sign-in", &form).await.status;
            }
            assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
        }
        Self { clock, names, addresses }
    }

    /// Checks that the guesses are still counted.
    ///
    /// # Panics
    ///
    /// Panics if a guess reaches the hash.
    pub async fn assert_still_counted(&self, store: WatchedStore) {
        let site = node_site(store, self.clock.clone(), &NodeSettings::default()).await;
        for name in &self.names {
            let form = [("login", name.as_str()), ("password", "forty two")];
            let response = Client::new(site.clone()).post("/sign-in", &form).await;
            assert_eq!(response.status, StatusCode::TOO_MANY_REQUESTS, "{name}");
        }
    }

    /// Checks that no file in this directory, or below it, has a name or an address in it. A name
    /// that is in the store, `user1`, must be found, which shows that these are the right files.
    ///
    /// # Panics
    ///
    /// Panics if one is found, or if a file can't be read.
    pub fn assert_absent_below(&self, directory: &Path) {
        let mut is_right_directory = false;
        for_each_file(directory, &mut |path, bytes| {
            is_right_directory |= contains(bytes, b"user1");
            for text in self.names.iter().chain(&self.addresses) {
                let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
                for form in [text.clone(), hex.to_uppercase(), hex, STANDARD_NO_PAD.encode(text)] {
                    assert!(!contains(bytes, form.as_bytes()), "{form} is in {}", path.display());
                }
            }
        });
        assert!(is_right_directory, "no stored name is in {}", directory.display());
    }
}

fn for_each_file(directory: &Path, visit: &mut impl FnMut(&Path, &[u8])) {
    for entry in fs::read_dir(directory).expect("a directory of a store") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            for_each_file(&path, visit);
        } else if path.is_file() {
            // A running server may remove a file at any time.
            if let Ok(bytes) = fs::read(&path) {
                visit(&path, &bytes);
            }
        }
    }
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    memchr::memmem::find(bytes, text).is_some()
}
