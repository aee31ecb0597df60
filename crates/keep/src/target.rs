//! Targets on this site, such as the page to return to after a login. A login never redirects to
//! any other target.

use std::fmt;
use std::str::FromStr;

use http::uri::PathAndQuery;
use percent_encoding::percent_decode_str;

/// A target has at most this many bytes.
const MAX_BYTES: usize = 2_048;

/// A path on this site, with or without a query: `/account?tab=2`.
///
/// The only way to create one is to parse it. A text that parses leads to this site in every
/// browser, so the text can be put into `Location` as it is. `next` is parsed as such a target, so
/// an attacker gains nothing by sending a user a link with `next=//evil.example`.
///
/// ```
/// use tower_keep::target::LocalTarget;
///
/// assert_eq!("/account?tab=2".parse::<LocalTarget>()?.path(), "/account");
/// for elsewhere in ["//evil.example", "/\\evil.example", "https://evil.example", "/a/../..//b"] {
///     assert!(elsewhere.parse::<LocalTarget>().is_err());
/// }
/// # Ok::<_, tower_keep::target::NotLocal>(())
/// ```
///
/// The grammar is `"/" [segment *("/" segment)] ["?" query]` with RFC 3986's `pchar`. A target has
/// 1 to 2,048 bytes, and only the last segment may be empty. The path is also decoded once, for a
/// check: the decoded path must have no control byte, no backslash, no segment `.` or `..`,
/// and no second `/` at the front.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct LocalTarget(Box<str>);

/// The text is not a path on this site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the text is not a path on this site: it must begin with one `/`, and be percent-encoded ASCII"
)]
pub struct NotLocal;

impl LocalTarget {
    /// Creates a target from a text in this crate's code, which is always a path on this site.
    pub(crate) fn constant(text: &'static str) -> Self {
        Self(text.into())
    }

    /// Returns the target as it was given: the path and the query.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the path, without the query.
    pub fn path(&self) -> &str {
        self.0.split_once('?').map_or(&self.0, |(path, _)| path)
    }

    /// Checks whether this target leads to the page with this path. Both paths are decoded first.
    pub(crate) fn leads_to(&self, page_path: &str) -> bool {
        percent_decode_str(self.path()).eq(percent_decode_str(page_path))
    }
}

impl FromStr for LocalTarget {
    type Err = NotLocal;

    fn from_str(text: &str) -> Result<Self, NotLocal> {
        if is_local(text) { Ok(Self(text.into())) } else { Err(NotLocal) }
    }
}

impl TryFrom<&str> for LocalTarget {
    type Error = NotLocal;

    fn try_from(text: &str) -> Result<Self, NotLocal> {
        text.parse()
    }
}

impl AsRef<str> for LocalTarget {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for LocalTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for LocalTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalTarget({:?})", self.as_str())
    }
}

/// Checks the rules, in the order of their cost.
fn is_local(text: &str) -> bool {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    text.len() <= MAX_BYTES
        && path.starts_with('/')
        && !path.contains("//")
        && is_encoded(path, |byte| is_pchar(byte) || byte == b'/')
        && is_encoded(query, |byte| is_pchar(byte) || matches!(byte, b'/' | b'?'))
        && is_harmless_decoded(path)
}

/// Checks that the text has only bytes of the set, and percent signs with two hex digits.
fn is_encoded(text: &str, in_set: impl Fn(u8) -> bool) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let is_valid = if byte == b'%' {
            let mut hex = || bytes.next().is_some_and(|byte| byte.is_ascii_hexdigit());
            hex() && hex()
        } else {
            in_set(byte)
        };
        if !is_valid {
            return false;
        }
    }
    true
}

/// Checks for a `pchar` of RFC 3986 §3.3, without the percent sign.
fn is_pchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte)
}

/// Checks that the path still leads to this site if a proxy or a framework decodes it.
fn is_harmless_decoded(path: &str) -> bool {
    let decoded: Vec<u8> = percent_decode_str(path).collect();
    let is_dots = |segment: &[u8]| {
        // Some servers remove parameters before they resolve dots. On such a server, `/..;/` leads
        // to the parent directory.
        let name = segment.split(|byte| *byte == b';').next().unwrap_or_default();
        matches!(name, b"." | b"..")
    };
    !decoded.starts_with(b"//")
        && !decoded.iter().any(|byte| matches!(byte, 0..0x20 | 0x7F | b'\\'))
        && !decoded.split(|byte| *byte == b'/').any(is_dots)
}

/// Returns a request's own path and query as a target, or `None` if they break the rules for
/// targets. Bytes that a URI must not contain are percent-encoded first.
pub(crate) fn target_of(target: &PathAndQuery) -> Option<LocalTarget> {
    let text = target.as_str();
    text.parse().ok().or_else(|| {
        const NOT_IN_URIS: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS
            .add(b' ')
            .add(b'"')
            .add(b'#')
            .add(b'<')
            .add(b'>')
            .add(b'[')
            .add(b'\\')
            .add(b']')
            .add(b'^')
            .add(b'`')
            .add(b'{')
            .add(b'|')
            .add(b'}');
        percent_encoding::utf8_percent_encode(text, NOT_IN_URIS).to_string().parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_may_lead_to_another_site_is_not_a_target() {
        let long = format!("/{}", "a".repeat(2_048));
        for text in [
            "",
            "a",
            "?a",
            "//",
            "//evil",
            "///evil",
            "/a//b",
            "/a/..//evil",
            "/%2e%2e/x",
            "/a/.%2E/x",
            "/..;/evil",
            "/.;x/evil",
            "/.",
            "/..",
            "/a/.",
            "/a/..",
            "/%2Fevil",
            "/%2f%2fevil",
            "/a%5Cb",
            "/\\evil",
            "\\\\evil",
            "/a\\b",
            "/;//evil",
            "/x%0D%0AX:y",
            "/a%00",
            "/a%7F",
            "/x?a\\b",
            "/a#//evil",
            "/a b",
            "/a\tb",
            "/\t/evil",
            "/%09//evil",
            "/a\r\nX: y",
            "\u{1}/a",
            "/é",
            "/\u{FF0E}",
            "/a%",
            "/a%2",
            "/a%zz",
            "/x?a%",
            "/x?%zz",
            "/\"",
            "/<",
            "/>",
            "/^",
            "/{",
            "/|",
            "/}",
            "/`",
            "/[::1",
            "/x?a[0]",
            "http:/\\evil",
            "http:evil",
            "https://host@evil",
            "javascript:alert(1)",
            "mailto:a@b",
            long.as_str(),
        ] {
            assert_eq!(text.parse::<LocalTarget>(), Err(NotLocal), "{text:?}");
        }
    }

    #[test]
    fn a_target_is_kept_byte_for_byte() {
        let long = format!("/{}", "a".repeat(2_047));
        for text in [
            "/",
            "/?",
            "/a",
            "/a/",
            "/a/b",
            "/x?u=//evil",
            "/x?u=https://evil/",
            "/x?q=a%0D%0Ab",
            "/files/a%2Fb",
            "/%252Fevil",
            "/@evil",
            "/:80/evil",
            "/a%ff",
            "/%E4%BD%90",
            "/a;b=c?d?e",
            "/...",
            "/.well-known/x",
            "/a..",
            "/..a",
            "/x?../..",
            "/~me/!$&'()*+,;=:@",
            long.as_str(),
        ] {
            assert_eq!(text.parse::<LocalTarget>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn a_target_leads_to_a_page_in_any_encoding_of_the_path() {
        for (target, expected) in [
            ("/login", true),
            ("/login?next=/login", true),
            ("/%6Cogin", true),
            ("/login/", false),
            ("/logins", false),
            ("/x?/login", false),
        ] {
            assert_eq!(target.parse::<LocalTarget>().unwrap().leads_to("/login"), expected);
        }
    }

    #[test]
    fn a_request_target_is_encoded_and_must_follow_the_rules_for_targets() {
        for (uri, expected) in [
            ("/a?b=c", Some("/a?b=c")),
            ("/a?b=[c]", Some("/a?b=%5Bc%5D")),
            ("/a?b={c}", Some("/a?b=%7Bc%7D")),
            ("http://evil.example/p?q", Some("/p?q")),
            ("//evil.example/p", None),
            ("/a/../b", None),
            ("*", None),
        ] {
            let Ok(uri) = uri.parse::<http::Uri>() else { panic!("not a URI: {uri}") };
            let target = uri.path_and_query().and_then(target_of);
            assert_eq!(target.as_ref().map(LocalTarget::as_str), expected, "{uri}");
        }
    }
}
