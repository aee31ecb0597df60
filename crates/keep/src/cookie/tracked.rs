//! The cookies of a login that has a record: both point to it, and say which generation they are.
//!
//! Session: `fmt1 kid1 flags1 sid16 gen4 issued4 fresh4 stamp8 client8 uid`, 47 bytes and the id.
//! Remember: `fmt1 kid1 flags1 sid16 gen4 verifier16 expires4 stamp8`, 51 bytes.

use std::fmt;

use sha2::{Digest, Sha256};
use tower_keep_core::{SessionKey, UserId};

use super::body::Fields;
use super::{Contents, Ranked};

const FORMAT: u8 = 1;
const SESSION: usize = 47;
const REMEMBER: usize = 51;

/// Names a session, in its cookies alone.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SessionId(pub(crate) [u8; 16]);

impl SessionId {
    /// What its record is stored under.
    pub(crate) fn key(self) -> SessionKey {
        SessionKey::new(Sha256::digest(self.0).into())
    }
}

/// Shows nothing of it.
impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(…)")
    }
}

/// Proves that the browser holds a session.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TrackedSession {
    pub(crate) id: SessionId,
    pub(crate) terms: TrackedTerms,
    /// The keyed digest of the user's stamp.
    pub(crate) stamp: u64,
    /// The keyed digest of the client that the session was made for.
    pub(crate) client: u64,
    /// Whom the record most probably names; empty where the id is too long for a cookie.
    pub(crate) likely: UserId,
}

/// What the rules decide about a session's cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TrackedTerms {
    pub(crate) flags: u8,
    pub(crate) generation: u32,
    pub(crate) issued: u32,
    /// When the user last proved who they are; 0 for one who was restored.
    pub(crate) fresh: u32,
}

impl TrackedSession {
    /// Longer ids are left out; the record has them.
    pub(crate) const LONGEST_LIKELY: usize = 1_024;
}

impl Contents for TrackedSession {
    fn write(&self, kid: u8, body: &mut Vec<u8>) {
        let terms = &self.terms;
        body.extend([FORMAT, kid, terms.flags]);
        body.extend(self.id.0);
        body.extend(terms.generation.to_be_bytes());
        body.extend(terms.issued.to_be_bytes());
        body.extend(terms.fresh.to_be_bytes());
        body.extend(self.stamp.to_be_bytes());
        body.extend(self.client.to_be_bytes());
        body.extend(self.likely.as_bytes());
    }

    fn read(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let [format, _kid, flags] = fields.array()?;
        if format != FORMAT {
            return None;
        }
        Some(Self {
            id: SessionId(fields.array()?),
            terms: TrackedTerms {
                flags,
                generation: fields.u32()?,
                issued: fields.u32()?,
                fresh: fields.u32()?,
            },
            stamp: fields.u64()?,
            client: fields.u64()?,
            likely: fields.rest()?.into(),
        })
    }

    fn len(&self) -> usize {
        SESSION + self.likely.as_bytes().len()
    }
}

impl Ranked for TrackedSession {
    fn same_user(&self, other: &Self) -> bool {
        let is_known = !self.likely.as_bytes().is_empty();
        self.id == other.id || is_known && self.likely == other.likely
    }

    fn rank(&self) -> (u32, u32) {
        (self.terms.issued, self.terms.generation)
    }
}

/// Brings a session back after the browser was closed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TrackedRemember {
    pub(crate) id: SessionId,
    pub(crate) flags: u8,
    pub(crate) generation: u32,
    pub(crate) verifier: Verifier,
    pub(crate) expires: u32,
    /// The keyed digest of the user's stamp.
    pub(crate) stamp: u64,
}

/// Derived from the key, the record's salt, the session and the generation; stored nowhere. So
/// whoever loses a race for the next generation derives the same one.
pub(crate) type Verifier = [u8; 16];

impl Contents for TrackedRemember {
    fn write(&self, kid: u8, body: &mut Vec<u8>) {
        body.extend([FORMAT, kid, self.flags]);
        body.extend(self.id.0);
        body.extend(self.generation.to_be_bytes());
        body.extend(self.verifier);
        body.extend(self.expires.to_be_bytes());
        body.extend(self.stamp.to_be_bytes());
    }

    fn read(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let [format, _kid, flags] = fields.array()?;
        let read = Self {
            id: SessionId(fields.array()?),
            flags,
            generation: fields.u32()?,
            verifier: fields.array()?,
            expires: fields.u32()?,
            stamp: fields.u64()?,
        };
        (format == FORMAT && fields.rest()?.is_empty()).then_some(read)
    }

    fn len(&self) -> usize {
        REMEMBER
    }
}

impl Ranked for TrackedRemember {
    /// Of two sessions it can't be told whether they are one user's, so they count as two users'.
    fn same_user(&self, other: &Self) -> bool {
        self.id == other.id
    }

    fn rank(&self) -> (u32, u32) {
        (self.generation, self.expires)
    }
}
