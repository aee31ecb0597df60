//! Converts values to properties, and back.
//!
//! The table of types is in the crate's documentation.

mod de;
mod error;
mod merge;
mod ser;
mod types;

pub(crate) use de::{Id, fields, read};
pub(crate) use error::{Result, ValueError};
pub(crate) use merge::merge;
pub(crate) use ser::{Plain, Properties, write};
pub use types::{EntityKey, LatLng, PathElement, null_as_default, timestamp};

#[cfg(test)]
mod tests;
