//! Issuing the cookies of a login without a server-side session.

use http::HeaderValue;
use tower_keep_core::AuthUser;

use super::remember_cookie::{Remember, RememberTerms};
use super::rules::{RememberChange, SessionChange, Verdict};
use super::session_cookie::{Session, SessionTerms};
use crate::cookie::contents::Opened;
use crate::cookie::login_origin::{LoginOrigin, Proofs};
use crate::error::AuthError;
use crate::login::issue::Issuer;
use crate::login::state::{BrowserLogin, CookieChange, CookieDecision};
use crate::random;

/// Returns the decision that clears the cookies that the verdict clears, and keeps all others. It
/// issues no cookie: the cookies that the verdict issues are added by [`follow_verdict`].
pub(super) fn decision_without_new_cookies(verdict: &Verdict) -> CookieDecision {
    let clears_session = verdict.session == SessionChange::Clear;
    CookieDecision::clear(clears_session, verdict.remember == RememberChange::Clear, None)
}

/// Issues the cookies that the rules have decided on. `session` and `remember` are the cookies that
/// the request sent.
pub(super) fn follow_verdict<U: AuthUser>(
    issuer: &Issuer<'_, U>,
    verdict: &Verdict,
    session: Option<&Opened<Session>>,
    remember: Option<&Opened<Remember>>,
) -> Result<CookieDecision, AuthError> {
    let mut cookies = decision_without_new_cookies(verdict);
    let session_terms = session.map(|opened| opened.cookie.terms);
    let mut login_origin = session_terms.map(|terms| terms.login_origin);
    let mut is_remembered = session_terms.is_some_and(|terms| terms.is_remembered);
    match verdict.session {
        SessionChange::Keep | SessionChange::Clear => {}
        SessionChange::Restore(restored) => {
            (login_origin, is_remembered) = (Some(restored), true);
            let terms = terms_of_new_session(issuer.now, restored, true)?;
            let client = issuer.client_digest();
            let session = new_session(issuer, terms, Proofs::default(), client);
            cookies.session_cookie = set_session(issuer, &session);
        }
        SessionChange::Reissue { terms, keeps_proofs } => {
            login_origin = Some(terms.login_origin);
            let client = session.map(|opened| (opened.slot, opened.cookie.client));
            let proofs =
                session.filter(|_| keeps_proofs).map(|opened| opened.cookie.proofs.clone());
            let client = issuer.client_digest_of_reissued(client);
            let session = new_session(issuer, terms, proofs.unwrap_or_default(), client);
            cookies.session_cookie = set_session(issuer, &session);
        }
    }
    let mut remember_terms =
        remember.filter(|_| verdict.is_remembered).map(|opened| opened.cookie.terms);
    if let RememberChange::Reissue(new_terms) = verdict.remember {
        remember_terms = Some(new_terms);
        cookies.remember_cookie = set_remember(issuer, &new_remember(issuer, new_terms));
    }
    if let Some(login_origin) = login_origin {
        let is_restored = matches!(verdict.session, SessionChange::Restore(_));
        let started = session_terms.filter(|_| !is_restored).map(|terms| terms.started);
        let expires = expires(issuer, started.unwrap_or(issuer.now), remember_terms);
        let remember = remember_terms.map(Box::new);
        cookies.browser_login =
            BrowserLogin::Stateless { login_origin, is_remembered, expires, remember };
    }
    Ok(cookies)
}

/// Returns when the last of the cookies of a login expires: of a session that began at `started`
/// and is used now, and of its remember cookie.
pub(super) fn expires<U>(
    issuer: &Issuer<'_, U>,
    started: u32,
    remember: Option<RememberTerms>,
) -> u32 {
    let remember_expires = remember.map(|terms| terms.expires);
    issuer.config.policy.record_expires(issuer.now, started, remember_expires)
}

/// Returns the terms of a session that begins now. They contain nothing of an earlier session.
pub(super) fn terms_of_new_session(
    now: u32,
    login_origin: LoginOrigin,
    is_remembered: bool,
) -> Result<SessionTerms, AuthError> {
    let nonce = random::bytes()?;
    Ok(SessionTerms { login_origin, is_remembered, nonce, started: now, renewed: now })
}

pub(super) fn new_session<U: AuthUser>(
    issuer: &Issuer<'_, U>,
    terms: SessionTerms,
    proofs: Proofs,
    client: u64,
) -> Session {
    let id = issuer.user.id();
    Session { terms, proofs, stamp: issuer.stamp_digest(&id), client, user: id }
}

pub(super) fn new_remember<U: AuthUser>(issuer: &Issuer<'_, U>, terms: RememberTerms) -> Remember {
    let id = issuer.user.id();
    Remember { terms, stamp: issuer.stamp_digest(&id), user: id }
}

pub(super) fn set_session<U: AuthUser>(
    issuer: &Issuer<'_, U>,
    session: &Session,
) -> CookieChange<HeaderValue> {
    issuer.set_session_cookie(session, session.terms.started)
}

pub(super) fn set_remember<U: AuthUser>(
    issuer: &Issuer<'_, U>,
    remember: &Remember,
) -> CookieChange<HeaderValue> {
    issuer.set_remember_cookie(remember, remember.terms.expires)
}
