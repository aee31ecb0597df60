//! The secret keys that an application passes to a layer.

use std::fmt;

use crate::error::{AuthError, BuildError};
use crate::random;

const MIN_KEY_BYTES: usize = 32;
const MAX_KEYS: usize = 8;

/// The secret keys of an application: the current key, and other keys whose cookies it accepts.
///
/// A key has at least 32 random bytes. Keep it out of the source code:
///
/// ```
/// use tower_keep::Keys;
///
/// # fn example() -> Result<(), std::env::VarError> {
/// // KEEP_KEY was made by `openssl rand -base64 48`.
/// let keys = Keys::new(std::env::var("KEEP_KEY")?);
/// # Ok(()) }
/// ```
///
/// ```
/// # use tower_keep::Keys;
/// # let keys = Keys::new("");
/// // While a key is being replaced, the old one is in KEEP_KEY_PREVIOUS.
/// let keys = match std::env::var("KEEP_KEY_PREVIOUS") {
///     Ok(old) => keys.with_previous(old),
///     Err(_) => keys,
/// };
/// # let _ = keys;
/// ```
///
/// **Rotation.** Make a new key the current key, and pass the old key to
/// [`with_previous`](Self::with_previous). The cookies of the old key stay valid, and each is
/// reissued under the current key when a request sends it. If several nodes are updated one after
/// the other, first give all nodes the new key with [`with_next`](Self::with_next), then make it
/// the current key. So no node reissues a cookie that another node has just made. If a key has
/// *leaked*, remove it instead of making it a previous key: an attacker who has the key could
/// continue to make cookies.
///
/// Keys are checked when the layer is built. Short keys, placeholders, and more than 8 keys are
/// errors. If several layers share keys, each of them needs its own area
/// ([`with_area`](crate::LoginLayerBuilder::with_area)).
#[derive(Clone)]
#[must_use]
pub struct Keys {
    current: Box<[u8]>,
    previous: Vec<Box<[u8]>>,
    next: Vec<Box<[u8]>>,
}

impl Keys {
    /// Creates a set of keys from the current key, which seals new cookies. The bytes are used as
    /// they are. So a key in hex or base64 need not be decoded, but its text must have at least 32
    /// bytes.
    pub fn new(current: impl AsRef<[u8]>) -> Self {
        Self { current: current.as_ref().into(), previous: Vec::new(), next: Vec::new() }
    }

    /// Creates a random key, for development. All users are logged out when the process ends.
    ///
    /// # Errors
    ///
    /// Returns an error if the operating system provides no random bytes.
    pub fn generate() -> Result<Self, AuthError> {
        Ok(Self::new(random::bytes::<48>()?))
    }

    /// Also accepts cookies made under this earlier key, and reissues them under the current key.
    pub fn with_previous(mut self, key: impl AsRef<[u8]>) -> Self {
        self.previous.push(key.as_ref().into());
        self
    }

    /// Also accepts cookies made under this later key, which other nodes may already use, and does
    /// not reissue them.
    pub fn with_next(mut self, key: impl AsRef<[u8]>) -> Self {
        self.next.push(key.as_ref().into());
        self
    }

    /// Returns the current key, then the previous keys, then the next keys.
    pub(crate) fn all(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(&self.current).chain(&self.previous).chain(&self.next).map(|key| &**key)
    }

    pub(crate) fn previous_count(&self) -> usize {
        self.previous.len()
    }

    pub(crate) fn check(&self) -> Result<(), BuildError> {
        if self.all().count() > MAX_KEYS {
            return Err(BuildError::TooManyKeys { count: self.all().count() });
        }
        for key in self.all() {
            if key.len() < MIN_KEY_BYTES {
                return Err(BuildError::KeyTooShort { length: key.len() });
            }
            if is_placeholder(key) {
                return Err(BuildError::KeyIsPlaceholder);
            }
        }
        Ok(())
    }
}

/// Shows how many keys there are, and no part of a key.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("previous", &self.previous.len())
            .field("next", &self.next.len())
            .finish_non_exhaustive()
    }
}

/// Checks whether a key is a placeholder that was meant to be replaced. This check finds the keys
/// of examples and templates; it does not measure randomness.
fn is_placeholder(key: &[u8]) -> bool {
    const PLACEHOLDER_WORDS: [&str; 12] = [
        "changeme",
        "changethis",
        "changeit",
        "replaceme",
        "replacethis",
        "placeholder",
        "yoursecret",
        "yourkey",
        "examplekey",
        "examplesecret",
        "notasecret",
        "0123456789abcdef0123456789abcdef",
    ];
    let mut occurs = [false; 256];
    key.iter().for_each(|byte| occurs[usize::from(*byte)] = true);
    let letters: String = key
        .iter()
        .filter(|byte| byte.is_ascii_alphanumeric())
        .map(|byte| char::from(byte.to_ascii_lowercase()))
        .collect();
    occurs.iter().filter(|occurs| **occurs).count() < 8
        || PLACEHOLDER_WORDS.iter().any(|word| letters.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_empty_and_placeholder_keys_are_an_error() {
        let short = |length| Err(BuildError::KeyTooShort { length });
        let good = b"\x8f\x1c random enough for every test \x02\x9d".as_slice();
        for (key, expected) in [
            (b"".as_slice(), short(0)),
            (b"31 bytes are one byte too few..", short(31)),
            (&[0; 32], Err(BuildError::KeyIsPlaceholder)),
            (b"abcabcabcabcabcabcabcabcabcabcabc", Err(BuildError::KeyIsPlaceholder)),
            (b"please CHANGE-ME before production", Err(BuildError::KeyIsPlaceholder)),
            (b"your secret key goes here, 32 bytes", Err(BuildError::KeyIsPlaceholder)),
            (b"parity secret, thirty-two bytes long", Ok(())),
            (good, Ok(())),
        ] {
            assert_eq!(Keys::new(key).check(), expected, "{}", String::from_utf8_lossy(key));
            assert_eq!(Keys::new(good).with_previous(key).check(), expected);
            assert_eq!(Keys::new(good).with_next(key).check(), expected);
        }
    }

    #[test]
    fn more_than_eight_keys_are_an_error() {
        let key = |n: u8| [b"a key of thirty-two bytes, number".as_slice(), &[n]].concat();
        let keys = (1..8).fold(Keys::new(key(0)), |keys, n| keys.with_previous(key(n)));
        assert_eq!(keys.check(), Ok(()));
        assert_eq!(keys.with_next(key(8)).check(), Err(BuildError::TooManyKeys { count: 9 }));
    }

    #[test]
    fn debug_shows_no_key() {
        let shown = format!("{:?}", Keys::new("parity secret, thirty-two bytes long"));
        assert_eq!(shown, "Keys { previous: 0, next: 0, .. }");
    }
}
