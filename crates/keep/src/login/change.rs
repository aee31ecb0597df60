//! Logging in, logging out, confirming.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tower_keep_core::AuthUser;

use super::handle::Login;
use super::issue::{check_size, client_digest, issue_remember, issue_session, new_terms};
use super::state::{Change, Identity};
use crate::cookie::{FORCED, REMEMBERED, Remember, RememberTerms};
use crate::keys::KeySlot;
use crate::{Event, Fault, LogInError, random};

impl<U: AuthUser> Login<U> {
    /// Logs this user in, once the result is awaited. Takes a user or an `Arc` of one.
    ///
    /// Check the password, or whatever proves who it is, before. The login gets a session of its
    /// own: nothing of an earlier session in this browser survives, and an earlier remember cookie
    /// is replaced or cleared. From then on [`user`](Self::user) answers this user.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tower_keep::{Account, LogInError, Login};
    /// # async fn example(login: Login<Account>, user: Account) -> Result<(), LogInError> {
    /// login.log_in(user).remember_for(Duration::from_secs(7 * 24 * 3600)).await?;
    /// # Ok(()) }
    /// ```
    pub fn log_in(&self, user: impl Into<Arc<U>>) -> LogIn<'_, U> {
        LogIn {
            login: self,
            user: user.into(),
            remember: false,
            duration: None,
            fresh: true,
            forced: false,
        }
    }

    /// Logs out, and answers who was logged in.
    ///
    /// Ends the session and the remember cookie in this browser; `Ok(None)` if nobody was logged
    /// in. Cookies that were copied elsewhere are not ended by this, since nothing but the cookies
    /// knows of the login: change the user's [stamp](AuthUser::stamp) to end them all.
    ///
    /// # Errors
    ///
    /// It could not be found out who was logged in, or the response's head is written; nothing was
    /// changed.
    pub async fn log_out(&self) -> Result<Option<Arc<U>>, Fault> {
        self.ensure_resolved().await?;
        let user = {
            let mut state = self.state();
            if state.sealed {
                return Err(Fault::TOO_LATE);
            }
            let identity = std::mem::replace(&mut state.identity, Identity::Anonymous);
            state.session = Change::Clear;
            state.remember = Change::Clear;
            state.remembered = false;
            state.decided = true;
            match identity {
                Identity::Session { user, .. } => Some(user),
                Identity::Loader { .. } | Identity::Anonymous => None,
            }
        };
        self.drop_presented_notice();
        if let Some(user) = &user {
            self.config().raise(Event::LoggedOut { user: Arc::clone(user) });
        }
        Ok(user)
    }

    /// Makes the login fresh, after the user has proved again who they are; answers the user.
    ///
    /// The session gets a new cookie. `Ok(None)`, and nothing done, if there is no session to
    /// confirm: nobody is logged in, or a request loader has found the user.
    ///
    /// # Errors
    ///
    /// It could not be found out who is logged in, or the response's head is written; nothing was
    /// changed.
    pub async fn confirm(&self) -> Result<Option<Arc<U>>, Fault> {
        self.ensure_resolved().await?;
        let user = self.with_identity(|identity| match identity {
            Identity::Session { user, active: true, .. } => Some(Arc::clone(user)),
            _ => None,
        });
        match user {
            Some(user) => self.reissue(user).map(Some),
            None => Ok(None),
        }
    }

    /// Keeps this browser logged in when the user's [stamp](AuthUser::stamp) was changed on purpose:
    /// after they set a new password, say, which ends all their *other* logins.
    ///
    /// Give it the changed user. Ask [`user`](Self::user), or stand behind a guard, *before* the
    /// change is stored: afterwards the cookies of this request name nobody any more. The login
    /// becomes fresh, as after [`confirm`](Self::confirm), and a remember cookie that the request
    /// brought is made out anew until the same time. `Ok(None)`, and nothing done, unless this very
    /// user is logged in here and active.
    ///
    /// # Errors
    ///
    /// As [`confirm`](Self::confirm).
    pub async fn keep_logged_in(&self, user: impl Into<Arc<U>>) -> Result<Option<Arc<U>>, Fault> {
        self.ensure_resolved().await?;
        let user = user.into();
        let is_same = self.with_identity(|identity| match identity {
            Identity::Session { user: current, active: true, .. } => current.id() == user.id(),
            _ => false,
        });
        if is_same && user.is_active() { self.reissue(user).map(Some) } else { Ok(None) }
    }

    /// A new, fresh session for the user of the current one, and their remember cookie as well.
    fn reissue(&self, user: Arc<U>) -> Result<Arc<U>, Fault> {
        let (config, now) = (self.config(), self.0.config.now());
        {
            let mut state = self.state();
            if state.sealed {
                return Err(Fault::TOO_LATE);
            }
            let held = self.presented().session.as_ref().map(|held| &held.cookie);
            let flags =
                state.session.as_set().or(held).map_or(0, |session| session.terms.flags) & !FORCED;
            let client = client_digest(config, &self.0.snapshot, KeySlot::CURRENT);
            let session = issue_session(config, &*user, new_terms(now, true, flags)?, client);
            if state.remembered {
                let held = self.presented().remember.as_ref().map(|held| &held.cookie);
                let terms = state.remember.as_set().or(held).map(|remember| remember.terms);
                if let Some(terms) = terms {
                    state.remember = Change::set(issue_remember(config, &*user, terms));
                }
            }
            state.identity = Identity::Session {
                user: Arc::clone(&user),
                fresh: session.terms.fresh,
                active: true,
            };
            state.session = Change::set(session);
        }
        config.raise(Event::Confirmed { user: Arc::clone(&user) });
        Ok(user)
    }
}

/// A login about to happen; made by [`Login::log_in`]. Await it.
#[must_use = "nobody is logged in until this is awaited, and then the result says whether"]
pub struct LogIn<'a, U> {
    login: &'a Login<U>,
    user: Arc<U>,
    remember: bool,
    duration: Option<Duration>,
    fresh: bool,
    forced: bool,
}

impl<U> LogIn<'_, U> {
    /// Whether to know the user again after the browser was closed; no by default.
    pub fn remember(mut self, remember: bool) -> Self {
        self.remember = remember;
        self
    }

    /// Remembers the user for this long, in whole seconds, instead of the layer's duration.
    pub fn remember_for(mut self, duration: Duration) -> Self {
        self.remember = true;
        self.duration = Some(duration);
        self
    }

    /// Whether the login counts as fresh; yes by default. Say no where the user has not just
    /// proved who they are, as with a link in an old e-mail.
    pub fn fresh(mut self, fresh: bool) -> Self {
        self.fresh = fresh;
        self
    }

    /// Whether to log in even a user who is [not active](AuthUser::is_active); no by default.
    ///
    /// Guards still turn such a user away; [`Login::inactive_user`] tells who it is, for a page
    /// that says how to become active.
    pub fn force(mut self, force: bool) -> Self {
        self.forced = force;
        self
    }
}

impl<'a, U: AuthUser> IntoFuture for LogIn<'a, U> {
    type Output = Result<(), LogInError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.begin() })
    }
}

impl<U: AuthUser> LogIn<'_, U> {
    fn begin(self) -> Result<(), LogInError> {
        let Self { login, user, .. } = &self;
        let (config, active) = (login.config(), user.is_active());
        if !active && !self.forced {
            return Err(LogInError::Inactive);
        }
        login.look();
        let now = config.now();
        let forced = if active { 0 } else { FORCED };
        let flags = forced | if self.remember { REMEMBERED } else { 0 };
        let terms = new_terms(now, self.fresh, flags)?;
        let client = client_digest(config, &login.0.snapshot, KeySlot::CURRENT);
        let session = issue_session(config, &**user, terms, client);
        check_size(&config.session, &session)?;
        let remember = self.remember_cookie(now, forced)?;
        {
            let mut state = login.state();
            if state.sealed {
                return Err(Fault::TOO_LATE.into());
            }
            let (user, fresh) = (Arc::clone(user), session.terms.fresh);
            state.identity = Identity::Session { user, fresh, active };
            state.session = Change::set(session);
            state.remembered = remember.is_some();
            // The latest choice rules: an older remember cookie, of this user or another, must not
            // bring anybody back later.
            state.remember = remember.map_or(Change::Clear, Change::set);
            state.decided = true;
        }
        let before = login.presented().session.as_ref();
        if before.is_some_and(|held| held.cookie.user != user.id()) {
            login.drop_presented_notice();
        }
        config.raise(Event::LoggedIn { user: Arc::clone(user) });
        Ok(())
    }

    fn remember_cookie(&self, now: u32, flags: u8) -> Result<Option<Remember>, LogInError> {
        if !self.remember {
            return Ok(None);
        }
        let config = self.login.config();
        let seconds = match self.duration {
            Some(duration) => u32::try_from(duration.as_secs()).unwrap_or(u32::MAX),
            None => config.remember_duration,
        };
        let expires = now.saturating_add(seconds);
        let terms = RememberTerms { flags, nonce: random::bytes()?, issued: now, expires };
        let remember = issue_remember(config, &*self.user, terms);
        check_size(&config.remember, &remember)?;
        Ok(Some(remember))
    }
}

impl<U> std::fmt::Debug for LogIn<'_, U> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogIn").finish_non_exhaustive()
    }
}
