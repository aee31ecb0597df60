//! A session record: one login on one device, as a store keeps it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::{Timestamp, UserId};

/// What a session is stored under: the SHA-256 of the session's id.
///
/// The id itself is in the cookies alone, so what is stored logs nobody in. The bytes are evenly
/// distributed, and nobody can choose them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey([u8; 32]);

impl SessionKey {
    /// The key of these bytes, as stored.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes to store.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Shows nothing of it.
impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(…)")
    }
}

/// One login of one user on one device.
///
/// A store keeps all fields as they are and gives none a meaning but those that its
/// [contract](crate::SessionStore) names. Times come from the layer's clock.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// What it is stored under.
    pub key: SessionKey,
    /// Whose login it is.
    pub user: UserId,
    /// How often the cookies of this login were made anew; 0 at first.
    pub generation: u32,
    /// When this generation was made; `None` for the first.
    pub rotated_at: Option<Timestamp>,
    /// When the browser first showed that it holds this generation.
    pub seen_at: Option<Timestamp>,
    /// Random bytes that enter what the remember cookie is checked by.
    pub salt: [u8; 16],
    /// When the user logged in.
    pub created: Timestamp,
    /// When the present session began: at the login, or when it was last restored or confirmed.
    pub session_started: Timestamp,
    /// When it was last used, kept to the layer's touch interval.
    pub last_seen: Timestamp,
    /// Until when the remember cookie counts; `None` for a login that is not remembered.
    pub remember_expires: Option<Timestamp>,
    /// How long the remember cookie counts from when it is made, in seconds; 0 without one.
    pub remember_seconds: u32,
    /// From then on nothing can bring this session back, and [`CLOCK_SKEW`](crate::CLOCK_SKEW) later it
    /// may be gone. For an ended one: until when it is to be kept.
    pub expires: Timestamp,
    /// The device's address at the login, where it was known.
    pub address: Option<IpAddr>,
    /// The device's `User-Agent` at the login, at most 256 bytes; empty where it sent none.
    pub user_agent: Arc<str>,
    /// How the user proved who they are, in the application's own words, at most 64 bytes.
    pub method: Arc<str>,
    /// When and why it was ended; `None` while it lives.
    pub ended: Option<Ended>,
}

impl SessionRecord {
    /// Whether it has neither ended nor expired.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.ended.is_none() && now < self.expires
    }
}

/// Shows neither the key nor the salt.
impl fmt::Debug for SessionRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionRecord")
            .field("user", &self.user)
            .field("generation", &self.generation)
            .field("rotated_at", &self.rotated_at)
            .field("seen_at", &self.seen_at)
            .field("created", &self.created)
            .field("last_seen", &self.last_seen)
            .field("expires", &self.expires)
            .field("address", &self.address)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

/// When and why a session was ended. It never lives again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: EndReason,
    /// The login that took its place in the same browser.
    pub successor: Option<SessionKey>,
    /// The user was told of it, at the next login. Only replays are told.
    pub told: bool,
}

/// Why a session was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndReason {
    /// The user logged out.
    LoggedOut,
    /// Another login took its place in the same browser.
    Replaced,
    /// The user or an administrator ended it from elsewhere.
    Ended,
    /// The user had as many sessions as the layer allows, and this one was the oldest.
    Limit,
    /// A copy of its remember cookie was used beside the original.
    Replay,
    /// It came from another client, and session protection is strong.
    Protection,
    /// The user was not active any more.
    Inactive,
}

impl EndReason {
    const ALL: [(Self, &'static str); 7] = [
        (Self::LoggedOut, "logged_out"),
        (Self::Replaced, "replaced"),
        (Self::Ended, "ended"),
        (Self::Limit, "limit"),
        (Self::Replay, "replay"),
        (Self::Protection, "protection"),
        (Self::Inactive, "inactive"),
    ];

    /// A word to store: lower case, at most 10 letters and underscores.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(reason, _)| *reason == self).map_or("", |(_, word)| word)
    }

    /// The reason that was stored as this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == word).map(|(reason, _)| *reason)
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
            assert_eq!(EndReason::from_word(word), Some(reason));
            assert!(word.len() <= 10);
        }
        assert_eq!(EndReason::from_word("Replay"), None);
    }
}
