//! The rules: who is logged in, given what a request presented. No I/O, no clock, no `http`.
//!
//! A state machine that borrows what was seen. `Rules::start` and then each answer lead to the next
//! `Step`; the service around it does what the step asks and feeds the answer back. A fault between
//! two steps drops the machine, and with it everything that it would have changed.
//!
//! | look for | in |
//! | --- | --- |
//! | logins of cookies alone | [`stateless`] |
//! | logins with a record, their generations and replays | [`tracked`] |

use crate::SessionProtection;
use crate::cookie::FORCED;

pub(crate) mod stateless;
pub(crate) mod tracked;

/// What the application has settled. Times in seconds.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) protection: SessionProtection,
    pub(crate) persistent: bool,
    pub(crate) idle: Option<u32>,
    pub(crate) absolute: Option<u32>,
    pub(crate) refresh_remember: bool,
    /// How long a superseded generation, and the tombstone of a session, still count.
    pub(crate) grace: u32,
    /// How old a record's note of its last use may get.
    pub(crate) touch: u32,
    /// Whether the first use of a session is noted: where one that was never used makes room for
    /// another.
    pub(crate) notes_first_use: bool,
}

impl Policy {
    /// How old a session's cookie may get before it is renewed: a tenth of the idle limit, so that
    /// the limit is kept that exactly and most responses set no cookie.
    fn renewal(&self) -> Option<u32> {
        self.idle.map(|idle| (idle / 10).max(1))
    }

    /// Whether a session that was last used and begun then is past a limit.
    fn is_over(&self, used: u32, started: u32, now: u32) -> bool {
        let past = |limit: Option<u32>, since: u32| {
            limit.is_some_and(|limit| now.saturating_sub(since) >= limit)
        };
        past(self.idle, used) || past(self.absolute, started)
    }

    /// How long a browser should keep the session cookie; `None` until it is closed.
    pub(crate) fn session_max_age(&self, started: u32, now: u32) -> Option<u32> {
        let left = self.absolute.map(|limit| limit.saturating_sub(now.saturating_sub(started)));
        let longest = self.idle.into_iter().chain(left).min();
        // No limit at all: as long as browsers keep a cookie (RFC 6265bis §5.6.2, 400 days).
        self.persistent.then(|| longest.unwrap_or(400 * 24 * 3_600))
    }

    /// How old cookies may get that a request was given along the way, before their answer is
    /// written, in seconds. Later they could come in the place of newer ones; those before them still
    /// work. A tenth of the grace: within it nobody confirms, and is seen with what that gave.
    pub(crate) fn cookies_age(&self) -> u32 {
        (self.grace / 10).max(1)
    }

    /// Until when a session that was used and begun then can live on, by itself or remembered.
    pub(crate) fn lives_until(&self, used: u32, started: u32, remember: Option<u32>) -> u32 {
        let after = |since: u32, limit: Option<u32>| limit.map(|limit| since.saturating_add(limit));
        let session = [after(used, self.idle), after(started, self.absolute)];
        let session = session.into_iter().flatten().min().unwrap_or(u32::MAX);
        session.max(remember.unwrap_or_default())
    }
}

/// What the rules need to know of a user who was looked up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub(crate) active: bool,
    pub(crate) session_stamp_holds: bool,
    pub(crate) remember_stamp_holds: bool,
}

/// Who it is, as far as the cookies tell.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Who {
    #[default]
    Nobody,
    /// The user who was loaded last.
    User { fresh: u32, active: bool },
}

/// A user who has become active needs no force any more, and a later deactivation counts again.
fn flags_of(flags: u8, facts: Facts) -> u8 {
    if facts.active { flags & !FORCED } else { flags }
}
