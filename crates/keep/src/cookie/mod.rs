//! The cookies: their bytes, their seal, and how they are found and set.
//!
//! | look for | in |
//! | --- | --- |
//! | what the bytes of a cookie mean | [`session`], [`remember`], [`visit`] |
//! | the same, where there are session records | [`tracked`] |
//! | base64url and the MAC around them | [`seal`] |
//! | finding a cookie in a request | [`jar`] |
//! | `Set-Cookie`, its attributes and their consistency | [`settings`] |
//!
//! A value is the strict base64url of `body ‖ tag`, `tag = HMAC-SHA256(K, body)[..16]`. Integers are
//! big-endian, times are seconds since 1970 in four bytes.

mod body;
mod jar;
mod remember;
mod seal;
mod session;
mod settings;
mod tracked;
mod visit;

pub(crate) use jar::{CookieFields, Found};
pub(crate) use remember::{Remember, RememberTerms};
pub(crate) use seal::Sealer;
pub(crate) use session::{FORCED, Nonce, REMEMBERED, Session, SessionTerms};
pub(crate) use settings::Template;
pub use settings::{CookieError, CookieSettings, SameSite};
pub(crate) use tracked::{SessionId, TrackedRemember, TrackedSession, TrackedTerms, Verifier};
pub(crate) use visit::{TEXT_LIMIT, Visit};

use crate::keys::KeySlot;

/// The longest name and value together that browsers keep (RFC 6265bis §5.7).
pub(crate) const LARGEST_COOKIE: usize = 4_096;

/// A cookie that was presented and whose seal is genuine, with the key it was made under.
#[derive(Clone, Debug)]
pub(crate) struct Held<T> {
    pub(crate) cookie: T,
    pub(crate) slot: KeySlot,
}

/// A cookie's contents, as bytes and back.
pub(crate) trait Contents: Sized {
    /// Appends the body; `kid` is the fingerprint of the key that will seal it.
    fn write(&self, kid: u8, body: &mut Vec<u8>);

    /// Reads a body whose seal was verified; `None` if it is not of this form.
    fn read(body: &[u8]) -> Option<Self>;

    /// How long the body is.
    fn len(&self) -> usize;
}

/// Of several genuine cookies of one name, the one to go by.
pub(crate) trait Ranked {
    /// Whether both are of the same user.
    fn same_user(&self, other: &Self) -> bool;

    /// When it was made or renewed; among equals the greater counts.
    fn rank(&self) -> (u32, u32);
}

/// Opens every cookie of the name that was sent, and picks one.
///
/// The order in which they were sent does not matter. Several genuine ones of one user are left
/// over from a change of path or domain: the latest counts, and of two of one second the one whose
/// bytes are greater. If they are of different users, somebody
/// has planted one (a sibling domain can), and none counts.
pub(crate) fn choose<T: Contents + Ranked>(found: &Found<'_>, sealer: &Sealer) -> Option<Held<T>> {
    let mut values = found.values();
    let first = values.next()?;
    let mut chosen = sealer.open::<T>(first);
    let mut bytes = first;
    // Browsers send one. What follows is for the others.
    for value in values {
        let Some(held) = sealer.open::<T>(value) else { continue };
        match &chosen {
            Some(other) if !other.cookie.same_user(&held.cookie) => {
                tracing::debug!("genuine cookies of different users were sent; none counts");
                return None;
            }
            Some(other) if (other.cookie.rank(), bytes) >= (held.cookie.rank(), value) => {}
            _ => (chosen, bytes) = (Some(held), value),
        }
    }
    chosen
}
