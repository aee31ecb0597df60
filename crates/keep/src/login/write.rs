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
        let (config, presented) = (self.config(), self.presented());
        // What was decided long ago may be out of date: the browser may have newer cookies by now.
        let in_time = state.cookies_until == u32::MAX || config.now() <= state.cookies_until;
        let login = |cookie: Option<HeaderValue>| cookie.filter(|_| in_time);
        let cookies = [
            match &state.session {
                Change::Keep => None,
                Change::Clear => login(config.session.clear().filter(|_| presented.session_sent)),
                Change::Set(cookie) => login(Some(HeaderValue::clone(cookie))),
            },
            match &state.remember {
                Change::Keep => None,
                Change::Clear => {
                    login(config.remember.clear().filter(|_| self.may_hold_remember()))
                }
                Change::Set(cookie) => login(Some(HeaderValue::clone(cookie))),
            },
            match &state.visit {
                // Cookies stay as they are where it is not known who this is.
                _ if state.is_unknown() => None,
                Change::Keep => None,
                Change::Clear => config.visit.clear(),
                Change::Set(visit) => {
                    let value = config.keyring.visit.seal(&**visit);
                    let max_age = config.policy.persistent.then_some(Visit::LIFETIME);
                    config.visit.set(&value, max_age)
                }
            },
        ];
        let mut any = false;
        for cookie in cookies.into_iter().flatten() {
            headers.append(header::SET_COOKIE, cookie);
            any = true;
        }
        any
    }

    /// The browser sent a remember cookie, or holds one for another path: the session says so.
    fn may_hold_remember(&self) -> bool {
        let presented = self.presented();
        presented.remember_sent || presented.flags() & REMEMBERED != 0
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
