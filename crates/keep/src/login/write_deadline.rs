//! How late a response may set the cookies of a server-side session.

use super::policy::Policy;

impl Policy {
    /// Returns how many seconds after the rules' decision its cookies may still be written. Later,
    /// the response sets no cookies: they could replace newer cookies in the browser, and the
    /// browser's earlier cookies are still valid.
    ///
    /// The time is a tenth of the grace. It is too short for a user to confirm the login and then
    /// to send a request with the new cookies.
    pub(crate) fn max_cookie_age(&self) -> u32 {
        (self.grace / 10).max(1)
    }
}

/// How late the cookies of a confirmation, or of a changed security stamp, may be written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum WriteDeadline {
    /// Within half of the grace. Later, the browser keeps its earlier cookies, which are still
    /// valid.
    HalfOfGrace,
    /// At any time: the security stamp has changed, so the earlier cookies are no longer valid.
    None,
}

impl WriteDeadline {
    /// Returns until when the response may set the cookies, in seconds since 1970, or `None` if it
    /// always may. `now` is when they were decided on.
    pub(crate) fn write_until(self, policy: &Policy, now: u32) -> Option<u32> {
        match self {
            Self::HalfOfGrace => Some(now.saturating_add(policy.grace / 2)),
            Self::None => None,
        }
    }
}
