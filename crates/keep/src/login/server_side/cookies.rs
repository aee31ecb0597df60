//! Issuing the cookies of a login with a server-side session.

use http::HeaderValue;
use tower_keep_core::{AuthUser, SessionRecord};

use crate::cookie::{Opened, Origin, Proofs, ServerRemember, ServerSession, ServerTerms};
use crate::keys::KeySlot;
use crate::layer::Config;
use crate::login::issue::{client_digest, remember_cookie, session_cookie};
use crate::login::snapshot::Snapshot;
use crate::login::state::{BrowserLogin, Change, Cookies, ServerSide};
use crate::rules::server_side::{RememberChange, SessionChange, Verdict};

/// Issues cookies for a user.
pub(super) struct CookieIssuer<'a, U> {
    pub(super) config: &'a Config<U>,
    pub(super) snapshot: &'a Snapshot,
    pub(super) user: &'a U,
    pub(super) now: u32,
}

impl<U: AuthUser> CookieIssuer<'_, U> {
    /// Returns the changes of the cookies that the rules have decided.
    pub(super) fn follow(
        &self,
        verdict: &Verdict,
        mut server_side: ServerSide,
        session: Option<&Opened<ServerSession>>,
    ) -> Cookies {
        let mut cookies = cookies_of_nobody(self.config, verdict, self.now);
        match verdict.session {
            SessionChange::Keep | SessionChange::Clear => {}
            SessionChange::Restore(terms) => {
                (server_side.origin, server_side.is_remembered) =
                    (terms.origin, terms.is_remembered);
                cookies.session = self.session(&server_side, terms, Proofs::default(), self.here());
            }
            SessionChange::Issue { terms, keeps_proofs } => {
                // As with cookies alone, the session stays bound to the client that logged in, if
                // that client's digest was made under the current key.
                let bound = session.filter(|opened| opened.slot.is_current());
                let client = bound.map_or_else(|| self.here(), |opened| opened.cookie.client);
                (server_side.origin, server_side.is_remembered) =
                    (terms.origin, terms.is_remembered);
                let proofs =
                    session.filter(|_| keeps_proofs).map(|opened| opened.cookie.proofs.clone());
                cookies.session =
                    self.session(&server_side, terms, proofs.unwrap_or_default(), client);
            }
        }
        if let RememberChange::Issue { origin, generation, expires } = verdict.remember {
            cookies.remember = self.remember(&server_side, origin, generation, expires);
        }
        cookies.browser_login = BrowserLogin::ServerSide(server_side);
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
        proofs: Proofs,
        client: u64,
    ) -> Change<HeaderValue> {
        let ServerSide { id, record, .. } = server_side;
        let user_hint = ServerSession::user_hint(&record.user);
        let session = ServerSession {
            id: *id,
            terms,
            proofs,
            stamp: self.stamp_digest(record),
            client,
            user_hint,
        };
        session_cookie(self.config, &session, record.session_started.as_secs(), self.now)
    }

    fn remember(
        &self,
        server_side: &ServerSide,
        origin: Origin,
        generation: u32,
        expires: u32,
    ) -> Change<HeaderValue> {
        let ServerSide { id, record, .. } = server_side;
        let keyring = &self.config.keyring;
        let verifier = keyring.verifier(KeySlot::CURRENT, &record.salt, *id, generation);
        let stamp = self.stamp_digest(record);
        let remember = ServerRemember { id: *id, origin, generation, verifier, expires, stamp };
        remember_cookie(self.config, &remember, expires, self.now)
    }

    /// Issues both cookies of the record's generation, or the session cookie alone.
    pub(super) fn issue(&self, server_side: ServerSide, proofs: Proofs) -> Cookies {
        let ServerSide { origin, is_remembered, holds_remember, .. } = server_side;
        let (record, issued) = (&server_side.record, self.now);
        let generation = record.generation;
        let terms = ServerTerms { origin, is_remembered, generation, issued };
        let session = self.session(&server_side, terms, proofs, self.here());
        let expires = record.remember.map(|remember| remember.expires.as_secs());
        let expires = expires.filter(|expires| holds_remember && self.now < *expires);
        let remember = expires.map_or(Change::Keep, |expires| {
            self.remember(&server_side, origin, generation, expires)
        });
        let browser_login = BrowserLogin::ServerSide(server_side);
        Cookies { browser_login, session, remember, until: None }
    }
}

/// Returns the changes of the cookies if they identify no user: at most, they are cleared.
pub(super) fn cookies_of_nobody<U>(config: &Config<U>, verdict: &Verdict, now: u32) -> Cookies {
    Cookies {
        browser_login: BrowserLogin::Nothing,
        session: Change::clear_if(verdict.session == SessionChange::Clear),
        remember: Change::clear_if(verdict.remember == RememberChange::Clear),
        until: Some(now.saturating_add(config.policy.cookies_age())),
    }
}
