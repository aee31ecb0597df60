//! Session records, as a layer uses them and as an application sees them.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use tower_keep_core::{LoginStore, SessionLimit, SessionRecord};

use crate::device::device_of;
use crate::notice::Notice;
use crate::upkeep::Upkeep;

/// What a layer with session records has settled.
pub(crate) struct Sessions<U> {
    pub(crate) store: Arc<dyn LoginStore<User = U>>,
    pub(crate) limit: Option<SessionLimit>,
    /// What a user is told at the next login after a replay.
    pub(crate) replay_notice: Option<Notice>,
    pub(crate) upkeep: Upkeep,
}

/// One of a user's sessions, for a page that lists them.
///
/// ```
/// # use tower_keep::{Account, Fault, Login};
/// async fn devices(login: Login<Account>) -> Result<Vec<String>, Fault> {
///     let sessions = login.sessions().await?;
///     Ok(sessions.iter().map(|session| {
///         let here = if session.is_current() { " (this one)" } else { "" };
///         format!("{}{here}, end it with {}", session.device(), session.handle())
///     }).collect())
/// }
/// ```
#[derive(Clone)]
pub struct SessionInfo {
    record: Arc<SessionRecord>,
    is_current: bool,
}

impl SessionInfo {
    pub(crate) fn new(record: Arc<SessionRecord>, is_current: bool) -> Self {
        Self { record, is_current }
    }

    /// Names this session to [`Login::end_session`](crate::Login::end_session): 22 letters, digits,
    /// `-` and `_`.
    ///
    /// It ends a session of the user who is logged in, and is good for nothing else: it is neither
    /// the session's id nor what a store keeps it under, and tells neither of them.
    pub fn handle(&self) -> String {
        handle_of(&self.record)
    }

    /// Whether this is the session of the request.
    pub fn is_current(&self) -> bool {
        self.is_current
    }

    /// The device in a few words, such as `Firefox on Linux`: a guess from the `User-Agent`, for
    /// people to recognize it by. What is shown can come from the client: escape it for HTML.
    pub fn device(&self) -> String {
        device_of(&self.record.user_agent)
    }

    /// The device's `User-Agent` at the login, at most 256 bytes. It comes from the client: escape it
    /// for HTML.
    pub fn user_agent(&self) -> &str {
        &self.record.user_agent
    }

    /// The device's address at the login, where it was known.
    pub fn address(&self) -> Option<IpAddr> {
        self.record.address
    }

    /// When the user logged in.
    pub fn created(&self) -> SystemTime {
        self.record.created.into()
    }

    /// When it was last used, kept to the layer's touch interval.
    pub fn last_seen(&self) -> SystemTime {
        self.record.last_seen.into()
    }

    /// Until when it can live on unused.
    pub fn expires(&self) -> SystemTime {
        self.record.expires.into()
    }

    /// Whether the remember cookie can bring it back.
    pub fn is_remembered(&self) -> bool {
        self.record.remember_expires.is_some()
    }

    /// How the user has proved who they are, as said [at the
    /// login](crate::LogIn::with_method); empty if nothing was said.
    pub fn method(&self) -> &str {
        &self.record.method
    }
}

/// The handle that applications see, of a session's record.
pub(crate) fn handle_of(record: &SessionRecord) -> String {
    let mut digest = Sha256::new_with_prefix(b"tower-keep/1 handle");
    digest.update(record.key.as_bytes());
    URL_SAFE_NO_PAD.encode(&digest.finalize()[..16])
}

/// Shows what the record shows.
impl fmt::Debug for SessionInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionInfo")
            .field("record", &self.record)
            .field("is_current", &self.is_current)
            .finish()
    }
}
