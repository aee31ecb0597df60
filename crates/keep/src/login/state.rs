//! What is known about a request's login so far, and what is to be written.

use std::sync::Arc;

use http::HeaderValue;
use tower_keep_core::{SessionKey, SessionRecord};

use crate::AuthError;
use crate::cookie::{FlashCookie, Origin, RememberTerms, SessionId};

/// Who is logged in.
pub(crate) enum Identity<U> {
    Anonymous,
    /// The user of the session.
    Session {
        user: Arc<U>,
        /// When they last proved who they are, in seconds since 1970; `None` if the login is not
        /// fresh.
        fresh_since: Option<u32>,
        /// `false` for an inactive user whose login was forced.
        active: bool,
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
            Self::Session { user, active: true, .. } | Self::Loader { user } => Some(user),
            Self::Session { active: false, .. } | Self::Anonymous => None,
        }
    }

    /// Returns when the user last proved who they are; `None` if the login isn't fresh.
    pub(crate) fn fresh_since(&self) -> Option<u32> {
        match self {
            Self::Session { fresh_since, .. } => *fresh_since,
            Self::Loader { .. } | Self::Anonymous => None,
        }
    }

    pub(crate) fn is_anonymous(&self) -> bool {
        matches!(self, Self::Anonymous)
    }
}

/// The login of this browser, as its cookies describe it now or after this response. It holds what
/// is needed to reissue the cookies.
#[derive(Default)]
pub(super) enum BrowserLogin {
    #[default]
    Nothing,
    Stateless {
        origin: Origin,
        is_remembered: bool,
        remember: Option<Box<RememberTerms>>,
    },
    ServerSide(ServerSide),
}

/// A server-side session, and what the browser holds of it.
#[derive(Clone)]
pub(super) struct ServerSide {
    pub(super) id: SessionId,
    pub(super) origin: Origin,
    pub(super) record: Arc<SessionRecord>,
    /// The generation that the browser has shown in this request; `None` for a login that began in
    /// this request.
    pub(super) shown: Option<u32>,
    /// Whether the login has set a remember cookie.
    pub(super) is_remembered: bool,
    /// Whether the browser holds that remember cookie, or gets it with this response.
    pub(super) holds_remember: bool,
}

/// What happens to a cookie. Most cookies stay as they are, so the new value is boxed, which keeps
/// the state small.
#[derive(Default)]
pub(super) enum Change<T> {
    #[default]
    Keep,
    Set(Box<T>),
    Clear,
}

impl<T> Change<T> {
    pub(super) fn set(contents: T) -> Self {
        Self::Set(Box::new(contents))
    }

    pub(super) fn clear_if(is_cleared: bool) -> Self {
        if is_cleared { Self::Clear } else { Self::Keep }
    }

    /// Sets the cookie, or keeps it as it is if the new contents could not be issued.
    pub(super) fn set_if(contents: Option<T>) -> Self {
        contents.map_or(Self::Keep, Self::set)
    }
}

pub(super) struct State<U> {
    pub(super) identity: Identity<U>,
    pub(super) browser_login: BrowserLogin,
    /// The `Set-Cookie` value of the session cookie.
    pub(super) session: Change<HeaderValue>,
    /// The `Set-Cookie` value of the remember cookie.
    pub(super) remember: Change<HeaderValue>,
    pub(super) flash: Change<FlashCookie>,
    /// After this time, in seconds since 1970, the login's cookies are no longer written: a slow
    /// response must not replace newer cookies with older ones. `None` if they always are.
    pub(super) cookies_until: Option<u32>,
    /// The session of a login in this request whose cookies have not been written yet.
    pub(super) unsent_session: Option<SessionKey>,
    /// Whether the request loaders were asked, so that the response depends on what they read.
    pub(super) asked_loaders: bool,
    /// Whether the handler has logged a user in or out. What is resolved later no longer counts.
    pub(super) decided: bool,
    /// Whether the response's head is written, or there is no response: no cookie can be set any
    /// more.
    pub(super) is_head_written: bool,
    /// How far the login is resolved.
    pub(super) progress: Progress,
    /// Whether a caller waits for that.
    pub(super) is_awaited: bool,
}

impl<U> State<U> {
    pub(super) fn new() -> Self {
        Self {
            identity: Identity::Anonymous,
            browser_login: BrowserLogin::Nothing,
            session: Change::Keep,
            remember: Change::Keep,
            flash: Change::Keep,
            cookies_until: None,
            unsent_session: None,
            asked_loaders: false,
            decided: false,
            is_head_written: false,
            progress: Progress::NotStarted,
            is_awaited: false,
        }
    }

    /// Whether it is unknown who is logged in, because of an error, and the handler has not logged
    /// a user in or out since.
    pub(super) fn is_unknown(&self) -> bool {
        !self.decided && matches!(self.progress, Progress::Done(Err(_)))
    }

    /// Applies what was resolved, unless the handler has logged a user in or out before.
    pub(super) fn settle(&mut self, resolved: Resolved<U>) {
        self.asked_loaders |= resolved.asked_loaders;
        if !self.decided {
            self.identity = resolved.identity;
            self.decide_cookies(resolved.cookies);
        }
    }

    /// Applies a login or logout by the handler.
    pub(super) fn decide(&mut self, identity: Identity<U>, cookies: Cookies) {
        self.identity = identity;
        self.decide_cookies(cookies);
        self.decided = true;
    }

    pub(super) fn decide_cookies(&mut self, cookies: Cookies) {
        self.browser_login = cookies.browser_login;
        self.session = cookies.session;
        self.remember = cookies.remember;
        self.cookies_until = cookies.until;
    }
}

/// What was resolved for a request.
pub(super) struct Resolved<U> {
    pub(super) identity: Identity<U>,
    pub(super) cookies: Cookies,
    pub(super) asked_loaders: bool,
}

/// What happens to the login's cookies.
pub(super) struct Cookies {
    pub(super) browser_login: BrowserLogin,
    pub(super) session: Change<HeaderValue>,
    pub(super) remember: Change<HeaderValue>,
    pub(super) until: Option<u32>,
}

impl Cookies {
    /// Returns what a logout does: it clears both cookies.
    pub(super) fn cleared() -> Self {
        Self {
            browser_login: BrowserLogin::Nothing,
            session: Change::Clear,
            remember: Change::Clear,
            until: None,
        }
    }
}

/// How far the login is resolved.
pub(super) enum Progress {
    NotStarted,
    Running,
    Done(Result<(), AuthError>),
}
