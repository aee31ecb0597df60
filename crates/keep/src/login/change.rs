//! Logging in, logging out, confirming.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tower_keep_core::{AuthUser, EndReason, SessionKey, SessionRecord};

use super::handle::AuthSession;
use super::issue::Issuer;
use super::requested::RequestedLogin;
use super::resolve::Purpose;
use super::server_side::change::BegunLogin;
use super::server_side::cookies::SessionId;
use super::state::{BrowserLogin, BrowserSession, CookieChange, CookieDecision, Identity};
use super::write_deadline::WriteDeadline;
use super::{server_side, stateless};
use crate::bearer_token::BearerToken;
use crate::cookie::login_origin::{LoginOrigin, Proofs};
use crate::error::{AuthError, LoginError};
use crate::event::Event;
use crate::flash::{Flash, FlashKind};
use crate::session_details::Details;
use crate::sessions::Sessions;

impl<U: AuthUser> AuthSession<U> {
    /// Logs in this user when the returned [`LoginBuilder`] is awaited. Takes a user, or an `Arc`
    /// of a user.
    ///
    /// Before this call, check the user's password or another proof of the user's identity. The
    /// login begins a new session: nothing of an earlier session in this browser is kept, and an
    /// earlier remember cookie is replaced or cleared. With [server-side
    /// sessions](crate::LoginLayerBuilder::with_sessions) the login is one write, which also ends
    /// the record of the earlier session. After the login, [`user`](Self::user) returns this user.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tower_keep::{Account, AuthSession, LoginError};
    /// # async fn example(auth: AuthSession<Account>, user: Account) -> Result<(), LoginError> {
    /// let week = Duration::from_secs(7 * 24 * 3600);
    /// auth.log_in(user).with_remember(true).with_remember_duration(week).await?;
    /// # Ok(()) }
    /// ```
    pub fn log_in(&self, user: impl Into<Arc<U>>) -> LoginBuilder<'_, U> {
        LoginBuilder {
            auth: self,
            user: user.into(),
            is_remembered: false,
            remember_duration: None,
            is_fresh: None,
            is_forced: false,
            details: Details::new(),
        }
    }

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
    fn session_keys_of_browser(&self) -> Vec<SessionKey> {
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
    fn issuer<'a>(&'a self, user: &'a U) -> Issuer<'a, U> {
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
        let kept_user = self.make_fresh(user, deadline).await?;
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
        self.drop_received_flash_if(asks_for_login);
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

/// Whether a flash message asks the user to log in or to confirm.
fn asks_for_login(flash: &Flash) -> bool {
    matches!(flash.kind(), FlashKind::LoginRequired | FlashKind::ConfirmRequired)
}

/// Logs in a user when it is awaited. Created by [`AuthSession::log_in`].
#[must_use = "await this to log in the user, and check the result"]
pub struct LoginBuilder<'a, U> {
    auth: &'a AuthSession<U>,
    user: Arc<U>,
    is_remembered: bool,
    remember_duration: Option<Duration>,
    /// `None` if the application has not said it.
    is_fresh: Option<bool>,
    is_forced: bool,
    details: Details,
}

impl<'a, U> LoginBuilder<'a, U> {
    /// Sets whether the login gets a remember cookie, which keeps the user logged in after the
    /// browser is closed. The default is `false`.
    pub fn with_remember(mut self, remember: bool) -> Self {
        self.is_remembered = remember;
        self
    }

    /// Sets how long the remember cookie is valid, in whole seconds. The default is the layer's
    /// [remember duration](crate::LoginLayerBuilder::with_remember_duration). This setting has no
    /// effect without [`with_remember(true)`](Self::with_remember).
    pub fn with_remember_duration(mut self, duration: Duration) -> Self {
        self.remember_duration = Some(duration);
        self
    }

    /// Sets whether the login is fresh. The default is `true`, except for a [bearer
    /// token](Self::as_bearer) that a logged-in user makes. Set `false` if the user has not just
    /// proved who they are, for example if the user has followed a link in an old e-mail.
    pub fn with_fresh(mut self, fresh: bool) -> Self {
        self.is_fresh = Some(fresh);
        self
    }

    /// Sets whether to log in the user even if the user is [not active](AuthUser::is_active). The
    /// default is `false`: the login of an inactive user fails.
    ///
    /// Guards still reject an inactive user. [`AuthSession::inactive_user`] returns the user, for a
    /// page that says how to become active.
    pub fn with_force(mut self, force: bool) -> Self {
        self.is_forced = force;
        self
    }

    /// Sets how the user has proved who they are, such as `password`, `passkey`, or the name of an
    /// identity provider. [`SessionInfo::method`](crate::session::SessionInfo::method) returns the
    /// first 256 bytes of this text.
    pub fn with_method(mut self, method: impl Into<String>) -> Self {
        self.details.set_method(&method.into());
        self
    }

    /// Logs in the user with a bearer token in place of cookies, and returns the [`BearerToken`]
    /// when the returned [`BearerBuilder`] is awaited. This is for clients that keep no cookies.
    /// The layer must be built with
    /// [`with_bearer_sessions`](crate::LoginLayerBuilder::with_bearer_sessions).
    ///
    /// This changes neither the cookies nor who is logged in for this request. So a user who is
    /// logged in with a browser can make a token for a program. Such a token is only as fresh as
    /// the login of the browser, unless [`with_fresh`](Self::with_fresh) is set. Put the route
    /// behind [`require_fresh`](crate::LoginLayer::require_fresh), because a token outlives the
    /// login that has made it. The settings of the remember cookie have no effect.
    ///
    /// The login with the token is fresh until ten minutes after the user has proved who they are,
    /// and can't be confirmed. For a route behind `require_fresh`, the client logs in again. In a
    /// route that checks a password and returns a token, respond to a wrong password with
    /// [`auth.reject(Rejection::Unauthenticated, …)`](AuthSession::reject).
    ///
    /// ```
    /// # use tower_keep::{Account, AuthSession, LoginError};
    /// # use std::time::Duration;
    /// async fn token(auth: AuthSession<Account>, user: Account) -> Result<String, LoginError> {
    ///     let month = Duration::from_secs(30 * 24 * 3600);
    ///     let login = auth.log_in(user).with_method("password");
    ///     let token = login.as_bearer().with_label("laptop").with_lifetime(month).await?;
    ///     let (text, seconds) = (token.as_str(), token.expires_in());
    ///     Ok(format!(r#"{{"access_token":"{text}","token_type":"Bearer","expires_in":{seconds}}}"#))
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// The awaited result is an error if the user is not active, or has as many sessions as the
    /// layer allows; if the layer does not accept tokens, or the store fails; if a page of another
    /// site has opened this WebSocket; and if the response's head has already been written. If the
    /// response is not sent, the session ends.
    pub fn as_bearer(self) -> BearerBuilder<'a, U> {
        BearerBuilder { login: self, lifetime: None }
    }

    /// Returns the details of the new session: method, client address and user agent.
    fn details(&self) -> Details {
        let snapshot = &self.auth.0.snapshot;
        let mut details = self.details.clone();
        if let Some(address) = snapshot.request.client {
            details.set_address(address);
        }
        details.set_user_agent(snapshot.user_agent.as_ref().map_or(&[], HeaderValue::as_bytes));
        details
    }

    /// Returns the proofs of the new session. They are empty if the login is not fresh.
    fn proofs(&self, now: u32) -> Proofs {
        if self.is_fresh == Some(false) { Proofs::default() } else { Proofs::password(now) }
    }

    /// Returns how long the remember cookie is valid, in seconds, or `None` if the login gets none.
    fn remember_seconds(&self) -> Option<u32> {
        let chosen = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
        let default = self.auth.0.config.remember_duration;
        self.is_remembered.then(|| self.remember_duration.map_or(default, chosen))
    }
}

impl<'a, U: AuthUser> IntoFuture for LoginBuilder<'a, U> {
    type Output = Result<(), LoginError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.log_in())
    }
}

impl<U: AuthUser> LoginBuilder<'_, U> {
    fn login_origin(&self) -> LoginOrigin {
        LoginOrigin { is_forced: !self.user.is_active(), ..LoginOrigin::PASSWORD }
    }

    async fn log_in(self) -> Result<(), LoginError> {
        let Self { auth, user, .. } = &self;
        if !user.is_active() && !self.is_forced {
            return Err(LoginError::Inactive);
        }
        auth.check_origin()?;
        if auth.is_bearer_request() {
            return Err(AuthError::COOKIE_LOGIN_WITH_BEARER.into());
        }
        auth.mark_cookie_dependent();
        match &auth.config().sessions {
            Some(sessions) => self.log_in_server_side(sessions).await?,
            None => self.log_in_stateless()?,
        }
        let replaces_another_user =
            auth.verified_cookies().is_session_of_another_user(&**user, &auth.config().keyring);
        // A message that asks the user to log in is no longer true after the login.
        auth.drop_received_flash_if(|flash| replaces_another_user || asks_for_login(flash));
        auth.config().raise(Event::LoggedIn { user: Arc::clone(user) });
        Ok(())
    }

    fn requested(&self, now: u32) -> RequestedLogin<U> {
        RequestedLogin {
            user: Arc::clone(&self.user),
            login_origin: self.login_origin(),
            proofs: self.proofs(now),
            remember_seconds: self.remember_seconds(),
        }
    }

    fn log_in_stateless(&self) -> Result<(), LoginError> {
        let issuer = self.auth.issuer(&self.user);
        let login = self.requested(issuer.now);
        let cookies = stateless::change::log_in(&issuer, &login)?;
        let identity = login.identity();
        let mut state = self.auth.state();
        if state.is_head_written {
            return Err(AuthError::TOO_LATE.into());
        }
        state.apply_decision(identity, cookies);
        Ok(())
    }

    async fn log_in_server_side(&self, sessions: &Sessions<U>) -> Result<(), LoginError> {
        let auth = self.auth;
        let _lock = auth.lock_changes().await?;
        let issuer = auth.issuer(&self.user);
        let login = self.requested(issuer.now);
        let replacing = auth.session_keys_of_browser();
        let begun = server_side::change::log_in(
            &issuer,
            sessions,
            &login,
            self.details().write(),
            &replacing,
        );
        let BegunLogin { cookies, replays, unsent } = begun.await?;
        let identity = login.identity();
        let too_late = {
            let mut state = auth.state();
            if state.is_head_written {
                Some(unsent)
            } else {
                state.apply_decision(identity, cookies);
                state.unsent_sessions.extend(unsent.into_key());
                None
            }
        };
        if let Some(unsent) = too_late {
            // The response's head was written while the store wrote the record.
            unsent.end().await?;
            return Err(AuthError::TOO_LATE.into());
        }
        self.leave_replay_flash(&replays);
        Ok(())
    }

    /// Leaves a flash message for the next page if sessions of the user have ended because of a
    /// replay (a copy of a remember cookie was used).
    fn leave_replay_flash(&self, replays: &[Arc<SessionRecord>]) {
        let sessions = self.auth.config().sessions.as_ref();
        let flash = sessions.and_then(|sessions| sessions.replay_flash.clone());
        if let Some(flash) = flash.filter(|_| !replays.is_empty()) {
            self.auth.leave_flash(flash);
        }
    }
}

impl<U> fmt::Debug for LoginBuilder<'_, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginBuilder").finish_non_exhaustive()
    }
}

/// Logs in a user with a bearer token when it is awaited. Created by [`LoginBuilder::as_bearer`].
#[must_use = "await this to log in the user, and send the token to the client"]
pub struct BearerBuilder<'a, U> {
    login: LoginBuilder<'a, U>,
    lifetime: Option<Duration>,
}

impl<U> BearerBuilder<'_, U> {
    /// Sets what the token is for, such as `CI` or the name of a computer, so that the user
    /// recognizes it in a list. [`SessionInfo::label`](crate::session::SessionInfo::label) returns
    /// the first 256 bytes of this text.
    pub fn with_label(mut self, label: impl Into<String>) -> Self {
        self.login.details.set_label(&label.into());
        self
    }

    /// Sets how long the token is valid, rounded down to whole seconds, and at least one second.
    /// Use does not extend it, and the layer's idle limit and absolute limit don't shorten it. The
    /// default is the layer's [remember
    /// duration](crate::LoginLayerBuilder::with_remember_duration).
    pub fn with_lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = Some(lifetime);
        self
    }
}

impl<U: AuthUser> LoginBuilder<'_, U> {
    /// Returns when the user of a token has proved who they are, or `None` if the login is not
    /// fresh. A token of a user who is logged in already is as fresh as that login, so that nobody
    /// gets a fresh login out of one that is not fresh.
    async fn fresh_since_of_token(&self) -> Result<Option<u32>, AuthError> {
        match self.is_fresh {
            Some(true) => return Ok(Some(self.auth.config().now())),
            Some(false) => return Ok(None),
            None => self.auth.ensure_resolved().await?,
        }
        let now = self.auth.config().now();
        Ok(self.auth.with_identity(|identity| match identity.user() {
            Some(current) if current.id() == self.user.id() => identity.fresh_since(),
            _ => Some(now),
        }))
    }
}

impl<U: AuthUser> BearerBuilder<'_, U> {
    async fn log_in(self) -> Result<BearerToken, LoginError> {
        let Self { login, lifetime } = self;
        let LoginBuilder { auth, user, .. } = &login;
        if !user.is_active() && !login.is_forced {
            return Err(LoginError::Inactive);
        }
        auth.check_origin()?;
        let config = auth.config();
        let sessions = config.sessions.as_ref().filter(|_| config.accepts_bearer);
        let sessions = sessions.ok_or(AuthError::BEARER_DISABLED)?;
        let fresh_since = login.fresh_since_of_token().await?;
        let _lock = auth.lock_changes().await?;
        let issuer = auth.issuer(user);
        let mut details = login.details();
        details.set_bearer();
        let seconds = lifetime.map(|lifetime| u32::try_from(lifetime.as_secs()));
        let seconds = seconds.map_or(config.remember_duration, |s| s.unwrap_or(u32::MAX)).max(1);
        let begun =
            server_side::bearer::log_in(&issuer, sessions, fresh_since, seconds, details.write());
        let (token, unsent) = begun.await?;
        let too_late = {
            let mut state = auth.state();
            if state.is_head_written {
                Some(unsent)
            } else {
                state.unsent_sessions.extend(unsent.into_key());
                state.has_issued_bearer = true;
                None
            }
        };
        if let Some(unsent) = too_late {
            unsent.end().await?;
            return Err(AuthError::TOO_LATE.into());
        }
        auth.mark_cookie_dependent();
        config.raise(Event::LoggedIn { user: Arc::clone(user) });
        Ok(token)
    }
}

impl<'a, U: AuthUser> IntoFuture for BearerBuilder<'a, U> {
    type Output = Result<BearerToken, LoginError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.log_in())
    }
}

impl<U> fmt::Debug for BearerBuilder<'_, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BearerBuilder").finish_non_exhaustive()
    }
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
