//! What those are told whom a guard refuses.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Response, StatusCode};
use tower_keep_core::AuthUser;

use super::Rejection;
use crate::fault::plain;
use crate::page::Page;
use crate::{BuildError, Login, Message, NoticeKind};

pub(crate) type Handler<U> = Arc<dyn Fn(&Refusal<'_, U>) -> Response<Bytes> + Send + Sync>;

/// How refusals are answered: a layer's settings, or those in which a guard differs.
pub(crate) struct Answers<U> {
    pub(crate) login_page: Option<Page>,
    pub(crate) confirm_page: Option<Page>,
    pub(crate) login_message: Option<Message>,
    pub(crate) confirm_message: Option<Message>,
    pub(crate) handler: Option<Handler<U>>,
}

impl<U> Answers<U> {
    pub(crate) fn set_pages(
        &mut self,
        login: Option<String>,
        confirm: Option<String>,
        field: &str,
    ) -> Result<(), BuildError> {
        for (page, place) in [(login, &mut self.login_page), (confirm, &mut self.confirm_page)] {
            if let Some(page) = page {
                *place = Some(Page::parse(&page, field)?);
            }
        }
        Ok(())
    }

    pub(crate) fn check_messages(&self) -> Result<(), BuildError> {
        let messages = [&self.login_message, &self.confirm_message];
        match messages.into_iter().flatten().find_map(Message::too_long) {
            Some(length) => Err(BuildError::NoticeTooLong { length }),
            None => Ok(()),
        }
    }

    /// The paths of the pages that are on this site.
    pub(crate) fn local_paths(&self) -> impl Iterator<Item = &str> {
        [&self.login_page, &self.confirm_page].into_iter().flatten().filter_map(Page::local_path)
    }
}

impl<U> Default for Answers<U> {
    fn default() -> Self {
        Self {
            login_page: None,
            confirm_page: None,
            login_message: None,
            confirm_message: None,
            handler: None,
        }
    }
}

impl<U> Clone for Answers<U> {
    fn clone(&self) -> Self {
        Self {
            login_page: self.login_page.clone(),
            confirm_page: self.confirm_page.clone(),
            login_message: self.login_message.clone(),
            confirm_message: self.confirm_message.clone(),
            handler: self.handler.clone(),
        }
    }
}

/// A request that was refused, for a handler that answers it.
pub struct Refusal<'a, U> {
    rejection: Rejection,
    request: &'a Parts,
    login: &'a Login<U>,
    user: Option<Arc<U>>,
    /// The guard's own settings; the layer's stand behind them.
    own: &'a Answers<U>,
}

impl<'a, U: AuthUser> Refusal<'a, U> {
    pub(super) fn new(
        rejection: Rejection,
        request: &'a Parts,
        login: &'a Login<U>,
        user: Option<Arc<U>>,
        own: &'a Answers<U>,
    ) -> Self {
        Self { rejection, request, login, user, own }
    }

    /// Why it was refused.
    pub fn rejection(&self) -> Rejection {
        self.rejection
    }

    /// The request's head: method, headers, extensions, and the URI that the client asked for, also
    /// inside of a nested router.
    pub fn request(&self) -> &Parts {
        self.request
    }

    /// The handle, to leave a notice or build a login URL.
    pub fn login(&self) -> &Login<U> {
        self.login
    }

    /// The user who was refused, if somebody is logged in.
    pub fn user(&self) -> Option<&Arc<U>> {
        self.user.as_ref()
    }

    /// The answer without a handler: a redirect to the login or confirm page with its notice, or
    /// else 401 or 403.
    pub fn default_response(&self) -> Response<Bytes> {
        let layer = &self.login.config().answers;
        let (page, message, kind) = match self.rejection {
            Rejection::Unauthenticated => (
                self.own.login_page.as_ref().or(layer.login_page.as_ref()),
                self.own.login_message.as_ref().or(layer.login_message.as_ref()),
                NoticeKind::LoginRequired,
            ),
            Rejection::NotFresh => (
                self.own.confirm_page.as_ref().or(layer.confirm_page.as_ref()),
                self.own.confirm_message.as_ref().or(layer.confirm_message.as_ref()),
                NoticeKind::ConfirmRequired,
            ),
            Rejection::Forbidden => return plain(StatusCode::FORBIDDEN),
        };
        let Some(page) = page else { return self.unauthorized() };
        let Parts { method, headers, .. } = self.request;
        let is_page = self.login.config().is_page(method, headers);
        if let Some(message) = message.filter(|_| is_page) {
            self.login.leave(message.notice(kind, self.request));
        }
        see_other(&self.login.url_of(page, is_page))
    }

    /// 401, with the challenges of the request loaders if nobody is logged in (RFC 9110 §11.6.1): for
    /// a handler that redirects people and answers programs.
    pub fn unauthorized(&self) -> Response<Bytes> {
        let mut response = plain(StatusCode::UNAUTHORIZED);
        if self.rejection != Rejection::Unauthenticated {
            // Whoever is logged in but not fresh would not become so by sending a password again.
            return response;
        }
        for loader in &self.login.config().loaders {
            if let Some(challenge) = loader.challenge() {
                response.headers_mut().append(header::WWW_AUTHENTICATE, challenge);
            }
        }
        response
    }

    pub(super) fn response(&self) -> Response<Bytes> {
        let layer = &self.login.config().answers;
        let mut response = match self.own.handler.as_ref().or(layer.handler.as_ref()) {
            Some(handler) => handler(self),
            None => self.default_response(),
        };
        response.extensions_mut().insert(self.rejection);
        response
    }
}

impl<U> std::fmt::Debug for Refusal<'_, U> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Refusal").field("rejection", &self.rejection).finish_non_exhaustive()
    }
}

/// 303: whatever the method was, the page is fetched with GET (RFC 9110 §15.4.4).
fn see_other(url: &str) -> Response<Bytes> {
    let mut response = plain(StatusCode::SEE_OTHER);
    // Pages were checked when they were set, and what is added to them is percent-encoded.
    if let Ok(location) = HeaderValue::try_from(url) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}
