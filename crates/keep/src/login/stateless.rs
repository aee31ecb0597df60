//! Logins without server-side sessions: resolving the cookies, logging in, confirming.

use std::sync::Arc;

use http::HeaderValue;
use tower_keep_core::{AuthUser, UserId};

use super::change::LoginBuilder;
use super::handle::AuthSession;
use super::issue::{check_size, client_digest, issue_remember_cookie, issue_session_cookie};
use super::resolve::{ask_loaders, raise_events, user_facts};
use super::snapshot::Snapshot;
use super::state::{BrowserLogin, CookieChange, CookieDecision, Identity, Resolved};
use crate::client::SessionProtection;
use crate::cookie::contents::Opened;
use crate::cookie::key_slot::KeySlot;
use crate::cookie::login_origin::{LoginOrigin, Proofs};
use crate::cookie::remember::{Remember, RememberTerms};
use crate::cookie::session::{Session, SessionTerms};
use crate::error::{AuthError, LoginError};
use crate::layer::config::Config;
use crate::random;
use crate::rules::LoggedIn;
use crate::rules::stateless::{Presented, RememberChange, Rules, SessionChange, Step, Verdict};

/// Resolves the verified cookies of a request to a user.
pub(super) async fn resolve<U: AuthUser>(
    config: &Config<U>,
    snapshot: &Snapshot,
    session: Option<&Opened<Session>>,
    remember: Option<&Opened<Remember>>,
) -> Result<Resolved<U>, AuthError> {
    let now = config.now();
    let is_same_client = || {
        session.is_none_or(|opened| {
            client_digest(config, snapshot, opened.slot) == opened.cookie.client
        })
    };
    let protects = config.policy.protection != SessionProtection::None;
    let presented =
        Presented { now, session, remember, is_same_client: !protects || is_same_client() };
    let mut rules = Rules::new(&config.policy, presented);

    let mut step = rules.start();
    let mut loaded_id: Option<&UserId> = None;
    let mut user: Option<Arc<U>> = None;
    let mut asked_loaders = false;
    loop {
        match step {
            Step::Load(id) => {
                // If both cookies name the same user, the user is loaded only once.
                if loaded_id != Some(id) {
                    user = config.store.by_id(id).await?;
                    loaded_id = Some(id);
                }
                let of_session =
                    session.map(|opened| (opened.slot, &opened.cookie.user, opened.cookie.stamp));
                let of_remember =
                    remember.map(|opened| (opened.slot, &opened.cookie.user, opened.cookie.stamp));
                let facts = |user: &U| user_facts(config, user, of_session, of_remember);
                step = rules.loaded(user.as_deref().map(facts));
            }
            Step::AskLoaders => {
                asked_loaders = true;
                user = match &config.loaders[..] {
                    [] => None,
                    loaders => ask_loaders(loaders, snapshot).await?,
                };
                break;
            }
            Step::Done => break,
        }
    }
    let verdict = rules.finish();
    let is_restored = matches!(verdict.session, SessionChange::Restore(_));
    raise_events(config, verdict.is_other_client, is_restored, user.as_ref(), asked_loaders);
    let cookies = match &user {
        Some(user) => CookieIssuer { config, snapshot, user: &**user, now }
            .follow_verdict(&verdict, session, remember)?,
        None => decision_without_new_cookies(&verdict),
    };
    let identity = match (verdict.logged_in, user) {
        (LoggedIn::User { fresh_since, is_active }, Some(user)) => {
            Identity::Session { user, fresh_since, is_active }
        }
        (LoggedIn::Nobody, Some(user)) if asked_loaders => Identity::Loader { user },
        _ => Identity::Anonymous,
    };
    Ok(Resolved { identity, cookies, asked_loaders })
}

/// Returns the decision that clears the cookies that the verdict clears, and keeps all others. It
/// issues no cookie: the cookies that the verdict issues are added by `follow_verdict`.
fn decision_without_new_cookies(verdict: &Verdict) -> CookieDecision {
    CookieDecision {
        browser_login: BrowserLogin::Nothing,
        session_cookie: CookieChange::clear_if(verdict.session == SessionChange::Clear),
        remember_cookie: CookieChange::clear_if(verdict.remember == RememberChange::Clear),
        write_until: None,
    }
}

/// Issues cookies for a user.
struct CookieIssuer<'a, U> {
    config: &'a Config<U>,
    snapshot: &'a Snapshot,
    user: &'a U,
    now: u32,
}

impl<U: AuthUser> CookieIssuer<'_, U> {
    /// Issues the cookies that the rules have decided on. `session` and `remember` are the cookies
    /// that the request sent.
    fn follow_verdict(
        &self,
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
                let terms = terms_of_new_session(self.now, restored, true)?;
                let session = self.session(terms, Proofs::default(), self.client_digest());
                cookies.session_cookie = self.set_session(&session);
            }
            SessionChange::Reissue { terms, keeps_proofs } => {
                // The session stays bound to the client that logged in. But the digest of that
                // client can't be converted to another key. So if the key is not the current one,
                // the session is bound to the client of this request. If that is another client,
                // the rules have already decided that the session is no longer fresh.
                let reusable = session.filter(|opened| opened.slot.is_current());
                let client =
                    reusable.map_or_else(|| self.client_digest(), |opened| opened.cookie.client);
                login_origin = Some(terms.login_origin);
                let proofs =
                    session.filter(|_| keeps_proofs).map(|opened| opened.cookie.proofs.clone());
                let session = self.session(terms, proofs.unwrap_or_default(), client);
                cookies.session_cookie = self.set_session(&session);
            }
        }
        let mut remember_terms =
            remember.filter(|_| verdict.is_remembered).map(|opened| opened.cookie.terms);
        if let RememberChange::Reissue(new_terms) = verdict.remember {
            remember_terms = Some(new_terms);
            cookies.remember_cookie = self.set_remember(&self.remember(new_terms));
        }
        if let Some(login_origin) = login_origin {
            let remember = remember_terms.map(Box::new);
            cookies.browser_login =
                BrowserLogin::Stateless { login_origin, is_remembered, remember };
        }
        Ok(cookies)
    }

    /// Returns the digest of the client that sent this request, under the current key.
    fn client_digest(&self) -> u64 {
        client_digest(self.config, self.snapshot, KeySlot::CURRENT)
    }

    fn stamp_digest(&self, id: &UserId) -> u64 {
        self.config.keyring.stamp_digest(
            KeySlot::CURRENT,
            id.as_bytes(),
            &self.user.security_stamp(),
        )
    }

    fn session(&self, terms: SessionTerms, proofs: Proofs, client: u64) -> Session {
        let id = self.user.id();
        Session { terms, proofs, stamp: self.stamp_digest(&id), client, user: id }
    }

    fn remember(&self, terms: RememberTerms) -> Remember {
        let id = self.user.id();
        Remember { terms, stamp: self.stamp_digest(&id), user: id }
    }

    fn set_session(&self, session: &Session) -> CookieChange<HeaderValue> {
        issue_session_cookie(self.config, session, session.terms.started, self.now)
    }

    fn set_remember(&self, remember: &Remember) -> CookieChange<HeaderValue> {
        issue_remember_cookie(self.config, remember, remember.terms.expires, self.now)
    }
}

/// Returns the terms of a session that begins now. They contain nothing of an earlier session.
fn terms_of_new_session(
    now: u32,
    login_origin: LoginOrigin,
    is_remembered: bool,
) -> Result<SessionTerms, AuthError> {
    let nonce = random::bytes()?;
    Ok(SessionTerms { login_origin, is_remembered, nonce, started: now, renewed: now })
}

/// Logs in the user: decides on new cookies.
pub(super) fn log_in<U: AuthUser>(login: &LoginBuilder<'_, U>) -> Result<(), LoginError> {
    let LoginBuilder { auth, user, .. } = login;
    let (config, snapshot, now) = (auth.config(), &auth.0.snapshot, auth.config().now());
    let issuer = CookieIssuer { config, snapshot, user: &**user, now };
    let (login_origin, is_remembered) = (login.login_origin(), login.remember_seconds().is_some());
    let terms = terms_of_new_session(now, login_origin, is_remembered)?;
    let session = issuer.session(terms, login.proofs(now), issuer.client_digest());
    check_size(&config.session_cookie, &session)?;
    let mut cookies = CookieDecision {
        session_cookie: issuer.set_session(&session),
        ..CookieDecision::clear_both()
    };
    let mut remember_terms = None;
    if let Some(seconds) = login.remember_seconds() {
        let nonce = random::bytes()?;
        let new_terms = RememberTerms {
            login_origin,
            nonce,
            issued: now,
            expires: now.saturating_add(seconds),
        };
        let remember = issuer.remember(new_terms);
        check_size(&config.remember_cookie, &remember)?;
        cookies.remember_cookie = issuer.set_remember(&remember);
        remember_terms = Some(new_terms);
    }
    cookies.browser_login = BrowserLogin::Stateless {
        login_origin,
        is_remembered,
        remember: remember_terms.map(Box::new),
    };
    let (fresh_since, is_active) = (session.proofs.newest(), user.is_active());
    let identity = Identity::Session { user: Arc::clone(user), fresh_since, is_active };
    let mut state = auth.state();
    if state.is_head_written {
        return Err(AuthError::TOO_LATE.into());
    }
    state.apply_decision(identity, cookies);
    Ok(())
}

/// Issues a new, fresh session for the user of the current session, and reissues the remember
/// cookie.
pub(super) fn make_fresh<U: AuthUser>(
    auth: &AuthSession<U>,
    user: &Arc<U>,
) -> Result<(), AuthError> {
    let (config, snapshot, now) = (auth.config(), &auth.0.snapshot, auth.config().now());
    let issuer = CookieIssuer { config, snapshot, user: &**user, now };
    let mut state = auth.state();
    if state.is_head_written {
        return Err(AuthError::TOO_LATE);
    }
    let BrowserLogin::Stateless { login_origin, is_remembered, remember } = &state.browser_login
    else {
        return Ok(());
    };
    let login_origin = LoginOrigin { is_forced: false, ..*login_origin };
    let (is_remembered, remember) = (*is_remembered, remember.clone());
    let terms = terms_of_new_session(now, login_origin, is_remembered)?;
    let session = issuer.session(terms, Proofs::password(now), issuer.client_digest());
    if let Some(terms) = &remember {
        state.remember_cookie = issuer.set_remember(&issuer.remember(**terms));
    }
    state.session_cookie = issuer.set_session(&session);
    state.browser_login = BrowserLogin::Stateless { login_origin, is_remembered, remember };
    let fresh_since = session.proofs.newest();
    state.identity = Identity::Session { user: Arc::clone(user), fresh_since, is_active: true };
    Ok(())
}
