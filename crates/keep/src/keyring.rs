//! The keys that a layer derives from the application's keys, and what it computes with them.
//!
//! Derivation (RFC 5869): `PRK = HKDF-SHA256-Extract("tower-keep/1", key)`, then for each use
//! `Expand(PRK, LP(purpose) ‖ LP(mode) ‖ LP(area) ‖ LP(cookie name), 32)`. `LP` is a length of two
//! bytes, big-endian, followed by the bytes. An area is a name for the logins of one layer. So a
//! cookie is never valid for another purpose, in another area, or under another name.

use std::hash::Hasher;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use siphasher::sip::SipHasher24;

use crate::cookie::key_slot::KeySlot;
use crate::cookie::seal::Sealer;
use crate::keys::Keys;

/// The sealers and keyed hash functions that a layer derives from its keys when it is built.
pub(crate) struct Keyring {
    pub(crate) session: Sealer,
    pub(crate) remember: Sealer,
    pub(crate) flash: Sealer,
    pub(crate) bearer: Sealer,
    pub(crate) device: Sealer,
    /// Makes the keys of counters. Only the current key counts, so a new key begins new counters.
    pub(crate) counters: Hmac<Sha256>,
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

/// The mode, the area and the cookie names of a layer. Its keys are derived for them.
pub(crate) struct Binding<'a> {
    pub(crate) mode: Mode,
    pub(crate) area: &'a str,
    pub(crate) session: &'a str,
    pub(crate) remember: &'a str,
    pub(crate) flash: &'a str,
    pub(crate) device: &'a str,
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

/// What the verifier of a remember cookie is derived from, together with the key.
pub(crate) struct VerifierInput {
    /// The salt of the session's record.
    pub(crate) salt: [u8; 16],
    pub(crate) session_id: [u8; 16],
    /// The generation of the cookie.
    pub(crate) generation: u32,
}

impl Keyring {
    pub(crate) fn derive(keys: &Keys, binding: &Binding<'_>) -> Self {
        let masters: Vec<Master> = keys.all().map(Master::extract).collect();
        let sealer = |purpose, name| {
            let key = |master: &Master| (master.id, master.hmac(purpose, binding, name));
            Sealer::new(masters.iter().map(key).collect(), keys.previous_count())
        };
        Self {
            session: sealer("session", binding.session),
            remember: sealer("remember", binding.remember),
            flash: sealer("flash", binding.flash),
            bearer: sealer("bearer", ""),
            device: sealer("device", binding.device),
            counters: masters[0].hmac("counters", binding, ""),
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

    /// Returns the verifier of a remember cookie.
    pub(crate) fn verifier(&self, slot: KeySlot, input: &VerifierInput) -> [u8; 16] {
        let mut verifier = [0; 16];
        verifier.copy_from_slice(&self.verifier_mac(slot, input).finalize().into_bytes()[..16]);
        verifier
    }

    /// Checks in constant time whether this is the [`verifier`](Self::verifier).
    pub(crate) fn verifies(
        &self,
        verifier: &[u8; 16],
        slot: KeySlot,
        input: &VerifierInput,
    ) -> bool {
        self.verifier_mac(slot, input).verify_truncated_left(verifier).is_ok()
    }

    fn verifier_mac(&self, slot: KeySlot, input: &VerifierInput) -> Hmac<Sha256> {
        let mut mac = self.hashers[slot.index].verifier.clone();
        mac.update(&input.salt);
        mac.update(&input.session_id);
        mac.update(&input.generation.to_be_bytes());
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
    fn a_verifier_is_valid_for_one_key_salt_session_and_generation() {
        let keyring = |key| {
            let (mode, area) = (Mode::ServerSide, "");
            let (session, remember, flash, device) = ("session", "remember", "flash", "device");
            let binding = Binding { mode, area, session, remember, flash, device };
            Keyring::derive(&Keys::new(key), &binding)
        };
        let (genuine, other) = (keyring("a test key of the right length"), keyring("another key"));
        let input = |salt, session_id, generation| VerifierInput {
            salt: [salt; 16],
            session_id: [session_id; 16],
            generation,
        };
        let slot = KeySlot::CURRENT;
        let verifier = genuine.verifier(slot, &input(1, 2, 3));
        assert!(genuine.verifies(&verifier, slot, &input(1, 2, 3)));
        assert!(!other.verifies(&verifier, slot, &input(1, 2, 3)));
        assert!(!genuine.verifies(&verifier, slot, &input(0, 2, 3)));
        assert!(!genuine.verifies(&verifier, slot, &input(1, 2, 4)));
        assert!(!genuine.verifies(&verifier, slot, &input(1, 3, 3)));
        assert!(!genuine.verifies(&[0; 16], slot, &input(1, 2, 3)));
    }
}
