//! Converts a user to properties and back, by serde.
//!
//! The crate's documentation has a table of the types.

mod de;
mod error;
mod merge;
mod ser;
mod types;

pub(crate) use de::{KeyId, fields, read};
pub(crate) use error::{Result, ValueError};
pub(crate) use merge::merge;
pub(crate) use ser::{NewProperties, NewValue, write};
pub use types::{EntityKey, LatLng, PathElement, null_as_default, timestamp};

#[cfg(test)]
mod tests;
