//! The response's headers: the cookies that change, and what caches must know.

use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};
use tower_keep_core::AuthUser;

use super::handle::AuthSession;
use super::state::{CookieChange, State};
use crate::cache_headers::{add_vary, forbid_storing};
use crate::client_kind::KIND_HEADERS;
use crate::cookie::flash::FlashCookie;

impl<U: AuthUser> AuthSession<U> {
    /// Writes the cookies that change and the headers for caches, and seals the handle: later
    /// changes of the login fail.
    pub(crate) fn write_to(&self, headers: &mut HeaderMap) {
        let mut state = self.state();
        state.is_head_written = true;
        // The browser may get the cookies from now on, so the session must not end as unsent.
        state.unsent_sessions.clear();
        // A streamed body or a task may use its clone to ask for the user after the headers are
        // sent.
        let has_other_clones = self.has_other_clones();
        if self.is_kind_dependent() {
            add_vary(headers, KIND_HEADERS.into_iter());
        }
        if !self.is_cookie_dependent() && !has_other_clones {
            return;
        }
        let sets_cookies = self.write_cookies(&state, headers);
        self.write_vary(state.asked_loaders || has_other_clones, headers);
        if sets_cookies
            || state.has_issued_bearer
            || self.is_bearer_request()
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
        ) && matches!(state.device_cookie, CookieChange::Keep);
        if unchanged || self.is_bearer_request() || self.check_origin().is_err() {
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
            match &state.device_cookie {
                CookieChange::Keep => None,
                CookieChange::Clear => config.device_cookie.clear(),
                CookieChange::Set(cookie) => Some(HeaderValue::clone(cookie)),
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

    /// Adds `Cookie` to `Vary`, `Authorization` if the layer accepts bearer tokens and, if the
    /// request loaders were asked, the headers that they read.
    fn write_vary(&self, asked_loaders: bool, headers: &mut HeaderMap) {
        let loaders = if asked_loaders { &self.config().loader_headers[..] } else { &[] };
        let bearer = self.config().accepts_bearer.then_some("Authorization");
        if loaders.is_empty() && bearer.is_none() {
            match headers.entry(header::VARY) {
                Entry::Vacant(vary) => {
                    vary.insert(HeaderValue::from_static("Cookie"));
                    return;
                }
                // The field of a rejection begins like this.
                Entry::Occupied(vary) if vary.get().as_bytes().starts_with(b"Cookie, ") => {
                    if vary.iter().count() == 1 {
                        return;
                    }
                }
                Entry::Occupied(_) => {}
            }
        }
        let names = ["Cookie"].into_iter().chain(bearer);
        add_vary(headers, names.chain(loaders.iter().map(HeaderName::as_str)));
    }
}
