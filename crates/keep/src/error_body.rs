//! The response of an error that a handler returns. An error does not know the client, so the layer
//! gives the response the form that the client reads.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, VARY};
use http_body::{Body, Frame, SizeHint};

use crate::cache_headers::add_vary;
use crate::client_kind::ClientKind;
use crate::problem::Problem;
use crate::response::{PROBLEM_JSON, respond};

/// The body of an error's response. It implements [`http_body::Body`], so any server can send it,
/// also boxed or as a part of another body.
///
/// When the response passes through the layer, the text becomes one for the client: a page, a
/// problem (RFC 9457), or nothing for gRPC. The layer finds the response by a mark in its
/// extensions, and leaves it as it is if the status or the `Content-Type` has been changed. Without
/// a layer, the text is a problem.
#[derive(Debug)]
pub struct ErrorBody {
    /// The text for the client, once the layer has built it.
    text: Arc<OnceLock<Bytes>>,
    /// The text that is sent if there is no layer.
    preliminary: Bytes,
    is_sent: bool,
}

impl ErrorBody {
    fn remaining(&self) -> Bytes {
        let text = || self.text.get().unwrap_or(&self.preliminary).clone();
        if self.is_sent { Bytes::new() } else { text() }
    }
}

impl Body for ErrorBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        // From now on, the layer can no longer replace the text.
        let _ = self.text.set(self.preliminary.clone());
        let text = self.remaining();
        self.is_sent = true;
        Poll::Ready(Some(text).filter(|text| !text.is_empty()).map(|text| Ok(Frame::data(text))))
    }

    fn is_end_stream(&self) -> bool {
        self.remaining().is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining().len() as u64)
    }
}

/// A mark in the extensions of a response that an error has built, without knowing the client. The
/// layer, which knows it, builds the response again.
#[derive(Clone, Debug)]
struct PendingForm {
    problem: Problem,
    /// Where the body finds its text once the client is known.
    text: Arc<OnceLock<Bytes>>,
}

/// Returns the response of an error that does not know the client.
pub(crate) fn preliminary_response(problem: Problem) -> Response<ErrorBody> {
    let text = Arc::new(OnceLock::new());
    let (mut head, preliminary) = respond(&problem, ClientKind::Other).into_parts();
    head.extensions.insert(PendingForm { problem, text: Arc::clone(&text) });
    Response::from_parts(head, ErrorBody { text, preliminary, is_sent: false })
}

/// Replaces the response of an error that did not know the client, unless the application has
/// changed the response's status or form in the meantime, or has read or replaced its body.
/// `respond` builds the new response. `is_head` says that the response has no body anyway.
pub(crate) fn give_form<B>(
    response: &mut Response<B>,
    is_head: bool,
    respond: impl FnOnce(&Problem) -> Response<Bytes>,
) {
    let Some(PendingForm { problem, text }) = response.extensions_mut().remove() else { return };
    let form = response.headers().get(CONTENT_TYPE);
    let is_form_changed = form.is_none_or(|form| form != PROBLEM_JSON);
    let is_body_gone = Arc::strong_count(&text) == 1 && !is_head;
    if response.status() != problem.status || is_form_changed || is_body_gone {
        return;
    }
    let (head, body) = respond(&problem).into_parts();
    let length = body.len();
    if text.set(body).is_err() {
        // The body has been read.
        return;
    }
    *response.status_mut() = head.status;
    let headers = response.headers_mut();
    if headers.contains_key(CONTENT_LENGTH) {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    for name in head.headers.keys() {
        let values = head.headers.get_all(name);
        if name == VARY {
            let names = values.iter().filter_map(|value| value.to_str().ok());
            add_vary(headers, names.flat_map(|names| names.split(',').map(str::trim)));
        } else {
            headers.remove(name);
            headers.extend(values.iter().map(|value| (name.clone(), value.clone())));
        }
    }
}
