//! Beginning, confirming and ending a login with a server-side session.

use std::sync::Arc;

use tower_keep_core::{
    AuthUser, Creation, EndReason, NewLogin, RememberPeriod, Rotated, SessionKey, SessionRecord,
    StoreErrorKind, Timestamp,
};

use super::cookies::CookieIssuer;
use super::rotation;
use crate::cookie::{Proofs, SessionId};
use crate::event::Event;
use crate::login::change::LoginBuilder;
use crate::login::handle::AuthSession;
use crate::login::resolve::Purpose;
use crate::login::state::{BrowserLogin, Change, Identity, ServerSide};
use crate::rules::server_side::confirming_rotates;
use crate::sessions::Sessions;
use crate::{AuthError, LoginError, random};

/// How many times a confirmation retries a lost compare-and-swap.
const RETRIES: u8 = 2;

impl<U: AuthUser> AuthSession<U> {
    fn server_side(&self) -> Option<ServerSide> {
        match &self.state().browser_login {
            BrowserLogin::ServerSide(server_side) => Some(server_side.clone()),
            BrowserLogin::Nothing | BrowserLogin::Stateless { .. } => None,
        }
    }

    /// Returns the sessions of this browser: the one that this request has begun or found, and
    /// those that its cookies point to.
    fn own_sessions(&self) -> Vec<SessionKey> {
        let mut keys: Vec<_> =
            self.server_side().map(|server_side| server_side.record.key).into_iter().collect();
        for key in self.presented().sessions().map(SessionId::key) {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    }
}

/// Begins the login with one write.
pub(in crate::login) async fn begin<U: AuthUser>(
    log_in: &LoginBuilder<'_, U>,
    sessions: &Sessions<U>,
) -> Result<(), LoginError> {
    let LoginBuilder { auth, user, .. } = log_in;
    let _changing = auth.change().await?;
    let (config, snapshot, now) = (auth.config(), &auth.0.snapshot, auth.config().now());
    let (id, at) = (SessionId(random::bytes()?), Timestamp::from_secs(now));
    let remember =
        log_in.remember_seconds().map(|seconds| RememberPeriod::new(at.plus(seconds), seconds));
    let remember_expires = remember.map(|remember| remember.expires.as_secs());
    let expires = Timestamp::from_secs(config.policy.lives_until(now, now, remember_expires));
    let mut record = SessionRecord::new(id.key(), user.id(), random::bytes()?, at, expires);
    record.remember = remember;
    record.details = log_in.details();
    let replacing = auth.own_sessions();
    let mut new = NewLogin::new(&record, at.plus(config.policy.grace));
    (new.replacing, new.limit) = (&replacing, sessions.limit);
    let end = config.ending(EndReason::LoggedOut);
    // If this fails or is dropped before the cookies are decided, the record, which may have been
    // written, is ended.
    let mut unsent = UnsentLogin { auth, key: Some(record.key) };
    let creation = match sessions.store.create(&new).await {
        Ok(creation) => creation,
        Err(error) => {
            if error.kind() == StoreErrorKind::Timeout {
                // The record may have been written, and would count against the user's limit
                // although no browser has its cookies. It may also be written only later, so
                // `unsent` keeps its key.
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
    let (key, is_remembered, origin) = (record.key, remember.is_some(), log_in.origin());
    let server_side = ServerSide {
        id,
        origin,
        record: record.into(),
        shown: None,
        is_remembered,
        holds_remember: is_remembered,
    };
    let issuer = CookieIssuer { config, snapshot, user: &**user, now };
    let proofs = log_in.proofs(now);
    let fresh_since = proofs.newest();
    let mut cookies = issuer.issue(server_side, proofs);
    if matches!(cookies.remember, Change::Keep) {
        // The latest choice counts: an older remember cookie must not restore a login later.
        cookies.remember = Change::Clear;
    }
    let active = user.is_active();
    let identity = Identity::Session { user: Arc::clone(user), fresh_since, active };
    let is_too_late = {
        let mut state = auth.state();
        if !state.is_head_written {
            state.decide(identity, cookies);
            state.unsent_session = Some(key);
        }
        state.is_head_written
    };
    if is_too_late {
        // The response's head was written while the store wrote the record. No cookie can be set
        // any more.
        sessions.store.revoke(&[key], &end).await.map_err(AuthError::from)?;
        unsent.key = None;
        return Err(AuthError::TOO_LATE.into());
    }
    unsent.key = None;
    log_in.leave_replay_flash(&replays);
    Ok(())
}

/// A login whose record is being written. Its session ends on drop, unless `key` is `None`.
struct UnsentLogin<'a, U> {
    auth: &'a AuthSession<U>,
    key: Option<SessionKey>,
}

impl<U> Drop for UnsentLogin<'_, U> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.auth.abandon_session(key);
        }
    }
}

/// Ends all sessions of the user who is logged in here with one write, and then those of this
/// browser. If only the second step fails, this is not an error.
pub(in crate::login) async fn end_all<U: AuthUser>(
    auth: &AuthSession<U>,
    sessions: &Sessions<U>,
) -> Result<Option<Arc<U>>, AuthError> {
    let _changing = auth.change().await?;
    auth.ensure_resolved_for(Purpose::LogOut).await?;
    let end = auth.config().ending(EndReason::Revoked);
    let user = auth.with_identity(|identity| identity.user().map(|user| user.id()));
    if let Some(user) = user {
        sessions.store.revoke_all(&user, None, &end).await?;
    }
    let keys = auth.own_sessions();
    if !keys.is_empty() {
        let end = auth.config().ending(EndReason::LoggedOut);
        // The conversion to `AuthError` logs the error. What the caller asked for has been done.
        let _ = sessions.store.revoke(&keys, &end).await.map_err(AuthError::from);
    }
    auth.leave_session()
}

/// Ends the sessions of this browser. If the store can't record the end, the cookies stay as they
/// are.
pub(in crate::login) async fn end<U: AuthUser>(
    auth: &AuthSession<U>,
    sessions: &Sessions<U>,
) -> Result<Option<Arc<U>>, AuthError> {
    let _changing = auth.change().await?;
    auth.ensure_resolved_for(Purpose::LogOut).await?;
    let keys = auth.own_sessions();
    if !keys.is_empty() {
        let end = auth.config().ending(EndReason::LoggedOut);
        sessions.store.revoke(&keys, &end).await?;
    }
    auth.leave_session()
}

/// How late a confirmation's cookies may be written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::login) enum CookieDeadline {
    /// For half of the grace: the earlier cookies still work.
    HalfTheGrace,
    /// At any time: the earlier cookies are no longer valid.
    None,
}

/// Makes the current session fresh, in its next generation. Returns whether it was still live.
pub(in crate::login) async fn reissue<U: AuthUser>(
    auth: &AuthSession<U>,
    sessions: &Sessions<U>,
    user: &Arc<U>,
    deadline: CookieDeadline,
) -> Result<bool, AuthError> {
    let (config, snapshot, now) = (auth.config(), &auth.0.snapshot, auth.config().now());
    // Another user may have logged in meanwhile.
    let server_side = auth.server_side().filter(|server_side| server_side.record.user == user.id());
    let Some(mut server_side) = server_side else { return Ok(false) };
    let mut lost = 0;
    while confirming_rotates(&server_side.record, server_side.shown) {
        let rotation = rotation(config, &server_side.record, None, now);
        let rotated = match sessions.store.rotate(&rotation).await.map_err(AuthError::from) {
            // The old security stamp makes all earlier cookies invalid, so cookies of the present
            // generation will do.
            Err(_) if deadline == CookieDeadline::None => break,
            rotated => rotated?,
        };
        match rotated {
            Some(Rotated::Won(next)) => {
                server_side.record = next;
                break;
            }
            Some(Rotated::Lost(other)) if other.ended.is_none() => server_side.record = other,
            Some(Rotated::Lost(_)) | None => return Ok(false),
        }
        lost += 1;
        if lost > RETRIES {
            match deadline {
                CookieDeadline::None => break,
                CookieDeadline::HalfTheGrace => return Err(AuthError::BUSY),
            }
        }
    }
    server_side.origin.is_forced = false;
    let issuer = CookieIssuer { config, snapshot, user: &**user, now };
    let proofs = Proofs::password(now);
    let fresh_since = proofs.newest();
    let mut cookies = issuer.issue(server_side, proofs);
    if deadline == CookieDeadline::HalfTheGrace {
        cookies.until = Some(now.saturating_add(config.policy.grace / 2));
    }
    let mut state = auth.state();
    if state.is_head_written {
        return Err(AuthError::TOO_LATE);
    }
    state.identity = Identity::Session { user: Arc::clone(user), fresh_since, active: true };
    state.decide_cookies(cookies);
    Ok(true)
}
