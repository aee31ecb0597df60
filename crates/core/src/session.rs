//! A session record: one login on one device, as a store keeps it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::{Timestamp, UserId};

/// The key under which a session is stored: the SHA-256 digest of the session's id.
///
/// Only the cookies contain the id itself, so nobody can log in with what is stored. The bytes are
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
    /// The user who acts as `user`, such as an administrator who sees the application as `user`
    /// sees it; `None` if it is `user`. This version of the layer never sets it, and logs nobody in
    /// by such a record of a newer version.
    pub acting_user: Option<UserId>,
    /// How often the cookies of this login were rotated; 0 at first.
    pub generation: u32,
    /// When this generation began; `None` for the first.
    pub rotated_at: Option<Timestamp>,
    /// When the browser first showed that it holds this generation.
    pub seen_at: Option<Timestamp>,
    /// Random input for the verifier that the remember cookie is checked against.
    pub salt: [u8; 16],
    /// When the user logged in.
    pub created: Timestamp,
    /// When the current session began: at the login, or when the login was last restored or
    /// confirmed.
    pub session_started: Timestamp,
    /// When the session was last used, accurate to the layer's touch interval.
    pub last_seen: Timestamp,
    /// How long the remember cookie is valid; `None` if the login is not remembered.
    pub remember: Option<RememberPeriod>,
    /// When the session expires. Nothing can restore it from then on, and the record may be removed
    /// [`CLOCK_SKEW`](crate::CLOCK_SKEW) later. For an ended session: until when the record is
    /// kept.
    pub expires: Timestamp,
    /// What is merely shown about the session, such as its device.
    pub details: SessionDetails,
    /// When and why the session was ended; `None` if it was not.
    pub ended: Option<Ended>,
}

impl SessionRecord {
    /// Creates the record of a login at `created` that is not remembered and has no details.
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
    /// Until when the cookie that was issued last is valid.
    pub expires: Timestamp,
    /// How long a cookie is valid after it is issued, in seconds.
    pub seconds: u32,
}

impl RememberPeriod {
    /// Creates a period. `seconds` is how long a cookie is valid after it is issued.
    pub const fn new(expires: Timestamp, seconds: u32) -> Self {
        Self { expires, seconds }
    }
}

/// What is merely shown about a session, such as its device: a text that only the layer reads.
///
/// For a store it is one opaque text of at most [`MAX_BYTES`](Self::MAX_BYTES) bytes without
/// control characters. A store returns it byte for byte, in a column of type `TEXT` or the like: a
/// column of type `JSON` may reorder it. So the layer can add facts without a change of any store.
/// The text is never a reason to reject a login, nor to let one through.
#[derive(Clone, Default)]
pub struct SessionDetails(Option<Arc<str>>);

impl SessionDetails {
    /// The longest text that the layer writes, in bytes.
    pub const MAX_BYTES: usize = 2_048;

    /// Wraps a text, as it is stored.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(Some(text.into()))
    }

    /// Returns the text to store. Without any details it is `{}`.
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
    /// The login that replaced the session in the same browser, if any.
    pub successor: Option<SessionKey>,
    /// Whether the user was notified of the end, at their next login. Users are notified only of
    /// replays.
    pub notified: bool,
}

impl Ended {
    /// Creates an end without a successor, of which the user was not notified.
    pub const fn new(at: Timestamp, reason: EndReason) -> Self {
        Self { at, reason, successor: None, notified: false }
    }
}

/// Why a session was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndReason {
    /// The user logged out.
    LoggedOut,
    /// Another login replaced it in the same browser.
    Replaced,
    /// The user or an administrator ended it from elsewhere.
    Revoked,
    /// The user had as many sessions as the layer allows, and this one was the oldest.
    Limit,
    /// A copy of its remember cookie was used in addition to the original.
    Replay,
    /// A request came from another client, and session protection is strong.
    Protection,
    /// The user was no longer active.
    Inactive,
    /// The store has a reason that this version does not know, because another node runs a newer
    /// version. The session has ended, and the layer leaves its cookies to the newer nodes.
    Unknown(UnknownReason),
}

/// The word of an [`EndReason`] that this version does not know. A store that writes the record
/// again writes the same word, so nothing is lost for newer nodes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct UnknownReason {
    bytes: [u8; LONGEST_REASON],
    length: u8,
}

/// The longest word of a reason that any version writes, in bytes.
const LONGEST_REASON: usize = 16;

impl UnknownReason {
    /// Returns the word.
    pub fn as_str(&self) -> &str {
        // The word was parsed from ASCII letters, so this never fails.
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl fmt::Debug for UnknownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is not a word that an [`EndReason`] can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnEndReason;

impl fmt::Display for NotAnEndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the reason of a session's end is not 1 to 16 lower-case letters and underscores",
        )
    }
}

impl std::error::Error for NotAnEndReason {}

impl EndReason {
    const ALL: [(Self, &'static str); 7] = [
        (Self::LoggedOut, "logged_out"),
        (Self::Replaced, "replaced"),
        (Self::Revoked, "revoked"),
        (Self::Limit, "limit"),
        (Self::Replay, "replay"),
        (Self::Protection, "protection"),
        (Self::Inactive, "inactive"),
    ];

    /// Returns the word to store: at most 10 lowercase letters and underscores. [`FromStr`] parses
    /// it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Unknown(word) => word.as_str(),
            known => {
                Self::ALL.iter().find(|(reason, _)| reason == known).map_or("", |(_, word)| word)
            }
        }
    }
}

/// Parses a word that [`as_str`](EndReason::as_str) returned. Any other word comes from a newer
/// version and is parsed as [`Unknown`](EndReason::Unknown).
impl FromStr for EndReason {
    type Err = NotAnEndReason;

    fn from_str(word: &str) -> Result<Self, NotAnEndReason> {
        if let Some((reason, _)) = Self::ALL.iter().find(|(_, known)| *known == word) {
            return Ok(*reason);
        }
        let is_word = word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        if !is_word || word.is_empty() || word.len() > LONGEST_REASON {
            return Err(NotAnEndReason);
        }
        let mut bytes = [0; LONGEST_REASON];
        bytes[..word.len()].copy_from_slice(word.as_bytes());
        Ok(Self::Unknown(UnknownReason { bytes, length: word.len() as u8 }))
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_word_of_its_own() {
        for (reason, word) in EndReason::ALL {
            assert_eq!(reason.as_str(), word);
            assert_eq!(word.parse(), Ok(reason));
            assert!(word.len() <= 10);
        }
        let newer: EndReason = "of_a_newer_node".parse().unwrap();
        assert!(matches!(newer, EndReason::Unknown(_)));
        assert_eq!((newer.as_str(), newer.to_string()), ("of_a_newer_node", newer.as_str().into()));
        for bad in ["", "Replay", "1", "two words", "longer_than_all_of_them"] {
            assert_eq!(bad.parse::<EndReason>(), Err(NotAnEndReason), "{bad}");
        }
    }
}
