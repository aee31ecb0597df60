//! Logins with a server-side session: resolving cookies to a user.
//!
//! | look for | in |
//! | --- | --- |
//! | beginning a login, confirming it, ending it | `change` |
//! | issuing its cookies | `cookies` |

mod change;
mod cookies;

use std::sync::Arc;

use tower_keep_core::{
    AuthUser, EndReason, Rotated, Rotation, SeenMark, SessionRecord, Timestamp, Touch,
};

use self::cookies::{CookieIssuer, cookies_of_nobody};
use super::issue::client_digest;
use super::resolve::{Purpose, ask_loaders, facts, raise_events};
use super::snapshot::Snapshot;
use super::state::{Identity, Resolved, ServerSide};
use crate::AuthError;
use crate::client::SessionProtection;
use crate::cookie::{Opened, ServerRemember, ServerSession, SessionId};
use crate::event::Event;
use crate::layer::Config;
use crate::rules::Who;
use crate::rules::server_side::{Alarm, Presented, Rules, Step, Stored, Verdict};
use crate::sessions::Sessions;
use crate::upkeep::Marks;

pub(super) use self::change::{CookieDeadline, begin, end, end_all, reissue};

/// Does the I/O that the rules ask for.
pub(in crate::login) struct Resolver<'a, U> {
    pub(in crate::login) config: &'a Config<U>,
    pub(in crate::login) sessions: &'a Sessions<U>,
    pub(in crate::login) snapshot: &'a Snapshot,
}

impl<U: AuthUser> Resolver<'_, U> {
    pub(in crate::login) async fn resolve(
        &self,
        session: Option<&Opened<ServerSession>>,
        remember: Option<&Opened<ServerRemember>>,
        purpose: Purpose,
    ) -> Result<Resolved<U>, AuthError> {
        let (config, store, now) = (self.config, &self.sessions.store, self.config.now());
        let is_same = |opened: &Opened<ServerSession>| {
            client_digest(config, self.snapshot, opened.slot) == opened.cookie.client
        };
        let protects = config.policy.protection != SessionProtection::None;
        let same_client = !protects || session.is_none_or(is_same);
        let is_logout = purpose == Purpose::LogOut;
        let seen = Presented { now, session, remember, same_client, is_logout };
        let mut rules = Rules::new(&config.policy, seen);

        let mut step = rules.start();
        let mut at = None;
        let mut user: Option<Arc<U>> = None;
        let mut asked_loaders = false;
        loop {
            step = match step {
                Step::Load(id, user_hint) => {
                    at = Some(id);
                    let stored = store.load_login(&id.key(), user_hint).await?;
                    user = stored.as_ref().and_then(|stored| stored.user.clone());
                    rules.loaded(stored.map(|stored| {
                        let id = &stored.record.user;
                        let session = session.map(|opened| (opened.slot, id, opened.cookie.stamp));
                        let remember =
                            remember.map(|opened| (opened.slot, id, opened.cookie.stamp));
                        let facts = |user: Arc<U>| facts(config, &*user, session, remember);
                        Stored { user: stored.user.map(facts), record: stored.record }
                    }))
                }
                Step::Verify => {
                    let salt = rules.record().map(|record| record.salt);
                    let fits = remember.zip(salt);
                    rules.verified(
                        fits.is_some_and(|(opened, salt)| config.keyring.verifies(opened, &salt)),
                    )
                }
                // Rare steps are boxed, so that the future of every request is small.
                Step::Rotate => {
                    let rotated = Box::pin(self.rotate(&rules, now)).await?;
                    rules.rotated(rotated)
                }
                Step::End(reason) => {
                    let by_this = Box::pin(self.end(&rules, reason)).await?;
                    rules.ended(reason, by_this)
                }
                Step::AskLoaders => {
                    asked_loaders = true;
                    user = match &config.loaders[..] {
                        [] => None,
                        loaders => ask_loaders(loaders, self.snapshot).await?,
                    };
                    break;
                }
                Step::Busy => return Err(AuthError::BUSY),
                Step::Done => break,
            };
        }
        let (verdict, record) = rules.finish();
        if let Some(record) = &record {
            self.alarm(&verdict, record);
            if verdict.is_seen || verdict.is_touched {
                Box::pin(self.mark(&verdict, record, now)).await?;
            }
        }
        raise_events(config, verdict.protected, verdict.is_restored, user.as_ref(), asked_loaders);
        let server_side = match (&record, at, verdict.who) {
            (Some(record), Some(id), Who::User { .. }) => {
                let by_session = session.filter(|_| !verdict.is_restored);
                self.server_side(id, record, by_session, remember)
            }
            _ => None,
        };
        let cookies = match (&user, server_side) {
            (Some(user), Some(server_side)) => {
                let issuer = CookieIssuer { config, snapshot: self.snapshot, user: &**user, now };
                issuer.follow(&verdict, server_side, session)
            }
            _ => cookies_of_nobody(config, &verdict, now),
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

    /// Returns what the browser holds of this session, or `None` if it has sent neither of the
    /// session's cookies.
    fn server_side(
        &self,
        id: SessionId,
        record: &Arc<SessionRecord>,
        session: Option<&Opened<ServerSession>>,
        remember: Option<&Opened<ServerRemember>>,
    ) -> Option<ServerSide> {
        let path = self.snapshot.request.target.as_ref().map_or("/", |target| target.path());
        let remember =
            remember.filter(|opened| opened.cookie.id == id).map(|opened| &opened.cookie);
        let terms = session.map(|opened| opened.cookie.terms);
        let shown = terms.map(|terms| (terms.generation, terms.origin));
        let (generation, origin) =
            shown.or(remember.map(|remember| (remember.generation, remember.origin)))?;
        // A remember cookie for another path is not sent with this request. The session
        // cookie says that the browser holds it.
        let is_hidden = terms.is_some_and(|terms| terms.is_remembered)
            && !self.config.remember_cookie.is_sent_to(path);
        Some(ServerSide {
            id,
            origin,
            record: Arc::clone(record),
            shown: Some(generation),
            is_remembered: remember.is_some() || terms.is_some_and(|terms| terms.is_remembered),
            holds_remember: remember.is_some() || is_hidden,
        })
    }

    async fn rotate(&self, rules: &Rules<'_>, now: u32) -> Result<Option<Rotated>, AuthError> {
        let Some(record) = rules.record() else { return Ok(None) };
        let rotation = rotation(self.config, record, rules.next_remember_expires(), now);
        Ok(self.sessions.store.rotate(&rotation).await?)
    }

    /// Ends the session. Returns whether this request has ended it: of several concurrent requests
    /// only one has, and only that one raises the event.
    async fn end(&self, rules: &Rules<'_>, reason: EndReason) -> Result<bool, AuthError> {
        let Some(record) = rules.record() else { return Ok(false) };
        let end = self.config.ending(reason);
        let by_this = self.sessions.store.revoke(&[record.key], &end).await? > 0;
        if by_this {
            let record = Arc::clone(record);
            self.config.raise(Event::SessionEnded { record, reason });
        }
        Ok(by_this)
    }

    fn alarm(&self, verdict: &Verdict, record: &Arc<SessionRecord>) {
        let record = || Arc::clone(record);
        match verdict.alarm {
            // The end of the session has already raised an event.
            Some(Alarm::Replay) | None => {}
            Some(Alarm::WrongVerifier) => {
                self.config.raise(Event::WrongVerifier { record: record() });
            }
            Some(Alarm::RolledBack) => {
                self.config.raise(Event::StoreRolledBack { record: record() });
            }
        }
    }

    /// Notes that the browser holds this generation, and that the session was used.
    async fn mark(
        &self,
        verdict: &Verdict,
        record: &SessionRecord,
        now: u32,
    ) -> Result<(), AuthError> {
        let (key, at, policy) = (record.key, Timestamp::from_secs(now), &self.config.policy);
        let remember_expires = verdict.remember_expires.map(Timestamp::from_secs);
        let stored = record.remember.map(|remember| remember.expires);
        let remember = remember_expires.max(stored).map(Timestamp::as_secs);
        let expires = policy.lives_until(now, record.session_started.as_secs(), remember);
        let expires = Timestamp::from_secs(expires);
        let generation = record.generation;
        let seen = verdict.is_seen.then_some(SeenMark::new(key, generation, at));
        // The first use decides whether the session makes room for another one, so it is written
        // now.
        let seen = match seen {
            Some(first_use) if record.rotated_at.is_none() => {
                // If this write fails, the user stays logged in. The conversion to `AuthError` logs
                // it.
                let noted =
                    self.sessions.store.mark_seen(&[first_use]).await.map_err(AuthError::from);
                noted.is_err().then_some(first_use)
            }
            seen => seen,
        };
        let mut touch = Touch::new(key, at, expires);
        touch.remember_expires = remember_expires;
        let marks = Marks { seen, touch: verdict.is_touched.then_some(touch) };
        self.sessions.upkeep.note(&*self.sessions.store, marks).await.map_err(AuthError::from)
    }
}

/// Returns the rotation that begins the next generation of this record.
fn rotation<U>(
    config: &Config<U>,
    record: &SessionRecord,
    remember_expires: Option<u32>,
    now: u32,
) -> Rotation {
    let remember_expires = remember_expires.map(Timestamp::from_secs);
    let stored = record.remember.map(|remember| remember.expires);
    let remember = remember_expires.max(stored).map(Timestamp::as_secs);
    let expires = Timestamp::from_secs(config.policy.lives_until(now, now, remember));
    let at = Timestamp::from_secs(now);
    let mut rotation = Rotation::new(record.key, record.generation, at, expires);
    rotation.remember_expires = remember_expires;
    rotation
}
