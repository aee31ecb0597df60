//! What happened to a login, for audit logs, counters and the like.

use std::fmt;
use std::sync::Arc;

use tower_keep_core::{AuthUser, EndReason, SessionRecord};

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
    /// A session was ended for a reason that its user may not know: a
    /// [replay](EndReason::Replay), a [limit](EndReason::Limit), strong
    /// [protection](EndReason::Protection), a [deactivation](EndReason::Inactive). Raised once.
    ///
    /// After a replay somebody may hold a copy of the cookie; the browser may also have been set back
    /// to an earlier state, by restoring its profile from a backup, say.
    SessionEnded {
        /// The record, as it was before.
        record: Arc<SessionRecord>,
        /// Why.
        reason: EndReason,
    },
    /// A remember cookie with a genuine seal does not fit its record. It counted as absent. Whoever
    /// made it has the key, or the store holds another record's salt.
    WrongVerifier {
        /// The record.
        record: Arc<SessionRecord>,
    },
    /// A remember cookie is ahead of its record, so the store has been set back: to a backup, or by a
    /// fail-over that lost writes. It counted as absent.
    StoreRolledBack {
        /// The record.
        record: Arc<SessionRecord>,
    },
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
            Self::SessionEnded { .. } => "session_ended",
            Self::WrongVerifier { .. } => "wrong_verifier",
            Self::StoreRolledBack { .. } => "store_rolled_back",
        }
    }

    /// The record that it is about, where there is one; it names the user.
    pub fn record(&self) -> Option<&Arc<SessionRecord>> {
        match self {
            Self::SessionEnded { record, .. }
            | Self::WrongVerifier { record }
            | Self::StoreRolledBack { record } => Some(record),
            _ => None,
        }
    }

    /// The user whom it is about, where the user is at hand.
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
        }
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

/// Called with every event.
pub(crate) type Listener<U> = Arc<dyn Fn(&Event<U>) + Send + Sync>;
