//! Why a session was ended, and the word that a store keeps for the reason.

use std::fmt;
use std::str::FromStr;

/// Why a session was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndReason {
    /// The user logged out.
    LoggedOut,
    /// Another login replaced the session in the same browser.
    Replaced,
    /// The user or an administrator ended the session from another device.
    Revoked,
    /// The session made room for another login, because the user had as many sessions as the layer
    /// allows.
    Limit,
    /// A replay: a request sent a remember cookie that had been replaced earlier. So there may be a
    /// copy of the cookie.
    Replay,
    /// A request came from another client, and session protection is strong.
    Protection,
    /// The user was no longer active.
    Inactive,
    /// Another node runs a newer version, and has stored a reason that this version does not know.
    /// The session has ended. The layer does not change the session's cookies, because newer
    /// nodes decide about them.
    Unknown(UnknownReason),
}

/// The word of an [`EndReason`] that this version does not know.
///
/// A store that writes the record again writes the same word, so newer nodes can still read it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct UnknownReason {
    bytes: [u8; MAX_REASON_BYTES],
    length: u8,
}

/// The word of a reason has at most this many bytes, in every version.
const MAX_REASON_BYTES: usize = 16;

impl UnknownReason {
    /// Returns the word.
    pub fn as_str(&self) -> &str {
        // The word was parsed from ASCII letters, so this never fails.
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl fmt::Display for UnknownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
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
            "the stored reason for a session's end is not a word of 1 to 16 lower-case letters and \
             underscores",
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

    /// Returns the word to store: at most 16 lower-case letters and underscores. [`FromStr`] parses
    /// the word.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Unknown(word) => word.as_str(),
            known => {
                Self::ALL.iter().find(|(reason, _)| reason == known).map_or("", |(_, word)| word)
            }
        }
    }
}

/// Parses a word that [`as_str`](EndReason::as_str) has returned in this version or in another one.
/// A word that this version does not know becomes [`Unknown`](EndReason::Unknown).
impl FromStr for EndReason {
    type Err = NotAnEndReason;

    fn from_str(word: &str) -> Result<Self, NotAnEndReason> {
        if let Some((reason, _)) = Self::ALL.iter().find(|(_, known)| *known == word) {
            return Ok(*reason);
        }
        let is_word = word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        if !is_word || word.is_empty() || word.len() > MAX_REASON_BYTES {
            return Err(NotAnEndReason);
        }
        let mut bytes = [0; MAX_REASON_BYTES];
        bytes[..word.len()].copy_from_slice(word.as_bytes());
        Ok(Self::Unknown(UnknownReason { bytes, length: word.len() as u8 }))
    }
}

impl AsRef<str> for EndReason {
    fn as_ref(&self) -> &str {
        self.as_str()
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
    fn every_reason_has_its_own_word() {
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
