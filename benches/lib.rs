//! All cases that are measured: those of tower-keep, and beside them those of its peer.

mod peer;

use tower_keep_bench_cases::CaseRunner;

/// Passes every case to the runner.
pub fn run_cases(runner: &mut impl CaseRunner) {
    tower_keep_bench_cases::run_cases(runner);
    peer::run_cases(runner);
}
