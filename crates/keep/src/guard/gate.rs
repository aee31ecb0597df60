//! The decision about one request: let it through, or the answer.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Extensions, Method, Response};
use tower_keep_core::AuthUser;

use super::{Answers, Refusal, Rejection, Requirement};
use crate::fault::wrong_wiring;
use crate::layer::Config;
use crate::{Event, Fault, Login};

/// A guard's settings, shared by its services.
pub(crate) struct Gate<U> {
    pub(crate) config: Arc<Config<U>>,
    pub(crate) requirement: Requirement<U>,
    pub(crate) answers: Answers<U>,
    pub(crate) is_mixed: bool,
}

impl<U: AuthUser> Gate<U> {
    pub(crate) fn exempts(&self, method: &Method) -> bool {
        self.config.exempt_options && method == Method::OPTIONS
    }

    /// The handle of this guard's layer.
    pub(crate) fn login(&self, extensions: &Extensions) -> Option<Login<U>> {
        if self.is_mixed { None } else { Login::find(extensions, &self.config) }
    }

    /// The answer where that layer is missing.
    pub(crate) fn missing_layer(extensions: &Extensions) -> Response<Bytes> {
        missing_layer::<U>("a guard", extensions.get::<Login<U>>().is_some())
    }

    /// The answer to a request that did not pass.
    pub(crate) fn refuse(
        &self,
        rejection: Rejection,
        request: &Parts,
        login: &Login<U>,
    ) -> Response<Bytes> {
        refuse(rejection, request, login, &self.answers)
    }
}

/// What a check came to, and what it takes to answer.
pub(crate) struct Checked<U> {
    pub(crate) gate: Arc<Gate<U>>,
    pub(crate) login: Login<U>,
    /// Whether the request passes; a fault is neither yes nor no.
    pub(crate) outcome: Result<Result<(), Rejection>, Fault>,
}

pub(crate) async fn check<U: AuthUser>(gate: Arc<Gate<U>>, login: Login<U>) -> Checked<U> {
    let outcome = login.ensure_resolved().await.map(|()| {
        let now = || gate.config.now();
        login.with_identity(|identity| gate.requirement.check(identity, &now))
    });
    Checked { gate, login, outcome }
}

/// Raises the event and builds the answer.
pub(crate) fn refuse<U: AuthUser>(
    rejection: Rejection,
    request: &Parts,
    login: &Login<U>,
    own: &Answers<U>,
) -> Response<Bytes> {
    let user = login.with_identity(|identity| identity.user().cloned());
    login.config().raise(match (rejection, user.clone()) {
        (Rejection::NotFresh, Some(user)) => Event::NeedsRefresh { user },
        (Rejection::Forbidden, user) => Event::Forbidden { user },
        (Rejection::Unauthenticated | Rejection::NotFresh, _) => Event::Unauthorized,
    });
    Refusal::new(rejection, request, login, user, own).response()
}

/// The response to a fault: 503 or 500. The log has the reason.
pub(crate) fn answer_fault(fault: &Fault) -> Response<Bytes> {
    fault.log();
    fault.response()
}

/// Never let through, and never a mere log line: without the layer nobody is guarded.
pub(crate) fn missing_layer<U>(who: &str, other_layer: bool) -> Response<Bytes> {
    let user = std::any::type_name::<U>();
    let reason = if other_layer {
        format!(
            "{who} for `{user}` is inside of a `LoginLayer`, but not of the one that made it, or it is \
             joined of guards of two layers: use the guards of the layer that is around the route"
        )
    } else {
        format!(
            "{who} for `{user}` is not inside of a `LoginLayer<{user}>`: wrap the router with \
             `auth.layer(router)`, or add `.layer(auth)` after the guarded routes"
        )
    };
    tracing::error!("{reason}");
    wrong_wiring(&reason)
}
