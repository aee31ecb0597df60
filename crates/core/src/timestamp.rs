//! Times as session records keep them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment, in whole seconds since 1970, until the year 2106.
///
/// As small as in a cookie. What lies before or beyond is the first or the last moment there is;
/// nothing here overflows.
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
    /// The last moment there is; stands for "never".
    pub const MAX: Self = Self(u32::MAX);

    /// This many seconds after 1970 began (UTC).
    pub const fn from_secs(seconds: u32) -> Self {
        Self(seconds)
    }

    /// The seconds since 1970 began (UTC).
    pub const fn as_secs(self) -> u32 {
        self.0
    }

    /// This many seconds later.
    #[must_use]
    pub const fn plus(self, seconds: u32) -> Self {
        Self(self.0.saturating_add(seconds))
    }

    /// This many seconds earlier.
    #[must_use]
    pub const fn minus(self, seconds: u32) -> Self {
        Self(self.0.saturating_sub(seconds))
    }

    /// The seconds that have passed since an earlier moment; 0 if it is a later one.
    pub const fn since(self, earlier: Self) -> u32 {
        self.0.saturating_sub(earlier.0)
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u32::try_from(since.as_secs()).unwrap_or(u32::MAX))
    }
}

impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> Self {
        UNIX_EPOCH + Duration::from_secs(time.0.into())
    }
}
