//! The names of the keys, and their slots in a cluster.
//!
//! The crate's documentation lists the keys and explains their slots. A sorted set whose members
//! are session keys is called an index here.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tower_keep_core::{CounterKey, SessionKey, UserId};

use crate::error::Error;

/// How many slots a cluster has.
const SLOTS: u16 = 16_384;

/// The longest prefix, in bytes.
const MAX_PREFIX_BYTES: usize = 100;

/// Builds the names of the keys. All names begin with the prefix, which is `keep:` by default.
#[derive(Clone, Debug)]
pub(crate) struct KeyNames {
    prefix: String,
}

impl Default for KeyNames {
    fn default() -> Self {
        Self { prefix: "keep:".to_owned() }
    }
}

/// Builds the names of one user's keys, which are all in one slot.
#[derive(Clone, Debug)]
pub(crate) struct UserKeyNames {
    prefix: String,
}

impl KeyNames {
    pub(crate) fn set_prefix(&mut self, prefix: String) {
        self.prefix = prefix;
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let is_plain = |c: char| c.is_ascii_graphic() && !"{}*?[]\\".contains(c);
        if self.prefix.chars().all(is_plain) && self.prefix.len() <= MAX_PREFIX_BYTES {
            return Ok(());
        }
        let message = format!(
            "the key prefix {:?} is not allowed: use at most {MAX_PREFIX_BYTES} printable ASCII \
             characters, and no spaces, braces, brackets, backslashes, `*` or `?`",
            self.prefix
        );
        Err(Error::unsupported(message))
    }

    pub(crate) fn of(&self, user: &UserId) -> UserKeyNames {
        UserKeyNames { prefix: [&self.prefix, "{", &hash_tag(user.as_str()), "}:"].concat() }
    }

    pub(crate) fn login_name(&self, login_name: &str) -> String {
        [&self.prefix, "login:", login_name].concat()
    }

    /// One sorted set for all users. A member is an epoch of a user whose start ended sessions that
    /// are still to be purged.
    pub(crate) fn purge_queue(&self) -> String {
        [&self.prefix, "past"].concat()
    }

    /// The key of a counter.
    pub(crate) fn counter(&self, key: &CounterKey) -> String {
        [&self.prefix, "count:", &URL_SAFE_NO_PAD.encode(key.as_bytes())].concat()
    }

    /// The key that holds the id of the user whom this session belongs to.
    pub(crate) fn session_owner(&self, key: &SessionKey) -> String {
        [&self.prefix, "session:", &encode_session_key(key)].concat()
    }
}

impl UserKeyNames {
    pub(crate) fn user(&self) -> String {
        [&self.prefix, "user"].concat()
    }

    pub(crate) fn session(&self, key: &SessionKey) -> String {
        [&self.prefix, "session:", &encode_session_key(key)].concat()
    }

    /// The text that the names of all of the user's records begin with.
    pub(crate) fn session_prefix(&self) -> String {
        [&self.prefix, "session:"].concat()
    }

    /// The index of the user's sessions that have not ended. The scores are the expiry times.
    pub(crate) fn sessions_by_expiry(&self) -> String {
        [&self.prefix, "live"].concat()
    }

    /// The index of the same sessions as in [`sessions_by_expiry`](Self::sessions_by_expiry). The
    /// scores are the times of the logins.
    pub(crate) fn sessions_by_login_time(&self) -> String {
        [&self.prefix, "begun"].concat()
    }

    pub(crate) fn epoch(&self) -> String {
        [&self.prefix, "epoch"].concat()
    }

    /// The index of the sessions that ended because this epoch began.
    pub(crate) fn ended_by_epoch(&self, number: u64) -> String {
        format!("{}past:{number}", self.prefix)
    }

    /// The index of the sessions that ended because of a replay of which the user has not been
    /// notified.
    pub(crate) fn unnotified_replays(&self) -> String {
        [&self.prefix, "to_notify"].concat()
    }

    /// The key that exists while the user's claim with this token is pending; see `names.rs`.
    pub(crate) fn pending_claim(&self, token: &str) -> String {
        [&self.prefix, "pending:", token].concat()
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

/// Encodes a session's key, for the names of Redis keys and for the members of indexes.
pub(crate) fn encode_session_key(key: &SessionKey) -> String {
    URL_SAFE_NO_PAD.encode(key.as_bytes())
}

/// Decodes a session's key that [`encode_session_key`] returned.
pub(crate) fn decode_session_key(member: &[u8]) -> Result<SessionKey, Error> {
    let bytes = URL_SAFE_NO_PAD.decode(member).ok().and_then(|bytes| bytes.try_into().ok());
    let corrupt = || {
        Error::corrupt(
            "a sorted set of a user's sessions has a member that is not a session's key: remove \
             this member from the key that ends in `:live`, `:begun` or `:to_notify`, or contains \
             `:past:`",
        )
    };
    bytes.map(SessionKey::new).ok_or_else(corrupt)
}

/// Encodes a user's id as a hash tag: the text between the braces, from which a cluster derives the
/// slot. A tag is never empty and has no closing brace, and two ids never have the same tag.
fn hash_tag(user: &str) -> Cow<'_, str> {
    match user {
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
    fn all_keys_of_one_user_are_in_one_slot() {
        let (keys, session) = (KeyNames::default(), SessionKey::new([7; 32]));
        for id in ["42", "", "{", "}", "{}", "}{", "a}b", "%7D", "佐藤", "a:{b}"] {
            let user_keys = keys.of(&id.into());
            let all = [
                user_keys.user(),
                user_keys.session(&session),
                user_keys.sessions_by_expiry(),
                user_keys.sessions_by_login_time(),
                user_keys.epoch(),
                user_keys.ended_by_epoch(3),
                user_keys.unnotified_replays(),
                user_keys.pending_claim("00ff"),
            ];
            let slots: HashSet<_> = all.iter().map(|key| slot(key)).collect();
            assert_eq!(slots.len(), 1, "{id:?}");
        }
        assert_eq!(keys.of(&"42".into()).user(), "keep:{42}:user");
    }

    #[test]
    fn slots_equal_the_replies_to_cluster_keyslot() {
        for (key, expected) in [("123456789", 12_739), ("foo", 12_182), ("{foo}bar", 12_182)] {
            assert_eq!(slot(key), expected, "{key}");
        }
    }

    #[test]
    fn two_users_never_share_a_key() {
        let ids = ["", "%", "}", "%7D", "%25", "%257D", "a", "{a}", "a}:user", "a:user"];
        let keys = KeyNames::default();
        let all: HashSet<_> = ids.iter().map(|id| keys.of(&UserId::from(*id)).user()).collect();
        assert_eq!(all.len(), ids.len());
    }

    #[test]
    fn a_session_key_is_decoded_as_it_was_encoded() {
        let key = SessionKey::new([0xFE; 32]);
        assert!(
            decode_session_key(encode_session_key(&key).as_bytes())
                .is_ok_and(|decoded| decoded == key)
        );
        assert!(decode_session_key(b"short").is_err());
    }

    #[test]
    fn a_prefix_with_special_characters_or_over_100_bytes_is_refused() {
        for good in ["", "keep:", "site-1/auth:"] {
            assert!(KeyNames { prefix: good.into() }.check().is_ok(), "{good:?}");
        }
        let long = "x".repeat(101);
        for bad in ["{", "a}", "a b", "a*", "é", "a\n", &long] {
            assert!(KeyNames { prefix: bad.into() }.check().is_err(), "{bad:?}");
        }
    }
}
