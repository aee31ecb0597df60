//! The times that session records hold.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point in time, in whole seconds since 1970, until the year 2106.
///
/// It has four bytes, in memory as in a cookie. A time before this range becomes the first point in
/// the range, and a time after the range becomes the last point. No method overflows.
///
/// ```
/// use tower_keep_core::Timestamp;
///
/// let login = Timestamp::from_secs(1_800_000_000);
/// assert_eq!(login.plus(60).since(login), 60);
/// assert_eq!(login.since(login.plus(60)), 0); // clocks of two servers differ
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u32);

impl Timestamp {
    /// The last point in time that can be represented. It stands for "never".
    pub const MAX: Self = Self(u32::MAX);

    /// Creates the point in time this many seconds after the start of 1970 (UTC).
    pub const fn from_secs(seconds: u32) -> Self {
        Self(seconds)
    }

    /// Returns the seconds since the start of 1970 (UTC).
    pub const fn as_secs(self) -> u32 {
        self.0
    }

    /// Returns the point in time this many seconds later.
    #[must_use]
    pub const fn plus(self, seconds: u32) -> Self {
        Self(self.0.saturating_add(seconds))
    }

    /// Returns the point in time this many seconds earlier.
    #[must_use]
    pub const fn minus(self, seconds: u32) -> Self {
        Self(self.0.saturating_sub(seconds))
    }

    /// Returns the seconds that have passed since `earlier`, or 0 if `earlier` is later than
    /// `self`.
    pub const fn since(self, earlier: Self) -> u32 {
        self.0.saturating_sub(earlier.0)
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since_1970 = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u32::try_from(since_1970.as_secs()).unwrap_or(u32::MAX))
    }
}

impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> Self {
        UNIX_EPOCH + Duration::from_secs(time.0.into())
    }
}
