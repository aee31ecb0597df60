//! The work for server-side sessions that is done outside of the requests.

use std::sync::Arc;

use tower_keep_core::AuthUser;

use super::LoginLayer;
use crate::error::AuthError;

impl<U: AuthUser> LoginLayer<U> {
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
}
