//! Listing and ending the sessions of the user who is logged in.

use std::sync::Arc;

use tower_keep_core::{AuthUser, SessionRecord, UserId};

use super::handle::AuthSession;
use super::server_side::list::MAX_LISTED;
use super::state::Identity;
use crate::error::AuthError;
use crate::session_info::{SessionInfo, public_id_of};
use crate::sessions::Sessions;

impl<U: AuthUser> AuthSession<U> {
    /// Returns the sessions of the user who is logged in: first the session of this request, then
    /// the others, the most recently used first. Returns at most 1,000 sessions. If no user is
    /// logged in, the list is empty.
    ///
    /// # Errors
    ///
    /// Returns an error in the cases of [`user`](Self::user), and
    /// [`NoSessions`](crate::error::AuthErrorKind::NoSessions) if the layer keeps no server-side
    /// sessions.
    pub async fn sessions(&self) -> Result<Vec<SessionInfo>, AuthError> {
        let (config, sessions) = (self.config(), self.require_sessions()?);
        let Some((user, current)) = self.user_and_session().await? else { return Ok(Vec::new()) };
        let mut infos = config.list_sessions(sessions, &user, current.as_deref()).await?;
        infos.sort_by_key(|info| !info.is_current());
        // If `MAX_LISTED` other sessions were used more recently, the current session is not in the
        // list.
        if let Some(current) =
            current.filter(|_| infos.first().is_none_or(|info| !info.is_current()))
        {
            infos.insert(0, SessionInfo::new(current, true));
            infos.truncate(MAX_LISTED);
        }
        Ok(infos)
    }

    /// Ends the session with this [public id](SessionInfo::public_id), if it is a session of the
    /// user who is logged in. Returns whether a session has ended. If it is the session of this
    /// request, this logs out, as [`log_out`](Self::log_out) does.
    ///
    /// # Errors
    ///
    /// Returns an error in the cases of [`sessions`](Self::sessions) and, for the session of this
    /// request, of [`log_out`](Self::log_out). If the store has timed out, the session may have
    /// ended nevertheless.
    pub async fn end_session(&self, public_id: &str) -> Result<bool, AuthError> {
        let (config, sessions) = (self.config(), self.require_sessions()?);
        let Some((user, current)) = self.user_and_session().await? else { return Ok(false) };
        if current.is_some_and(|current| public_id_of(&current) == public_id) {
            return Ok(self.log_out().await?.is_some());
        }
        config.end_session(sessions, &user, public_id).await
    }

    /// Ends all sessions of the user who is logged in, except the session of this request. This is
    /// one write, however many sessions there are. Does nothing if no user is logged in.
    ///
    /// # Errors
    ///
    /// Returns an error in the cases of [`sessions`](Self::sessions). If the store has timed out,
    /// the sessions may have ended nevertheless.
    pub async fn end_other_sessions(&self) -> Result<(), AuthError> {
        let (config, sessions) = (self.config(), self.require_sessions()?);
        let Some((user, current)) = self.user_and_session().await? else { return Ok(()) };
        config.end_all_sessions(sessions, &user, current.as_deref()).await
    }

    /// Ends all sessions of the user who is logged in, logs out, and returns the user, or `None` if
    /// no user was logged in.
    ///
    /// # Errors
    ///
    /// Returns an error in the cases of [`sessions`](Self::sessions), and if the response's head
    /// has already been written.
    pub async fn end_all_sessions(&self) -> Result<Option<Arc<U>>, AuthError> {
        self.log_out_everywhere(self.require_sessions()?).await
    }

    fn require_sessions(&self) -> Result<&Sessions<U>, AuthError> {
        self.config().sessions.as_ref().ok_or(AuthError::NO_SESSIONS)
    }

    /// Returns the id of the user who is logged in, and the record of the session of this request,
    /// if there is one.
    async fn user_and_session(
        &self,
    ) -> Result<Option<(UserId, Option<Arc<SessionRecord>>)>, AuthError> {
        let Some(user) = self.user().await? else { return Ok(None) };
        let state = self.state();
        let current = match &state.identity {
            Identity::Session { .. } => state.browser_login.record().cloned(),
            Identity::Loader { .. } | Identity::Anonymous => None,
        };
        Ok(Some((user.id(), current)))
    }
}
