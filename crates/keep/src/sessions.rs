//! Server-side sessions, as a layer uses them and as an application sees them.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use tower_keep_core::{LoginStore, SessionLimit, SessionRecord};

use crate::details::Details;
use crate::device::device_of;
use crate::flash::Flash;
use crate::upkeep::Upkeep;

/// The configuration of a layer that keeps server-side sessions.
pub(crate) struct Sessions<U> {
    pub(crate) store: Arc<dyn LoginStore<User = U>>,
    pub(crate) limit: Option<SessionLimit>,
    /// The flash message for a user at the next login after a replay.
    pub(crate) replay_flash: Option<Flash>,
    pub(crate) upkeep: Upkeep,
}

/// One of a user's sessions, for a page that lists them.
///
/// ```
/// # use tower_keep::{Account, AuthError, AuthSession};
/// async fn devices(auth: AuthSession<Account>) -> Result<Vec<String>, AuthError> {
///     let sessions = auth.sessions().await?;
///     Ok(sessions.iter().map(|session| {
///         let here = if session.is_current() { " (this one)" } else { "" };
///         format!("{}{here}, end it with {}", session.device(), session.public_id())
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
    /// [`AuthSession::end_session`](crate::AuthSession::end_session). It has 22 letters, digits,
    /// `-` and `_`.
    ///
    /// It can end a session of the user who is logged in, and has no other use. It is neither the
    /// session's id nor its key in the store, and reveals neither of them.
    pub fn public_id(&self) -> String {
        public_id_of(&self.record)
    }

    /// Returns whether this is the session of the request.
    pub fn is_current(&self) -> bool {
        self.is_current
    }

    /// Returns the device in a few words, such as `Firefox on Linux`. This is a guess from the
    /// `User-Agent`, by which people can recognize the device. The text can come from the client:
    /// escape it for HTML.
    pub fn device(&self) -> String {
        device_of(self.user_agent().unwrap_or_default())
    }

    /// Returns the start of the device's `User-Agent` at the login, at most 256 bytes, or `None` if
    /// it sent none. It comes from the client: escape it for HTML.
    pub fn user_agent(&self) -> Option<&str> {
        self.details.user_agent()
    }

    /// Returns the device's address at the login, if it was known.
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

    /// Returns when the session expires if it is not used again.
    pub fn expires(&self) -> SystemTime {
        self.record.expires.into()
    }

    /// Returns whether the remember cookie can restore the session.
    pub fn is_remembered(&self) -> bool {
        self.record.remember.is_some()
    }

    /// Returns how the user has proved who they are, as set [at the
    /// login](crate::session::LoginBuilder::with_method), or `None` if nothing was set.
    pub fn method(&self) -> Option<&str> {
        self.details.method()
    }
}

/// Returns the public id of a session's record, as applications see it.
pub(crate) fn public_id_of(record: &SessionRecord) -> String {
    let mut digest = Sha256::new_with_prefix(b"tower-keep/1 handle");
    digest.update(record.key.as_bytes());
    URL_SAFE_NO_PAD.encode(&digest.finalize()[..16])
}

/// Shows what the record's `Debug` shows.
impl fmt::Debug for SessionInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionInfo")
            .field("record", &self.record)
            .field("is_current", &self.is_current)
            .finish()
    }
}
