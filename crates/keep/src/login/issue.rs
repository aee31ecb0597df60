//! Issuing cookies for this client, under the current key.

use http::HeaderValue;

use super::snapshot::Snapshot;
use super::state::Change;
use crate::LoginError;
use crate::client;
use crate::cookie::{Contents, CookieTemplate, LARGEST_COOKIE, Sealer};
use crate::keys::KeySlot;
use crate::layer::Config;

/// Returns the digest of the client that sent this request.
#[inline]
pub(super) fn client_digest<U>(config: &Config<U>, snapshot: &Snapshot, slot: KeySlot) -> u64 {
    let Snapshot { user_agent, request, .. } = snapshot;
    if request.client.is_none() {
        config.warn_of_no_address();
    }
    client::identify(config.client_match, request.client, user_agent.as_ref(), |parts| {
        config.keyring.client(slot, parts)
    })
}

/// Returns the `Set-Cookie` value of a session cookie.
pub(super) fn session_cookie<U>(
    config: &Config<U>,
    contents: &impl Contents,
    started: u32,
    now: u32,
) -> Change<HeaderValue> {
    let max_age = config.policy.session_max_age(started, now);
    Change::set_if(config.session_cookie.set(&config.keyring.session.seal(contents), max_age))
}

/// Returns the `Set-Cookie` value of a remember cookie.
pub(super) fn remember_cookie<U>(
    config: &Config<U>,
    contents: &impl Contents,
    expires: u32,
    now: u32,
) -> Change<HeaderValue> {
    let max_age = Some(expires.saturating_sub(now));
    Change::set_if(config.remember_cookie.set(&config.keyring.remember.seal(contents), max_age))
}

/// Rejects a cookie that browsers would silently drop because it is too large.
pub(super) fn check_size<T: Contents>(
    template: &CookieTemplate,
    contents: &T,
) -> Result<(), LoginError> {
    let size = template.name().len() + Sealer::sealed_len(contents);
    if size > LARGEST_COOKIE {
        return Err(LoginError::CookieTooLarge { size, limit: LARGEST_COOKIE });
    }
    Ok(())
}
