//! A user id that every database can store.

use std::cmp::Ordering;
use std::fmt::{self, Display, Write};
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

/// A user's id: opaque text, compared byte for byte.
///
/// Ids of up to 38 bytes (numbers, UUIDs, most names) are stored inline, so creating or cloning one
/// does not allocate. A store whose ids are numbers or UUIDs converts them back with
/// [`parse`](Self::parse).
///
/// ```
/// use tower_keep_core::UserId;
///
/// assert_eq!(UserId::from(7).as_str(), "7");
/// assert_eq!(UserId::from("7").parse::<i64>(), Some(7));
/// assert_eq!(UserId::from("007").parse::<i64>(), None); // not the canonical form of 7
/// assert_eq!(UserId::from("佐藤").as_str(), "佐藤");
/// ```
#[derive(Clone)]
pub struct UserId(Repr);

/// An id of at most this many bytes is stored inline. A UUID has 36 bytes, and `Repr` is no larger
/// with room for 38.
const INLINE: usize = 38;

#[derive(Clone)]
enum Repr {
    Inline { len: u8, bytes: [u8; INLINE] },
    Shared(Arc<str>),
}

impl UserId {
    /// Creates an id from the text that `Display` writes, for example that of a UUID.
    pub fn display(id: impl Display) -> Self {
        let mut writer = IdWriter(Self::from(""));
        // Writing to memory can't fail. If a `Display` returns an error, the text that it wrote
        // before the error becomes the id.
        let _ = write!(writer, "{id}");
        writer.0
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            // The bytes were copied from a `str`, so they are always valid UTF-8.
            Repr::Inline { len, bytes } => {
                std::str::from_utf8(&bytes[..usize::from(*len)]).unwrap_or_default()
            }
            Repr::Shared(text) => text,
        }
    }

    /// Returns the bytes of the id's text.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Repr::Shared(text) => text.as_bytes(),
        }
    }

    /// Parses the id as `T`, the type of the ids in a store. Returns `None` if it can't be such an
    /// id.
    ///
    /// Only the canonical text is accepted, which is the text that `T` itself writes. `"007"`,
    /// `"+7"` and `" 7"` are not the number 7. If they were, one user would have several ids, and
    /// could bypass a ban or a rate limit that is kept by id.
    pub fn parse<T: FromStr + Display>(&self) -> Option<T> {
        let value: T = self.as_str().parse().ok()?;
        let mut expected = ExpectedText(self.as_str());
        let is_canonical = write!(expected, "{value}").is_ok() && expected.0.is_empty();
        is_canonical.then_some(value)
    }
}

/// Appends each written text to an id. The id is inline as long as the text fits.
struct IdWriter(UserId);

impl Write for IdWriter {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        if let Repr::Inline { len, bytes } = &mut self.0.0 {
            let start = usize::from(*len);
            if let Some(free) = bytes.get_mut(start..start + more.len()) {
                free.copy_from_slice(more.as_bytes());
                *len += more.len() as u8;
                return Ok(());
            }
        }
        self.0 = UserId::from([self.0.as_str(), more].concat());
        Ok(())
    }
}

/// The text that is still to be written. A write removes its text from the front, and fails if the
/// expected text does not begin with it.
struct ExpectedText<'a>(&'a str);

impl Write for ExpectedText<'_> {
    fn write_str(&mut self, written: &str) -> fmt::Result {
        self.0 = self.0.strip_prefix(written).ok_or(fmt::Error)?;
        Ok(())
    }
}

impl From<&str> for UserId {
    fn from(text: &str) -> Self {
        let mut bytes = [0; INLINE];
        match bytes.get_mut(..text.len()) {
            Some(inline) => {
                inline.copy_from_slice(text.as_bytes());
                Self(Repr::Inline { len: text.len() as u8, bytes })
            }
            None => Self(Repr::Shared(text.into())),
        }
    }
}

impl From<String> for UserId {
    fn from(text: String) -> Self {
        if text.len() <= INLINE { text.as_str().into() } else { Self(Repr::Shared(text.into())) }
    }
}

impl From<&String> for UserId {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

impl From<&UserId> for UserId {
    fn from(id: &UserId) -> Self {
        id.clone()
    }
}

macro_rules! from_integers {
    ($($integer:ty)*) => {$(
        impl From<$integer> for UserId {
            fn from(id: $integer) -> Self {
                Self::display(id)
            }
        }
    )*};
}

from_integers!(i16 i32 i64 i128 u16 u32 u64 u128 isize usize);

impl PartialEq for UserId {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for UserId {}

impl PartialOrd for UserId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for UserId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

/// Hashes like the id's text: its bytes, then a byte that no text contains.
impl Hash for UserId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.as_bytes());
        state.write_u8(0xFF);
    }
}

/// Hashes and compares like the id's text, so that a map of ids can be queried with a `&str`.
impl std::borrow::Borrow<str> for UserId {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for UserId {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserId({:?})", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_text_parses() {
        for (text, expected) in [
            ("7", Some(7)),
            ("-7", Some(-7)),
            ("0", Some(0)),
            ("007", None),
            ("+7", None),
            ("-0", None),
            (" 7", None),
            ("7 ", None),
            ("", None),
            ("seven", None),
            ("7\0", None),
            ("99999999999999999999", None),
            ("\u{0667}", None),
        ] {
            assert_eq!(UserId::from(text).parse::<i64>(), expected, "{text:?}");
        }
        assert_eq!(UserId::from("").parse::<String>(), Some(String::new()));
    }

    #[test]
    fn an_id_keeps_a_text_of_any_length() {
        for len in [0, 1, 36, 37, 38, 39, 40, 1_500, 70_000] {
            let text = "é".repeat(len / 2) + &"x".repeat(len % 2);
            for id in [UserId::from(text.as_str()), text.clone().into(), UserId::display(&text)] {
                assert_eq!(id.as_str(), text);
                assert_eq!(id.as_bytes(), text.as_bytes());
                assert_eq!(id.clone(), id);
                assert_eq!(matches!(id.0, Repr::Inline { .. }), len <= INLINE, "{len}");
            }
        }
    }

    #[test]
    fn an_id_has_the_hash_of_its_text() {
        use std::hash::{BuildHasher, RandomState};
        let state = RandomState::new();
        for text in ["", "7", "佐藤", &"x".repeat(38), &"x".repeat(39)] {
            assert_eq!(state.hash_one(UserId::from(text)), state.hash_one(text));
        }
    }

    #[test]
    fn integers_are_written_in_decimal() {
        assert_eq!(UserId::from(i128::MIN).as_str(), i128::MIN.to_string());
        assert_eq!(UserId::from(u64::MAX).parse::<u64>(), Some(u64::MAX));
    }
}
