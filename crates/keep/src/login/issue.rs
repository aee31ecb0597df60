//! Making cookies out: for this user, this client, under the current key.

use tower_keep_core::AuthUser;

use super::snapshot::Snapshot;
use crate::client;
use crate::cookie::{
    LARGEST_COOKIE, Remember, RememberTerms, Sealer, Session, SessionTerms, Template,
};
use crate::keys::KeySlot;
use crate::layer::Config;
use crate::{Fault, LogInError, random};

/// The terms of a session that begins now. No part of an earlier one enters it.
pub(super) fn new_terms(now: u32, fresh: bool, flags: u8) -> Result<SessionTerms, Fault> {
    let nonce = random::bytes()?;
    // Zero stands for "not fresh", whatever the clock says.
    let fresh = if fresh { now.max(1) } else { 0 };
    Ok(SessionTerms { flags, nonce, started: now, renewed: now, fresh })
}

pub(super) fn issue_session<U: AuthUser>(
    config: &Config<U>,
    user: &U,
    terms: SessionTerms,
    client: u64,
) -> Session {
    let id = user.id();
    let stamp = config.keyring.stamp(KeySlot::CURRENT, id.as_bytes(), &user.stamp());
    Session { terms, stamp, client, user: id }
}

pub(super) fn issue_remember<U: AuthUser>(
    config: &Config<U>,
    user: &U,
    terms: RememberTerms,
) -> Remember {
    let id = user.id();
    let stamp = config.keyring.stamp(KeySlot::CURRENT, id.as_bytes(), &user.stamp());
    Remember { terms, stamp, user: id }
}

/// The digest of the client that sends this request.
pub(super) fn client_digest<U>(config: &Config<U>, snapshot: &Snapshot, slot: KeySlot) -> u64 {
    let Snapshot { user_agent, request, .. } = snapshot;
    client::identify(config.client_match, request.client, user_agent.as_ref(), |parts| {
        config.keyring.client(slot, parts)
    })
}

/// Refuses a cookie that browsers would drop without a word.
pub(super) fn check_size<T: crate::cookie::Contents>(
    template: &Template,
    contents: &T,
) -> Result<(), LogInError> {
    let size = template.name().len() + Sealer::sealed_len(contents);
    if size > LARGEST_COOKIE {
        return Err(LogInError::CookieTooLarge { size, limit: LARGEST_COOKIE });
    }
    Ok(())
}
