//! From cookies to a user: the walk of either kind of login, then the request loaders.

use std::sync::Arc;

use tower_keep_core::{AuthUser, UserId};

use super::handle::Login;
use super::snapshot::{Genuine, Snapshot};
use super::state::Resolved;
use super::{stateless, tracked};
use crate::keys::KeySlot;
use crate::layer::Config;
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

pub(super) async fn resolve<U: AuthUser>(
    login: &Login<U>,
    purpose: Purpose,
) -> Result<Resolved<U>, Fault> {
    let (config, snapshot) = (login.config(), &login.0.snapshot);
    config.raise(Event::Accessed);
    match (&login.presented().genuine, &config.sessions) {
        (Genuine::Tracked { session, remember }, Some(sessions)) => {
            let walk = tracked::Walk { config, sessions, snapshot };
            walk.resolve(session.as_ref(), remember.as_ref(), purpose).await
        }
        (Genuine::Stateless { session, remember }, _) => {
            stateless::resolve(config, snapshot, session.as_ref(), remember.as_ref()).await
        }
        // Cookies with records are opened only where there are records.
        (Genuine::Tracked { .. }, None) => Err(Fault::NO_SESSIONS),
    }
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
    config: &Config<U>,
    snapshot: &Snapshot,
) -> Result<Option<Arc<U>>, Fault> {
    for loader in &config.loaders {
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
