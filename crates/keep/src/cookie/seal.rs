//! The seal around a cookie's body. No byte of it has a meaning before the MAC is verified.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::{Contents, LARGEST_COOKIE, Opened};
use crate::keys::KeySlot;

const TAG: usize = 16;
/// The length of the format and the key id, which every body has.
const SHORTEST_BODY: usize = 2;
/// The length of the buffer on the stack. It is enough to decode a cookie with a user id of up to
/// 38 bytes. Longer cookies are decoded on the heap.
const ON_STACK: usize = 96;

/// Seals and opens the cookies of one purpose and name.
pub(crate) struct Sealer {
    /// Each key's fingerprint and its keyed state; the current key is the first.
    keys: Vec<(u8, Hmac<Sha256>)>,
    /// How many of the keys after the first are previous keys.
    previous: usize,
}

impl Sealer {
    pub(crate) fn new(keys: Vec<(u8, Hmac<Sha256>)>, previous: usize) -> Self {
        Self { keys, previous }
    }

    /// Returns the value of a cookie with these contents, sealed under the current key.
    pub(crate) fn seal<T: Contents>(&self, contents: &T) -> String {
        let (kid, mac) = &self.keys[KeySlot::CURRENT.index];
        let mut sealed = Vec::with_capacity(contents.len() + TAG);
        contents.write(*kid, &mut sealed);
        let tag = mac.clone().chain_update(&sealed).finalize().into_bytes();
        sealed.extend(&tag[..TAG]);
        URL_SAFE_NO_PAD.encode(sealed)
    }

    /// Returns the length of the value of a cookie with these contents.
    pub(crate) fn sealed_len<T: Contents>(contents: &T) -> usize {
        (contents.len() + TAG).saturating_mul(4).div_ceil(3)
    }

    /// Returns the contents of a value, or `None` if it was not sealed under one of the keys.
    pub(crate) fn open<T: Contents>(&self, value: &[u8]) -> Option<Opened<T>> {
        if value.len() > LARGEST_COOKIE {
            return None;
        }
        // Decoding is strict: it allows no padding and no quotes, and the bits after the last byte
        // must be zero. So a body has only one encoding.
        if value.len() <= ON_STACK.div_ceil(3) * 4 {
            let mut stack = [0; ON_STACK];
            let length = URL_SAFE_NO_PAD.decode_slice(value, &mut stack).ok()?;
            self.verify(stack.get(..length)?)
        } else {
            self.verify(&URL_SAFE_NO_PAD.decode(value).ok()?)
        }
    }

    fn verify<T: Contents>(&self, sealed: &[u8]) -> Option<Opened<T>> {
        let (body, tag) = sealed.split_last_chunk::<TAG>()?;
        if body.len() < SHORTEST_BODY {
            return None;
        }
        // The key id only selects a key, and the MAC covers the id as well. Fingerprints can
        // collide, so every key that matches is tried. The comparison takes the same time for every
        // tag.
        let genuine = |(kid, mac): &(u8, Hmac<Sha256>)| {
            *kid == body[1] && {
                let mut mac = mac.clone();
                mac.update(body);
                mac.verify_truncated_left(tag).is_ok()
            }
        };
        let slot = KeySlot::new(self.keys.iter().position(genuine)?, self.previous);
        Some(Opened { cookie: T::read(body)?, slot })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        FlashCookie, Nonce, Origin, Proofs, Remember, RememberTerms, ServerRemember, ServerSession,
        ServerTerms, Session, SessionId, SessionTerms,
    };
    use super::*;
    use crate::flash::{Flash, FlashKind};
    use crate::keys::{Binding, Keyring, Keys, Mode};

    fn ring(key: &str, area: &str, session: &str) -> Keyring {
        ring_of(Mode::Stateless, key, area, session)
    }

    fn ring_of(mode: Mode, key: &str, area: &str, session: &str) -> Keyring {
        let binding = Binding { mode, area, session, remember: "remember", flash: "flash" };
        Keyring::derive(&Keys::new(key), &binding)
    }

    const KEY: &str = "a test key that is long enough, surely";
    const NONCE: Nonce = [1, 2, 3, 4, 5, 6, 7, 8];

    fn session(user: &str) -> Session {
        Session {
            terms: SessionTerms {
                origin: Origin::PASSWORD,
                is_remembered: true,
                nonce: NONCE,
                started: 10,
                renewed: 20,
            },
            proofs: Proofs::password(30),
            stamp: 0x0102_0304_0506_0708,
            client: u64::MAX,
            user: user.into(),
        }
    }

    fn remember(user: &str) -> Remember {
        Remember {
            terms: RememberTerms {
                origin: Origin::PASSWORD,
                nonce: NONCE,
                issued: 10,
                expires: 40,
            },
            stamp: 7,
            user: user.into(),
        }
    }

    #[test]
    fn the_layout_is_the_specified_one() {
        let mut body = Vec::new();
        session("ab").write(0xAA, &mut body);
        let expected = [
            &[1, 0xAA, 2][..],
            &NONCE,
            &[0, 0, 0, 10, 0, 0, 0, 20],
            &[1, 1, 1, 0, 0, 0, 30],
            &[1, 2, 3, 4, 5, 6, 7, 8],
            &[0xFF; 8],
            b"ab",
        ];
        assert_eq!(body, expected.concat());
        assert_eq!(body.len(), 42 + 2);

        body.clear();
        remember("ab").write(0xAA, &mut body);
        let expected = [
            &[1, 0xAA, 0][..],
            &NONCE,
            &[0, 0, 0, 10, 0, 0, 0, 40, 1],
            &[0, 0, 0, 0, 0, 0, 0, 7],
            b"ab",
        ];
        assert_eq!(body, expected.concat());
        assert_eq!(body.len(), 28 + 2);
    }

    fn server_session(user: &str) -> ServerSession {
        ServerSession {
            id: SessionId([9; 16]),
            terms: ServerTerms {
                origin: Origin::PASSWORD,
                is_remembered: true,
                generation: 5,
                issued: 10,
            },
            proofs: Proofs::password(30),
            stamp: 7,
            client: u64::MAX,
            user_hint: ServerSession::user_hint(&user.into()),
        }
    }

    fn server_remember() -> ServerRemember {
        ServerRemember {
            id: SessionId([9; 16]),
            origin: Origin { is_forced: true, factor_classes: 1 },
            generation: 5,
            verifier: [8; 16],
            expires: 40,
            stamp: 7,
        }
    }

    #[test]
    fn the_layout_with_server_side_sessions_is_the_specified_one() {
        let mut body = Vec::new();
        server_session("ab").write(0xAA, &mut body);
        let expected = [
            &[1, 0xAA, 2][..],
            &[9; 16],
            &[0, 0, 0, 5, 0, 0, 0, 10],
            &[1, 1, 1, 0, 0, 0, 30],
            &[0, 0, 0, 0, 0, 0, 0, 7],
            &[0xFF; 8],
            b"ab",
        ];
        assert_eq!(body, expected.concat());
        assert_eq!(body.len(), 50 + 2);
        body.clear();
        server_remember().write(0xAA, &mut body);
        let expected = [
            &[1, 0xAA, 1][..],
            &[9; 16],
            &[0, 0, 0, 5],
            &[8; 16],
            &[0, 0, 0, 40, 1, 0, 0, 0, 0, 0, 0, 0, 7],
        ];
        assert_eq!(body, expected.concat());
        assert_eq!(body.len(), 52);
    }

    #[test]
    fn a_flag_that_this_version_does_not_know_refuses_the_cookie() {
        fn opens<C: Contents>(cookie: &C) -> [bool; 256] {
            std::array::from_fn(|flags| {
                let mut body = Vec::new();
                cookie.write(0xAA, &mut body);
                body[2] = flags as u8;
                C::read(&body).is_some()
            })
        }
        let up_to = |known: usize| std::array::from_fn(|flags| flags <= known);
        assert_eq!(opens(&session("1")), up_to(3));
        assert_eq!(opens(&server_session("1")), up_to(3));
        assert_eq!(opens(&remember("1")), up_to(1));
        assert_eq!(opens(&server_remember()), up_to(1));
        assert_eq!(opens(&FlashCookie::default()), up_to(0));
    }

    #[test]
    fn what_was_sealed_for_server_side_sessions_opens() {
        let ring = ring_of(Mode::ServerSide, KEY, "", "session");
        for user in ["", "1", "佐藤", &"y".repeat(1_024), &"y".repeat(1_025)] {
            let value = ring.session.seal(&server_session(user));
            let opened = ring.session.open::<ServerSession>(value.as_bytes()).unwrap();
            assert_eq!(opened.cookie, server_session(user));
        }
        let value = ring.remember.seal(&server_remember());
        let opened = ring.remember.open::<ServerRemember>(value.as_bytes()).unwrap();
        assert_eq!(opened.cookie, server_remember());
    }

    #[test]
    fn a_verifier_is_of_one_key_salt_session_and_generation() {
        let ring = ring_of(Mode::ServerSide, KEY, "", "session");
        let other =
            ring_of(Mode::ServerSide, "another test key of the right length", "", "session");
        let (salt, id) = ([1; 16], SessionId([2; 16]));
        let verifier = ring.verifier(KeySlot::CURRENT, &salt, id, 3);
        let opened = |id, generation, verifier| Opened {
            cookie: ServerRemember { id, generation, verifier, ..server_remember() },
            slot: KeySlot::CURRENT,
        };
        let genuine = opened(id, 3, verifier);
        assert!(ring.verifies(&genuine, &salt));
        assert!(!other.verifies(&genuine, &salt));
        assert!(!ring.verifies(&genuine, &[0; 16]));
        assert!(!ring.verifies(&opened(id, 4, verifier), &salt));
        assert!(!ring.verifies(&opened(SessionId([3; 16]), 3, verifier), &salt));
        assert!(!ring.verifies(&opened(id, 3, [0; 16]), &salt));
    }

    #[test]
    fn what_was_sealed_opens_whatever_the_id() {
        let ring = ring(KEY, "", "session");
        for user in
            ["", "1", "佐藤", "a|b\0c", &"x".repeat(41), &"x".repeat(42), &"y".repeat(2_900)]
        {
            let value = ring.session.seal(&session(user));
            assert_eq!(value.len(), Sealer::sealed_len(&session(user)));
            assert_eq!(
                ring.session.open::<Session>(value.as_bytes()).unwrap().cookie,
                session(user)
            );
            let value = ring.remember.seal(&remember(user));
            let opened = ring.remember.open::<Remember>(value.as_bytes()).unwrap();
            assert_eq!(opened.cookie, remember(user));
        }
        let flash = FlashCookie {
            issued: 5,
            flash: Some(Flash::new(FlashKind::LoginRequired, "message".into(), "text".into())),
            next: "/a?b=c".parse().ok(),
        };
        let value = ring.flash.seal(&flash);
        assert_eq!(value.len(), Sealer::sealed_len(&flash));
        assert_eq!(ring.flash.open::<FlashCookie>(value.as_bytes()).unwrap().cookie, flash);
    }

    #[test]
    fn no_changed_bit_no_cut_and_no_addition_is_accepted() {
        let ring = ring(KEY, "", "session");
        let value = ring.session.seal(&session("1"));
        let sealed = URL_SAFE_NO_PAD.decode(&value).unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut forged = sealed.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            let forged = URL_SAFE_NO_PAD.encode(forged);
            assert!(ring.session.open::<Session>(forged.as_bytes()).is_none(), "bit {bit}");
        }
        for length in 0..sealed.len() {
            let cut = URL_SAFE_NO_PAD.encode(&sealed[..length]);
            assert!(ring.session.open::<Session>(cut.as_bytes()).is_none(), "{length} bytes");
        }
        let zeroed = [&sealed[..sealed.len() - TAG], &[0; TAG]].concat();
        for forged in [
            URL_SAFE_NO_PAD.encode(zeroed),
            format!("\"{value}\""),
            format!("{value}="),
            format!("{value}A"),
            format!(" {value}"),
            String::new(),
            "=".into(),
            "A".repeat(4_096),
            "A".repeat(5_000),
        ] {
            assert!(ring.session.open::<Session>(forged.as_bytes()).is_none(), "{forged}");
        }
    }

    #[test]
    fn a_value_has_one_encoding_only() {
        let ring = ring(KEY, "", "session");
        // 42 + 2 + 16 = 57 bytes fill whole characters. One more byte leaves four bits that must be
        // zero.
        let value = ring.session.seal(&session("abc"));
        let last = value.chars().last().unwrap();
        let mut accepted = 0;
        for other in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".chars() {
            let changed = format!("{}{other}", &value[..value.len() - 1]);
            let opens = ring.session.open::<Session>(changed.as_bytes()).is_some();
            assert_eq!(opens, other == last);
            accepted += usize::from(opens);
        }
        assert_eq!(accepted, 1);
    }

    #[test]
    fn no_cookie_stands_in_for_another() {
        let value = ring(KEY, "", "session").session.seal(&session("1"));
        let opens = |ring: &Keyring| ring.session.open::<Session>(value.as_bytes()).is_some();
        assert!(opens(&ring(KEY, "", "session")));
        assert!(!opens(&ring("another test key of the right length", "", "session")));
        assert!(!opens(&ring(KEY, "admin", "session")));
        assert!(!opens(&ring(KEY, "", "another-name")));
        assert!(!opens(&ring_of(Mode::ServerSide, KEY, "", "session")));
        let ring = ring(KEY, "", "session");
        assert!(ring.remember.open::<Remember>(value.as_bytes()).is_none());
        assert!(ring.flash.open::<FlashCookie>(value.as_bytes()).is_none());
    }

    #[test]
    fn previous_and_next_keys_open_and_only_the_current_one_seals() {
        let (mode, area) = (Mode::Stateless, "");
        let binding = Binding { mode, area, session: "session", remember: "r", flash: "f" };
        let ring = |keys: &Keys| Keyring::derive(keys, &binding);
        let [old, new, coming] = ["the old key", "the new key", "the coming key"]
            .map(|key| format!("{key}, which is long enough for us"));
        let made_under = |key: &String| ring(&Keys::new(key)).session.seal(&session("1"));
        let all = ring(&Keys::new(&new).with_previous(&old).with_next(&coming));
        for (key, slot) in [(&new, 0), (&old, 1), (&coming, 2)] {
            let opened = all.session.open::<Session>(made_under(key).as_bytes()).unwrap();
            assert_eq!(opened.slot, KeySlot::new(slot, 1));
            assert_eq!(opened.slot.is_previous(), slot == 1, "only those are made anew");
        }
        assert_eq!(all.session.seal(&session("1")), made_under(&new));
    }
}
