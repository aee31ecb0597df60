//! What the benches of the stores have in common: starting servers, and filling tables fast.
//!
//! These benches are a package of their own, because they compile the drivers of all databases. The
//! benches of a request need no driver.

pub mod databases;
pub mod tables;
