//! A response, read to its end.

use bytes::Bytes;
use http::header::{self, AsHeaderName};
use http::{Extensions, HeaderMap, StatusCode};

/// A response, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// The extensions, where the service is in this process.
    pub extensions: Extensions,
}

impl Answer {
    /// The body as text; what is not UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// All values of a header, joined with a comma and a blank; empty if it is absent.
    pub fn header(&self, name: impl AsHeaderName) -> String {
        let values = self.headers.get_all(name).iter();
        let texts: Vec<_> = values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        texts.join(", ")
    }

    /// Where it redirects to; empty if it does not.
    pub fn location(&self) -> String {
        self.header(header::LOCATION)
    }

    /// The `Set-Cookie` fields.
    pub fn set_cookies(&self) -> Vec<String> {
        let fields = self.headers.get_all(header::SET_COOKIE).iter();
        fields.map(|field| String::from_utf8_lossy(field.as_bytes()).into_owned()).collect()
    }
}
