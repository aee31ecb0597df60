//! Logging in, logging out, confirming.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tower_keep_core::{AuthUser, SessionDetails, SessionRecord};

use super::handle::AuthSession;
use super::server_side::CookieDeadline;
use super::state::{Cookies, Identity};
use super::{server_side, stateless};
use crate::cookie::{Origin, Proofs};
use crate::details::Details;
use crate::event::Event;
use crate::flash::{Flash, FlashKind};
use crate::{AuthError, LoginError};

impl<U: AuthUser> AuthSession<U> {
    /// Logs in this user when the returned [`LoginBuilder`] is awaited. Takes a user or an `Arc` of
    /// one.
    ///
    /// Check the user's password, or another proof of who they are, before this call. The login
    /// gets a new session: nothing of an earlier session in this browser survives, and an earlier
    /// remember cookie is replaced or cleared. With [server-side
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
            remember: false,
            duration: None,
            fresh: true,
            forced: false,
            details: Details::new(),
        }
    }

    /// Logs out, and returns the user who was logged in, or `None` if no user was logged in.
    ///
    /// Ends the session and the remember cookie in this browser. With [server-side
    /// sessions](crate::LoginLayerBuilder::with_sessions) this also ends all copies of the cookies,
    /// wherever they are, with one write. Without server-side sessions, copies stay valid, because
    /// the login exists only in the cookies: change the user's [security
    /// stamp](AuthUser::security_stamp) to end them all.
    ///
    /// # Errors
    ///
    /// Returns an error if it could not be determined who was logged in, if the end of the session
    /// could not be recorded, or if the response's head has already been written. Then the cookies
    /// stay as they are, and the user may still be logged in.
    pub async fn log_out(&self) -> Result<Option<Arc<U>>, AuthError> {
        match &self.config().sessions {
            Some(sessions) => server_side::end(self, sessions).await,
            None => {
                self.ensure_resolved().await?;
                self.leave_session()
            }
        }
    }

    /// Clears the cookies of this login, and returns its user.
    pub(super) fn leave_session(&self) -> Result<Option<Arc<U>>, AuthError> {
        let user = {
            let mut state = self.state();
            if state.is_head_written {
                return Err(AuthError::TOO_LATE);
            }
            let identity = std::mem::replace(&mut state.identity, Identity::Anonymous);
            state.decide(Identity::Anonymous, Cookies::cleared());
            state.unsent_session = None;
            match identity {
                Identity::Session { user, .. } => Some(user),
                Identity::Loader { .. } | Identity::Anonymous => None,
            }
        };
        self.drop_presented_flash();
        if let Some(user) = &user {
            self.config().raise(Event::LoggedOut { user: Arc::clone(user) });
        }
        Ok(user)
    }

    /// Makes the login fresh, after the user has proved again who they are. This takes place when
    /// the returned [`ConfirmBuilder`] is awaited, which then returns the user.
    ///
    /// ```
    /// # use tower_keep::{Account, AuthError, AuthSession};
    /// # async fn example(auth: AuthSession<Account>) -> Result<(), AuthError> {
    /// auth.confirm().await?; // after the password was checked
    /// # Ok(()) }
    /// ```
    ///
    /// The session gets a new cookie. If there is no session to confirm, because no user is logged
    /// in or because a request loader found the user, this does nothing and returns `Ok(None)`.
    ///
    /// # Errors
    ///
    /// Returns an error if it could not be determined who is logged in, or if the response's head
    /// has already been written. Then nothing was changed.
    pub fn confirm(&self) -> ConfirmBuilder<'_, U> {
        ConfirmBuilder { auth: self }
    }

    /// Returns the user of the session, if a user is logged in by one and is active.
    async fn session_user(&self) -> Result<Option<Arc<U>>, AuthError> {
        self.ensure_resolved().await?;
        Ok(self.with_identity(|identity| match identity {
            Identity::Session { user, active: true, .. } => Some(Arc::clone(user)),
            _ => None,
        }))
    }

    /// Keeps this browser logged in when the user's [security stamp](AuthUser::security_stamp) was
    /// changed on purpose. For example, a new password changes the stamp, which ends all *other*
    /// logins of the user.
    ///
    /// Pass the changed user. Call [`user`](Self::user), or put the handler behind a guard,
    /// *before* the change is stored: afterwards the cookies of this request are no longer valid.
    /// The login becomes fresh, as after [`confirm`](Self::confirm), and a remember cookie that the
    /// request sent is reissued with the same expiry time. With server-side sessions, the user's
    /// other sessions end, as with [`end_other_sessions`](Self::end_other_sessions).
    ///
    /// Does nothing and returns `Ok(None)` unless this same user is logged in here and is active.
    ///
    /// # Errors
    ///
    /// Returns an error if it could not be determined who is logged in, or if the response's head
    /// has already been written. If the store fails after that, and the security stamp has changed,
    /// this is not an error, because the new stamp is already in force: this login continues, and
    /// the other logins are rejected because of their old stamp, though they may be listed until
    /// they expire. The failure is then logged as an error.
    pub async fn keep_logged_in(
        &self,
        user: impl Into<Arc<U>>,
    ) -> Result<Option<Arc<U>>, AuthError> {
        let user = user.into();
        let current = self.session_user().await?;
        let current = current.filter(|current| current.id() == user.id() && user.is_active());
        let Some(current) = current else { return Ok(None) };
        let deadline = match current.security_stamp() == user.security_stamp() {
            true => CookieDeadline::HalfTheGrace,
            false => CookieDeadline::None,
        };
        let kept = self.reissue(user, deadline).await?;
        if kept.is_some() && self.config().sessions.is_some() {
            let ended = self.end_other_sessions().await;
            // With a new stamp the other sessions are already invalid, so the change has taken
            // place.
            if deadline == CookieDeadline::HalfTheGrace {
                ended?;
            }
        }
        Ok(kept)
    }

    /// Issues a new, fresh session for the user of the current one, and reissues their remember
    /// cookie.
    async fn reissue(
        &self,
        user: Arc<U>,
        deadline: CookieDeadline,
    ) -> Result<Option<Arc<U>>, AuthError> {
        match &self.config().sessions {
            Some(sessions) => {
                let _changing = self.change().await?;
                if !server_side::reissue(self, sessions, &user, deadline).await? {
                    return Ok(None);
                }
            }
            None => stateless::reissue(self, &user)?,
        }
        self.drop_presented_flash_if(asks_for_login);
        self.config().raise(Event::Confirmed { user: Arc::clone(&user) });
        Ok(Some(user))
    }
}

/// Whether a flash message asks the user to log in or to confirm.
fn asks_for_login(flash: &Flash) -> bool {
    matches!(flash.kind(), FlashKind::LoginRequired | FlashKind::ConfirmRequired)
}

/// A login that takes place when the builder is awaited. Created by [`AuthSession::log_in`].
#[must_use = "nobody is logged in until this is awaited, and then the result says whether"]
pub struct LoginBuilder<'a, U> {
    pub(super) auth: &'a AuthSession<U>,
    pub(super) user: Arc<U>,
    remember: bool,
    duration: Option<Duration>,
    fresh: bool,
    forced: bool,
    details: Details,
}

impl<U> LoginBuilder<'_, U> {
    /// Sets whether to remember the user after the browser is closed. The default is `false`.
    pub fn with_remember(mut self, remember: bool) -> Self {
        self.remember = remember;
        self
    }

    /// Sets for how long the user is remembered, in whole seconds, in place of the layer's
    /// [remember duration](crate::LoginLayerBuilder::with_remember_duration). It has no effect
    /// unless the user [is remembered](Self::with_remember).
    pub fn with_remember_duration(mut self, duration: Duration) -> Self {
        self.duration = Some(duration);
        self
    }

    /// Sets whether the login counts as fresh. The default is `true`. Set `false` if the user has
    /// not just proved who they are, as with a link in an old e-mail.
    pub fn with_fresh(mut self, fresh: bool) -> Self {
        self.fresh = fresh;
        self
    }

    /// Sets whether to log in the user even if they are [not active](AuthUser::is_active). The
    /// default is `false`.
    ///
    /// Guards still reject such a user. [`AuthSession::inactive_user`] returns the user, for a page
    /// that says how to become active.
    pub fn with_force(mut self, force: bool) -> Self {
        self.forced = force;
        self
    }

    /// Sets how the user has proved who they are: `password`, `passkey`, or the name of an identity
    /// provider. The session's record keeps the first 256 bytes of it, for the list of the user's
    /// sessions.
    pub fn with_method(mut self, method: impl Into<String>) -> Self {
        self.details.set_method(&method.into());
        self
    }

    /// Returns what is shown about this login.
    pub(super) fn details(&self) -> SessionDetails {
        let snapshot = &self.auth.0.snapshot;
        let mut details = self.details.clone();
        if let Some(address) = snapshot.request.client {
            details.set_address(address);
        }
        details.set_user_agent(snapshot.user_agent.as_ref().map_or(&[], HeaderValue::as_bytes));
        details.write()
    }

    pub(super) fn proofs(&self, now: u32) -> Proofs {
        if self.fresh { Proofs::password(now) } else { Proofs::default() }
    }

    /// Returns for how long to remember the user, in seconds; `None` if not at all.
    pub(super) fn remember_seconds(&self) -> Option<u32> {
        let chosen = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
        let default = self.auth.0.config.remember_duration;
        self.remember.then(|| self.duration.map_or(default, chosen))
    }
}

impl<'a, U: AuthUser> IntoFuture for LoginBuilder<'a, U> {
    type Output = Result<(), LoginError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.begin())
    }
}

impl<U: AuthUser> LoginBuilder<'_, U> {
    pub(super) fn origin(&self) -> Origin {
        Origin { is_forced: !self.user.is_active(), ..Origin::PASSWORD }
    }

    async fn begin(self) -> Result<(), LoginError> {
        let Self { auth, user, .. } = &self;
        if !user.is_active() && !self.forced {
            return Err(LoginError::Inactive);
        }
        auth.mark_cookie_dependent();
        match &auth.config().sessions {
            Some(sessions) => server_side::begin(&self, sessions).await?,
            None => stateless::begin(&self)?,
        }
        let is_for_another = auth.presented().is_of_another(&**user, &auth.config().keyring);
        // A user who has just logged in must not be asked to log in.
        auth.drop_presented_flash_if(|flash| is_for_another || asks_for_login(flash));
        auth.config().raise(Event::LoggedIn { user: Arc::clone(user) });
        Ok(())
    }

    /// Leaves a flash message for the next page if a copy of a remember cookie has been used.
    pub(super) fn leave_replay_flash(&self, replays: &[Arc<SessionRecord>]) {
        let sessions = self.auth.config().sessions.as_ref();
        let flash = sessions.and_then(|sessions| sessions.replay_flash.clone());
        if let Some(flash) = flash.filter(|_| !replays.is_empty()) {
            self.auth.leave(flash);
        }
    }
}

impl<U> fmt::Debug for LoginBuilder<'_, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginBuilder").finish_non_exhaustive()
    }
}

/// A confirmation that takes place when the builder is awaited. Created by
/// [`AuthSession::confirm`].
#[must_use = "nothing is confirmed until this is awaited"]
pub struct ConfirmBuilder<'a, U> {
    auth: &'a AuthSession<U>,
}

impl<'a, U: AuthUser> IntoFuture for ConfirmBuilder<'a, U> {
    type Output = Result<Option<Arc<U>>, AuthError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            match self.auth.session_user().await? {
                Some(user) => self.auth.reissue(user, CookieDeadline::HalfTheGrace).await,
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
