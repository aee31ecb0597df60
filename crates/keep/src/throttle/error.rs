//! The response to a use that a limit refuses.

use std::time::Duration;

use http::{Response, StatusCode};
use tower_keep_core::StoreError;

use crate::error::log_store_error;
use crate::error_body::{ErrorBody, preliminary_response};
use crate::problem::Problem;
use crate::wait::in_words;

/// Something was done too often. The response is 429 with `Retry-After` (RFC 6585 §4).
///
/// With the feature `axum`, this type implements `IntoResponse`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{limit}: done too often, and allowed again in {} seconds", retry_after.as_secs())]
#[non_exhaustive]
pub struct Throttled {
    /// How long to wait, in whole seconds, and at least one.
    pub retry_after: Duration,
    /// The name of the limit that makes the client wait the longest.
    pub limit: &'static str,
}

/// The reason why a use of a limit was not taken.
///
/// With the feature `axum`, this type implements `IntoResponse`: a handler can return it, and the
/// layer gives the response the form that the client reads.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LimitError {
    /// The limit refuses the use. The response is 429 with `Retry-After`.
    #[error(transparent)]
    Throttled(Throttled),
    /// Too many new counters were begun in this second. The response is 503 with `Retry-After`.
    #[error(
        "too many new counters were begun in this second: a flood, or else raise \
         `with_max_new_counters`"
    )]
    Busy,
    /// The store of the counters failed. The response is 503 with `Retry-After`.
    #[error(transparent)]
    Store(StoreError),
}

/// Logs the error with the store and the cause.
impl From<StoreError> for LimitError {
    fn from(error: StoreError) -> Self {
        log_store_error(&error);
        Self::Store(error)
    }
}

impl From<Throttled> for LimitError {
    fn from(throttled: Throttled) -> Self {
        Self::Throttled(throttled)
    }
}

impl Throttled {
    pub(crate) fn new(limit: &'static str, seconds: u32) -> Self {
        Self { retry_after: Duration::from_secs(seconds.max(1).into()), limit }
    }

    /// Returns how long to wait in words, rounded up, such as `30 seconds` or `2 hours`.
    pub fn wait(&self) -> String {
        in_words(self.retry_after.as_secs())
    }

    /// Returns the status of the response: 429.
    pub fn status(&self) -> StatusCode {
        self.problem().status
    }

    /// Returns the response, as [`AuthError::response`](crate::AuthError::response) does. It does
    /// not say which limit it was.
    pub fn response(&self) -> Response<ErrorBody> {
        preliminary_response(self.problem())
    }

    pub(crate) fn problem(&self) -> Problem {
        Problem { retry_after: Some(self.retry_after.as_secs()), ..Problem::THROTTLED }
    }
}

impl LimitError {
    /// Returns the status of the response: 429 or 503.
    pub fn status(&self) -> StatusCode {
        self.problem().status
    }

    /// Returns the response, as [`AuthError::response`](crate::AuthError::response) does.
    pub fn response(&self) -> Response<ErrorBody> {
        preliminary_response(self.problem())
    }

    /// Logs this error, unless the client has caused it, or `From<StoreError>` has logged it.
    #[cfg(any(feature = "axum", feature = "tonic"))]
    pub(crate) fn log(&self) {
        match self {
            Self::Throttled(_) | Self::Store(_) => {}
            Self::Busy => tracing::error!(error = self as &dyn std::error::Error, "a limit"),
        }
    }

    pub(crate) fn problem(&self) -> Problem {
        match self {
            Self::Throttled(throttled) => throttled.problem(),
            Self::Busy | Self::Store(_) => Problem::UNAVAILABLE,
        }
    }
}
