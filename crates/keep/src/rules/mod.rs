//! The rules: they decide who is logged in, from the cookies that a request sent. They do no I/O
//! and know no clock and no `http` type.
//!
//! `Rules` is a state machine that borrows the cookies. `Rules::start` returns the first `Step`.
//! The service around it carries the step out and passes the result back, which returns the next
//! step. An error between two steps drops the machine, and with it everything that it would have
//! changed.
//!
//! | look for | in |
//! | --- | --- |
//! | logins that only cookies hold | [`stateless`] |
//! | server-side sessions, their generations and replays | [`server_side`] |

use crate::client::SessionProtection;
use crate::cookie::Origin;

pub(crate) mod server_side;
pub(crate) mod stateless;

/// The application's settings. Times are in seconds.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) protection: SessionProtection,
    pub(crate) persistent: bool,
    pub(crate) idle: Option<u32>,
    /// How old a session cookie may get before it is renewed.
    pub(crate) renewal: Option<u32>,
    pub(crate) absolute: Option<u32>,
    pub(crate) refresh_remember: bool,
    /// How long a superseded generation, and the tombstone of an ended session, still count.
    pub(crate) grace: u32,
    /// How old a record's time of last use may get before it is written again.
    pub(crate) touch: u32,
    /// Whether the first use of a session is recorded. This is needed where a session that was
    /// never used makes room for another.
    pub(crate) notes_first_use: bool,
}

impl Policy {
    /// Returns how old a session cookie may get before it is renewed: a tenth of the idle limit. So
    /// the limit is exact to a tenth, and most responses set no cookie.
    pub(crate) fn renewal_of(idle: u32) -> u32 {
        (idle / 10).max(1)
    }

    /// Checks whether a session is past a limit, given when it was last used and when it began.
    fn is_over(&self, used: u32, started: u32, now: u32) -> bool {
        let past = |limit: Option<u32>, since: u32| {
            limit.is_some_and(|limit| now.saturating_sub(since) >= limit)
        };
        past(self.idle, used) || past(self.absolute, started)
    }

    /// Returns how long a browser should keep the session cookie, or `None` if it should keep the
    /// cookie until it is closed.
    pub(crate) fn session_max_age(&self, started: u32, now: u32) -> Option<u32> {
        let left = self.absolute.map(|limit| limit.saturating_sub(now.saturating_sub(started)));
        let longest = self.idle.into_iter().chain(left).min();
        // Without any limit, the cookie lasts as long as browsers keep one: 400 days
        // (RFC 6265bis §5.6.2).
        self.persistent.then(|| longest.unwrap_or(400 * 24 * 3_600))
    }

    /// Returns how old, in seconds, the cookies that the rules decided on may be when the response
    /// is written. Older ones are not sent: they could replace newer cookies, and the browser's
    /// earlier cookies still work. A tenth of the grace is too short for a user to confirm the
    /// login and for the browser to send the cookies of that confirmation.
    pub(crate) fn cookies_age(&self) -> u32 {
        (self.grace / 10).max(1)
    }

    /// Returns until when a session can stay alive, by itself or by the remember cookie, given when
    /// it was last used and when it began.
    pub(crate) fn lives_until(&self, used: u32, started: u32, remember: Option<u32>) -> u32 {
        let after = |since: u32, limit: Option<u32>| limit.map(|limit| since.saturating_add(limit));
        let session = [after(used, self.idle), after(started, self.absolute)];
        let session = session.into_iter().flatten().min().unwrap_or(u32::MAX);
        session.max(remember.unwrap_or_default())
    }
}

/// What the rules need to know about a user who was looked up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub(crate) active: bool,
    pub(crate) session_stamp_holds: bool,
    pub(crate) remember_stamp_holds: bool,
}

/// The user whom the cookies identify.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Who {
    #[default]
    Nobody,
    /// The user who was loaded last.
    User {
        /// When they last proved who they are; `None` if the login is not fresh.
        fresh_since: Option<u32>,
        active: bool,
    },
}

/// Returns the origin of a login, given what is known about its user now. A login of an active user
/// is no longer forced, so a later deactivation counts again.
fn origin_now(origin: Origin, facts: Facts) -> Origin {
    Origin { is_forced: origin.is_forced && !facts.active, ..origin }
}
