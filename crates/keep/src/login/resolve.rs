//! Resolving cookies to a user: what both kinds of login have in common.

use std::sync::Arc;

use tower_keep_core::{AuthUser, UserId};

use super::snapshot::Snapshot;
use crate::AuthError;
use crate::event::Event;
use crate::keys::KeySlot;
use crate::layer::Config;
use crate::loader::RequestLoader;
use crate::rules::Facts;

/// Why the login is resolved.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Purpose {
    /// For anything except logging out.
    Use,
    /// For logging out: nothing is reissued.
    LogOut,
}

/// Returns what the rules need to know about a user. For each cookie, the arguments hold the key it
/// was made under, the id it was made for, and the digest of the security stamp in it.
#[inline]
pub(super) fn facts<U: AuthUser>(
    config: &Config<U>,
    user: &U,
    session: Option<(KeySlot, &UserId, u64)>,
    remember: Option<(KeySlot, &UserId, u64)>,
) -> Facts {
    let stamp = user.security_stamp();
    let holds = |(slot, id, digest): (KeySlot, &UserId, u64)| {
        config.keyring.stamp_digest(slot, id.as_bytes(), &stamp) == digest
    };
    Facts {
        active: user.is_active(),
        session_stamp_holds: session.is_some_and(holds),
        remember_stamp_holds: remember.is_some_and(holds),
    }
}

pub(super) async fn ask_loaders<U: AuthUser>(
    loaders: &[Arc<dyn RequestLoader<U>>],
    snapshot: &Snapshot,
) -> Result<Option<Arc<U>>, AuthError> {
    for loader in loaders {
        if let Some(user) = loader.load(&snapshot.request).await? {
            // An inactive user is not logged in, and no other loader is asked.
            return Ok(Some(user).filter(|user| user.is_active()));
        }
    }
    Ok(None)
}

pub(super) fn raise_events<U>(
    config: &Config<U>,
    is_protected: bool,
    is_restored: bool,
    user: Option<&Arc<U>>,
    asked_loaders: bool,
) {
    if is_protected {
        config.raise(Event::SessionProtected);
    }
    let Some(user) = user.cloned() else { return };
    if asked_loaders {
        config.raise(Event::LoadedFromRequest { user });
    } else if is_restored {
        config.raise(Event::Restored { user });
    }
}
