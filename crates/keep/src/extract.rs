//! Extractors for axum.
//!
//! [`AuthSession`] is itself an extractor: it accepts requests whether or not a user is logged in.
//! [`CurrentUser`] and [`FreshUser`] reject requests as the layer's guards do.

use std::ops::Deref;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::response::{IntoResponse, Redirect, Response};
use bytes::Bytes;
use http::request::Parts;
use tower_keep_core::AuthUser;

use crate::error::{AuthError, LoginError};
use crate::guard::gate::{error_response, missing_layer, reject};
use crate::guard::reason::Rejection;
use crate::guard::requirement::Requirement;
use crate::layer::config::Responses;
use crate::login::handle::AuthSession;
use crate::login::snapshot::original_uri;
use crate::target::LocalTarget;

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
/// Otherwise the extractor rejects the request as
/// [`require_fresh`](crate::LoginLayer::require_fresh) does.
#[derive(Debug)]
pub struct FreshUser<U>(pub Arc<U>);

/// The response to a request that an extractor has rejected.
#[derive(Debug)]
pub struct AuthRejection(Box<http::Response<Bytes>>);

impl AuthRejection {
    fn new(response: http::Response<Bytes>) -> Self {
        Self(Box::new(response))
    }
}

impl IntoResponse for AuthRejection {
    fn into_response(self) -> Response {
        self.0.map(Body::from)
    }
}

impl IntoResponse for AuthError {
    fn into_response(self) -> Response {
        AuthRejection::new(error_response(&self)).into_response()
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
        match &self {
            Self::Auth(error) => error.log(),
            Self::CookieTooLarge { .. } => {
                tracing::error!(error = &self as &dyn std::error::Error, "a login failed");
            }
            Self::Inactive | Self::TooManySessions { .. } => {
                tracing::debug!(error = &self as &dyn std::error::Error, "a login failed");
            }
        }
        AuthRejection::new(self.response()).into_response()
    }
}

#[cfg(feature = "password")]
impl IntoResponse for crate::password::PasswordError {
    fn into_response(self) -> Response {
        match &self {
            // `From<StoreError>` has logged it already.
            Self::Store(_) => {}
            Self::Busy | Self::Failed => {
                tracing::error!(
                    error = &self as &dyn std::error::Error,
                    "a password was not hashed or checked"
                );
            }
        }
        AuthRejection::new(self.response()).into_response()
    }
}

/// Returns the request's handle. `extractor` is named in the error if there is no handle.
fn auth_session<'a, U: AuthUser>(
    parts: &'a Parts,
    extractor: &str,
) -> Result<&'a AuthSession<U>, AuthRejection> {
    let auth = parts.extensions.get::<AuthSession<U>>();
    auth.ok_or_else(|| AuthRejection::new(missing_layer::<U>(extractor, false)))
}

impl<U: AuthUser, S: Sync> FromRequestParts<S> for AuthSession<U> {
    type Rejection = AuthRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, AuthRejection> {
        auth_session(parts, "the extractor `AuthSession`").cloned()
    }
}

/// Returns the user who is logged in, or rejects the request if it does not meet the requirement.
async fn required_user<U: AuthUser>(
    parts: &Parts,
    requirement: Requirement<U>,
    extractor: &str,
) -> Result<Arc<U>, AuthRejection> {
    let auth = auth_session::<U>(parts, extractor)?;
    auth.ensure_resolved().await.map_err(|error| AuthRejection::new(error_response(&error)))?;
    let now = || auth.config().now();
    let user = auth.with_identity(|identity| {
        requirement.check(identity, &now)?;
        identity.user().cloned().ok_or(Rejection::Unauthenticated)
    });
    user.map_err(|rejection| {
        let mut head = parts.clone();
        head.uri = original_uri(&parts.uri, &parts.extensions).clone();
        AuthRejection::new(reject(rejection, &head, auth, &Responses::default()))
    })
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
        let user = auth.user().await.map_err(|error| AuthRejection::new(error_response(&error)))?;
        Ok(user.map(Self))
    }
}

impl<U: AuthUser, S: Sync> FromRequestParts<S> for FreshUser<U> {
    type Rejection = AuthRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, AuthRejection> {
        let fresh = Requirement::Fresh { within: None };
        required_user(parts, fresh, "the extractor `FreshUser`").await.map(Self)
    }
}

impl<U> Deref for CurrentUser<U> {
    type Target = U;

    fn deref(&self) -> &U {
        &self.0
    }
}

impl<U> Deref for FreshUser<U> {
    type Target = U;

    fn deref(&self) -> &U {
        &self.0
    }
}
