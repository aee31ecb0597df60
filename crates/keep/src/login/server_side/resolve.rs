//! Resolving the cookies of a request to a server-side session and its user.

use std::sync::Arc;

use tower_keep_core::{
    AuthUser, EndReason, Rotated, Rotation, SeenMark, SessionRecord, Timestamp, Touch,
};

use super::cookies::{ServerRemember, ServerSession, SessionId};
use super::issue::{decision_without_new_cookies, follow_verdict};
use super::rules::{Alarm, Presented, Rules, Step, StoredSession, Verdict};
use crate::cookie::contents::Opened;
use crate::error::AuthError;
use crate::event::Event;
use crate::keyring::VerifierInput;
use crate::layer::config::Config;
use crate::login::issue::Issuer;
use crate::login::resolve::{Purpose, ask_loaders, is_same_client, raise_events, user_facts};
use crate::login::shared_rules::LoggedIn;
use crate::login::snapshot::Snapshot;
use crate::login::state::{BrowserSession, Identity, Resolved};
use crate::sessions::Sessions;
use crate::upkeep::Notes;

/// Carries out the steps of the rules.
pub(in crate::login) struct Resolver<'a, U> {
    pub(in crate::login) config: &'a Config<U>,
    pub(in crate::login) sessions: &'a Sessions<U>,
    pub(in crate::login) snapshot: &'a Snapshot,
}

impl<U: AuthUser> Resolver<'_, U> {
    /// Resolves the verified cookies of a request to a user.
    pub(in crate::login) async fn resolve(
        &self,
        session: Option<&Opened<ServerSession>>,
        remember: Option<&Opened<ServerRemember>>,
        purpose: Purpose,
    ) -> Result<Resolved<U>, AuthError> {
        let (config, store, now) = (self.config, &self.sessions.store, self.config.now());
        let client = session.map(|opened| (opened.slot, opened.cookie.client));
        let is_same_client = is_same_client(config, self.snapshot, client);
        let is_logout = purpose == Purpose::LogOut;
        let presented = Presented { now, session, remember, is_same_client, is_logout };
        let mut rules = Rules::new(&config.policy, presented);

        let mut step = rules.start();
        let mut loaded_id = None;
        let mut user: Option<Arc<U>> = None;
        let mut asked_loaders = false;
        loop {
            step = match step {
                Step::Load { id, user_hint } => {
                    loaded_id = Some(id);
                    let stored = store.load_login(&id.key(), user_hint).await?;
                    user = stored.as_ref().and_then(|stored| stored.user.clone());
                    rules.loaded(stored.map(|stored| {
                        let id = &stored.record.user;
                        let session = session.map(|opened| (opened.slot, id, opened.cookie.stamp));
                        let remember =
                            remember.map(|opened| (opened.slot, id, opened.cookie.stamp));
                        let facts = |user: Arc<U>| user_facts(config, &*user, session, remember);
                        StoredSession { user: stored.user.map(facts), record: stored.record }
                    }))
                }
                Step::CheckVerifier => {
                    let salt = rules.record().map(|record| record.salt);
                    let verifies = |(opened, salt): (&Opened<ServerRemember>, [u8; 16])| {
                        let ServerRemember { id, generation, ref verifier, .. } = opened.cookie;
                        let input = VerifierInput { salt, session_id: id.0, generation };
                        config.keyring.verifies(verifier, opened.slot, &input)
                    };
                    rules.verifier_checked(remember.zip(salt).is_some_and(verifies))
                }
                // The futures of rare steps are boxed, so that the future of every request stays
                // small.
                Step::Rotate => {
                    let rotated = Box::pin(self.rotate(&rules, now)).await?;
                    rules.rotated(rotated)
                }
                Step::End(reason) => {
                    let ended_by_this_request = Box::pin(self.end(&rules, reason)).await?;
                    rules.ended(reason, ended_by_this_request)
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
            self.raise_alarm(&verdict, record);
            if verdict.marks_seen || verdict.is_touched {
                Box::pin(self.note_use(&verdict, record, now)).await?;
            }
        }
        raise_events(
            config,
            verdict.is_other_client,
            verdict.is_restored,
            user.as_ref(),
            asked_loaders,
        );
        let browser_session = match (&record, loaded_id, verdict.logged_in) {
            (Some(record), Some(id), LoggedIn::User { .. }) => {
                let valid_session = session.filter(|_| !verdict.is_restored);
                self.browser_session(id, record, valid_session, remember)
            }
            _ => None,
        };
        let cookies = match (&user, browser_session) {
            (Some(user), Some(browser_session)) => {
                let issuer = Issuer { config, snapshot: self.snapshot, user: &**user, now };
                follow_verdict(&issuer, &verdict, browser_session, session)
            }
            _ => decision_without_new_cookies(config, &verdict, now),
        };
        let identity = Identity::resolved(verdict.logged_in, user, asked_loaders);
        Ok(Resolved { identity, cookies, asked_loaders })
    }

    /// Returns this session, and which of its cookies the browser holds. Returns `None` if the
    /// request sent neither the session cookie nor the remember cookie of this session.
    fn browser_session(
        &self,
        id: SessionId,
        record: &Arc<SessionRecord>,
        session: Option<&Opened<ServerSession>>,
        remember: Option<&Opened<ServerRemember>>,
    ) -> Option<BrowserSession> {
        let path = self.snapshot.request.target.as_ref().map_or("/", |target| target.path());
        let remember =
            remember.filter(|opened| opened.cookie.id == id).map(|opened| &opened.cookie);
        let terms = session.map(|opened| opened.cookie.terms);
        let of_session = terms.map(|terms| (terms.generation, terms.login_origin));
        let (generation, login_origin) =
            of_session.or(remember.map(|remember| (remember.generation, remember.login_origin)))?;
        // If the remember cookie has another path, browsers don't send it with this request. The
        // session cookie says whether the browser holds it.
        let is_held_for_other_path = terms.is_some_and(|terms| terms.is_remembered)
            && !self.config.remember_cookie.is_sent_to(path);
        Some(BrowserSession {
            id,
            login_origin,
            record: Arc::clone(record),
            sent_generation: Some(generation),
            is_remembered: remember.is_some() || terms.is_some_and(|terms| terms.is_remembered),
            holds_remember: remember.is_some() || is_held_for_other_path,
        })
    }

    async fn rotate(&self, rules: &Rules<'_>, now: u32) -> Result<Option<Rotated>, AuthError> {
        let Some(record) = rules.record() else { return Ok(None) };
        let rotation = next_rotation(self.config, record, rules.next_remember_expires(), now);
        Ok(self.sessions.store.rotate(&rotation).await?)
    }

    /// Ends the session. Returns whether this request has ended it. Of several concurrent requests,
    /// only one ends the session, and only this request raises the event.
    async fn end(&self, rules: &Rules<'_>, reason: EndReason) -> Result<bool, AuthError> {
        let Some(record) = rules.record() else { return Ok(false) };
        self.end_session(record, reason).await
    }

    pub(super) async fn end_session(
        &self,
        record: &Arc<SessionRecord>,
        reason: EndReason,
    ) -> Result<bool, AuthError> {
        let end = self.config.end_for(reason);
        let ended_by_this_request = self.sessions.store.revoke(&[record.key], &end).await? > 0;
        if ended_by_this_request {
            let record = Arc::clone(record);
            self.config.raise(Event::SessionEnded { record, reason });
        }
        Ok(ended_by_this_request)
    }

    fn raise_alarm(&self, verdict: &Verdict, record: &Arc<SessionRecord>) {
        let record = || Arc::clone(record);
        match verdict.alarm {
            // `end` has already raised an event.
            Some(Alarm::Replay) | None => {}
            Some(Alarm::WrongVerifier) => {
                self.config.raise(Event::WrongVerifier { record: record() });
            }
            Some(Alarm::RolledBack) => {
                self.config.raise(Event::StoreRolledBack { record: record() });
            }
        }
    }

    /// Records that a request has used the session. The verdict says whether this needs the seen
    /// mark, the time of last use, or both.
    async fn note_use(
        &self,
        verdict: &Verdict,
        record: &SessionRecord,
        now: u32,
    ) -> Result<(), AuthError> {
        let (key, at, policy) = (record.key, Timestamp::from_secs(now), &self.config.policy);
        let remember_expires = verdict.remember_expires.map(Timestamp::from_secs);
        let stored = record.remember.map(|remember| remember.expires);
        let remember = remember_expires.max(stored).map(Timestamp::as_secs);
        let expires = policy.record_expires(now, record.session_started.as_secs(), remember);
        let expires = Timestamp::from_secs(expires);
        let generation = record.generation;
        let seen = verdict.marks_seen.then_some(SeenMark::new(key, generation, at));
        let mut touch = Touch::new(key, at, expires);
        touch.remember_expires = remember_expires;
        let touch = verdict.is_touched.then_some(touch);
        self.write_notes(record, Notes { seen, touch }).await
    }

    /// Records that the session is used now, if its time of last use is old enough. A use does not
    /// extend a session that a bearer token carries.
    pub(in crate::login) async fn touch(
        &self,
        record: &SessionRecord,
        is_bearer: bool,
        now: u32,
    ) -> Result<(), AuthError> {
        let policy = &self.config.policy;
        if now.saturating_sub(record.last_seen.as_secs()) < policy.touch_interval {
            return Ok(());
        }
        let remember = record.remember.map(|remember| remember.expires.as_secs());
        let extended = policy.record_expires(now, record.session_started.as_secs(), remember);
        let expires = if is_bearer { record.expires } else { Timestamp::from_secs(extended) };
        let touch = Touch::new(record.key, Timestamp::from_secs(now), expires);
        self.write_notes(record, Notes { seen: None, touch: Some(touch) }).await
    }

    /// Writes that a request has used the session. The first use is written immediately, and the
    /// upkeep writes the rest.
    pub(super) async fn write_notes(
        &self,
        record: &SessionRecord,
        Notes { seen, touch }: Notes,
    ) -> Result<(), AuthError> {
        // If the session limit refuses logins, a session that no request has used makes room for
        // other logins, so the first use is written immediately.
        let seen = match seen {
            Some(first_use) if record.rotated_at.is_none() => {
                // If this write fails, the user stays logged in, and the mark is noted below. The
                // conversion to `AuthError` logs the error.
                let written =
                    self.sessions.store.mark_seen(&[first_use]).await.map_err(AuthError::from);
                written.is_err().then_some(first_use)
            }
            seen => seen,
        };
        let notes = Notes { seen, touch };
        self.sessions.upkeep.note(&*self.sessions.store, notes).await.map_err(AuthError::from)
    }
}

/// Returns the rotation that begins the next generation of this record.
pub(super) fn next_rotation<U>(
    config: &Config<U>,
    record: &SessionRecord,
    remember_expires: Option<u32>,
    now: u32,
) -> Rotation {
    let remember_expires = remember_expires.map(Timestamp::from_secs);
    let stored = record.remember.map(|remember| remember.expires);
    let remember = remember_expires.max(stored).map(Timestamp::as_secs);
    let expires = Timestamp::from_secs(config.policy.record_expires(now, now, remember));
    let at = Timestamp::from_secs(now);
    let mut rotation = Rotation::new(record.key, record.generation, at, expires);
    rotation.remember_expires = remember_expires;
    rotation
}
