//! Issuing the cookies of a login with a server-side session.

use http::HeaderValue;
use tower_keep_core::{AuthUser, SessionRecord, Timestamp};

use crate::cookie::{FORCED, Held, ServerRemember, ServerSession, ServerTerms};
use crate::keys::KeySlot;
use crate::layer::Config;
use crate::login::issue::{client_digest, remember_cookie, session_cookie};
use crate::login::snapshot::Snapshot;
use crate::login::state::{Change, Cookies, Current, ServerSide};
use crate::rules::server_side::{RememberChange, SessionChange, Verdict};

/// Issues cookies for a user.
pub(super) struct Made<'a, U> {
    pub(super) config: &'a Config<U>,
    pub(super) snapshot: &'a Snapshot,
    pub(super) user: &'a U,
    pub(super) now: u32,
}

impl<U: AuthUser> Made<'_, U> {
    /// Returns the changes of the cookies that the rules have decided.
    pub(super) fn follow(
        &self,
        verdict: &Verdict,
        mut server_side: ServerSide,
        session: Option<&Held<ServerSession>>,
    ) -> Cookies {
        let mut cookies = cookies_of_nobody(self.config, verdict, self.now);
        match verdict.session {
            SessionChange::Keep | SessionChange::Clear => {}
            SessionChange::Restore(terms) => {
                server_side.flags = terms.flags;
                cookies.session = self.session(&server_side, terms, self.here());
            }
            SessionChange::Issue(terms) => {
                // As with cookies alone, the session stays bound to the client that logged in, if
                // that client's digest was made under the current key.
                let bound = session.filter(|held| held.slot.is_current());
                let client = bound.map_or_else(|| self.here(), |held| held.cookie.client);
                server_side.flags = terms.flags;
                cookies.session = self.session(&server_side, terms, client);
            }
        }
        if let RememberChange::Issue { flags, generation, expires } = verdict.remember {
            cookies.remember = self.remember(&server_side, flags, generation, expires);
        }
        cookies.current = Current::ServerSide(server_side);
        cookies
    }

    fn here(&self) -> u64 {
        client_digest(self.config, self.snapshot, KeySlot::CURRENT)
    }

    fn stamp_digest(&self, record: &SessionRecord) -> u64 {
        let id = record.user.as_bytes();
        self.config.keyring.stamp_digest(KeySlot::CURRENT, id, &self.user.security_stamp())
    }

    fn session(
        &self,
        server_side: &ServerSide,
        terms: ServerTerms,
        client: u64,
    ) -> Change<HeaderValue> {
        let ServerSide { id, record, .. } = server_side;
        let is_short = record.user.as_bytes().len() <= ServerSession::LONGEST_USER_HINT;
        let user_hint = if is_short { record.user.clone() } else { "".into() };
        let session =
            ServerSession { id: *id, terms, stamp: self.stamp_digest(record), client, user_hint };
        session_cookie(self.config, &session, record.session_started.as_secs(), self.now)
    }

    fn remember(
        &self,
        server_side: &ServerSide,
        flags: u8,
        generation: u32,
        expires: u32,
    ) -> Change<HeaderValue> {
        let ServerSide { id, record, .. } = server_side;
        let keyring = &self.config.keyring;
        let verifier = keyring.verifier(KeySlot::CURRENT, &record.salt, *id, generation);
        let stamp = self.stamp_digest(record);
        let remember = ServerRemember { id: *id, flags, generation, verifier, expires, stamp };
        remember_cookie(self.config, &remember, expires, self.now)
    }

    /// Issues both cookies of the record's generation, or the session cookie alone. Pass `true` for
    /// `fresh` if the user has just proved who they are. Returns the `fresh` of
    /// `Identity::Session`, and the cookies.
    pub(super) fn anew(&self, server_side: ServerSide, fresh: bool) -> (u32, Cookies) {
        let ServerSide { flags, record, is_remembered, .. } = &server_side;
        // Zero means "not fresh", so a fresh session never gets it, whatever the clock says.
        let fresh = if fresh { self.now.max(1) } else { 0 };
        let (flags, generation, issued) = (*flags, record.generation, self.now);
        let terms = ServerTerms { flags, generation, issued, fresh };
        let session = self.session(&server_side, terms, self.here());
        let expires = record.remember_expires.map(Timestamp::as_secs);
        let expires = expires.filter(|expires| *is_remembered && self.now < *expires);
        let remember = expires.map_or(Change::Keep, |expires| {
            self.remember(&server_side, flags & FORCED, generation, expires)
        });
        let current = Current::ServerSide(server_side);
        (fresh, Cookies { current, session, remember, until: u32::MAX })
    }
}

/// Returns the changes of the cookies if they identify no user: at most, they are cleared.
pub(super) fn cookies_of_nobody<U>(config: &Config<U>, verdict: &Verdict, now: u32) -> Cookies {
    Cookies {
        current: Current::Nothing,
        session: Change::clear_if(verdict.session == SessionChange::Clear),
        remember: Change::clear_if(verdict.remember == RememberChange::Clear),
        until: now.saturating_add(config.policy.cookies_age()),
    }
}
