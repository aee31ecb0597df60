//! What happened to a login, for audit logs, counters and the like.

use std::fmt;
use std::sync::Arc;

use tower_keep_core::AuthUser;

/// What happened to a login; Flask-Login's signals.
///
/// Listeners are added with [`LoginLayerBuilder::add_listener`] and called in that order, on the
/// task of the request, right when it happens. They must not block; send what takes time into a
/// channel. `tracing` says the same at debug level, without the user.
///
/// [`LoginLayerBuilder::add_listener`]: crate::LoginLayerBuilder::add_listener
#[non_exhaustive]
pub enum Event<U> {
    /// A request has asked who is logged in (`user_accessed`): once, unless who asked was dropped
    /// before the answer came and another asked again.
    Accessed,
    /// Somebody has logged in (`user_logged_in`).
    LoggedIn {
        /// Who.
        user: Arc<U>,
    },
    /// Somebody has logged out (`user_logged_out`). Not raised when nobody was logged in.
    LoggedOut {
        /// Who.
        user: Arc<U>,
    },
    /// The remember cookie has brought somebody back (`user_loaded_from_cookie`).
    Restored {
        /// Who.
        user: Arc<U>,
    },
    /// A request loader has found somebody (`user_loaded_from_request`).
    LoadedFromRequest {
        /// Who.
        user: Arc<U>,
    },
    /// Somebody has proved again who they are (`user_login_confirmed`).
    Confirmed {
        /// Who.
        user: Arc<U>,
    },
    /// A guard has turned away somebody who isn't logged in (`user_unauthorized`).
    Unauthorized,
    /// A guard has turned away somebody whose login isn't fresh enough (`user_needs_refresh`).
    NeedsRefresh {
        /// Who.
        user: Arc<U>,
    },
    /// A guard has turned away somebody who is logged in but not allowed in.
    Forbidden {
        /// Who; nobody, where a guard demands that nobody is logged in.
        user: Option<Arc<U>>,
    },
    /// A session came from another client than the one that logged in (`session_protected`).
    SessionProtected,
}

impl<U> Event<U> {
    /// The event's name, in lower case with underscores: a word for logs and counters.
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
            Self::SessionProtected => "session_protected",
        }
    }

    /// The user whom it is about, where there is one.
    pub fn user(&self) -> Option<&Arc<U>> {
        match self {
            Self::Accessed | Self::Unauthorized | Self::SessionProtected => None,
            Self::LoggedIn { user }
            | Self::LoggedOut { user }
            | Self::Restored { user }
            | Self::LoadedFromRequest { user }
            | Self::Confirmed { user }
            | Self::NeedsRefresh { user } => Some(user),
            Self::Forbidden { user } => user.as_ref(),
        }
    }
}

/// Shows the name and the user's id.
impl<U: AuthUser> fmt::Debug for Event<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("name", &self.name())
            .field("user", &self.user().map(|user| user.id()))
            .finish()
    }
}

/// Called with every event.
pub(crate) type Listener<U> = Arc<dyn Fn(&Event<U>) + Send + Sync>;
