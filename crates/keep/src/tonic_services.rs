//! Services of tonic: guards around them, the handle of a request, and errors as statuses.
//!
//! A guard or the layer around a service keeps its name, so that tonic's router accepts it. Guards,
//! and the errors of this crate that a method returns, respond with a status that every client of
//! gRPC reads.

use std::sync::Arc;

use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderValue};
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tower_keep_core::AuthUser;

use crate::error::{AuthError, LoginError};
use crate::guard::gate::{check, raise_rejected};
use crate::guard::{Guard, GuardService};
use crate::layer::LoginService;
use crate::login::handle::AuthSession;
use crate::problem::Problem;
use crate::response::{add_grpc_metadata, grpc_message};
use crate::throttle::{LimitError, Throttled};

impl<S: NamedService, U> NamedService for LoginService<S, U> {
    const NAME: &'static str = S::NAME;
}

impl<S: NamedService, U> NamedService for GuardService<S, U> {
    const NAME: &'static str = S::NAME;
}

impl<U: AuthUser> AuthSession<U> {
    /// Returns the handle of a request of tonic.
    ///
    /// ```
    /// use tonic::{Request, Response, Status};
    /// use tower_keep::{Account, AuthSession};
    ///
    /// async fn who_am_i(request: Request<()>) -> Result<Response<String>, Status> {
    ///     let auth = AuthSession::<Account>::from_tonic(&request)?;
    ///     let user = auth.user().await?;
    ///     Ok(Response::new(user.map(|user| user.login_name().to_owned()).unwrap_or_default()))
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the status 13 (`INTERNAL`) if the service is not inside a
    /// [`LoginLayer`](crate::LoginLayer).
    pub fn from_tonic<T>(request: &tonic::Request<T>) -> Result<Self, Status> {
        let auth = request.extensions().get::<Self>();
        auth.cloned().ok_or_else(|| missing_layer::<U>("a method"))
    }
}

impl<U: AuthUser> Guard<U> {
    /// Checks a request inside a method of a service of tonic, so that each method can have a guard
    /// of its own.
    ///
    /// ```
    /// use tonic::{Request, Response, Status};
    /// use tower_keep::Account;
    /// use tower_keep::guard::Guard;
    ///
    /// struct Documents { owners: Guard<Account> }
    ///
    /// impl Documents {
    ///     async fn delete(&self, request: Request<()>) -> Result<Response<()>, Status> {
    ///         self.owners.check_tonic(&request).await?;
    ///         Ok(Response::new(()))
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the status to send if the guard does not pass the request: 16 (`UNAUTHENTICATED`), 7
    /// (`PERMISSION_DENIED`), 14 (`UNAVAILABLE`) if a store has failed, or 13 (`INTERNAL`) if the
    /// service is not inside the guard's layer. Pages, messages and handlers of the guard have no
    /// effect.
    pub async fn check_tonic<T>(&self, request: &tonic::Request<T>) -> Result<(), Status> {
        let auth = self.gate().auth_session(request.extensions());
        let auth = auth.ok_or_else(|| missing_layer::<U>("a guard"))?;
        let checked = check(Arc::clone(self.gate()), auth).await;
        match checked.outcome? {
            Ok(()) => Ok(()),
            Err(rejection) => {
                let user = checked.auth.with_identity(|identity| identity.user().cloned());
                raise_rejected(rejection, &checked.auth, user);
                Err(status(&rejection.problem()))
            }
        }
    }
}

fn missing_layer<U>(subject: &str) -> Status {
    let user = std::any::type_name::<U>();
    let reason = format!(
        "{subject} is not inside the `LoginLayer<{user}>` that it belongs to: put the layer around \
         the server with `Server::builder().layer(auth_layer)`"
    );
    tracing::error!("{reason}");
    status(&Problem::bug(&reason))
}

fn status(problem: &Problem) -> Status {
    let code = Code::from_i32(problem.grpc_status.into());
    let mut metadata = HeaderMap::new();
    metadata.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    add_grpc_metadata(&mut metadata, problem);
    Status::with_metadata(code, grpc_message(problem), MetadataMap::from_headers(metadata))
}

impl From<AuthError> for Status {
    fn from(error: AuthError) -> Self {
        error.log();
        status(&error.problem())
    }
}

impl From<LoginError> for Status {
    fn from(error: LoginError) -> Self {
        error.log();
        status(&error.problem())
    }
}

impl From<LimitError> for Status {
    fn from(error: LimitError) -> Self {
        error.log();
        status(&error.problem())
    }
}

impl From<Throttled> for Status {
    fn from(throttled: Throttled) -> Self {
        status(&throttled.problem())
    }
}

#[cfg(feature = "password")]
impl From<crate::password::PasswordError> for Status {
    fn from(error: crate::password::PasswordError) -> Self {
        error.log();
        status(&error.problem())
    }
}
