//! Tests across crates; what several of them need.
