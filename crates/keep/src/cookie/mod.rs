//! The settings of the cookies: names, paths, domains and attributes.
//!
//! A layer sets up to three cookies: the session cookie, the remember cookie, and a cookie for
//! flash messages. The value of each is `base64url(body ‖ tag)` without padding, where `tag =
//! HMAC-SHA256(key, body)[..16]`. Integers in the body are big-endian. Times are seconds since
//! 1970, in four bytes.

// Each module shows the layout of its bodies, such as `fmt: u8, kid: u8, flags: u8, issued: u32`:
// the fields in order, with their types. `fmt` is the version of the layout, and `kid` the
// fingerprint of the key. `uid`, at the end, is the user's id without a length. `LP(text)` is the
// length of the text in two bytes, then the text. `(…)×n` occurs n times.
//
// To read about …                                     open …
// the bytes of a cookie                               session.rs, remember.rs, flash.rs
// the same, for server-side sessions                  server_side.rs
// the bytes that say how the user logged in           login_origin.rs
// base64url and the MAC around them                   seal.rs
// finding a cookie in a request                       jar.rs
// `Set-Cookie`, its attributes and their consistency  settings.rs

mod body;
mod flash;
mod jar;
mod login_origin;
mod remember;
mod seal;
mod server_side;
mod session;
mod settings;

pub(crate) use flash::{FlashCookie, MAX_TEXT_BYTES};
pub(crate) use jar::{CookieFields, FoundValues};
pub(crate) use login_origin::{LoginOrigin, Proofs};
pub(crate) use remember::{Remember, RememberTerms};
pub(crate) use seal::Sealer;
pub(crate) use server_side::{ServerRemember, ServerSession, ServerTerms, SessionId, Verifier};
pub(crate) use session::{Nonce, Session, SessionTerms};
pub(crate) use settings::CookieTemplate;
pub use settings::{CookieError, CookieSettings, SameSite};

use crate::keys::KeySlot;

/// Browsers keep a cookie whose name and value together have at most this many bytes
/// (RFC 6265bis §5.7).
pub(crate) const MAX_COOKIE_BYTES: usize = 4_096;

/// A cookie that a request sent and whose seal is valid, with the key that it was sealed under.
#[derive(Clone, Debug)]
pub(crate) struct Opened<T> {
    pub(crate) cookie: T,
    pub(crate) slot: KeySlot,
}

/// Converts a cookie's contents to bytes and back.
pub(crate) trait Contents: Sized {
    /// Appends the body. `kid` is the fingerprint of the key that will seal the body.
    fn write(&self, kid: u8, body: &mut Vec<u8>);

    /// Reads a body whose seal was verified. Returns `None` if the body does not have this form.
    fn read(body: &[u8]) -> Option<Self>;

    /// Returns the length that the body will have, in bytes.
    fn encoded_len(&self) -> usize;
}

/// Compares several cookies of one name that all have a valid seal, to decide which of them counts.
pub(crate) trait ByRecency {
    /// Checks whether both cookies belong to the same user.
    fn is_same_user(&self, other: &Self) -> bool;

    /// Returns a value that is greater, the later the cookie was made or renewed. The cookie with
    /// the greatest value counts.
    fn recency(&self) -> (u32, u32);
}

/// Opens all cookies that were sent under one name, and returns the cookie that counts.
///
/// The order in which the cookies were sent does not matter. Several cookies of one user, all with
/// a valid seal, are left over from a change of path or domain: the latest cookie counts. If two
/// cookies are equally recent, the cookie whose bytes are greater counts. If the cookies belong to
/// different users, an attacker has planted one of them (a sibling domain can do that), and none of
/// them counts.
pub(crate) fn choose<T: Contents + ByRecency>(
    found: &FoundValues<'_>,
    sealer: &Sealer,
) -> Option<Opened<T>> {
    let mut values = found.values();
    let first = values.next()?;
    let mut chosen = sealer.open::<T>(first);
    let mut chosen_value = first;
    // Browsers send one cookie of this name. The loop is for clients that send more.
    for value in values {
        let Some(opened) = sealer.open::<T>(value) else { continue };
        match &chosen {
            Some(other) if !other.cookie.is_same_user(&opened.cookie) => {
                tracing::debug!(
                    "a request sent cookies of different users under one name, all with a valid \
                     signature: none of them counts"
                );
                return None;
            }
            Some(other)
                if (other.cookie.recency(), chosen_value) >= (opened.cookie.recency(), value) => {}
            _ => (chosen, chosen_value) = (Some(opened), value),
        }
    }
    chosen
}
