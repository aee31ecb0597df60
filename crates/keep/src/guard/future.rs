//! The future of a guarded request.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_keep_core::AuthUser;
use tower_service::Service;

use super::body::GuardBody;
use super::gate::{Checked, fail, reject};

/// The future that looks up which user is logged in and checks the requirement. It is boxed because
/// it awaits a store; the inner service's future is not boxed.
pub(super) type Check<U> = Pin<Box<dyn Future<Output = Checked<U>> + Send>>;

pin_project! {
    /// The future of a guarded request.
    ///
    /// The future first looks up which user is logged in. Then it passes the request to the inner
    /// service, or responds itself.
    #[must_use = "futures do nothing unless polled"]
    pub struct GuardFuture<S, U, ReqBody>
    where
        S: Service<Request<ReqBody>>,
    {
        #[pin]
        stage: Stage<S, U, ReqBody>,
    }
}

pin_project! {
    #[project = StageProjection]
    enum Stage<S, U, ReqBody>
    where
        S: Service<Request<ReqBody>>,
    {
        Checking { check: Check<U>, waiting: Option<(S, Request<ReqBody>)> },
        Inside { #[pin] inner: S::Future },
        Responded { response: Option<Response<Bytes>> },
    }
}

impl<S, U, ReqBody> GuardFuture<S, U, ReqBody>
where
    S: Service<Request<ReqBody>>,
{
    pub(super) fn checking(check: Check<U>, service: S, request: Request<ReqBody>) -> Self {
        Self { stage: Stage::Checking { check, waiting: Some((service, request)) } }
    }

    pub(super) fn inside(inner: S::Future) -> Self {
        Self { stage: Stage::Inside { inner } }
    }

    pub(super) fn responded(response: Response<Bytes>) -> Self {
        Self { stage: Stage::Responded { response: Some(response) } }
    }
}

impl<S, U, ReqBody, ResBody> Future for GuardFuture<S, U, ReqBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    U: AuthUser,
{
    type Output = Result<Response<GuardBody<ResBody>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut stage = self.project().stage;
        loop {
            let next = match stage.as_mut().project() {
                StageProjection::Inside { inner } => {
                    return inner.poll(cx).map_ok(|response| response.map(GuardBody::inner));
                }
                StageProjection::Responded { response } => {
                    let response = response
                        .take()
                        .expect("`GuardFuture` was polled after it had returned `Ready`");
                    return Poll::Ready(Ok(response.map(GuardBody::text)));
                }
                StageProjection::Checking { check, waiting } => {
                    let checked = ready!(check.as_mut().poll(cx));
                    let (mut service, request) = waiting
                        .take()
                        .expect("`GuardFuture` was polled after it had returned `Ready`");
                    match checked.outcome {
                        Ok(Ok(())) => Stage::Inside { inner: service.call(request) },
                        Ok(Err(rejection)) => {
                            let Checked { gate, auth, .. } = &checked;
                            let head = request.into_parts().0;
                            let response = reject(rejection, head, auth, &gate.responses);
                            Stage::Responded { response: Some(response) }
                        }
                        Err(ref error) => {
                            let Checked { gate, auth, .. } = &checked;
                            let response = fail(error, auth, &gate.responses);
                            Stage::Responded { response: Some(response) }
                        }
                    }
                }
            };
            stage.set(next);
        }
    }
}

impl<S, U, ReqBody> fmt::Debug for GuardFuture<S, U, ReqBody>
where
    S: Service<Request<ReqBody>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardFuture").finish_non_exhaustive()
    }
}
