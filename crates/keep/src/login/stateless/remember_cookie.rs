//! The remember cookie, which restores a login after the browser was closed.
//!
//! Layout: `fmt: u8, kid: u8, flags: u8, nonce: [u8; 8], issued: u32, expires: u32, classes: u8,
//! stamp: u64, uid`. In total, 28 bytes and the user's id.
//!
//! `cookie/mod.rs` explains the notation.

use tower_keep_core::UserId;

use super::session_cookie::Nonce;
use crate::cookie::body::Fields;
use crate::cookie::choose::ByRecency;
use crate::cookie::contents::Contents;
use crate::cookie::login_origin::{FORCED_FLAG, LoginOrigin};

const FORMAT: u8 = 1;
/// The length of the body without the user's id.
const FIXED_BYTES: usize = 28;

/// The contents of a remember cookie. It restores one user's login until it expires.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Remember {
    pub(crate) terms: RememberTerms,
    /// The keyed digest of the user's security stamp.
    pub(crate) stamp: u64,
    pub(crate) user: UserId,
}

/// The part of a remember cookie that the rules decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RememberTerms {
    pub(crate) login_origin: LoginOrigin,
    pub(crate) nonce: Nonce,
    pub(crate) issued: u32,
    pub(crate) expires: u32,
}

impl Contents for Remember {
    fn write(&self, kid: u8, body: &mut Vec<u8>) {
        let terms = &self.terms;
        body.extend([FORMAT, kid, terms.login_origin.flags()]);
        body.extend(terms.nonce);
        body.extend(terms.issued.to_be_bytes());
        body.extend(terms.expires.to_be_bytes());
        body.push(terms.login_origin.factor_classes);
        body.extend(self.stamp.to_be_bytes());
        body.extend(self.user.as_bytes());
    }

    fn read(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let flags = fields.head(FORMAT, FORCED_FLAG)?;
        Some(Self {
            terms: RememberTerms {
                nonce: fields.array()?,
                issued: fields.u32()?,
                expires: fields.u32()?,
                login_origin: LoginOrigin::read(flags, &mut fields)?,
            },
            stamp: fields.u64()?,
            user: fields.rest()?.into(),
        })
    }

    fn encoded_len(&self) -> usize {
        FIXED_BYTES + self.user.as_bytes().len()
    }
}

impl ByRecency for Remember {
    fn is_same_user(&self, other: &Self) -> bool {
        self.user == other.user
    }

    fn recency(&self) -> (u32, u32) {
        (self.terms.issued, 0)
    }
}
