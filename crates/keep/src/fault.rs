//! What goes wrong: faults, and settings that don't agree.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use tower_keep_core::StoreError;

use crate::cookie::CookieError;

/// Something that should work did not, so it is not known who is logged in.
///
/// Never to be taken for "nobody": answer with [`response`](Self::response), as the guards and
/// extractors do. With the feature `axum` it is `IntoResponse`.
#[derive(Clone)]
pub struct Fault(Cause);

#[derive(Clone)]
enum Cause {
    Store(StoreError),
    Randomness(Arc<dyn Error + Send + Sync>),
    Busy,
    NoSessions,
    TooLate,
}

/// What kind of fault it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultKind {
    /// A store failed, or too many requests changed one session at once; a later request may
    /// succeed. Answered with 503 and `Retry-After`.
    Unavailable,
    /// The handle was used after its response's head was written, when no cookie can be set any
    /// more: a task kept it. A bug of the application, answered with 500.
    TooLate,
    /// The operating system has no random bytes. Answered with 500.
    Internal,
    /// The layer keeps no session records, and so can't list or end sessions. A bug of the
    /// application, answered with 500.
    NoSessions,
}

impl Fault {
    pub(crate) const TOO_LATE: Self = Self(Cause::TooLate);
    pub(crate) const BUSY: Self = Self(Cause::Busy);
    pub(crate) const NO_SESSIONS: Self = Self(Cause::NoSessions);

    pub(crate) fn no_randomness(error: getrandom::Error) -> Self {
        Self(Cause::Randomness(Arc::new(error)))
    }

    /// What kind of fault it was.
    pub fn kind(&self) -> FaultKind {
        match &self.0 {
            Cause::Store(_) | Cause::Busy => FaultKind::Unavailable,
            Cause::NoSessions => FaultKind::NoSessions,
            Cause::Randomness(_) => FaultKind::Internal,
            Cause::TooLate => FaultKind::TooLate,
        }
    }

    /// The store's error, if it was a store's.
    pub fn store(&self) -> Option<&StoreError> {
        match &self.0 {
            Cause::Store(error) => Some(error),
            _ => None,
        }
    }

    /// The status that answers it: 503, or 500.
    pub fn status(&self) -> StatusCode {
        match self.kind() {
            FaultKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The answer: the status, `Retry-After` where a later try may help, and a text that tells
    /// nothing of the inside.
    ///
    /// A debug build says in the body what is wrong with the application's own code.
    pub fn response(&self) -> Response<Bytes> {
        match self.kind() {
            FaultKind::Unavailable => retry_later(),
            FaultKind::TooLate | FaultKind::NoSessions => wrong_wiring(&self.to_string()),
            FaultKind::Internal => plain(self.status()),
        }
    }

    /// Writes an error line, unless it is a store's, which has one since it became a fault.
    pub(crate) fn log(&self) {
        if self.store().is_none() {
            tracing::error!(
                error = self as &dyn Error,
                "the login could not be looked up or changed"
            );
        }
    }
}

/// 500 for a bug of the application; a debug build says in the body what it is, as there may be no log
/// yet.
pub(crate) fn wrong_wiring(reason: &str) -> Response<Bytes> {
    let mut response = plain(StatusCode::INTERNAL_SERVER_ERROR);
    if cfg!(debug_assertions) {
        *response.body_mut() = Bytes::from(format!("tower-keep: {reason}\n"));
    }
    response
}

/// 503, and when to come again.
pub(crate) fn retry_later() -> Response<Bytes> {
    let mut response = plain(StatusCode::SERVICE_UNAVAILABLE);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// A response that says its own status in plain text.
pub(crate) fn plain(status: StatusCode) -> Response<Bytes> {
    let text = Bytes::from_static(status.canonical_reason().unwrap_or_default().as_bytes());
    let mut response = Response::new(text);
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

/// Writes the error line that names the store and the cause, so that no failure goes unheard,
/// whatever a handler makes of it.
impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        log_store_error(&error);
        Self(Cause::Store(error))
    }
}

pub(crate) fn log_store_error(error: &StoreError) {
    tracing::error!(
        store = error.store(),
        error = error as &dyn Error,
        "a store of users or sessions failed"
    );
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Cause::Store(error) => {
                write!(f, "the login could not be looked up or changed: {error}")
            }
            Cause::Randomness(_) => f.write_str("no random bytes for a login"),
            Cause::Busy => f.write_str("too many requests change one session at once"),
            Cause::NoSessions => f.write_str(
                "this layer keeps no session records: build it with `with_sessions` or \
                 `with_sessions_in`",
            ),
            Cause::TooLate => f.write_str(
                "the login was changed after its response had begun; await it in the handler",
            ),
        }
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fault").field("kind", &self.kind()).field("source", &self.source()).finish()
    }
}

impl Error for Fault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0 {
            Cause::Store(error) => Some(error),
            Cause::Randomness(error) => Some(&**error),
            Cause::Busy | Cause::NoSessions | Cause::TooLate => None,
        }
    }
}

/// Why a login did not come about. Nothing was changed.
///
/// With the feature `axum` it is `IntoResponse`.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogInError {
    /// The user is not active. Answered with 403.
    #[error("the user is not active")]
    Inactive,
    /// The user's id is so long that browsers would drop the cookie. Answered with 500.
    #[error(
        "the cookie would have {size} bytes, and browsers keep at most {limit}: shorten the user's id"
    )]
    CookieTooLarge {
        /// The length of the cookie's name and value, in bytes.
        size: usize,
        /// What browsers keep, in bytes.
        limit: usize,
    },
    /// The user has as many sessions as the layer allows. Answered with 409.
    #[error("the user has {most} sessions already, as many as are allowed")]
    TooManySessions {
        /// How many are allowed.
        most: usize,
    },
    /// A fault; see there.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl LogInError {
    /// The status that answers it.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Inactive => StatusCode::FORBIDDEN,
            Self::CookieTooLarge { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            Self::TooManySessions { .. } => StatusCode::CONFLICT,
            Self::Fault(fault) => fault.status(),
        }
    }

    /// The answer: the status, and a text that tells nothing of the inside.
    pub fn response(&self) -> Response<Bytes> {
        match self {
            Self::Fault(fault) => fault.response(),
            _ => plain(self.status()),
        }
    }
}

/// Why a layer or a guard could not be built. Each message names the mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the fields hold the settings that the messages quote")]
pub enum BuildError {
    /// A key has fewer than 32 bytes.
    #[error(
        "a key has {length} bytes and needs at least 32: make one with `openssl rand -base64 48`"
    )]
    KeyTooShort { length: usize },
    /// A key is one that stands in examples and templates.
    #[error("a key is a placeholder: make one with `openssl rand -base64 48`")]
    KeyIsPlaceholder,
    /// There are more than 8 keys.
    #[error("{count} keys are more than 8: drop the oldest ones")]
    TooManyKeys { count: usize },
    /// A cookie's settings don't agree.
    #[error(transparent)]
    Cookie(#[from] CookieError),
    /// Two cookies would overwrite each other.
    #[error("two cookies have the name {name:?}: give each its own")]
    SameCookieName { name: String },
    /// The area has characters that can't be in a cookie's name, or ends as another cookie's does.
    #[error(
        "the area {area:?} must be letters, digits, `-` and `_`, and not end in `remember` or `visit`"
    )]
    Area { area: String },
    /// A page is neither a path on this site nor a URL.
    #[error("the page {page:?} must be a path on this site (`/login`) or an http(s) URL")]
    Page { page: String },
    /// The home page, or the path of logout, is not a path on this site.
    #[error("the path {path:?} must be a path on this site, such as `/`")]
    Path { path: String },
    /// The field that carries `next` has no name.
    #[error("the field that carries `next` needs a name, such as `next`")]
    NextField,
    /// The public origin is more or less than an origin.
    #[error("the public origin {origin:?} must be scheme and host alone: `https://example.org`")]
    PublicOrigin { origin: String },
    /// A time limit is zero or longer than clocks in cookies reach.
    #[error("the {limit} must be at least one second and at most 68 years")]
    Limit { limit: &'static str },
    /// The text of a notice is too long for its cookie.
    #[error("the notice has {length} bytes, and its cookie holds 256: shorten it")]
    NoticeTooLong { length: usize },
    /// Nobody counts the sessions of a user.
    #[error("a session limit needs session records: add `with_sessions` or `with_sessions_in`")]
    LimitWithoutSessions,
    /// A limit of sessions is zero.
    #[error("a user needs at least one session: raise the limit")]
    SessionLimit,
    /// A network of trusted proxies is not an address or a CIDR range.
    #[error("the trusted proxy {network:?} must be an address or a range, such as `10.0.0.0/8`")]
    TrustedProxy { network: String },
}
