//! The cookies of a login with a server-side session. Both contain the id of the session, and the
//! *generation*: how many times the cookies of this login were rotated, which means replaced by new
//! cookies.
//!
//! Layouts:
//!
//! - Session cookie: `fmt: u8, kid: u8, flags: u8, sid: [u8; 16], gen: u32, issued: u32, classes:
//!   u8, n: u8, (factor: u8, time: u32)×n, stamp: u64, client: u64, uid`. In total, 45 bytes, 5 for
//!   each of the n proofs, and the user's id.
//! - Remember cookie: `fmt: u8, kid: u8, flags: u8, sid: [u8; 16], gen: u32, verifier: [u8; 16],
//!   expires: u32, classes: u8, stamp: u64`. In total, 52 bytes.
//!
//! `cookie/mod.rs` explains the notation.

use std::fmt;

use sha2::{Digest, Sha256};
use tower_keep_core::{SessionKey, UserId};

use crate::cookie::body::Fields;
use crate::cookie::choose::ByRecency;
use crate::cookie::contents::Contents;
use crate::cookie::login_origin::{
    FORCED_FLAG, LoginOrigin, Proofs, REMEMBERED_FLAG, session_flags,
};

const FORMAT: u8 = 1;
/// The length of a session cookie's body without the proofs, their number `n`, and the user's id.
const SESSION_FIXED_BYTES: usize = 44;
/// The length of a remember cookie's body.
const REMEMBER_BYTES: usize = 52;

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

/// The contents of a session cookie, which proves that the browser holds the session.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ServerSession {
    pub(crate) id: SessionId,
    pub(crate) terms: ServerTerms,
    pub(crate) proofs: Proofs,
    /// The keyed digest of the user's security stamp.
    pub(crate) stamp: u64,
    /// The keyed digest of the client that the session was made for.
    pub(crate) client: u64,
    /// The user's id, with which the user can be loaded together with the record. `None` if the id
    /// is empty or too long for a cookie.
    pub(crate) user_hint: Option<UserId>,
}

/// The part of a session cookie that the rules decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ServerTerms {
    pub(crate) login_origin: LoginOrigin,
    /// Whether the browser also holds a remember cookie of this login.
    pub(crate) is_remembered: bool,
    pub(crate) generation: u32,
    pub(crate) issued: u32,
}

impl ServerSession {
    /// The cookie holds a user id of at most this many bytes. A longer id is only in the record.
    const MAX_USER_HINT_BYTES: usize = 1_024;

    /// Returns this id as a hint, or `None` if it is too long for the cookie or empty. In the
    /// cookie, zero bytes mean that there is no hint.
    pub(crate) fn user_hint(id: &UserId) -> Option<UserId> {
        (1..=Self::MAX_USER_HINT_BYTES).contains(&id.as_bytes().len()).then(|| id.clone())
    }

    fn user_hint_bytes(&self) -> &[u8] {
        self.user_hint.as_ref().map_or(&[], UserId::as_bytes)
    }
}

impl Contents for ServerSession {
    fn write(&self, kid: u8, body: &mut Vec<u8>) {
        let terms = &self.terms;
        body.extend([FORMAT, kid, session_flags(terms.login_origin, terms.is_remembered)]);
        body.extend(self.id.0);
        body.extend(terms.generation.to_be_bytes());
        body.extend(terms.issued.to_be_bytes());
        body.push(terms.login_origin.factor_classes);
        self.proofs.write(body);
        body.extend(self.stamp.to_be_bytes());
        body.extend(self.client.to_be_bytes());
        body.extend(self.user_hint_bytes());
    }

    fn read(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let flags = fields.head(FORMAT, FORCED_FLAG | REMEMBERED_FLAG)?;
        Some(Self {
            id: SessionId(fields.array()?),
            terms: ServerTerms {
                is_remembered: flags & REMEMBERED_FLAG != 0,
                generation: fields.u32()?,
                issued: fields.u32()?,
                login_origin: LoginOrigin::read(flags, &mut fields)?,
            },
            proofs: Proofs::read(&mut fields)?,
            stamp: fields.u64()?,
            client: fields.u64()?,
            user_hint: Some(fields.rest()?).filter(|id| !id.is_empty()).map(UserId::from),
        })
    }

    fn encoded_len(&self) -> usize {
        SESSION_FIXED_BYTES + self.proofs.encoded_len() + self.user_hint_bytes().len()
    }
}

impl ByRecency for ServerSession {
    fn is_same_user(&self, other: &Self) -> bool {
        let has_hint = self.user_hint.is_some();
        self.id == other.id || has_hint && self.user_hint == other.user_hint
    }

    fn recency(&self) -> (u32, u32) {
        (self.terms.issued, self.terms.generation)
    }
}

/// The contents of a remember cookie, which restores a session after the browser was closed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ServerRemember {
    pub(crate) id: SessionId,
    pub(crate) login_origin: LoginOrigin,
    pub(crate) generation: u32,
    pub(crate) verifier: Verifier,
    pub(crate) expires: u32,
    /// The keyed digest of the user's security stamp.
    pub(crate) stamp: u64,
}

/// Proves that a remember cookie belongs to its record.
///
/// The layer derives it from the key, the record's salt, the session's id and the generation, and
/// stores it nowhere. So if two requests begin the next generation at the same time, the request
/// that loses the race derives the same verifier.
pub(crate) type Verifier = [u8; 16];

impl Contents for ServerRemember {
    fn write(&self, kid: u8, body: &mut Vec<u8>) {
        body.extend([FORMAT, kid, self.login_origin.flags()]);
        body.extend(self.id.0);
        body.extend(self.generation.to_be_bytes());
        body.extend(self.verifier);
        body.extend(self.expires.to_be_bytes());
        body.push(self.login_origin.factor_classes);
        body.extend(self.stamp.to_be_bytes());
    }

    fn read(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let flags = fields.head(FORMAT, FORCED_FLAG)?;
        let read = Self {
            id: SessionId(fields.array()?),
            generation: fields.u32()?,
            verifier: fields.array()?,
            expires: fields.u32()?,
            login_origin: LoginOrigin::read(flags, &mut fields)?,
            stamp: fields.u64()?,
        };
        fields.rest()?.is_empty().then_some(read)
    }

    fn encoded_len(&self) -> usize {
        REMEMBER_BYTES
    }
}

impl ByRecency for ServerRemember {
    /// The cookies don't say whether two sessions belong to one user, so two sessions count as
    /// sessions of two users.
    fn is_same_user(&self, other: &Self) -> bool {
        self.id == other.id
    }

    fn recency(&self) -> (u32, u32) {
        (self.generation, self.expires)
    }
}
