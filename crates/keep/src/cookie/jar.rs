//! Finding cookies in a request.

use http::HeaderMap;
use http::header::{self, HeaderValue};

/// The most cookies of one name that count. A browser does not send more for one site by accident,
/// so more are an attempt to cause work or confusion, and then none of them counts.
const MOST_OF_ONE_NAME: usize = 4;

/// The `Cookie` fields of a request. HTTP/2 splits them (RFC 9113 §8.2.3), so there can be several.
#[derive(Clone, Debug, Default)]
pub(crate) enum CookieFields {
    #[default]
    None,
    One(HeaderValue),
    Many(Vec<HeaderValue>),
}

impl CookieFields {
    /// Returns cheap clones of all fields.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut fields = headers.get_all(header::COOKIE).iter();
        match (fields.next(), fields.next()) {
            (None, _) => Self::None,
            (Some(only), None) => Self::One(only.clone()),
            (Some(_), Some(_)) => {
                Self::Many(headers.get_all(header::COOKIE).iter().cloned().collect())
            }
        }
    }

    fn as_slice(&self) -> &[HeaderValue] {
        match self {
            Self::None => &[],
            Self::One(field) => std::slice::from_ref(field),
            Self::Many(fields) => fields,
        }
    }

    /// Finds the values of all cookies with these names, in one pass.
    pub(crate) fn find<const N: usize>(&self, names: [&str; N]) -> [Found<'_>; N] {
        let mut found = [const { Found::NONE }; N];
        for field in self.as_slice() {
            let mut rest = field.as_bytes();
            while let Some(end) = memchr::memchr(b';', rest) {
                note(&mut found, names, &rest[..end]);
                rest = &rest[end + 1..];
            }
            note(&mut found, names, rest);
        }
        found
    }
}

/// Adds the pair's value to the values that were found under its name.
fn note<'a, const N: usize>(found: &mut [Found<'a>; N], names: [&str; N], pair: &'a [u8]) {
    let pair = pair.trim_ascii_start();
    for (found, name) in found.iter_mut().zip(names) {
        // Names are compared exactly: `__host-x` is not `__Host-x`, even where a browser treats the
        // two prefixes alike. Most names already differ in length.
        if let Some((given, [b'=', value @ ..])) = pair.split_at_checked(name.len())
            && given == name.as_bytes()
        {
            found.note(value.trim_ascii_end());
        }
    }
}

/// The values that were sent under one name.
pub(crate) struct Found<'a> {
    values: [&'a [u8]; MOST_OF_ONE_NAME],
    count: usize,
}

impl<'a> Found<'a> {
    const NONE: Self = Self { values: [&[]; MOST_OF_ONE_NAME], count: 0 };

    fn note(&mut self, value: &'a [u8]) {
        if let Some(place) = self.values.get_mut(self.count) {
            *place = value;
        }
        self.count += 1;
    }

    /// Checks whether any cookie of this name was sent, with a valid seal or without one.
    pub(crate) fn is_sent(&self) -> bool {
        self.count > 0
    }

    /// Returns the values, or none of them if there were suspiciously many.
    pub(crate) fn values(&self) -> impl Iterator<Item = &'a [u8]> {
        let usable = if self.count > MOST_OF_ONE_NAME { 0 } else { self.count };
        self.values[..usable].iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_by_exact_name_in_all_fields() {
        let fields = |fields: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(header::COOKIE, HeaderValue::from_static(field));
            }
            CookieFields::of(&headers)
        };
        for (sent, expected) in [
            (&[][..], &[][..]),
            (&["id=1"], &["1"]),
            (&["a=b; id=1; c=d"], &["1"]),
            (&["a=b;id=1;c=d"], &["1"]),
            (&["a=b", "id=1"], &["1"]),
            (&["id=1", "id=2"], &["1", "2"]),
            (&["id=1; id=2; id=1"], &["1", "2", "1"]),
            (&["id=1=2"], &["1=2"]),
            (&["id="], &[""]),
            (&["id"], &[]),
            (&["ID=1; xid=1; idx=1; id =1; i=id=1"], &[]),
            (&["; ;;id=1;"], &["1"]),
            (&["id=1; id=2; id=3; id=4; id=5"], &[]),
        ] {
            let fields = fields(sent);
            let [found] = fields.find(["id"]);
            let found: Vec<&[u8]> = found.values().collect();
            let expected: Vec<&[u8]> = expected.iter().map(|value| value.as_bytes()).collect();
            assert_eq!(found, expected, "{sent:?}");
        }
        let many = fields(&["id=1; id=2; id=3; id=4; id=5"]);
        let [id, other] = many.find(["id", "other"]);
        assert!(id.is_sent() && !other.is_sent());
    }
}
