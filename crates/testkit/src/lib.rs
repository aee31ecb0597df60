//! Test tools for tower-keep.
//!
//! | topic | see |
//! | --- | --- |
//! | the contracts of stores, as tests | [`contract`] |
//! | a store that fails, delays or hangs on demand | [`FaultyStore`] |
//! | several handles on the same data, like those of several servers | [`Several`] |
//! | a clock that tests move | [`TestClock`] |
//! | a client with a cookie jar, for any service (feature `client`) | [`client`] |
//!
//! # Features
//!
//! | feature | default | what it adds |
//! | --- | --- | --- |
//! | `client` | off | a client with a cookie jar, for any tower service; adds `tower-keep` to the dependencies |
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

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
