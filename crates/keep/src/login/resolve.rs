//! From cookies to a user: what both kinds of login have in common.

use std::sync::Arc;

use tower_keep_core::{AuthUser, UserId};

use super::snapshot::Snapshot;
use crate::keys::KeySlot;
use crate::layer::Config;
use crate::loader::RequestLoader;
use crate::rules::Facts;
use crate::{Event, Fault};

/// What somebody asks for who a user is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Purpose {
    /// Anything but logging out.
    Stay,
    /// Logging out: nothing is made out anew.
    Leave,
}

/// What the rules need to know of a user, given the stamps of the cookies: under which key each was
/// made, for which id, and its digest.
#[inline]
pub(super) fn facts<U: AuthUser>(
    config: &Config<U>,
    user: &U,
    session: Option<(KeySlot, &UserId, u64)>,
    remember: Option<(KeySlot, &UserId, u64)>,
) -> Facts {
    let stamp = user.stamp();
    let holds = |(slot, id, digest): (KeySlot, &UserId, u64)| {
        config.keyring.stamp(slot, id.as_bytes(), &stamp) == digest
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
) -> Result<Option<Arc<U>>, Fault> {
    for loader in loaders {
        if let Some(user) = loader.load(&snapshot.request).await? {
            // An inactive user is nobody, and no other loader is asked for a second opinion.
            return Ok(Some(user).filter(|user| user.is_active()));
        }
    }
    Ok(None)
}

pub(super) fn announce<U>(
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
