//! The form of a response to a rejected or failed request, for each kind of client.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, CONTENT_LENGTH, CONTENT_TYPE, Entry, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Response, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::cache_headers::{add_vary, forbid_storing};
use crate::client_kind::ClientKind;
use crate::problem::{Problem, THROTTLED};
use crate::wait::in_words;

pub(crate) const PROBLEM_JSON: &str = "application/problem+json";
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const PROBLEM_TYPE: HeaderName = HeaderName::from_static("problem-type");
const PROBLEM_MAX_AGE: HeaderName = HeaderName::from_static("problem-max-age");
/// The bytes that `grpc-message` encodes, besides those that are not ASCII
/// (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).
const GRPC_ENCODED: &AsciiSet = &CONTROLS.add(b'%');

/// `Cookie` and the [`KIND_HEADERS`](crate::client_kind::KIND_HEADERS), as one field.
const VARY: &str =
    "Cookie, Accept, HX-Request, HX-History-Restore-Request, Sec-Fetch-Mode, Sec-Fetch-Dest";

/// Returns the response to a request with this problem, in the form that the client reads.
///
/// An error of gRPC has the HTTP status 200, no body, and its own status in `grpc-status`
/// ("Trailers-Only").
pub(crate) fn respond(problem: &Problem, client: ClientKind) -> Response<Bytes> {
    let mut response = match client {
        ClientKind::Grpc => grpc(problem, "application/grpc"),
        ClientKind::GrpcWeb => grpc(problem, "application/grpc-web"),
        ClientKind::Page => text(problem.status, "text/html; charset=utf-8", page(problem)),
        ClientKind::Htmx => text(problem.status, "text/html; charset=utf-8", paragraphs(problem)),
        ClientKind::Stream | ClientKind::Other => text(problem.status, PROBLEM_JSON, json(problem)),
    };
    add_retry_after(response.headers_mut(), problem);
    response
}

/// Returns a 303, after which the client fetches the page with GET, even if the request had another
/// method (RFC 9110 §15.4.4).
pub(crate) fn see_other(url: &str) -> Response<Bytes> {
    let mut response = text(StatusCode::SEE_OTHER, "text/plain; charset=utf-8", "See Other");
    // The page was checked when it was set, and the query that was added is percent-encoded.
    if let Ok(location) = HeaderValue::try_from(url) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

fn text(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn grpc(problem: &Problem, content_type: &'static str) -> Response<Bytes> {
    let mut response = text(StatusCode::OK, content_type, "");
    let headers = response.headers_mut();
    headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(problem.grpc_status)));
    let message = utf8_percent_encode(&grpc_message(problem), GRPC_ENCODED).to_string();
    if let Ok(message) = HeaderValue::try_from(message) {
        headers.insert(GRPC_MESSAGE, message);
    }
    add_grpc_metadata(headers, problem);
    response
}

fn add_retry_after(headers: &mut HeaderMap, problem: &Problem) {
    if let Some(seconds) = problem.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
}

/// Adds the metadata with which a client of gRPC tells two problems of one status apart, and knows
/// when to try again.
pub(crate) fn add_grpc_metadata(headers: &mut HeaderMap, problem: &Problem) {
    headers.insert(PROBLEM_TYPE, HeaderValue::from_static(problem.uri));
    if let Some(max_age) = problem.max_age {
        headers.insert(PROBLEM_MAX_AGE, HeaderValue::from(max_age));
    }
    add_retry_after(headers, problem);
}

/// Returns the message of a status of gRPC.
pub(crate) fn grpc_message(problem: &Problem) -> String {
    let detail = problem.detail.as_ref().map(|detail| format!(" {detail}")).unwrap_or_default();
    format!("{}{detail}", problem.title)
}

fn page(problem: &Problem) -> String {
    let status = problem.status;
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width\">\n<title>{status}</title>\n<h1>{status}</h1>\n{}",
        paragraphs(problem)
    )
}

fn paragraphs(problem: &Problem) -> String {
    let paragraph = |text: &str| {
        let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        format!("<p>{text}</p>\n")
    };
    let wait = problem.retry_after.filter(|_| problem.uri == THROTTLED);
    let wait = wait.map(|seconds| format!("You can try again in {}.", in_words(seconds)));
    let more = [wait.as_deref(), problem.detail.as_deref()].into_iter().flatten().map(paragraph);
    paragraph(problem.title) + &more.collect::<String>()
}

fn json(problem: &Problem) -> String {
    let mut members = serde_json::json!({
        "type": problem.uri,
        "title": problem.title,
        "status": problem.status.as_u16(),
    });
    if let Some(max_age) = problem.max_age {
        members["max_age"] = max_age.into();
    }
    if let Some(retry_after) = problem.retry_after.filter(|_| problem.uri == THROTTLED) {
        members["retry_after"] = retry_after.into();
    }
    if let Some(detail) = &problem.detail {
        members["detail"] = detail.as_str().into();
    }
    members.to_string()
}

/// Completes a response to a rejected or failed request: no cache stores it, and it says which
/// headers its form depends on. For `HEAD`, the body is removed.
pub(crate) fn complete(response: &mut Response<Bytes>, method: &Method, client: ClientFacts<'_>) {
    let length = response.body().len();
    let headers = response.headers_mut();
    forbid_storing(headers);
    match (client.kind, client.content_type) {
        (ClientKind::Grpc | ClientKind::GrpcWeb, Some(content_type)) => {
            if headers.contains_key(GRPC_STATUS) {
                headers.insert(CONTENT_TYPE, content_type.clone());
            }
        }
        (ClientKind::Grpc | ClientKind::GrpcWeb, None) => {}
        _ if client.is_kind_configured => {}
        _ => match headers.entry(header::VARY) {
            Entry::Vacant(vary) => drop(vary.insert(HeaderValue::from_static(VARY))),
            Entry::Occupied(_) => add_vary(headers, VARY.split(", ")),
        },
    }
    if method == Method::HEAD && length > 0 {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        *response.body_mut() = Bytes::new();
    }
}

/// What [`complete`] must know about the client.
#[derive(Clone, Copy)]
pub(crate) struct ClientFacts<'a> {
    pub(crate) kind: ClientKind,
    /// Whether a setting of the layer decides on the kind, instead of the request's headers.
    pub(crate) is_kind_configured: bool,
    /// The request's `Content-Type`. The response for a client of gRPC has the same.
    pub(crate) content_type: Option<&'a HeaderValue>,
}

/// A failed request, as it is passed to an error handler, which builds the response.
pub struct ErrorContext<'a> {
    pub(crate) problem: &'a Problem,
    pub(crate) client: ClientKind,
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
}

impl ErrorContext<'_> {
    /// Returns the status of the response, as [`AuthErrorKind`](crate::error::AuthErrorKind) and
    /// [`LoginError`](crate::LoginError) say: 503 if a store has failed or the server is
    /// overloaded, 500 if the server is not set up correctly, 400, 403, 409 or 429 if the client
    /// has to do something else.
    pub fn status(&self) -> StatusCode {
        self.problem.status
    }

    /// Returns the type of the problem, one of the constants of [`problem`](crate::problem).
    pub fn problem_type(&self) -> &'static str {
        self.problem.uri
    }

    /// Returns what kind of client has sent the request.
    pub fn client_kind(&self) -> ClientKind {
        self.client
    }

    /// Returns the method of the request.
    pub fn method(&self) -> &Method {
        self.method
    }

    /// Returns the path that the client has requested.
    pub fn path(&self) -> &str {
        self.path
    }

    /// Returns the response that is sent if there is no error handler.
    pub fn default_response(&self) -> Response<Bytes> {
        respond(self.problem, self.client)
    }
}

impl std::fmt::Debug for ErrorContext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ErrorContext")
            .field("problem", &self.problem)
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

/// Builds the response to a failed request.
pub(crate) type ErrorHandler = Arc<dyn Fn(&ErrorContext<'_>) -> Response<Bytes> + Send + Sync>;
