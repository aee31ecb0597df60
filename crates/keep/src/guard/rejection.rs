//! The responses to rejected requests.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Response, StatusCode};
use tower_keep_core::AuthUser;

use super::reason::Rejection;
use crate::error::{bug_response, plain_response};
use crate::flash::FlashKind;
use crate::layer::config::{Handler, RejectedRequest};
use crate::login::handle::AuthSession;

/// A rejected request, as it is passed to a rejection handler, which builds the response.
pub struct RejectionContext<'a, U> {
    rejected: RejectedRequest<'a, U>,
    auth: AuthSession<U>,
}

impl<'a, U: AuthUser> RejectionContext<'a, U> {
    /// Returns the reason for the rejection.
    pub fn rejection(&self) -> Rejection {
        self.rejected.rejection
    }

    /// Returns the request's head: the method, the headers, the extensions and the URI. Even inside
    /// a nested router, this is the URI that the client requested.
    pub fn request(&self) -> &Parts {
        self.rejected.request
    }

    /// Returns the handle, for example to set a flash message or to build a login URL.
    pub fn auth_session(&self) -> &AuthSession<U> {
        &self.auth
    }

    /// Returns the user whose request was rejected, or `None` if no user is logged in.
    pub fn user(&self) -> Option<&Arc<U>> {
        self.rejected.user.as_ref()
    }

    /// Returns the response that is sent if there is no rejection handler: a redirect to the login
    /// page or the confirm page, with its flash message. If there is no such page, this is a 401,
    /// and if the user is not allowed, it is a 403.
    pub fn default_response(&self) -> Response<Bytes> {
        let RejectedRequest { config, rejection, request, overrides, .. } = self.rejected;
        let layer = &config.responses;
        let (page, message, kind) = match rejection {
            Rejection::Unauthenticated => (
                overrides.login_page.as_ref().or(layer.login_page.as_ref()),
                overrides.login_message.as_ref().or(layer.login_message.as_ref()),
                FlashKind::LoginRequired,
            ),
            Rejection::NotFresh => (
                overrides.confirm_page.as_ref().or(layer.confirm_page.as_ref()),
                overrides.confirm_message.as_ref().or(layer.confirm_message.as_ref()),
                FlashKind::ConfirmRequired,
            ),
            Rejection::Forbidden => return plain_response(StatusCode::FORBIDDEN),
        };
        let Some(page) = page else { return self.unauthorized() };
        let Parts { method, headers, .. } = request;
        let is_page = config.is_page(method, headers);
        if let Some(message) = message.filter(|_| is_page) {
            self.auth.leave_flash(message.flash(kind, request));
        }
        see_other(&self.auth.url_of(page, is_page))
    }

    /// Returns a 401, with the challenges of the request loaders if no user is logged in
    /// (RFC 9110 §11.6.1).
    ///
    /// Use it in a rejection handler that redirects people and sends 401 to programs.
    pub fn unauthorized(&self) -> Response<Bytes> {
        let mut response = plain_response(StatusCode::UNAUTHORIZED);
        if self.rejected.rejection != Rejection::Unauthenticated {
            // The login is not fresh, and sending credentials again would not make it fresh.
            return response;
        }
        for loader in &self.rejected.config.loaders {
            if let Some(challenge) = loader.challenge() {
                response.headers_mut().append(header::WWW_AUTHENTICATE, challenge);
            }
        }
        response
    }
}

/// Returns the response to a rejected request: of the guard's handler, of the layer's handler, or
/// the default response.
pub(super) fn respond<U: AuthUser>(
    rejected: RejectedRequest<'_, U>,
    auth: &AuthSession<U>,
) -> Response<Bytes> {
    let rejection = rejected.rejection;
    let layer = &rejected.config.responses;
    let mut response = match rejected.overrides.handler.as_ref().or(layer.handler.as_ref()) {
        Some(handler) => handler(rejected),
        None => RejectionContext { rejected, auth: auth.clone() }.default_response(),
    };
    response.extensions_mut().insert(rejection);
    response
}

/// Converts an application's rejection handler to the form in which the settings hold it.
pub(crate) fn handler_from<U: AuthUser>(
    handler: impl Fn(&RejectionContext<'_, U>) -> Response<Bytes> + Send + Sync + 'static,
) -> Handler<U> {
    Arc::new(move |rejected| {
        match AuthSession::find(&rejected.request.extensions, rejected.config) {
            Some(auth) => handler(&RejectionContext { rejected, auth }),
            // This never happens: the handle of a rejected request is in its extensions.
            None => bug_response("a rejected request has no handle"),
        }
    })
}

impl<U> std::fmt::Debug for RejectionContext<'_, U> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RejectionContext")
            .field("rejection", &self.rejected.rejection)
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
