//! Converts a user to properties and back, by serde.
//!
//! The crate's documentation has a table of the types.

pub(crate) mod de;
pub(crate) mod error;
pub(crate) mod merge;
pub(crate) mod ser;
pub(crate) mod types;

#[cfg(test)]
mod tests;
