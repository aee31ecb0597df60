//! The store and the settings of a layer with server-side sessions.

use std::sync::Arc;

use tower_keep_core::{LoginStore, SessionLimit};

use crate::flash::Flash;
use crate::upkeep::Upkeep;

/// The store and the settings of a layer with server-side sessions, and its upkeep.
pub(crate) struct Sessions<U> {
    pub(crate) store: Arc<dyn LoginStore<User = U>>,
    pub(crate) limit: Option<SessionLimit>,
    /// The flash message at the next login of a user whose session has ended because of a replay.
    pub(crate) replay_flash: Option<Flash>,
    pub(crate) upkeep: Upkeep,
}
