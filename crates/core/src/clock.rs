//! The source of the time.

use std::time::SystemTime;

/// Provides the current time, which decides whether a session has expired.
///
/// The server checks expiry itself, and does not rely on browsers to drop expired cookies. Tests
/// replace the system clock with a clock that they can set, such as the one in
/// `tower-keep-testkit`.
pub trait Clock: Send + Sync {
    /// Returns the current time.
    fn now(&self) -> SystemTime;
}

/// The clock of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

#[deny(clippy::missing_trait_methods)]
impl<C: Clock + ?Sized> Clock for std::sync::Arc<C> {
    fn now(&self) -> SystemTime {
        (**self).now()
    }
}
