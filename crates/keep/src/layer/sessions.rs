//! A user's sessions outside of a request.

use tower_keep_core::{AuthUser, UserId};

use super::LoginLayer;
use crate::error::AuthError;
use crate::session_info::SessionInfo;
use crate::sessions::Sessions;

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

    pub(super) fn require_sessions(&self) -> Result<&Sessions<U>, AuthError> {
        self.config.sessions.as_ref().ok_or(AuthError::NO_SESSIONS)
    }
}
