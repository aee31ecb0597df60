//! The decision about one request: it passes, or the guard responds.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Extensions, Method, Response};
use tower_keep_core::AuthUser;

use super::{Rejection, RejectionContext, Requirement, Responses};
use crate::error::wrong_wiring;
use crate::event::Event;
use crate::layer::Config;
use crate::{AuthError, AuthSession};

/// A guard's settings, shared by its services.
pub(crate) struct Gate<U> {
    pub(crate) config: Arc<Config<U>>,
    pub(crate) requirement: Requirement<U>,
    pub(crate) responses: Responses<U>,
    pub(crate) is_mixed: bool,
}

impl<U: AuthUser> Gate<U> {
    pub(crate) fn exempts(&self, method: &Method) -> bool {
        self.config.exempts_options_method && method == Method::OPTIONS
    }

    /// Returns the handle of this guard's layer.
    pub(crate) fn auth_session(&self, extensions: &Extensions) -> Option<AuthSession<U>> {
        if self.is_mixed { None } else { AuthSession::find(extensions, &self.config) }
    }

    /// Returns the response to a request without that layer.
    pub(crate) fn missing_layer(extensions: &Extensions) -> Response<Bytes> {
        missing_layer::<U>("a guard", extensions.get::<AuthSession<U>>().is_some())
    }

    /// Returns the response to a request that did not pass.
    pub(crate) fn refuse(
        &self,
        rejection: Rejection,
        request: &Parts,
        auth: &AuthSession<U>,
    ) -> Response<Bytes> {
        refuse(rejection, request, auth, &self.responses)
    }
}

/// The result of a check, and what is needed to respond.
pub(crate) struct Checked<U> {
    pub(crate) gate: Arc<Gate<U>>,
    pub(crate) auth: AuthSession<U>,
    /// Whether the request passes. On an error this is not known.
    pub(crate) outcome: Result<Result<(), Rejection>, AuthError>,
}

pub(crate) async fn check<U: AuthUser>(gate: Arc<Gate<U>>, auth: AuthSession<U>) -> Checked<U> {
    let outcome = auth.ensure_resolved().await.map(|()| {
        let now = || gate.config.now();
        auth.with_identity(|identity| gate.requirement.check(identity, &now))
    });
    Checked { gate, auth, outcome }
}

/// Raises the event and builds the response.
pub(crate) fn refuse<U: AuthUser>(
    rejection: Rejection,
    request: &Parts,
    auth: &AuthSession<U>,
    own: &Responses<U>,
) -> Response<Bytes> {
    let user = auth.with_identity(|identity| identity.user().cloned());
    auth.config().raise(match (rejection, user.clone()) {
        (Rejection::NotFresh, Some(user)) => Event::NeedsRefresh { user },
        (Rejection::Forbidden, user) => Event::Forbidden { user },
        (Rejection::Unauthenticated | Rejection::NotFresh, _) => Event::Unauthorized,
    });
    RejectionContext::new(rejection, request, auth, user, own).response()
}

/// Logs the error and returns its response: 503 or 500.
pub(crate) fn error_response(error: &AuthError) -> Response<Bytes> {
    error.log();
    error.response()
}

/// Logs the reason and returns a 500. Without the layer nothing can be checked, so the request must
/// not pass.
pub(crate) fn missing_layer<U>(who: &str, other_layer: bool) -> Response<Bytes> {
    let user = std::any::type_name::<U>();
    let reason = if other_layer {
        format!(
            "{who} for `{user}` is not inside its own `LoginLayer` but inside another one, or it joins \
             guards of two layers: use the guards of the layer that is around the route"
        )
    } else {
        format!(
            "{who} for `{user}` is not inside a `LoginLayer<{user}>`: wrap the router with \
             `auth_layer.layer(router)`, or add `.layer(auth_layer)` after the guarded routes"
        )
    };
    tracing::error!("{reason}");
    wrong_wiring(&reason)
}
