//! The names of the keys, and their slots in a cluster.
//!
//! The crate's documentation lists the keys and explains their slots.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tower_keep_core::{SessionKey, UserId};

use crate::error::Error;

/// How many slots a cluster has.
const SLOTS: u16 = 16_384;

/// How long a prefix may be, in bytes.
const MAX_PREFIX: usize = 100;

/// The names of the keys. They begin with `keep:` by default.
#[derive(Clone, Debug)]
pub(crate) struct KeyNames {
    prefix: String,
}

impl Default for KeyNames {
    fn default() -> Self {
        Self { prefix: "keep:".to_owned() }
    }
}

/// The keys of one user, all in one slot.
#[derive(Clone, Debug)]
pub(crate) struct UserKeyNames(String);

impl KeyNames {
    pub(crate) fn set_prefix(&mut self, prefix: String) {
        self.prefix = prefix;
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let is_plain = |c: char| c.is_ascii_graphic() && !"{}*?[]\\".contains(c);
        if self.prefix.chars().all(is_plain) && self.prefix.len() <= MAX_PREFIX {
            return Ok(());
        }
        let message = format!(
            "the prefix {:?} is not of printable ASCII without braces, brackets and wildcards, at \
             most {MAX_PREFIX} of them",
            self.prefix
        );
        Err(Error::unsupported(message))
    }

    pub(crate) fn of(&self, user: &UserId) -> UserKeyNames {
        UserKeyNames([&self.prefix, "{", &hash_tag(user.as_str()), "}:"].concat())
    }

    pub(crate) fn login_name(&self, login_name: &str) -> String {
        [&self.prefix, "login:", login_name].concat()
    }

    /// The list of all users' `past` keys whose sessions are still to be removed.
    pub(crate) fn past(&self) -> String {
        [&self.prefix, "past"].concat()
    }

    /// The key that says which user this session belongs to.
    pub(crate) fn owner(&self, key: &SessionKey) -> String {
        [&self.prefix, "session:", &member(key)].concat()
    }
}

impl UserKeyNames {
    pub(crate) fn user(&self) -> String {
        [&self.0, "user"].concat()
    }

    pub(crate) fn session(&self, key: &SessionKey) -> String {
        [&self.0, "session:", &member(key)].concat()
    }

    /// The prefix of all of the user's session keys.
    pub(crate) fn sessions(&self) -> String {
        [&self.0, "session:"].concat()
    }

    pub(crate) fn live(&self) -> String {
        [&self.0, "live"].concat()
    }

    pub(crate) fn begun(&self) -> String {
        [&self.0, "begun"].concat()
    }

    pub(crate) fn epoch(&self) -> String {
        [&self.0, "epoch"].concat()
    }

    /// The sessions that ended when this epoch began.
    pub(crate) fn past(&self, number: u64) -> String {
        format!("{}past:{number}", self.0)
    }

    pub(crate) fn to_notify(&self) -> String {
        [&self.0, "to_notify"].concat()
    }

    pub(crate) fn pending(&self, claim: &str) -> String {
        [&self.0, "pending:", claim].concat()
    }
}

/// Returns the slot of a key in a cluster, which depends on the text between the key's first
/// braces, or else on the whole key.
pub(crate) fn slot(key: &str) -> u16 {
    let tagged = || {
        let tag = key.split_once('{')?.1.split_once('}')?.0;
        (!tag.is_empty()).then_some(tag)
    };
    crc16::State::<crc16::XMODEM>::calculate(tagged().unwrap_or(key).as_bytes()) % SLOTS
}

/// Encodes a session's key as a part of names and as a member of lists.
pub(crate) fn member(key: &SessionKey) -> String {
    URL_SAFE_NO_PAD.encode(key.as_bytes())
}

/// Decodes a session's key that was encoded by `member`.
pub(crate) fn read_member(member: &[u8]) -> Result<SessionKey, Error> {
    let bytes = URL_SAFE_NO_PAD.decode(member).ok().and_then(|bytes| bytes.try_into().ok());
    let corrupt = || {
        Error::corrupt(
            "a user's list of sessions (`live`, `begun`, `past:…` or `to_notify`) holds a member \
             that is no session's key: remove that member",
        )
    };
    bytes.map(SessionKey::new).ok_or_else(corrupt)
}

/// Encodes an id as a hash tag, which is never empty and has no closing brace. Each id has a tag of
/// its own.
fn hash_tag(id: &str) -> Cow<'_, str> {
    match id {
        "" => "%".into(),
        plain if !plain.contains(['%', '}']) => plain.into(),
        other => other.replace('%', "%25").replace('}', "%7D").into(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn all_that_is_of_one_user_is_in_one_slot() {
        let (keys, session) = (KeyNames::default(), SessionKey::new([7; 32]));
        for id in ["42", "", "{", "}", "{}", "}{", "a}b", "%7D", "佐藤", "a:{b}"] {
            let of = keys.of(&id.into());
            let all = [
                of.user(),
                of.session(&session),
                of.live(),
                of.begun(),
                of.epoch(),
                of.past(3),
                of.to_notify(),
                of.pending("00ff"),
            ];
            let slots: HashSet<_> = all.iter().map(|key| slot(key)).collect();
            assert_eq!(slots.len(), 1, "{id:?}");
        }
        assert_eq!(keys.of(&"42".into()).user(), "keep:{42}:user");
    }

    #[test]
    fn slots_are_the_clusters() {
        // These are the replies of `CLUSTER KEYSLOT`.
        for (key, expected) in [("123456789", 12_739), ("foo", 12_182), ("{foo}bar", 12_182)] {
            assert_eq!(slot(key), expected, "{key}");
        }
    }

    #[test]
    fn each_user_has_keys_of_their_own() {
        let ids = ["", "%", "}", "%7D", "%25", "%257D", "a", "{a}", "a}:user", "a:user"];
        let keys = KeyNames::default();
        let all: HashSet<_> = ids.iter().map(|id| keys.of(&UserId::from(*id)).user()).collect();
        assert_eq!(all.len(), ids.len());
    }

    #[test]
    fn a_member_is_read_as_it_was_written() {
        let key = SessionKey::new([0xFE; 32]);
        assert!(read_member(member(&key).as_bytes()).is_ok_and(|read| read == key));
        assert!(read_member(b"short").is_err());
    }

    #[test]
    fn a_prefix_is_plain_or_refused() {
        for good in ["", "keep:", "site-1/auth:"] {
            assert!(KeyNames { prefix: good.into() }.check().is_ok(), "{good:?}");
        }
        let long = "x".repeat(101);
        for bad in ["{", "a}", "a b", "a*", "é", "a\n", &long] {
            assert!(KeyNames { prefix: bad.into() }.check().is_err(), "{bad:?}");
        }
    }
}
