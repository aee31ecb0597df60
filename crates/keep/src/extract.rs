//! Extractors for axum.
//!
//! [`AuthSession`] is itself an extractor: it accepts requests whether or not a user is logged in.
//! [`CurrentUser`] and [`FreshUser`] reject requests as the layer's guards do. An `Option` of each
//! accepts all requests: it is `None` where the extractor would reject the request. If a store
//! fails, they all respond with 503.
//!
//! An application's own extractor rejects requests with
//! [`AuthSession::reject`](crate::AuthSession::reject).

use std::convert::Infallible;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::response::{IntoResponse, Redirect, Response};
use http::request::Parts;
use tower_keep_core::AuthUser;

use crate::error::{AuthError, LoginError};
use crate::guard::AuthRejection;
use crate::guard::gate::{FirstCheck, check_at_once, fail, missing_layer};
use crate::guard::reason::Rejection;
use crate::guard::requirement::Requirement;
use crate::layer::config::Responses;
use crate::login::handle::AuthSession;
use crate::target::LocalTarget;
use crate::throttle::{LimitError, Throttled};

/// The user who is logged in.
///
/// If no user is logged in, the extractor rejects the request as
/// [`require_login`](crate::LoginLayer::require_login) does. Extract an `Option<CurrentUser<U>>` to
/// accept such requests too.
///
/// If a handler is inside several layers, each with its own
/// [area](crate::LoginLayerBuilder::with_area), this extractor and [`AuthSession`] use the
/// innermost layer. [`LoginLayer::auth_session`](crate::LoginLayer::auth_session) returns the
/// handle of another layer.
///
/// ```
/// use tower_keep::{Account, CurrentUser};
///
/// async fn account(user: CurrentUser<Account>) -> String {
///     format!("You are {}", user.login_name())
/// }
/// async fn home(user: Option<CurrentUser<Account>>) -> String {
///     user.map_or("Hello".into(), |user| format!("Hello, {}", user.login_name()))
/// }
/// # let _ = axum::Router::<()>::new()
/// #     .route("/account", axum::routing::get(account)).route("/", axum::routing::get(home));
/// ```
#[derive(Debug)]
pub struct CurrentUser<U>(pub Arc<U>);

/// The user who is logged in, if the login is *fresh*: in this session, the user has logged in or
/// confirmed the login.
///
/// `MAX_AGE` is how many seconds ago this may have happened. By default, any time in this session
/// is enough. Otherwise the extractor rejects the request as
/// [`require_fresh`](crate::LoginLayer::require_fresh) and
/// [`require_fresh_within`](crate::LoginLayer::require_fresh_within) do. An `Option<FreshUser<U>>`
/// is `None` if the login is not fresh, or if no user is logged in.
///
/// ```
/// use tower_keep::{Account, FreshUser};
///
/// async fn change_address(user: FreshUser<Account>) -> String {
///     format!("The new address of {}?", user.login_name())
/// }
/// async fn delete_account(user: FreshUser<Account, { 10 * 60 }>) -> String {
///     format!("Delete the account of {}?", user.login_name())
/// }
/// # let _ = axum::Router::<()>::new()
/// #     .route("/address", axum::routing::get(change_address))
/// #     .route("/delete", axum::routing::get(delete_account));
/// ```
#[derive(Debug)]
pub struct FreshUser<U, const MAX_AGE: u64 = { u64::MAX }>(pub Arc<U>);

impl IntoResponse for AuthRejection {
    fn into_response(self) -> Response {
        self.response().map(Body::from)
    }
}

impl IntoResponse for AuthError {
    fn into_response(self) -> Response {
        self.log();
        self.response().map(Body::new)
    }
}

/// Redirects to this target, with the status 303.
impl IntoResponse for LocalTarget {
    fn into_response(self) -> Response {
        Redirect::to(self.as_str()).into_response()
    }
}

impl IntoResponse for LoginError {
    fn into_response(self) -> Response {
        self.log();
        self.response().map(Body::new)
    }
}

impl IntoResponse for LimitError {
    fn into_response(self) -> Response {
        self.log();
        self.response().map(Body::new)
    }
}

impl IntoResponse for Throttled {
    fn into_response(self) -> Response {
        self.response().map(Body::new)
    }
}

#[cfg(feature = "password")]
impl IntoResponse for crate::password::PasswordError {
    fn into_response(self) -> Response {
        self.log();
        self.response().map(Body::new)
    }
}

/// Returns the request's handle. `extractor` is named in the error if there is no handle.
fn auth_session<'a, U: AuthUser>(
    parts: &'a Parts,
    extractor: &str,
) -> Result<&'a AuthSession<U>, AuthRejection> {
    let Parts { method, headers, extensions, .. } = parts;
    let missing = || missing_layer::<U>(extractor, method, headers, extensions);
    extensions.get().ok_or_else(|| AuthRejection::new(missing()))
}

impl<U: AuthUser, S: Sync> FromRequestParts<S> for AuthSession<U> {
    type Rejection = AuthRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, AuthRejection> {
        auth_session(parts, "the extractor `AuthSession`").cloned()
    }
}

/// `None` if the handler is not inside a layer.
impl<U: AuthUser, S: Sync> OptionalFromRequestParts<S> for AuthSession<U> {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Infallible> {
        Ok(parts.extensions.get().cloned())
    }
}

/// Returns the user who is logged in, or why the request does not meet the requirement, which must
/// not ask a store.
fn user_who_meets<U: AuthUser>(
    requirement: &Requirement<U>,
    auth: &AuthSession<U>,
) -> Result<Result<Arc<U>, Rejection>, AuthError> {
    match check_at_once(requirement, auth) {
        FirstCheck::Known(outcome) => {
            Ok(outcome?.and_then(|user| user.ok_or(Rejection::Unauthenticated)))
        }
        // This never happens: the requirements of the extractors ask no store.
        FirstCheck::Pending(_) => Ok(Err(Rejection::Forbidden)),
    }
}

fn reject_failed<U: AuthUser>(auth: &AuthSession<U>) -> impl Fn(AuthError) -> AuthRejection {
    |error| AuthRejection::new(fail(&error, auth, &Responses::default()))
}

/// Returns the user who is logged in, or rejects the request if it does not meet the requirement.
async fn required_user<U: AuthUser>(
    parts: &Parts,
    requirement: Requirement<U>,
    extractor: &str,
) -> Result<Arc<U>, AuthRejection> {
    let auth = auth_session::<U>(parts, extractor)?;
    auth.ensure_resolved().await.map_err(reject_failed(auth))?;
    let user = user_who_meets(&requirement, auth).map_err(reject_failed(auth))?;
    user.map_err(|rejection| auth.reject(rejection, parts))
}

impl<U: AuthUser, S: Sync> FromRequestParts<S> for CurrentUser<U> {
    type Rejection = AuthRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, AuthRejection> {
        required_user(parts, Requirement::LoggedIn, "the extractor `CurrentUser`").await.map(Self)
    }
}

impl<U: AuthUser, S: Sync> OptionalFromRequestParts<S> for CurrentUser<U> {
    type Rejection = AuthRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, AuthRejection> {
        let auth = auth_session::<U>(parts, "the extractor `CurrentUser`")?;
        Ok(auth.user().await.map_err(reject_failed(auth))?.map(Self))
    }
}

fn fresh<U>(max_age: u64) -> Requirement<U> {
    Requirement::Fresh {
        within: Some(max_age).filter(|age| *age < u64::MAX).map(Duration::from_secs),
    }
}

impl<U: AuthUser, S: Sync, const MAX_AGE: u64> FromRequestParts<S> for FreshUser<U, MAX_AGE> {
    type Rejection = AuthRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, AuthRejection> {
        required_user(parts, fresh(MAX_AGE), "the extractor `FreshUser`").await.map(Self)
    }
}

impl<U: AuthUser, S: Sync, const MAX_AGE: u64> OptionalFromRequestParts<S>
    for FreshUser<U, MAX_AGE>
{
    type Rejection = AuthRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, AuthRejection> {
        let auth = auth_session::<U>(parts, "the extractor `FreshUser`")?;
        auth.ensure_resolved().await.map_err(reject_failed(auth))?;
        let user = user_who_meets(&fresh(MAX_AGE), auth).map_err(reject_failed(auth))?;
        Ok(user.ok().map(Self))
    }
}

impl<U> Deref for CurrentUser<U> {
    type Target = U;

    fn deref(&self) -> &U {
        &self.0
    }
}

impl<U, const MAX_AGE: u64> Deref for FreshUser<U, MAX_AGE> {
    type Target = U;

    fn deref(&self) -> &U {
        &self.0
    }
}
