//! Finding cookies in a request.

use http::HeaderValue;

/// A request may send at most this many cookies of one name. No browser sends more by accident, so
/// more cookies are an attack, and none of them counts.
const MAX_PER_NAME: usize = 4;

/// The `Cookie` fields of a request. HTTP/2 clients may split the field (RFC 9113 §8.2.3), so there
/// can be several.
#[derive(Clone, Debug, Default)]
pub(crate) enum CookieFields {
    #[default]
    None,
    One(HeaderValue),
    Many(Vec<HeaderValue>),
}

impl CookieFields {
    /// Adds a `Cookie` field, as a cheap clone.
    pub(crate) fn add(&mut self, field: &HeaderValue) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(field.clone()),
            Self::One(first) => Self::Many(vec![first, field.clone()]),
            Self::Many(mut fields) => {
                fields.push(field.clone());
                Self::Many(fields)
            }
        };
    }

    fn as_slice(&self) -> &[HeaderValue] {
        match self {
            Self::None => &[],
            Self::One(field) => std::slice::from_ref(field),
            Self::Many(fields) => fields,
        }
    }

    /// Finds the values of all cookies with these names, in one pass.
    pub(crate) fn find<const N: usize>(&self, names: [&str; N]) -> [FoundValues<'_>; N] {
        let mut found = [const { FoundValues::NONE }; N];
        for field in self.as_slice() {
            let mut rest = field.as_bytes();
            while let Some(end) = memchr::memchr(b';', rest) {
                add_pair(&mut found, names, &rest[..end]);
                rest = &rest[end + 1..];
            }
            add_pair(&mut found, names, rest);
        }
        found
    }
}

/// Adds the value of a `name=value` pair to the values that were found under its name.
fn add_pair<'a, const N: usize>(
    found: &mut [FoundValues<'a>; N],
    names: [&str; N],
    pair: &'a [u8],
) {
    let pair = pair.trim_ascii_start();
    for (found, name) in found.iter_mut().zip(names) {
        // Names are compared exactly: `__host-x` is not `__Host-x`, even where a browser treats the
        // two prefixes alike. Most names already differ in length.
        if let Some((given, [b'=', value @ ..])) = pair.split_at_checked(name.len())
            && given == name.as_bytes()
        {
            found.add(value.trim_ascii_end());
        }
    }
}

/// The values that a request sent under one cookie name.
pub(crate) struct FoundValues<'a> {
    values: [&'a [u8]; MAX_PER_NAME],
    count: usize,
}

impl<'a> FoundValues<'a> {
    const NONE: Self = Self { values: [&[]; MAX_PER_NAME], count: 0 };

    fn add(&mut self, value: &'a [u8]) {
        if let Some(slot) = self.values.get_mut(self.count) {
            *slot = value;
        }
        self.count += 1;
    }

    /// Checks whether any cookie of this name was sent, with a valid seal or without one.
    pub(crate) fn is_sent(&self) -> bool {
        self.count > 0
    }

    /// Returns the values, or no values if there are more than [`MAX_PER_NAME`].
    pub(crate) fn values(&self) -> impl Iterator<Item = &'a [u8]> {
        let usable = if self.count > MAX_PER_NAME { 0 } else { self.count };
        self.values[..usable].iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_found_by_exact_name_in_all_fields() {
        let fields = |fields: &[&'static str]| {
            let mut found = CookieFields::default();
            fields.iter().for_each(|field| found.add(&HeaderValue::from_static(field)));
            found
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
