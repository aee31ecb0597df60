//! Resolving cookies to a user: the steps that are the same with and without server-side sessions.

use std::sync::Arc;

use tower_keep_core::{AuthUser, UserId};

use super::issue::client_digest;
use super::shared_rules::UserFacts;
use super::snapshot::Snapshot;
use crate::client::SessionProtection;
use crate::cookie::key_slot::KeySlot;
use crate::error::AuthError;
use crate::event::Event;
use crate::layer::config::Config;
use crate::loader::RequestLoader;

/// For which call the login is resolved.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Purpose {
    /// For any call except a logout.
    Use,
    /// For a logout: no session is rotated, and no cookie is reissued.
    LogOut,
}

/// Checks whether the session cookie was issued to the client that sent the request. `session` holds
/// the key that sealed the cookie, and its digest of the client. Without session protection or
/// without a session cookie, returns `true`.
pub(super) fn is_same_client<U>(
    config: &Config<U>,
    snapshot: &Snapshot,
    session: Option<(KeySlot, u64)>,
) -> bool {
    config.policy.protection == SessionProtection::None
        || session.is_none_or(|(slot, client)| client_digest(config, snapshot, slot) == client)
}

/// Returns what the rules need to know about a user. `session` and `remember` describe the
/// two cookies: the key that sealed the cookie, the id of its user, and its digest of the security
/// stamp.
#[inline]
pub(super) fn user_facts<U: AuthUser>(
    config: &Config<U>,
    user: &U,
    session: Option<(KeySlot, &UserId, u64)>,
    remember: Option<(KeySlot, &UserId, u64)>,
) -> UserFacts {
    let stamp = user.security_stamp();
    let matches = |(slot, id, digest): (KeySlot, &UserId, u64)| {
        config.keyring.stamp_digest(slot, id.as_bytes(), &stamp) == digest
    };
    UserFacts {
        is_active: user.is_active(),
        session_stamp_matches: session.is_some_and(matches),
        remember_stamp_matches: remember.is_some_and(matches),
    }
}

/// Returns the user whom the first successful loader has found, or `None` if that user is inactive
/// or no loader has found one.
pub(super) async fn ask_loaders<U: AuthUser>(
    loaders: &[Arc<dyn RequestLoader<U>>],
    snapshot: &Snapshot,
) -> Result<Option<Arc<U>>, AuthError> {
    for loader in loaders {
        if let Some(user) = loader.load(&snapshot.request).await? {
            // If the user is inactive, no other loader is asked.
            return Ok(Some(user).filter(|user| user.is_active()));
        }
    }
    Ok(None)
}

pub(super) fn raise_events<U>(
    config: &Config<U>,
    is_other_client: bool,
    is_restored: bool,
    user: Option<&Arc<U>>,
    asked_loaders: bool,
) {
    if is_other_client {
        config.raise(Event::SessionProtected);
    }
    let Some(user) = user.cloned() else { return };
    if asked_loaders {
        config.raise(Event::LoadedFromRequest { user });
    } else if is_restored {
        config.raise(Event::Restored { user });
    }
}
