//! The responses to rejected requests.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Response, StatusCode};
use tower_keep_core::AuthUser;

use super::Rejection;
use crate::error::{BuildError, plain_response};
use crate::flash::{FlashKind, Message};
use crate::login::handle::AuthSession;
use crate::page::Page;

pub(crate) type Handler<U> = Arc<dyn Fn(&RejectionContext<'_, U>) -> Response<Bytes> + Send + Sync>;

/// Settings for the responses to rejected requests: the settings of a layer, or the settings in
/// which a guard differs from its layer.
pub(crate) struct Responses<U> {
    pub(crate) login_page: Option<Page>,
    pub(crate) confirm_page: Option<Page>,
    pub(crate) login_message: Option<Message>,
    pub(crate) confirm_message: Option<Message>,
    pub(crate) handler: Option<Handler<U>>,
}

impl<U> Responses<U> {
    pub(crate) fn check_messages(&self) -> Result<(), BuildError> {
        let messages = [&self.login_message, &self.confirm_message];
        match messages.into_iter().flatten().find_map(Message::length_if_too_long) {
            Some(length) => Err(BuildError::FlashTooLong { length }),
            None => Ok(()),
        }
    }

    /// Returns the paths of the pages that are on this site.
    pub(crate) fn local_paths(&self) -> impl Iterator<Item = &str> {
        [&self.login_page, &self.confirm_page].into_iter().flatten().filter_map(Page::local_path)
    }
}

impl<U> Default for Responses<U> {
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

impl<U> Clone for Responses<U> {
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

/// A rejected request, as it is passed to a rejection handler, which builds the response.
pub struct RejectionContext<'a, U> {
    rejection: Rejection,
    request: &'a Parts,
    auth: &'a AuthSession<U>,
    user: Option<Arc<U>>,
    /// The settings in which the guard differs from its layer.
    overrides: &'a Responses<U>,
}

impl<'a, U: AuthUser> RejectionContext<'a, U> {
    pub(super) fn new(
        rejection: Rejection,
        request: &'a Parts,
        auth: &'a AuthSession<U>,
        user: Option<Arc<U>>,
        overrides: &'a Responses<U>,
    ) -> Self {
        Self { rejection, request, auth, user, overrides }
    }

    /// Returns the reason for the rejection.
    pub fn rejection(&self) -> Rejection {
        self.rejection
    }

    /// Returns the request's head: the method, the headers, the extensions and the URI. Even inside
    /// a nested router, this is the URI that the client requested.
    pub fn request(&self) -> &Parts {
        self.request
    }

    /// Returns the handle, for example to set a flash message or to build a login URL.
    pub fn auth_session(&self) -> &AuthSession<U> {
        self.auth
    }

    /// Returns the user whose request was rejected, or `None` if no user is logged in.
    pub fn user(&self) -> Option<&Arc<U>> {
        self.user.as_ref()
    }

    /// Returns the response that is sent if there is no rejection handler: a redirect to the login
    /// page or the confirm page, with its flash message. If there is no such page, this is a 401,
    /// and if the user is not allowed, it is a 403.
    pub fn default_response(&self) -> Response<Bytes> {
        let layer = &self.auth.config().responses;
        let (page, message, kind) = match self.rejection {
            Rejection::Unauthenticated => (
                self.overrides.login_page.as_ref().or(layer.login_page.as_ref()),
                self.overrides.login_message.as_ref().or(layer.login_message.as_ref()),
                FlashKind::LoginRequired,
            ),
            Rejection::NotFresh => (
                self.overrides.confirm_page.as_ref().or(layer.confirm_page.as_ref()),
                self.overrides.confirm_message.as_ref().or(layer.confirm_message.as_ref()),
                FlashKind::ConfirmRequired,
            ),
            Rejection::Forbidden => return plain_response(StatusCode::FORBIDDEN),
        };
        let Some(page) = page else { return self.unauthorized() };
        let Parts { method, headers, .. } = self.request;
        let is_page = self.auth.config().is_page(method, headers);
        if let Some(message) = message.filter(|_| is_page) {
            self.auth.leave_flash(message.flash(kind, self.request));
        }
        see_other(&self.auth.url_of(page, is_page))
    }

    /// Returns a 401, with the challenges of the request loaders if no user is logged in
    /// (RFC 9110 §11.6.1).
    ///
    /// Use it in a rejection handler that redirects people and sends 401 to programs.
    pub fn unauthorized(&self) -> Response<Bytes> {
        let mut response = plain_response(StatusCode::UNAUTHORIZED);
        if self.rejection != Rejection::Unauthenticated {
            // The login is not fresh, and sending credentials again would not make it fresh.
            return response;
        }
        for loader in &self.auth.config().loaders {
            if let Some(challenge) = loader.challenge() {
                response.headers_mut().append(header::WWW_AUTHENTICATE, challenge);
            }
        }
        response
    }

    pub(super) fn response(&self) -> Response<Bytes> {
        let layer = &self.auth.config().responses;
        let mut response = match self.overrides.handler.as_ref().or(layer.handler.as_ref()) {
            Some(handler) => handler(self),
            None => self.default_response(),
        };
        response.extensions_mut().insert(self.rejection);
        response
    }
}

impl<U> std::fmt::Debug for RejectionContext<'_, U> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RejectionContext")
            .field("rejection", &self.rejection)
            .finish_non_exhaustive()
    }
}

/// Returns a 303, after which the client fetches the page with GET, even if the request had another
/// method (RFC 9110 §15.4.4).
fn see_other(url: &str) -> Response<Bytes> {
    let mut response = plain_response(StatusCode::SEE_OTHER);
    // The page was checked when it was set, and the query that was added is percent-encoded.
    if let Ok(location) = HeaderValue::try_from(url) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}
