//! Detects requests for a page that a user is about to look at.
//!
//! Only for such a request does a guard put a flash message or `next` into a cookie. A guard may
//! reject an image, a poll, a `fetch` or a prefetch at the same time. Such a rejection must not
//! replace the message and the `next` of the page, and must not set a message that asks the user to
//! log in.

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method};

const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
const SEC_PURPOSE: HeaderName = HeaderName::from_static("sec-purpose");
/// The header that browsers sent before `Sec-Purpose` was specified.
const PURPOSE: HeaderName = HeaderName::from_static("purpose");

/// Checks whether the request is the navigation of a browser's tab, so that the response is shown
/// as a page.
///
/// Browsers say so in Fetch metadata (<https://www.w3.org/TR/fetch-metadata/>). Without Fetch
/// metadata, a GET counts as a navigation if its `Accept` names `text/html` and no other type with
/// a higher quality. `*/*` alone is not enough, because programs send it too.
pub(crate) fn is_page(method: &Method, headers: &HeaderMap) -> bool {
    if headers.contains_key(SEC_PURPOSE) || headers.contains_key(PURPOSE) {
        return false;
    }
    match headers.get(SEC_FETCH_DEST) {
        Some(destination) => destination == "document",
        None => method == Method::GET && prefers_html(headers.get_all(header::ACCEPT)),
    }
}

/// Checks whether `text/html` is named, and no other type is named with a higher quality
/// (RFC 9110 §12.5.1).
fn prefers_html<'a>(accept: impl IntoIterator<Item = &'a HeaderValue>) -> bool {
    let (mut html, mut best_other) = (0.0, 0.0);
    for item in
        accept.into_iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','))
    {
        let (range, parameters) = item.split_once(';').unwrap_or((item, ""));
        let quality = parameters.split(';').find_map(|p| p.trim().strip_prefix("q="));
        let quality = quality.map_or(1.0, |quality| quality.trim().parse::<f32>().unwrap_or(0.0));
        match range.trim() {
            range if range.eq_ignore_ascii_case("text/html") => html = quality,
            range if range.ends_with("/*") => {}
            _ => best_other = f32::max(best_other, quality),
        }
    }
    html > 0.0 && html >= best_other
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_navigations_of_a_tab_count_as_pages() {
        const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        for (method, headers, expected) in [
            ("GET", &[("sec-fetch-dest", "document"), ("accept", "*/*")][..], true),
            ("POST", &[("sec-fetch-dest", "document")], true),
            ("GET", &[("sec-fetch-dest", "document"), ("sec-purpose", "prefetch")], false),
            ("GET", &[("accept", BROWSER), ("purpose", "prefetch")], false),
            ("GET", &[("sec-fetch-dest", "image"), ("accept", BROWSER)], false),
            ("GET", &[("sec-fetch-dest", "iframe"), ("accept", BROWSER)], false),
            ("GET", &[("sec-fetch-dest", "empty"), ("accept", BROWSER)], false),
            ("GET", &[("accept", BROWSER)], true),
            ("GET", &[("accept", "TEXT/HTML")], true),
            ("GET", &[("accept", "text/html;level=1; q=0.5, application/json;q=0.4")], true),
            ("GET", &[("accept", "application/json"), ("accept", "text/html")], true),
            ("GET", &[("accept", "application/json, text/html;q=0.9")], false),
            ("GET", &[("accept", "text/html;q=0")], false),
            ("GET", &[("accept", "text/html;q=none")], false),
            ("GET", &[("accept", "image/avif,image/webp,*/*;q=0.8")], false),
            ("GET", &[("accept", "*/*")], false),
            ("GET", &[("accept", "text/*")], false),
            ("GET", &[], false),
            ("HEAD", &[("accept", BROWSER)], false),
            ("POST", &[("accept", BROWSER)], false),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, HeaderValue::from_static(value));
            }
            let method = method.parse().unwrap();
            assert_eq!(is_page(&method, &map), expected, "{method} {headers:?}");
        }
    }
}
