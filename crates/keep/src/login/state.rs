//! What is known of a request's login so far, and what is to be written.

use std::sync::Arc;

use crate::Fault;
use crate::cookie::{Remember, Session, Visit};

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

    pub(super) fn as_set(&self) -> Option<&T> {
        match self {
            Self::Set(value) => Some(value),
            Self::Keep | Self::Clear => None,
        }
    }
}

pub(super) struct State<U> {
    pub(super) identity: Identity<U>,
    pub(super) session: Change<Session>,
    pub(super) remember: Change<Remember>,
    pub(super) visit: Change<Visit>,
    /// There is a genuine remember cookie of this user, presented or about to be set.
    pub(super) remembered: bool,
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
    /// A fault has kept it from being known who this is, and the handler has not settled it.
    pub(super) fn is_unknown(&self) -> bool {
        !self.decided && matches!(self.progress, Progress::Known(Err(_)))
    }
}

/// How far finding out who it is has come.
pub(super) enum Progress {
    Unasked,
    Asked,
    Known(Result<(), Fault>),
}

impl<U> State<U> {
    pub(super) fn new() -> Self {
        Self {
            identity: Identity::Anonymous,
            session: Change::Keep,
            remember: Change::Keep,
            visit: Change::Keep,
            remembered: false,
            asked_loaders: false,
            decided: false,
            sealed: false,
            progress: Progress::Unasked,
            is_awaited: false,
        }
    }
}
