//! What the keys are called, and in which slot of a cluster they are.
//!
//! The crate's documentation lists them and says why.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tower_keep_core::{SessionKey, UserId};

use crate::error::Fault;

/// How many slots a cluster has.
const SLOTS: u16 = 16_384;

/// How long a prefix may be.
const LONGEST: usize = 100;

/// The names of the keys: `keep:…`, unless the application says otherwise.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    prefix: String,
}

impl Default for Keys {
    fn default() -> Self {
        Self { prefix: "keep:".to_owned() }
    }
}

/// The keys of one user, all in one slot.
#[derive(Clone, Debug)]
pub(crate) struct UserKeys(String);

impl Keys {
    pub(crate) fn set_prefix(&mut self, prefix: String) {
        self.prefix = prefix;
    }

    pub(crate) fn check(&self) -> Result<(), Fault> {
        let is_plain = |c: char| c.is_ascii_graphic() && !"{}*?[]\\".contains(c);
        if self.prefix.chars().all(is_plain) && self.prefix.len() <= LONGEST {
            return Ok(());
        }
        let words = format!(
            "the prefix {:?} is not of printable ASCII without braces, brackets and wildcards, at \
             most {LONGEST} of them",
            self.prefix
        );
        Err(Fault::unsupported(words))
    }

    pub(crate) fn of(&self, user: &UserId) -> UserKeys {
        UserKeys([&self.prefix, "{", &tag(user.as_str()), "}:"].concat())
    }

    pub(crate) fn login(&self, login: &str) -> String {
        [&self.prefix, "login:", login].concat()
    }

    /// The list of sessions that ended together and are still to be removed.
    pub(crate) fn past(&self) -> String {
        [&self.prefix, "past"].concat()
    }

    /// Where it is written whose session this is.
    pub(crate) fn owner(&self, key: &SessionKey) -> String {
        [&self.prefix, "session:", &member(key)].concat()
    }
}

impl UserKeys {
    pub(crate) fn user(&self) -> String {
        [&self.0, "user"].concat()
    }

    pub(crate) fn session(&self, key: &SessionKey) -> String {
        [&self.0, "session:", &member(key)].concat()
    }

    /// What the names of all their sessions begin with.
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

    pub(crate) fn untold(&self) -> String {
        [&self.0, "untold"].concat()
    }

    pub(crate) fn pending(&self, claim: &str) -> String {
        [&self.0, "pending:", claim].concat()
    }
}

/// The slot of a key in a cluster: of what is between its first braces, or else of all of it.
pub(crate) fn slot(key: &str) -> u16 {
    let tagged = || {
        let tag = key.split_once('{')?.1.split_once('}')?.0;
        (!tag.is_empty()).then_some(tag)
    };
    crc16::State::<crc16::XMODEM>::calculate(tagged().unwrap_or(key).as_bytes()) % SLOTS
}

/// A session's key, as a part of names and as a member of lists.
pub(crate) fn member(key: &SessionKey) -> String {
    URL_SAFE_NO_PAD.encode(key.as_bytes())
}

/// The session's key that was written so.
pub(crate) fn read_member(member: &[u8]) -> Result<SessionKey, Fault> {
    let bytes = URL_SAFE_NO_PAD.decode(member).ok().and_then(|bytes| bytes.try_into().ok());
    let corrupt = || Fault::corrupt("a list of sessions holds what is no session's key");
    bytes.map(SessionKey::new).ok_or_else(corrupt)
}

/// An id without a closing brace, which would end the hash tag, and never empty; each id has its own.
fn tag(id: &str) -> Cow<'_, str> {
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
        let (keys, session) = (Keys::default(), SessionKey::new([7; 32]));
        for id in ["42", "", "{", "}", "{}", "}{", "a}b", "%7D", "佐藤", "a:{b}"] {
            let of = keys.of(&id.into());
            let all = [
                of.user(),
                of.session(&session),
                of.live(),
                of.begun(),
                of.epoch(),
                of.past(3),
                of.untold(),
                of.pending("00ff"),
            ];
            let slots: HashSet<_> = all.iter().map(|key| slot(key)).collect();
            assert_eq!(slots.len(), 1, "{id:?}");
        }
        assert_eq!(keys.of(&"42".into()).user(), "keep:{42}:user");
    }

    #[test]
    fn slots_are_the_clusters() {
        // As `CLUSTER KEYSLOT` says.
        for (key, expected) in [("123456789", 12_739), ("foo", 12_182), ("{foo}bar", 12_182)] {
            assert_eq!(slot(key), expected, "{key}");
        }
    }

    #[test]
    fn each_user_has_keys_of_their_own() {
        let ids = ["", "%", "}", "%7D", "%25", "%257D", "a", "{a}", "a}:user", "a:user"];
        let keys = Keys::default();
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
            assert!(Keys { prefix: good.into() }.check().is_ok(), "{good:?}");
        }
        let long = "x".repeat(101);
        for bad in ["{", "a}", "a b", "a*", "é", "a\n", &long] {
            assert!(Keys { prefix: bad.into() }.check().is_err(), "{bad:?}");
        }
    }
}
