//! The responses to rejected requests.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Response, StatusCode};
use tower_keep_core::AuthUser;

use super::reason::Rejection;
use crate::client_kind::ClientKind;
use crate::flash::{FlashKind, Message};
use crate::layer::config::{Handler, RejectedRequest};
use crate::login::handle::AuthSession;
use crate::origin::Host;
use crate::page::{Page, split_origin};
use crate::problem::Problem;
use crate::response::{respond, see_other};
use crate::target::{LocalTarget, target_of};

const HX_BOOSTED: HeaderName = HeaderName::from_static("hx-boosted");
const HX_CURRENT_URL: HeaderName = HeaderName::from_static("hx-current-url");
const HX_REDIRECT: HeaderName = HeaderName::from_static("hx-redirect");

/// A request that a guard, an extractor or [`AuthSession::reject`] has rejected, as it is passed to
/// a rejection handler, which builds the response.
pub struct RejectionContext<'a, U> {
    rejected: RejectedRequest<'a, U>,
    auth: AuthSession<U>,
    client: ClientKind,
}

impl<'a, U: AuthUser> RejectionContext<'a, U> {
    /// Returns the reason for the rejection.
    pub fn rejection(&self) -> Rejection {
        self.rejected.rejection
    }

    /// Returns what kind of client has sent the request.
    pub fn client_kind(&self) -> ClientKind {
        self.client
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

    /// Returns the response that is sent if there is no rejection handler; see the table of
    /// [`Guard`](super::Guard). Calling this also sets the flash message and, if the layer keeps
    /// `next` in a cookie, that cookie.
    pub fn default_response(&self) -> Response<Bytes> {
        let client = self.client_kind();
        if self.rejection() == Rejection::Forbidden {
            return respond(&Problem::FORBIDDEN, client);
        }
        match (client, self.page()) {
            (ClientKind::Page, Some((page, message, kind))) => {
                if let Some(message) = message.filter(|_| self.auth.is_navigation()) {
                    self.auth.leave_flash(message.flash(kind, self.request()));
                }
                see_other(&self.auth.url_of(page, self.auth.requested_target()))
            }
            (ClientKind::Htmx, Some((page, ..))) => {
                let mut response = self.unauthorized();
                let url = self.auth.url_of(page, self.target_of_htmx());
                // The page was checked when it was set, and the query is percent-encoded.
                if let Ok(url) = HeaderValue::try_from(url) {
                    response.headers_mut().insert(HX_REDIRECT, url);
                }
                response
            }
            _ => self.unauthorized(),
        }
    }

    /// Returns a 401, with a challenge (RFC 9110 §11.6.1), whatever the reason is. For gRPC,
    /// returns the status 16 (`UNAUTHENTICATED`).
    ///
    /// Use it in a rejection handler that must not redirect some requests.
    pub fn unauthorized(&self) -> Response<Bytes> {
        let problem = match self.rejection() {
            Rejection::Forbidden => Problem::LOGIN_REQUIRED,
            rejection => rejection.problem(),
        };
        let mut response = respond(&problem, self.client_kind());
        if response.status() == StatusCode::UNAUTHORIZED {
            for challenge in self.challenges() {
                response.headers_mut().append(header::WWW_AUTHENTICATE, challenge);
            }
        }
        response
    }

    /// Returns the page to redirect to, with its flash message.
    fn page(&self) -> Option<(&'a Page, Option<&'a Message>, FlashKind)> {
        let RejectedRequest { config, rejection, overrides, .. } = self.rejected;
        let layer = &config.responses;
        let (page, message, kind) = match rejection {
            Rejection::Unauthenticated => (
                overrides.login_page.as_ref().or(layer.login_page.as_ref()),
                overrides.login_message.as_ref().or(layer.login_message.as_ref()),
                FlashKind::LoginRequired,
            ),
            Rejection::NotFresh { .. } => (
                overrides.confirm_page.as_ref().or(layer.confirm_page.as_ref()),
                overrides.confirm_message.as_ref().or(layer.confirm_message.as_ref()),
                FlashKind::ConfirmRequired,
            ),
            Rejection::Forbidden => return None,
        };
        page.map(|page| (page, message, kind))
    }

    /// Returns the challenges of a 401: those of the request loaders, else `Bearer` if the layer
    /// accepts tokens, else `Session`. A login that is not fresh, or an invalid token, gets a
    /// challenge of its own.
    fn challenges(&self) -> Vec<HeaderValue> {
        let config = self.rejected.config;
        let has_token = self.auth.is_bearer_request();
        let scheme = if has_token { "Bearer" } else { "Session" };
        let own = |scheme: &str, parameters: &str| {
            let challenge = format!("{scheme} realm=\"{}\"{parameters}", config.realm);
            HeaderValue::try_from(challenge).into_iter().collect()
        };
        if let Rejection::NotFresh { max_age } = self.rejection() {
            // Credentials in the request would not make the login fresh. The parameters are those
            // of RFC 9470 §3.
            let max_age = max_age.map(|age| format!(", max_age=\"{}\"", age.as_secs()));
            let parameters = ", error=\"insufficient_user_authentication\"".to_owned();
            return own(scheme, &(parameters + &max_age.unwrap_or_default()));
        }
        if has_token {
            // The token decides alone, so other credentials would not help (RFC 6750 §3.1).
            return own(scheme, ", error=\"invalid_token\"");
        }
        // A browser that gets a `Basic` challenge asks for a password in a window of its own.
        let is_from_browser = self.auth.has_fetch_metadata();
        let mut challenges: Vec<_> =
            config.loaders.iter().filter_map(|loader| loader.challenge()).collect();
        challenges.retain(|challenge| !(is_from_browser && has_basic(challenge)));
        match challenges.is_empty() {
            true if config.accepts_bearer => own("Bearer", ""),
            true => own(scheme, ""),
            false => challenges,
        }
    }

    /// Returns `next` of a request of htmx: the page in `HX-Current-URL` if it is of this site or,
    /// for a boosted link, the link's target.
    fn target_of_htmx(&self) -> Option<LocalTarget> {
        let headers = &self.request().headers;
        let is_boosted = headers.get(HX_BOOSTED).is_some_and(|value| value == "true");
        if let Some(own) = self.auth.requested_target().filter(|_| is_boosted) {
            return Some(own);
        }
        let (origin, target) = split_origin(headers.get(HX_CURRENT_URL)?.to_str().ok()?)?;
        let host = Host::of_head(self.request());
        if self.rejected.config.is_own_origin(&origin, &host) { target_of(&target) } else { None }
    }
}

/// Whether one of the challenges in this field is for the scheme `Basic` (RFC 7617).
fn has_basic(challenge: &HeaderValue) -> bool {
    let is_basic = |item: &[u8]| {
        let scheme = item.trim_ascii().split(|byte| *byte == b' ').next();
        scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"Basic"))
    };
    challenge.as_bytes().split(|byte| *byte == b',').any(is_basic)
}

/// Returns the response to a rejected request: of the guard's handler, of the layer's handler, or
/// the default response.
pub(super) fn respond_to_rejection<U: AuthUser>(
    rejected: RejectedRequest<'_, U>,
    auth: &AuthSession<U>,
    client: ClientKind,
) -> Response<Bytes> {
    let rejection = rejected.rejection;
    let layer = &rejected.config.responses;
    let mut response = match rejected.overrides.handler.as_ref().or(layer.handler.as_ref()) {
        Some(handler) => handler(rejected),
        None => RejectionContext { rejected, auth: auth.clone(), client }.default_response(),
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
            Some(auth) => {
                let client = auth.kind();
                handler(&RejectionContext { rejected, auth, client })
            }
            // This never happens: the handle of a rejected request is in its extensions.
            None => respond(&Problem::bug("a rejected request has no handle"), ClientKind::Other),
        }
    })
}

impl<U> fmt::Debug for RejectionContext<'_, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RejectionContext")
            .field("rejection", &self.rejected.rejection)
            .finish_non_exhaustive()
    }
}

/// The response to a request that a guard or an extractor has rejected, or that has failed.
///
/// With the feature `axum`, this type implements `IntoResponse`, so a handler can return it.
#[derive(Clone)]
pub struct AuthRejection(Box<Response<Bytes>>);

impl AuthRejection {
    pub(crate) fn new(response: Response<Bytes>) -> Self {
        Self(Box::new(response))
    }

    /// Returns why the request was rejected, or `None` if it has failed, for example because of a
    /// store.
    pub fn reason(&self) -> Option<Rejection> {
        self.0.extensions().get().copied()
    }

    /// Returns the response.
    pub fn response(self) -> Response<Bytes> {
        *self.0
    }
}

impl fmt::Debug for AuthRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthRejection")
            .field("reason", &self.reason())
            .field("status", &self.0.status())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_for_basic_is_found_among_others() {
        for (challenge, expected) in [
            ("Basic realm=\"a\"", true),
            ("basic", true),
            ("Bearer, BASIC realm=\"a\"", true),
            ("Bearer", false),
            ("Basically realm=\"a\"", false),
            ("Digest realm=\"Basic\"", false),
        ] {
            assert_eq!(has_basic(&HeaderValue::from_static(challenge)), expected, "{challenge}");
        }
    }
}
