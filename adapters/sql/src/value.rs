//! The values of a statement's parameters.

use tower_keep_core::{CounterKey, SessionKey, Timestamp};

/// The value of a statement's parameter.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    /// A number, or a time in seconds.
    Int(Option<i64>),
    /// A text.
    Text(Option<&'a str>),
    /// Bytes.
    Bytes(Option<&'a [u8]>),
    /// A boolean.
    Flag(bool),
}

impl From<u32> for Value<'_> {
    fn from(number: u32) -> Self {
        Self::Int(Some(number.into()))
    }
}

/// Converts a maximum number of rows. Databases count in `i64`, so a greater number becomes
/// `i64::MAX`.
impl From<usize> for Value<'_> {
    fn from(number: usize) -> Self {
        Self::Int(Some(i64::try_from(number).unwrap_or(i64::MAX)))
    }
}

impl From<Timestamp> for Value<'_> {
    fn from(time: Timestamp) -> Self {
        time.as_secs().into()
    }
}

impl From<Option<Timestamp>> for Value<'_> {
    fn from(time: Option<Timestamp>) -> Self {
        Self::Int(time.map(|time| time.as_secs().into()))
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Some(text))
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(Some(bytes))
    }
}

impl<'a> From<&'a SessionKey> for Value<'a> {
    fn from(key: &'a SessionKey) -> Self {
        key.as_bytes()[..].into()
    }
}

impl<'a> From<&'a CounterKey> for Value<'a> {
    fn from(key: &'a CounterKey) -> Self {
        key.as_bytes()[..].into()
    }
}
