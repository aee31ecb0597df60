//! A response whose body has been read.

use bytes::Bytes;
use http::header::{self, AsHeaderName};
use http::{Extensions, HeaderMap, StatusCode};

/// A response whose body has been read.
#[derive(Clone, Debug)]
pub struct TestResponse {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// The extensions, if the service is in this process.
    pub extensions: Extensions,
}

impl TestResponse {
    /// Returns the body as text. Bytes that are not UTF-8 are replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns all values of a header, joined by a comma and a space. The result is empty if the
    /// header is absent.
    pub fn header(&self, name: impl AsHeaderName) -> String {
        let values = self.headers.get_all(name).iter();
        let texts: Vec<_> = values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        texts.join(", ")
    }

    /// Returns the target of the redirect. The result is empty if the response is not a redirect.
    pub fn location(&self) -> String {
        self.header(header::LOCATION)
    }

    /// Returns the `Set-Cookie` fields.
    pub fn set_cookies(&self) -> Vec<String> {
        let fields = self.headers.get_all(header::SET_COOKIE).iter();
        fields.map(|field| String::from_utf8_lossy(field.as_bytes()).into_owned()).collect()
    }
}
