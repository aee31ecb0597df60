//! What the tests of both kinds of rules have in common.

use super::policy::Policy;
use super::shared_rules::UserFacts;
use crate::client::SessionProtection;
use crate::cookie::contents::Opened;
use crate::cookie::key_slot::KeySlot;
use crate::cookie::login_origin::LoginOrigin;

pub(crate) const NOW: u32 = 100_000;
pub(crate) const GRACE: u32 = 60;
pub(crate) const IDLE: u32 = 1_000;
pub(crate) const ABSOLUTE: u32 = 10_000;
pub(crate) const TOUCH: u32 = 100;

/// The login of an inactive user.
pub(crate) const FORCED: LoginOrigin = LoginOrigin { is_forced: true, ..LoginOrigin::PASSWORD };

pub(crate) fn policy() -> Policy {
    Policy {
        protection: SessionProtection::Basic,
        is_persistent: false,
        idle_limit: Some(IDLE),
        renewal_age: Some(Policy::renewal_age_for(IDLE)),
        absolute_limit: Some(ABSOLUTE),
        refreshes_remember: false,
        grace: GRACE,
        touch_interval: TOUCH,
        marks_first_use: false,
    }
}

/// Returns a cookie that was sealed under the current key.
pub(crate) fn opened<T>(cookie: T) -> Opened<T> {
    Opened { cookie, slot: KeySlot::CURRENT }
}

/// The user that the store returns.
#[derive(Clone, Copy)]
pub(crate) enum User {
    Gone,
    StampChanged,
    Inactive,
    Fine,
}

impl User {
    pub(crate) fn facts(self) -> Option<UserFacts> {
        let (is_active, matches) = match self {
            Self::Gone => return None,
            Self::StampChanged => (true, false),
            Self::Inactive => (false, true),
            Self::Fine => (true, true),
        };
        let (session_stamp_matches, remember_stamp_matches) = (matches, matches);
        Some(UserFacts { is_active, session_stamp_matches, remember_stamp_matches })
    }
}
