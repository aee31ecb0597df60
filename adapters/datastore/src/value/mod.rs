//! How values become properties, and are read from them.
//!
//! | serde | property | read as well from |
//! | --- | --- | --- |
//! | `None`, `()` | null | a property that is missing, if the field may be |
//! | integers (`i64` and what fits into it) | integer | |
//! | `f32`, `f64` | double | integer |
//! | `bool` | boolean | |
//! | `String`, `char`, a unit variant | string | |
//! | bytes ([`serde_bytes`](https://docs.rs/serde_bytes)) | blob | |
//! | sequences, tuples, `Vec<u8>` | array | `Vec<u8>`: blob |
//! | structs, maps | embedded entity | |
//! | any other variant | embedded entity of one property, its name | |
//! | [`timestamp`](crate::timestamp) | timestamp | what is read as RFC 3339, or a `SystemTime` |
//! | [`EntityKey`](crate::EntityKey) | key | |
//! | [`LatLng`](crate::LatLng) | lat/lng | |
//!
//! A write keeps a property's type where the new value can have it: a string in RFC 3339 stays a
//! timestamp where there was one, numbers stay integers or doubles, bytes a blob.

mod de;
mod error;
mod merge;
mod ser;
mod types;

pub(crate) use de::{Id, read};
pub(crate) use error::{Error, Result};
pub(crate) use merge::merge;
pub(crate) use ser::{Plain, Properties, write};
pub use types::{EntityKey, LatLng, PathElement, timestamp};

#[cfg(test)]
mod tests;
