//! The state of a request's login: what is known so far, and the changes of the cookies that the
//! response will write.

use std::sync::Arc;

use http::HeaderValue;
use tower_keep_core::{CounterKey, SessionKey, SessionRecord, UserId};

use super::server_side::cookies::SessionId;
use super::shared_rules::LoggedIn;
use super::stateless::remember_cookie::RememberTerms;
use crate::cookie::flash::FlashCookie;
use crate::cookie::login_origin::LoginOrigin;
use crate::error::AuthError;
use crate::throttle::limiter::Limiter;

/// The user who is logged in, and how the user was identified.
pub(crate) enum Identity<U> {
    Anonymous,
    /// The user of the session.
    Session {
        user: Arc<U>,
        /// When the user last proved who they are, in seconds since 1970; `None` if the login is
        /// not fresh.
        fresh_since: Option<u32>,
        /// `false` for an inactive user whose login was forced.
        is_active: bool,
    },
    /// A user whom a request loader has found, for this request only.
    Loader {
        user: Arc<U>,
    },
}

impl<U> Identity<U> {
    /// Returns the user who counts as logged in.
    pub(crate) fn user(&self) -> Option<&Arc<U>> {
        match self {
            Self::Session { user, is_active: true, .. } | Self::Loader { user } => Some(user),
            Self::Session { is_active: false, .. } | Self::Anonymous => None,
        }
    }

    /// Returns when the user last proved who they are, or `None` if the login is not fresh.
    pub(crate) fn fresh_since(&self) -> Option<u32> {
        match self {
            Self::Session { fresh_since, .. } => *fresh_since,
            Self::Loader { .. } | Self::Anonymous => None,
        }
    }

    /// Returns the identity after the cookies were resolved. `user` is the user of the session or,
    /// if the cookies log in nobody and the loaders were asked, the user whom a loader has found.
    pub(super) fn resolved(logged_in: LoggedIn, user: Option<Arc<U>>, asked_loaders: bool) -> Self {
        match (logged_in, user) {
            (LoggedIn::User { fresh_since, is_active }, Some(user)) => {
                Self::Session { user, fresh_since, is_active }
            }
            (LoggedIn::Nobody, Some(user)) if asked_loaders => Self::Loader { user },
            _ => Self::Anonymous,
        }
    }

    pub(crate) fn is_anonymous(&self) -> bool {
        matches!(self, Self::Anonymous)
    }
}

/// The login of this browser after this response, with what is needed to reissue its cookies.
#[derive(Default)]
pub(super) enum BrowserLogin {
    /// The cookies hold no valid login.
    #[default]
    Nothing,
    Stateless {
        login_origin: LoginOrigin,
        /// Whether the login has set a remember cookie.
        is_remembered: bool,
        /// When the last of the login's cookies expires, if the browser sends no other request.
        expires: u32,
        /// The terms of the remember cookie that the browser has sent or gets with this response.
        remember: Option<Box<RememberTerms>>,
    },
    ServerSide(BrowserSession),
    /// A bearer token carries the session.
    Bearer(Arc<SessionRecord>),
}

impl BrowserLogin {
    /// Returns the record of the server-side session, if there is one.
    pub(super) fn record(&self) -> Option<&Arc<SessionRecord>> {
        match self {
            Self::ServerSide(browser_session) => Some(&browser_session.record),
            Self::Bearer(record) => Some(record),
            Self::Nothing | Self::Stateless { .. } => None,
        }
    }
}

/// A server-side session, and which of its cookies the browser holds.
#[derive(Clone)]
pub(super) struct BrowserSession {
    pub(super) id: SessionId,
    pub(super) login_origin: LoginOrigin,
    pub(super) record: Arc<SessionRecord>,
    /// The generation of the cookies that the request sent; `None` for a login that began in this
    /// request.
    pub(super) sent_generation: Option<u32>,
    /// Whether the login has set a remember cookie.
    pub(super) is_remembered: bool,
    /// Whether the browser holds a remember cookie of this session, or gets one with this response.
    pub(super) holds_remember: bool,
}

/// What the response does to a cookie. The new value is boxed, which keeps the state small: most
/// responses set no cookie.
#[derive(Default)]
pub(super) enum CookieChange<T> {
    /// The response does not mention the cookie, so the browser keeps it.
    #[default]
    Keep,
    Set(Box<T>),
    Clear,
}

impl<T> CookieChange<T> {
    pub(super) fn set(contents: T) -> Self {
        Self::Set(Box::new(contents))
    }

    pub(super) fn clear_if(is_cleared: bool) -> Self {
        if is_cleared { Self::Clear } else { Self::Keep }
    }

    /// Sets the cookie, or keeps it if there are no contents, because they could not be written as
    /// a header.
    pub(super) fn set_or_keep(contents: Option<T>) -> Self {
        contents.map_or(Self::Keep, Self::set)
    }
}

/// A password that was right. When the user is logged in or confirmed, the counters of earlier
/// wrong passwords are reset, and the browser becomes a known device.
pub(crate) struct CheckedPassword {
    pub(crate) user: UserId,
    pub(crate) limiter: Limiter,
    /// The counters to reset; none if no password was wrong before.
    pub(crate) reset: Vec<CounterKey>,
}

pub(super) struct State<U> {
    pub(super) identity: Identity<U>,
    pub(super) browser_login: BrowserLogin,
    /// The `Set-Cookie` value of the session cookie.
    pub(super) session_cookie: CookieChange<HeaderValue>,
    /// The `Set-Cookie` value of the remember cookie.
    pub(super) remember_cookie: CookieChange<HeaderValue>,
    pub(super) flash_cookie: CookieChange<FlashCookie>,
    /// The `Set-Cookie` value of the device cookie.
    pub(super) device_cookie: CookieChange<HeaderValue>,
    /// What this request has proved about a user, until the login is completed.
    pub(super) checked: Option<Box<CheckedPassword>>,
    /// After this time, in seconds since 1970, the response no longer writes the session cookie and
    /// the remember cookie: a slow response must not replace newer cookies in the browser. `None`
    /// if it always writes them.
    pub(super) write_until: Option<u32>,
    /// The sessions of logins in this request whose cookies or tokens have not been written yet.
    pub(super) unsent_sessions: Vec<SessionKey>,
    /// Whether this request has issued a bearer token, so that the response may contain one.
    pub(super) has_issued_bearer: bool,
    /// Whether the request loaders were asked. If they were, the response depends on the headers
    /// that they read.
    pub(super) asked_loaders: bool,
    /// Whether the handler has logged a user in or out. A result of resolving the cookies that
    /// arrives later is ignored.
    pub(super) is_decided: bool,
    /// Whether no cookie can be set any more: the response's head is written, or there is no
    /// response.
    pub(super) is_head_written: bool,
    pub(super) progress: Progress,
    /// Whether a caller waits for `progress` to change.
    pub(super) is_awaited: bool,
}

impl<U> State<U> {
    pub(super) fn new() -> Self {
        Self {
            identity: Identity::Anonymous,
            browser_login: BrowserLogin::Nothing,
            session_cookie: CookieChange::Keep,
            remember_cookie: CookieChange::Keep,
            flash_cookie: CookieChange::Keep,
            device_cookie: CookieChange::Keep,
            checked: None,
            write_until: None,
            unsent_sessions: Vec::new(),
            has_issued_bearer: false,
            asked_loaders: false,
            is_decided: false,
            is_head_written: false,
            progress: Progress::NotStarted,
            is_awaited: false,
        }
    }

    /// Whether it is unknown which user is logged in: resolving the login has failed, and the
    /// handler has not logged a user in or out.
    pub(super) fn is_unknown(&self) -> bool {
        !self.is_decided && matches!(self.progress, Progress::Done(Err(_)))
    }

    /// Applies the result of resolving the cookies, unless the handler has logged a user in or out.
    pub(super) fn apply_resolved(&mut self, resolved: Resolved<U>) {
        self.asked_loaders |= resolved.asked_loaders;
        if !self.is_decided {
            self.identity = resolved.identity;
            self.apply_cookies(resolved.cookies);
        }
    }

    /// Applies a login or logout that the handler has decided on.
    pub(super) fn apply_decision(&mut self, identity: Identity<U>, cookies: CookieDecision) {
        self.identity = identity;
        self.apply_cookies(cookies);
        self.is_decided = true;
    }

    pub(super) fn apply_cookies(&mut self, cookies: CookieDecision) {
        self.browser_login = cookies.browser_login;
        self.session_cookie = cookies.session_cookie;
        self.remember_cookie = cookies.remember_cookie;
        self.write_until = cookies.write_until;
    }
}

/// The result of resolving the cookies of a request.
pub(super) struct Resolved<U> {
    pub(super) identity: Identity<U>,
    pub(super) cookies: CookieDecision,
    pub(super) asked_loaders: bool,
}

/// What the response does to the session cookie and the remember cookie.
pub(super) struct CookieDecision {
    pub(super) browser_login: BrowserLogin,
    pub(super) session_cookie: CookieChange<HeaderValue>,
    pub(super) remember_cookie: CookieChange<HeaderValue>,
    pub(super) write_until: Option<u32>,
}

impl CookieDecision {
    /// Returns the decision that clears these cookies, and keeps the others.
    pub(super) fn clear(session: bool, remember: bool, write_until: Option<u32>) -> Self {
        Self {
            browser_login: BrowserLogin::Nothing,
            session_cookie: CookieChange::clear_if(session),
            remember_cookie: CookieChange::clear_if(remember),
            write_until,
        }
    }

    /// Returns the decision of a logout.
    pub(super) fn clear_both() -> Self {
        Self::clear(true, true, None)
    }
}

/// Whether the login was resolved.
pub(super) enum Progress {
    NotStarted,
    Running,
    Done(Result<(), AuthError>),
}
