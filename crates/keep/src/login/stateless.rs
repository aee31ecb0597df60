//! Logins of cookies alone: resolving them, beginning one, making one out anew.

use std::sync::Arc;

use http::HeaderValue;
use tower_keep_core::{AuthUser, UserId};

use super::change::LogIn;
use super::handle::Login;
use super::issue::{check_size, client_digest, remember_cookie, session_cookie};
use super::resolve::{announce, ask_loaders, facts};
use super::snapshot::Snapshot;
use super::state::{Change, Cookies, Current, Identity, Resolved};
use crate::cookie::{FORCED, Held, Remember, RememberTerms, Session, SessionTerms};
use crate::keys::KeySlot;
use crate::layer::Config;
use crate::rules::Who;
use crate::rules::stateless::{RememberChange, Rules, Seen, SessionChange, Step, Verdict};
use crate::{Fault, LogInError, SessionProtection, random};

pub(super) async fn resolve<U: AuthUser>(
    config: &Config<U>,
    snapshot: &Snapshot,
    session: Option<&Held<Session>>,
    remember: Option<&Held<Remember>>,
) -> Result<Resolved<U>, Fault> {
    let now = config.now();
    let same_client = || {
        session.is_none_or(|held| client_digest(config, snapshot, held.slot) == held.cookie.client)
    };
    let protects = config.policy.protection != SessionProtection::None;
    let seen = Seen { now, session, remember, same_client: !protects || same_client() };
    let mut rules = Rules::new(&config.policy, seen);

    let mut step = rules.start();
    let mut asked: Option<&UserId> = None;
    let mut user: Option<Arc<U>> = None;
    let mut asked_loaders = false;
    loop {
        match step {
            Step::Load(id) => {
                // Both cookies usually name one user, who is loaded once.
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

/// Makes cookies out for a user.
struct Made<'a, U> {
    config: &'a Config<U>,
    snapshot: &'a Snapshot,
    user: &'a U,
    now: u32,
}

impl<U: AuthUser> Made<'_, U> {
    /// The cookies that the rules want.
    fn follow(
        &self,
        verdict: &Verdict,
        session: Option<&Held<Session>>,
        remember: Option<&Held<Remember>>,
    ) -> Result<Cookies, Fault> {
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
                // Still bound to the client that logged in. Its digest can't be carried over to
                // another key, so with that the session is bound to the client of this request;
                // one that was not the same has lost its freshness before.
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

    fn stamp(&self, id: &UserId) -> u64 {
        self.config.keyring.stamp(KeySlot::CURRENT, id.as_bytes(), &self.user.stamp())
    }

    fn session(&self, terms: SessionTerms, client: u64) -> Session {
        let id = self.user.id();
        Session { terms, stamp: self.stamp(&id), client, user: id }
    }

    fn remember(&self, terms: RememberTerms) -> Remember {
        let id = self.user.id();
        Remember { terms, stamp: self.stamp(&id), user: id }
    }

    fn set_session(&self, session: &Session) -> Change<HeaderValue> {
        session_cookie(self.config, session, session.terms.started, self.now)
    }

    fn set_remember(&self, remember: &Remember) -> Change<HeaderValue> {
        remember_cookie(self.config, remember, remember.terms.expires, self.now)
    }
}

/// The terms of a session that begins now. No part of an earlier one enters it.
fn new_terms(now: u32, fresh: bool, flags: u8) -> Result<SessionTerms, Fault> {
    let nonce = random::bytes()?;
    // Zero stands for "not fresh", whatever the clock says.
    let fresh = if fresh { now.max(1) } else { 0 };
    Ok(SessionTerms { flags, nonce, started: now, renewed: now, fresh })
}

/// Begins the login.
pub(super) fn begin<U: AuthUser>(log_in: &LogIn<'_, U>, flags: u8) -> Result<(), LogInError> {
    let LogIn { login, user, .. } = log_in;
    let (config, snapshot, now) = (login.config(), &login.0.snapshot, login.config().now());
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
    let mut state = login.state();
    if state.sealed {
        return Err(Fault::TOO_LATE.into());
    }
    state.decide(identity, cookies);
    Ok(())
}

/// A new, fresh session for the user of the current one, and their remember cookie as well.
pub(super) fn reissue<U: AuthUser>(login: &Login<U>, user: &Arc<U>) -> Result<(), Fault> {
    let (config, snapshot, now) = (login.config(), &login.0.snapshot, login.config().now());
    let made = Made { config, snapshot, user: &**user, now };
    let mut state = login.state();
    if state.sealed {
        return Err(Fault::TOO_LATE);
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
