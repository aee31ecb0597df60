//! Issuing cookies to the client that sent the request, under the current key.

use http::HeaderValue;

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

/// Returns the change that sets a session cookie with these contents.
pub(super) fn issue_session_cookie<U>(
    config: &Config<U>,
    contents: &impl Contents,
    started: u32,
    now: u32,
) -> CookieChange<HeaderValue> {
    let max_age = config.policy.session_max_age(started, now);
    CookieChange::set_or_keep(
        config.session_cookie.set(&config.keyring.session.seal(contents), max_age),
    )
}

/// Returns the change that sets a remember cookie with these contents.
pub(super) fn issue_remember_cookie<U>(
    config: &Config<U>,
    contents: &impl Contents,
    expires: u32,
    now: u32,
) -> CookieChange<HeaderValue> {
    let max_age = Some(expires.saturating_sub(now));
    CookieChange::set_or_keep(
        config.remember_cookie.set(&config.keyring.remember.seal(contents), max_age),
    )
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
