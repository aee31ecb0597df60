//! The future of a request inside the layer.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Method, Response};
use pin_project_lite::pin_project;
use tower_keep_core::AuthUser;

use crate::error_body::give_form;
use crate::guard::gate::respond_to_problem;
use crate::login::handle::AuthSession;
use crate::problem::Problem;

pin_project! {
    /// Resolves to the inner service's response, after adding the changed cookies to its headers.
    #[must_use = "futures do nothing unless polled"]
    pub struct LoginFuture<F, U> {
        #[pin]
        inner: F,
        auth: Option<AuthSession<U>>,
    }

    /// A request whose future is dropped (by a disconnect, a timeout or a panic) gets no response.
    /// So its handle can no longer log in a user. If the request has begun a session, the session
    /// ends, because no browser has its cookies.
    impl<F, U> PinnedDrop for LoginFuture<F, U> {
        fn drop(this: Pin<&mut Self>) {
            if let Some(auth) = this.project().auth.take() {
                auth.abandon();
            }
        }
    }
}

impl<F, U> LoginFuture<F, U> {
    pub(super) fn new(inner: F, auth: Option<AuthSession<U>>) -> Self {
        Self { inner, auth }
    }
}

impl<F, U, ResBody, E> Future for LoginFuture<F, U>
where
    F: Future<Output = Result<Response<ResBody>, E>>,
    U: AuthUser,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut result = ready!(this.inner.poll(cx));
        if let Some(auth) = this.auth.take() {
            match &mut result {
                Ok(response) => {
                    let is_head = auth.request().method() == Method::HEAD;
                    let respond = |problem: &Problem| respond_to_problem(problem, &auth, None);
                    give_form(response, is_head, respond);
                    auth.write_to(response.headers_mut());
                }
                Err(_) => auth.abandon(),
            }
        }
        Poll::Ready(result)
    }
}

impl<F, U> std::fmt::Debug for LoginFuture<F, U> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginFuture").finish_non_exhaustive()
    }
}
