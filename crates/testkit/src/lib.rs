//! Test tools for tower-keep.
//!
//! | topic | see |
//! | --- | --- |
//! | what a store must do, as tests | [`contract`] |
//! | a store that fails, delays or hangs on demand | [`FaultyStore`] |
//! | several handles on one store, as several servers have them | [`Several`] |
//! | a clock that can be moved | [`TestClock`] |
//! | a client with a cookie jar, for any service (feature `client`) | [`client`] |
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "client")]
pub mod client;
mod clock;
pub mod contract;
mod faulty;
mod several;

pub use clock::TestClock;
pub use faulty::{Call, FaultyStore, Trouble};
pub use several::Several;
