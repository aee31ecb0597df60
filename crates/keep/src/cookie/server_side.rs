//! The cookies of a login with a server-side session. Both name the session, and the generation
//! that they belong to.
//!
//! Session: `fmt1 kid1 flags1 sid16 gen4 issued4 classes1 n1 (factor1 time4)×n stamp8 client8 uid`,
//! 45 bytes, 5 for each proof, and the user's id. Remember: `fmt1 kid1 flags1 sid16 gen4 verifier16
//! expires4 classes1 stamp8`, 52 bytes.

use std::fmt;

use sha2::{Digest, Sha256};
use tower_keep_core::{SessionKey, UserId};

use super::body::Fields;
use super::origin::{FORCED, Origin, Proofs, REMEMBERED};
use super::session::session_flags;
use super::{ByRecency, Contents};

const FORMAT: u8 = 1;
/// The length of a session cookie's body without proofs and user id.
const SESSION: usize = 44;
const REMEMBER: usize = 52;

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
    pub(crate) proofs: Proofs,
    /// The keyed digest of the user's security stamp.
    pub(crate) stamp: u64,
    /// The keyed digest of the client that the session was made for.
    pub(crate) client: u64,
    /// The id of the user whom the record most probably names, or `None` if the id is too long for
    /// a cookie.
    pub(crate) user_hint: Option<UserId>,
}

/// The part of a session cookie that the rules decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ServerTerms {
    pub(crate) origin: Origin,
    /// Whether the browser also holds a remember cookie of this login.
    pub(crate) is_remembered: bool,
    pub(crate) generation: u32,
    pub(crate) issued: u32,
}

impl ServerSession {
    /// The longest id that the cookie holds, in bytes. The record has longer ones.
    const LONGEST_USER_HINT: usize = 1_024;

    /// Returns this id as a hint, unless it is too long for the cookie or empty: without bytes, the
    /// cookie has no hint.
    pub(crate) fn user_hint(id: &UserId) -> Option<UserId> {
        (1..=Self::LONGEST_USER_HINT).contains(&id.as_bytes().len()).then(|| id.clone())
    }

    fn user_hint_bytes(&self) -> &[u8] {
        self.user_hint.as_ref().map_or(&[], UserId::as_bytes)
    }
}

impl Contents for ServerSession {
    fn write(&self, kid: u8, body: &mut Vec<u8>) {
        let terms = &self.terms;
        body.extend([FORMAT, kid, session_flags(terms.origin, terms.is_remembered)]);
        body.extend(self.id.0);
        body.extend(terms.generation.to_be_bytes());
        body.extend(terms.issued.to_be_bytes());
        body.push(terms.origin.factor_classes);
        self.proofs.write(body);
        body.extend(self.stamp.to_be_bytes());
        body.extend(self.client.to_be_bytes());
        body.extend(self.user_hint_bytes());
    }

    fn read(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let flags = fields.head(FORMAT, FORCED | REMEMBERED)?;
        Some(Self {
            id: SessionId(fields.array()?),
            terms: ServerTerms {
                is_remembered: flags & REMEMBERED != 0,
                generation: fields.u32()?,
                issued: fields.u32()?,
                origin: Origin::read(flags, &mut fields)?,
            },
            proofs: Proofs::read(&mut fields)?,
            stamp: fields.u64()?,
            client: fields.u64()?,
            user_hint: Some(fields.rest()?).filter(|id| !id.is_empty()).map(UserId::from),
        })
    }

    fn len(&self) -> usize {
        SESSION + self.proofs.len() + self.user_hint_bytes().len()
    }
}

impl ByRecency for ServerSession {
    fn same_user(&self, other: &Self) -> bool {
        let is_known = self.user_hint.is_some();
        self.id == other.id || is_known && self.user_hint == other.user_hint
    }

    fn recency(&self) -> (u32, u32) {
        (self.terms.issued, self.terms.generation)
    }
}

/// The contents of a remember cookie. It restores a session after the browser was closed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ServerRemember {
    pub(crate) id: SessionId,
    pub(crate) origin: Origin,
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
        body.extend([FORMAT, kid, self.origin.flags()]);
        body.extend(self.id.0);
        body.extend(self.generation.to_be_bytes());
        body.extend(self.verifier);
        body.extend(self.expires.to_be_bytes());
        body.push(self.origin.factor_classes);
        body.extend(self.stamp.to_be_bytes());
    }

    fn read(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let flags = fields.head(FORMAT, FORCED)?;
        let read = Self {
            id: SessionId(fields.array()?),
            generation: fields.u32()?,
            verifier: fields.array()?,
            expires: fields.u32()?,
            origin: Origin::read(flags, &mut fields)?,
            stamp: fields.u64()?,
        };
        fields.rest()?.is_empty().then_some(read)
    }

    fn len(&self) -> usize {
        REMEMBER
    }
}

impl ByRecency for ServerRemember {
    /// The cookies don't say whether two sessions belong to one user, so they count as sessions of
    /// two users.
    fn same_user(&self, other: &Self) -> bool {
        self.id == other.id
    }

    fn recency(&self) -> (u32, u32) {
        (self.generation, self.expires)
    }
}
