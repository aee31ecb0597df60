//! The seal around a cookie's body: a MAC and base64url. No byte of the body is interpreted before
//! the MAC is verified.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::contents::{Contents, MAX_COOKIE_BYTES, Opened};
use super::key_slot::KeySlot;

/// The length of the MAC, which is cut to this many bytes.
const TAG_BYTES: usize = 16;
/// The length of the first two fields of every body: the format and the key id.
const MIN_BODY_BYTES: usize = 2;
/// A cookie whose decoded value has at most this many bytes is decoded on the stack. This is enough
/// for a user id of 38 bytes. Longer cookies are decoded on the heap.
const STACK_BYTES: usize = 96;

/// Seals and opens the cookies of one purpose and name.
pub(crate) struct Sealer {
    /// Each key's fingerprint and its keyed state; the current key is the first.
    keys: Vec<(u8, Hmac<Sha256>)>,
    /// How many of the keys after the first are previous keys. The others are next keys.
    previous_count: usize,
}

impl Sealer {
    pub(crate) fn new(keys: Vec<(u8, Hmac<Sha256>)>, previous_count: usize) -> Self {
        Self { keys, previous_count }
    }

    /// Returns the value of a cookie with these contents, sealed under the current key.
    pub(crate) fn seal<T: Contents>(&self, contents: &T) -> String {
        let (kid, mac) = &self.keys[KeySlot::CURRENT.index];
        let mut sealed = Vec::with_capacity(contents.encoded_len() + TAG_BYTES);
        contents.write(*kid, &mut sealed);
        let tag = mac.clone().chain_update(&sealed).finalize().into_bytes();
        sealed.extend(&tag[..TAG_BYTES]);
        URL_SAFE_NO_PAD.encode(sealed)
    }

    /// Returns the length of the value of a cookie with these contents.
    pub(crate) fn sealed_len<T: Contents>(contents: &T) -> usize {
        (contents.encoded_len() + TAG_BYTES).saturating_mul(4).div_ceil(3)
    }

    /// Returns the contents of a value, or `None` if none of the keys has sealed the value.
    pub(crate) fn open<T: Contents>(&self, value: &[u8]) -> Option<Opened<T>> {
        if value.len() > MAX_COOKIE_BYTES {
            return None;
        }
        // Decoding is strict: no padding and no quotes are allowed, and the bits after the last
        // byte must be zero. So a body has only one encoding.
        if value.len() <= STACK_BYTES.div_ceil(3) * 4 {
            let mut stack = [0; STACK_BYTES];
            let length = URL_SAFE_NO_PAD.decode_slice(value, &mut stack).ok()?;
            self.verify(stack.get(..length)?)
        } else {
            self.verify(&URL_SAFE_NO_PAD.decode(value).ok()?)
        }
    }

    fn verify<T: Contents>(&self, sealed: &[u8]) -> Option<Opened<T>> {
        let (body, tag) = sealed.split_last_chunk::<TAG_BYTES>()?;
        if body.len() < MIN_BODY_BYTES {
            return None;
        }
        // The key id only selects a key, and the MAC covers the id as well. Two keys can have the
        // same id, so every key with this id is tried. The comparison takes the same time for every
        // tag.
        let seals_body = |(kid, mac): &(u8, Hmac<Sha256>)| {
            *kid == body[1] && {
                let mut mac = mac.clone();
                mac.update(body);
                mac.verify_truncated_left(tag).is_ok()
            }
        };
        let slot = KeySlot::new(self.keys.iter().position(seals_body)?, self.previous_count);
        Some(Opened { cookie: T::read(body)?, slot })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cookie::flash::FlashCookie;
    use crate::cookie::login_origin::{LoginOrigin, Proofs};
    use crate::flash::{Flash, FlashKind};
    use crate::keyring::{Binding, Keyring, Mode};
    use crate::keys::Keys;
    use crate::login::server_side::cookies::{
        ServerRemember, ServerSession, ServerTerms, SessionId,
    };
    use crate::login::stateless::remember_cookie::{Remember, RememberTerms};
    use crate::login::stateless::session_cookie::{Nonce, Session, SessionTerms};

    fn keyring(key: &str, area: &str, session_name: &str) -> Keyring {
        keyring_for(Mode::Stateless, key, area, session_name)
    }

    fn keyring_for(mode: Mode, key: &str, area: &str, session: &str) -> Keyring {
        let binding =
            Binding { mode, area, session, remember: "remember", flash: "flash", device: "device" };
        Keyring::derive(&Keys::new(key), &binding)
    }

    const KEY: &str = "a test key that is long enough, surely";
    const NONCE: Nonce = [1, 2, 3, 4, 5, 6, 7, 8];

    fn session(user: &str) -> Session {
        Session {
            terms: SessionTerms {
                login_origin: LoginOrigin::PASSWORD,
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
                login_origin: LoginOrigin::PASSWORD,
                nonce: NONCE,
                issued: 10,
                expires: 40,
            },
            stamp: 7,
            user: user.into(),
        }
    }

    #[test]
    fn the_cookies_have_the_documented_layout() {
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
                login_origin: LoginOrigin::PASSWORD,
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
            login_origin: LoginOrigin { is_forced: true, factor_classes: 1 },
            generation: 5,
            verifier: [8; 16],
            expires: 40,
            stamp: 7,
        }
    }

    #[test]
    fn the_cookies_of_server_side_sessions_have_the_documented_layout() {
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
    fn a_cookie_with_an_unknown_flag_does_not_open() {
        fn accepted_flags<C: Contents>(cookie: &C) -> [bool; 256] {
            std::array::from_fn(|flags| {
                let mut body = Vec::new();
                cookie.write(0xAA, &mut body);
                body[2] = flags as u8;
                C::read(&body).is_some()
            })
        }
        let up_to = |highest: usize| std::array::from_fn(|flags| flags <= highest);
        assert_eq!(accepted_flags(&session("1")), up_to(3));
        assert_eq!(accepted_flags(&server_session("1")), up_to(3));
        assert_eq!(accepted_flags(&remember("1")), up_to(1));
        assert_eq!(accepted_flags(&server_remember()), up_to(1));
        assert_eq!(accepted_flags(&FlashCookie::default()), up_to(0));
    }

    #[test]
    fn sealed_cookies_of_server_side_sessions_open() {
        let keyring = keyring_for(Mode::ServerSide, KEY, "", "session");
        for user in ["", "1", "佐藤", &"y".repeat(1_024), &"y".repeat(1_025)] {
            let value = keyring.session.seal(&server_session(user));
            let opened = keyring.session.open::<ServerSession>(value.as_bytes()).unwrap();
            assert_eq!(opened.cookie, server_session(user));
        }
        let value = keyring.remember.seal(&server_remember());
        let opened = keyring.remember.open::<ServerRemember>(value.as_bytes()).unwrap();
        assert_eq!(opened.cookie, server_remember());
    }

    #[test]
    fn sealed_cookies_open_for_user_ids_of_any_length() {
        let keyring = keyring(KEY, "", "session");
        for user in
            ["", "1", "佐藤", "a|b\0c", &"x".repeat(41), &"x".repeat(42), &"y".repeat(2_900)]
        {
            let value = keyring.session.seal(&session(user));
            assert_eq!(value.len(), Sealer::sealed_len(&session(user)));
            assert_eq!(
                keyring.session.open::<Session>(value.as_bytes()).unwrap().cookie,
                session(user)
            );
            let value = keyring.remember.seal(&remember(user));
            let opened = keyring.remember.open::<Remember>(value.as_bytes()).unwrap();
            assert_eq!(opened.cookie, remember(user));
        }
        let flash = FlashCookie {
            issued: 5,
            flash: Some(Flash::new(FlashKind::LoginRequired, "message".into(), "text".into())),
            next: "/a?b=c".parse().ok(),
        };
        let value = keyring.flash.seal(&flash);
        assert_eq!(value.len(), Sealer::sealed_len(&flash));
        assert_eq!(keyring.flash.open::<FlashCookie>(value.as_bytes()).unwrap().cookie, flash);
    }

    #[test]
    fn a_changed_cut_or_extended_cookie_does_not_open() {
        let keyring = keyring(KEY, "", "session");
        let value = keyring.session.seal(&session("1"));
        let sealed = URL_SAFE_NO_PAD.decode(&value).unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut forged = sealed.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            let forged = URL_SAFE_NO_PAD.encode(forged);
            assert!(keyring.session.open::<Session>(forged.as_bytes()).is_none(), "bit {bit}");
        }
        for length in 0..sealed.len() {
            let cut = URL_SAFE_NO_PAD.encode(&sealed[..length]);
            assert!(keyring.session.open::<Session>(cut.as_bytes()).is_none(), "{length} bytes");
        }
        let zeroed = [&sealed[..sealed.len() - TAG_BYTES], &[0; TAG_BYTES]].concat();
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
            assert!(keyring.session.open::<Session>(forged.as_bytes()).is_none(), "{forged}");
        }
    }

    #[test]
    fn a_sealed_cookie_has_only_one_encoding() {
        let keyring = keyring(KEY, "", "session");
        // 42 + 2 + 16 = 60 bytes fill 80 characters. One more byte takes two more characters, and
        // the last four bits of these must be zero.
        let value = keyring.session.seal(&session("abc"));
        let last = value.chars().last().unwrap();
        let mut accepted = 0;
        for other in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".chars() {
            let changed = format!("{}{other}", &value[..value.len() - 1]);
            let opens = keyring.session.open::<Session>(changed.as_bytes()).is_some();
            assert_eq!(opens, other == last);
            accepted += usize::from(opens);
        }
        assert_eq!(accepted, 1);
    }

    #[test]
    fn a_cookie_opens_only_with_its_own_key_area_name_mode_and_purpose() {
        let value = keyring(KEY, "", "session").session.seal(&session("1"));
        let opens = |keyring: &Keyring| keyring.session.open::<Session>(value.as_bytes()).is_some();
        assert!(opens(&keyring(KEY, "", "session")));
        assert!(!opens(&keyring("another test key of the right length", "", "session")));
        assert!(!opens(&keyring(KEY, "admin", "session")));
        assert!(!opens(&keyring(KEY, "", "another-name")));
        assert!(!opens(&keyring_for(Mode::ServerSide, KEY, "", "session")));
        let keyring = keyring(KEY, "", "session");
        assert!(keyring.remember.open::<Remember>(value.as_bytes()).is_none());
        assert!(keyring.flash.open::<FlashCookie>(value.as_bytes()).is_none());
    }

    #[test]
    fn previous_and_next_keys_open_cookies_and_only_the_current_key_seals() {
        let (mode, area) = (Mode::Stateless, "");
        let binding =
            Binding { mode, area, session: "session", remember: "r", flash: "f", device: "d" };
        let keyring = |keys: &Keys| Keyring::derive(keys, &binding);
        let [previous, current, next] = ["the old key", "the new key", "the coming key"]
            .map(|key| format!("{key}, which is long enough for us"));
        let sealed_by = |key: &String| keyring(&Keys::new(key)).session.seal(&session("1"));
        let all = keyring(&Keys::new(&current).with_previous(&previous).with_next(&next));
        for (key, index) in [(&current, 0), (&previous, 1), (&next, 2)] {
            let opened = all.session.open::<Session>(sealed_by(key).as_bytes()).unwrap();
            assert_eq!(opened.slot, KeySlot::new(index, 1));
            assert_eq!(opened.slot.is_previous(), index == 1);
        }
        assert_eq!(all.session.seal(&session("1")), sealed_by(&current));
    }
}
