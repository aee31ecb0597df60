//! The session cookie.
//!
//! `fmt1 kid1 flags1 nonce8 started4 renewed4 fresh4 stamp8 client8 uid`: 39 bytes and the user's
//! id.

use tower_keep_core::UserId;

use super::body::Fields;
use super::{Contents, Ranked};

const FORMAT: u8 = 1;
const FIXED: usize = 39;

/// The application has logged the user in although the user is inactive.
pub(crate) const FORCED: u8 = 1;
/// This login also set a remember cookie. A logout clears that cookie even if the request did not
/// send it.
pub(crate) const REMEMBERED: u8 = 2;
/// All flags that this version knows.
pub(super) const FLAGS: u8 = FORCED | REMEMBERED;

/// Makes the cookies of any two logins differ.
pub(crate) type Nonce = [u8; 8];

/// One login of one user in one browser.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Session {
    pub(crate) terms: SessionTerms,
    /// The keyed digest of the user's security stamp.
    pub(crate) stamp: u64,
    /// The keyed digest of the client that logged in.
    pub(crate) client: u64,
    pub(crate) user: UserId,
}

/// The part of a session cookie that the rules decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SessionTerms {
    pub(crate) flags: u8,
    pub(crate) nonce: Nonce,
    pub(crate) started: u32,
    pub(crate) renewed: u32,
    /// When the user last proved who they are; 0 if the remember cookie restored the login.
    pub(crate) fresh: u32,
}

impl Contents for Session {
    fn write(&self, kid: u8, body: &mut Vec<u8>) {
        let terms = &self.terms;
        body.extend([FORMAT, kid, terms.flags]);
        body.extend(terms.nonce);
        body.extend(terms.started.to_be_bytes());
        body.extend(terms.renewed.to_be_bytes());
        body.extend(terms.fresh.to_be_bytes());
        body.extend(self.stamp.to_be_bytes());
        body.extend(self.client.to_be_bytes());
        body.extend(self.user.as_bytes());
    }

    fn read(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let flags = fields.head(FORMAT, FLAGS)?;
        Some(Self {
            terms: SessionTerms {
                flags,
                nonce: fields.array()?,
                started: fields.u32()?,
                renewed: fields.u32()?,
                fresh: fields.u32()?,
            },
            stamp: fields.u64()?,
            client: fields.u64()?,
            user: fields.rest()?.into(),
        })
    }

    fn len(&self) -> usize {
        FIXED + self.user.as_bytes().len()
    }
}

impl Ranked for Session {
    fn same_user(&self, other: &Self) -> bool {
        self.user == other.user
    }

    fn rank(&self) -> (u32, u32) {
        (self.terms.renewed, 0)
    }
}
