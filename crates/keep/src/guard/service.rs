//! The guard around a service.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use tower_keep_core::AuthUser;
use tower_service::Service;

use super::gate::answer_fault;
use super::{Gate, GuardBody};

/// A guarded service; made by [`Guard`](super::Guard).
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
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone + Send + 'static,
    S::Future: Send,
    U: AuthUser,
    ReqBody: Send + 'static,
{
    type Response = Response<GuardBody<ResBody>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let mut inner = take_ready(&mut self.inner);
        let gate = Arc::clone(&self.gate);
        Box::pin(async move {
            match admit(&gate, request).await {
                Ok(request) => {
                    inner.call(request).await.map(|response| response.map(GuardBody::inner))
                }
                Err(answer) => Ok(answer.map(GuardBody::text)),
            }
        })
    }
}

/// The request again if it passes, else the answer.
async fn admit<U: AuthUser, B>(
    gate: &Gate<U>,
    request: Request<B>,
) -> Result<Request<B>, Response<Bytes>> {
    if gate.exempts(request.method()) {
        return Ok(request);
    }
    let Some(login) = gate.login(request.extensions()) else {
        return Err(Gate::<U>::missing_layer(request.extensions()));
    };
    match gate.check(&login).await {
        Ok(Ok(())) => Ok(request),
        Ok(Err(rejection)) => Err(gate.refuse(rejection, &request.into_parts().0, &login)),
        Err(fault) => Err(answer_fault(&fault)),
    }
}

/// The service that was polled ready, and a clone in its place: the clone may not be ready, so the
/// original must be the one that is called.
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
