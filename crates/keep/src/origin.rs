//! The origin of a page (RFC 6454): scheme, host and port, such as `https://example.org`.

use std::net::IpAddr;

use http::header;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Uri};

/// The host and the port that a request was sent to, as the request says.
pub(crate) struct Host<'a>(Option<&'a str>);

impl<'a> Host<'a> {
    pub(crate) fn of<B>(request: &'a Request<B>) -> Self {
        Self::find(request.uri(), request.headers())
    }

    pub(crate) fn of_head(head: &'a Parts) -> Self {
        Self::find(&head.uri, &head.headers)
    }

    /// HTTP/2 has the host in the URI, HTTP/1.1 in a header.
    fn find(uri: &'a Uri, headers: &'a HeaderMap) -> Self {
        let in_header = || headers.get(header::HOST).map(HeaderValue::to_str)?.ok();
        Self(uri.authority().map(|authority| authority.as_str()).or_else(in_header))
    }

    /// Checks whether this is the host of the origin.
    ///
    /// The scheme is not compared, because a proxy may have received the request over TLS. Browsers
    /// leave out the default port, in the origin and in the host.
    pub(crate) fn is_host_of(&self, origin: &str) -> bool {
        let host = origin.split_once("://").map(|(_, host)| host);
        self.0.is_some_and(|own| host.is_some_and(|host| host.eq_ignore_ascii_case(own)))
    }
}

/// Whether the network can't have changed a page of this origin: it was sent over TLS, or by
/// this machine (<https://www.w3.org/TR/secure-contexts/#is-origin-trustworthy>).
pub(crate) fn is_trustworthy(origin: &str) -> bool {
    let Some(("http", host)) = origin.split_once("://") else { return true };
    let name = match host.strip_prefix('[') {
        Some(host) => host.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let last_label = name.rsplit('.').next().unwrap_or_default();
    last_label.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_compared_with_the_host_that_a_request_was_sent_to() {
        for (uri, host, origin, expected) in [
            ("/", "example.org", "https://example.org", true),
            ("/", "Example.org:8080", "http://example.ORG:8080", true),
            ("/", "example.org", "https://example.org:8443", false),
            ("/", "example.org", "https://a.example.org", false),
            ("/", "example.org", "null", false),
            ("/", "example.org", "example.org", false),
            ("/", "", "", false),
            ("https://example.org/", "", "https://example.org", true),
            ("https://example.org/", "other.example", "https://other.example", false),
        ] {
            let request = Request::get(uri).header(header::HOST, host).body(()).unwrap();
            assert_eq!(Host::of(&request).is_host_of(origin), expected, "{host} {origin}");
        }
        assert!(!Host::of(&Request::new(())).is_host_of("https://example.org"));
    }

    #[test]
    fn only_tls_and_this_machine_are_trustworthy() {
        for (origin, expected) in [
            ("https://example.org", true),
            ("http://example.org", false),
            ("http://localhost:3000", true),
            ("http://app.localhost", true),
            ("http://notlocalhost", false),
            ("http://127.0.0.1:3000", true),
            ("http://127.8.9.1", true),
            ("http://[::1]:3000", true),
            ("http://[2001:db8::1]", false),
            ("http://192.168.1.2", false),
        ] {
            assert_eq!(is_trustworthy(origin), expected, "{origin}");
        }
    }
}
