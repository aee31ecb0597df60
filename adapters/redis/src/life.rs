//! How long keys live.

use std::time::Duration;

use tower_keep_core::{CLOCK_SKEW, Timestamp};

/// The owner key of a session (`KeyNames::session_owner`) lives this many milliseconds longer than
/// the record.
pub(crate) const OWNER_MARGIN: u64 = 60_000;

/// The time until a key expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// The key never expires.
    Forever,
    /// The expiry does not change.
    AsBefore,
    /// The key expires after this many milliseconds.
    Millis(u64),
}

impl Life {
    /// Returns the argument of the script that writes.
    pub(crate) fn argument(self) -> Vec<u8> {
        match self {
            Self::Forever => Vec::new(),
            Self::AsBefore => b"as before".to_vec(),
            Self::Millis(millis) => millis.to_string().into_bytes(),
        }
    }
}

/// Returns how long a record with this expiry is kept from now on, in milliseconds: until
/// [`CLOCK_SKEW`] seconds after it expires. Returns 0 if that time has passed.
pub(crate) fn life_millis(expires: Timestamp, now: Timestamp) -> u64 {
    u64::from(expires.plus(CLOCK_SKEW).since(now)) * 1_000
}

/// Returns a time in milliseconds, at least 1. With 0, an expiry is invalid and `WAIT` has no
/// limit.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}
