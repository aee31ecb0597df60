//! Logins that exist in cookies alone: resolving, beginning and reissuing them.

use std::sync::Arc;

use http::HeaderValue;
use tower_keep_core::{AuthUser, UserId};

use super::change::LoginBuilder;
use super::handle::AuthSession;
use super::issue::{check_size, client_digest, remember_cookie, session_cookie};
use super::resolve::{ask_loaders, facts, raise_events};
use super::snapshot::Snapshot;
use super::state::{BrowserLogin, Change, Cookies, Identity, Resolved};
use crate::client::SessionProtection;
use crate::cookie::{Opened, Origin, Proofs, Remember, RememberTerms, Session, SessionTerms};
use crate::keys::KeySlot;
use crate::layer::Config;
use crate::rules::Who;
use crate::rules::stateless::{Presented, RememberChange, Rules, SessionChange, Step, Verdict};
use crate::{AuthError, LoginError, random};

pub(super) async fn resolve<U: AuthUser>(
    config: &Config<U>,
    snapshot: &Snapshot,
    session: Option<&Opened<Session>>,
    remember: Option<&Opened<Remember>>,
) -> Result<Resolved<U>, AuthError> {
    let now = config.now();
    let same_client = || {
        session.is_none_or(|opened| {
            client_digest(config, snapshot, opened.slot) == opened.cookie.client
        })
    };
    let protects = config.policy.protection != SessionProtection::None;
    let seen = Presented { now, session, remember, same_client: !protects || same_client() };
    let mut rules = Rules::new(&config.policy, seen);

    let mut step = rules.start();
    let mut asked: Option<&UserId> = None;
    let mut user: Option<Arc<U>> = None;
    let mut asked_loaders = false;
    loop {
        match step {
            Step::Load(id) => {
                // Both cookies usually name the same user, who is then loaded only once.
                if asked != Some(id) {
                    user = config.store.by_id(id).await?;
                    asked = Some(id);
                }
                let of_session =
                    session.map(|opened| (opened.slot, &opened.cookie.user, opened.cookie.stamp));
                let of_remember =
                    remember.map(|opened| (opened.slot, &opened.cookie.user, opened.cookie.stamp));
                let facts = |user: &U| facts(config, user, of_session, of_remember);
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
    raise_events(config, verdict.protected, is_restored, user.as_ref(), asked_loaders);
    let cookies = match &user {
        Some(user) => CookieIssuer { config, snapshot, user: &**user, now }
            .follow(&verdict, session, remember)?,
        None => cookies_of_nobody(&verdict),
    };
    let identity = match (verdict.who, user) {
        (Who::User { fresh_since, active }, Some(user)) => {
            Identity::Session { user, fresh_since, active }
        }
        (Who::Nobody, Some(user)) if asked_loaders => Identity::Loader { user },
        _ => Identity::Anonymous,
    };
    Ok(Resolved { identity, cookies, asked_loaders })
}

fn cookies_of_nobody(verdict: &Verdict) -> Cookies {
    Cookies {
        browser_login: BrowserLogin::Nothing,
        session: Change::clear_if(verdict.session == SessionChange::Clear),
        remember: Change::clear_if(verdict.remember == RememberChange::Clear),
        until: None,
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
    /// Returns the changes of the cookies that the rules have decided.
    fn follow(
        &self,
        verdict: &Verdict,
        session: Option<&Opened<Session>>,
        remember: Option<&Opened<Remember>>,
    ) -> Result<Cookies, AuthError> {
        let mut cookies = cookies_of_nobody(verdict);
        let presented = session.map(|opened| opened.cookie.terms);
        let mut origin = presented.map(|terms| terms.origin);
        let mut is_remembered = presented.is_some_and(|terms| terms.is_remembered);
        match verdict.session {
            SessionChange::Keep | SessionChange::Clear => {}
            SessionChange::Restore(restored) => {
                (origin, is_remembered) = (Some(restored), true);
                let terms = new_terms(self.now, restored, true)?;
                let session = self.session(terms, Proofs::default(), self.here());
                cookies.session = self.set_session(&session);
            }
            SessionChange::Reissue { terms, keeps_proofs } => {
                // The session stays bound to the client that logged in. But that client's digest
                // can't be carried over to another key. With a new key the session is bound to the
                // client of this request; if that is another client, the session has already lost
                // its freshness.
                let bound = session.filter(|opened| opened.slot.is_current());
                let client = bound.map_or_else(|| self.here(), |opened| opened.cookie.client);
                origin = Some(terms.origin);
                let proofs =
                    session.filter(|_| keeps_proofs).map(|opened| opened.cookie.proofs.clone());
                let session = self.session(terms, proofs.unwrap_or_default(), client);
                cookies.session = self.set_session(&session);
            }
        }
        let mut terms = remember.filter(|_| verdict.remembered).map(|opened| opened.cookie.terms);
        if let RememberChange::Reissue(anew) = verdict.remember {
            terms = Some(anew);
            cookies.remember = self.set_remember(&self.remember(anew));
        }
        if let Some(origin) = origin {
            let remember = terms.map(Box::new);
            cookies.browser_login = BrowserLogin::Stateless { origin, is_remembered, remember };
        }
        Ok(cookies)
    }

    fn here(&self) -> u64 {
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

    fn set_session(&self, session: &Session) -> Change<HeaderValue> {
        session_cookie(self.config, session, session.terms.started, self.now)
    }

    fn set_remember(&self, remember: &Remember) -> Change<HeaderValue> {
        remember_cookie(self.config, remember, remember.terms.expires, self.now)
    }
}

/// Returns the terms of a session that begins now. Nothing of an earlier session enters them.
fn new_terms(now: u32, origin: Origin, is_remembered: bool) -> Result<SessionTerms, AuthError> {
    let nonce = random::bytes()?;
    Ok(SessionTerms { origin, is_remembered, nonce, started: now, renewed: now })
}

/// Begins the login.
pub(super) fn begin<U: AuthUser>(log_in: &LoginBuilder<'_, U>) -> Result<(), LoginError> {
    let LoginBuilder { auth, user, .. } = log_in;
    let (config, snapshot, now) = (auth.config(), &auth.0.snapshot, auth.config().now());
    let issuer = CookieIssuer { config, snapshot, user: &**user, now };
    let (origin, is_remembered) = (log_in.origin(), log_in.remember_seconds().is_some());
    let terms = new_terms(now, origin, is_remembered)?;
    let session = issuer.session(terms, log_in.proofs(now), issuer.here());
    check_size(&config.session_cookie, &session)?;
    let mut cookies = Cookies { session: issuer.set_session(&session), ..Cookies::cleared() };
    let mut terms = None;
    if let Some(seconds) = log_in.remember_seconds() {
        let nonce = random::bytes()?;
        let anew =
            RememberTerms { origin, nonce, issued: now, expires: now.saturating_add(seconds) };
        let remember = issuer.remember(anew);
        check_size(&config.remember_cookie, &remember)?;
        cookies.remember = issuer.set_remember(&remember);
        terms = Some(anew);
    }
    cookies.browser_login =
        BrowserLogin::Stateless { origin, is_remembered, remember: terms.map(Box::new) };
    let (fresh_since, active) = (session.proofs.newest(), user.is_active());
    let identity = Identity::Session { user: Arc::clone(user), fresh_since, active };
    let mut state = auth.state();
    if state.is_head_written {
        return Err(AuthError::TOO_LATE.into());
    }
    state.decide(identity, cookies);
    Ok(())
}

/// Issues a new, fresh session for the user of the current one, and reissues their remember cookie.
pub(super) fn reissue<U: AuthUser>(auth: &AuthSession<U>, user: &Arc<U>) -> Result<(), AuthError> {
    let (config, snapshot, now) = (auth.config(), &auth.0.snapshot, auth.config().now());
    let issuer = CookieIssuer { config, snapshot, user: &**user, now };
    let mut state = auth.state();
    if state.is_head_written {
        return Err(AuthError::TOO_LATE);
    }
    let BrowserLogin::Stateless { origin, is_remembered, remember } = &state.browser_login else {
        return Ok(());
    };
    let origin = Origin { is_forced: false, ..*origin };
    let (is_remembered, remember) = (*is_remembered, remember.clone());
    let terms = new_terms(now, origin, is_remembered)?;
    let session = issuer.session(terms, Proofs::password(now), issuer.here());
    if let Some(terms) = &remember {
        state.remember = issuer.set_remember(&issuer.remember(**terms));
    }
    state.session = issuer.set_session(&session);
    state.browser_login = BrowserLogin::Stateless { origin, is_remembered, remember };
    let fresh_since = session.proofs.newest();
    state.identity = Identity::Session { user: Arc::clone(user), fresh_since, active: true };
    Ok(())
}
