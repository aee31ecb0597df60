//! What is known of a request's login so far, and what is to be written.

use std::sync::Arc;

use http::HeaderValue;
use tower_keep_core::{SessionKey, SessionRecord};

use crate::Fault;
use crate::cookie::{RememberTerms, SessionId, Visit};

/// Who it is.
pub(crate) enum Identity<U> {
    Anonymous,
    /// The user of the session.
    Session {
        user: Arc<U>,
        /// When they last proved who they are, in seconds since 1970; 0 for one who was restored.
        fresh: u32,
        /// False for an inactive user whose login was forced.
        active: bool,
    },
    /// A user whom a request loader has found, for this request.
    Loader {
        user: Arc<U>,
    },
}

impl<U> Identity<U> {
    /// The user who counts as logged in.
    pub(crate) fn user(&self) -> Option<&Arc<U>> {
        match self {
            Self::Session { user, active: true, .. } | Self::Loader { user } => Some(user),
            Self::Session { active: false, .. } | Self::Anonymous => None,
        }
    }

    /// When the user last proved who they are; `None` if the login isn't fresh.
    pub(crate) fn fresh_since(&self) -> Option<u32> {
        match self {
            Self::Session { fresh, .. } if *fresh > 0 => Some(*fresh),
            _ => None,
        }
    }

    pub(crate) fn is_anonymous(&self) -> bool {
        matches!(self, Self::Anonymous)
    }
}

/// The login of this browser, as its cookies say or are about to: what it takes to make them out
/// anew.
#[derive(Default)]
pub(super) enum Current {
    #[default]
    Nothing,
    Stateless {
        flags: u8,
        remember: Option<Box<RememberTerms>>,
    },
    Tracked(Tracked),
}

/// A session with a record, and what the browser holds of it.
#[derive(Clone)]
pub(super) struct Tracked {
    pub(super) id: SessionId,
    pub(super) flags: u8,
    pub(super) record: Arc<SessionRecord>,
    /// The generation that the browser has shown in this request; none of a login in this request.
    pub(super) shown: Option<u32>,
    /// The browser holds the remember cookie, or gets it with this response.
    pub(super) is_remembered: bool,
}

/// What becomes of a cookie. Most keep as they are, so what is set is boxed and the state small.
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

    /// What could not be made out stays as it is.
    pub(super) fn set_if(contents: Option<T>) -> Self {
        contents.map_or(Self::Keep, Self::set)
    }
}

pub(super) struct State<U> {
    pub(super) identity: Identity<U>,
    pub(super) current: Current,
    /// The `Set-Cookie` of the session.
    pub(super) session: Change<HeaderValue>,
    /// The `Set-Cookie` of the remember cookie.
    pub(super) remember: Change<HeaderValue>,
    pub(super) visit: Change<Visit>,
    /// After this moment, in seconds since 1970, the login's cookies no longer go out: a slow response
    /// must not put old ones in the place of newer ones.
    pub(super) cookies_until: u32,
    /// The session of a login in this request whose cookies have not gone out yet.
    pub(super) begun: Option<SessionKey>,
    /// The request loaders were asked, so the response depends on what they read.
    pub(super) asked_loaders: bool,
    /// The handler has logged somebody in or out; what is resolved later no longer counts.
    pub(super) decided: bool,
    /// The response's head is written; no cookie can follow.
    pub(super) sealed: bool,
    /// How far finding out who it is has come.
    pub(super) progress: Progress,
    /// Somebody waits for that.
    pub(super) is_awaited: bool,
}

impl<U> State<U> {
    pub(super) fn new() -> Self {
        Self {
            identity: Identity::Anonymous,
            current: Current::Nothing,
            session: Change::Keep,
            remember: Change::Keep,
            visit: Change::Keep,
            cookies_until: u32::MAX,
            begun: None,
            asked_loaders: false,
            decided: false,
            sealed: false,
            progress: Progress::Unasked,
            is_awaited: false,
        }
    }

    /// A fault has kept it from being known who this is, and the handler has not settled it.
    pub(super) fn is_unknown(&self) -> bool {
        !self.decided && matches!(self.progress, Progress::Known(Err(_)))
    }

    /// What a request has come to, unless the handler was quicker.
    pub(super) fn settle(&mut self, resolved: Resolved<U>) {
        self.asked_loaders |= resolved.asked_loaders;
        if !self.decided {
            self.identity = resolved.identity;
            self.decide_cookies(resolved.cookies);
        }
    }

    /// Somebody has logged in, or out.
    pub(super) fn decide(&mut self, identity: Identity<U>, cookies: Cookies) {
        self.identity = identity;
        self.decide_cookies(cookies);
        self.decided = true;
    }

    pub(super) fn decide_cookies(&mut self, cookies: Cookies) {
        self.current = cookies.current;
        self.session = cookies.session;
        self.remember = cookies.remember;
        self.cookies_until = cookies.until;
    }
}

/// What a request has come to.
pub(super) struct Resolved<U> {
    pub(super) identity: Identity<U>,
    pub(super) cookies: Cookies,
    pub(super) asked_loaders: bool,
}

/// What becomes of the login's cookies.
pub(super) struct Cookies {
    pub(super) current: Current,
    pub(super) session: Change<HeaderValue>,
    pub(super) remember: Change<HeaderValue>,
    pub(super) until: u32,
}

impl Cookies {
    /// Of a logout.
    pub(super) fn cleared() -> Self {
        Self {
            current: Current::Nothing,
            session: Change::Clear,
            remember: Change::Clear,
            until: u32::MAX,
        }
    }
}

/// How far finding out who it is has come.
pub(super) enum Progress {
    Unasked,
    Asked,
    Known(Result<(), Fault>),
}
