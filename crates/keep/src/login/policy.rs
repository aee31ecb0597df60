//! The settings that the rules of a login follow, and the times that follow from them.

use crate::client::SessionProtection;

/// The application's settings. Times are in seconds.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) protection: SessionProtection,
    /// Whether the browser keeps the session cookie after it is closed.
    pub(crate) is_persistent: bool,
    /// How long a session may be unused; `None` for no limit.
    pub(crate) idle_limit: Option<u32>,
    /// A session cookie of this age is reissued; `None` if age is no reason to reissue it.
    pub(crate) renewal_age: Option<u32>,
    /// How long a session may last, even if it is used; `None` for no limit.
    pub(crate) absolute_limit: Option<u32>,
    /// Whether use of the login extends the remember cookie's validity.
    pub(crate) refreshes_remember: bool,
    /// How long the cookies of a generation stay valid after a request has used the cookies of the
    /// next generation. The record of an ended session is kept for at least this time.
    pub(crate) grace: u32,
    /// A record's time of last use is written again when it is this old.
    pub(crate) touch_interval: u32,
    /// Whether the first use of a session is recorded. A session limit that refuses logins needs
    /// this: under such a limit, only sessions that no request has used make room.
    pub(crate) marks_first_use: bool,
}

impl Policy {
    /// Returns the age at which a session cookie is reissued: a tenth of the idle limit. So the
    /// limit is exact to a tenth, and most responses set no cookie.
    pub(crate) fn renewal_age_for(idle_limit: u32) -> u32 {
        (idle_limit / 10).max(1)
    }

    /// Checks whether a session that was last used at `used` and began at `started` is past a
    /// limit.
    pub(crate) fn is_past_limit(&self, used: u32, started: u32, now: u32) -> bool {
        let past = |limit: Option<u32>, since: u32| {
            limit.is_some_and(|limit| now.saturating_sub(since) >= limit)
        };
        past(self.idle_limit, used) || past(self.absolute_limit, started)
    }

    /// Returns how long a browser should keep the session cookie, or `None` if it should keep the
    /// cookie until it is closed.
    pub(crate) fn session_max_age(&self, started: u32, now: u32) -> Option<u32> {
        let left =
            self.absolute_limit.map(|limit| limit.saturating_sub(now.saturating_sub(started)));
        let max_age = self.idle_limit.into_iter().chain(left).min();
        // Without any limit, the cookie lasts as long as browsers keep a cookie: 400 days
        // (RFC 6265bis §5.6.2).
        self.is_persistent.then(|| max_age.unwrap_or(400 * 24 * 3_600))
    }

    /// Returns when a session's record expires: the time from which neither the session nor its
    /// remember cookie can be valid. `used` is when the session was last used, and `started` is
    /// when it began.
    pub(crate) fn record_expires(
        &self,
        used: u32,
        started: u32,
        remember_expires: Option<u32>,
    ) -> u32 {
        let after = |since: u32, limit: Option<u32>| limit.map(|limit| since.saturating_add(limit));
        let session = [after(used, self.idle_limit), after(started, self.absolute_limit)];
        let session = session.into_iter().flatten().min().unwrap_or(u32::MAX);
        session.max(remember_expires.unwrap_or_default())
    }
}
