//! The service: it puts an `AuthSession` into the request, and returns the future that writes the
//! changed cookies into the response.

use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{self, Entry};
use http::{Request, Response};
use tower_keep_core::AuthUser;
use tower_service::Service;

use super::config::Config;
use super::future::LoginFuture;
use crate::login::handle::AuthSession;
use crate::login::snapshot::Snapshot;

/// A service that provides the login of each request to the inner service. Created by
/// [`LoginLayer`](crate::LoginLayer).
pub struct LoginService<S, U> {
    inner: S,
    config: Arc<Config<U>>,
}

impl<S, U> LoginService<S, U> {
    pub(super) fn new(inner: S, config: Arc<Config<U>>) -> Self {
        Self { inner, config }
    }
}

impl<S, U, ReqBody, ResBody> Service<Request<ReqBody>> for LoginService<S, U>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    U: AuthUser,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = LoginFuture<S::Future, U>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let outer = request.extensions().get::<AuthSession<U>>();
        if let Some(outer) = outer {
            if AuthSession::find(request.extensions(), &self.config).is_some() {
                // This layer wraps the handler twice. The outer service has already created the
                // handle, and will write the cookies.
                return LoginFuture::new(self.inner.call(request), None);
            }
            self.config.report_same_cookie_name(outer.config());
        }
        let outer = outer.cloned();
        let snapshot = Snapshot::of(&request, &self.config);
        if snapshot.has_bearer() {
            // The inner service may log the headers.
            if let Entry::Occupied(mut field) = request.headers_mut().entry(header::AUTHORIZATION) {
                field.iter_mut().for_each(|value| value.set_sensitive(true));
            }
        }
        let auth = AuthSession::new(Arc::clone(&self.config), snapshot, outer);
        request.extensions_mut().insert(auth.clone());
        LoginFuture::new(self.inner.call(request), Some(auth))
    }
}

impl<S: Clone, U> Clone for LoginService<S, U> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), config: Arc::clone(&self.config) }
    }
}

impl<S, U> std::fmt::Debug for LoginService<S, U> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginService").finish_non_exhaustive()
    }
}
