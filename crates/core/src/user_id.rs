//! An id that fits every database.

use std::cmp::Ordering;
use std::fmt::{self, Display, Write};
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

/// A user's id: opaque text, compared byte for byte.
///
/// Ids of up to 38 bytes (numbers, UUIDs, most names) are kept inline, and neither making nor
/// cloning one allocates. A store whose ids are numbers or UUIDs reads them back with
/// [`parse`](Self::parse).
///
/// ```
/// use tower_keep_core::UserId;
///
/// assert_eq!(UserId::from(7).as_str(), "7");
/// assert_eq!(UserId::from("7").parse::<i64>(), Some(7));
/// assert_eq!(UserId::from("007").parse::<i64>(), None); // not how 7 is written
/// assert_eq!(UserId::from("佐藤").as_str(), "佐藤");
/// ```
#[derive(Clone)]
pub struct UserId(Repr);

/// A UUID is 36 bytes; 38 fill the size that the shared form and the tag take anyway.
const INLINE: usize = 38;

#[derive(Clone)]
enum Repr {
    Inline { len: u8, bytes: [u8; INLINE] },
    Shared(Arc<str>),
}

impl UserId {
    /// The id as its `Display` writes it, such as a UUID.
    pub fn display(id: impl Display) -> Self {
        let mut text = Text(Self::from(""));
        // Writing to memory can't fail, and a `Display` that claims to fail has written what it
        // could.
        let _ = write!(text, "{id}");
        text.0
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            // Always valid: the bytes were copied from a `str`.
            Repr::Inline { len, bytes } => {
                std::str::from_utf8(&bytes[..usize::from(*len)]).unwrap_or_default()
            }
            Repr::Shared(text) => text,
        }
    }

    /// The id as the bytes of its text.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Repr::Shared(text) => text.as_bytes(),
        }
    }

    /// The id as the type that a store keeps its ids in; `None` if it can't be one of those.
    ///
    /// Only the canonical text is taken, the one that `T` itself writes: `"007"`, `"+7"` and
    /// `" 7"` are not the number 7. Otherwise one user would have several ids, and what is kept by
    /// id (a ban, a rate limit) could be walked around.
    pub fn parse<T: FromStr + Display>(&self) -> Option<T> {
        let value: T = self.as_str().parse().ok()?;
        let mut rest = Remaining(self.as_str());
        (write!(rest, "{value}").is_ok() && rest.0.is_empty()).then_some(value)
    }
}

/// Collects text into an id, inline for as long as it fits.
struct Text(UserId);

impl Write for Text {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        if let Repr::Inline { len, bytes } = &mut self.0.0 {
            let start = usize::from(*len);
            if let Some(room) = bytes.get_mut(start..start + more.len()) {
                room.copy_from_slice(more.as_bytes());
                *len += more.len() as u8;
                return Ok(());
            }
        }
        self.0 = UserId::from([self.0.as_str(), more].concat());
        Ok(())
    }
}

/// Takes what is written off the front of the expected text, and fails where they differ.
struct Remaining<'a>(&'a str);

impl Write for Remaining<'_> {
    fn write_str(&mut self, written: &str) -> fmt::Result {
        self.0 = self.0.strip_prefix(written).ok_or(fmt::Error)?;
        Ok(())
    }
}

impl From<&str> for UserId {
    fn from(text: &str) -> Self {
        let mut bytes = [0; INLINE];
        match bytes.get_mut(..text.len()) {
            Some(room) => {
                room.copy_from_slice(text.as_bytes());
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

/// As its text would: its bytes, and one that no text has.
impl Hash for UserId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.as_bytes());
        state.write_u8(0xFF);
    }
}

/// Hashes and compares as its text does, so that a map of ids can be asked with a `&str`.
impl std::borrow::Borrow<str> for UserId {
    fn borrow(&self) -> &str {
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
    fn text_of_every_length_survives() {
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
    fn an_id_hashes_as_its_text() {
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
