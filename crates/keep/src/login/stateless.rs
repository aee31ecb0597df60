//! Logins that exist in cookies alone: resolving, beginning and reissuing them.

use std::sync::Arc;

use http::HeaderValue;
use tower_keep_core::{AuthUser, UserId};

use super::change::LoginBuilder;
use super::handle::AuthSession;
use super::issue::{check_size, client_digest, remember_cookie, session_cookie};
use super::resolve::{announce, ask_loaders, facts};
use super::snapshot::Snapshot;
use super::state::{Change, Cookies, Current, Identity, Resolved};
use crate::client::SessionProtection;
use crate::cookie::{FORCED, Held, Remember, RememberTerms, Session, SessionTerms};
use crate::keys::KeySlot;
use crate::layer::Config;
use crate::rules::Who;
use crate::rules::stateless::{Presented, RememberChange, Rules, SessionChange, Step, Verdict};
use crate::{AuthError, LoginError, random};

pub(super) async fn resolve<U: AuthUser>(
    config: &Config<U>,
    snapshot: &Snapshot,
    session: Option<&Held<Session>>,
    remember: Option<&Held<Remember>>,
) -> Result<Resolved<U>, AuthError> {
    let now = config.now();
    let same_client = || {
        session.is_none_or(|held| client_digest(config, snapshot, held.slot) == held.cookie.client)
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
                    session.map(|held| (held.slot, &held.cookie.user, held.cookie.stamp));
                let of_remember =
                    remember.map(|held| (held.slot, &held.cookie.user, held.cookie.stamp));
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
    announce(config, verdict.protected, is_restored, user.as_ref(), asked_loaders);
    let cookies = match &user {
        Some(user) => {
            Made { config, snapshot, user: &**user, now }.follow(&verdict, session, remember)?
        }
        None => cookies_of_nobody(&verdict),
    };
    let identity = match (verdict.who, user) {
        (Who::User { fresh, active }, Some(user)) => Identity::Session { user, fresh, active },
        (Who::Nobody, Some(user)) if asked_loaders => Identity::Loader { user },
        _ => Identity::Anonymous,
    };
    Ok(Resolved { identity, cookies, asked_loaders })
}

fn cookies_of_nobody(verdict: &Verdict) -> Cookies {
    Cookies {
        current: Current::Nothing,
        session: Change::clear_if(verdict.session == SessionChange::Clear),
        remember: Change::clear_if(verdict.remember == RememberChange::Clear),
        until: u32::MAX,
    }
}

/// Issues cookies for a user.
struct Made<'a, U> {
    config: &'a Config<U>,
    snapshot: &'a Snapshot,
    user: &'a U,
    now: u32,
}

impl<U: AuthUser> Made<'_, U> {
    /// Returns the changes of the cookies that the rules have decided.
    fn follow(
        &self,
        verdict: &Verdict,
        session: Option<&Held<Session>>,
        remember: Option<&Held<Remember>>,
    ) -> Result<Cookies, AuthError> {
        let mut cookies = cookies_of_nobody(verdict);
        let mut flags = session.map_or(0, |held| held.cookie.terms.flags);
        match verdict.session {
            SessionChange::Keep | SessionChange::Clear => {}
            SessionChange::Restore(restored) => {
                flags = restored;
                let terms = new_terms(self.now, false, flags)?;
                cookies.session = self.set_session(&self.session(terms, self.here()));
            }
            SessionChange::Reissue(terms) => {
                // The session stays bound to the client that logged in. But that client's digest
                // can't be carried over to another key. With a new key the session is bound to the
                // client of this request; if that is another client, the session has already lost
                // its freshness.
                let bound = session.filter(|held| held.slot.is_current());
                let client = bound.map_or_else(|| self.here(), |held| held.cookie.client);
                flags = terms.flags;
                cookies.session = self.set_session(&self.session(terms, client));
            }
        }
        let mut terms = remember.filter(|_| verdict.remembered).map(|held| held.cookie.terms);
        if let RememberChange::Reissue(anew) = verdict.remember {
            terms = Some(anew);
            cookies.remember = self.set_remember(&self.remember(anew));
        }
        cookies.current = Current::Stateless { flags, remember: terms.map(Box::new) };
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

    fn session(&self, terms: SessionTerms, client: u64) -> Session {
        let id = self.user.id();
        Session { terms, stamp: self.stamp_digest(&id), client, user: id }
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
fn new_terms(now: u32, fresh: bool, flags: u8) -> Result<SessionTerms, AuthError> {
    let nonce = random::bytes()?;
    // Zero means "not fresh", so a fresh session never gets it, whatever the clock says.
    let fresh = if fresh { now.max(1) } else { 0 };
    Ok(SessionTerms { flags, nonce, started: now, renewed: now, fresh })
}

/// Begins the login.
pub(super) fn begin<U: AuthUser>(
    log_in: &LoginBuilder<'_, U>,
    flags: u8,
) -> Result<(), LoginError> {
    let LoginBuilder { auth, user, .. } = log_in;
    let (config, snapshot, now) = (auth.config(), &auth.0.snapshot, auth.config().now());
    let made = Made { config, snapshot, user: &**user, now };
    let session = made.session(new_terms(now, log_in.fresh, flags)?, made.here());
    check_size(&config.session, &session)?;
    let mut cookies = Cookies { session: made.set_session(&session), ..Cookies::cleared() };
    let mut terms = None;
    if let Some(seconds) = log_in.remember_seconds() {
        let (flags, nonce) = (flags & FORCED, random::bytes()?);
        let anew =
            RememberTerms { flags, nonce, issued: now, expires: now.saturating_add(seconds) };
        let remember = made.remember(anew);
        check_size(&config.remember, &remember)?;
        cookies.remember = made.set_remember(&remember);
        terms = Some(anew);
    }
    cookies.current = Current::Stateless { flags, remember: terms.map(Box::new) };
    let (fresh, active) = (session.terms.fresh, user.is_active());
    let identity = Identity::Session { user: Arc::clone(user), fresh, active };
    let mut state = auth.state();
    if state.sealed {
        return Err(AuthError::TOO_LATE.into());
    }
    state.decide(identity, cookies);
    Ok(())
}

/// Issues a new, fresh session for the user of the current one, and reissues their remember cookie.
pub(super) fn reissue<U: AuthUser>(auth: &AuthSession<U>, user: &Arc<U>) -> Result<(), AuthError> {
    let (config, snapshot, now) = (auth.config(), &auth.0.snapshot, auth.config().now());
    let made = Made { config, snapshot, user: &**user, now };
    let mut state = auth.state();
    if state.sealed {
        return Err(AuthError::TOO_LATE);
    }
    let Current::Stateless { flags, remember } = &state.current else { return Ok(()) };
    let (flags, remember) = (flags & !FORCED, remember.clone());
    let session = made.session(new_terms(now, true, flags)?, made.here());
    if let Some(terms) = &remember {
        state.remember = made.set_remember(&made.remember(**terms));
    }
    state.session = made.set_session(&session);
    state.current = Current::Stateless { flags, remember };
    let fresh = session.terms.fresh;
    state.identity = Identity::Session { user: Arc::clone(user), fresh, active: true };
    Ok(())
}
