//! The decision about one request: the request passes, or the guard responds.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Extensions, Method, Response};
use tower_keep_core::AuthUser;

use super::reason::Rejection;
use super::rejection::respond;
use super::requirement::Requirement;
use crate::error::{AuthError, bug_response};
use crate::event::Event;
use crate::layer::config::{Config, RejectedRequest, Responses};
use crate::login::handle::AuthSession;

/// A guard's settings, shared by its services.
pub(crate) struct Gate<U> {
    pub(crate) config: Arc<Config<U>>,
    pub(crate) requirement: Requirement<U>,
    pub(crate) responses: Responses<U>,
    /// Whether guards of two layers were joined, so that the guard has no layer of its own.
    pub(crate) is_mixed: bool,
}

impl<U: AuthUser> Gate<U> {
    pub(crate) fn exempts(&self, method: &Method) -> bool {
        self.config.exempts_options_method && method == Method::OPTIONS
    }

    /// Returns the handle of this guard's layer, or `None` if the request did not pass through the
    /// layer.
    pub(crate) fn auth_session(&self, extensions: &Extensions) -> Option<AuthSession<U>> {
        if self.is_mixed { None } else { AuthSession::find(extensions, &self.config) }
    }

    /// Logs the error and returns the response to a request without a handle of this guard's layer.
    pub(crate) fn missing_layer(extensions: &Extensions) -> Response<Bytes> {
        missing_layer::<U>("a guard", extensions.get::<AuthSession<U>>().is_some())
    }

    /// Raises the event and returns the response to a request that did not pass.
    pub(crate) fn reject(
        &self,
        rejection: Rejection,
        request: &Parts,
        auth: &AuthSession<U>,
    ) -> Response<Bytes> {
        reject(rejection, request, auth, &self.responses)
    }
}

/// The result of a check, with the gate and the handle that the response needs.
pub(crate) struct Checked<U> {
    pub(crate) gate: Arc<Gate<U>>,
    pub(crate) auth: AuthSession<U>,
    /// `Ok(Ok(()))` if the request passes. `Err` if a store failed, so that it is not known whether
    /// the request passes.
    pub(crate) outcome: Result<Result<(), Rejection>, AuthError>,
}

/// Looks up which user is logged in, and checks the gate's requirement.
pub(crate) async fn check<U: AuthUser>(gate: Arc<Gate<U>>, auth: AuthSession<U>) -> Checked<U> {
    let outcome = auth.ensure_resolved().await.map(|()| {
        let now = || gate.config.now();
        auth.with_identity(|identity| gate.requirement.check(identity, &now))
    });
    Checked { gate, auth, outcome }
}

/// Raises the event and returns the response to a rejected request. `overrides` are the settings in
/// which a guard differs from its layer.
pub(crate) fn reject<U: AuthUser>(
    rejection: Rejection,
    request: &Parts,
    auth: &AuthSession<U>,
    overrides: &Responses<U>,
) -> Response<Bytes> {
    let user = auth.with_identity(|identity| identity.user().cloned());
    auth.config().raise(match (rejection, user.clone()) {
        (Rejection::NotFresh, Some(user)) => Event::NeedsRefresh { user },
        (Rejection::Forbidden, user) => Event::Forbidden { user },
        (Rejection::Unauthenticated | Rejection::NotFresh, _) => Event::Unauthorized,
    });
    let config = auth.config();
    respond(RejectedRequest { config, rejection, request, user, overrides }, auth)
}

/// Logs the error and returns the response for it: 503 or 500.
pub(crate) fn error_response(error: &AuthError) -> Response<Bytes> {
    error.log();
    error.response()
}

/// Logs the reason and returns a 500. Without the layer nothing can be checked, so the request must
/// not pass. `subject` is the guard or the extractor that needs the layer.
pub(crate) fn missing_layer<U>(subject: &str, has_other_layer: bool) -> Response<Bytes> {
    let user = std::any::type_name::<U>();
    let reason = if has_other_layer {
        format!(
            "{subject} for `{user}` is inside another `LoginLayer` than its own, or joins guards of \
             two layers: use the guards of the layer that is around the route"
        )
    } else {
        format!(
            "{subject} for `{user}` is not inside a `LoginLayer<{user}>`: wrap the router with \
             `auth_layer.layer(router)`, or add `.layer(auth_layer)` after the guarded routes"
        )
    };
    tracing::error!("{reason}");
    bug_response(&reason)
}
