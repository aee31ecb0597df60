//! A session record: one login on one device, as a store keeps it.
//!
//! When a remember cookie restores a login, the layer replaces the cookies of the login. The record
//! counts these replacements: the cookies of a login have the *generation* 0 at first, then 1, and
//! so on. The record also has a *seen mark* ([`seen_at`](SessionRecord::seen_at)), which says that
//! the browser has received the cookies of the current generation.

use std::borrow::Borrow;
use std::cmp::Reverse;
use std::fmt;
use std::sync::Arc;

use crate::end_reason::EndReason;
use crate::timestamp::Timestamp;
use crate::user_id::UserId;

/// The key under which a session is stored: the SHA-256 digest of the session's id.
///
/// Only the cookies contain the id itself, so nobody can log in with the stored key. The bytes are
/// evenly distributed, and nobody can choose them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey([u8; 32]);

impl SessionKey {
    /// Creates a key from the stored bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes to store.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Does not show the bytes.
impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(…)")
    }
}

/// One login of one user on one device.
///
/// A store keeps all fields as they are. Only the fields that the store's
/// [contract](crate::SessionStore) names have a meaning for the store. Times come from the layer's
/// clock.
///
/// A store that reads a record creates it with [`new`](Self::new) and then sets the other fields:
///
/// ```
/// # use tower_keep_core::{SessionDetails, SessionKey, SessionRecord, Timestamp};
/// # let (key, salt, created) = (SessionKey::new([0; 32]), [0; 16], Timestamp::from_secs(1));
/// # let expires = created.plus(3_600);
/// let mut record = SessionRecord::new(key, "7".into(), salt, created, expires);
/// record.generation = 2;
/// record.details = SessionDetails::new(r#"{"method":"password"}"#);
/// assert!(record.is_live(created));
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionRecord {
    /// The key under which the session is stored.
    pub key: SessionKey,
    /// The user who logged in.
    pub user: UserId,
    /// Another user who acts as `user`, such as an administrator who sees the application as
    /// `user` sees it; `None` if there is none. This version of the layer never sets this field. If
    /// a newer version has set it, this version logs nobody in with the record.
    pub acting_user: Option<UserId>,
    /// How many times the cookies of this login were rotated, which means replaced by new ones; 0
    /// at first.
    pub generation: u32,
    /// When this generation began; `None` for generation 0.
    pub rotated_at: Option<Timestamp>,
    /// When a request first showed that the browser holds the cookies of this generation; `None`
    /// before such a request.
    pub seen_at: Option<Timestamp>,
    /// Random bytes. The layer derives the verifier in the remember cookie from them.
    pub salt: [u8; 16],
    /// When the user logged in.
    pub created: Timestamp,
    /// When the current session began: at the login, or when a remember cookie last restored the
    /// login, or when the user last confirmed it.
    pub session_started: Timestamp,
    /// When the session was last used, accurate to the layer's touch interval.
    pub last_seen: Timestamp,
    /// How long the remember cookie is valid; `None` if the login is not remembered.
    pub remember: Option<RememberPeriod>,
    /// When the session expires. No cookie can restore an expired session, and a store may remove
    /// the record [`CLOCK_SKEW`](crate::CLOCK_SKEW) seconds later. If the session has ended, the
    /// record is kept until this time.
    pub expires: Timestamp,
    /// Facts about the session that are only shown to users, such as its device.
    pub details: SessionDetails,
    /// When and why the session was ended; `None` if it was not ended.
    pub ended: Option<Ended>,
}

impl SessionRecord {
    /// Creates the record of a login at `created`. The login is not remembered and has no details.
    pub fn new(
        key: SessionKey,
        user: UserId,
        salt: [u8; 16],
        created: Timestamp,
        expires: Timestamp,
    ) -> Self {
        Self {
            key,
            user,
            acting_user: None,
            generation: 0,
            rotated_at: None,
            seen_at: None,
            salt,
            created,
            session_started: created,
            last_seen: created,
            remember: None,
            expires,
            details: SessionDetails::default(),
            ended: None,
        }
    }

    /// Checks whether the session has neither ended nor expired.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.ended.is_none() && now < self.expires
    }

    /// Checks whether the session has not been used since the login, as far as the record shows.
    /// The response to the login may have been lost, so it is possible that no client has the
    /// cookies.
    pub fn is_unused(&self) -> bool {
        self.generation == 0 && self.seen_at.is_none() && self.last_seen == self.created
    }
}

/// Shows neither the key nor the salt.
impl fmt::Debug for SessionRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionRecord")
            .field("user", &self.user)
            .field("acting_user", &self.acting_user)
            .field("generation", &self.generation)
            .field("rotated_at", &self.rotated_at)
            .field("seen_at", &self.seen_at)
            .field("created", &self.created)
            .field("last_seen", &self.last_seen)
            .field("expires", &self.expires)
            .field("details", &self.details)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

/// How long the remember cookie of a login is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RememberPeriod {
    /// When the most recently issued cookie expires.
    pub expires: Timestamp,
    /// How long a cookie is valid after it is issued, in seconds.
    pub seconds: u32,
}

impl RememberPeriod {
    /// Creates a period. `seconds` is the time from when a cookie is issued until it expires.
    pub const fn new(expires: Timestamp, seconds: u32) -> Self {
        Self { expires, seconds }
    }
}

/// Facts about a session that are only shown to users, such as its device. Only the layer reads
/// them.
///
/// For a store, the details are one opaque text of at most [`MAX_BYTES`](Self::MAX_BYTES) bytes
/// without control characters. A store returns the text byte for byte. Use a column of type `TEXT`
/// or the like: a column of type `JSON` may reorder the text. Because a store never interprets the
/// text, the layer can add facts without a change to any store. The text is never a reason to
/// accept or to reject a login.
#[derive(Clone, Default)]
pub struct SessionDetails(Option<Arc<str>>);

impl SessionDetails {
    /// The layer writes texts of at most this many bytes.
    pub const MAX_BYTES: usize = 2_048;

    /// Creates details from the stored text.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(Some(text.into()))
    }

    /// Returns the text to store. It is `{}` if there are no details.
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or("{}")
    }
}

impl PartialEq for SessionDetails {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for SessionDetails {}

impl fmt::Debug for SessionDetails {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// When and why a session was ended. An ended session never becomes live again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ended {
    /// When the session ended.
    pub at: Timestamp,
    /// Why the session ended.
    pub reason: EndReason,
    /// The key of the login that replaced the session in the same browser, if any. If several
    /// logins replaced the session, this is the key of the last of them.
    pub successor: Option<SessionKey>,
    /// Whether the user was notified of the end. Users are notified only of
    /// [replays](EndReason::Replay), at their next login.
    pub notified: bool,
}

impl Ended {
    /// Creates an end without a successor, of which the user was not notified.
    pub const fn new(at: Timestamp, reason: EndReason) -> Self {
        Self { at, reason, successor: None, notified: false }
    }
}

/// Returns at most `limit` of these records: only [live](SessionRecord::is_live) ones, in the order
/// of [`list`](crate::SessionStore::list).
pub fn most_recently_used<R: Borrow<SessionRecord>>(
    mut records: Vec<R>,
    now: Timestamp,
    limit: usize,
) -> Vec<R> {
    records.retain(|record| record.borrow().is_live(now));
    records.sort_by_key(|record| Reverse((record.borrow().last_seen, record.borrow().created)));
    records.truncate(limit);
    records
}

/// A record for unit tests.
#[cfg(test)]
pub(crate) mod sample {
    use super::{SessionKey, SessionRecord, Timestamp};

    pub(crate) const NOW: Timestamp = Timestamp::from_secs(1_000);

    pub(crate) fn record() -> SessionRecord {
        let (key, salt) = (SessionKey::new([1; 32]), [0; 16]);
        let record = SessionRecord::new(key, "7".into(), salt, NOW, NOW.plus(600));
        SessionRecord { generation: 3, ..record }
    }
}
