//! The settings of the cookies: names, paths, domains and attributes.
//!
//! A layer sets up to three cookies: the session cookie, the remember cookie, and one for flash
//! messages. The value of each is `base64url(body ‖ tag)` without padding, where
//! `tag = HMAC-SHA256(key, body)[..16]`. Integers in the body are big-endian. Times are seconds since
//! 1970, in four bytes.

// To read about …                                     open …
// what the bytes of a cookie mean                     session.rs, remember.rs, flash.rs
// the same, for server-side sessions                  server_side.rs
// how the user logged in, in these bytes              origin.rs
// base64url and the MAC around them                   seal.rs
// finding a cookie in a request                       jar.rs
// `Set-Cookie`, its attributes and their consistency  settings.rs

mod body;
mod flash;
mod jar;
mod origin;
mod remember;
mod seal;
mod server_side;
mod session;
mod settings;

pub(crate) use flash::{FlashCookie, TEXT_LIMIT};
pub(crate) use jar::{CookieFields, Found};
pub(crate) use origin::{Origin, Proofs};
pub(crate) use remember::{Remember, RememberTerms};
pub(crate) use seal::Sealer;
pub(crate) use server_side::{ServerRemember, ServerSession, ServerTerms, SessionId, Verifier};
pub(crate) use session::{Nonce, Session, SessionTerms};
pub(crate) use settings::CookieTemplate;
pub use settings::{CookieError, CookieSettings, SameSite};

use crate::keys::KeySlot;

/// The longest name and value together that browsers keep (RFC 6265bis §5.7).
pub(crate) const LARGEST_COOKIE: usize = 4_096;

/// A cookie that a request sent and whose seal is valid, with the key that it was made under.
#[derive(Clone, Debug)]
pub(crate) struct Opened<T> {
    pub(crate) cookie: T,
    pub(crate) slot: KeySlot,
}

/// Converts a cookie's contents to bytes and back.
pub(crate) trait Contents: Sized {
    /// Appends the body. `kid` is the fingerprint of the key that will seal it.
    fn write(&self, kid: u8, body: &mut Vec<u8>);

    /// Reads a body whose seal was verified. Returns `None` if the body does not have this form.
    fn read(body: &[u8]) -> Option<Self>;

    /// Returns the length of the body in bytes.
    fn len(&self) -> usize;
}

/// Decides which one counts, of several cookies of one name that all have a valid seal.
pub(crate) trait ByRecency {
    /// Checks whether both cookies belong to the same user.
    fn same_user(&self, other: &Self) -> bool;

    /// Returns how recently the cookie was made or renewed. The cookie with the greater value
    /// counts.
    fn recency(&self) -> (u32, u32);
}

/// Opens every cookie of the name that was sent, and picks one.
///
/// The order in which they were sent does not matter. Several cookies of one user, all with a valid
/// seal, are left over from a change of path or domain: the latest counts. If two are equally
/// recent, the cookie whose bytes are greater counts. If the cookies belong to different users, an
/// attacker has planted one (a sibling domain can do that), and none counts.
pub(crate) fn choose<T: Contents + ByRecency>(
    found: &Found<'_>,
    sealer: &Sealer,
) -> Option<Opened<T>> {
    let mut values = found.values();
    let first = values.next()?;
    let mut chosen = sealer.open::<T>(first);
    let mut bytes = first;
    // Browsers send one cookie of this name. The loop is for clients that send more.
    for value in values {
        let Some(opened) = sealer.open::<T>(value) else { continue };
        match &chosen {
            Some(other) if !other.cookie.same_user(&opened.cookie) => {
                tracing::debug!("genuine cookies of different users were sent; none counts");
                return None;
            }
            Some(other) if (other.cookie.recency(), bytes) >= (opened.cookie.recency(), value) => {}
            _ => (chosen, bytes) = (Some(opened), value),
        }
    }
    chosen
}
