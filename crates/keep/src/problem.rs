//! The types of problems: why a request was rejected, or has failed.
//!
//! Clients of the kinds [`Stream`](crate::client::ClientKind::Stream) and
//! [`Other`](crate::client::ClientKind::Other), which include the `fetch` of a page's script, get a
//! problem as `application/problem+json` (RFC 9457). Each constant is the `type` of a problem, a
//! URI that stays the same.
//!
//! ```json
//! {
//!   "type": "https://docs.rs/tower-keep/latest/tower_keep/problem/constant.LOGIN_NOT_FRESH.html",
//!   "title": "Confirm that it is you (re-authenticate), then try again.",
//!   "status": 401,
//!   "max_age": 600
//! }
//! ```
//!
//! `max_age` is only in [`LOGIN_NOT_FRESH`], if the route says how old a login may be. `detail`
//! says more, and only debug builds send it.
//!
//! Clients of gRPC get the `type` as the metadata `problem-type`, `max_age` as `problem-max-age`,
//! and `retry_after` as `retry-after`. So they can tell apart problems that have the same status.

use http::StatusCode;

macro_rules! problem_types {
    ($($(#[doc = $doc:literal])* $name:ident)*) => {$(
        $(#[doc = $doc])*
        pub const $name: &str = concat!(
            "https://docs.rs/tower-keep/latest/tower_keep/problem/constant.",
            stringify!($name),
            ".html",
        );
    )*};
}

problem_types! {
    /// No user is logged in. The status is 401; for gRPC, 16 (`UNAUTHENTICATED`).
    LOGIN_REQUIRED
    /// The user must prove again who they are: the login is not fresh, or not fresh enough. The
    /// status is 401; for gRPC, 16 (`UNAUTHENTICATED`).
    ///
    /// The member `max_age` says how many seconds ago the user may have proved it.
    LOGIN_NOT_FRESH
    /// The user is not allowed to do this. The status is 403; for gRPC, 7 (`PERMISSION_DENIED`).
    FORBIDDEN
    /// A page of another site has opened the connection, and the browser has sent the cookies of
    /// this site along. The status is 403; for gRPC, 7 (`PERMISSION_DENIED`).
    FOREIGN_ORIGIN
    /// The request has a bearer token of this server, and a login with cookies was requested. The
    /// status is 400; for gRPC, 3 (`INVALID_ARGUMENT`).
    COOKIE_LOGIN_WITH_BEARER
    /// The user may not log in, because the user is not active. The status is 403; of gRPC, 7
    /// (`PERMISSION_DENIED`).
    USER_INACTIVE
    /// The user has as many sessions as are allowed. The status is 409; of gRPC, 8
    /// (`RESOURCE_EXHAUSTED`).
    TOO_MANY_SESSIONS
    /// The password can't be a new password: it is too short, too long, or too common. The status
    /// is 422; for gRPC, 3 (`INVALID_ARGUMENT`).
    PASSWORD_REJECTED
    /// This was done too often. The status is 429, with `Retry-After`; for gRPC, 8
    /// (`RESOURCE_EXHAUSTED`).
    ///
    /// The member `retry_after` says after how many seconds it is allowed again.
    THROTTLED
    /// A store has failed, or the server is overloaded. A later request may succeed. The
    /// status is 503, with `Retry-After`; for gRPC, 14 (`UNAVAILABLE`).
    UNAVAILABLE
    /// The server is not set up correctly, or has failed. The status is 500; of gRPC, 13
    /// (`INTERNAL`).
    INTERNAL
}

/// What a response says about a rejected or failed request, whatever its form.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(crate) uri: &'static str,
    pub(crate) status: StatusCode,
    /// The status of gRPC.
    pub(crate) grpc_status: u8,
    /// A sentence for people.
    pub(crate) title: &'static str,
    /// The cause, for developers.
    pub(crate) detail: Option<String>,
    /// How many seconds ago the user may have proved who they are.
    pub(crate) max_age: Option<u64>,
    /// After how many seconds a request may succeed.
    pub(crate) retry_after: Option<u64>,
}

impl Problem {
    pub(crate) const LOGIN_REQUIRED: Self =
        Self::new(LOGIN_REQUIRED, StatusCode::UNAUTHORIZED, 16, "Log in, then try again.");
    pub(crate) const LOGIN_NOT_FRESH: Self = Self::new(
        LOGIN_NOT_FRESH,
        StatusCode::UNAUTHORIZED,
        16,
        "Confirm that it is you (re-authenticate), then try again.",
    );
    pub(crate) const FORBIDDEN: Self =
        Self::new(FORBIDDEN, StatusCode::FORBIDDEN, 7, "You are not allowed to do this.");
    pub(crate) const FOREIGN_ORIGIN: Self = Self::new(
        FOREIGN_ORIGIN,
        StatusCode::FORBIDDEN,
        7,
        "A page of another site has opened this connection.",
    );
    pub(crate) const COOKIE_LOGIN_WITH_BEARER: Self = Self::new(
        COOKIE_LOGIN_WITH_BEARER,
        StatusCode::BAD_REQUEST,
        3,
        "Send this request without a bearer token.",
    );
    pub(crate) const USER_INACTIVE: Self =
        Self::new(USER_INACTIVE, StatusCode::FORBIDDEN, 7, "This account is not active.");
    pub(crate) const TOO_MANY_SESSIONS: Self = Self::new(
        TOO_MANY_SESSIONS,
        StatusCode::CONFLICT,
        8,
        "You are logged in on too many devices. Log out on one of them, then try again.",
    );
    #[cfg(feature = "password")]
    pub(crate) const PASSWORD_REJECTED: Self = Self::new(
        PASSWORD_REJECTED,
        StatusCode::UNPROCESSABLE_ENTITY,
        3,
        "Choose another password.",
    );
    pub(crate) const THROTTLED: Self =
        Self::new(THROTTLED, StatusCode::TOO_MANY_REQUESTS, 8, "This was done too often.");
    pub(crate) const UNAVAILABLE: Self = Self::new(
        UNAVAILABLE,
        StatusCode::SERVICE_UNAVAILABLE,
        14,
        "This can't be done at the moment. Try again soon.",
    );
    pub(crate) const INTERNAL: Self =
        Self::new(INTERNAL, StatusCode::INTERNAL_SERVER_ERROR, 13, "The server has failed.");

    const fn new(
        uri: &'static str,
        status: StatusCode,
        grpc_status: u8,
        title: &'static str,
    ) -> Self {
        let retry_after = if status.as_u16() == 503 { Some(1) } else { None };
        Self { uri, status, grpc_status, title, detail: None, max_age: None, retry_after }
    }

    /// Returns the problem of a bug in the application. A debug build says what is wrong, because
    /// the application may have no log yet.
    pub(crate) fn bug(reason: &str) -> Self {
        let detail = cfg!(debug_assertions).then(|| format!("tower-keep: {reason}"));
        Self { detail, ..Self::INTERNAL }
    }
}
