//! Waiting for servers: how long, and how often to check.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a server may take to respond, to stop or to end.
pub(super) const TIMEOUT: Duration = Duration::from_secs(60);
/// How long to wait between two checks.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Waits as long as the condition holds, but not longer than [`TIMEOUT`].
pub(super) fn wait_while(mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while condition() && begun.elapsed() < TIMEOUT {
        sleep(POLL_INTERVAL);
    }
}
