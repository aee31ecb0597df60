//! The response's headers: cookies that changed, and what caches must know.

use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};
use tower_keep_core::AuthUser;

use super::handle::AuthSession;
use super::state::{Change, State};
use crate::cookie::FlashCookie;

impl<U: AuthUser> AuthSession<U> {
    /// Writes what changed, and seals the handle, so that later changes fail.
    pub(crate) fn write_to(&self, headers: &mut HeaderMap) {
        let mut state = self.state();
        state.is_head_written = true;
        // From here on it is unknown whether the cookies arrive, so the session must not be ended.
        state.unsent_session = None;
        // A streamed body or a task may ask later who is logged in, when no header can be set.
        let is_kept = self.is_kept();
        if !self.is_cookie_dependent() && !is_kept {
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
            (&state.session, &state.remember, &state.flash),
            (Change::Keep, Change::Keep, Change::Keep)
        );
        if unchanged {
            return false;
        }
        let (config, presented) = (self.config(), self.presented());
        // An old decision may be out of date: the browser may have newer cookies by now.
        let in_time = state.cookies_until.is_none_or(|until| config.now() <= until);
        let timely = |cookie: Option<HeaderValue>| cookie.filter(|_| in_time);
        let cookies = [
            match &state.session {
                Change::Keep => None,
                Change::Clear => {
                    timely(config.session_cookie.clear().filter(|_| presented.session_sent))
                }
                Change::Set(cookie) => timely(Some(HeaderValue::clone(cookie))),
            },
            match &state.remember {
                Change::Keep => None,
                Change::Clear => {
                    timely(config.remember_cookie.clear().filter(|_| self.may_hold_remember()))
                }
                Change::Set(cookie) => timely(Some(HeaderValue::clone(cookie))),
            },
            match &state.flash {
                // The cookie stays as it is if it is unknown who is logged in.
                _ if state.is_unknown() => None,
                Change::Keep => None,
                Change::Clear => config.flash_cookie.clear(),
                Change::Set(flash) => {
                    let value = config.keyring.flash.seal(&**flash);
                    let max_age = config.policy.persistent.then_some(FlashCookie::LIFETIME);
                    config.flash_cookie.set(&value, max_age)
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

    /// Whether the browser may hold a remember cookie: it has sent one, or it holds one for another
    /// path, which the session cookie says.
    fn may_hold_remember(&self) -> bool {
        let presented = self.presented();
        presented.remember_sent || presented.says_remembered()
    }

    /// Adds `Cookie`, and the headers of loaders that were asked, to `Vary`.
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
/// store a response that was made for one user, or the user's cookies (CVE-2023-30861).
///
/// Also removes the headers that some caches obey before or instead of `Cache-Control`: targeted
/// fields (RFC 9213), and older fields of nginx, Akamai and Fastly.
fn forbid_storing(headers: &mut HeaderMap) {
    // Few responses have such a header, so they are looked for before anything is collected.
    if headers.keys().any(is_targeted) {
        let targeted: Vec<_> = headers.keys().filter(|name| is_targeted(name)).cloned().collect();
        for name in targeted {
            headers.remove(name);
        }
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

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
