//! Issuing the cookies of a login with a server-side session.

use http::HeaderValue;
use tower_keep_core::{AuthUser, SessionRecord};

use crate::cookie::contents::Opened;
use crate::cookie::key_slot::KeySlot;
use crate::cookie::login_origin::{LoginOrigin, Proofs};
use crate::cookie::server_side::{ServerRemember, ServerSession, ServerTerms};
use crate::layer::config::Config;
use crate::login::issue::{client_digest, issue_remember_cookie, issue_session_cookie};
use crate::login::snapshot::Snapshot;
use crate::login::state::{BrowserLogin, BrowserSession, CookieChange, CookieDecision};
use crate::rules::server_side::{RememberChange, SessionChange, Verdict};

/// Issues cookies for a user.
pub(super) struct CookieIssuer<'a, U> {
    pub(super) config: &'a Config<U>,
    pub(super) snapshot: &'a Snapshot,
    pub(super) user: &'a U,
    pub(super) now: u32,
}

impl<U: AuthUser> CookieIssuer<'_, U> {
    /// Issues the cookies that the rules have decided on. `session` is the session cookie that the
    /// request sent.
    pub(super) fn follow_verdict(
        &self,
        verdict: &Verdict,
        mut browser_session: BrowserSession,
        session: Option<&Opened<ServerSession>>,
    ) -> CookieDecision {
        let mut cookies = decision_without_new_cookies(self.config, verdict, self.now);
        match verdict.session {
            SessionChange::Keep | SessionChange::Clear => {}
            SessionChange::Restore(terms) => {
                (browser_session.login_origin, browser_session.is_remembered) =
                    (terms.login_origin, terms.is_remembered);
                cookies.session_cookie = self.set_session(
                    &browser_session,
                    terms,
                    Proofs::default(),
                    self.client_digest(),
                );
            }
            SessionChange::Reissue { terms, keeps_proofs } => {
                // The session stays bound to the client that logged in, if that client's digest was
                // made under the current key (see the same step in `stateless.rs`).
                let reusable = session.filter(|opened| opened.slot.is_current());
                let client =
                    reusable.map_or_else(|| self.client_digest(), |opened| opened.cookie.client);
                (browser_session.login_origin, browser_session.is_remembered) =
                    (terms.login_origin, terms.is_remembered);
                let proofs =
                    session.filter(|_| keeps_proofs).map(|opened| opened.cookie.proofs.clone());
                cookies.session_cookie =
                    self.set_session(&browser_session, terms, proofs.unwrap_or_default(), client);
            }
        }
        if let RememberChange::Reissue { login_origin, generation, expires } = verdict.remember {
            cookies.remember_cookie =
                self.set_remember(&browser_session, login_origin, generation, expires);
        }
        cookies.browser_login = BrowserLogin::ServerSide(browser_session);
        cookies
    }

    /// Returns the digest of the client that sent this request, under the current key.
    fn client_digest(&self) -> u64 {
        client_digest(self.config, self.snapshot, KeySlot::CURRENT)
    }

    fn stamp_digest(&self, record: &SessionRecord) -> u64 {
        let id = record.user.as_bytes();
        self.config.keyring.stamp_digest(KeySlot::CURRENT, id, &self.user.security_stamp())
    }

    fn set_session(
        &self,
        browser_session: &BrowserSession,
        terms: ServerTerms,
        proofs: Proofs,
        client: u64,
    ) -> CookieChange<HeaderValue> {
        let BrowserSession { id, record, .. } = browser_session;
        let user_hint = ServerSession::user_hint(&record.user);
        let session = ServerSession {
            id: *id,
            terms,
            proofs,
            stamp: self.stamp_digest(record),
            client,
            user_hint,
        };
        issue_session_cookie(self.config, &session, record.session_started.as_secs(), self.now)
    }

    fn set_remember(
        &self,
        browser_session: &BrowserSession,
        login_origin: LoginOrigin,
        generation: u32,
        expires: u32,
    ) -> CookieChange<HeaderValue> {
        let BrowserSession { id, record, .. } = browser_session;
        let keyring = &self.config.keyring;
        let verifier = keyring.verifier(KeySlot::CURRENT, &record.salt, *id, generation);
        let stamp = self.stamp_digest(record);
        let remember =
            ServerRemember { id: *id, login_origin, generation, verifier, expires, stamp };
        issue_remember_cookie(self.config, &remember, expires, self.now)
    }

    /// Issues the session cookie of the record's generation. If `holds_remember` is `true` and the
    /// remember period has not expired, issues the remember cookie too.
    pub(super) fn issue_cookies(
        &self,
        browser_session: BrowserSession,
        proofs: Proofs,
    ) -> CookieDecision {
        let BrowserSession { login_origin, is_remembered, holds_remember, .. } = browser_session;
        let (record, issued) = (&browser_session.record, self.now);
        let generation = record.generation;
        let terms = ServerTerms { login_origin, is_remembered, generation, issued };
        let session_cookie =
            self.set_session(&browser_session, terms, proofs, self.client_digest());
        let expires = record.remember.map(|remember| remember.expires.as_secs());
        let expires = expires.filter(|expires| holds_remember && self.now < *expires);
        let remember_cookie = expires.map_or(CookieChange::Keep, |expires| {
            self.set_remember(&browser_session, login_origin, generation, expires)
        });
        let browser_login = BrowserLogin::ServerSide(browser_session);
        CookieDecision { browser_login, session_cookie, remember_cookie, write_until: None }
    }
}

/// Returns the decision that clears the cookies that the verdict clears, and keeps all others. It
/// issues no cookie: the cookies that the verdict issues are added by `follow_verdict`.
pub(super) fn decision_without_new_cookies<U>(
    config: &Config<U>,
    verdict: &Verdict,
    now: u32,
) -> CookieDecision {
    CookieDecision {
        browser_login: BrowserLogin::Nothing,
        session_cookie: CookieChange::clear_if(verdict.session == SessionChange::Clear),
        remember_cookie: CookieChange::clear_if(verdict.remember == RememberChange::Clear),
        write_until: Some(now.saturating_add(config.policy.max_cookie_age())),
    }
}
