//! All cases that are measured: those of tower-keep, and beside them those of its peer.

mod peer;

use tower_keep_bench_cases::Visitor;

/// Passes every case to the visitor.
pub fn visit(visitor: &mut impl Visitor) {
    tower_keep_bench_cases::visit(visitor);
    peer::visit(visitor);
}
