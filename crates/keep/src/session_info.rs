//! One of a user's sessions, as the application sees it. What was noted at the login is in
//! `session_details.rs`, which says how to add a fact.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use tower_keep_core::SessionRecord;

use crate::device::device_of;
use crate::session_details::Details;

/// One of a user's sessions, for a page that lists them.
///
/// ```
/// # use tower_keep::{Account, AuthError, AuthSession};
/// async fn devices(auth: AuthSession<Account>) -> Result<Vec<String>, AuthError> {
///     let sessions = auth.sessions().await?;
///     Ok(sessions.iter().map(|session| {
///         let here = if session.is_current() { " (this one)" } else { "" };
///         // A bearer token has the label that it was given.
///         let label = session.label().map(str::to_owned).filter(|_| session.is_bearer());
///         let name = label.unwrap_or_else(|| session.device());
///         format!("{name}{here}, end it with {}", session.public_id())
///     }).collect())
/// }
/// ```
#[derive(Clone)]
pub struct SessionInfo {
    record: Arc<SessionRecord>,
    details: Details,
    is_current: bool,
}

impl SessionInfo {
    pub(crate) fn new(record: Arc<SessionRecord>, is_current: bool) -> Self {
        let details = Details::read(&record.details);
        Self { record, details, is_current }
    }

    /// Returns the public id of this session for
    /// [`AuthSession::end_session`](crate::AuthSession::end_session): 22 characters, which are
    /// letters, digits, `-` and `_`.
    ///
    /// The public id has no other use. Nobody can derive the session's id or its key in the store
    /// from the public id, so a page may contain it.
    pub fn public_id(&self) -> String {
        public_id_of(&self.record)
    }

    /// Returns whether this is the session of the request that asked for the list.
    pub fn is_current(&self) -> bool {
        self.is_current
    }

    /// Returns a short description of the device, such as `Firefox on Linux`, by which people can
    /// recognize the device. This is a guess from the `User-Agent`. The text can come from the
    /// client: escape it for HTML.
    pub fn device(&self) -> String {
        device_of(self.user_agent().unwrap_or_default())
    }

    /// Returns the first 256 bytes of the `User-Agent` at the login, or `None` if the client sent
    /// none. The text comes from the client: escape it for HTML.
    pub fn user_agent(&self) -> Option<&str> {
        self.details.user_agent()
    }

    /// Returns the client's address at the login, or `None` if it was unknown.
    pub fn address(&self) -> Option<IpAddr> {
        self.details.address()
    }

    /// Returns when the user logged in.
    pub fn created(&self) -> SystemTime {
        self.record.created.into()
    }

    /// Returns when the session was last used, to the precision of the layer's touch interval.
    pub fn last_seen(&self) -> SystemTime {
        self.record.last_seen.into()
    }

    /// Returns when the session expires if it is not used again. A session that a bearer token
    /// carries expires at this time in any case.
    pub fn expires(&self) -> SystemTime {
        self.record.expires.into()
    }

    /// Returns whether the remember cookie can restore the session.
    pub fn is_remembered(&self) -> bool {
        self.record.remember.is_some()
    }

    /// Returns whether a bearer token carries the session, in place of cookies; see
    /// [`as_bearer`](crate::session::LoginBuilder::as_bearer).
    pub fn is_bearer(&self) -> bool {
        self.details.is_bearer()
    }

    /// Returns the text that was set at the login by
    /// [`with_label`](crate::session::BearerBuilder::with_label), or `None` if none was set. Escape
    /// it for HTML.
    pub fn label(&self) -> Option<&str> {
        self.details.label()
    }

    /// Returns the text that was set at the login by
    /// [`with_method`](crate::session::LoginBuilder::with_method), such as `password`, or `None` if
    /// none was set.
    pub fn method(&self) -> Option<&str> {
        self.details.method()
    }
}

/// Returns the public id of a session: a digest of its key in the store.
pub(crate) fn public_id_of(record: &SessionRecord) -> String {
    let mut digest = Sha256::new_with_prefix(b"tower-keep/1 handle");
    digest.update(record.key.as_bytes());
    URL_SAFE_NO_PAD.encode(&digest.finalize()[..16])
}

/// Shows the record and whether it is the current session.
impl fmt::Debug for SessionInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionInfo")
            .field("record", &self.record)
            .field("is_current", &self.is_current)
            .finish()
    }
}
