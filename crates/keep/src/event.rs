//! Events of logins, for audit logs, counters and the like.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use tower_keep_core::{AuthUser, EndReason, SessionRecord};

use crate::throttle::Throttled;

/// An event of a login. A name in parentheses is the corresponding signal of Flask-Login.
///
/// Add listeners with [`LoginLayerBuilder::with_listener`]. Listeners are called in the order in
/// which they were added, on the request's task, when the event occurs. They must not block: send
/// work that takes time to a channel. `tracing` logs the same events at debug level, without the
/// user.
///
/// [`LoginLayerBuilder::with_listener`]: crate::LoginLayerBuilder::with_listener
#[non_exhaustive]
pub enum Event<U> {
    /// A handler, a guard or an extractor has asked which user is logged in (`user_accessed`). This
    /// is raised once per request. It is raised again if the caller's future was dropped before it
    /// resolved, and another caller asks.
    Accessed,
    /// A user has logged in (`user_logged_in`).
    LoggedIn {
        /// The user.
        user: Arc<U>,
    },
    /// A user has logged out (`user_logged_out`). This is not raised if no user was logged in.
    LoggedOut {
        /// The user.
        user: Arc<U>,
    },
    /// The remember cookie has restored a user's login (`user_loaded_from_cookie`).
    Restored {
        /// The user.
        user: Arc<U>,
    },
    /// A request loader has found a user (`user_loaded_from_request`).
    LoadedFromRequest {
        /// The user.
        user: Arc<U>,
    },
    /// A user has proved again who they are (`user_login_confirmed`).
    Confirmed {
        /// The user.
        user: Arc<U>,
    },
    /// A guard or an extractor has rejected a request without a logged-in user
    /// (`user_unauthorized`).
    Unauthorized,
    /// A guard or an extractor has rejected a user whose login is not fresh enough
    /// (`user_needs_refresh`).
    NeedsRefresh {
        /// The user.
        user: Arc<U>,
    },
    /// A guard or an extractor has rejected a user who is logged in but not allowed.
    Forbidden {
        /// The user; `None` if a negated guard has rejected a request without a logged-in user.
        user: Option<Arc<U>>,
    },
    /// A password was wrong, or there is no user with the login name.
    LoginFailed {
        /// Who tried, and for whom.
        attempt: LoginAttempt<U>,
    },
    /// A password was not checked, because too many were tried.
    Throttled {
        /// Who tried, and for whom.
        attempt: LoginAttempt<U>,
        /// How long the client has to wait.
        throttled: Throttled,
    },
    /// A client other than the client that logged in has used the session (`session_protected`).
    SessionProtected,
    /// A session was ended for a reason that its user may not know: a [replay](EndReason::Replay),
    /// a [limit](EndReason::Limit), strong [protection](EndReason::Protection), a
    /// [deactivation](EndReason::Inactive). This is raised once.
    ///
    /// A replay means that a request sent a remember cookie that had been replaced earlier. An
    /// attacker may hold a copy of the cookie. It is also possible that the browser was set back to
    /// an earlier state, for example because its profile was restored from a backup.
    SessionEnded {
        /// The record as it was before the end.
        record: Arc<SessionRecord>,
        /// The reason.
        reason: EndReason,
    },
    /// A remember cookie has a valid signature, but its verifier differs from the verifier that the
    /// layer derives from the record's salt. The cookie counted as not sent. Either the author of
    /// the cookie has the key, or the store holds another record's salt.
    WrongVerifier {
        /// The record.
        record: Arc<SessionRecord>,
    },
    /// A remember cookie is of a later generation than its record: its login was restored more
    /// often than the record says. So the store has lost writes, because it was restored from a
    /// backup or failed over. The cookie counted as not sent.
    StoreRolledBack {
        /// The record.
        record: Arc<SessionRecord>,
    },
}

impl<U> Event<U> {
    /// Returns the event's name, in lower case with underscores, for logs and counters.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Accessed => "accessed",
            Self::LoggedIn { .. } => "logged_in",
            Self::LoggedOut { .. } => "logged_out",
            Self::Restored { .. } => "restored",
            Self::LoadedFromRequest { .. } => "loaded_from_request",
            Self::Confirmed { .. } => "confirmed",
            Self::Unauthorized => "unauthorized",
            Self::NeedsRefresh { .. } => "needs_refresh",
            Self::Forbidden { .. } => "forbidden",
            Self::LoginFailed { .. } => "login_failed",
            Self::Throttled { .. } => "throttled",
            Self::SessionProtected => "session_protected",
            Self::SessionEnded { .. } => "session_ended",
            Self::WrongVerifier { .. } => "wrong_verifier",
            Self::StoreRolledBack { .. } => "store_rolled_back",
        }
    }

    /// Returns the session record that the event is about, if there is one. The record names the
    /// user.
    pub fn record(&self) -> Option<&Arc<SessionRecord>> {
        match self {
            Self::SessionEnded { record, .. }
            | Self::WrongVerifier { record }
            | Self::StoreRolledBack { record } => Some(record),
            _ => None,
        }
    }

    /// Returns the user whom the event is about, if the user was loaded.
    pub fn user(&self) -> Option<&Arc<U>> {
        match self {
            Self::Accessed
            | Self::Unauthorized
            | Self::SessionProtected
            | Self::SessionEnded { .. }
            | Self::WrongVerifier { .. }
            | Self::StoreRolledBack { .. } => None,
            Self::LoggedIn { user }
            | Self::LoggedOut { user }
            | Self::Restored { user }
            | Self::LoadedFromRequest { user }
            | Self::Confirmed { user }
            | Self::NeedsRefresh { user } => Some(user),
            Self::Forbidden { user } => user.as_ref(),
            Self::LoginFailed { attempt } | Self::Throttled { attempt, .. } => {
                attempt.user.as_ref()
            }
        }
    }
}

/// An attempt to log in with a password, or to confirm a login with it.
///
/// It has nothing that the client has typed: a user may type the password into the field of the
/// name.
#[non_exhaustive]
pub struct LoginAttempt<U> {
    /// The user whose password was tried; `None` if there is no user with the login name, or if it
    /// was not looked up, because the client must wait.
    pub user: Option<Arc<U>>,
    /// The client's address, if it is known.
    pub client_addr: Option<IpAddr>,
    /// A keyed digest of the login name, in hexadecimal, which shows whether two attempts were for
    /// the same name. Upper and lower case make no difference. `None` for a confirmation.
    pub name_digest: Option<String>,
}

impl<U> LoginAttempt<U> {
    #[cfg(feature = "password")]
    pub(crate) fn new(client_addr: Option<IpAddr>, name_digest: Option<String>) -> Self {
        Self { user: None, client_addr, name_digest }
    }
}

/// Shows the user's id.
impl<U: AuthUser> fmt::Debug for LoginAttempt<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginAttempt")
            .field("user", &self.user.as_ref().map(|user| user.id()))
            .field("client_addr", &self.client_addr)
            .field("name_digest", &self.name_digest)
            .finish()
    }
}

/// Shows the name, the user's id and the record.
impl<U: AuthUser> fmt::Debug for Event<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("name", &self.name())
            .field("user", &self.user().map(|user| user.id()))
            .field("record", &self.record())
            .finish()
    }
}

/// A closure that is called with every event.
pub(crate) type Listener<U> = Arc<dyn Fn(&Event<U>) + Send + Sync>;
