//! The response's headers: cookies that changed, and what caches must know.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use tower_keep_core::AuthUser;

use super::handle::Login;
use super::state::{Change, State};
use crate::cookie::{REMEMBERED, Visit};

impl<U: AuthUser> Login<U> {
    /// Writes what changed, and seals the handle.
    pub(crate) fn write_to(&self, headers: &mut HeaderMap) {
        let mut state = self.state();
        state.sealed = true;
        // From here on it is not known whether the cookies arrive.
        state.begun = None;
        // A body that is still to be sent, or a task, may ask later, when no header can follow.
        let is_kept = self.is_kept();
        if !self.was_looked_at() && !is_kept {
            return;
        }
        let sets_cookies = self.write_cookies(&state, headers);
        self.write_vary(state.asked_loaders || is_kept, headers);
        if sets_cookies || is_kept || !state.identity.is_anonymous() || self.holds_login() {
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
    fn write_vary(&self, asked_loaders: bool, headers: &mut HeaderMap) {
        let loaders = if asked_loaders { &self.config().loader_headers[..] } else { &[] };
        if loaders.is_empty() && !headers.contains_key(header::VARY) {
            headers.insert(header::VARY, HeaderValue::from_static("Cookie"));
            return;
        }
        add_vary(headers, ["Cookie"].into_iter().chain(loaders.iter().map(HeaderName::as_str)));
    }
}

/// Adds these names to `Vary`, in one line: caches are known that read only one.
fn add_vary<'a>(headers: &mut HeaderMap, names: impl Iterator<Item = &'a str>) {
    let before = headers.get_all(header::VARY).iter().map(HeaderValue::as_bytes);
    let mut line = before.collect::<Vec<_>>().join(&b", "[..]);
    for name in names {
        let is_in = line
            .split(|byte| *byte == b',')
            .map(<[u8]>::trim_ascii)
            .any(|item| item == b"*" || item.eq_ignore_ascii_case(name.as_bytes()));
        if !is_in {
            line.extend(if line.is_empty() { &b""[..] } else { b", " });
            line.extend(name.as_bytes());
        }
    }
    if let Ok(line) = HeaderValue::from_bytes(&line) {
        headers.insert(header::VARY, line);
    }
}

/// `Cache-Control: no-store`, also over a handler's own `public`: a shared cache must never keep
/// what was made for one user, or their cookies (CVE-2023-30861).
///
/// Headers that some caches obey before `Cache-Control`, or instead of it, are removed: targeted
/// fields (RFC 9213), and older ones of nginx, Akamai and Fastly.
fn forbid_storing(headers: &mut HeaderMap) {
    let overrides: Vec<HeaderName> =
        headers.keys().filter(|name| is_targeted(name.as_str())).cloned().collect();
    for name in overrides {
        headers.remove(name);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

fn is_targeted(name: &str) -> bool {
    name.ends_with("-cache-control")
        || matches!(name, "expires" | "surrogate-control" | "x-accel-expires" | "edge-control")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vary_is_one_line_that_names_each_header_once() {
        for (before, expected) in [
            (&[][..], "Cookie, x-api-key"),
            (&["Accept"], "Accept, Cookie, x-api-key"),
            (&["Cookie"], "Cookie, x-api-key"),
            (&["Accept, COOKIE"], "Accept, COOKIE, x-api-key"),
            (&["*"], "*"),
            (&["Accept", "Origin,Cookie"], "Accept, Origin,Cookie, x-api-key"),
            (&["X-Cookie", "X-Api-Key"], "X-Cookie, X-Api-Key, Cookie"),
        ] {
            let mut headers = HeaderMap::new();
            for value in before {
                headers.append(header::VARY, HeaderValue::from_static(value));
            }
            add_vary(&mut headers, ["Cookie", "x-api-key"].into_iter());
            let vary: Vec<_> = headers.get_all(header::VARY).iter().collect();
            assert_eq!(vary, [expected]);
        }
    }

    #[test]
    fn no_cache_is_told_otherwise() {
        let mut headers = HeaderMap::new();
        for name in [
            "cache-control",
            "expires",
            "cdn-cache-control",
            "cloudflare-cdn-cache-control",
            "netlify-cdn-cache-control",
            "vercel-cdn-cache-control",
            "akamai-cache-control",
            "surrogate-control",
            "x-accel-expires",
            "edge-control",
        ] {
            headers.append(name, HeaderValue::from_static("public, max-age=600"));
        }
        headers.insert(header::ETAG, HeaderValue::from_static("\"1\""));
        forbid_storing(&mut headers);
        assert_eq!(headers.len(), 2, "{headers:?}");
        assert_eq!(headers[header::CACHE_CONTROL], "no-store");
    }
}
