//! The headers that tell caches whether they may store a response, and for which requests.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Adds these names to `Vary`, in one line, because some caches read only one line.
pub(crate) fn add_vary<'a>(headers: &mut HeaderMap, names: impl Iterator<Item = &'a str>) {
    let before = headers.get_all(header::VARY).iter().map(HeaderValue::as_bytes);
    let mut line = before.collect::<Vec<_>>().join(&b", "[..]);
    for name in names {
        let is_in = line
            .split(|byte| *byte == b',')
            .map(<[u8]>::trim_ascii)
            .any(|item| item == b"*" || item.eq_ignore_ascii_case(name.as_bytes()));
        if !is_in {
            line.extend(if line.is_empty() { &b""[..] } else { b", " });
            line.extend(name.as_bytes());
        }
    }
    if let Ok(line) = HeaderValue::from_bytes(&line) {
        headers.insert(header::VARY, line);
    }
}

/// Sets `Cache-Control: no-store`, even if the handler has set `public`: a shared cache must never
/// store a response that was made for one user, or the cookies of a user (CVE-2023-30861).
///
/// Also removes the headers that some caches obey before or instead of `Cache-Control`: targeted
/// fields (RFC 9213), and older fields of nginx, Akamai and Fastly.
pub(crate) fn forbid_storing(headers: &mut HeaderMap) {
    // Few responses have such a header, so a list is built only if there is one.
    if headers.keys().any(is_targeted) {
        let targeted: Vec<_> = headers.keys().filter(|name| is_targeted(name)).cloned().collect();
        for name in targeted {
            headers.remove(name);
        }
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

/// Whether caches obey this header before or instead of `Cache-Control`.
fn is_targeted(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.ends_with("-cache-control")
        || matches!(name, "expires" | "surrogate-control" | "x-accel-expires" | "edge-control")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vary_is_one_line_that_names_each_header_once() {
        for (before, expected) in [
            (&[][..], "Cookie, x-api-key"),
            (&["Accept"], "Accept, Cookie, x-api-key"),
            (&["Cookie"], "Cookie, x-api-key"),
            (&["Accept, COOKIE"], "Accept, COOKIE, x-api-key"),
            (&["*"], "*"),
            (&["Accept", "Origin,Cookie"], "Accept, Origin,Cookie, x-api-key"),
            (&["X-Cookie", "X-Api-Key"], "X-Cookie, X-Api-Key, Cookie"),
        ] {
            let mut headers = HeaderMap::new();
            for value in before {
                headers.append(header::VARY, HeaderValue::from_static(value));
            }
            add_vary(&mut headers, ["Cookie", "x-api-key"].into_iter());
            let vary: Vec<_> = headers.get_all(header::VARY).iter().collect();
            assert_eq!(vary, [expected]);
        }
    }

    #[test]
    fn headers_that_override_no_store_are_removed() {
        let mut headers = HeaderMap::new();
        for name in [
            "cache-control",
            "expires",
            "cdn-cache-control",
            "cloudflare-cdn-cache-control",
            "netlify-cdn-cache-control",
            "vercel-cdn-cache-control",
            "akamai-cache-control",
            "surrogate-control",
            "x-accel-expires",
            "edge-control",
        ] {
            headers.append(name, HeaderValue::from_static("public, max-age=600"));
        }
        headers.insert(header::ETAG, HeaderValue::from_static("\"1\""));
        forbid_storing(&mut headers);
        assert_eq!(headers.len(), 2, "{headers:?}");
        assert_eq!(headers[header::CACHE_CONTROL], "no-store");
    }
}
