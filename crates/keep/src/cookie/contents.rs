//! What every kind of cookie has: contents that can be converted to bytes.

use super::key_slot::KeySlot;

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
