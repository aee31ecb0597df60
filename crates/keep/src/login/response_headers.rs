//! The response's headers: the cookies that change, and what caches must know.

use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};
use tower_keep_core::AuthUser;

use super::handle::AuthSession;
use super::state::{CookieChange, State};
use crate::cookie::flash::FlashCookie;

impl<U: AuthUser> AuthSession<U> {
    /// Writes the cookies that change and the headers for caches, and seals the handle: later
    /// changes of the login fail.
    pub(crate) fn write_to(&self, headers: &mut HeaderMap) {
        let mut state = self.state();
        state.is_head_written = true;
        // The browser may get the cookies from now on, so the session must not end as unsent.
        state.unsent_session = None;
        // A streamed body or a task may use its clone to ask for the user after the headers are
        // sent.
        let has_other_clones = self.has_other_clones();
        if !self.is_cookie_dependent() && !has_other_clones {
            return;
        }
        let sets_cookies = self.write_cookies(&state, headers);
        self.write_vary(state.asked_loaders || has_other_clones, headers);
        if sets_cookies
            || has_other_clones
            || !state.identity.is_anonymous()
            || self.has_valid_login_cookie()
        {
            forbid_storing(headers);
        }
    }

    /// Writes the cookies that change. Returns whether there are any.
    fn write_cookies(&self, state: &State<U>, headers: &mut HeaderMap) -> bool {
        let unchanged = matches!(
            (&state.session_cookie, &state.remember_cookie, &state.flash_cookie),
            (CookieChange::Keep, CookieChange::Keep, CookieChange::Keep)
        );
        if unchanged {
            return false;
        }
        let (config, received) = (self.config(), self.verified_cookies());
        // A slow response must not replace newer cookies: another response may have set them since
        // these were issued.
        let in_time = state.write_until.is_none_or(|until| config.now() <= until);
        let if_in_time = |cookie: Option<HeaderValue>| cookie.filter(|_| in_time);
        let cookies = [
            match &state.session_cookie {
                CookieChange::Keep => None,
                CookieChange::Clear => {
                    if_in_time(config.session_cookie.clear().filter(|_| received.is_session_sent))
                }
                CookieChange::Set(cookie) => if_in_time(Some(HeaderValue::clone(cookie))),
            },
            match &state.remember_cookie {
                CookieChange::Keep => None,
                CookieChange::Clear => {
                    if_in_time(config.remember_cookie.clear().filter(|_| self.may_hold_remember()))
                }
                CookieChange::Set(cookie) => if_in_time(Some(HeaderValue::clone(cookie))),
            },
            match &state.flash_cookie {
                // If it is unknown which user is logged in, the flash cookie stays as it is.
                _ if state.is_unknown() => None,
                CookieChange::Keep => None,
                CookieChange::Clear => config.flash_cookie.clear(),
                CookieChange::Set(flash) => {
                    let value = config.keyring.flash.seal(&**flash);
                    let max_age = config.policy.is_persistent.then_some(FlashCookie::LIFETIME);
                    config.flash_cookie.set(&value, max_age)
                }
            },
        ];
        let mut is_any_set = false;
        for cookie in cookies.into_iter().flatten() {
            headers.append(header::SET_COOKIE, cookie);
            is_any_set = true;
        }
        is_any_set
    }

    /// Whether the browser may hold a remember cookie: the request sent one, or the session cookie
    /// says that the browser holds one, which may be for another path.
    fn may_hold_remember(&self) -> bool {
        let received = self.verified_cookies();
        received.is_remember_sent || received.session_cookie_says_remembered()
    }

    /// Adds `Cookie` to `Vary` and, if the request loaders were asked, the headers that they read.
    fn write_vary(&self, asked_loaders: bool, headers: &mut HeaderMap) {
        let loaders = if asked_loaders { &self.config().loader_headers[..] } else { &[] };
        if loaders.is_empty()
            && let Entry::Vacant(vary) = headers.entry(header::VARY)
        {
            vary.insert(HeaderValue::from_static("Cookie"));
            return;
        }
        add_vary(headers, ["Cookie"].into_iter().chain(loaders.iter().map(HeaderName::as_str)));
    }
}

/// Adds these names to `Vary`, in one line, because some caches read only one line.
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

/// Sets `Cache-Control: no-store`, even if the handler has set `public`: a shared cache must never
/// store a response that was made for one user, or the cookies of a user (CVE-2023-30861).
///
/// Also removes the headers that some caches obey before or instead of `Cache-Control`: targeted
/// fields (RFC 9213), and older fields of nginx, Akamai and Fastly.
fn forbid_storing(headers: &mut HeaderMap) {
    // Few responses have such a header, so a list is built only if there is one.
    if headers.keys().any(is_targeted) {
        let targeted: Vec<_> = headers.keys().filter(|name| is_targeted(name)).cloned().collect();
        for name in targeted {
            headers.remove(name);
        }
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

/// Whether caches obey this header before or instead of `Cache-Control`.
fn is_targeted(name: &HeaderName) -> bool {
    let name = name.as_str();
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
    fn headers_that_override_no_store_are_removed() {
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
