//! The response's headers: cookies that changed, and what caches must know.

use http::header::{self, Entry, HeaderMap, HeaderValue};
use tower_keep_core::AuthUser;

use super::handle::Login;
use super::state::{Change, State};
use crate::cookie::{REMEMBERED, Visit};

impl<U: AuthUser> Login<U> {
    /// Writes what changed, and seals the handle.
    pub(crate) fn write_to(&self, headers: &mut HeaderMap) {
        let mut state = self.state();
        state.sealed = true;
        if !self.was_looked_at() {
            return;
        }
        let sets_cookies = self.write_cookies(&state, headers);
        self.write_vary(&state, headers);
        if sets_cookies || !state.identity.is_anonymous() || self.holds_login() {
            forbid_storing(headers);
        }
    }

    fn write_cookies(&self, state: &State<U>, headers: &mut HeaderMap) -> bool {
        let unchanged = matches!(
            (&state.session, &state.remember, &state.visit),
            (Change::Keep, Change::Keep, Change::Keep)
        );
        if unchanged {
            return false;
        }
        let (config, now) = (self.config(), self.config().now());
        let cookies = [
            match &state.session {
                Change::Keep => None,
                Change::Clear => self.presented().session_sent.then(|| config.session.clear()),
                Change::Set(session) => {
                    let max_age = config.policy.session_max_age(&session.terms, now);
                    Some(config.session.set(&config.keyring.session.seal(&**session), max_age))
                }
            },
            match &state.remember {
                Change::Keep => None,
                Change::Clear => self.may_hold_remember().then(|| config.remember.clear()),
                Change::Set(remember) => {
                    let max_age = remember.terms.expires.saturating_sub(now);
                    Some(
                        config
                            .remember
                            .set(&config.keyring.remember.seal(&**remember), Some(max_age)),
                    )
                }
            },
            match &state.visit {
                // Cookies stay as they are where it is not known who this is.
                _ if state.is_unknown() => None,
                Change::Keep => None,
                Change::Clear => Some(config.visit.clear()),
                Change::Set(visit) => {
                    let value = config.keyring.visit.seal(&**visit);
                    let max_age = config.policy.persistent.then_some(Visit::LIFETIME);
                    Some(config.visit.set(&value, max_age))
                }
            },
        ];
        let mut any = false;
        for cookie in cookies.into_iter().flatten().flatten() {
            headers.append(header::SET_COOKIE, cookie);
            any = true;
        }
        any
    }

    /// The browser sent a remember cookie, or holds one for another path: the session says so.
    fn may_hold_remember(&self) -> bool {
        let presented = self.presented();
        let session = presented.session.as_ref();
        presented.remember_sent
            || session.is_some_and(|held| held.cookie.terms.flags & REMEMBERED != 0)
    }

    /// Adds the cookies, and the headers of loaders that were asked, to `Vary`.
    fn write_vary(&self, state: &State<U>, headers: &mut HeaderMap) {
        add_vary(headers, HeaderValue::from_static("Cookie"));
        if state.asked_loaders {
            for name in &self.config().loader_headers {
                add_vary(headers, HeaderValue::from(name.clone()));
            }
        }
    }
}

fn add_vary(headers: &mut HeaderMap, name: HeaderValue) {
    let stands = |value: &HeaderValue| {
        value.as_bytes().split(|byte| *byte == b',').any(|item| {
            let item = item.trim_ascii();
            item == b"*" || item.eq_ignore_ascii_case(name.as_bytes())
        })
    };
    match headers.entry(header::VARY) {
        Entry::Vacant(none) => {
            none.insert(name);
        }
        Entry::Occupied(mut others) => {
            if !others.iter().any(stands) {
                others.append(name);
            }
        }
    }
}

/// `Cache-Control: no-store`, also over a handler's own `public`: a shared cache must never keep
/// what was made for one user, or their cookies (CVE-2023-30861).
fn forbid_storing(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vary_names_each_header_once() {
        for (before, expected) in [
            (&[][..], &["Cookie"][..]),
            (&["Accept"], &["Accept", "Cookie"]),
            (&["Cookie"], &["Cookie"]),
            (&["Accept, COOKIE"], &["Accept, COOKIE"]),
            (&["*"], &["*"]),
            (&["Accept", "Origin,Cookie"], &["Accept", "Origin,Cookie"]),
            (&["X-Cookie"], &["X-Cookie", "Cookie"]),
        ] {
            let mut headers = HeaderMap::new();
            for value in before {
                headers.append(header::VARY, HeaderValue::from_static(value));
            }
            add_vary(&mut headers, HeaderValue::from_static("Cookie"));
            let vary: Vec<_> = headers.get_all(header::VARY).iter().collect();
            assert_eq!(vary, expected);
        }
    }
}
