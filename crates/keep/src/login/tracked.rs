//! Logins with a record: resolving them, beginning one, making one out anew, ending it.

use std::sync::Arc;

use http::HeaderValue;
use tower_keep_core::{
    AuthUser, Creation, End, EndReason, NewLogin, Rotated, Rotation, Seen as SeenMark, SessionKey,
    SessionRecord, StoreErrorKind, Timestamp, Touch,
};

use super::change::LogIn;
use super::handle::Login;
use super::issue::{client_digest, remember_cookie, session_cookie};
use super::resolve::{Purpose, announce, ask_loaders, facts};
use super::snapshot::Snapshot;
use super::state::{Change, Cookies, Current, Identity, Resolved, Tracked};
use crate::cookie::{
    FORCED, Held, REMEMBERED, SessionId, TrackedRemember, TrackedSession, TrackedTerms,
};
use crate::keys::KeySlot;
use crate::layer::Config;
use crate::rules::Who;
use crate::rules::tracked::{
    Alarm, RememberChange, Rules, Seen, SessionChange, Step, Stored, Verdict,
};
use crate::sessions::Sessions;
use crate::upkeep::Marks;
use crate::{Event, Fault, LogInError, SessionProtection, random};

/// How often a lost compare-and-swap of a confirmation is tried again.
const RETRIES: u8 = 2;

/// The I/O that the rules ask for.
pub(super) struct Walk<'a, U> {
    pub(super) config: &'a Config<U>,
    pub(super) sessions: &'a Sessions<U>,
    pub(super) snapshot: &'a Snapshot,
}

impl<U: AuthUser> Walk<'_, U> {
    pub(super) async fn resolve(
        &self,
        session: Option<&Held<TrackedSession>>,
        remember: Option<&Held<TrackedRemember>>,
        purpose: Purpose,
    ) -> Result<Resolved<U>, Fault> {
        let (config, store, now) = (self.config, &self.sessions.store, self.config.now());
        let is_same = |held: &Held<TrackedSession>| {
            client_digest(config, self.snapshot, held.slot) == held.cookie.client
        };
        let protects = config.policy.protection != SessionProtection::None;
        let same_client = !protects || session.is_none_or(is_same);
        let is_leaving = purpose == Purpose::Leave;
        let seen = Seen { now, session, remember, same_client, is_leaving };
        let mut rules = Rules::new(&config.policy, seen);

        let mut step = rules.start();
        let mut at = None;
        let mut user: Option<Arc<U>> = None;
        let mut asked_loaders = false;
        loop {
            step = match step {
                Step::Load(id, likely) => {
                    at = Some(id);
                    let stored = store.load_login(&id.key(), likely).await?;
                    user = stored.as_ref().and_then(|stored| stored.user.clone());
                    rules.loaded(stored.map(|stored| {
                        let id = &stored.record.user;
                        let session = session.map(|held| (held.slot, id, held.cookie.stamp));
                        let remember = remember.map(|held| (held.slot, id, held.cookie.stamp));
                        let facts = |user: Arc<U>| facts(config, &*user, session, remember);
                        Stored { user: stored.user.map(facts), record: stored.record }
                    }))
                }
                Step::Verify => {
                    let salt = rules.record().map(|record| record.salt);
                    let fits = remember.zip(salt);
                    rules.verified(
                        fits.is_some_and(|(held, salt)| config.keyring.verifies(held, &salt)),
                    )
                }
                // What is rare is boxed, so that the future of every request is small.
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
                Step::Busy => return Err(Fault::BUSY),
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
        announce(config, verdict.protected, verdict.is_restored, user.as_ref(), asked_loaders);
        let cookies = match (&user, &record, at, verdict.who) {
            (Some(user), Some(record), Some(id), Who::User { .. }) => {
                let by_session = session.filter(|_| !verdict.is_restored);
                let tracked = self.tracked(id, record, by_session, remember);
                Made { walk: self, user: &**user, now }.follow(&verdict, tracked, session)
            }
            _ => cookies_of_nobody(&verdict, self.until(now)),
        };
        let identity = match (verdict.who, user) {
            (Who::User { fresh, active }, Some(user)) => Identity::Session { user, fresh, active },
            (Who::Nobody, Some(user)) if asked_loaders => Identity::Loader { user },
            _ => Identity::Anonymous,
        };
        Ok(Resolved { identity, cookies, asked_loaders })
    }

    /// What the browser holds of this session, which it has shown by the session cookie or, without
    /// that, by the remember cookie.
    fn tracked(
        &self,
        id: SessionId,
        record: &Arc<SessionRecord>,
        session: Option<&Held<TrackedSession>>,
        remember: Option<&Held<TrackedRemember>>,
    ) -> Tracked {
        let path = self.snapshot.request.target.as_ref().map_or("/", |target| target.path());
        let remember = remember.filter(|held| held.cookie.id == id).map(|held| &held.cookie);
        let terms = session.map(|held| held.cookie.terms);
        let flags = terms.map_or(0, |terms| terms.flags);
        let shown = terms.map(|terms| terms.generation);
        // A cookie for another path could not have been sent here; the session says that it is there.
        let is_hidden = flags & REMEMBERED != 0 && !self.config.remember.is_sent_to(path);
        Tracked {
            id,
            flags,
            record: Arc::clone(record),
            shown: shown.or(remember.map(|remember| remember.generation)),
            is_remembered: remember.is_some() || is_hidden,
        }
    }

    /// When it is too late to write cookies that this request was given along the way.
    fn until(&self, now: u32) -> u32 {
        now.saturating_add(self.config.policy.cookies_age())
    }

    async fn rotate(&self, rules: &Rules<'_>, now: u32) -> Result<Option<Rotated>, Fault> {
        let Some(record) = rules.record() else { return Ok(None) };
        let rotation = rotation(self.config, record, rules.next_remember_expires(), now);
        Ok(self.sessions.store.rotate(&rotation).await?)
    }

    /// Whether it was this request that ended the session; of several at once, one tells.
    async fn end(&self, rules: &Rules<'_>, reason: EndReason) -> Result<bool, Fault> {
        let Some(record) = rules.record() else { return Ok(false) };
        let end = self.sessions.end(self.config, reason);
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
            // Its end was already told.
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
    async fn mark(&self, verdict: &Verdict, record: &SessionRecord, now: u32) -> Result<(), Fault> {
        let (key, at, policy) = (record.key, Timestamp::from_secs(now), &self.config.policy);
        let remember_expires = verdict.remember_expires.map(Timestamp::from_secs);
        let remember = remember_expires.max(record.remember_expires).map(Timestamp::as_secs);
        let expires = policy.lives_until(now, record.session_started.as_secs(), remember);
        let expires = Timestamp::from_secs(expires);
        let generation = record.generation;
        let marks = Marks {
            seen: verdict.is_seen.then_some(SeenMark { key, generation, at }),
            touch: verdict.is_touched.then_some(Touch { key, at, remember_expires, expires }),
        };
        self.sessions.upkeep.note(&*self.sessions.store, marks).await.map_err(Fault::from)
    }
}

/// The next generation of this record.
fn rotation<U>(
    config: &Config<U>,
    record: &SessionRecord,
    remember_expires: Option<u32>,
    now: u32,
) -> Rotation {
    let remember_expires = remember_expires.map(Timestamp::from_secs);
    let remember = remember_expires.max(record.remember_expires).map(Timestamp::as_secs);
    Rotation {
        key: record.key,
        from: record.generation,
        at: Timestamp::from_secs(now),
        remember_expires,
        expires: Timestamp::from_secs(config.policy.lives_until(now, now, remember)),
    }
}

fn cookies_of_nobody(verdict: &Verdict, until: u32) -> Cookies {
    Cookies {
        current: Current::Nothing,
        session: Change::clear_if(verdict.session == SessionChange::Clear),
        remember: Change::clear_if(verdict.remember == RememberChange::Clear),
        until,
    }
}

/// Makes cookies out for a user.
struct Made<'a, U> {
    walk: &'a Walk<'a, U>,
    user: &'a U,
    now: u32,
}

impl<U: AuthUser> Made<'_, U> {
    /// The cookies that the rules want.
    fn follow(
        &self,
        verdict: &Verdict,
        mut tracked: Tracked,
        session: Option<&Held<TrackedSession>>,
    ) -> Cookies {
        let mut cookies = cookies_of_nobody(verdict, self.walk.until(self.now));
        match verdict.session {
            SessionChange::Keep | SessionChange::Clear => {}
            SessionChange::Restore(terms) => {
                tracked.flags = terms.flags;
                cookies.session = self.session(&tracked, terms, self.here());
            }
            SessionChange::Issue(terms) => {
                // As with cookies alone: bound to the client that logged in, if its digest is still
                // one of the current key.
                let bound = session.filter(|held| held.slot.is_current());
                let client = bound.map_or_else(|| self.here(), |held| held.cookie.client);
                tracked.flags = terms.flags;
                cookies.session = self.session(&tracked, terms, client);
            }
        }
        if let RememberChange::Issue { flags, generation, expires } = verdict.remember {
            cookies.remember = self.remember(&tracked, flags, generation, expires);
        }
        cookies.current = Current::Tracked(tracked);
        cookies
    }

    fn here(&self) -> u64 {
        client_digest(self.walk.config, self.walk.snapshot, KeySlot::CURRENT)
    }

    fn stamp(&self, record: &SessionRecord) -> u64 {
        let id = record.user.as_bytes();
        self.walk.config.keyring.stamp(KeySlot::CURRENT, id, &self.user.stamp())
    }

    fn session(&self, tracked: &Tracked, terms: TrackedTerms, client: u64) -> Change<HeaderValue> {
        let Tracked { id, record, .. } = tracked;
        let is_short = record.user.as_bytes().len() <= TrackedSession::LONGEST_LIKELY;
        let likely = if is_short { record.user.clone() } else { "".into() };
        let session = TrackedSession { id: *id, terms, stamp: self.stamp(record), client, likely };
        session_cookie(self.walk.config, &session, record.session_started.as_secs(), self.now)
    }

    fn remember(
        &self,
        tracked: &Tracked,
        flags: u8,
        generation: u32,
        expires: u32,
    ) -> Change<HeaderValue> {
        let Tracked { id, record, .. } = tracked;
        let keyring = &self.walk.config.keyring;
        let verifier = keyring.verifier(KeySlot::CURRENT, &record.salt, *id, generation);
        let stamp = self.stamp(record);
        let remember = TrackedRemember { id: *id, flags, generation, verifier, expires, stamp };
        remember_cookie(self.walk.config, &remember, expires, self.now)
    }

    /// Both cookies of the record's generation, or the session's alone; fresh if the user has just
    /// proved who they are.
    fn anew(&self, tracked: Tracked, fresh: bool) -> (u32, Cookies) {
        let Tracked { flags, record, is_remembered, .. } = &tracked;
        // Zero stands for "not fresh", whatever the clock says.
        let fresh = if fresh { self.now.max(1) } else { 0 };
        let (flags, generation, issued) = (*flags, record.generation, self.now);
        let terms = TrackedTerms { flags, generation, issued, fresh };
        let session = self.session(&tracked, terms, self.here());
        let expires = record.remember_expires.map(Timestamp::as_secs);
        let expires = expires.filter(|expires| *is_remembered && self.now < *expires);
        let remember = expires.map_or(Change::Keep, |expires| {
            self.remember(&tracked, flags & FORCED, generation, expires)
        });
        let current = Current::Tracked(tracked);
        (fresh, Cookies { current, session, remember, until: u32::MAX })
    }
}

impl<U: AuthUser> Login<U> {
    fn tracked(&self) -> Option<Tracked> {
        match &self.state().current {
            Current::Tracked(tracked) => Some(tracked.clone()),
            Current::Nothing | Current::Stateless { .. } => None,
        }
    }

    /// The sessions of this browser: the one begun or found by this request, and those that its
    /// cookies point to.
    fn own_sessions(&self) -> Vec<SessionKey> {
        let mut keys: Vec<_> =
            self.tracked().map(|tracked| tracked.record.key).into_iter().collect();
        for key in self.presented().sessions().map(SessionId::key) {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    }
}

/// Begins the login: one write.
pub(super) async fn begin<U: AuthUser>(
    log_in: &LogIn<'_, U>,
    sessions: &Sessions<U>,
    flags: u8,
) -> Result<(), LogInError> {
    let LogIn { login, user, .. } = log_in;
    let _changing = login.change().await?;
    let (config, snapshot, now) = (login.config(), &login.0.snapshot, login.config().now());
    let (id, at) = (SessionId(random::bytes()?), Timestamp::from_secs(now));
    let seconds = log_in.remember_seconds();
    let remember_expires = seconds.map(|seconds| at.plus(seconds));
    let remember = remember_expires.map(Timestamp::as_secs);
    let record = SessionRecord {
        key: id.key(),
        user: user.id(),
        generation: 0,
        rotated_at: None,
        seen_at: None,
        salt: random::bytes()?,
        created: at,
        session_started: at,
        last_seen: at,
        remember_expires,
        remember_seconds: seconds.unwrap_or_default(),
        expires: Timestamp::from_secs(config.policy.lives_until(now, now, remember)),
        address: snapshot.request.client,
        user_agent: snapshot.shown_user_agent(),
        method: log_in.method.as_str().into(),
        ended: None,
    };
    let new = NewLogin {
        record: &record,
        replacing: &login.own_sessions(),
        ended_until: at.plus(config.policy.grace),
        limit: sessions.limit,
    };
    let end = sessions.end(config, EndReason::LoggedOut);
    let creation = match sessions.store.create(&new).await {
        Err(error) if error.kind() == StoreErrorKind::Timeout => {
            // It may have been written all the same, and would take the user's place of a session
            // that nobody holds.
            let _ = sessions.store.revoke(&[record.key], &end).await;
            return Err(Fault::from(error).into());
        }
        creation => creation.map_err(Fault::from)?,
    };
    let Creation::Created { ended, replays } = creation else {
        let most = sessions.limit.map_or(0, |limit| limit.most);
        return Err(LogInError::TooManySessions { most });
    };
    for record in ended {
        config.raise(Event::SessionEnded { record, reason: EndReason::Limit });
    }
    let (key, is_remembered) = (record.key, seconds.is_some());
    let tracked = Tracked { id, flags, record: record.into(), shown: None, is_remembered };
    let walk = Walk { config, sessions, snapshot };
    let made = Made { walk: &walk, user: &**user, now };
    let (fresh, mut cookies) = made.anew(tracked, log_in.fresh);
    if matches!(cookies.remember, Change::Keep) {
        // The latest choice rules: an older remember cookie must not bring anybody back later.
        cookies.remember = Change::Clear;
    }
    let identity = Identity::Session { user: Arc::clone(user), fresh, active: user.is_active() };
    let is_too_late = {
        let mut state = login.state();
        if !state.sealed {
            state.decide(identity, cookies);
        }
        state.sealed
    };
    if is_too_late {
        // The head went out while the record was written; no cookie can follow it.
        sessions.store.revoke(&[key], &end).await.map_err(Fault::from)?;
        return Err(Fault::TOO_LATE.into());
    }
    log_in.tell_of_replays(&replays);
    Ok(())
}

/// Ends the sessions of this browser. What can't be recorded is not done.
pub(super) async fn end<U: AuthUser>(
    login: &Login<U>,
    sessions: &Sessions<U>,
) -> Result<Option<Arc<U>>, Fault> {
    let _changing = login.change().await?;
    login.ensure_resolved_for(Purpose::Leave).await?;
    let keys = login.own_sessions();
    if !keys.is_empty() {
        let end = sessions.end(login.config(), EndReason::LoggedOut);
        sessions.store.revoke(&keys, &end).await?;
    }
    login.leave_session()
}

/// How late a confirmation's cookies may be written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Until {
    /// Those before them still work.
    HalfTheGrace,
    /// Those before them are dead.
    Always,
}

/// Makes the current session fresh, in its next generation. `Ok(None)` if it has ended meanwhile.
///
/// The next generation is one after what the browser holds, and no more: of two steps at once both
/// answers could be lost, and what the browser holds would look like a replay. So if the record is
/// ahead of the browser already, and nobody has shown that the step has arrived, it is not taken
/// again.
pub(super) async fn reissue<U: AuthUser>(
    login: &Login<U>,
    sessions: &Sessions<U>,
    user: &Arc<U>,
    until: Until,
) -> Result<Option<()>, Fault> {
    let (config, snapshot, now) = (login.config(), &login.0.snapshot, login.config().now());
    // Another login may have been quicker.
    let tracked = login.tracked().filter(|tracked| tracked.record.user == user.id());
    let Some(mut tracked) = tracked else { return Ok(None) };
    let mut lost = 0;
    while tracked.shown == Some(tracked.record.generation) || tracked.record.seen_at.is_some() {
        let rotation = rotation(config, &tracked.record, None, now);
        match sessions.store.rotate(&rotation).await? {
            Some(Rotated::Won(next)) => {
                tracked.record = next;
                break;
            }
            Some(Rotated::Lost(other)) if other.ended.is_none() => tracked.record = other,
            Some(Rotated::Lost(_)) | None => return Ok(None),
        }
        lost += 1;
        if lost > RETRIES {
            return Err(Fault::BUSY);
        }
    }
    tracked.flags &= !FORCED;
    let walk = Walk { config, sessions, snapshot };
    let made = Made { walk: &walk, user: &**user, now };
    let (fresh, mut cookies) = made.anew(tracked, true);
    if until == Until::HalfTheGrace {
        cookies.until = now.saturating_add(config.policy.grace / 2);
    }
    let mut state = login.state();
    if state.sealed {
        return Err(Fault::TOO_LATE);
    }
    state.identity = Identity::Session { user: Arc::clone(user), fresh, active: true };
    state.decide_cookies(cookies);
    Ok(Some(()))
}

impl<U> Sessions<U> {
    /// How a session ends now. A replay is kept in mind until the user was told of it, at most as long
    /// as a login is remembered.
    pub(crate) fn end(&self, config: &Config<U>, reason: EndReason) -> End {
        let at = Timestamp::from_secs(config.now());
        let kept = match reason {
            EndReason::Replay => config.policy.grace.max(config.remember_duration),
            _ => config.policy.grace,
        };
        End { at, reason, keep_until: at.plus(kept) }
    }
}
