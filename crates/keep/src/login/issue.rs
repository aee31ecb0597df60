//! Issuing cookies to the client that sent the request, under the current key.

use http::HeaderValue;
use tower_keep_core::{AuthUser, UserId};

use super::snapshot::Snapshot;
use super::state::CookieChange;
use crate::client;
use crate::cookie::contents::{Contents, MAX_COOKIE_BYTES};
use crate::cookie::key_slot::KeySlot;
use crate::cookie::seal::Sealer;
use crate::cookie::settings::CookieTemplate;
use crate::error::LoginError;
use crate::layer::config::Config;

/// Returns the digest of the client that sent this request, under the key in this slot.
#[inline]
pub(super) fn client_digest<U>(config: &Config<U>, snapshot: &Snapshot, slot: KeySlot) -> u64 {
    let Snapshot { user_agent, request, .. } = snapshot;
    if request.client.is_none() {
        config.warn_of_no_address();
    }
    client::identify(config.client_match, request.client, user_agent.as_ref(), |parts| {
        config.keyring.client_digest(slot, parts)
    })
}

/// Issues cookies for a user.
pub(super) struct Issuer<'a, U> {
    pub(super) config: &'a Config<U>,
    pub(super) snapshot: &'a Snapshot,
    pub(super) user: &'a U,
    pub(super) now: u32,
}

impl<U: AuthUser> Issuer<'_, U> {
    /// Returns the digest of the client that sent this request, under the current key.
    pub(super) fn client_digest(&self) -> u64 {
        client_digest(self.config, self.snapshot, KeySlot::CURRENT)
    }

    /// Returns the digest of the client for a session cookie that is reissued. `sent`
    /// holds the slot and the digest of the cookie that the request sent.
    ///
    /// The session stays bound to the client that logged in. But the digest of that client can't be
    /// converted to another key. So if the key is not the current one, the session is bound to the
    /// client of this request. If that is another client, the rules have already decided that the
    /// session is no longer fresh.
    pub(super) fn client_digest_of_reissued(&self, sent: Option<(KeySlot, u64)>) -> u64 {
        match sent {
            Some((slot, client)) if slot.is_current() => client,
            _ => self.client_digest(),
        }
    }

    /// Returns the digest of the user's security stamp.
    pub(super) fn stamp_digest(&self, id: &UserId) -> u64 {
        let stamp = self.user.security_stamp();
        self.config.keyring.stamp_digest(KeySlot::CURRENT, id.as_bytes(), &stamp)
    }

    /// Returns the change that sets a session cookie with these contents.
    pub(super) fn set_session_cookie(
        &self,
        contents: &impl Contents,
        started: u32,
    ) -> CookieChange<HeaderValue> {
        let Config { policy, session_cookie, keyring, .. } = self.config;
        let max_age = policy.session_max_age(started, self.now);
        CookieChange::set_or_keep(session_cookie.set(&keyring.session.seal(contents), max_age))
    }

    /// Returns the change that sets a remember cookie with these contents.
    pub(super) fn set_remember_cookie(
        &self,
        contents: &impl Contents,
        expires: u32,
    ) -> CookieChange<HeaderValue> {
        let Config { remember_cookie, keyring, .. } = self.config;
        let max_age = Some(expires.saturating_sub(self.now));
        CookieChange::set_or_keep(remember_cookie.set(&keyring.remember.seal(contents), max_age))
    }
}

/// Returns an error if the cookie is so large that browsers would silently drop it.
pub(super) fn check_size<T: Contents>(
    template: &CookieTemplate,
    contents: &T,
) -> Result<(), LoginError> {
    let size = template.name().len() + Sealer::sealed_len(contents);
    if size > MAX_COOKIE_BYTES {
        return Err(LoginError::CookieTooLarge { size, limit: MAX_COOKIE_BYTES });
    }
    Ok(())
}
