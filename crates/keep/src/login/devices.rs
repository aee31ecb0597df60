//! Listing and ending a user's sessions.

use std::sync::Arc;

use tower_keep_core::{AuthUser, EndReason, SessionRecord, Timestamp, UserId};

use super::handle::AuthSession;
use super::server_side;
use super::state::{BrowserLogin, Identity};
use crate::error::AuthError;
use crate::layer::LoginLayer;
use crate::layer::config::Config;
use crate::sessions::{SessionInfo, Sessions, public_id_of};

/// A list has at most this many sessions, the most recently used first.
const MAX_LISTED: usize = 1_000;

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
        server_side::log_out_everywhere(self, self.require_sessions()?).await
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
        let current = match (&state.identity, &state.browser_login) {
            (Identity::Session { .. }, BrowserLogin::ServerSide(browser_session)) => {
                Some(Arc::clone(&browser_session.record))
            }
            _ => None,
        };
        Ok(Some((user.id(), current)))
    }
}

/// Methods for use outside of a request: for administrators, password resets, and tools.
impl<U: AuthUser> LoginLayer<U> {
    /// Returns the sessions of this user, the most recently used first; at most 1,000.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails, or if the layer keeps [no server-side
    /// sessions](crate::error::AuthErrorKind::NoSessions).
    pub async fn sessions_of(&self, user: &UserId) -> Result<Vec<SessionInfo>, AuthError> {
        self.config.list_sessions(self.require_sessions()?, user, None).await
    }

    /// Ends the session of this user with this [public id](SessionInfo::public_id). Returns whether
    /// a session has ended.
    ///
    /// # Errors
    ///
    /// Returns an error in the cases of [`sessions_of`](Self::sessions_of).
    pub async fn end_session_of(&self, user: &UserId, public_id: &str) -> Result<bool, AuthError> {
        self.config.end_session(self.require_sessions()?, user, public_id).await
    }

    /// Ends all sessions of this user, on every device. From the next request on, none of them is
    /// logged in. This is one write, however many sessions there are.
    ///
    /// ```
    /// # use tower_keep::{Account, AuthError, LoginLayer, UserId};
    /// async fn lock_out(auth_layer: &LoginLayer<Account>, user: &UserId) -> Result<(), AuthError> {
    ///     auth_layer.end_all_sessions_of(user).await
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error in the cases of [`sessions_of`](Self::sessions_of).
    pub async fn end_all_sessions_of(&self, user: &UserId) -> Result<(), AuthError> {
        self.config.end_all_sessions(self.require_sessions()?, user, None).await
    }

    /// Returns a future that records the use of sessions, in batches and outside of the requests,
    /// and purges expired records. Spawn it once. It never resolves, and it uses tokio's timer.
    ///
    /// ```
    /// # use tower_keep::{Account, LoginLayer};
    /// # fn example(auth_layer: &LoginLayer<Account>) {
    /// tokio::spawn(auth_layer.upkeep());
    /// # }
    /// ```
    ///
    /// A request that uses a session leaves a note for this future, at most one per session and
    /// touch interval. If 65,536 notes wait to be written, requests write their own notes. Requests
    /// also write their own notes if this future is not spawned: this is correct, but slower. After
    /// this future has failed to write, requests write their own notes until a write succeeds, and
    /// return an error if they can't. Without server-side sessions this future has nothing to do.
    pub fn upkeep(&self) -> impl Future<Output = ()> + Send + use<U> {
        let config = Arc::clone(&self.config);
        async move {
            match &config.sessions {
                Some(sessions) => sessions.upkeep.run(&*sessions.store, || config.now()).await,
                None => std::future::pending().await,
            }
        }
    }

    /// Writes the notes that wait for the [upkeep](Self::upkeep). Call this when the server shuts
    /// down, after the last request. Abort the upkeep before this call: the notes that it was
    /// writing then wait again.
    ///
    /// ```
    /// # use tower_keep::{Account, AuthError, LoginLayer};
    /// # async fn serve() {}
    /// async fn run(auth_layer: LoginLayer<Account>) -> Result<(), AuthError> {
    ///     let upkeep = tokio::spawn(auth_layer.upkeep());
    ///     serve().await;
    ///     upkeep.abort();
    ///     let _ = upkeep.await; // it was aborted
    ///     auth_layer.flush().await
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails. The notes then continue to wait.
    pub async fn flush(&self) -> Result<(), AuthError> {
        match &self.config.sessions {
            Some(sessions) => Ok(sessions.upkeep.flush(&*sessions.store).await?),
            None => Ok(()),
        }
    }

    /// Removes at most `limit` expired records, and returns how many were removed. The
    /// [upkeep](Self::upkeep) also purges; this method is for programs that don't run the upkeep.
    ///
    /// # Errors
    ///
    /// Returns an error in the cases of [`sessions_of`](Self::sessions_of).
    pub async fn purge(&self, limit: usize) -> Result<usize, AuthError> {
        let sessions = self.require_sessions()?;
        Ok(sessions.upkeep.purge(&*sessions.store, self.config.now(), limit).await?)
    }

    fn require_sessions(&self) -> Result<&Sessions<U>, AuthError> {
        self.config.sessions.as_ref().ok_or(AuthError::NO_SESSIONS)
    }
}

impl<U: AuthUser> Config<U> {
    async fn list_sessions(
        &self,
        sessions: &Sessions<U>,
        user: &UserId,
        current: Option<&SessionRecord>,
    ) -> Result<Vec<SessionInfo>, AuthError> {
        let now = Timestamp::from_secs(self.now());
        let records = sessions.store.list(user, now, MAX_LISTED).await?;
        let is_current =
            |record: &SessionRecord| current.is_some_and(|current| current.key == record.key);
        let info = |record: Arc<SessionRecord>| {
            let is_current = is_current(&record);
            SessionInfo::new(record, is_current)
        };
        Ok(records.into_iter().map(info).collect())
    }

    async fn end_session(
        &self,
        sessions: &Sessions<U>,
        user: &UserId,
        public_id: &str,
    ) -> Result<bool, AuthError> {
        let now = Timestamp::from_secs(self.now());
        let records = sessions.store.list(user, now, MAX_LISTED).await?;
        let Some(record) = records.iter().find(|record| public_id_of(record) == public_id) else {
            return Ok(false);
        };
        let end = self.end_for(EndReason::Revoked);
        Ok(sessions.store.revoke(&[record.key], &end).await? > 0)
    }

    async fn end_all_sessions(
        &self,
        sessions: &Sessions<U>,
        user: &UserId,
        except: Option<&SessionRecord>,
    ) -> Result<(), AuthError> {
        let end = self.end_for(EndReason::Revoked);
        Ok(sessions.store.revoke_all(user, except.map(|record| &record.key), &end).await?)
    }
}
