//! Listing and ending a user's sessions.

use std::sync::Arc;

use tower_keep_core::{AuthUser, EndReason, SessionRecord, Timestamp, UserId};

use super::handle::AuthSession;
use super::server_side;
use super::state::{BrowserLogin, Identity};
use crate::layer::Config;
use crate::sessions::{SessionInfo, Sessions, public_id_of};
use crate::{AuthError, LoginLayer};

/// The maximum number of sessions in a list. The most recently used ones come first.
const MOST_LISTED: usize = 1_000;

impl<U: AuthUser> AuthSession<U> {
    /// Returns the sessions of the user who is logged in: this one first, then the others, the most
    /// recently used first. Returns at most 1,000 sessions, and none if no user is logged in.
    ///
    /// # Errors
    ///
    /// Returns an error in the cases of [`user`](Self::user), and
    /// [`NoSessions`](crate::error::AuthErrorKind::NoSessions) if the layer keeps no server-side
    /// sessions.
    pub async fn sessions(&self) -> Result<Vec<SessionInfo>, AuthError> {
        let (config, sessions) = (self.config(), self.records()?);
        let Some((user, current)) = self.whose().await? else { return Ok(Vec::new()) };
        let mut infos = config.list(sessions, &user, current.as_deref()).await?;
        infos.sort_by_key(|info| !info.is_current());
        // The current session is not in the list if `MOST_LISTED` others were used more recently.
        if let Some(current) =
            current.filter(|_| infos.first().is_none_or(|info| !info.is_current()))
        {
            infos.insert(0, SessionInfo::new(current, true));
            infos.truncate(MOST_LISTED);
        }
        Ok(infos)
    }

    /// Ends the session with this [public id](SessionInfo::public_id), if it is a session of the
    /// user who is logged in. Returns whether it was. If it is this request's own session, this
    /// logs out, as [`log_out`](Self::log_out) does.
    ///
    /// # Errors
    ///
    /// Returns an error in the cases of [`sessions`](Self::sessions). Then nothing has ended, as
    /// far as is known.
    pub async fn end_session(&self, public_id: &str) -> Result<bool, AuthError> {
        let (config, sessions) = (self.config(), self.records()?);
        let Some((user, current)) = self.whose().await? else { return Ok(false) };
        if current.is_some_and(|current| public_id_of(&current) == public_id) {
            return Ok(self.log_out().await?.is_some());
        }
        config.end(sessions, &user, public_id).await
    }

    /// Ends all sessions of the user who is logged in, except this one. This is one write, however
    /// many sessions there are. Does nothing if no user is logged in.
    ///
    /// # Errors
    ///
    /// Returns an error in the cases of [`sessions`](Self::sessions). Then nothing has ended, as
    /// far as is known.
    pub async fn end_other_sessions(&self) -> Result<(), AuthError> {
        let (config, sessions) = (self.config(), self.records()?);
        let Some((user, current)) = self.whose().await? else { return Ok(()) };
        config.end_all(sessions, &user, current.as_deref()).await
    }

    /// Ends all sessions of the user who is logged in, logs out, and returns the user, or `None` if
    /// no user was logged in.
    ///
    /// # Errors
    ///
    /// Returns an error in the cases of [`sessions`](Self::sessions), and if the response's head
    /// has already been written.
    pub async fn end_all_sessions(&self) -> Result<Option<Arc<U>>, AuthError> {
        server_side::end_all(self, self.records()?).await
    }

    fn records(&self) -> Result<&Sessions<U>, AuthError> {
        self.config().sessions.as_ref().ok_or(AuthError::NO_SESSIONS)
    }

    /// Returns the id of the user who is logged in, and the record of this session.
    async fn whose(&self) -> Result<Option<(UserId, Option<Arc<SessionRecord>>)>, AuthError> {
        let Some(user) = self.user().await? else { return Ok(None) };
        let state = self.state();
        let current = match (&state.identity, &state.browser_login) {
            (Identity::Session { .. }, BrowserLogin::ServerSide(server_side)) => {
                Some(Arc::clone(&server_side.record))
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
        self.config.list(self.records()?, user, None).await
    }

    /// Ends the session of this user with this [public id](SessionInfo::public_id). Returns whether
    /// there was one.
    ///
    /// # Errors
    ///
    /// Returns an error in the cases of [`sessions_of`](Self::sessions_of).
    pub async fn end_session_of(&self, user: &UserId, public_id: &str) -> Result<bool, AuthError> {
        self.config.end(self.records()?, user, public_id).await
    }

    /// Ends all sessions of this user, on every device, from the next request on. This is one
    /// write, however many sessions there are.
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
        self.config.end_all(self.records()?, user, None).await
    }

    /// Returns a future that writes when sessions were last used, in batches and outside of the
    /// requests, and purges expired records. Spawn it once. It never completes, and it uses tokio's
    /// timer.
    ///
    /// ```
    /// # use tower_keep::{Account, LoginLayer};
    /// # fn example(auth_layer: &LoginLayer<Account>) {
    /// tokio::spawn(auth_layer.upkeep());
    /// # }
    /// ```
    ///
    /// Each use of a session leaves a note, at most one per session and touch interval. At most
    /// 65,536 notes wait to be written; beyond that, requests write their own notes. While the
    /// store fails, the notes wait. Without this future, requests write their own notes too, which
    /// is correct, but slower. Without server-side sessions this future has nothing to do.
    pub fn upkeep(&self) -> impl Future<Output = ()> + Send + use<U> {
        let config = Arc::clone(&self.config);
        async move {
            match &config.sessions {
                Some(sessions) => sessions.upkeep.drive(&*sessions.store, || config.now()).await,
                None => std::future::pending().await,
            }
        }
    }

    /// Writes the notes of use that wait. Call this when the server shuts down, after the last
    /// request. Abort the [upkeep](Self::upkeep) first: the notes that it was writing then wait
    /// again.
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
    /// Returns an error if the store fails. Then the notes continue to wait.
    pub async fn flush(&self) -> Result<(), AuthError> {
        match &self.config.sessions {
            Some(sessions) => Ok(sessions.upkeep.flush(&*sessions.store).await?),
            None => Ok(()),
        }
    }

    /// Removes at most `limit` expired records, and returns how many were removed. The
    /// [upkeep](Self::upkeep) does this by itself; this method is for tools that run without it.
    ///
    /// # Errors
    ///
    /// Returns an error in the cases of [`sessions_of`](Self::sessions_of).
    pub async fn purge(&self, limit: usize) -> Result<usize, AuthError> {
        let sessions = self.records()?;
        Ok(sessions.upkeep.purge(&*sessions.store, self.config.now(), limit).await?)
    }

    fn records(&self) -> Result<&Sessions<U>, AuthError> {
        self.config.sessions.as_ref().ok_or(AuthError::NO_SESSIONS)
    }
}

impl<U: AuthUser> Config<U> {
    async fn list(
        &self,
        sessions: &Sessions<U>,
        user: &UserId,
        current: Option<&SessionRecord>,
    ) -> Result<Vec<SessionInfo>, AuthError> {
        let now = Timestamp::from_secs(self.now());
        let records = sessions.store.list(user, now, MOST_LISTED).await?;
        let is_current =
            |record: &SessionRecord| current.is_some_and(|current| current.key == record.key);
        let info = |record: Arc<SessionRecord>| {
            let is_current = is_current(&record);
            SessionInfo::new(record, is_current)
        };
        Ok(records.into_iter().map(info).collect())
    }

    async fn end(
        &self,
        sessions: &Sessions<U>,
        user: &UserId,
        public_id: &str,
    ) -> Result<bool, AuthError> {
        let now = Timestamp::from_secs(self.now());
        let records = sessions.store.list(user, now, MOST_LISTED).await?;
        let Some(record) = records.iter().find(|record| public_id_of(record) == public_id) else {
            return Ok(false);
        };
        let end = self.ending(EndReason::Revoked);
        Ok(sessions.store.revoke(&[record.key], &end).await? > 0)
    }

    async fn end_all(
        &self,
        sessions: &Sessions<U>,
        user: &UserId,
        except: Option<&SessionRecord>,
    ) -> Result<(), AuthError> {
        let end = self.ending(EndReason::Revoked);
        Ok(sessions.store.revoke_all(user, except.map(|record| &record.key), &end).await?)
    }
}
