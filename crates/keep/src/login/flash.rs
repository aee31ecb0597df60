//! `next` and flash messages: the target that a user returns to after signing in, and the messages
//! for the next page.

use http::Method;
use tower_keep_core::AuthUser;

use super::handle::AuthSession;
use super::state::{CookieChange, State};
use crate::cookie::choose::choose;
use crate::cookie::flash::FlashCookie;
use crate::error::AuthError;
use crate::flash::{Flash, FlashKind};
use crate::page::Page;
use crate::target::{LocalTarget, target_of};

impl<U: AuthUser> AuthSession<U> {
    /// Returns the target to redirect the user to after signing in, or `None` if the request has no
    /// `next` or its target is not safe. The target comes from the query or, if the query has none,
    /// from the cookie in which the layer may keep `next`. Reading it from the cookie removes it
    /// there.
    ///
    /// The target is always a path on this site, and never the login, logout or confirm page.
    /// Redirect with 303.
    pub fn next(&self) -> Option<LocalTarget> {
        self.next_from_form(None)
    }

    /// Like [`next`](Self::next), but a field of the form takes precedence. Pass the field's value,
    /// or `None` if the form has no field for `next`.
    pub fn next_from_form(&self, field: Option<&str>) -> Option<LocalTarget> {
        let config = self.config();
        let in_query = || self.0.snapshot.request.query(&config.next_field);
        let given = field.filter(|next| !next.is_empty()).map(str::to_owned).or_else(in_query);
        let target = match given {
            Some(text) => text.parse().ok(),
            None => self.change_flash(|contents| contents.next.take()),
        };
        target.filter(|target| config.allows_next(target))
    }

    /// Returns [`next`](Self::next), or the layer's home page if `next` returns `None`. This does
    /// not read a field of a form; see [`next_from_form`](Self::next_from_form).
    pub fn next_or_home(&self) -> LocalTarget {
        self.or_home(self.next())
    }

    /// Returns this target, or the layer's home page if `next` is `None`.
    ///
    /// With axum, a handler can return a [`LocalTarget`]: the response redirects to it.
    ///
    /// ```
    /// # use tower_keep::target::LocalTarget;
    /// # use tower_keep::{Account, AuthSession};
    /// fn after_login(auth: &AuthSession<Account>, field: Option<&str>) -> LocalTarget {
    ///     auth.or_home(auth.next_from_form(field))
    /// }
    /// ```
    pub fn or_home(&self, next: Option<LocalTarget>) -> LocalTarget {
        next.unwrap_or_else(|| self.config().home_page.clone())
    }

    /// Returns the login page's URL with this request's target as `next`, or `None` if the layer
    /// has no login page. This is for handlers that send users to the login page themselves.
    ///
    /// A target that may be too long for proxies is left out. In the query, a target may have at
    /// most 1,024 bytes, percent-encoded. If the layer keeps `next` in a cookie, a target may have
    /// at most 512 bytes, and is kept only if the request is the navigation of a browser's tab.
    pub fn login_url(&self) -> Option<String> {
        let page = self.config().responses.login_page.as_ref();
        page.map(|page| self.url_of(page, self.requested_target()))
    }

    /// Returns the confirm page's URL. Otherwise this is like [`login_url`](Self::login_url).
    pub fn confirm_url(&self) -> Option<String> {
        let page = self.config().responses.confirm_page.as_ref();
        page.map(|page| self.url_of(page, self.requested_target()))
    }

    /// Returns the flash message for the user, or `None` if there is none. Each message is returned
    /// once.
    pub fn take_flash(&self) -> Option<Flash> {
        self.change_flash(|contents| contents.flash.take())
    }

    /// Leaves a flash message for the next page that reads one. It replaces a message that no page
    /// has read yet.
    ///
    /// The text and the category are cut to 256 bytes each.
    ///
    /// # Errors
    ///
    /// Returns an error if the response's head has already been written.
    pub fn flash(
        &self,
        category: impl Into<String>,
        text: impl Into<String>,
    ) -> Result<(), AuthError> {
        if self.state().is_head_written {
            return Err(AuthError::TOO_LATE);
        }
        self.leave_flash(Flash::new(FlashKind::Application, category.into(), text.into()));
        Ok(())
    }

    /// Drops the flash message that the request sent, because a message for one user must not be
    /// shown to the next user. A message that this request has left stays.
    pub(super) fn drop_received_flash(&self) {
        self.drop_received_flash_if(|_| true);
    }

    /// Drops the flash message that the request sent, if the closure returns `true` for it.
    pub(super) fn drop_received_flash_if(&self, is_obsolete: impl Fn(&Flash) -> bool) {
        self.change_flash(|contents| {
            let received = self.0.received_flash.get().and_then(|received| received.flash.as_ref());
            let is_received = received.is_some() && contents.flash.as_ref() == received;
            if is_received && contents.flash.as_ref().is_some_and(is_obsolete) {
                contents.flash = None;
            }
        });
    }

    /// Leaves a flash message for the next page that reads one.
    pub(crate) fn leave_flash(&self, flash: Flash) {
        self.change_flash(|contents| contents.flash = Some(flash));
    }

    /// Returns the URL of a login or confirm page. `next` is put into the URL's query or, if the
    /// layer keeps `next` in a cookie, into the cookie. The cookie gets it only if the response is
    /// shown as a page in a browser's tab.
    pub(crate) fn url_of(&self, page: &Page, next: Option<LocalTarget>) -> String {
        let config = self.config();
        let leads_to_page =
            |target: &LocalTarget| page.local_path().is_some_and(|path| target.leads_to(path));
        let next = next.filter(|next| config.allows_next(next) && !leads_to_page(next));
        match next {
            Some(next) if config.next_in_cookie => {
                if self.is_navigation() && next.as_str().len() <= FlashCookie::MAX_NEXT_BYTES {
                    self.change_flash(|contents| contents.next = Some(next));
                }
                page.url().to_owned()
            }
            Some(next) => page.url_with(&config.next_field, &next, config.public_origin.as_deref()),
            None => page.url().to_owned(),
        }
    }

    /// Returns the target of this request, or `None` if the user can't return to it because its
    /// method is neither `GET` nor `HEAD`.
    pub(crate) fn requested_target(&self) -> Option<LocalTarget> {
        let request = &self.0.snapshot.request;
        let is_safe = request.method == Method::GET || request.method == Method::HEAD;
        if is_safe { target_of(request.target.as_ref()?) } else { None }
    }

    /// Changes the contents of the flash cookie. If the closure has changed them, the response
    /// writes or clears the cookie.
    fn change_flash<T>(&self, change: impl FnOnce(&mut FlashCookie) -> T) -> T {
        self.mark_cookie_dependent();
        let mut state = self.state();
        let before = self.current_flash(&state);
        let mut contents = before.clone();
        let output = change(&mut contents);
        if contents != before {
            contents.issued = self.config().now();
            state.flash_cookie =
                if contents.is_empty() { CookieChange::Clear } else { CookieChange::set(contents) };
        }
        output
    }

    /// Returns the contents of the flash cookie as this request has changed them so far.
    fn current_flash(&self, state: &State<U>) -> FlashCookie {
        match &state.flash_cookie {
            CookieChange::Set(contents) => FlashCookie::clone(contents),
            CookieChange::Clear => FlashCookie::default(),
            CookieChange::Keep => self
                .0
                .received_flash
                .get_or_init(|| Box::new(self.open_flash_cookie()))
                .as_ref()
                .clone(),
        }
    }

    /// Returns the contents of the flash cookie that the request sent.
    fn open_flash_cookie(&self) -> FlashCookie {
        let config = self.config();
        let [found] = self.0.snapshot.cookies.find([config.flash_cookie.name()]);
        choose::<FlashCookie>(&found, &config.keyring.flash)
            .map(|opened| opened.cookie)
            .filter(|contents| !contents.is_expired(config.now()))
            .unwrap_or_default()
    }
}
