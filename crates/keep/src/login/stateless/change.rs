//! Logging in and confirming without server-side sessions.

use tower_keep_core::AuthUser;

use super::issue::{
    expires, new_remember, new_session, set_remember, set_session, terms_of_new_session,
};
use super::remember_cookie::RememberTerms;
use crate::cookie::login_origin::{LoginOrigin, Proofs};
use crate::error::{AuthError, LoginError};
use crate::login::issue::{Issuer, check_size};
use crate::login::requested::RequestedLogin;
use crate::login::state::{BrowserLogin, CookieChange, CookieDecision};
use crate::random;

/// Returns the cookies of a login.
pub(in crate::login) fn log_in<U: AuthUser>(
    issuer: &Issuer<'_, U>,
    login: &RequestedLogin<U>,
) -> Result<CookieDecision, LoginError> {
    let (config, now, login_origin) = (issuer.config, issuer.now, login.login_origin);
    let is_remembered = login.remember_seconds.is_some();
    let terms = terms_of_new_session(now, login_origin, is_remembered)?;
    let session = new_session(issuer, terms, login.proofs.clone(), issuer.client_digest());
    check_size(&config.session_cookie, &session)?;
    let mut cookies = CookieDecision {
        session_cookie: set_session(issuer, &session),
        ..CookieDecision::clear_both()
    };
    let mut remember_terms = None;
    if let Some(seconds) = login.remember_seconds {
        let nonce = random::bytes()?;
        let expires = now.saturating_add(seconds);
        let terms = RememberTerms { login_origin, nonce, issued: now, expires };
        let remember = new_remember(issuer, terms);
        check_size(&config.remember_cookie, &remember)?;
        cookies.remember_cookie = set_remember(issuer, &remember);
        remember_terms = Some(Box::new(terms));
    }
    let expires = expires(issuer, now, remember_terms.as_deref().copied());
    cookies.browser_login =
        BrowserLogin::Stateless { login_origin, is_remembered, expires, remember: remember_terms };
    Ok(cookies)
}

/// Returns the cookies of a new session with these proofs, for the user of a login. `sent_origin`,
/// `is_remembered` and `remember` are of that login: its origin, whether it has set a remember
/// cookie, and the terms of that cookie.
pub(in crate::login) fn make_fresh<U: AuthUser>(
    issuer: &Issuer<'_, U>,
    proofs: Proofs,
    (sent_origin, is_remembered, remember): (LoginOrigin, bool, Option<Box<RememberTerms>>),
) -> Result<CookieDecision, AuthError> {
    let login_origin = LoginOrigin { is_forced: false, ..sent_origin };
    let terms = terms_of_new_session(issuer.now, login_origin, is_remembered)?;
    let session = new_session(issuer, terms, proofs, issuer.client_digest());
    let remember_cookie = match &remember {
        Some(terms) => set_remember(issuer, &new_remember(issuer, **terms)),
        None => CookieChange::Keep,
    };
    let expires = expires(issuer, issuer.now, remember.as_deref().copied());
    Ok(CookieDecision {
        browser_login: BrowserLogin::Stateless { login_origin, is_remembered, expires, remember },
        session_cookie: set_session(issuer, &session),
        remember_cookie,
        write_until: None,
    })
}
