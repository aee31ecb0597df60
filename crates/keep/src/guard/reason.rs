//! The reason why a request is rejected.

use http::StatusCode;

/// The reason why a guard has rejected a request. It is in the extensions of the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rejection {
    /// No user is logged in.
    Unauthenticated,
    /// The login is not fresh enough.
    NotFresh,
    /// The user is not allowed in.
    Forbidden,
}

impl Rejection {
    /// Returns the status to send if there is no page to redirect to: 401 or 403.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Unauthenticated | Self::NotFresh => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
        }
    }

    /// Returns the rank of this rejection if all of several requirements must hold: the rejection
    /// with the highest rank is reported. So no user is asked to confirm the login for a page that
    /// the user may not see anyway.
    pub(super) fn rank_in_all(self) -> u8 {
        match self {
            Self::Unauthenticated => 2,
            Self::Forbidden => 1,
            Self::NotFresh => 0,
        }
    }

    /// Returns the rank of this rejection if one of several requirements must hold: the rejection
    /// with the lowest rank is reported, which is the easiest for the user to resolve.
    pub(super) fn rank_in_any(self) -> u8 {
        match self {
            Self::NotFresh => 0,
            Self::Unauthenticated => 1,
            Self::Forbidden => 2,
        }
    }
}
