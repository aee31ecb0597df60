//! The user's sessions, listed and ended.

use std::sync::Arc;

use tower_keep_core::{AuthUser, EndReason, SessionRecord, Timestamp, UserId};

use super::handle::Login;
use super::state::{Current, Identity};
use super::tracked;
use crate::layer::Config;
use crate::sessions::{SessionInfo, Sessions, handle_of};
use crate::{Fault, LoginLayer};

/// The most sessions that are listed, the last used first.
const MOST_LISTED: usize = 1_000;

impl<U: AuthUser> Login<U> {
    /// The sessions of the user who is logged in: this one first, then the last used; at most 1,000.
    /// Empty if nobody is logged in.
    ///
    /// # Errors
    ///
    /// As [`user`](Self::user); and [`NoSessions`](crate::FaultKind::NoSessions) if the layer keeps
    /// no session records.
    pub async fn sessions(&self) -> Result<Vec<SessionInfo>, Fault> {
        let (config, sessions) = (self.config(), self.records()?);
        let Some((user, current)) = self.whose().await? else { return Ok(Vec::new()) };
        let mut infos = config.list(sessions, &user, current.as_deref()).await?;
        infos.sort_by_key(|info| !info.is_current());
        // Others may have been used later, and more of them than are listed.
        if let Some(current) =
            current.filter(|_| infos.first().is_none_or(|info| !info.is_current()))
        {
            infos.insert(0, SessionInfo::new(current, true));
            infos.truncate(MOST_LISTED);
        }
        Ok(infos)
    }

    /// Ends the session with this [handle](SessionInfo::handle), if it is one of the user who is
    /// logged in; answers whether it was. If it is this request's own session, this logs out, as
    /// [`log_out`](Self::log_out) does.
    ///
    /// # Errors
    ///
    /// As [`sessions`](Self::sessions); nothing was ended, as far as is known.
    pub async fn end_session(&self, handle: &str) -> Result<bool, Fault> {
        let (config, sessions) = (self.config(), self.records()?);
        let Some((user, current)) = self.whose().await? else { return Ok(false) };
        if current.is_some_and(|current| handle_of(&current) == handle) {
            return Ok(self.log_out().await?.is_some());
        }
        config.end(sessions, &user, handle).await
    }

    /// Ends all sessions of the user who is logged in but this one: one write, however many there are.
    /// Does nothing if nobody is logged in.
    ///
    /// # Errors
    ///
    /// Returns an error in the cases of [`sessions`](Self::sessions). Then nothing has ended, as far as
    /// is known.
    pub async fn end_other_sessions(&self) -> Result<(), Fault> {
        let (config, sessions) = (self.config(), self.records()?);
        let Some((user, current)) = self.whose().await? else { return Ok(()) };
        config.end_all(sessions, &user, current.as_deref()).await
    }

    /// Ends all sessions of the user who is logged in, logs out, and returns who it was; `None` if
    /// nobody was logged in.
    ///
    /// # Errors
    ///
    /// Returns an error in the cases of [`sessions`](Self::sessions), and if the response's head is
    /// written.
    pub async fn end_all_sessions(&self) -> Result<Option<Arc<U>>, Fault> {
        tracked::end_all(self, self.records()?).await
    }

    fn records(&self) -> Result<&Sessions<U>, Fault> {
        self.config().sessions.as_ref().ok_or(Fault::NO_SESSIONS)
    }

    /// Who is logged in, and the record of this session.
    async fn whose(&self) -> Result<Option<(UserId, Option<Arc<SessionRecord>>)>, Fault> {
        let Some(user) = self.user().await? else { return Ok(None) };
        let state = self.state();
        let current = match (&state.identity, &state.current) {
            (Identity::Session { .. }, Current::Tracked(tracked)) => {
                Some(Arc::clone(&tracked.record))
            }
            _ => None,
        };
        Ok(Some((user.id(), current)))
    }
}

/// From outside of a request: for administrators, password resets, and tools.
impl<U: AuthUser> LoginLayer<U> {
    /// The sessions of this user, the last used first; at most 1,000.
    ///
    /// # Errors
    ///
    /// The store failed, or there are [no session records](crate::FaultKind::NoSessions).
    pub async fn sessions_of(&self, user: &UserId) -> Result<Vec<SessionInfo>, Fault> {
        self.config.list(self.records()?, user, None).await
    }

    /// Ends the session of this user with this [handle](SessionInfo::handle); answers whether there
    /// was one.
    ///
    /// # Errors
    ///
    /// As [`sessions_of`](Self::sessions_of).
    pub async fn end_session_of(&self, user: &UserId, handle: &str) -> Result<bool, Fault> {
        self.config.end(self.records()?, user, handle).await
    }

    /// Ends all sessions of this user, on every device, from the next request on: one write, however
    /// many there are.
    ///
    /// ```
    /// # use tower_keep::{Account, Fault, LoginLayer, UserId};
    /// async fn lock_out(auth: &LoginLayer<Account>, user: &UserId) -> Result<(), Fault> {
    ///     auth.end_all_sessions_of(user).await
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`sessions_of`](Self::sessions_of).
    pub async fn end_all_sessions_of(&self, user: &UserId) -> Result<(), Fault> {
        self.config.end_all(self.records()?, user, None).await
    }

    /// Writes when sessions were last used, all at once and behind the requests' backs, and purges
    /// what has expired. Spawn it once; it never ends, and uses tokio's timer.
    ///
    /// ```
    /// # use tower_keep::{Account, LoginLayer};
    /// # fn example(auth: &LoginLayer<Account>) {
    /// tokio::spawn(auth.upkeep());
    /// # }
    /// ```
    ///
    /// At most one note per session and touch interval; at most 65,536 wait, beyond which requests
    /// write their own. While the store fails, the notes wait. Without this future requests write
    /// their own too, which is correct, but slower. Without session records there is nothing to do.
    pub fn upkeep(&self) -> impl Future<Output = ()> + Send + use<U> {
        let config = Arc::clone(&self.config);
        async move {
            match &config.sessions {
                Some(sessions) => sessions.upkeep.drive(&*sessions.store, || config.now()).await,
                None => std::future::pending().await,
            }
        }
    }

    /// Writes the notes of use that wait: when the server shuts down, after the last request. End the
    /// [upkeep](Self::upkeep) before; what it was writing then waits again.
    ///
    /// ```
    /// # use tower_keep::{Account, Fault, LoginLayer};
    /// # async fn serve() {}
    /// async fn run(auth: LoginLayer<Account>) -> Result<(), Fault> {
    ///     let upkeep = tokio::spawn(auth.upkeep());
    ///     serve().await;
    ///     upkeep.abort();
    ///     let _ = upkeep.await; // it was aborted
    ///     auth.flush().await
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// The store failed; the notes wait on.
    pub async fn flush(&self) -> Result<(), Fault> {
        match &self.config.sessions {
            Some(sessions) => Ok(sessions.upkeep.flush(&*sessions.store).await?),
            None => Ok(()),
        }
    }

    /// Removes at most so many records that have expired, and answers how many it were. The
    /// [upkeep](Self::upkeep) does this by itself; it is here for tools without that.
    ///
    /// # Errors
    ///
    /// As [`sessions_of`](Self::sessions_of).
    pub async fn purge(&self, most: usize) -> Result<usize, Fault> {
        let sessions = self.records()?;
        Ok(sessions.upkeep.purge(&*sessions.store, self.config.now(), most).await?)
    }

    fn records(&self) -> Result<&Sessions<U>, Fault> {
        self.config.sessions.as_ref().ok_or(Fault::NO_SESSIONS)
    }
}

impl<U: AuthUser> Config<U> {
    async fn list(
        &self,
        sessions: &Sessions<U>,
        user: &UserId,
        current: Option<&SessionRecord>,
    ) -> Result<Vec<SessionInfo>, Fault> {
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
        handle: &str,
    ) -> Result<bool, Fault> {
        let now = Timestamp::from_secs(self.now());
        let records = sessions.store.list(user, now, MOST_LISTED).await?;
        let Some(record) = records.iter().find(|record| handle_of(record) == handle) else {
            return Ok(false);
        };
        let end = self.ending(EndReason::Ended);
        Ok(sessions.store.revoke(&[record.key], &end).await? > 0)
    }

    async fn end_all(
        &self,
        sessions: &Sessions<U>,
        user: &UserId,
        but: Option<&SessionRecord>,
    ) -> Result<(), Fault> {
        let end = self.ending(EndReason::Ended);
        Ok(sessions.store.revoke_all(user, but.map(|record| &record.key), &end).await?)
    }
}
