//! The future of a request inside the layer.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use pin_project_lite::pin_project;
use tower_keep_core::AuthUser;

use crate::login::Login;

pin_project! {
    /// Waits for the inner service's response, then writes what became of the login into it.
    #[must_use = "futures do nothing unless polled"]
    pub struct LoginFuture<F, U> {
        #[pin]
        inner: F,
        login: Option<Login<U>>,
    }

    /// A request that is dropped, by a hang-up, a time-out or a panic, gets no response: its handle must
    /// not log anybody in, and a login that it has begun is nobody's.
    impl<F, U> PinnedDrop for LoginFuture<F, U> {
        fn drop(this: Pin<&mut Self>) {
            if let Some(login) = this.project().login.take() {
                login.abandon();
            }
        }
    }
}

impl<F, U> LoginFuture<F, U> {
    pub(super) fn new(inner: F, login: Option<Login<U>>) -> Self {
        Self { inner, login }
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
        if let Some(login) = this.login.take() {
            match &mut result {
                Ok(response) => login.write_to(response.headers_mut()),
                Err(_) => login.abandon(),
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
