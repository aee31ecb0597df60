//! Finding cookies in a request.

use http::HeaderMap;
use http::header::{self, HeaderValue};

/// More cookies of one name than a browser sends for one site by accident: they are somebody's
/// attempt to cause work or confusion, and none counts.
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
    /// Cheap clones of all fields.
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

    /// The values of all cookies of this name.
    pub(crate) fn find(&self, name: &str) -> Found<'_> {
        let mut found = Found { values: [&[]; MOST_OF_ONE_NAME], count: 0 };
        for field in self.as_slice() {
            for pair in field.as_bytes().split(|byte| *byte == b';') {
                let pair = pair.trim_ascii();
                // Names are compared exactly: `__host-x` is not `__Host-x`, whatever its case
                // promises to a browser.
                if let Some(value) =
                    pair.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"="))
                {
                    if let Some(place) = found.values.get_mut(found.count) {
                        *place = value;
                    }
                    found.count += 1;
                }
            }
        }
        found
    }
}

/// The values that were sent under one name.
pub(crate) struct Found<'a> {
    values: [&'a [u8]; MOST_OF_ONE_NAME],
    count: usize,
}

impl<'a> Found<'a> {
    /// Whether any was sent, genuine or not.
    pub(crate) fn is_sent(&self) -> bool {
        self.count > 0
    }

    /// The values; none if there were suspiciously many.
    pub(crate) fn values(&self) -> impl Iterator<Item = &'a [u8]> {
        let usable = if self.count > MOST_OF_ONE_NAME { 0 } else { self.count };
        self.values.into_iter().take(usable)
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
            let found: Vec<&[u8]> = fields.find("id").values().collect();
            let expected: Vec<&[u8]> = expected.iter().map(|value| value.as_bytes()).collect();
            assert_eq!(found, expected, "{sent:?}");
        }
        assert!(fields(&["id=1; id=2; id=3; id=4; id=5"]).find("id").is_sent());
    }
}
