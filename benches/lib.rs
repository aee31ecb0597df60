//! All cases that are measured: the cases of tower-keep, and those of axum-login, the crate that
//! tower-keep is compared with.

mod peer;

use tower_keep_bench_cases::CaseRunner;

/// Passes every case to the runner.
pub fn run_cases(runner: &mut impl CaseRunner) {
    tower_keep_bench_cases::run_cases(runner);
    peer::run_cases(runner);
}
