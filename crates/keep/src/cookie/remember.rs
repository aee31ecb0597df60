//! The remember cookie, which brings a user back after the browser was closed.
//!
//! `fmt1 kid1 flags1 nonce8 issued4 expires4 classes1 stamp8 uid`: 28 bytes and the user's id.

use tower_keep_core::UserId;

use super::body::Fields;
use super::origin::{FORCED, Origin};
use super::{ByRecency, Contents, Nonce};

const FORMAT: u8 = 1;
const FIXED: usize = 28;

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
    pub(crate) origin: Origin,
    pub(crate) nonce: Nonce,
    pub(crate) issued: u32,
    pub(crate) expires: u32,
}

impl Contents for Remember {
    fn write(&self, kid: u8, body: &mut Vec<u8>) {
        let terms = &self.terms;
        body.extend([FORMAT, kid, terms.origin.flags()]);
        body.extend(terms.nonce);
        body.extend(terms.issued.to_be_bytes());
        body.extend(terms.expires.to_be_bytes());
        body.push(terms.origin.factor_classes);
        body.extend(self.stamp.to_be_bytes());
        body.extend(self.user.as_bytes());
    }

    fn read(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let flags = fields.head(FORMAT, FORCED)?;
        Some(Self {
            terms: RememberTerms {
                nonce: fields.array()?,
                issued: fields.u32()?,
                expires: fields.u32()?,
                origin: Origin::read(flags, &mut fields)?,
            },
            stamp: fields.u64()?,
            user: fields.rest()?.into(),
        })
    }

    fn len(&self) -> usize {
        FIXED + self.user.as_bytes().len()
    }
}

impl ByRecency for Remember {
    fn same_user(&self, other: &Self) -> bool {
        self.user == other.user
    }

    fn recency(&self) -> (u32, u32) {
        (self.terms.issued, 0)
    }
}
