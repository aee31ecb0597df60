//! The session cookie.
//!
//! Layout: `fmt: u8, kid: u8, flags: u8, nonce: [u8; 8], started: u32, renewed: u32, classes: u8,
//! n: u8, (factor: u8, time: u32)×n, stamp: u64, client: u64, uid`. In total, 37 bytes, 5 for each
//! of the n proofs, and the user's id.
//!
//! `cookie/mod.rs` explains the notation.

use tower_keep_core::UserId;

use crate::cookie::body::Fields;
use crate::cookie::choose::ByRecency;
use crate::cookie::contents::Contents;
use crate::cookie::login_origin::{
    FORCED_FLAG, LoginOrigin, Proofs, REMEMBERED_FLAG, session_flags,
};

const FORMAT: u8 = 1;
/// The length of the body without the proofs, their number `n`, and the user's id.
const FIXED_BYTES: usize = 36;

/// Random bytes that make the cookies of any two logins differ.
pub(crate) type Nonce = [u8; 8];

/// The contents of a session cookie: one login of one user in one browser.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Session {
    pub(crate) terms: SessionTerms,
    pub(crate) proofs: Proofs,
    /// The keyed digest of the user's security stamp.
    pub(crate) stamp: u64,
    /// The keyed digest of the client that logged in.
    pub(crate) client: u64,
    pub(crate) user: UserId,
}

/// The part of a session cookie that the rules decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SessionTerms {
    pub(crate) login_origin: LoginOrigin,
    /// Whether the login also set a remember cookie. A logout clears that cookie even if the
    /// request did not send it.
    pub(crate) is_remembered: bool,
    pub(crate) nonce: Nonce,
    pub(crate) started: u32,
    pub(crate) renewed: u32,
}

impl Contents for Session {
    fn write(&self, kid: u8, body: &mut Vec<u8>) {
        let terms = &self.terms;
        body.extend([FORMAT, kid, session_flags(terms.login_origin, terms.is_remembered)]);
        body.extend(terms.nonce);
        body.extend(terms.started.to_be_bytes());
        body.extend(terms.renewed.to_be_bytes());
        body.push(terms.login_origin.factor_classes);
        self.proofs.write(body);
        body.extend(self.stamp.to_be_bytes());
        body.extend(self.client.to_be_bytes());
        body.extend(self.user.as_bytes());
    }

    fn read(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let flags = fields.head(FORMAT, FORCED_FLAG | REMEMBERED_FLAG)?;
        Some(Self {
            terms: SessionTerms {
                is_remembered: flags & REMEMBERED_FLAG != 0,
                nonce: fields.array()?,
                started: fields.u32()?,
                renewed: fields.u32()?,
                login_origin: LoginOrigin::read(flags, &mut fields)?,
            },
            proofs: Proofs::read(&mut fields)?,
            stamp: fields.u64()?,
            client: fields.u64()?,
            user: fields.rest()?.into(),
        })
    }

    fn encoded_len(&self) -> usize {
        FIXED_BYTES + self.proofs.encoded_len() + self.user.as_bytes().len()
    }
}

impl ByRecency for Session {
    fn is_same_user(&self, other: &Self) -> bool {
        self.user == other.user
    }

    fn recency(&self) -> (u32, u32) {
        (self.terms.renewed, 0)
    }
}
