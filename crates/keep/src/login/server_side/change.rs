//! Logging in and confirming with server-side sessions.

use std::sync::Arc;

use tower_keep_core::{
    AuthUser, Creation, EndReason, NewLogin, RememberPeriod, Rotated, SessionDetails, SessionKey,
    SessionRecord, StoreErrorKind, Timestamp,
};

use super::cookies::SessionId;
use super::issue::issue_cookies;
use super::resolve::next_rotation;
use super::rules::confirming_rotates;
use crate::cookie::login_origin::Proofs;
use crate::error::{AuthError, LoginError};
use crate::event::Event;
use crate::layer::config::Config;
use crate::login::issue::Issuer;
use crate::login::requested::RequestedLogin;
use crate::login::state::{BrowserSession, CookieChange, CookieDecision};
use crate::login::write_deadline::WriteDeadline;
use crate::random;
use crate::sessions::Sessions;

/// A confirmation retries a rotation that another request has overtaken at most this many times.
const MAX_RETRIES: u8 = 2;

/// A login whose session the store has created.
pub(in crate::login) struct BegunLogin<'a, U> {
    pub(in crate::login) cookies: CookieDecision,
    /// The user's sessions that have ended because of a replay since the last login.
    pub(in crate::login) replays: Vec<Arc<SessionRecord>>,
    pub(in crate::login) unsent: UnsentLogin<'a, U>,
}

/// Logs in the user: the store writes the new session and ends those that it replaces in one call.
pub(in crate::login) async fn log_in<'a, U: AuthUser>(
    issuer: &Issuer<'a, U>,
    sessions: &'a Sessions<U>,
    login: &RequestedLogin<U>,
    details: SessionDetails,
    replacing: &[SessionKey],
) -> Result<BegunLogin<'a, U>, LoginError> {
    let (config, now) = (issuer.config, issuer.now);
    let (id, at) = (SessionId(random::bytes()?), Timestamp::from_secs(now));
    let remember =
        login.remember_seconds.map(|seconds| RememberPeriod::new(at.plus(seconds), seconds));
    let remember_expires = remember.map(|remember| remember.expires.as_secs());
    let expires = Timestamp::from_secs(config.policy.record_expires(now, now, remember_expires));
    let mut record = SessionRecord::new(id.key(), login.user.id(), random::bytes()?, at, expires);
    record.remember = remember;
    record.details = details;
    let mut new_login = NewLogin::new(&record, at.plus(config.policy.grace));
    new_login.replacing = replacing;
    let (replays, unsent) = create(config, sessions, new_login).await?;
    let is_remembered = remember.is_some();
    let browser_session = BrowserSession {
        id,
        login_origin: login.login_origin,
        record: record.into(),
        sent_generation: None,
        is_remembered,
        holds_remember: is_remembered,
    };
    let mut cookies = issue_cookies(issuer, browser_session, login.proofs.clone());
    if matches!(cookies.remember_cookie, CookieChange::Keep) {
        // This login is not remembered, so an older remember cookie must not restore a login later.
        cookies.remember_cookie = CookieChange::Clear;
    }
    Ok(BegunLogin { cookies, replays, unsent })
}

/// Writes a new session. Returns the replayed sessions that the user was not notified of before
/// (none if the login does not notify the user), and the new session, which ends unless its cookies
/// or its token reach the client.
pub(super) async fn create<'a, U: AuthUser>(
    config: &'a Config<U>,
    sessions: &'a Sessions<U>,
    mut new_login: NewLogin<'_>,
) -> Result<(Vec<Arc<SessionRecord>>, UnsentLogin<'a, U>), LoginError> {
    new_login.limit = sessions.limit;
    let key = new_login.record.key;
    // The record may have been written although this future fails or is dropped. So until the
    // caller has put the cookies into the state, dropping `unsent` ends the session.
    let mut unsent = UnsentLogin { config, sessions, key: Some(key) };
    let creation = match sessions.store.create(&new_login).await {
        Ok(creation) => creation,
        Err(error) => {
            if error.kind() == StoreErrorKind::Timeout {
                // The record may have been written. It would count against the user's session
                // limit, although no browser has its cookies. The store may also write the record
                // after this `revoke`, so `unsent` keeps the key and ends the session later.
                let end = config.end_for(EndReason::LoggedOut);
                let _ = sessions.store.revoke(&[key], &end).await;
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
    Ok((replays, unsent))
}

/// A login whose cookies may never be sent. On drop, its session ends.
pub(in crate::login) struct UnsentLogin<'a, U> {
    config: &'a Config<U>,
    sessions: &'a Sessions<U>,
    /// `None` if there is no session to end.
    key: Option<SessionKey>,
}

impl<U> UnsentLogin<'_, U> {
    /// Returns the key of the session. From now on, the caller has to end the session if its
    /// cookies are not sent.
    #[must_use]
    pub(in crate::login) fn into_key(mut self) -> Option<SessionKey> {
        self.key.take()
    }

    /// Ends the session now, because no cookie can be set any more.
    pub(in crate::login) async fn end(mut self) -> Result<(), AuthError> {
        if let Some(key) = self.key {
            let end = self.config.end_for(EndReason::LoggedOut);
            self.sessions.store.revoke(&[key], &end).await?;
            self.key = None;
        }
        Ok(())
    }
}

impl<U> Drop for UnsentLogin<'_, U> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            abandon_session(self.config, self.sessions, key);
        }
    }
}

/// Ends, in the background, a session whose cookies were not sent.
pub(in crate::login) fn abandon_session<U>(
    config: &Config<U>,
    sessions: &Sessions<U>,
    key: SessionKey,
) {
    let end = config.end_for(EndReason::LoggedOut);
    sessions.upkeep.abandon(sessions.store.clone(), key, end);
}

/// Returns new cookies of this browser's session with these proofs, after it has begun the next
/// generation if [`confirming_rotates`] says so. Returns `None` if the session has ended.
///
/// With [`WriteDeadline::HalfOfGrace`], it is an error if the store fails or if other requests are
/// faster every time. With [`WriteDeadline::None`], the cookies are then of the same generation.
pub(in crate::login) async fn make_fresh<U: AuthUser>(
    issuer: &Issuer<'_, U>,
    sessions: &Sessions<U>,
    mut browser_session: BrowserSession,
    proofs: Proofs,
    deadline: WriteDeadline,
) -> Result<Option<CookieDecision>, AuthError> {
    let (config, now) = (issuer.config, issuer.now);
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
            Some(Rotated::Lost(_)) | None => return Ok(None),
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
    let mut cookies = issue_cookies(issuer, browser_session, proofs);
    cookies.write_until = deadline.write_until(&config.policy, now);
    Ok(Some(cookies))
}
