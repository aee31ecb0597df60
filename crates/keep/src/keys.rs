//! The keys that seal cookies, and the keys that are derived from them.
//!
//! Derivation (RFC 5869): `PRK = HKDF-SHA256-Extract("tower-keep/1", key)`, then for each use
//! `Expand(PRK, LP(purpose) ‖ LP(mode) ‖ LP(area) ‖ LP(cookie name), 32)`. `LP` is a length of two
//! bytes, big-endian, followed by the bytes. An area is a name for the logins of one layer. So a
//! cookie is never valid for another purpose, in another area, or under another name.

use std::fmt;
use std::hash::Hasher;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use siphasher::sip::SipHasher24;

use crate::cookie::{Opened, Sealer, ServerRemember, SessionId, Verifier};
use crate::error::BuildError;

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
    pub fn generate() -> Result<Self, crate::AuthError> {
        Ok(Self::new(crate::random::bytes::<48>()?))
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

    fn all(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(&self.current).chain(&self.previous).chain(&self.next).map(|key| &**key)
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

/// The sealers and keyed hash functions that a layer derives from its keys when it is built.
pub(crate) struct Keyring {
    pub(crate) session: Sealer,
    pub(crate) remember: Sealer,
    pub(crate) flash: Sealer,
    /// The hash functions of each key, in the order of the sealers' keys. A digest in a cookie is
    /// checked under the key that sealed the cookie.
    hashers: Vec<Hashers>,
}

/// The keyed hash functions of one key, by purpose.
struct Hashers {
    stamp: SipHasher24,
    client: SipHasher24,
    verifier: Hmac<Sha256>,
}

/// The key that a cookie was sealed under. The current key is the first, followed by the previous
/// keys and by the next keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeySlot {
    pub(crate) index: usize,
    is_previous: bool,
}

impl KeySlot {
    pub(crate) const CURRENT: Self = Self { index: 0, is_previous: false };

    /// Returns the slot of the key at this index.
    pub(crate) fn new(index: usize, previous_count: usize) -> Self {
        Self { index, is_previous: (1..=previous_count).contains(&index) }
    }

    pub(crate) fn is_current(self) -> bool {
        self == Self::CURRENT
    }

    /// Checks whether this is a previous key, so that its cookies are reissued under the current
    /// key. The cookies of a next key are not reissued: in a rolling deployment other nodes already
    /// make such cookies, and would reissue the cookies of this node in turn.
    pub(crate) fn is_previous(self) -> bool {
        self.is_previous
    }
}

/// The mode, the area and the cookie names of a layer. Its keys are derived for them.
pub(crate) struct Binding<'a> {
    pub(crate) mode: Mode,
    pub(crate) area: &'a str,
    pub(crate) session: &'a str,
    pub(crate) remember: &'a str,
    pub(crate) flash: &'a str,
}

/// How a login is kept. The cookies of one mode are not valid in the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Only the cookies hold the login.
    Stateless,
    /// The cookies point to a session record.
    ServerSide,
}

impl Mode {
    fn as_str(self) -> &'static str {
        match self {
            Self::Stateless => "stateless",
            Self::ServerSide => "server_side",
        }
    }
}

impl Keyring {
    pub(crate) fn derive(keys: &Keys, binding: &Binding<'_>) -> Self {
        let masters: Vec<Master> = keys.all().map(Master::extract).collect();
        let sealer = |purpose, name| {
            let key = |master: &Master| (master.id, master.hmac(purpose, binding, name));
            Sealer::new(masters.iter().map(key).collect(), keys.previous.len())
        };
        Self {
            session: sealer("session", binding.session),
            remember: sealer("remember", binding.remember),
            flash: sealer("flash", binding.flash),
            hashers: masters
                .iter()
                .map(|master| Hashers {
                    stamp: master.siphash("stamp", binding),
                    client: master.siphash("client", binding),
                    verifier: master.hmac("verifier", binding, binding.remember),
                })
                .collect(),
        }
    }

    /// Returns the digest of a user's security stamp, as cookies contain it.
    pub(crate) fn stamp_digest(&self, slot: KeySlot, user: &[u8], stamp: &[u8]) -> u64 {
        // The length of the id comes first. Without it, another id and another stamp could have the
        // same bytes when joined.
        let length = (user.len() as u16).to_be_bytes();
        digest(&self.hashers[slot.index].stamp, [&length, user, stamp])
    }

    /// Returns the verifier that a remember cookie of this generation contains.
    pub(crate) fn verifier(
        &self,
        slot: KeySlot,
        salt: &[u8; 16],
        id: SessionId,
        generation: u32,
    ) -> Verifier {
        let mut verifier = [0; 16];
        let mac = self.verifier_mac(slot, salt, id, generation).finalize().into_bytes();
        verifier.copy_from_slice(&mac[..16]);
        verifier
    }

    /// Checks whether a remember cookie contains the right verifier, in constant time.
    pub(crate) fn verifies(&self, opened: &Opened<ServerRemember>, salt: &[u8; 16]) -> bool {
        let ServerRemember { id, generation, verifier, .. } = &opened.cookie;
        let mac = self.verifier_mac(opened.slot, salt, *id, *generation);
        mac.verify_truncated_left(verifier).is_ok()
    }

    fn verifier_mac(
        &self,
        slot: KeySlot,
        salt: &[u8; 16],
        id: SessionId,
        generation: u32,
    ) -> Hmac<Sha256> {
        let mut mac = self.hashers[slot.index].verifier.clone();
        mac.update(salt);
        mac.update(&id.0);
        mac.update(&generation.to_be_bytes());
        mac
    }

    /// Returns the digest of the parts that identify a client.
    pub(crate) fn client_digest<const N: usize>(&self, slot: KeySlot, parts: [&[u8]; N]) -> u64 {
        digest(&self.hashers[slot.index].client, parts)
    }
}

/// Parts of at most this many bytes in total are joined and hashed in one call, which is faster.
const JOINED_BYTES: usize = 128;

/// Returns the SipHash of the concatenated parts.
fn digest<const N: usize>(hasher: &SipHasher24, parts: [&[u8]; N]) -> u64 {
    let mut hasher = *hasher;
    let mut joined = [0; JOINED_BYTES];
    let mut filled = 0;
    for (index, part) in parts.iter().enumerate() {
        match joined.get_mut(filled..filled + part.len()) {
            Some(free) => {
                free.copy_from_slice(part);
                filled += part.len();
            }
            None => {
                hasher.write(&joined[..filled]);
                parts[index..].iter().for_each(|part| hasher.write(part));
                return hasher.finish();
            }
        }
    }
    hasher.write(&joined[..filled]);
    hasher.finish()
}

/// A pseudorandom key (PRK), extracted from one of the secret keys. The key of each use is expanded
/// from it.
struct Master {
    prk: Hkdf<Sha256>,
    /// The key id in cookies: a fingerprint of the key. The key's index would not do, because it
    /// changes when keys are rotated.
    id: u8,
}

impl Master {
    fn extract(key: &[u8]) -> Self {
        let prk = Hkdf::<Sha256>::new(Some(b"tower-keep/1"), key);
        let mut id = [0];
        expand(&prk, &["kid"], &mut id);
        Self { prk, id: id[0] }
    }

    fn hmac(&self, purpose: &str, binding: &Binding<'_>, name: &str) -> Hmac<Sha256> {
        let mut key = [0; 32];
        expand(&self.prk, &[purpose, binding.mode.as_str(), binding.area, name], &mut key);
        let mut padded = hmac::digest::Key::<Hmac<Sha256>>::default();
        padded[..key.len()].copy_from_slice(&key);
        Hmac::<Sha256>::new(&padded)
    }

    fn siphash(&self, purpose: &str, binding: &Binding<'_>) -> SipHasher24 {
        let mut key = [0; 32];
        expand(&self.prk, &[purpose, binding.mode.as_str(), binding.area, ""], &mut key);
        let mut short = [0; 16];
        short.copy_from_slice(&key[..16]);
        SipHasher24::new_with_key(&short)
    }
}

fn expand(prk: &Hkdf<Sha256>, words: &[&str], out: &mut [u8]) {
    let mut info = Vec::new();
    for word in words {
        info.extend((word.len() as u16).to_be_bytes());
        info.extend(word.as_bytes());
    }
    // Expanding fails only for more than 8,160 bytes (RFC 5869 §2.3), and no caller asks for more
    // than 32.
    let _ = prk.expand(&info, out);
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
    fn a_digest_is_the_same_in_one_call_or_in_several() {
        let hasher = SipHasher24::new_with_key(&[7; 16]);
        for lengths in [[0, 0, 0], [2, 5, 60], [2, 95, 95], [2, 96, 95], [0, 192, 1], [500, 0, 3]] {
            let parts = lengths.map(|length| vec![length as u8; length]);
            let mut whole = hasher;
            whole.write(&parts.concat());
            let [a, b, c] = &parts;
            assert_eq!(digest(&hasher, [a, b, c]), whole.finish(), "{lengths:?}");
        }
    }

    #[test]
    fn debug_shows_no_key() {
        let shown = format!("{:?}", Keys::new("parity secret, thirty-two bytes long"));
        assert_eq!(shown, "Keys { previous: 0, next: 0, .. }");
    }
}
