//! The guard around a service.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower_keep_core::AuthUser;
use tower_service::Service;

use super::body::GuardBody;
use super::future::GuardFuture;
use super::gate::{Gate, check, missing_layer};

/// A guarded service, created by a [`Guard`](super::Guard).
pub struct GuardService<S, U> {
    inner: S,
    gate: Arc<Gate<U>>,
}

impl<S, U> GuardService<S, U> {
    pub(super) fn new(inner: S, gate: Arc<Gate<U>>) -> Self {
        Self { inner, gate }
    }
}

impl<S, U, ReqBody, ResBody> Service<Request<ReqBody>> for GuardService<S, U>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
    U: AuthUser,
{
    type Response = Response<GuardBody<ResBody>>;
    type Error = S::Error;
    type Future = GuardFuture<S, U, ReqBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        if self.gate.exempts(request.method()) {
            return GuardFuture::inside(self.inner.call(request));
        }
        match self.gate.auth_session(request.extensions()) {
            None => {
                let (method, headers) = (request.method(), request.headers());
                let extensions = request.extensions();
                let response = missing_layer::<U>("a guard", method, headers, extensions);
                GuardFuture::responded(response)
            }
            Some(auth) => {
                let check = Box::pin(check(Arc::clone(&self.gate), auth));
                GuardFuture::checking(check, take_ready(&mut self.inner), request)
            }
        }
    }
}

/// Returns the service that was polled ready, and puts a clone in its place. The clone may not be
/// ready, so the original must be called.
fn take_ready<S: Clone>(service: &mut S) -> S {
    let clone = service.clone();
    std::mem::replace(service, clone)
}

impl<S: Clone, U> Clone for GuardService<S, U> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), gate: Arc::clone(&self.gate) }
    }
}

impl<S, U> fmt::Debug for GuardService<S, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardService").finish_non_exhaustive()
    }
}
