//! Issuing the cookies of a login with a server-side session.

use http::HeaderValue;
use tower_keep_core::AuthUser;

use super::cookies::{ServerRemember, ServerSession, ServerTerms};
use super::rules::{RememberChange, SessionChange, Verdict};
use crate::cookie::contents::Opened;
use crate::cookie::key_slot::KeySlot;
use crate::cookie::login_origin::{LoginOrigin, Proofs};
use crate::keyring::VerifierInput;
use crate::layer::config::Config;
use crate::login::issue::Issuer;
use crate::login::state::{BrowserLogin, BrowserSession, CookieChange, CookieDecision};

/// Returns the decision that clears the cookies that the verdict clears, and keeps all others. It
/// issues no cookie: the cookies that the verdict issues are added by [`follow_verdict`].
pub(super) fn decision_without_new_cookies<U>(
    config: &Config<U>,
    verdict: &Verdict,
    now: u32,
) -> CookieDecision {
    let clears_session = verdict.session == SessionChange::Clear;
    let clears_remember = verdict.remember == RememberChange::Clear;
    let write_until = now.saturating_add(config.policy.max_cookie_age());
    CookieDecision::clear(clears_session, clears_remember, Some(write_until))
}

/// Issues the cookies that the rules have decided on. `session` is the session cookie that the
/// request sent.
pub(super) fn follow_verdict<U: AuthUser>(
    issuer: &Issuer<'_, U>,
    verdict: &Verdict,
    mut browser_session: BrowserSession,
    session: Option<&Opened<ServerSession>>,
) -> CookieDecision {
    let mut cookies = decision_without_new_cookies(issuer.config, verdict, issuer.now);
    let reissued = match verdict.session {
        SessionChange::Keep | SessionChange::Clear => None,
        SessionChange::Restore(terms) => Some((terms, Proofs::default(), issuer.client_digest())),
        SessionChange::Reissue { terms, keeps_proofs } => {
            let client = session.map(|opened| (opened.slot, opened.cookie.client));
            let proofs =
                session.filter(|_| keeps_proofs).map(|opened| opened.cookie.proofs.clone());
            Some((terms, proofs.unwrap_or_default(), issuer.client_digest_of_reissued(client)))
        }
    };
    if let Some((terms, proofs, client)) = reissued {
        (browser_session.login_origin, browser_session.is_remembered) =
            (terms.login_origin, terms.is_remembered);
        cookies.session_cookie = set_session(issuer, &browser_session, terms, proofs, client);
    }
    if let RememberChange::Reissue { login_origin, generation, expires } = verdict.remember {
        cookies.remember_cookie =
            set_remember(issuer, &browser_session, login_origin, generation, expires);
    }
    cookies.browser_login = BrowserLogin::ServerSide(browser_session);
    cookies
}

/// Issues the session cookie of the record's generation. If the browser holds a remember cookie and
/// the remember period has not expired, issues the remember cookie too.
pub(super) fn issue_cookies<U: AuthUser>(
    issuer: &Issuer<'_, U>,
    browser_session: BrowserSession,
    proofs: Proofs,
) -> CookieDecision {
    let BrowserSession { login_origin, is_remembered, holds_remember, .. } = browser_session;
    let (record, issued) = (&browser_session.record, issuer.now);
    let generation = record.generation;
    let terms = ServerTerms { login_origin, is_remembered, generation, issued };
    let session_cookie =
        set_session(issuer, &browser_session, terms, proofs, issuer.client_digest());
    let expires = record.remember.map(|remember| remember.expires.as_secs());
    let expires = expires.filter(|expires| holds_remember && issuer.now < *expires);
    let remember_cookie = expires.map_or(CookieChange::Keep, |expires| {
        set_remember(issuer, &browser_session, login_origin, generation, expires)
    });
    let browser_login = BrowserLogin::ServerSide(browser_session);
    CookieDecision { browser_login, session_cookie, remember_cookie, write_until: None }
}

fn set_session<U: AuthUser>(
    issuer: &Issuer<'_, U>,
    browser_session: &BrowserSession,
    terms: ServerTerms,
    proofs: Proofs,
    client: u64,
) -> CookieChange<HeaderValue> {
    let BrowserSession { id, record, .. } = browser_session;
    let user_hint = ServerSession::user_hint(&record.user);
    let stamp = issuer.stamp_digest(&record.user);
    let session = ServerSession { id: *id, terms, proofs, stamp, client, user_hint };
    issuer.set_session_cookie(&session, record.session_started.as_secs())
}

fn set_remember<U: AuthUser>(
    issuer: &Issuer<'_, U>,
    browser_session: &BrowserSession,
    login_origin: LoginOrigin,
    generation: u32,
    expires: u32,
) -> CookieChange<HeaderValue> {
    let BrowserSession { id, record, .. } = browser_session;
    let input = VerifierInput { salt: record.salt, session_id: id.0, generation };
    let verifier = issuer.config.keyring.verifier(KeySlot::CURRENT, &input);
    let stamp = issuer.stamp_digest(&record.user);
    let remember = ServerRemember { id: *id, login_origin, generation, verifier, expires, stamp };
    issuer.set_remember_cookie(&remember, expires)
}
