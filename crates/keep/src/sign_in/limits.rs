//! The limits of a sign-in.

use crate::throttle::{CounterRule, Limit};

const DAY: u32 = 24 * 3_600;

/// How often passwords may be tried; see the [table](crate::sign_in#the-limits) of the defaults.
///
/// ```
/// use tower_keep::sign_in::SignInLimits;
/// use tower_keep::throttle::CounterRule;
///
/// let mut limits = SignInLimits::default();
/// limits.by_address = CounterRule::window(1_000, 3_600); // a university behind one address
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SignInLimits {
    /// Wrong passwords from one address, or from one /64 network of IPv6. Keep it wide: many users
    /// may share an address.
    pub by_address: CounterRule,
    /// Attempts for one login name, and for one user, from unknown devices.
    pub by_name: CounterRule,
    /// Attempts from one known device of a user.
    pub by_device: CounterRule,
    /// Wrong passwords from all known devices of a user together, so that a thousand copied device
    /// cookies gain nothing.
    pub by_all_devices: CounterRule,
}

impl Default for SignInLimits {
    fn default() -> Self {
        let growing = CounterRule::growing(5, 30, 3_600, 100, 7 * DAY);
        Self {
            by_address: CounterRule::window(100, 3_600),
            by_name: growing,
            by_device: growing,
            by_all_devices: CounterRule::window(100, DAY),
        }
    }
}

impl SignInLimits {
    pub(super) const fn address(&self) -> Limit {
        Limit::new("sign-in by address", self.by_address)
    }

    pub(super) const fn name(&self) -> Limit {
        Limit::new("sign-in by name", self.by_name)
    }

    pub(super) const fn user(&self) -> Limit {
        Limit::new("sign-in by user", self.by_name)
    }

    pub(super) const fn device(&self) -> Limit {
        Limit::new("sign-in by device", self.by_device)
    }

    pub(super) const fn all_devices(&self) -> Limit {
        Limit::new("sign-in by all devices", self.by_all_devices)
    }
}
