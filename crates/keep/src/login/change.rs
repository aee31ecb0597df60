//! Logging out, confirming, and keeping a login whose user has changed.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use tower_keep_core::{AuthUser, EndReason, SessionKey};

use super::handle::AuthSession;
use super::issue::Issuer;
use super::resolve::Purpose;
use super::server_side::cookies::SessionId;
use super::state::{BrowserLogin, BrowserSession, CookieChange, CookieDecision, Identity};
use super::write_deadline::WriteDeadline;
use super::{server_side, stateless};
use crate::cookie::login_origin::Proofs;
use crate::error::AuthError;
use crate::event::Event;
use crate::flash::Flash;
use crate::sessions::Sessions;

impl<U: AuthUser> AuthSession<U> {
    /// Logs out, and returns the user who was logged in, or `None` if no user was logged in.
    ///
    /// Clears the session cookie and the remember cookie of this browser. With [server-side
    /// sessions](crate::LoginLayerBuilder::with_sessions), all copies of the cookies become
    /// invalid, with one write. Without server-side sessions, copies stay valid, because the login
    /// exists only in the cookies: change the user's [security stamp](AuthUser::security_stamp) to
    /// make all copies invalid.
    ///
    /// # Errors
    ///
    /// Returns an error if it could not be determined which user was logged in, if the store could
    /// not end the session, or if the response's head has already been written. The cookies then
    /// stay as they are, and the user may still be logged in.
    pub async fn log_out(&self) -> Result<Option<Arc<U>>, AuthError> {
        match &self.config().sessions {
            Some(sessions) => self.log_out_server_side(sessions).await,
            None => {
                self.ensure_resolved().await?;
                self.clear_login()
            }
        }
    }

    /// Ends the sessions of this browser, and clears the cookies. If the store fails, the cookies
    /// stay as they are.
    async fn log_out_server_side(
        &self,
        sessions: &Sessions<U>,
    ) -> Result<Option<Arc<U>>, AuthError> {
        let _lock = self.lock_changes().await?;
        self.ensure_resolved_for(Purpose::LogOut).await?;
        self.end_browser_sessions(sessions).await?;
        self.clear_login()
    }

    /// Ends all sessions of the user who is logged in here, with one write. A second write ends the
    /// sessions of this browser, which may belong to another user. Returns no error if only the
    /// second write fails.
    pub(super) async fn log_out_everywhere(
        &self,
        sessions: &Sessions<U>,
    ) -> Result<Option<Arc<U>>, AuthError> {
        let _lock = self.lock_changes().await?;
        self.ensure_resolved_for(Purpose::LogOut).await?;
        let end = self.config().end_for(EndReason::Revoked);
        let user = self.with_identity(|identity| identity.user().map(|user| user.id()));
        if let Some(user) = user {
            sessions.store.revoke_all(&user, None, &end).await?;
        }
        // The user's sessions have ended, so an error is only logged, by the conversion to
        // `AuthError`.
        let _ = self.end_browser_sessions(sessions).await;
        self.clear_login()
    }

    async fn end_browser_sessions(&self, sessions: &Sessions<U>) -> Result<(), AuthError> {
        let keys = self.session_keys_of_browser();
        if !keys.is_empty() {
            let end = self.config().end_for(EndReason::LoggedOut);
            sessions.store.revoke(&keys, &end).await?;
        }
        Ok(())
    }

    fn browser_session(&self) -> Option<BrowserSession> {
        match &self.state().browser_login {
            BrowserLogin::ServerSide(browser_session) => Some(browser_session.clone()),
            BrowserLogin::Nothing | BrowserLogin::Stateless { .. } | BrowserLogin::Bearer(_) => {
                None
            }
        }
    }

    /// Returns the keys of this browser's sessions: the session that this request has begun or
    /// resolved, and the sessions that the request's cookies name.
    pub(super) fn session_keys_of_browser(&self) -> Vec<SessionKey> {
        let record_key = self.state().browser_login.record().map(|record| record.key);
        let mut keys: Vec<_> = record_key.into_iter().collect();
        for key in self.verified_cookies().session_ids().map(SessionId::key) {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    }

    /// Returns an issuer of cookies for this user and the client of this request.
    pub(super) fn issuer<'a>(&'a self, user: &'a U) -> Issuer<'a, U> {
        let config = self.config();
        Issuer { config, snapshot: &self.0.snapshot, user, now: config.now() }
    }

    /// Clears the cookies of this browser, and returns the user of the session.
    fn clear_login(&self) -> Result<Option<Arc<U>>, AuthError> {
        let user = {
            let mut state = self.state();
            if state.is_head_written {
                return Err(AuthError::TOO_LATE);
            }
            let identity = std::mem::replace(&mut state.identity, Identity::Anonymous);
            state.apply_decision(Identity::Anonymous, CookieDecision::clear_both());
            match identity {
                Identity::Session { user, .. } => Some(user),
                Identity::Loader { .. } | Identity::Anonymous => None,
            }
        };
        self.drop_received_flash();
        if let Some(user) = &user {
            self.config().raise(Event::LoggedOut { user: Arc::clone(user) });
        }
        Ok(user)
    }

    /// Makes the login fresh when the returned [`ConfirmBuilder`] is awaited, and returns the user.
    /// Before this call, check the user's password or another proof of the user's identity.
    ///
    /// ```
    /// # use tower_keep::{Account, AuthError, AuthSession};
    /// # async fn example(auth: AuthSession<Account>) -> Result<(), AuthError> {
    /// auth.confirm().await?; // after the password was checked
    /// # Ok(()) }
    /// ```
    ///
    /// The browser gets a new session cookie. If there is no session to confirm, because no user is
    /// logged in, because a request loader found the user, or because a bearer token carries the
    /// login, this does nothing and returns `Ok(None)`.
    ///
    /// # Errors
    ///
    /// Returns an error if it could not be determined which user is logged in, if the store fails,
    /// or if the response's head has already been written. The cookies then stay as they are.
    pub fn confirm(&self) -> ConfirmBuilder<'_, U> {
        ConfirmBuilder { auth: self }
    }

    /// Returns the user of the session, or `None` if there is no session or its user is not active.
    async fn session_user(&self) -> Result<Option<Arc<U>>, AuthError> {
        self.ensure_resolved().await?;
        Ok(self.with_identity(|identity| match identity {
            Identity::Session { user, is_active: true, .. } => Some(Arc::clone(user)),
            _ => None,
        }))
    }

    /// Keeps this browser logged in when the application changes the user's [security
    /// stamp](AuthUser::security_stamp). For example, a new password changes the stamp, and the
    /// cookies of all the user's logins become invalid. This method issues new cookies to this
    /// browser, so only the *other* logins end.
    ///
    /// 1. Before you store the change, call [`user`](Self::user), or put the handler behind a
    ///    guard. Both look up the user while the cookies of this request are still valid.
    /// 2. Store the change.
    /// 3. Call this method with the changed user.
    ///
    /// The login becomes fresh, as after [`confirm`](Self::confirm), and a remember cookie that the
    /// request sent is reissued with the same expiry time. With server-side sessions, the user's
    /// other sessions end, as with [`end_other_sessions`](Self::end_other_sessions).
    ///
    /// Returns the user. Returns `Ok(None)`, and changes nothing, if this user is not logged in
    /// here or is not active. If a bearer token carries the login, the other sessions end. If the
    /// stamp has changed, the token is no longer valid, and the call returns `Ok(None)`.
    ///
    /// # Errors
    ///
    /// Returns an error if it could not be determined which user is logged in, or if the response's
    /// head has already been written.
    ///
    /// With server-side sessions, a failure of the store is an error only if the security stamp is
    /// the same as before. If the stamp has changed, the failure is only logged, as an error: this
    /// browser stays logged in, and the other logins are rejected because of their old stamp,
    /// though they may be listed until they expire.
    pub async fn keep_logged_in(
        &self,
        user: impl Into<Arc<U>>,
    ) -> Result<Option<Arc<U>>, AuthError> {
        let user = user.into();
        let current = self.session_user().await?;
        let current = current.filter(|current| current.id() == user.id() && user.is_active());
        let Some(current) = current else { return Ok(None) };
        let is_same_stamp = current.security_stamp() == user.security_stamp();
        if self.is_bearer_request() {
            // The token can't be replaced. If the stamp has changed, it is no longer valid.
            let ended = self.end_other_sessions().await;
            return if is_same_stamp { ended.map(|()| Some(user)) } else { Ok(None) };
        }
        let deadline = if is_same_stamp { WriteDeadline::HalfOfGrace } else { WriteDeadline::None };
        // A new stamp ends the device cookie, too.
        let device = self.known_device(&current);
        let kept_user = self.make_fresh(user, deadline).await?;
        if let Some(user) = kept_user.as_ref().filter(|_| device.is_some()) {
            self.make_device_known(user, device);
        }
        if kept_user.is_some() && self.config().sessions.is_some() {
            let ended = self.end_other_sessions().await;
            // If the stamp has changed, the cookies of the other sessions are already invalid.
            if is_same_stamp {
                ended?;
            }
        }
        Ok(kept_user)
    }

    /// Makes the session of this browser fresh, and reissues its cookies for this user. Returns
    /// `None` if the session has ended.
    async fn make_fresh(
        &self,
        user: Arc<U>,
        deadline: WriteDeadline,
    ) -> Result<Option<Arc<U>>, AuthError> {
        let is_fresh = match &self.config().sessions {
            Some(sessions) => self.make_fresh_server_side(sessions, &user, deadline).await?,
            None => self.make_fresh_stateless(&user)?,
        };
        if !is_fresh {
            return Ok(None);
        }
        self.drop_received_flash_if(Flash::asks_for_login);
        self.complete_login(&user, None).await;
        self.config().raise(Event::Confirmed { user: Arc::clone(&user) });
        Ok(Some(user))
    }

    /// Returns `false` if there is no session of this user any more.
    async fn make_fresh_server_side(
        &self,
        sessions: &Sessions<U>,
        user: &Arc<U>,
        deadline: WriteDeadline,
    ) -> Result<bool, AuthError> {
        let _lock = self.lock_changes().await?;
        // While this call waited for the lock, another user may have logged in.
        let session = self.browser_session().filter(|session| session.record.user == user.id());
        let Some(session) = session else { return Ok(false) };
        let issuer = self.issuer(user);
        let proofs = Proofs::password(issuer.now);
        let identity = fresh_identity(user, &proofs);
        let fresh =
            server_side::change::make_fresh(&issuer, sessions, session, proofs, deadline).await?;
        let Some(cookies) = fresh else { return Ok(false) };
        let mut state = self.state();
        if state.is_head_written {
            return Err(AuthError::TOO_LATE);
        }
        state.identity = identity;
        state.apply_cookies(cookies);
        Ok(true)
    }

    /// Returns `true`, even if the cookies hold no login: then there is nothing to reissue.
    fn make_fresh_stateless(&self, user: &Arc<U>) -> Result<bool, AuthError> {
        let issuer = self.issuer(user);
        let mut state = self.state();
        if state.is_head_written {
            return Err(AuthError::TOO_LATE);
        }
        let BrowserLogin::Stateless { login_origin, is_remembered, remember, .. } =
            &state.browser_login
        else {
            return Ok(true);
        };
        let current = (*login_origin, *is_remembered, remember.clone());
        let proofs = Proofs::password(issuer.now);
        let identity = fresh_identity(user, &proofs);
        let mut cookies = stateless::change::make_fresh(&issuer, proofs, current)?;
        // What this request has already decided about the remember cookie stays, such as that it is
        // cleared.
        if matches!(cookies.remember_cookie, CookieChange::Keep) {
            cookies.remember_cookie = std::mem::take(&mut state.remember_cookie);
        }
        state.identity = identity;
        state.apply_cookies(cookies);
        Ok(true)
    }
}

fn fresh_identity<U>(user: &Arc<U>, proofs: &Proofs) -> Identity<U> {
    let fresh_since = proofs.newest();
    Identity::Session { user: Arc::clone(user), fresh_since, is_active: true }
}

/// Makes a login fresh when it is awaited. Created by [`AuthSession::confirm`].
#[must_use = "await this to confirm the login"]
pub struct ConfirmBuilder<'a, U> {
    auth: &'a AuthSession<U>,
}

impl<'a, U: AuthUser> IntoFuture for ConfirmBuilder<'a, U> {
    type Output = Result<Option<Arc<U>>, AuthError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            match self.auth.session_user().await? {
                Some(user) => self.auth.make_fresh(user, WriteDeadline::HalfOfGrace).await,
                None => Ok(None),
            }
        })
    }
}

impl<U> fmt::Debug for ConfirmBuilder<'_, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfirmBuilder").finish_non_exhaustive()
    }
}
