//! What kind of client has sent a request: it decides the form of the response if the request is
//! rejected or has failed.

use http::{HeaderValue, Method};

/// What kind of client has sent a request.
///
/// The kind decides the form of the response if a guard or an extractor rejects the request, or if
/// a store fails; see [`Guard`](crate::guard::Guard). The first row that applies counts:
///
/// | kind | the request has |
/// | --- | --- |
/// | [`Grpc`](Self::Grpc) | the method `POST` and `Content-Type: application/grpc`, also with a suffix such as `+proto` |
/// | [`GrpcWeb`](Self::GrpcWeb) | the method `POST` and `Content-Type: application/grpc-web` or `application/grpc-web-text`, also with a suffix |
/// | [`Stream`](Self::Stream) | `Upgrade` except `h2c` (WebSocket), the method `CONNECT` (WebSocket over HTTP/2), or `Accept: text/event-stream` (`EventSource`) |
/// | [`Htmx`](Self::Htmx) | `HX-Request: true`, and not `HX-History-Restore-Request: true` |
/// | [`Page`](Self::Page) | `HX-Request: true` with `HX-History-Restore-Request: true`; or `Sec-Fetch-Mode: navigate`; or neither of these and no Fetch metadata, but an `Accept` that names `text/html`, and names nothing else with a higher quality |
/// | [`Other`](Self::Other) | none of these |
///
/// `Accept: */*` does not make a request one for a page, because programs send it too. With
/// [`with_pages_for_every_client`](crate::LoginLayerBuilder::with_pages_for_every_client), all
/// requests are requests for pages, except for gRPC and upgrades. A request with a bearer token of
/// this crate is never for a page or for htmx, but `Other`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClientKind {
    /// A client of gRPC over HTTP/2.
    Grpc,
    /// A client of gRPC-Web, usually in a browser.
    GrpcWeb,
    /// A client of a WebSocket or of server-sent events.
    Stream,
    /// A request of the htmx library, which replaces a part of a page.
    Htmx,
    /// A browser that shows the response as a page.
    Page,
    /// Any other client: a program that calls an API, a script of a page, an image in a page.
    Other,
}

/// The names of the headers that tell the kind of a client. `Content-Type` is left out, because it
/// only matters for POST, and so is `Upgrade`, because its responses are not cached.
pub(crate) const KIND_HEADERS: [&str; 5] =
    ["Accept", "HX-Request", "HX-History-Restore-Request", "Sec-Fetch-Mode", "Sec-Fetch-Dest"];

/// The headers of a request that tell the kind of the client, as far as they must be known after
/// the request was passed on.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientHints {
    accept: Option<HeaderValue>,
    /// The `Content-Type` of a client of gRPC.
    grpc_content_type: Option<Box<HeaderValue>>,
    is_grpc: bool,
    is_grpc_web: bool,
    is_upgrade: bool,
    is_htmx: bool,
    is_history_restore: bool,
    /// Whether the browser has sent Fetch metadata (<https://www.w3.org/TR/fetch-metadata/>).
    has_fetch_metadata: bool,
    has_navigate_mode: bool,
    is_for_document: bool,
    is_prefetch: bool,
}

impl ClientHints {
    /// Takes note of a header, if it tells something about the client. `name` is in lower case.
    #[inline]
    pub(crate) fn read(&mut self, name: &str, value: &HeaderValue) {
        match name {
            "accept" => self.add_accept(value),
            "content-type" => self.read_content_type(value),
            // Browsers can't send another protocol, and `h2c` does not begin a stream.
            "upgrade" => self.is_upgrade |= !value.as_bytes().eq_ignore_ascii_case(b"h2c"),
            "hx-request" => self.is_htmx |= value == "true",
            "hx-history-restore-request" => self.is_history_restore |= value == "true",
            "sec-fetch-mode" => {
                self.has_fetch_metadata = true;
                self.has_navigate_mode = value == "navigate";
            }
            "sec-fetch-dest" => {
                self.has_fetch_metadata = true;
                self.is_for_document = value == "document";
            }
            "sec-fetch-site" => self.has_fetch_metadata = true,
            // Browsers sent `Purpose` before `Sec-Purpose` was specified.
            "sec-purpose" | "purpose" => self.is_prefetch = true,
            _ => {}
        }
    }

    fn add_accept(&mut self, value: &HeaderValue) {
        let joined = self.accept.as_ref().and_then(|accept| {
            let line = [accept.as_bytes(), value.as_bytes()].join(&b", "[..]);
            HeaderValue::from_bytes(&line).ok()
        });
        self.accept = Some(joined.unwrap_or_else(|| value.clone()));
    }

    fn read_content_type(&mut self, value: &HeaderValue) {
        const GRPC: &[u8] = b"application/grpc";
        let Some((name, rest)) = value.as_bytes().split_at_checked(GRPC.len()) else { return };
        if name.eq_ignore_ascii_case(GRPC) {
            let is_web = rest.get(..4).is_some_and(|rest| rest.eq_ignore_ascii_case(b"-web"));
            self.is_grpc_web = is_web;
            self.is_grpc = !is_web && matches!(rest, [] | [b'+' | b';' | b' ', ..]);
            self.grpc_content_type = Some(Box::new(value.clone()));
        }
    }

    /// Returns the `Content-Type` of a client of gRPC, which the response has too.
    pub(crate) fn grpc_content_type(&self) -> Option<&HeaderValue> {
        self.grpc_content_type.as_deref()
    }

    /// Whether the request wants the connection to become another protocol, such as a WebSocket.
    pub(crate) fn is_upgrade(&self, method: &Method) -> bool {
        self.is_upgrade || method == Method::CONNECT
    }

    pub(crate) fn has_fetch_metadata(&self) -> bool {
        self.has_fetch_metadata
    }

    /// Returns the kind of the client that has sent a request with this method. `all_are_pages` is
    /// the setting of the layer.
    pub(crate) fn kind(&self, method: &Method, all_are_pages: bool) -> ClientKind {
        // Every call of gRPC is a POST. With another method, a proxy may ask whether a request may
        // pass, and would take the 200 of a gRPC error for "yes".
        let is_post = method == Method::POST;
        if self.is_grpc && is_post {
            ClientKind::Grpc
        } else if self.is_grpc_web && is_post {
            ClientKind::GrpcWeb
        } else if self.is_upgrade(method) {
            ClientKind::Stream
        } else if all_are_pages {
            ClientKind::Page
        } else if self.accepts_event_stream() {
            ClientKind::Stream
        } else if self.is_htmx && !self.is_history_restore {
            ClientKind::Htmx
        } else if self.is_htmx
            || self.has_navigate_mode
            || !self.has_fetch_metadata && self.prefers_html()
        {
            ClientKind::Page
        } else {
            ClientKind::Other
        }
    }

    /// Whether the response is shown as a page in the tab of a browser, so that a guard may leave a
    /// flash message, or keep `next` in a cookie.
    ///
    /// A guard may reject an image, a poll, a `fetch` or a prefetch at the same time as a page.
    /// Such a rejection must not replace the message and the `next` of the page, and must not leave
    /// a message that asks the user to log in.
    pub(crate) fn is_navigation(&self, method: &Method, all_are_pages: bool) -> bool {
        let is_page = || method == Method::GET && self.kind(method, false) == ClientKind::Page;
        match () {
            () if all_are_pages => true,
            () if self.is_prefetch => false,
            () if self.has_fetch_metadata => self.is_for_document,
            () => is_page(),
        }
    }

    fn accept(&self) -> impl Iterator<Item = (&str, f32)> {
        let accept = self.accept.as_ref().and_then(|accept| accept.to_str().ok());
        accept.unwrap_or_default().split(',').map(|item| {
            let (range, parameters) = item.split_once(';').unwrap_or((item, ""));
            let quality = parameters.split(';').find_map(|p| p.trim().strip_prefix("q="));
            let quality =
                quality.map_or(1.0, |quality| quality.trim().parse::<f32>().unwrap_or(0.0));
            (range.trim(), quality)
        })
    }

    fn accepts_event_stream(&self) -> bool {
        let is_named = |(range, quality): (&str, f32)| {
            quality > 0.0 && range.eq_ignore_ascii_case("text/event-stream")
        };
        self.accept().any(is_named)
    }

    /// Checks whether `text/html` is named, and no other type is named with a higher quality
    /// (RFC 9110 §12.5.1).
    fn prefers_html(&self) -> bool {
        let (mut html, mut best_other) = (0.0, 0.0);
        for (range, quality) in self.accept() {
            match range {
                range if range.eq_ignore_ascii_case("text/html") => html = quality,
                range if range.ends_with("/*") => {}
                _ => best_other = f32::max(best_other, quality),
            }
        }
        html > 0.0 && html >= best_other
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ClientKind::{Grpc, GrpcWeb, Htmx, Other, Page, Stream};

    const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

    fn hints(headers: &[(&str, &str)]) -> ClientHints {
        let mut hints = ClientHints::default();
        for (name, value) in headers {
            hints.read(name, &HeaderValue::from_str(value).unwrap());
        }
        hints
    }

    #[test]
    fn the_headers_of_a_request_tell_the_kind_of_its_client() {
        for (method, headers, kind, is_navigation) in [
            ("POST", &[("content-type", "application/grpc")][..], Grpc, false),
            ("POST", &[("content-type", "Application/gRPC+proto")], Grpc, false),
            ("POST", &[("content-type", "application/grpc; charset=utf-8")], Grpc, false),
            ("GET", &[("content-type", "application/grpc")], Other, false),
            ("GET", &[("content-type", "application/grpc-web"), ("accept", BROWSER)], Page, true),
            ("POST", &[("content-type", "application/grpcx")], Other, false),
            ("POST", &[("content-type", "application/grp")], Other, false),
            ("POST", &[("content-type", "application/grpc-web-text+proto")], GrpcWeb, false),
            (
                "POST",
                &[("content-type", "application/grpc-web"), ("sec-fetch-mode", "cors")],
                GrpcWeb,
                false,
            ),
            ("GET", &[("upgrade", "websocket"), ("accept", BROWSER)], Stream, false),
            ("GET", &[("upgrade", "h2c"), ("accept", "*/*")], Other, false),
            ("CONNECT", &[], Stream, false),
            ("GET", &[("accept", "text/event-stream"), ("sec-fetch-mode", "cors")], Stream, false),
            ("GET", &[("accept", "text/event-stream;q=0")], Other, false),
            ("GET", &[("hx-request", "true"), ("accept", "*/*")], Htmx, false),
            ("POST", &[("hx-request", "true"), ("sec-fetch-mode", "cors")], Htmx, false),
            ("GET", &[("hx-request", "false"), ("accept", BROWSER)], Page, true),
            ("GET", &[("hx-request", "true"), ("hx-history-restore-request", "true")], Page, true),
            (
                "GET",
                &[
                    ("hx-request", "true"),
                    ("hx-history-restore-request", "true"),
                    ("sec-fetch-mode", "same-origin"),
                    ("sec-fetch-dest", "empty"),
                ],
                Page,
                false,
            ),
            (
                "GET",
                &[
                    ("sec-fetch-mode", "navigate"),
                    ("sec-fetch-dest", "document"),
                    ("accept", "*/*"),
                ],
                Page,
                true,
            ),
            ("POST", &[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")], Page, true),
            (
                "GET",
                &[
                    ("sec-fetch-mode", "navigate"),
                    ("sec-fetch-dest", "document"),
                    ("sec-purpose", "prefetch"),
                ],
                Page,
                false,
            ),
            ("GET", &[("accept", BROWSER), ("purpose", "prefetch")], Page, false),
            ("GET", &[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")], Page, false),
            (
                "GET",
                &[("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image"), ("accept", BROWSER)],
                Other,
                false,
            ),
            ("GET", &[("sec-fetch-site", "same-origin"), ("accept", BROWSER)], Other, false),
            ("GET", &[("accept", BROWSER)], Page, true),
            ("GET", &[("accept", "TEXT/HTML")], Page, true),
            ("GET", &[("accept", "text/html;level=1; q=0.5, application/json;q=0.4")], Page, true),
            ("GET", &[("accept", "application/json"), ("accept", "text/html")], Page, true),
            ("GET", &[("accept", "application/json, text/html;q=0.9")], Other, false),
            ("GET", &[("accept", "text/html;q=0")], Other, false),
            ("GET", &[("accept", "text/html;q=none")], Other, false),
            ("GET", &[("accept", "image/avif,image/webp,*/*;q=0.8")], Other, false),
            ("GET", &[("accept", "*/*")], Other, false),
            ("GET", &[("accept", "text/*")], Other, false),
            ("GET", &[], Other, false),
            ("HEAD", &[("accept", BROWSER)], Page, false),
            ("POST", &[("accept", BROWSER)], Page, false),
        ] {
            let (hints, method) = (hints(headers), method.parse().unwrap());
            assert_eq!(hints.kind(&method, false), kind, "{method} {headers:?}");
            assert_eq!(hints.is_navigation(&method, false), is_navigation, "{method} {headers:?}");
        }
    }

    #[test]
    fn a_setting_makes_every_client_a_page_except_for_grpc_and_upgrades() {
        for (headers, kind) in [
            (&[("content-type", "application/grpc")][..], Grpc),
            (&[("upgrade", "websocket")], Stream),
            (&[("accept", "text/event-stream")], Page),
            (&[("hx-request", "true")], Page),
            (&[], Page),
        ] {
            assert_eq!(hints(headers).kind(&Method::POST, true), kind, "{headers:?}");
        }
    }
}
