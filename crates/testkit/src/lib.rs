//! Test tools for tower-keep.
//!
//! | look for | in |
//! | --- | --- |
//! | a clock that can be moved | [`TestClock`] |
//! | a client with a cookie jar, over any service (feature `client`) | [`client`] |
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "client")]
pub mod client;
mod clock;

pub use clock::TestClock;
