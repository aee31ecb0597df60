//! The login that a handler asks for.

use std::sync::Arc;

use tower_keep_core::AuthUser;

use super::state::Identity;
use crate::cookie::login_origin::{LoginOrigin, Proofs};

pub(super) struct RequestedLogin<U> {
    pub(super) user: Arc<U>,
    pub(super) login_origin: LoginOrigin,
    /// Empty if the login is not fresh.
    pub(super) proofs: Proofs,
    /// How long the remember cookie is valid; `None` if the login gets none.
    pub(super) remember_seconds: Option<u32>,
}

impl<U: AuthUser> RequestedLogin<U> {
    /// Returns who is logged in after this login.
    pub(super) fn identity(&self) -> Identity<U> {
        Identity::Session {
            user: Arc::clone(&self.user),
            fresh_since: self.proofs.newest(),
            is_active: self.user.is_active(),
        }
    }
}
