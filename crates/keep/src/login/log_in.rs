//! Logging in, with cookies or with a bearer token.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tower_keep_core::{AuthUser, SessionRecord};

use super::handle::AuthSession;
use super::requested::RequestedLogin;
use super::server_side::change::BegunLogin;
use super::{server_side, stateless};
use crate::bearer_token::BearerToken;
use crate::cookie::login_origin::{LoginOrigin, Proofs};
use crate::error::{AuthError, LoginError};
use crate::event::Event;
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
            is_device_known: None,
            details: Details::new(),
        }
    }
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
    /// `None` if the application has not said it.
    is_device_known: Option<bool>,
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

    /// Sets whether the browser becomes a [known device](crate::throttle#known-devices) of the
    /// user. By default it does if [`PasswordSignIn`][sign_in] has checked the user's password in
    /// this request. Set `true` if the user has proved in another way who they are, for example by
    /// a link in a mail.
    ///
    /// [sign_in]: https://docs.rs/tower-keep/latest/tower_keep/sign_in/struct.PasswordSignIn.html
    pub fn with_known_device(mut self, known: bool) -> Self {
        self.is_device_known = Some(known);
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
        auth.drop_received_flash_if(|flash| replaces_another_user || flash.asks_for_login());
        auth.complete_login(user, self.is_device_known).await;
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
        auth.complete_login(user, Some(false)).await;
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
