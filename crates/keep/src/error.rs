//! Errors: errors at run time, and errors in the settings of a layer or a guard.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use http::{Response, StatusCode};
use tower_keep_core::StoreError;

use crate::cookie::settings::CookieError;
use crate::error_body::preliminary_response;
use crate::problem::Problem;

pub use crate::error_body::ErrorBody;
pub use crate::response::ErrorContext;

/// The reason why a call of [`AuthSession`](crate::AuthSession) failed. If a store has failed, it
/// is not known which user is logged in.
///
/// Never treat this error as "no user is logged in". Respond with [`response`](Self::response), as
/// the guards and extractors do. With the feature `axum`, this type implements `IntoResponse`: a
/// handler can return it, and the layer gives the response the form that the client reads.
#[derive(Clone)]
pub struct AuthError(Cause);

#[derive(Clone)]
enum Cause {
    Store(StoreError),
    Randomness(Arc<dyn Error + Send + Sync>),
    Busy,
    NoSessions,
    TooLate,
    ForeignOrigin,
    CookieLoginWithBearer,
    BearerDisabled,
}

/// The kind of an [`AuthError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AuthErrorKind {
    /// A store failed, or too many requests changed one session at the same time. A later request
    /// may succeed. The response is 503 with `Retry-After`.
    Unavailable,
    /// A task kept the handle and used it after the head of the response was written. From then on,
    /// no cookie can be set. This is a bug in the application. The response is 500.
    TooLate,
    /// The operating system has no random bytes. The response is 500.
    Internal,
    /// The layer has no server-side sessions, so it can't list or end sessions. This is a bug in
    /// the application. The response is 500.
    NoSessions,
    /// A page of another site has opened a WebSocket, and the browser has sent the cookies of this
    /// site along. The cookies log nobody in. The response is 403. List the sites that may do this
    /// with [`with_allowed_origins`](crate::LoginLayerBuilder::with_allowed_origins).
    ForeignOrigin,
    /// The request has a bearer token, and the handler has tried to log a user in with cookies. The
    /// response is 400.
    CookieLoginWithBearer,
    /// The layer does not accept bearer tokens. This is a bug in the application. The response is
    /// 500.
    BearerDisabled,
}

impl AuthError {
    pub(crate) const COOKIE_LOGIN_WITH_BEARER: Self = Self(Cause::CookieLoginWithBearer);
    pub(crate) const BEARER_DISABLED: Self = Self(Cause::BearerDisabled);
    pub(crate) const TOO_LATE: Self = Self(Cause::TooLate);
    pub(crate) const FOREIGN_ORIGIN: Self = Self(Cause::ForeignOrigin);
    pub(crate) const BUSY: Self = Self(Cause::Busy);
    pub(crate) const NO_SESSIONS: Self = Self(Cause::NoSessions);

    pub(crate) fn no_randomness(error: getrandom::Error) -> Self {
        Self(Cause::Randomness(Arc::new(error)))
    }

    /// Returns the kind of this error.
    pub fn kind(&self) -> AuthErrorKind {
        match &self.0 {
            Cause::Store(_) | Cause::Busy => AuthErrorKind::Unavailable,
            Cause::NoSessions => AuthErrorKind::NoSessions,
            Cause::Randomness(_) => AuthErrorKind::Internal,
            Cause::TooLate => AuthErrorKind::TooLate,
            Cause::ForeignOrigin => AuthErrorKind::ForeignOrigin,
            Cause::CookieLoginWithBearer => AuthErrorKind::CookieLoginWithBearer,
            Cause::BearerDisabled => AuthErrorKind::BearerDisabled,
        }
    }

    /// Returns the store's error if a store failed.
    pub fn store(&self) -> Option<&StoreError> {
        match &self.0 {
            Cause::Store(error) => Some(error),
            _ => None,
        }
    }

    /// Returns the status of the response, such as 503.
    pub fn status(&self) -> StatusCode {
        self.problem().status
    }

    /// Returns the response: the status, `Retry-After` if a later try may succeed, and a text that
    /// reveals no internals. The layer gives it the form that the client reads, such as a page.
    ///
    /// In a debug build, the text says what is wrong if the error is a bug in the application.
    ///
    /// With axum, return the error itself. Without a framework, the [crate's
    /// docs](crate#how-it-works) show a handler.
    pub fn response(&self) -> Response<ErrorBody> {
        preliminary_response(self.problem())
    }

    pub(crate) fn problem(&self) -> Problem {
        match self.kind() {
            AuthErrorKind::Unavailable => Problem::UNAVAILABLE,
            AuthErrorKind::ForeignOrigin => Problem::FOREIGN_ORIGIN,
            AuthErrorKind::Internal => Problem::INTERNAL,
            AuthErrorKind::CookieLoginWithBearer => Problem::COOKIE_LOGIN_WITH_BEARER,
            AuthErrorKind::TooLate | AuthErrorKind::NoSessions | AuthErrorKind::BearerDisabled => {
                Problem::bug(&self.to_string())
            }
        }
    }

    /// Logs this error, unless a store failed: `From<StoreError>` has logged a store's error
    /// already. An error that the client has caused is not logged.
    pub(crate) fn log(&self) {
        let is_of_client = matches!(
            self.kind(),
            AuthErrorKind::ForeignOrigin | AuthErrorKind::CookieLoginWithBearer
        );
        if self.store().is_none() && !is_of_client {
            tracing::error!(
                error = self as &dyn Error,
                "the login could not be looked up or changed"
            );
        }
    }
}

/// Logs the error with the store and the cause. So every failure is in the log, even if a handler
/// ignores the error.
impl From<StoreError> for AuthError {
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

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Cause::Store(error) => {
                write!(f, "the login could not be looked up or changed: {error}")
            }
            Cause::Randomness(_) => f.write_str("the operating system returned no random bytes"),
            Cause::Busy => {
                f.write_str("too many requests change one session at once: try again later")
            }
            Cause::NoSessions => f.write_str(
                "this layer has no server-side sessions: build it with `with_sessions` or \
                 `with_sessions_in`",
            ),
            Cause::TooLate => f.write_str(
                "the login was changed after the head of the response was written: await the \
                 change in the handler",
            ),
            Cause::CookieLoginWithBearer => f.write_str(
                "the request has a bearer token, so it can't set cookies: log in without the \
                 token, or with `as_bearer`",
            ),
            Cause::BearerDisabled => f.write_str(
                "this layer has no bearer tokens: build it with `with_bearer_sessions(true)`",
            ),
            Cause::ForeignOrigin => f.write_str(
                "a page of another site has opened this connection: if it may use the logins of \
                 this site, list its origin with `with_allowed_origins`",
            ),
        }
    }
}

impl fmt::Debug for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthError")
            .field("kind", &self.kind())
            .field("source", &self.source())
            .finish()
    }
}

impl Error for AuthError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0 {
            Cause::Store(error) => Some(error),
            Cause::Randomness(error) => Some(&**error),
            Cause::Busy
            | Cause::NoSessions
            | Cause::TooLate
            | Cause::ForeignOrigin
            | Cause::CookieLoginWithBearer
            | Cause::BearerDisabled => None,
        }
    }
}

/// The reason why a login failed. Nothing was changed.
///
/// With the feature `axum`, this type implements `IntoResponse`: a handler can return it, and the
/// layer gives the response the form that the client reads.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoginError {
    /// The user is not active. The response is 403.
    #[error("the user is not active")]
    Inactive,
    /// The user's id is so long that browsers would drop the cookie. The response is 500.
    #[error(
        "the cookie would have {size} bytes, and browsers keep at most {limit}: shorten the user's \
         id"
    )]
    CookieTooLarge {
        /// The length of the cookie's name and value, in bytes.
        size: usize,
        /// The greatest length of a cookie that browsers keep, in bytes.
        limit: usize,
    },
    /// The user has as many sessions as the layer allows. The response is 409.
    #[error("the user already has {max} sessions, and no more are allowed: end a session first")]
    TooManySessions {
        /// How many sessions are allowed.
        max: usize,
    },
    /// The login could not be looked up or changed; see [`AuthError`].
    #[error(transparent)]
    Auth(#[from] AuthError),
}

impl LoginError {
    /// Returns the status of the response.
    pub fn status(&self) -> StatusCode {
        self.problem().status
    }

    /// Returns the response, as [`AuthError::response`] does.
    pub fn response(&self) -> Response<ErrorBody> {
        preliminary_response(self.problem())
    }

    /// Logs this error: as a failure, unless it is the client's.
    #[cfg(any(feature = "axum", feature = "tonic"))]
    pub(crate) fn log(&self) {
        match self {
            Self::Auth(error) => error.log(),
            Self::CookieTooLarge { .. } => {
                tracing::error!(error = self as &dyn Error, "a login failed");
            }
            Self::Inactive | Self::TooManySessions { .. } => {
                tracing::debug!(error = self as &dyn Error, "a login failed");
            }
        }
    }

    pub(crate) fn problem(&self) -> Problem {
        match self {
            Self::Inactive => Problem::USER_INACTIVE,
            Self::CookieTooLarge { .. } => Problem::INTERNAL,
            Self::TooManySessions { .. } => Problem::TOO_MANY_SESSIONS,
            Self::Auth(error) => error.problem(),
        }
    }
}

/// The reason why a layer or a guard could not be built. Each message says how to fix it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the fields hold the settings that the messages quote")]
pub enum BuildError {
    /// A key has fewer than 32 bytes.
    #[error(
        "a key has {length} bytes and needs at least 32: make one with `openssl rand -base64 48`"
    )]
    KeyTooShort { length: usize },
    /// A key is a placeholder from examples and templates.
    #[error("a key is a placeholder: make one with `openssl rand -base64 48`")]
    KeyIsPlaceholder,
    /// There are more than 8 keys.
    #[error("{count} keys are too many, at most 8 are allowed: remove the oldest ones")]
    TooManyKeys { count: usize },
    /// A cookie's settings don't agree.
    #[error(transparent)]
    Cookie(#[from] CookieError),
    /// Two cookies would overwrite each other.
    #[error("two cookies have the name {name:?}: give each cookie its own name")]
    SameCookieName { name: String },
    /// The area contains characters that a cookie's name can't contain, or ends with a suffix that
    /// the name of another cookie of the layer has.
    #[error(
        "the area {area:?} must be letters, digits, `-` and `_`, and must not end in `remember`, \
         `flash` or `device`"
    )]
    Area { area: String },
    /// A page is neither a path on this site nor a URL.
    #[error(
        "the page {page:?} must be a path on this site, such as `/login`, or an http or https URL"
    )]
    Page { page: String },
    /// The home page, or the path of logout, is not a path on this site.
    #[error("the path {path:?} must be a path on this site, such as `/`")]
    Path { path: String },
    /// The field that carries `next` has no name.
    #[error("the field that carries `next` needs a name, such as `next`")]
    NextField,
    /// The public origin is not just a scheme and a host.
    #[error(
        "the public origin {origin:?} must be only a scheme and a host, such as \
         `https://example.org`"
    )]
    PublicOrigin { origin: String },
    /// The realm has characters that are not printable ASCII.
    #[error("the realm {realm:?} must be printable ASCII, such as `members`")]
    Realm { realm: String },
    /// An allowed origin is not just a scheme and a host.
    #[error(
        "the allowed origin {origin:?} must be only a scheme and a host, such as \
         `https://example.org`"
    )]
    AllowedOrigin { origin: String },
    /// A time limit is zero, or longer than the timestamps in cookies allow.
    #[error("the {limit} must be at least one second and at most 68 years")]
    Limit { limit: &'static str },
    /// The text of a flash message is too long for its cookie.
    #[error(
        "the flash message has {length} bytes, but at most 256 fit into its cookie: shorten it"
    )]
    FlashTooLong { length: usize },
    /// There is a session limit, but no server-side sessions to count.
    #[error(
        "a session limit needs server-side sessions: call `with_sessions` or `with_sessions_in`"
    )]
    SessionLimitWithoutSessions,
    /// There are bearer tokens, but no server-side sessions for them to carry.
    #[error("bearer tokens need server-side sessions: call `with_sessions` or `with_sessions_in`")]
    BearerWithoutSessions,
    /// The session limit is zero.
    #[error("a user needs at least one session: raise the limit")]
    SessionLimit,
    /// A trusted proxy is neither an address nor a CIDR range.
    #[error("the trusted proxy {network:?} must be an address or a range, such as `10.0.0.0/8`")]
    TrustedProxy { network: String },
}
