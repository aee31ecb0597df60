//! The device cookie: it says that a user has completed a login in this browser.
//!
//! It logs nobody in. A browser with this cookie has limits of its own on guessing the user's
//! password, so a stranger who guesses it elsewhere does not lock the user out here.
//!
//! Layout: `fmt: u8, kid: u8, flags: u8, expires: u32, device: [u8; 8], stamp: u64, uid`. The stamp
//! is a digest of the user's security stamp, so the cookie ends with a new password. A browser
//! holds the cookie of one user: the last who has logged in.

use tower_keep_core::UserId;

use super::body::Fields;
use super::choose::ByRecency;
use super::contents::Contents;

const FORMAT: u8 = 1;
/// The length of the body without the user's id.
const HEAD_BYTES: usize = 3 + 4 + 8 + 8;

/// The contents of a device cookie.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DeviceCookie {
    pub(crate) expires: u32,
    /// A random number of this browser.
    pub(crate) device: [u8; 8],
    /// The keyed digest of the user's security stamp.
    pub(crate) stamp: u64,
    pub(crate) user: UserId,
}

impl DeviceCookie {
    /// How long the cookie is valid, in seconds: a year.
    pub(crate) const LIFETIME: u32 = 365 * 24 * 3_600;
}

impl Contents for DeviceCookie {
    fn write(&self, kid: u8, body: &mut Vec<u8>) {
        body.extend([FORMAT, kid, 0]);
        body.extend(self.expires.to_be_bytes());
        body.extend(self.device);
        body.extend(self.stamp.to_be_bytes());
        body.extend(self.user.as_bytes());
    }

    fn read(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        fields.head(FORMAT, 0)?;
        let (expires, device, stamp) = (fields.u32()?, fields.array()?, fields.u64()?);
        Some(Self { expires, device, stamp, user: fields.rest()?.into() })
    }

    fn encoded_len(&self) -> usize {
        HEAD_BYTES + self.user.as_bytes().len()
    }
}

impl ByRecency for DeviceCookie {
    fn is_same_user(&self, other: &Self) -> bool {
        self.user == other.user
    }

    fn recency(&self) -> (u32, u32) {
        (self.expires, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_cookie_is_read_as_it_was_written() {
        for user in ["1", "", "佐藤"] {
            let (device, user) = ([1, 2, 3, 4, 5, 6, 7, 255], UserId::from(user));
            let cookie = DeviceCookie { expires: 7, device, stamp: u64::MAX - 1, user };
            let mut body = Vec::new();
            cookie.write(9, &mut body);
            assert_eq!(
                (body.len(), DeviceCookie::read(&body)),
                (cookie.encoded_len(), Some(cookie))
            );
            body[2] = 1;
            assert_eq!(DeviceCookie::read(&body), None, "an unknown flag");
        }
        assert_eq!(DeviceCookie::read(&[FORMAT, 0, 0, 0]), None);
    }
}
