//! Beginning a login with a record, confirming it, ending it.

use std::sync::Arc;

use tower_keep_core::{
    AuthUser, Creation, EndReason, NewLogin, Rotated, SessionKey, SessionRecord, StoreErrorKind,
    Timestamp,
};

use super::cookies::Made;
use super::rotation;
use crate::cookie::{FORCED, SessionId};
use crate::login::change::LogIn;
use crate::login::handle::Login;
use crate::login::resolve::Purpose;
use crate::login::state::{Change, Current, Identity, Tracked};
use crate::rules::tracked::confirming_rotates;
use crate::sessions::Sessions;
use crate::{Event, Fault, LogInError, random};

/// How often a lost compare-and-swap of a confirmation is tried again.
const RETRIES: u8 = 2;

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
pub(in crate::login) async fn begin<U: AuthUser>(
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
    let end = config.ending(EndReason::LoggedOut);
    // Until its cookies are decided, whatever happens here ends a record that may have been written.
    let mut unanswered = Unanswered { login, key: Some(record.key) };
    let creation = match sessions.store.create(&new).await {
        Ok(creation) => creation,
        Err(error) => {
            if error.kind() == StoreErrorKind::Timeout {
                // It would take the user's place of a session that nobody holds; it may also be
                // written only later.
                let _ = sessions.store.revoke(&[record.key], &end).await;
            } else {
                unanswered.key = None;
            }
            return Err(Fault::from(error).into());
        }
    };
    let Creation::Created { ended, replays } = creation else {
        unanswered.key = None;
        let most = sessions.limit.map_or(0, |limit| limit.most);
        return Err(LogInError::TooManySessions { most });
    };
    for record in ended {
        config.raise(Event::SessionEnded { record, reason: EndReason::Limit });
    }
    let (key, is_remembered) = (record.key, seconds.is_some());
    let tracked = Tracked { id, flags, record: record.into(), shown: None, is_remembered };
    let made = Made { config, snapshot, user: &**user, now };
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
            state.begun = Some(key);
        }
        state.sealed
    };
    if is_too_late {
        // The head went out while the record was written; no cookie can follow it.
        sessions.store.revoke(&[key], &end).await.map_err(Fault::from)?;
        unanswered.key = None;
        return Err(Fault::TOO_LATE.into());
    }
    unanswered.key = None;
    log_in.tell_of_replays(&replays);
    Ok(())
}

/// A login whose record is being written.
struct Unanswered<'a, U> {
    login: &'a Login<U>,
    key: Option<SessionKey>,
}

impl<U> Drop for Unanswered<'_, U> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.login.abandon_session(key);
        }
    }
}

/// Ends all sessions of the user who is logged in here, and those of this browser: by one write, and
/// what follows is not worth an error.
pub(in crate::login) async fn end_all<U: AuthUser>(
    login: &Login<U>,
    sessions: &Sessions<U>,
) -> Result<Option<Arc<U>>, Fault> {
    let _changing = login.change().await?;
    login.ensure_resolved_for(Purpose::Leave).await?;
    let end = login.config().ending(EndReason::Ended);
    let user = login.with_identity(|identity| identity.user().map(|user| user.id()));
    if let Some(user) = user {
        sessions.store.revoke_all(&user, None, &end).await?;
    }
    let keys = login.own_sessions();
    if !keys.is_empty() {
        let end = login.config().ending(EndReason::LoggedOut);
        // The error has its line, and what was asked has been done.
        let _ = sessions.store.revoke(&keys, &end).await.map_err(Fault::from);
    }
    login.leave_session()
}

/// Ends the sessions of this browser. What can't be recorded is not done.
pub(in crate::login) async fn end<U: AuthUser>(
    login: &Login<U>,
    sessions: &Sessions<U>,
) -> Result<Option<Arc<U>>, Fault> {
    let _changing = login.change().await?;
    login.ensure_resolved_for(Purpose::Leave).await?;
    let keys = login.own_sessions();
    if !keys.is_empty() {
        let end = login.config().ending(EndReason::LoggedOut);
        sessions.store.revoke(&keys, &end).await?;
    }
    login.leave_session()
}

/// How late a confirmation's cookies may be written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::login) enum Until {
    /// Those before them still work.
    HalfTheGrace,
    /// Those before them are dead.
    Always,
}

/// Makes the current session fresh, in its next generation; answers whether it still lived.
pub(in crate::login) async fn reissue<U: AuthUser>(
    login: &Login<U>,
    sessions: &Sessions<U>,
    user: &Arc<U>,
    until: Until,
) -> Result<bool, Fault> {
    let (config, snapshot, now) = (login.config(), &login.0.snapshot, login.config().now());
    // Another login may have been quicker.
    let tracked = login.tracked().filter(|tracked| tracked.record.user == user.id());
    let Some(mut tracked) = tracked else { return Ok(false) };
    let mut lost = 0;
    while confirming_rotates(&tracked.record, tracked.shown) {
        let rotation = rotation(config, &tracked.record, None, now);
        let rotated = match sessions.store.rotate(&rotation).await.map_err(Fault::from) {
            // The stamp in all earlier cookies is dead, so the present generation does as well.
            Err(_) if until == Until::Always => break,
            rotated => rotated?,
        };
        match rotated {
            Some(Rotated::Won(next)) => {
                tracked.record = next;
                break;
            }
            Some(Rotated::Lost(other)) if other.ended.is_none() => tracked.record = other,
            Some(Rotated::Lost(_)) | None => return Ok(false),
        }
        lost += 1;
        if lost > RETRIES {
            match until {
                Until::Always => break,
                Until::HalfTheGrace => return Err(Fault::BUSY),
            }
        }
    }
    tracked.flags &= !FORCED;
    let made = Made { config, snapshot, user: &**user, now };
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
    Ok(true)
}
