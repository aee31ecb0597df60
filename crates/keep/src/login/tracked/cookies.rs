//! Making the cookies of a login with a record out.

use http::HeaderValue;
use tower_keep_core::{AuthUser, SessionRecord, Timestamp};

use crate::cookie::{FORCED, Held, TrackedRemember, TrackedSession, TrackedTerms};
use crate::keys::KeySlot;
use crate::layer::Config;
use crate::login::issue::{client_digest, remember_cookie, session_cookie};
use crate::login::snapshot::Snapshot;
use crate::login::state::{Change, Cookies, Current, Tracked};
use crate::rules::tracked::{RememberChange, SessionChange, Verdict};

/// Makes cookies out for a user.
pub(super) struct Made<'a, U> {
    pub(super) config: &'a Config<U>,
    pub(super) snapshot: &'a Snapshot,
    pub(super) user: &'a U,
    pub(super) now: u32,
}

impl<U: AuthUser> Made<'_, U> {
    /// The cookies that the rules want.
    pub(super) fn follow(
        &self,
        verdict: &Verdict,
        mut tracked: Tracked,
        session: Option<&Held<TrackedSession>>,
    ) -> Cookies {
        let mut cookies = cookies_of_nobody(self.config, verdict, self.now);
        match verdict.session {
            SessionChange::Keep | SessionChange::Clear => {}
            SessionChange::Restore(terms) => {
                tracked.flags = terms.flags;
                cookies.session = self.session(&tracked, terms, self.here());
            }
            SessionChange::Issue(terms) => {
                // As with cookies alone: bound to the client that logged in, if its digest is still
                // one of the current key.
                let bound = session.filter(|held| held.slot.is_current());
                let client = bound.map_or_else(|| self.here(), |held| held.cookie.client);
                tracked.flags = terms.flags;
                cookies.session = self.session(&tracked, terms, client);
            }
        }
        if let RememberChange::Issue { flags, generation, expires } = verdict.remember {
            cookies.remember = self.remember(&tracked, flags, generation, expires);
        }
        cookies.current = Current::Tracked(tracked);
        cookies
    }

    fn here(&self) -> u64 {
        client_digest(self.config, self.snapshot, KeySlot::CURRENT)
    }

    fn stamp(&self, record: &SessionRecord) -> u64 {
        let id = record.user.as_bytes();
        self.config.keyring.stamp(KeySlot::CURRENT, id, &self.user.stamp())
    }

    fn session(&self, tracked: &Tracked, terms: TrackedTerms, client: u64) -> Change<HeaderValue> {
        let Tracked { id, record, .. } = tracked;
        let is_short = record.user.as_bytes().len() <= TrackedSession::LONGEST_LIKELY;
        let likely = if is_short { record.user.clone() } else { "".into() };
        let session = TrackedSession { id: *id, terms, stamp: self.stamp(record), client, likely };
        session_cookie(self.config, &session, record.session_started.as_secs(), self.now)
    }

    fn remember(
        &self,
        tracked: &Tracked,
        flags: u8,
        generation: u32,
        expires: u32,
    ) -> Change<HeaderValue> {
        let Tracked { id, record, .. } = tracked;
        let keyring = &self.config.keyring;
        let verifier = keyring.verifier(KeySlot::CURRENT, &record.salt, *id, generation);
        let stamp = self.stamp(record);
        let remember = TrackedRemember { id: *id, flags, generation, verifier, expires, stamp };
        remember_cookie(self.config, &remember, expires, self.now)
    }

    /// Both cookies of the record's generation, or the session's alone; fresh if the user has just
    /// proved who they are.
    pub(super) fn anew(&self, tracked: Tracked, fresh: bool) -> (u32, Cookies) {
        let Tracked { flags, record, is_remembered, .. } = &tracked;
        // Zero stands for "not fresh", whatever the clock says.
        let fresh = if fresh { self.now.max(1) } else { 0 };
        let (flags, generation, issued) = (*flags, record.generation, self.now);
        let terms = TrackedTerms { flags, generation, issued, fresh };
        let session = self.session(&tracked, terms, self.here());
        let expires = record.remember_expires.map(Timestamp::as_secs);
        let expires = expires.filter(|expires| *is_remembered && self.now < *expires);
        let remember = expires.map_or(Change::Keep, |expires| {
            self.remember(&tracked, flags & FORCED, generation, expires)
        });
        let current = Current::Tracked(tracked);
        (fresh, Cookies { current, session, remember, until: u32::MAX })
    }
}

/// The cookies of a request that knows nobody by them: at most, they are cleared.
pub(super) fn cookies_of_nobody<U>(config: &Config<U>, verdict: &Verdict, now: u32) -> Cookies {
    Cookies {
        current: Current::Nothing,
        session: Change::clear_if(verdict.session == SessionChange::Clear),
        remember: Change::clear_if(verdict.remember == RememberChange::Clear),
        until: now.saturating_add(config.policy.cookies_age()),
    }
}
