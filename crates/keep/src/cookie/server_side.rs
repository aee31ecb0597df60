//! The cookies of a login with a server-side session. Both name the session, and the generation
//! that they belong to.
//!
//! Session: `fmt1 kid1 flags1 sid16 gen4 issued4 fresh4 stamp8 client8 uid`, 47 bytes and the
//! user's id. Remember: `fmt1 kid1 flags1 sid16 gen4 verifier16 expires4 stamp8`, 51 bytes.

use std::fmt;

use sha2::{Digest, Sha256};
use tower_keep_core::{SessionKey, UserId};

use super::body::Fields;
use super::session::FLAGS;
use super::{Contents, Ranked};

const FORMAT: u8 = 1;
const SESSION: usize = 47;
const REMEMBER: usize = 51;

/// A session's id. Only the session's cookies hold it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SessionId(pub(crate) [u8; 16]);

impl SessionId {
    /// Returns the key that the session record is stored under.
    pub(crate) fn key(self) -> SessionKey {
        SessionKey::new(Sha256::digest(self.0).into())
    }
}

/// Shows no part of the id.
impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(…)")
    }
}

/// The contents of a session cookie. It proves that the browser holds a session.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ServerSession {
    pub(crate) id: SessionId,
    pub(crate) terms: ServerTerms,
    /// The keyed digest of the user's security stamp.
    pub(crate) stamp: u64,
    /// The keyed digest of the client that the session was made for.
    pub(crate) client: u64,
    /// The id of the user whom the record most probably names. It is empty if the id is too long
    /// for a cookie.
    pub(crate) user_hint: UserId,
}

/// The part of a session cookie that the rules decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ServerTerms {
    pub(crate) flags: u8,
    pub(crate) generation: u32,
    pub(crate) issued: u32,
    /// When the user last proved who they are; 0 if the remember cookie restored the login.
    pub(crate) fresh: u32,
}

impl ServerSession {
    /// The longest id that the cookie holds, in bytes. Longer ids are left out; the record has
    /// them.
    pub(crate) const LONGEST_USER_HINT: usize = 1_024;
}

impl Contents for ServerSession {
    fn write(&self, kid: u8, body: &mut Vec<u8>) {
        let terms = &self.terms;
        body.extend([FORMAT, kid, terms.flags]);
        body.extend(self.id.0);
        body.extend(terms.generation.to_be_bytes());
        body.extend(terms.issued.to_be_bytes());
        body.extend(terms.fresh.to_be_bytes());
        body.extend(self.stamp.to_be_bytes());
        body.extend(self.client.to_be_bytes());
        body.extend(self.user_hint.as_bytes());
    }

    fn read(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let flags = fields.head(FORMAT, FLAGS)?;
        Some(Self {
            id: SessionId(fields.array()?),
            terms: ServerTerms {
                flags,
                generation: fields.u32()?,
                issued: fields.u32()?,
                fresh: fields.u32()?,
            },
            stamp: fields.u64()?,
            client: fields.u64()?,
            user_hint: fields.rest()?.into(),
        })
    }

    fn len(&self) -> usize {
        SESSION + self.user_hint.as_bytes().len()
    }
}

impl Ranked for ServerSession {
    fn same_user(&self, other: &Self) -> bool {
        let is_known = !self.user_hint.as_bytes().is_empty();
        self.id == other.id || is_known && self.user_hint == other.user_hint
    }

    fn rank(&self) -> (u32, u32) {
        (self.terms.issued, self.terms.generation)
    }
}

/// The contents of a remember cookie. It restores a session after the browser was closed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ServerRemember {
    pub(crate) id: SessionId,
    pub(crate) flags: u8,
    pub(crate) generation: u32,
    pub(crate) verifier: Verifier,
    pub(crate) expires: u32,
    /// The keyed digest of the user's security stamp.
    pub(crate) stamp: u64,
}

/// Proves that a remember cookie belongs to its record.
///
/// It is derived from the key, the record's salt, the session and the generation, and is stored
/// nowhere. So a request that loses a race for the next generation derives the same verifier.
pub(crate) type Verifier = [u8; 16];

impl Contents for ServerRemember {
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
        let flags = fields.head(FORMAT, FLAGS)?;
        let read = Self {
            id: SessionId(fields.array()?),
            flags,
            generation: fields.u32()?,
            verifier: fields.array()?,
            expires: fields.u32()?,
            stamp: fields.u64()?,
        };
        fields.rest()?.is_empty().then_some(read)
    }

    fn len(&self) -> usize {
        REMEMBER
    }
}

impl Ranked for ServerRemember {
    /// The cookies don't say whether two sessions belong to one user, so they count as sessions of
    /// two users.
    fn same_user(&self, other: &Self) -> bool {
        self.id == other.id
    }

    fn rank(&self) -> (u32, u32) {
        (self.generation, self.expires)
    }
}
