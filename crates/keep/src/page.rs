//! The pages that users are redirected to: to sign in, or to confirm who they are.

use http::Uri;
use http::uri::PathAndQuery;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::error::BuildError;
use crate::target::LocalTarget;

/// The bytes that are encoded in a query's value: all except RFC 3986's unreserved characters.
const VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A target in a query has at most this many bytes, percent-encoded. All headers of a response have
/// to fit into a proxy's buffer, which has 4 kB in nginx, and encoding can triple the length of a
/// target.
const MAX_ENCODED_BYTES: usize = 1_024;

/// A page of this site (`/login`, `/login?theme=dark`), or the whole URL of a page on another site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// The URL without the query field that carries the target.
    url: String,
    place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// A page on this site, with its path.
    Local(String),
    /// A page on another site, with its origin.
    External(String),
}

impl Page {
    /// Parses the URL of a page, as it was configured.
    pub(crate) fn parse(text: String) -> Result<Self, BuildError> {
        let place = match (text.parse::<LocalTarget>(), origin_of(&text)) {
            (Ok(local), _) => Place::Local(local.path().to_owned()),
            (Err(_), Some(origin)) => Place::External(origin),
            (Err(_), None) => return Err(BuildError::Page { page: text }),
        };
        Ok(Self { url: text, place })
    }

    /// Removes the query field with this name, which is the name of the field that carries the
    /// target. Such a field in the setting would hide the field that is added.
    pub(crate) fn without_field(self, field: &str) -> Self {
        let Some((base, query)) = self.url.split_once('?') else { return self };
        let has_other_name =
            |pair: &&str| !pair.is_empty() && pair.split('=').next() != Some(field);
        let kept: Vec<&str> = query.split('&').filter(has_other_name).collect();
        let url =
            if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) };
        Self { url, ..self }
    }

    /// Returns the path, if the page is on this site.
    pub(crate) fn local_path(&self) -> Option<&str> {
        match &self.place {
            Place::Local(path) => Some(path),
            Place::External(_) => None,
        }
    }

    /// Returns the page's URL without a target.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Returns the page's URL with the target in the query field. If the target is too long,
    /// returns the URL without it.
    ///
    /// A page on another site gets the whole URL to return to, if the public origin is known. That
    /// URL is never made from `Host`, because clients can send any `Host`.
    pub(crate) fn url_with(
        &self,
        field: &str,
        target: &LocalTarget,
        public_origin: Option<&str>,
    ) -> String {
        let origin = match (&self.place, public_origin) {
            (Place::External(origin), Some(own)) if origin != own => own,
            _ => "",
        };
        let separator = if self.url.contains('?') { '&' } else { '?' };
        let target = utf8_percent_encode(target.as_str(), VALUE);
        let target = format!("{}{target}", utf8_percent_encode(origin, VALUE));
        if target.len() > MAX_ENCODED_BYTES {
            return self.url.clone();
        }
        format!("{}{separator}{}={target}", self.url, utf8_percent_encode(field, VALUE))
    }
}

/// Returns `scheme://host[:port]` of a whole URL of visible ASCII.
pub(crate) fn origin_of(text: &str) -> Option<String> {
    split_origin(text).map(|(origin, _)| origin)
}

/// Splits a whole URL of visible ASCII into `scheme://host[:port]`, and the path with the query.
pub(crate) fn split_origin(text: &str) -> Option<(String, PathAndQuery)> {
    let text = text.split_once('#').map_or(text, |(before_fragment, _)| before_fragment);
    if !text.bytes().all(|byte| matches!(byte, 0x21..=0x7E) && !b"\\\"<>".contains(&byte)) {
        return None;
    }
    let uri: Uri = text.parse().ok()?;
    let scheme = uri.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https"))?;
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
    Some((format!("{scheme}://{authority}"), uri.path_and_query()?.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_is_added_to_the_query_of_the_page() {
        let own_origin = Some("https://here.example");
        for (page, origin, expected) in [
            ("/login", None, "/login?next=%2Fa%3Fb%3Dc%26d~e"),
            ("/login?x=1&y", None, "/login?x=1&y&next=%2Fa%3Fb%3Dc%26d~e"),
            ("/login?next=/old&x=1", None, "/login?x=1&next=%2Fa%3Fb%3Dc%26d~e"),
            ("/login", own_origin, "/login?next=%2Fa%3Fb%3Dc%26d~e"),
            (
                "https://here.example/in",
                own_origin,
                "https://here.example/in?next=%2Fa%3Fb%3Dc%26d~e",
            ),
            ("https://id.example/in", None, "https://id.example/in?next=%2Fa%3Fb%3Dc%26d~e"),
            (
                "https://id.example/in",
                own_origin,
                "https://id.example/in?next=https%3A%2F%2Fhere.example%2Fa%3Fb%3Dc%26d~e",
            ),
        ] {
            let target = "/a?b=c&d~e".parse().unwrap();
            let page = Page::parse(page.into()).unwrap().without_field("next");
            assert_eq!(page.url_with("next", &target, origin), expected);
        }
    }

    #[test]
    fn a_target_that_is_too_long_is_left_out() {
        let page = Page::parse("/login?x=1".into()).unwrap();
        let url = |target: String| page.url_with("next", &target.parse().unwrap(), None);
        let fits = format!("/{}", "a".repeat(1_021));
        assert_eq!(url(fits.clone()), format!("/login?x=1&next=%2F{}", &fits[1..]));
        assert_eq!(url(format!("{fits}b")), "/login?x=1");
        assert_eq!(
            url(format!("/?{}", "=".repeat(400))),
            "/login?x=1",
            "each `=` is encoded in three bytes"
        );
    }

    #[test]
    fn a_page_that_is_neither_local_nor_a_url_is_an_error() {
        for page in
            ["", "login", "//evil", "/a b", "ftp://host/", "https://", "https://a@b/", "/a\r\n"]
        {
            let error = Err(BuildError::Page { page: page.into() });
            assert_eq!(Page::parse(page.into()), error, "{page:?}");
        }
    }
}
