//! Known devices: browsers in which the user has completed a login.

use tower_keep_core::AuthUser;

use super::handle::AuthSession;
use super::state::{CheckedPassword, CookieChange};
use crate::client::limited_bytes;
use crate::cookie::choose::choose;
use crate::cookie::contents::Opened;
use crate::cookie::device::DeviceCookie;
use crate::cookie::key_slot::KeySlot;
use crate::random;
use crate::throttle::limit::{Limit, LimitUse};

impl<U: AuthUser> AuthSession<U> {
    /// Returns the device cookie that the request sent, if it has a valid signature and has not
    /// expired.
    fn device_cookie(&self) -> Option<Opened<DeviceCookie>> {
        self.mark_cookie_dependent();
        let config = self.config();
        let [found] = self.0.snapshot.cookies.find([config.device_cookie.name()]);
        let opened = choose::<DeviceCookie>(&found, &config.keyring.device);
        opened.filter(|opened| config.now() < opened.cookie.expires)
    }

    /// Whether the request sent a device cookie, of whichever user.
    #[cfg(feature = "password")]
    pub(crate) fn has_device_cookie(&self) -> bool {
        self.device_cookie().is_some()
    }

    /// Returns the number of this browser if it is a known device of the user. A device cookie ends
    /// when the user gets a new security stamp.
    pub(crate) fn known_device(&self, user: &U) -> Option<[u8; 8]> {
        let Opened { cookie, slot } = self.device_cookie()?;
        let id = user.id();
        let digest = |stamp: &[u8]| self.config().keyring.stamp_digest(slot, id.as_bytes(), stamp);
        let is_known = cookie.user == id && cookie.stamp == digest(&user.security_stamp());
        is_known.then_some(cookie.device)
    }

    /// Makes this browser a known device of the user. A browser that was one before keeps its
    /// number, so that it keeps its limit. If there are no random bytes, this is only logged,
    /// because the login is complete.
    pub(super) fn make_device_known(&self, user: &U, device: Option<[u8; 8]>) {
        let (config, id) = (self.config(), user.id());
        let device = match device.or_else(|| self.known_device(user)).map_or_else(random::bytes, Ok)
        {
            Ok(device) => device,
            Err(error) => return error.log(),
        };
        let stamp =
            config.keyring.stamp_digest(KeySlot::CURRENT, id.as_bytes(), &user.security_stamp());
        let expires = config.now().saturating_add(DeviceCookie::LIFETIME);
        let cookie = DeviceCookie { expires, device, stamp, user: id };
        let sealed = config.keyring.device.seal(&cookie);
        let header = config.device_cookie.set(&sealed, Some(DeviceCookie::LIFETIME));
        self.state().device_cookie = CookieChange::set_or_keep(header);
    }

    /// Returns a use of this limit that is counted by the client's address; see
    /// [`throttle`](crate::throttle#limits-by-address). If it can't be counted by the address, the
    /// use is not counted, and never refused.
    ///
    /// ```
    /// use tower_keep::throttle::{CounterRule, Limit, LimitError, Limiter};
    /// use tower_keep::{Account, AuthSession};
    ///
    /// /// Twenty in an hour.
    /// const SIGN_UPS: Limit = Limit::new("sign-ups", CounterRule::window(20, 3_600));
    ///
    /// async fn may_sign_up(
    ///     limiter: &Limiter,
    ///     auth: &AuthSession<Account>,
    /// ) -> Result<(), LimitError> {
    ///     limiter.take(&[auth.limit_by_address(&SIGN_UPS)]).await.map(drop)
    /// }
    /// ```
    pub fn limit_by_address(&self, limit: &Limit) -> LimitUse {
        match self.config().limited_address(self.client_addr()) {
            Some(address) => limit.of(limited_bytes(address)),
            None => limit.of_nothing(),
        }
    }

    /// Completes a login or a confirmation of this user: resets the limits that wrong passwords
    /// have used up, and makes the browser a known device.
    ///
    /// `is_known` says whether to do the latter; by default, if the password was checked.
    pub(super) async fn complete_login(&self, user: &U, is_known: Option<bool>) {
        let checked = self.take_checked(user);
        if is_known.unwrap_or(checked.is_some()) && !self.is_bearer_request() {
            self.make_device_known(user, None);
        }
        if let Some(checked) = checked {
            // A failure is only logged, because the login is complete.
            let _ = checked.limiter.reset_keys(&checked.reset).await;
        }
    }

    /// Keeps what a right password of this user proves, until the login is completed.
    #[cfg(feature = "password")]
    pub(crate) fn keep_checked(&self, checked: CheckedPassword) {
        self.state().checked = Some(Box::new(checked));
    }

    /// Returns what this request has proved about the user, once.
    fn take_checked(&self, user: &U) -> Option<Box<CheckedPassword>> {
        let mut state = self.state();
        if state.checked.as_ref().is_some_and(|checked| checked.user == user.id()) {
            state.checked.take()
        } else {
            None
        }
    }
}
