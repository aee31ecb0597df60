//! The reason why a request is rejected.

use std::time::Duration;

use http::StatusCode;

use crate::problem::Problem;

/// The reason why a guard has rejected a request. It is in the extensions of the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rejection {
    /// No user is logged in.
    Unauthenticated,
    /// The login is not fresh, or the user has proved too long ago who they are.
    NotFresh {
        /// How long ago the user may have proved who they are; `None` if it is enough that the
        /// login is fresh.
        max_age: Option<Duration>,
    },
    /// The user is not allowed in.
    Forbidden,
}

impl Rejection {
    /// Returns the status to send if there is no page to redirect to: 401 or 403.
    pub fn status(self) -> StatusCode {
        self.problem().status
    }

    pub(crate) fn problem(self) -> Problem {
        match self {
            Self::Unauthenticated => Problem::LOGIN_REQUIRED,
            Self::NotFresh { max_age } => {
                let max_age = max_age.map(|age| age.as_secs());
                Problem { max_age, ..Problem::LOGIN_NOT_FRESH }
            }
            Self::Forbidden => Problem::FORBIDDEN,
        }
    }

    /// Of the rejections of two requirements that must both hold, returns the one to report. So no
    /// user is asked to confirm the login for a page that the user may not see anyway. Of two ages,
    /// the shorter one counts.
    pub(super) fn of_all(self, other: Self) -> Self {
        match (self, other) {
            (Self::Unauthenticated, _) | (_, Self::Unauthenticated) => Self::Unauthenticated,
            (Self::Forbidden, _) | (_, Self::Forbidden) => Self::Forbidden,
            (Self::NotFresh { max_age: a }, Self::NotFresh { max_age: b }) => {
                Self::NotFresh { max_age: a.into_iter().chain(b).min() }
            }
        }
    }

    /// Of the rejections of two requirements of which one must hold, returns the one to report: the
    /// one that is the easiest for the user to resolve. Of two ages, the longer one counts.
    pub(super) fn of_any(self, other: Self) -> Self {
        match (self, other) {
            (Self::NotFresh { max_age: a }, Self::NotFresh { max_age: b }) => {
                Self::NotFresh { max_age: a.zip(b).map(|(a, b)| a.max(b)) }
            }
            (not_fresh @ Self::NotFresh { .. }, _) | (_, not_fresh @ Self::NotFresh { .. }) => {
                not_fresh
            }
            (Self::Unauthenticated, _) | (_, Self::Unauthenticated) => Self::Unauthenticated,
            (Self::Forbidden, Self::Forbidden) => Self::Forbidden,
        }
    }
}
