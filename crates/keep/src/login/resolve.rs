//! The walk from cookies to a user: the I/O that the rules ask for, fed back to them.

use std::sync::Arc;

use tower_keep_core::{AuthUser, UserId};

use super::issue::{client_digest, issue_remember, issue_session, new_terms};
use super::snapshot::{Presented, Snapshot};
use super::state::{Change, Identity};
use crate::cookie::{Held, Remember, Session};
use crate::keys::KeySlot;
use crate::layer::Config;
use crate::rules::{Facts, RememberChange, Rules, Seen, SessionChange, Step, Verdict, Who};
use crate::{Event, Fault, SessionProtection};

/// What a request has come to.
pub(super) struct Resolved<U> {
    pub(super) identity: Identity<U>,
    pub(super) session: Change<Session>,
    pub(super) remember: Change<Remember>,
    pub(super) remembered: bool,
    pub(super) asked_loaders: bool,
}

pub(super) async fn resolve<U: AuthUser>(
    config: &Config<U>,
    snapshot: &Snapshot,
    presented: &Presented,
) -> Result<Resolved<U>, Fault> {
    config.raise(Event::Accessed);
    let (session, remember) = (presented.session.as_ref(), presented.remember.as_ref());
    let now = config.now();
    let same_client = || session.is_none_or(|held| is_same_client(config, snapshot, held));
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
                step = rules.loaded(user.as_deref().map(|user| facts(config, presented, user)));
            }
            Step::AskLoaders => {
                asked_loaders = true;
                user = ask_loaders(config, snapshot).await?;
                break;
            }
            Step::Done => break,
        }
    }
    let verdict = rules.finish();
    announce(config, &verdict, user.as_ref(), asked_loaders);
    let (session, remember) = match &user {
        Some(user) => changes(config, snapshot, presented, user, &verdict, now)?,
        None => clearings(&verdict),
    };
    let identity = match (verdict.who, user) {
        (Who::User { fresh, active }, Some(user)) => Identity::Session { user, fresh, active },
        (Who::Nobody, Some(user)) if asked_loaders => Identity::Loader { user },
        _ => Identity::Anonymous,
    };
    Ok(Resolved { identity, session, remember, remembered: verdict.remembered, asked_loaders })
}

fn is_same_client<U>(config: &Config<U>, snapshot: &Snapshot, held: &Held<Session>) -> bool {
    client_digest(config, snapshot, held.slot) == held.cookie.client
}

fn facts<U: AuthUser>(config: &Config<U>, presented: &Presented, user: &U) -> Facts {
    let stamp = user.stamp();
    let holds =
        |slot, id: &UserId, digest| config.keyring.stamp(slot, id.as_bytes(), &stamp) == digest;
    let session = presented.session.as_ref();
    let remember = presented.remember.as_ref();
    Facts {
        active: user.is_active(),
        session_stamp_holds: session
            .is_some_and(|held| holds(held.slot, &held.cookie.user, held.cookie.stamp)),
        remember_stamp_holds: remember
            .is_some_and(|held| holds(held.slot, &held.cookie.user, held.cookie.stamp)),
    }
}

async fn ask_loaders<U: AuthUser>(
    config: &Config<U>,
    snapshot: &Snapshot,
) -> Result<Option<Arc<U>>, Fault> {
    for loader in &config.loaders {
        if let Some(user) = loader.load(&snapshot.request).await? {
            // An inactive user is nobody, and no other loader is asked for a second opinion.
            return Ok(Some(user).filter(|user| user.is_active()));
        }
    }
    Ok(None)
}

/// The cookies that the rules want, made out for this user and this client.
fn changes<U: AuthUser>(
    config: &Config<U>,
    snapshot: &Snapshot,
    presented: &Presented,
    user: &U,
    verdict: &Verdict,
    now: u32,
) -> Result<(Change<Session>, Change<Remember>), Fault> {
    let (mut session, mut remember) = clearings(verdict);
    let here = || client_digest(config, snapshot, KeySlot::CURRENT);
    match verdict.session {
        SessionChange::Keep | SessionChange::Clear => {}
        SessionChange::Restore(flags) => {
            let terms = new_terms(now, false, flags)?;
            session = Change::set(issue_session(config, user, terms, here()));
        }
        SessionChange::Reissue(terms) => {
            // Still bound to the client that logged in. Its digest can't be carried over to
            // another key, so with that the session is bound to the client of this request; one
            // that was not the same has lost its freshness before.
            let bound = presented.session.as_ref().filter(|held| held.slot.is_current());
            let client = bound.map_or_else(here, |held| held.cookie.client);
            session = Change::set(issue_session(config, user, terms, client));
        }
    }
    if let RememberChange::Reissue(terms) = verdict.remember {
        remember = Change::set(issue_remember(config, user, terms));
    }
    Ok((session, remember))
}

fn clearings(verdict: &Verdict) -> (Change<Session>, Change<Remember>) {
    let session = match verdict.session {
        SessionChange::Clear => Change::Clear,
        _ => Change::Keep,
    };
    let remember = match verdict.remember {
        RememberChange::Clear => Change::Clear,
        _ => Change::Keep,
    };
    (session, remember)
}

fn announce<U>(config: &Config<U>, verdict: &Verdict, user: Option<&Arc<U>>, asked_loaders: bool) {
    if verdict.protected {
        config.raise(Event::SessionProtected);
    }
    let Some(user) = user.cloned() else { return };
    if asked_loaders {
        config.raise(Event::LoadedFromRequest { user });
    } else if matches!(verdict.session, SessionChange::Restore(_)) {
        config.raise(Event::Restored { user });
    }
}
