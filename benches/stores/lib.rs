//! What the benches of the stores have in common: servers, and tables that are filled fast.
//!
//! They are a package of their own, because they compile every database's driver. Measuring a
//! request needs none of them.

pub mod databases;
pub mod loaded;
