//! A clock that tests move.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tower_keep_core::Clock;

/// A clock that shows the same time until a test moves it. Clones share the time.
///
/// ```
/// use std::time::Duration;
/// use tower_keep_core::Clock;
/// use tower_keep_testkit::TestClock;
///
/// let clock = TestClock::new();
/// let before = clock.now();
/// clock.advance(Duration::from_secs(3600));
/// assert_eq!(clock.now().duration_since(before).unwrap().as_secs(), 3600);
/// ```
#[derive(Clone, Debug)]
pub struct TestClock {
    unix_seconds: Arc<AtomicU64>,
}

impl TestClock {
    /// Creates a clock that shows the current time, in whole seconds.
    pub fn new() -> Self {
        let unix_time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { unix_seconds: Arc::new(AtomicU64::new(unix_time.as_secs())) }
    }

    /// Moves the clock forward by this duration, rounded down to whole seconds.
    pub fn advance(&self, by: Duration) {
        self.unix_seconds.fetch_add(by.as_secs(), Ordering::SeqCst);
    }

    /// Moves the clock back by this duration, rounded down to whole seconds. Real clocks go back
    /// when they are corrected.
    pub fn go_back(&self, by: Duration) {
        self.unix_seconds.fetch_sub(by.as_secs(), Ordering::SeqCst);
    }
}

impl Default for TestClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for TestClock {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.unix_seconds.load(Ordering::SeqCst))
    }
}
