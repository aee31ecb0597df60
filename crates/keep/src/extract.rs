//! Extractors for axum.
//!
//! [`Login`] itself is one; it never refuses anybody. [`CurrentUser`] and [`FreshUser`] refuse as
//! the layer's guards do.

use std::ops::Deref;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::request::Parts;
use tower_keep_core::AuthUser;

use crate::guard::{Answers, Requirement, answer_fault, missing_layer, refuse};
use crate::login::original_uri;
use crate::{Fault, LogInError, Login, Rejection};

/// The user who is logged in. Anybody else is answered as by
/// [`require_login`](crate::LoginLayer::require_login); take an `Option` of it to let them in too.
///
/// Where layers of several areas are around a handler, this and [`Login`] are the innermost one's;
/// [`LoginLayer::login`](crate::LoginLayer::login) finds another's.
///
/// ```
/// use tower_keep::{Account, CurrentUser};
///
/// async fn account(user: CurrentUser<Account>) -> String {
///     format!("You are {}", user.login())
/// }
/// async fn home(user: Option<CurrentUser<Account>>) -> String {
///     user.map_or("Hello".into(), |user| format!("Hello, {}", user.login()))
/// }
/// # let _ = axum::Router::<()>::new()
/// #     .route("/account", axum::routing::get(account)).route("/", axum::routing::get(home));
/// ```
#[derive(Debug)]
pub struct CurrentUser<U>(pub Arc<U>);

/// The user whose login is fresh. Anybody else is answered as by
/// [`require_fresh`](crate::LoginLayer::require_fresh).
#[derive(Debug)]
pub struct FreshUser<U>(pub Arc<U>);

/// The answer to somebody whom an extractor has refused.
#[derive(Debug)]
pub struct Refused(Box<http::Response<Bytes>>);

impl Refused {
    fn new(answer: http::Response<Bytes>) -> Self {
        Self(Box::new(answer))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        self.0.map(Body::from)
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        Refused::new(answer_fault(&self)).into_response()
    }
}

impl IntoResponse for LogInError {
    fn into_response(self) -> Response {
        match &self {
            Self::Fault(fault) => fault.log(),
            Self::CookieTooLarge { .. } => {
                tracing::error!(error = &self as &dyn std::error::Error, "nobody was logged in");
            }
            Self::Inactive | Self::TooManySessions { .. } => {
                tracing::debug!(error = &self as &dyn std::error::Error, "nobody was logged in");
            }
        }
        Refused::new(self.response()).into_response()
    }
}

#[cfg(feature = "password")]
impl IntoResponse for crate::PasswordError {
    fn into_response(self) -> Response {
        match &self {
            // It has its line already.
            Self::Store(_) => {}
            Self::Busy | Self::Failed => {
                tracing::error!(
                    error = &self as &dyn std::error::Error,
                    "a password was not checked"
                );
            }
        }
        Refused::new(self.response()).into_response()
    }
}

fn handle<'a, U: AuthUser>(parts: &'a Parts, who: &str) -> Result<&'a Login<U>, Refused> {
    let login = parts.extensions.get::<Login<U>>();
    login.ok_or_else(|| Refused::new(missing_layer::<U>(who, false)))
}

impl<U: AuthUser, S: Sync> FromRequestParts<S> for Login<U> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        handle(parts, "the extractor `Login`").cloned()
    }
}

/// The user, if they are what is required.
async fn required<U: AuthUser>(
    parts: &Parts,
    requirement: Requirement<U>,
    who: &str,
) -> Result<Arc<U>, Refused> {
    let login = handle::<U>(parts, who)?;
    login.ensure_resolved().await.map_err(|fault| Refused::new(answer_fault(&fault)))?;
    let now = || login.config().now();
    let user = login.with_identity(|identity| {
        requirement.check(identity, &now)?;
        identity.user().cloned().ok_or(Rejection::Unauthenticated)
    });
    user.map_err(|rejection| {
        let mut head = parts.clone();
        head.uri = original_uri(&parts.uri, &parts.extensions).clone();
        Refused::new(refuse(rejection, &head, login, &Answers::default()))
    })
}

impl<U: AuthUser, S: Sync> FromRequestParts<S> for CurrentUser<U> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        required(parts, Requirement::LoggedIn, "the extractor `CurrentUser`").await.map(Self)
    }
}

impl<U: AuthUser, S: Sync> OptionalFromRequestParts<S> for CurrentUser<U> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Refused> {
        let login = handle::<U>(parts, "the extractor `CurrentUser`")?;
        let user = login.user().await.map_err(|fault| Refused::new(answer_fault(&fault)))?;
        Ok(user.map(Self))
    }
}

impl<U: AuthUser, S: Sync> FromRequestParts<S> for FreshUser<U> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        let fresh = Requirement::Fresh { within: None };
        required(parts, fresh, "the extractor `FreshUser`").await.map(Self)
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
