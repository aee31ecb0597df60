//! Logging in, confirming and logging out with server-side sessions.

use std::sync::Arc;

use tower_keep_core::{
    AuthUser, Creation, EndReason, NewLogin, RememberPeriod, Rotated, SessionKey, SessionRecord,
    StoreErrorKind, Timestamp,
};

use super::cookies::CookieIssuer;
use super::next_rotation;
use crate::cookie::login_origin::Proofs;
use crate::cookie::server_side::SessionId;
use crate::error::{AuthError, LoginError};
use crate::event::Event;
use crate::login::change::LoginBuilder;
use crate::login::handle::AuthSession;
use crate::login::resolve::Purpose;
use crate::login::state::{BrowserLogin, BrowserSession, CookieChange, Identity};
use crate::random;
use crate::rules::server_side::confirming_rotates;
use crate::sessions::Sessions;

/// A confirmation retries a rotation that another request has overtaken at most this many times.
const MAX_RETRIES: u8 = 2;

impl<U: AuthUser> AuthSession<U> {
    fn browser_session(&self) -> Option<BrowserSession> {
        match &self.state().browser_login {
            BrowserLogin::ServerSide(browser_session) => Some(browser_session.clone()),
            BrowserLogin::Nothing | BrowserLogin::Stateless { .. } => None,
        }
    }

    /// Returns the keys of this browser's sessions: the session that this request has begun or
    /// resolved, and the sessions that the request's cookies name.
    fn session_keys_of_browser(&self) -> Vec<SessionKey> {
        let mut keys: Vec<_> =
            self.browser_session().map(|session| session.record.key).into_iter().collect();
        for key in self.verified_cookies().session_ids().map(SessionId::key) {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    }
}

/// Logs in the user: the store writes the new session and ends the replaced ones in one call.
pub(in crate::login) async fn log_in<U: AuthUser>(
    login: &LoginBuilder<'_, U>,
    sessions: &Sessions<U>,
) -> Result<(), LoginError> {
    let LoginBuilder { auth, user, .. } = login;
    let _lock = auth.lock_changes().await?;
    let (config, snapshot, now) = (auth.config(), &auth.0.snapshot, auth.config().now());
    let (id, at) = (SessionId(random::bytes()?), Timestamp::from_secs(now));
    let remember =
        login.remember_seconds().map(|seconds| RememberPeriod::new(at.plus(seconds), seconds));
    let remember_expires = remember.map(|remember| remember.expires.as_secs());
    let expires = Timestamp::from_secs(config.policy.record_expires(now, now, remember_expires));
    let mut record = SessionRecord::new(id.key(), user.id(), random::bytes()?, at, expires);
    record.remember = remember;
    record.details = login.details();
    let replacing = auth.session_keys_of_browser();
    let mut new_login = NewLogin::new(&record, at.plus(config.policy.grace));
    (new_login.replacing, new_login.limit) = (&replacing, sessions.limit);
    let end = config.end_for(EndReason::LoggedOut);
    // If this future fails or is dropped before the state has the cookies, no browser gets them.
    // The record may have been written, so `unsent` ends the session when it is dropped.
    let mut unsent = UnsentLogin { auth, key: Some(record.key) };
    let creation = match sessions.store.create(&new_login).await {
        Ok(creation) => creation,
        Err(error) => {
            if error.kind() == StoreErrorKind::Timeout {
                // The record may have been written. It would count against the user's session
                // limit, although no browser has its cookies. The store may also write the record
                // after this `revoke`, so `unsent` keeps the key and ends the session later.
                let _ = sessions.store.revoke(&[record.key], &end).await;
            } else {
                unsent.key = None;
            }
            return Err(AuthError::from(error).into());
        }
    };
    let Creation::Created { ended, replays, .. } = creation else {
        unsent.key = None;
        let max = sessions.limit.map_or(0, |limit| limit.max);
        return Err(LoginError::TooManySessions { max });
    };
    for record in ended {
        config.raise(Event::SessionEnded { record, reason: EndReason::Limit });
    }
    let (key, is_remembered, login_origin) = (record.key, remember.is_some(), login.login_origin());
    let browser_session = BrowserSession {
        id,
        login_origin,
        record: record.into(),
        sent_generation: None,
        is_remembered,
        holds_remember: is_remembered,
    };
    let issuer = CookieIssuer { config, snapshot, user: &**user, now };
    let proofs = login.proofs(now);
    let fresh_since = proofs.newest();
    let mut cookies = issuer.issue_cookies(browser_session, proofs);
    if matches!(cookies.remember_cookie, CookieChange::Keep) {
        // This login is not remembered, so an older remember cookie must not restore a login later.
        cookies.remember_cookie = CookieChange::Clear;
    }
    let is_active = user.is_active();
    let identity = Identity::Session { user: Arc::clone(user), fresh_since, is_active };
    let is_too_late = {
        let mut state = auth.state();
        if !state.is_head_written {
            state.apply_decision(identity, cookies);
            state.unsent_session = Some(key);
        }
        state.is_head_written
    };
    if is_too_late {
        // The response's head was written while the store wrote the record, so no cookie can be set
        // any more.
        sessions.store.revoke(&[key], &end).await.map_err(AuthError::from)?;
        unsent.key = None;
        return Err(AuthError::TOO_LATE.into());
    }
    unsent.key = None;
    login.leave_replay_flash(&replays);
    Ok(())
}

/// A login whose cookies may never be sent. On drop, its session ends.
struct UnsentLogin<'a, U> {
    auth: &'a AuthSession<U>,
    /// `None` if there is no session to end.
    key: Option<SessionKey>,
}

impl<U> Drop for UnsentLogin<'_, U> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.auth.abandon_session(key);
        }
    }
}

/// Ends all sessions of the user who is logged in here, with one write. A second write ends the
/// sessions of this browser, which may belong to another user. Returns no error if only the second
/// write fails.
pub(in crate::login) async fn log_out_everywhere<U: AuthUser>(
    auth: &AuthSession<U>,
    sessions: &Sessions<U>,
) -> Result<Option<Arc<U>>, AuthError> {
    let _lock = auth.lock_changes().await?;
    auth.ensure_resolved_for(Purpose::LogOut).await?;
    let end = auth.config().end_for(EndReason::Revoked);
    let user = auth.with_identity(|identity| identity.user().map(|user| user.id()));
    if let Some(user) = user {
        sessions.store.revoke_all(&user, None, &end).await?;
    }
    let keys = auth.session_keys_of_browser();
    if !keys.is_empty() {
        let end = auth.config().end_for(EndReason::LoggedOut);
        // The user's sessions have ended, so an error is only logged, by the conversion to
        // `AuthError`.
        let _ = sessions.store.revoke(&keys, &end).await.map_err(AuthError::from);
    }
    auth.clear_login()
}

/// Ends the sessions of this browser, and clears the cookies. If the store fails, the cookies stay
/// as they are.
pub(in crate::login) async fn log_out<U: AuthUser>(
    auth: &AuthSession<U>,
    sessions: &Sessions<U>,
) -> Result<Option<Arc<U>>, AuthError> {
    let _lock = auth.lock_changes().await?;
    auth.ensure_resolved_for(Purpose::LogOut).await?;
    let keys = auth.session_keys_of_browser();
    if !keys.is_empty() {
        let end = auth.config().end_for(EndReason::LoggedOut);
        sessions.store.revoke(&keys, &end).await?;
    }
    auth.clear_login()
}

/// How late the cookies of a confirmation, or of a changed security stamp, may be written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::login) enum WriteDeadline {
    /// Within half of the grace. Later, the browser keeps its earlier cookies, which are still
    /// valid.
    HalfOfGrace,
    /// At any time: the security stamp has changed, so the earlier cookies are no longer valid.
    None,
}

/// Makes the session of this browser fresh, and begins its next generation. Returns `false` if the
/// session has ended, or belongs to another user.
pub(in crate::login) async fn make_fresh<U: AuthUser>(
    auth: &AuthSession<U>,
    sessions: &Sessions<U>,
    user: &Arc<U>,
    deadline: WriteDeadline,
) -> Result<bool, AuthError> {
    let (config, snapshot, now) = (auth.config(), &auth.0.snapshot, auth.config().now());
    // While this call waited for the lock, another user may have logged in.
    let browser_session = auth.browser_session().filter(|session| session.record.user == user.id());
    let Some(mut browser_session) = browser_session else { return Ok(false) };
    let mut lost_rotations = 0;
    while confirming_rotates(&browser_session.record, browser_session.sent_generation) {
        let rotation = next_rotation(config, &browser_session.record, None, now);
        let rotated = match sessions.store.rotate(&rotation).await.map_err(AuthError::from) {
            // The security stamp has changed, so all earlier cookies are invalid. New cookies of
            // the same generation are enough.
            Err(_) if deadline == WriteDeadline::None => break,
            rotated => rotated?,
        };
        match rotated {
            Some(Rotated::Won(next)) => {
                browser_session.record = next;
                break;
            }
            Some(Rotated::Lost(other)) if other.ended.is_none() => browser_session.record = other,
            Some(Rotated::Lost(_)) | None => return Ok(false),
        }
        lost_rotations += 1;
        if lost_rotations > MAX_RETRIES {
            match deadline {
                WriteDeadline::None => break,
                WriteDeadline::HalfOfGrace => return Err(AuthError::BUSY),
            }
        }
    }
    browser_session.login_origin.is_forced = false;
    let issuer = CookieIssuer { config, snapshot, user: &**user, now };
    let proofs = Proofs::password(now);
    let fresh_since = proofs.newest();
    let mut cookies = issuer.issue_cookies(browser_session, proofs);
    if deadline == WriteDeadline::HalfOfGrace {
        cookies.write_until = Some(now.saturating_add(config.policy.grace / 2));
    }
    let mut state = auth.state();
    if state.is_head_written {
        return Err(AuthError::TOO_LATE);
    }
    state.identity = Identity::Session { user: Arc::clone(user), fresh_since, is_active: true };
    state.apply_cookies(cookies);
    Ok(true)
}
