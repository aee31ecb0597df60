//! `next` and flash messages: what is kept for a user on the way to the sign-in page and back.

use http::Method;
use tower_keep_core::AuthUser;

use super::handle::AuthSession;
use super::state::{Change, State};
use crate::AuthError;
use crate::cookie::{FlashCookie, choose};
use crate::flash::{Flash, FlashKind};
use crate::page::Page;
use crate::target::{LocalTarget, target_of};

impl<U: AuthUser> AuthSession<U> {
    /// Returns where to redirect the user after signing in, if this request says so and the target
    /// is safe. The target comes from the query or, if the layer keeps `next` in a cookie, from
    /// there. Reading it from the cookie removes it there.
    ///
    /// The target is always a path on this site, and never the login, logout or confirm page.
    /// Redirect with 303.
    pub fn next(&self) -> Option<LocalTarget> {
        self.next_from_form(None)
    }

    /// Like [`next`](Self::next), but the form's own field takes precedence. Pass the field's
    /// value, or `None` if the form has no such field.
    pub fn next_from_form(&self, field: Option<&str>) -> Option<LocalTarget> {
        let config = self.config();
        let in_query = || self.0.snapshot.request.query(&config.next_field);
        let given = field.filter(|next| !next.is_empty()).map(str::to_owned).or_else(in_query);
        let target = match given {
            Some(text) => text.parse().ok(),
            None => self.change_flash(|kept| kept.next.take()),
        };
        target.filter(|target| config.allows_next(target))
    }

    /// Returns [`next`](Self::next), or the layer's home page if there is none. This does not read
    /// a form's own field; see [`next_from_form`](Self::next_from_form).
    pub fn next_or_home(&self) -> LocalTarget {
        self.or_home(self.next())
    }

    /// Returns this target, or the layer's home page if there is none.
    ///
    /// In axum, a [`LocalTarget`] is a redirect to itself:
    ///
    /// ```
    /// # use tower_keep::target::LocalTarget;
    /// # use tower_keep::{Account, AuthSession};
    /// fn after_login(auth: &AuthSession<Account>, field: Option<&str>) -> LocalTarget {
    ///     auth.or_home(auth.next_from_form(field))
    /// }
    /// ```
    pub fn or_home(&self, next: Option<LocalTarget>) -> LocalTarget {
        next.unwrap_or_else(|| self.config().home.clone())
    }

    /// Returns the login page's URL with this request's target as `next`, or `None` if the layer
    /// has no login page. It is for a handler that itself sends users to the login page.
    ///
    /// A target that is too long for proxies is left out: one of more than 1,024 bytes,
    /// percent-encoded, or of more than 512 bytes if the layer keeps `next` in a cookie. In the
    /// session, the target is also left out if the request is not the navigation of a browser's
    /// tab.
    pub fn login_url(&self) -> Option<String> {
        let is_page = self.0.snapshot.is_page;
        self.config().responses.login_page.as_ref().map(|page| self.url_of(page, is_page))
    }

    /// Returns the confirm page's URL, like [`login_url`](Self::login_url) for the login page.
    pub fn confirm_url(&self) -> Option<String> {
        let is_page = self.0.snapshot.is_page;
        self.config().responses.confirm_page.as_ref().map(|page| self.url_of(page, is_page))
    }

    /// Returns the flash message for the user, if there is one, and removes it: each message is
    /// returned once.
    pub fn take_flash(&self) -> Option<Flash> {
        self.change_flash(|kept| kept.flash.take())
    }

    /// Leaves a flash message for the next page that reads one. It replaces a message that was not
    /// read yet.
    ///
    /// Text and category have at most 256 bytes each; what is longer is cut.
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
        self.leave(Flash::new(FlashKind::Application, category.into(), text.into()));
        Ok(())
    }

    /// Drops the flash message that the request presented, because a message for one user must not
    /// be shown to the next. A message that this request has left stays.
    pub(super) fn drop_presented_flash(&self) {
        self.drop_presented_flash_if(|_| true);
    }

    pub(super) fn drop_presented_flash_if(&self, is_over: impl Fn(&Flash) -> bool) {
        self.change_flash(|kept| {
            let presented = self.0.flash.get().and_then(|presented| presented.flash.as_ref());
            let is_presented = presented.is_some() && kept.flash.as_ref() == presented;
            if is_presented && kept.flash.as_ref().is_some_and(is_over) {
                kept.flash = None;
            }
        });
    }

    pub(crate) fn leave(&self, flash: Flash) {
        self.change_flash(|kept| kept.flash = Some(flash));
    }

    /// Returns the page's URL, with this request's target in the query or in the cookie. The cookie
    /// gets the target only if this is a request for a page.
    pub(crate) fn url_of(&self, page: &Page, is_page: bool) -> String {
        let config = self.config();
        let leads_there =
            |target: &LocalTarget| page.local_path().is_some_and(|path| target.leads_to(path));
        let next = self.own_target().filter(|next| config.allows_next(next) && !leads_there(next));
        match next {
            Some(next) if config.next_in_cookie => {
                if is_page && next.as_str().len() <= FlashCookie::LONGEST_NEXT {
                    self.change_flash(|kept| kept.next = Some(next));
                }
                page.url().to_owned()
            }
            Some(next) => page.url_with(&config.next_field, &next, config.public_origin.as_deref()),
            None => page.url().to_owned(),
        }
    }

    /// Returns this request's own target if the user can come back to it, which is so only for
    /// `GET` and `HEAD`.
    fn own_target(&self) -> Option<LocalTarget> {
        let request = &self.0.snapshot.request;
        let is_safe = request.method == Method::GET || request.method == Method::HEAD;
        if is_safe { target_of(request.target.as_ref()?) } else { None }
    }

    /// Changes the contents of the flash cookie. If they differ from before, notes that the cookie
    /// is to be written or cleared.
    fn change_flash<T>(&self, change: impl FnOnce(&mut FlashCookie) -> T) -> T {
        self.mark_cookie_dependent();
        let mut state = self.state();
        let before = self.kept(&state);
        let mut kept = before.clone();
        let output = change(&mut kept);
        if kept != before {
            kept.issued = self.config().now();
            state.flash = if kept.is_empty() { Change::Clear } else { Change::set(kept) };
        }
        output
    }

    fn kept(&self, state: &State<U>) -> FlashCookie {
        match &state.flash {
            Change::Set(kept) => FlashCookie::clone(kept),
            Change::Clear => FlashCookie::default(),
            Change::Keep => {
                self.0.flash.get_or_init(|| Box::new(self.presented_flash())).as_ref().clone()
            }
        }
    }

    fn presented_flash(&self) -> FlashCookie {
        let config = self.config();
        let [found] = self.0.snapshot.cookies.find([config.flash_cookie.name()]);
        choose::<FlashCookie>(&found, &config.keyring.flash)
            .map(|opened| opened.cookie)
            .filter(|kept| !kept.is_over(config.now()))
            .unwrap_or_default()
    }
}
