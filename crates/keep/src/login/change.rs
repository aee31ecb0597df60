//! Logging in, logging out, confirming.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tower_keep_core::{AuthUser, SessionRecord};

use super::handle::Login;
use super::state::{Cookies, Identity};
use super::tracked::Until;
use super::{stateless, tracked};
use crate::cookie::{FORCED, REMEMBERED};
use crate::notice::cut;
use crate::{Event, Fault, LogInError, Notice, NoticeKind};

impl<U: AuthUser> Login<U> {
    /// Logs this user in, once the result is awaited. Takes a user or an `Arc` of one.
    ///
    /// Check the password, or whatever proves who it is, before. The login gets a session of its
    /// own: nothing of an earlier session in this browser survives, and an earlier remember cookie
    /// is replaced or cleared. With [session records](crate::LoginLayerBuilder::with_sessions) the
    /// login is one write, which also ends the earlier session's record. From then on [`user`](Self::user) answers this user.
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
            method: String::new(),
        }
    }

    /// Logs out, and answers who was logged in.
    ///
    /// Ends the session and the remember cookie in this browser; `Ok(None)` if nobody was logged
    /// in. With [session records](crate::LoginLayerBuilder::with_sessions) copies of the cookies end
    /// too, wherever they are: one write. Without them copies go on, since nothing but the cookies
    /// knows of the login: change the user's [stamp](AuthUser::stamp) to end them all.
    ///
    /// # Errors
    ///
    /// It could not be found out who was logged in, the end could not be recorded, or the response's
    /// head is written; the cookies stay as they are, and the user may still be logged in.
    pub async fn log_out(&self) -> Result<Option<Arc<U>>, Fault> {
        match &self.config().sessions {
            Some(sessions) => tracked::end(self, sessions).await,
            None => {
                self.ensure_resolved().await?;
                self.leave_session()
            }
        }
    }

    /// Clears the cookies of this login, and answers whose it was.
    pub(super) fn leave_session(&self) -> Result<Option<Arc<U>>, Fault> {
        let user = {
            let mut state = self.state();
            if state.sealed {
                return Err(Fault::TOO_LATE);
            }
            let identity = std::mem::replace(&mut state.identity, Identity::Anonymous);
            state.decide(Identity::Anonymous, Cookies::cleared());
            state.begun = None;
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
            Some(user) => self.reissue(user, Until::HalfTheGrace).await,
            None => Ok(None),
        }
    }

    /// Keeps this browser logged in when the user's [stamp](AuthUser::stamp) was changed on purpose:
    /// after they set a new password, say, which ends all their *other* logins.
    ///
    /// Give it the changed user. Ask [`user`](Self::user), or stand behind a guard, *before* the
    /// change is stored: afterwards the cookies of this request name nobody any more. The login
    /// becomes fresh, as after [`confirm`](Self::confirm), and a remember cookie that the request
    /// brought is made out anew until the same time. With session records the user's other sessions
    /// end, as by [`end_other_sessions`](Self::end_other_sessions). `Ok(None)`, and nothing done,
    /// unless this very user is logged in here and active.
    ///
    /// # Errors
    ///
    /// Returns an error if it could not be found out who is logged in, or if the response's head is
    /// written. A store that fails later is no error where the stamp has changed, since the new one is
    /// in force already: this login goes on, and the others are refused by their stamp, though they may
    /// be listed until they expire. The log then has an error line.
    pub async fn keep_logged_in(&self, user: impl Into<Arc<U>>) -> Result<Option<Arc<U>>, Fault> {
        self.ensure_resolved().await?;
        let user = user.into();
        let current = self.with_identity(|identity| match identity {
            Identity::Session { user, active: true, .. } => Some(Arc::clone(user)),
            _ => None,
        });
        let current = current.filter(|current| current.id() == user.id() && user.is_active());
        let Some(current) = current else { return Ok(None) };
        let until = match current.stamp() == user.stamp() {
            true => Until::HalfTheGrace,
            false => Until::Always,
        };
        let kept = self.reissue(user, until).await?;
        if kept.is_some() && self.config().sessions.is_some() {
            let ended = self.end_other_sessions().await;
            // By a new stamp the others are dead already, so the change has taken place.
            if until == Until::HalfTheGrace {
                ended?;
            }
        }
        Ok(kept)
    }

    /// A new, fresh session for the user of the current one, and their remember cookie as well.
    async fn reissue(&self, user: Arc<U>, until: Until) -> Result<Option<Arc<U>>, Fault> {
        match &self.config().sessions {
            Some(sessions) => {
                let _changing = self.change().await?;
                if !tracked::reissue(self, sessions, &user, until).await? {
                    return Ok(None);
                }
            }
            None => stateless::reissue(self, &user)?,
        }
        self.drop_presented_notice_if(asks);
        self.config().raise(Event::Confirmed { user: Arc::clone(&user) });
        Ok(Some(user))
    }
}

/// Whether a notice asks to log in, or to confirm.
fn asks(notice: &Notice) -> bool {
    matches!(notice.kind(), NoticeKind::LoginRequired | NoticeKind::ConfirmRequired)
}

/// A login about to happen; made by [`Login::log_in`]. Await it.
#[must_use = "nobody is logged in until this is awaited, and then the result says whether"]
pub struct LogIn<'a, U> {
    pub(super) login: &'a Login<U>,
    pub(super) user: Arc<U>,
    remember: bool,
    duration: Option<Duration>,
    pub(super) fresh: bool,
    forced: bool,
    pub(super) method: String,
}

/// The longest method that a record keeps, in bytes.
const LONGEST_METHOD: usize = 64;

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

    /// How the user has proved who they are: `password`, `passkey`, the name of an identity provider.
    /// A session record keeps the first 64 bytes of it, for the list of the user's sessions.
    pub fn with_method(mut self, method: impl Into<String>) -> Self {
        self.method = method.into();
        self.method.truncate(cut(&self.method, LONGEST_METHOD).len());
        self
    }

    /// For how long to remember the user, in seconds.
    pub(super) fn remember_seconds(&self) -> Option<u32> {
        let chosen = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
        let default = self.login.0.config.remember_duration;
        self.remember.then(|| self.duration.map_or(default, chosen))
    }
}

impl<'a, U: AuthUser> IntoFuture for LogIn<'a, U> {
    type Output = Result<(), LogInError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.begin())
    }
}

impl<U: AuthUser> LogIn<'_, U> {
    async fn begin(self) -> Result<(), LogInError> {
        let Self { login, user, .. } = &self;
        let active = user.is_active();
        if !active && !self.forced {
            return Err(LogInError::Inactive);
        }
        login.look();
        let forced = if active { 0 } else { FORCED };
        let flags = forced | if self.remember { REMEMBERED } else { 0 };
        match &login.config().sessions {
            Some(sessions) => tracked::begin(&self, sessions, flags).await?,
            None => stateless::begin(&self, flags)?,
        }
        let is_for_another = login.presented().is_not_of(&user.id());
        // Who has just logged in is not asked to.
        login.drop_presented_notice_if(|notice| is_for_another || asks(notice));
        login.config().raise(Event::LoggedIn { user: Arc::clone(user) });
        Ok(())
    }

    /// Leaves a notice for the next page if a copy of a remember cookie has been used.
    pub(super) fn tell_of_replays(&self, replays: &[Arc<SessionRecord>]) {
        let sessions = self.login.config().sessions.as_ref();
        let notice = sessions.and_then(|sessions| sessions.replay_notice.clone());
        if let Some(notice) = notice.filter(|_| !replays.is_empty()) {
            self.login.leave(notice);
        }
    }
}

impl<U> std::fmt::Debug for LogIn<'_, U> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogIn").finish_non_exhaustive()
    }
}
