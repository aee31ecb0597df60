//! The decision about one request: the request passes, or the guard responds.

use std::cell::OnceCell;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Extensions, HeaderMap, Method, Response, header};
use tower_keep_core::AuthUser;

use super::reason::Rejection;
use super::rejection::{AuthRejection, respond_to_rejection};
use super::requirement::{LoginFacts, PendingTest, Requirement, TestResults, Verdict};
use crate::client_kind::{ClientHints, ClientKind};
use crate::error::AuthError;
use crate::event::Event;
use crate::layer::config::{Config, RejectedRequest, Responses};
use crate::login::handle::AuthSession;
use crate::login::snapshot::original_uri;
use crate::problem::Problem;
use crate::response::{ClientFacts, ErrorContext, ErrorHandler, complete, respond};

/// A guard's settings, shared by its services.
pub(crate) struct Gate<U> {
    pub(crate) config: Arc<Config<U>>,
    pub(crate) requirement: Requirement<U>,
    pub(crate) responses: Responses<U>,
    /// Whether guards of two layers were joined, so that the guard has no layer of its own.
    pub(crate) is_mixed: bool,
}

impl<U> Clone for Gate<U> {
    fn clone(&self) -> Self {
        Self {
            config: Arc::clone(&self.config),
            requirement: self.requirement.clone(),
            responses: self.responses.clone(),
            is_mixed: self.is_mixed,
        }
    }
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
}

/// The result of a check, with the gate and the handle that the response needs.
pub(crate) struct Checked<U> {
    pub(crate) gate: Arc<Gate<U>>,
    pub(crate) auth: AuthSession<U>,
    pub(crate) outcome: Outcome,
}

/// `Ok(Ok(()))` if the request passes. `Err` if a store failed, so that it is not known whether the
/// request passes.
pub(crate) type Outcome = Result<Result<(), Rejection>, AuthError>;

/// Looks up which user is logged in, and checks the gate's requirement.
pub(crate) async fn check<U: AuthUser>(gate: Arc<Gate<U>>, auth: AuthSession<U>) -> Checked<U> {
    if gate.requirement.passes_without_login(auth.request()) {
        return Checked { gate, auth, outcome: Ok(Ok(())) };
    }
    let outcome = match auth.ensure_resolved().await {
        Err(error) => Err(error),
        Ok(()) => match check_at_once(&gate.requirement, &auth) {
            FirstCheck::Known(outcome) => outcome.map(|outcome| outcome.map(|_| ())),
            // Boxed, so that the future of guards that ask no store stays small.
            FirstCheck::Pending(pending) => {
                Box::pin(check_with_tests(&gate.requirement, pending)).await
            }
        },
    };
    Checked { gate, auth, outcome }
}

/// The result of [`check_at_once`].
pub(crate) enum FirstCheck<'a, U> {
    /// If the request passes, this has the user who is logged in.
    Known(Result<Result<Option<Arc<U>>, Rejection>, AuthError>),
    Pending(Pending<'a, U>),
}

/// A check that must run a test first.
pub(crate) struct Pending<'a, U> {
    login: LoginFacts<'a, U>,
    test: PendingTest,
    address: usize,
}

/// Checks the requirement of a request whose login is resolved, without waiting for a store.
#[inline]
pub(crate) fn check_at_once<'a, U: AuthUser>(
    requirement: &Requirement<U>,
    auth: &'a AuthSession<U>,
) -> FirstCheck<'a, U> {
    let login = auth.with_identity(|identity| LoginFacts {
        request: auth.request(),
        clock: &*auth.config().clock,
        now: OnceCell::new(),
        user: identity.user().cloned(),
        fresh_since: identity.fresh_since(),
    });
    match requirement.check(&login, &TestResults::default()) {
        Verdict::Passed => FirstCheck::Known(Ok(Ok(login.user))),
        Verdict::Rejected(rejection) => FirstCheck::Known(Ok(Err(rejection))),
        Verdict::Failed(error) => FirstCheck::Known(Err(error)),
        Verdict::Ask { test, address } => FirstCheck::Pending(Pending { login, test, address }),
    }
}

/// Checks the requirement, and runs the tests that it asks for.
async fn check_with_tests<U: AuthUser>(
    requirement: &Requirement<U>,
    Pending { login, mut test, mut address }: Pending<'_, U>,
) -> Outcome {
    let mut results = TestResults::default();
    loop {
        results.add(address, test.await.map_err(AuthError::from));
        match requirement.check(&login, &results) {
            Verdict::Passed => return Ok(Ok(())),
            Verdict::Rejected(rejection) => return Ok(Err(rejection)),
            Verdict::Failed(error) => return Err(error),
            Verdict::Ask { test: next, address: next_address } => {
                (test, address) = (next, next_address);
            }
        }
    }
}

/// Raises the event and returns the response to a rejected request. `overrides` are the settings in
/// which a guard differs from its layer.
pub(crate) fn reject<U: AuthUser>(
    rejection: Rejection,
    mut request: Parts,
    auth: &AuthSession<U>,
    overrides: &Responses<U>,
) -> Response<Bytes> {
    request.uri = original_uri(&request.uri, &request.extensions).clone();
    let user = auth.with_identity(|identity| identity.user().cloned());
    raise_rejected(rejection, auth, user.clone());
    let (config, request) = (auth.config(), &request);
    let rejected = RejectedRequest { config, rejection, request, user, overrides };
    let client = auth.kind();
    let mut response = respond_to_rejection(rejected, auth, client);
    complete(&mut response, &request.method, facts(client, auth));
    response
}

impl<U: AuthUser> AuthSession<U> {
    /// Rejects a request in an extractor or a handler of your own: raises the event, and returns
    /// the response that the guards of this handle's layer would send. `request` is the head of
    /// this handle's request.
    ///
    #[cfg_attr(feature = "axum", doc = "```")]
    #[cfg_attr(not(feature = "axum"), doc = "```ignore")]
    /// use axum::extract::FromRequestParts;
    /// use http::request::Parts;
    /// use tower_keep::guard::{AuthRejection, Rejection};
    /// use tower_keep::{Account, AuthSession, CurrentUser};
    ///
    /// struct Admin;
    ///
    /// impl<S: Send + Sync> FromRequestParts<S> for Admin {
    ///     type Rejection = AuthRejection;
    ///
    ///     async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, AuthRejection> {
    ///         let user = CurrentUser::<Account>::from_request_parts(parts, state).await?;
    ///         let auth = AuthSession::<Account>::from_request_parts(parts, state).await?;
    ///         match user.login_name() {
    ///             "admin" => Ok(Self),
    ///             _ => Err(auth.reject(Rejection::Forbidden, parts)),
    ///         }
    ///     }
    /// }
    /// ```
    pub fn reject(&self, rejection: Rejection, request: &Parts) -> AuthRejection {
        let response = reject(rejection, request.clone(), self, &Responses::default());
        AuthRejection::new(response)
    }
}

/// Raises the event of a rejected request.
pub(crate) fn raise_rejected<U: AuthUser>(
    rejection: Rejection,
    auth: &AuthSession<U>,
    user: Option<Arc<U>>,
) {
    auth.config().raise(match (rejection, user) {
        (Rejection::NotFresh { .. }, Some(user)) => Event::NeedsRefresh { user },
        (Rejection::Forbidden, user) => Event::Forbidden { user },
        (Rejection::Unauthenticated | Rejection::NotFresh { .. }, _) => Event::Unauthorized,
    });
}

/// Logs the error and returns the response for it: of the guard's handler, of the layer's handler,
/// or the default response.
pub(crate) fn fail<U: AuthUser>(
    error: &AuthError,
    auth: &AuthSession<U>,
    overrides: &Responses<U>,
) -> Response<Bytes> {
    error.log();
    let handler = overrides.error_handler.as_ref();
    respond_to_problem(&error.problem(), auth, handler)
}

/// Returns the response to a failed request: of this handler, of the layer's handler, or the default
/// response.
pub(crate) fn respond_to_problem<U: AuthUser>(
    problem: &Problem,
    auth: &AuthSession<U>,
    handler: Option<&ErrorHandler>,
) -> Response<Bytes> {
    let (config, request) = (auth.config(), auth.request());
    let (method, path) = (request.method(), request.path());
    let context = ErrorContext { problem, client: auth.kind(), method, path };
    let mut response = match handler.or(config.responses.error_handler.as_ref()) {
        Some(handler) => handler(&context),
        None => context.default_response(),
    };
    complete(&mut response, method, facts(context.client, auth));
    response
}

fn facts<U: AuthUser>(kind: ClientKind, auth: &AuthSession<U>) -> ClientFacts<'_> {
    ClientFacts {
        kind,
        is_kind_configured: auth.config().all_are_pages,
        content_type: auth.grpc_content_type(),
    }
}

/// Logs the reason and returns a 500. Without the layer nothing can be checked, so the request must
/// not pass. `subject` is the guard or the extractor that needs the layer.
pub(crate) fn missing_layer<U: AuthUser>(
    subject: &str,
    method: &Method,
    headers: &HeaderMap,
    extensions: &Extensions,
) -> Response<Bytes> {
    let user = std::any::type_name::<U>();
    let reason = if extensions.get::<AuthSession<U>>().is_some() {
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
    let mut hints = ClientHints::default();
    headers.iter().for_each(|(name, value)| hints.read(name.as_str(), value));
    let kind = hints.kind(method, false);
    let mut response = respond(&Problem::bug(&reason), kind);
    let content_type = headers.get(header::CONTENT_TYPE);
    complete(&mut response, method, ClientFacts { kind, is_kind_configured: false, content_type });
    response
}
